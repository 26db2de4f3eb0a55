"""Sums over units that carry, beside the outcomes, what the same units did before their first exposure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple, Self

from promptab.errors import InvalidInputError
from promptab.stats.summary import UnitSums


class CovariateSums(NamedTuple):
    """Sums over the units of one variant, epoch and metric; they merge by addition.

    Unit u has n_u events since its first exposure, whose values add up to s_u, and m_u events before it, whose
    values add up to x_u; for a ratio of two measures n_u and m_u are totals of the second measure. A unit with
    nothing before has m_u = x_u = 0 and so deviates from no ratio Σx/Σm: it counts as average. A mean per unit
    has n_u = m_u = 1. `CovariateSums()` is the sum over no units.

    Second moments are of r_u = s_u - c n_u and z_u = x_u - d m_u, for the reason given at `UnitSums`. Which c
    and d were taken changes no result beyond rounding.
    """

    units: int = 0
    """Count of units; a unit without an event that carried the metric since its exposure is not in it."""
    with_history: int = 0
    """Count of those with anything before: m_u or x_u is not 0."""
    n: float = 0.0
    """Σ n_u"""
    s: float = 0.0
    """Σ s_u, as recorded: not centered."""
    center: float = 0.0
    """c, in the metric's own unit per event."""
    m: float = 0.0
    """Σ m_u"""
    x: float = 0.0
    """Σ x_u, as recorded: not centered."""
    pre_center: float = 0.0
    """d, in the covariate's own unit per event."""
    rr: float = 0.0
    """Σ r_u²"""
    nn: float = 0.0
    """Σ n_u²"""
    rn: float = 0.0
    """Σ r_u n_u"""
    zz: float = 0.0
    """Σ z_u²"""
    mm: float = 0.0
    """Σ m_u²"""
    zm: float = 0.0
    """Σ z_u m_u"""
    rz: float = 0.0
    """Σ r_u z_u"""
    rm: float = 0.0
    """Σ r_u m_u"""
    nz: float = 0.0
    """Σ n_u z_u"""
    nm: float = 0.0
    """Σ n_u m_u"""

    @property
    def outcomes(self) -> UnitSums:
        """The same units without their history."""
        return UnitSums(self.units, self.n, self.s, self.center, self.rr, self.nn, self.rn)

    @property
    def before(self) -> UnitSums:
        """The covariate alone: (m_u, x_u) in the places of (n_u, s_u), over all units, history or none."""
        return UnitSums(self.units, self.m, self.x, self.pre_center, self.zz, self.mm, self.zm)

    @classmethod
    def of(
        cls,
        totals: Iterable[tuple[float, float, float, float]],
        *,
        center: float | None = None,
        pre_center: float | None = None,
    ) -> Self:
        """Add up (n_u, s_u, m_u, x_u), one row per unit; rows with n_u = s_u = 0 are no units here.

        The centers are Σs/Σn and Σx/Σm unless given, and 0 where there is nothing to divide by. Sums made by
        a database are held against these.
        """
        kept = [row for row in totals if row[0] != 0 or row[1] != 0]
        n_total, s_total, m_total, x_total = (math.fsum(row[i] for row in kept) for i in range(4))
        c = center if center is not None else (s_total / n_total if n_total else 0.0)
        d = pre_center if pre_center is not None else (x_total / m_total if m_total else 0.0)
        centered = [(s - c * n, n, x - d * m, m) for n, s, m, x in kept]
        return cls(
            units=len(kept),
            with_history=sum(1 for _, _, m, x in kept if m or x),
            n=n_total,
            s=s_total,
            center=c,
            m=m_total,
            x=x_total,
            pre_center=d,
            rr=math.fsum(r * r for r, _, _, _ in centered),
            nn=math.fsum(n * n for _, n, _, _ in centered),
            rn=math.fsum(r * n for r, n, _, _ in centered),
            zz=math.fsum(z * z for _, _, z, _ in centered),
            mm=math.fsum(m * m for _, _, _, m in centered),
            zm=math.fsum(z * m for _, _, z, m in centered),
            rz=math.fsum(r * z for r, _, z, _ in centered),
            rm=math.fsum(r * m for r, _, _, m in centered),
            nz=math.fsum(n * z for _, n, z, _ in centered),
            nm=math.fsum(n * m for _, n, _, m in centered),
        )

    @classmethod
    def pooled(cls, parts: Iterable[CovariateSums]) -> CovariateSums:
        """Merge parts of any centers; the result has the centers of the first part that has units."""
        total: CovariateSums = cls()
        for part in parts:
            total = total + (part.recentered(total.center, total.pre_center) if total.units else part)
        return total

    def __add__(self, other: CovariateSums) -> CovariateSums:  # type: ignore[override]  # plain tuples are joined by +
        """Merge the sums of two disjoint sets of units. Refuses unlike centers, unless a side has no units."""
        if not other.units:
            return self
        if not self.units:
            return other
        for field, ours, theirs in (
            ("center", self.center, other.center),
            ("pre_center", self.pre_center, other.pre_center),
        ):
            if ours != theirs:
                bound = f"the {field} of the other side, {ours!r}"
                raise InvalidInputError(field, theirs, bound, "make them equal with recentered(...)")
        return CovariateSums(
            units=self.units + other.units,
            with_history=self.with_history + other.with_history,
            n=self.n + other.n,
            s=self.s + other.s,
            center=self.center,
            m=self.m + other.m,
            x=self.x + other.x,
            pre_center=self.pre_center,
            rr=self.rr + other.rr,
            nn=self.nn + other.nn,
            rn=self.rn + other.rn,
            zz=self.zz + other.zz,
            mm=self.mm + other.mm,
            zm=self.zm + other.zm,
            rz=self.rz + other.rz,
            rm=self.rm + other.rm,
            nz=self.nz + other.nz,
            nm=self.nm + other.nm,
        )

    def recentered(self, center: float, pre_center: float) -> CovariateSums:
        """Return the same units' sums about other centers: r' = r - δn and z' = z - εm, multiplied out."""
        outcomes, before = self.outcomes.recentered(center), self.before.recentered(pre_center)
        shift, pre_shift = center - self.center, pre_center - self.pre_center
        return self._replace(
            center=center,
            pre_center=pre_center,
            rr=outcomes.rr,
            rn=outcomes.rn,
            zz=before.rr,
            zm=before.rn,
            rz=self.rz - shift * self.nz - pre_shift * self.rm + shift * pre_shift * self.nm,
            rm=self.rm - shift * self.nm,
            nz=self.nz - pre_shift * self.nm,
        )
