"""Means over events as ratios of sums over units: the delta method.

Units are what was randomised, so units, not events, are the observations: R = Σs/Σn over units, and its
variance comes from how units differ.

References:
    Deng, Knoblich & Lu, "Applying the Delta Method in Metric Analytics", KDD 2018,
        https://arxiv.org/abs/1803.06336
    Deng, Lu & Qin, "The equivalence of the Delta method and the cluster-robust variance estimator", 2021,
        https://arxiv.org/abs/2105.14705
    Rao & Scott, "A simple method for the analysis of clustered binary data", Biometrics 48, 1992
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from promptab.stats.contrast import ArmMean, Contrast, Stratum, combined
from promptab.stats.summary import UnitSums

# Spread below this share of what it is computed from is rounding: long sums of doubles keep about 12 digits.
_ROUNDING = 1e-12


def ratio_mean(sums: UnitSums) -> ArmMean | None:
    """Estimate R = Σs/Σn with Var R = K/(K-1) Σ(s - R n)² / (Σn)² over K units; None with fewer than two.

    Deng, Knoblich & Lu 2018; K/(K-1) times the cluster-robust variance of the mean over events (Deng, Lu &
    Qin 2021). Assumes independent units. The variance is not finite where the sums overflow, and exactly 0.0
    where no unit varies beyond rounding.
    """
    if sums.units < 2 or sums.n == 0.0:
        return None
    ratio = sums.s / sums.n
    offset = ratio - sums.center
    moved = offset * offset * sums.nn
    residual = sums.rr - 2 * offset * sums.rn + moved
    rounding = _ROUNDING * (sums.rr + moved) + _ROUNDING * ratio * _ROUNDING * ratio * sums.nn
    resolution = math.sqrt(rounding * sums.units) / abs(sums.n)
    if math.isfinite(residual) and residual <= rounding:
        return ArmMean(ratio, 0.0, sums.units, resolution)
    variance = sums.units / (sums.units - 1) * residual / sums.n / sums.n
    return ArmMean(ratio, variance, sums.units, resolution)


def ratio_contrast(treatment: Mapping[int, UnitSums], control: Mapping[int, UnitSums]) -> Contrast:
    """Compare two arms epoch by epoch (keys are epoch numbers) and combine the epochs.

    An epoch with fewer than two units in an arm is left out. With one epoch and one event per unit, a t
    interval of this contrast is Welch's.
    """
    strata: list[Stratum] = []
    left_out: list[int] = []
    for epoch in sorted(treatment.keys() | control.keys()):
        sums = treatment.get(epoch, UnitSums()), control.get(epoch, UnitSums())
        treated, untreated = (ratio_mean(of_arm) for of_arm in sums)
        if treated is not None and untreated is not None:
            strata.append(Stratum(epoch, treated, untreated))
        elif any(of_arm.units for of_arm in sums):
            left_out.append(epoch)
    return combined(strata, tuple(left_out))


def rate_variance(rate: ArmMean, *, at: float) -> float:
    """Return the variance to test a rate of several outcomes per unit against the value `at`, between 0 and 1.

    Units that happen to have few of the rarer outcome look less varied than they are: the lower an error rate, the
    smaller its estimated variance, so that it is taken to be below a bound too soon. Tested is therefore with
    the variance that the rate would have there, a (1 - a)/(R (1 - R)) times its own, so with the design effect as
    it was seen (Rao & Scott 1992), wherever that is more than its own. 0.0 where no unit varies.
    """
    own = rate.value * (1.0 - rate.value)
    if rate.variance == 0.0 or own <= 0.0:
        return rate.variance
    return rate.variance * max(1.0, at * (1.0 - at) / own)
