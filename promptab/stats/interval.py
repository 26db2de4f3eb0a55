"""An interval, and which side of a null hypothesis is tested."""

from __future__ import annotations

from typing import Literal, NamedTuple

Alternative = Literal["two-sided", "greater", "less"]
"""What is claimed of an effect: that it differs from the null value, lies above it, or lies below it."""

Side = Literal["greater", "less"]
"""What is claimed of a rate or a mean: that it lies above a bound, or below it."""


class Interval(NamedTuple):
    """What an effect may be. An end of a one-sided interval that says nothing is infinite."""

    low: float
    high: float

    def excludes(self, value: float) -> bool:
        return value < self.low or value > self.high

    def mirrored(self) -> Interval:
        """Return the interval of the effect with its sign turned round."""
        return Interval(-self.high, -self.low)

    def within(self, lowest: float | None, highest: float | None) -> Interval:
        """Cut off what a metric's own bounds make impossible."""
        low = self.low if lowest is None else max(self.low, lowest)
        high = self.high if highest is None else min(self.high, highest)
        return Interval(low, high)
