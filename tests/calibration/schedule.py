"""When units arrive, how they are dealt, and how the base rate moves meanwhile."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tests.calibration.outcomes import Bools, Floats, Integers

DAYS = 28


class Schedule(NamedTuple):
    """Four weeks of arrivals, as many each day; numbers are one per day."""

    units: int
    """Of both arms together, over all days."""
    shares: tuple[float, ...]
    """Of the units that the weights send to the treatment."""
    levels: tuple[float, ...]
    """What the metric's base value is multiplied by, in both arms."""
    epochs: tuple[int, ...]

    @property
    def first_units(self) -> Integers:
        """The number of units that arrived before each day."""
        return np.arange(DAYS, dtype=np.int64) * self.units // DAYS

    @property
    def arrivals(self) -> Integers:
        """The day of each unit, in order of arrival."""
        counts = np.diff(np.append(self.first_units, self.units))
        return np.repeat(np.arange(DAYS, dtype=np.int64), counts)

    @property
    def epoch_numbers(self) -> range:
        return range(max(self.epochs) + 1)

    def epoch_of_units(self) -> Integers:
        return np.array(self.epochs, dtype=np.int64)[self.arrivals]

    def deal(self, generator: np.random.Generator, experiments: int) -> Bools:
        """Deal every unit by itself, as a hash does: true for the treatment; experiments by units."""
        shares = np.array(self.shares)[self.arrivals]
        dealt: Bools = generator.random((experiments, self.units)) < shares
        return dealt

    def expected(self, base: float, effect: float, treated: Bools) -> Floats:
        """Return what the metric comes to for each unit; the effect is added on whatever day."""
        values: Floats = base * np.array(self.levels)[self.arrivals] + effect * treated
        return values


def steady(units: int) -> Schedule:
    """50/50 all the time, and nothing moves."""
    return Schedule(units, (0.5,) * DAYS, (1.0,) * DAYS, (0,) * DAYS)


def ramped(units: int) -> Schedule:
    """90/10 for two weeks, then 50/50, when the base value is 20 % higher."""
    half = DAYS // 2
    return Schedule(
        units, (0.1,) * half + (0.5,) * half, (1.0,) * half + (1.2,) * half, (0,) * half + (1,) * half
    )
