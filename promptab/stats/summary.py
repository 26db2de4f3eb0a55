"""What statistics need of the events: sums over units, which merge by addition."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple, Self

from promptab.errors import InvalidInputError


class UnitSums(NamedTuple):
    """Sums over the units of one variant, epoch and metric that have events which carried the metric.

    Unit u has n_u > 0 such events, whose values add up to s_u. `UnitSums()` is the sum over no units.

    Second moments are of r_u = s_u - c n_u and not of s_u: the spread around a mean far from zero is a small
    difference of large raw sums, and rounding eats it. With c near the mean nothing cancels. Which c was
    taken changes no result beyond rounding.
    """

    units: int = 0
    """Count of units; a unit without an event that carried the metric is not in it."""
    n: float = 0.0
    """Σ n_u"""
    s: float = 0.0
    """Σ s_u, as recorded: not centered."""
    center: float = 0.0
    """c, in the metric's own unit per event."""
    rr: float = 0.0
    """Σ r_u²"""
    nn: float = 0.0
    """Σ n_u²"""
    rn: float = 0.0
    """Σ r_u n_u"""

    def complement(self) -> Self:
        """Return the sums of 1 - x, for a metric x of zeros and ones: the error rate of a success rate."""
        return self._replace(s=self.n - self.s, center=1.0 - self.center, rn=-self.rn)

    @classmethod
    def of(cls, totals: Iterable[tuple[float, float]], *, center: float | None = None) -> Self:
        """Add up (n_u, s_u), one pair per unit; pairs of zeros are no units here.

        `center` is Σs/Σn unless given, and 0 where there are no units. Sums made by a database are held
        against these.
        """
        kept = [(n, s) for n, s in totals if n != 0 or s != 0]
        n_total = math.fsum(n for n, _ in kept)
        s_total = math.fsum(s for _, s in kept)
        if center is None:
            center = s_total / n_total if n_total else 0.0
        centered = [(n, s - center * n) for n, s in kept]
        return cls(
            units=len(kept),
            n=n_total,
            s=s_total,
            center=center,
            rr=math.fsum(r * r for _, r in centered),
            nn=math.fsum(n * n for n, _ in centered),
            rn=math.fsum(r * n for n, r in centered),
        )

    @classmethod
    def pooled(cls, parts: Iterable[UnitSums]) -> UnitSums:
        """Merge parts of any centers; the result has the center of the first part that has units."""
        total: UnitSums = cls()
        for part in parts:
            total = total + (part.recentered(total.center) if total.units else part)
        return total

    def __add__(self, other: UnitSums) -> UnitSums:  # type: ignore[override]  # plain tuples are joined by +
        """Merge the sums of two disjoint sets of units. Refuses two centers, unless a side has no units."""
        if not other.units:
            return self
        if not self.units:
            return other
        if self.center != other.center:
            bound = f"the center of the other side, {self.center!r}"
            raise InvalidInputError("center", other.center, bound, "make them equal with recentered(...)")
        return UnitSums(
            units=self.units + other.units,
            n=self.n + other.n,
            s=self.s + other.s,
            center=self.center,
            rr=self.rr + other.rr,
            nn=self.nn + other.nn,
            rn=self.rn + other.rn,
        )

    def recentered(self, center: float) -> UnitSums:
        """Return the same units' sums about another c: with r' = r - δn, Σr'² = Σr² - 2δΣrn + δ²Σn²."""
        shift = center - self.center
        return self._replace(
            center=center,
            rr=self.rr - 2 * shift * self.rn + shift * shift * self.nn,
            rn=self.rn - shift * self.nn,
        )
