"""Two ways of doing the same thing on the same units: differences within units.

What a unit is like (its questions, its luck with the provider) is in both of its numbers, and drops out of their
difference. Units are the observations, however many events each has.

References:
    Deng, Knoblich & Lu, "Applying the Delta Method in Metric Analytics", KDD 2018,
        https://arxiv.org/abs/1803.06336 (section 2; here for two ratios over the same units)
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

# Spread below this share of what it is computed from is rounding: long sums of doubles keep about 12 digits.
_ROUNDING = 1e-12


class UnitPair(NamedTuple):
    """What one unit's events add up to, done the one way and the other."""

    n: float
    """How many events carried the measure."""
    s: float
    """Their total."""
    other_n: float
    other_s: float


class PairedDifference(NamedTuple):
    """Two means over events, of the units that have events of both kinds, and their difference."""

    units: int
    mean: float
    other: float
    se: float
    """Of the difference; 0.0 where no unit varies beyond rounding."""

    @property
    def value(self) -> float:
        """What `mean` has more than `other`."""
        return self.mean - self.other


def paired_difference(pairs: Iterable[UnitPair]) -> PairedDifference | None:
    """Return R - R' = Σs/Σn - Σs'/Σn' over K units, with K/(K-1) Σ d² as its variance, where unit u has

        d = (s - R n)/Σn - (s' - R' n')/Σn'

    which is the delta method with the covariance within units in it. Assumes independent units. Units without an
    event of either kind are left out; None with fewer than two units.
    """
    kept = [pair for pair in pairs if pair.n > 0.0 and pair.other_n > 0.0]
    if len(kept) < 2:
        return None
    n, other_n = math.fsum(pair.n for pair in kept), math.fsum(pair.other_n for pair in kept)
    mean = math.fsum(pair.s for pair in kept) / n
    other = math.fsum(pair.other_s for pair in kept) / other_n
    residuals = (
        (pair.s - mean * pair.n) / n - (pair.other_s - other * pair.other_n) / other_n for pair in kept
    )
    se = math.sqrt(len(kept) / (len(kept) - 1) * math.fsum(d * d for d in residuals))
    return PairedDifference(len(kept), mean, other, 0.0 if se <= _ROUNDING * (abs(mean) + abs(other)) else se)
