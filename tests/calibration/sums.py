"""Events into sums over units, as they stand at the end of each day: what the database does, by arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from promptab.analysis.evidence import UnitTotal
from promptab.analysis.inference import FEW_UNITS
from promptab.stats.summary import UnitSums
from tests.calibration.outcomes import Bools, Events, Floats, Integers
from tests.calibration.schedule import DAYS, Schedule

CONTROL, TREATMENT = "control", "treatment"
ARMS = (CONTROL, TREATMENT)

SumsByEpoch = dict[int, UnitSums]
Look = Mapping[str, SumsByEpoch]
"""The sums of each arm by epoch, at one moment."""


class UnitTotals(NamedTuple):
    """(n_u, s_u) of all units of several experiments, experiments by units; by days too where they change."""

    n: Floats
    s: Floats
    treated: Bools

    @classmethod
    def on_arrival(cls, events: Events, treated: Bools) -> UnitTotals:
        """Each unit brings all its events on the day of its arrival."""
        return cls(events.per_unit(events.weights), events.per_unit(events.values), treated)

    @classmethod
    def spread(cls, events: Events, days: Integers, treated: Bools) -> UnitTotals:
        """Each event has a day of its own; totals are those of the events up to each day."""
        experiments, units = events.counts.shape
        unit_of_event = np.repeat(np.arange(experiments * units), events.counts.ravel())
        cells, shape = unit_of_event * DAYS + days, (experiments, units, DAYS)

        def totals(of_events: Floats) -> Floats:
            of_days = np.bincount(cells, weights=of_events, minlength=experiments * units * DAYS)
            running: Floats = of_days.reshape(shape).cumsum(axis=2)
            return running

        return cls(totals(events.weights), totals(events.values), treated)

    def sums(self, schedule: Schedule, center: float) -> Floats:
        """Return the fields of `UnitSums`: experiments by days by arms by epochs by fields."""
        r = self.s - center * self.n
        present = ((self.n > 0.0) | (self.s != 0.0)).astype(np.float64)
        columns = (present, self.n, self.s, r * r, self.n * self.n, r * self.n)
        added = _by_day if self.n.ndim == 2 else _at_each_day
        return _with_center(added(columns, self.treated, schedule), center)

    def single_units(
        self, schedule: Schedule, experiment: int, day: int
    ) -> dict[str, dict[int, list[UnitTotal]]]:
        """Return the pairs of the units that have events by the end of this day, by arm and epoch."""
        seen = (
            slice(None)
            if self.n.ndim == 3
            else slice(0, np.append(schedule.first_units, schedule.units)[day + 1])
        )
        n, s = (
            (of_units[experiment, seen, day] if of_units.ndim == 3 else of_units[experiment, seen])
            for of_units in (self.n, self.s)
        )
        present, epochs = (n > 0.0) | (s != 0.0), schedule.epoch_of_units()[seen]
        in_arms = (~self.treated[experiment, seen], self.treated[experiment, seen])
        return {
            arm: {
                epoch: list(zip(n[chosen].tolist(), s[chosen].tolist(), strict=True))
                for epoch in schedule.epoch_numbers
                for chosen in [present & dealt & (epochs == epoch)]
            }
            for arm, dealt in zip(ARMS, in_arms, strict=True)
        }


def sums_of_events(events: Events, treated: Bools, schedule: Schedule, center: float) -> Floats:
    """Return the fields of `UnitSums` at the end, with every event taken for a unit of its own."""
    r = events.values - center * events.weights
    present = ((events.weights > 0.0) | (events.values != 0.0)).astype(np.float64)
    of_events = (present, events.weights, events.values, r * r, events.weights**2, r * events.weights)
    columns = tuple(events.per_unit(column) for column in of_events)
    return _with_center(_by_day(columns, treated, schedule), center)[:, -1:]


def looks_of(fields: Floats) -> list[list[Look]]:
    """Turn arrays into what the analysis takes: for each experiment, its looks."""
    return [
        [
            {
                arm: {epoch: UnitSums(int(row[0]), *row[1:]) for epoch, row in enumerate(by_epoch) if row[0]}
                for arm, by_epoch in zip(ARMS, by_arm, strict=True)
            }
            for by_arm in by_day
        ]
        for by_day in fields.tolist()
    ]


def has_few_units(look: Look) -> bool:
    """Say whether the store would send the single units along."""
    return 0 < min(sum(sums.units for sums in look[arm].values()) for arm in ARMS) < FEW_UNITS


def pooled_over_epochs(look: Look) -> Look:
    """Mix the epochs together, which is what must not be done."""
    return {arm: {0: UnitSums.pooled(by_epoch.values())} for arm, by_epoch in look.items()}


def _by_day(columns: Sequence[Floats], treated: Bools, schedule: Schedule) -> Floats:
    """Add up columns (experiments by units) over the units that arrived up to each day."""
    in_epoch = _days_of_epochs(schedule)
    total = np.empty((len(treated), DAYS, 2, len(in_epoch), len(columns)))
    for arm, dealt in enumerate((~treated, treated)):
        for place, column in enumerate(columns):
            by_day = np.add.reduceat(column * dealt, schedule.first_units, axis=1)
            for epoch, days in enumerate(in_epoch):
                total[:, :, arm, epoch, place] = (by_day * days).cumsum(axis=1)
    return total


def _at_each_day(columns: Sequence[Floats], treated: Bools, schedule: Schedule) -> Floats:
    """Add up columns (experiments by units by days) over units; there is one epoch."""
    total = np.empty((len(treated), DAYS, 2, 1, len(columns)))
    for arm, dealt in enumerate((~treated, treated)):
        for place, column in enumerate(columns):
            total[:, :, arm, 0, place] = np.einsum("eut,eu->et", column, dealt.astype(np.float64))
    return total


def _days_of_epochs(schedule: Schedule) -> list[Floats]:
    return [(np.array(schedule.epochs) == epoch).astype(np.float64) for epoch in schedule.epoch_numbers]


def _with_center(fields: Floats, center: float) -> Floats:
    return np.insert(fields, 3, center, axis=-1)
