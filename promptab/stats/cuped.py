"""CUPED: the difference of two arms, less what their units' own past explains of it.

Chance deals an arm units that were slower, dearer or luckier before they ever met the experiment. What a unit
did before its first exposure cannot be an effect of it, so the part of the difference that goes with the past
is noise and is taken away. The estimate stays what it was, up to a bias that falls as one over the number of
units; its variance falls by the squared correlation of before and after.

References:
    Deng, Xu, Kohavi & Walker, "Improving the Sensitivity of Online Controlled Experiments by Utilizing
        Pre-Experiment Data", WSDM 2013, equations 4 and 5 and section 3.2,
        https://exp-platform.com/Documents/2013-02-CUPED-ImprovingSensitivityOfControlledExperiments.pdf
    Deng, Knoblich & Lu, "Applying the Delta Method in Metric Analytics", KDD 2018 (ratios),
        https://arxiv.org/abs/1803.06336
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from promptab.stats.contrast import ArmMean, Contrast, Stratum, combined
from promptab.stats.covariate_sums import CovariateSums
from promptab.stats.ratio import ratio_contrast, ratio_mean

# Variance below this share of the parts that cancel in it is rounding.
_ROUNDING = 1e-12


class Adjustment(NamedTuple):
    """A contrast whose two values are adjusted for the past of their units, and what that brought."""

    contrast: Contrast
    """As `ratio_contrast` gives it, and equal to that where `theta` is 0."""
    theta: float
    """Change of the outcome, in its own unit per event, that goes with one unit of the covariate."""
    correlation: float | None
    """Of a unit's outcomes and its past, within epochs; None where either never varies or nothing is known."""
    variance_reduction: float | None
    """Share by which the variance of the difference fell; below 0 where it rose. None where that is unknown or
    was 0 before."""
    units_with_history: int
    """Units of both arms, in the epochs used, that had any outcome before their first exposure."""


def cuped_contrast(
    treatment: Mapping[int, CovariateSums], control: Mapping[int, CovariateSums]
) -> Adjustment:
    """Compare two arms epoch by epoch (keys are epoch numbers), each arm at R - θ (Rx - Rx of both arms).

    R = Σs/Σn are the outcomes, Rx = Σx/Σm the past, and θ = Cov(Z_Y, Z_X) / Var(Z_X) of the linearised
    Z_Y = (s - R n)/mean n and Z_X = (x - Rx m)/mean m over the units of both arms; an arm's variance is that
    of Z_Y - θ Z_X in it (Deng et al. 2013, equation 5; ratios by Deng, Knoblich & Lu 2018). Assumes
    independent units and a past that ends before the first exposure.

    One θ serves all epochs. Any number would leave the estimate unbiased, so sharing costs no validity, and a
    small epoch does not fit one of its own to noise. It is made of deviations within epochs: a base rate that
    moves from epoch to epoch is no relation between a unit's past and its outcomes.

    An epoch is left out as in `ratio_contrast`: fewer than two units in an arm. An epoch in which an arm has
    no past at all (Σm = 0) enters unadjusted. θ is 0, and the contrast the raw one, where the past or the
    outcomes do not vary beyond rounding and where the sums overflow.
    """
    raw = ratio_contrast(
        {epoch: sums.outcomes for epoch, sums in treatment.items()},
        {epoch: sums.outcomes for epoch, sums in control.items()},
    )
    pairs = {epoch: (treatment[epoch], control[epoch]) for epoch in raw.epochs}
    pools = {
        epoch: _about_its_ratios(CovariateSums.pooled(pair))
        for epoch, pair in pairs.items()
        if all(sums.m > 0.0 for sums in pair)
    }
    theta, correlation = _regression(list(pools.values()))
    units_with_history = sum(sums.with_history for pair in pairs.values() for sums in pair)
    if theta == 0.0:
        reduction = 0.0 if raw.se else None
        return Adjustment(raw, 0.0, correlation, reduction, units_with_history)
    strata = []
    for epoch, pair in pairs.items():
        treated, untreated = (_adjusted_mean(sums, pools.get(epoch), theta) for sums in pair)
        if treated is not None and untreated is not None:
            strata.append(Stratum(epoch, treated, untreated))
    contrast = combined(strata, raw.left_out)
    return Adjustment(contrast, theta, correlation, _reduction(raw, contrast), units_with_history)


def _about_its_ratios(sums: CovariateSums) -> CovariateSums:
    return sums.recentered(sums.s / sums.n, sums.x / sums.m)


def _regression(pools: Sequence[CovariateSums]) -> tuple[float, float | None]:
    """Return θ and the correlation from epochs whose sums are about their own ratios."""
    varying = [pool for pool in pools if _varies(pool)]
    variance = sum(_linearised(pool.rr, pool.n, pool.n, pool.units) for pool in varying)
    pre_variance = sum(_linearised(pool.zz, pool.m, pool.m, pool.units) for pool in varying)
    covariance = sum(_linearised(pool.rz, pool.n, pool.m, pool.units) for pool in varying)
    scale = math.sqrt(variance) * math.sqrt(pre_variance)
    if not 0.0 < scale < math.inf or not math.isfinite(covariance / pre_variance):
        return 0.0, None
    return covariance / pre_variance, max(-1.0, min(1.0, covariance / scale))


def _varies(pool: CovariateSums) -> bool:
    means = ratio_mean(pool.outcomes), ratio_mean(pool.before)
    return all(mean is not None and 0.0 < mean.variance < math.inf for mean in means)


def _linearised(moment: float, weight: float, other_weight: float, units: int) -> float:
    """Turn Σ of products of deviations into Σ of products of linearised ones, each per mean weight of a unit."""
    return moment / weight * units / other_weight * units


def _adjusted_mean(sums: CovariateSums, pool: CovariateSums | None, theta: float) -> ArmMean | None:
    """Return one arm of an epoch at R - θ (Rx - Rx of the pool); unadjusted where the epoch has no pool."""
    mean = ratio_mean(sums.outcomes)
    past = ratio_mean(sums.before) if pool is not None else None
    if mean is None or past is None or pool is None:
        return mean
    units = sums.units
    product = _about_its_ratios(sums).rz / sums.n / sums.m
    parts = mean.variance + theta * theta * past.variance
    variance = parts - 2.0 * theta * product * units / (units - 1)
    resolution = mean.resolution + abs(theta) * past.resolution
    if math.isfinite(variance) and variance <= _ROUNDING * parts:
        variance = 0.0
        resolution += math.sqrt(_ROUNDING * parts * (units - 1))
    return ArmMean(mean.value - theta * (past.value - pool.pre_center), variance, units, resolution)


def _reduction(raw: Contrast, adjusted: Contrast) -> float | None:
    if not raw.se or adjusted.se is None:
        return None
    ratio = adjusted.se / raw.se
    return 1.0 - ratio * ratio
