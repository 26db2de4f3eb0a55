"""Means over events as ratios of sums over units: the delta method at a fixed horizon.

Units are what was randomised, so units, not events, are the observations: R = Σs/Σn over units, and its
variance comes from how units differ. An interval from here is right for one look at a planned moment, and
wrong when somebody looks again and again and stops at a look that pleases.

References:
    Deng, Knoblich & Lu, "Applying the Delta Method in Metric Analytics", KDD 2018,
        https://arxiv.org/abs/1803.06336
    Deng, Lu & Qin, "The equivalence of the Delta method and the cluster-robust variance estimator", 2021,
        https://arxiv.org/abs/2105.14705
    Satterthwaite, "An approximate distribution of estimates of variance components", Biometrics Bulletin 2,
        1946
    Welch, "The generalization of 'Student's' problem when several different population variances are
        involved", Biometrika 34, 1947
    Fisher, "The Design of Experiments", 1935, section 21 (permutation)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from promptab.stats.summary import UnitSums

# Spread below this share of what it is computed from is rounding: long sums of doubles keep about 12 digits.
_ROUNDING = 1e-12
# A difference between constant arms has to stand this far above the rounding of both to be believed.
_CLEAR_OF_ROUNDING = 100.0


class Estimate(NamedTuple):
    """The mean over events of one variant, with the uncertainty that comes from its units."""

    value: float | None
    """Σs/Σn; None where there are no events, or where the sums overflow."""
    se: float | None
    """Standard error; None with fewer than two units or where the sums overflow; 0.0 where no unit varies."""
    low: float | None
    high: float | None
    """The interval; None wherever `se` is None or 0.0: what never varied does not tell how much it varies."""
    units: int
    events: float
    """Σn"""
    df: float | None
    """Degrees of freedom of the t interval, units - 1; None where there is no interval."""


class Difference(NamedTuple):
    """Treatment minus control, combined over epochs; all None but the last three where no epoch can be used.

    `se`, `low`, `high`, `df` and `p_value` are None too where the sums overflow. Where no unit varies in
    either arm, `se` is 0.0, there is no interval and no df, and `p_value` comes from permutation (see
    `ratio_difference`).
    """

    value: float | None
    """Σ w (R_treatment - R_control) over the epochs used."""
    se: float | None
    low: float | None
    high: float | None
    df: float | None
    p_value: float | None
    """Two-sided, of no difference."""
    baseline: float | None
    """Σ w R_control with the same weights: what a relative lift is relative to."""
    units: int
    """Units of both arms in the epochs used."""
    epochs: tuple[int, ...]
    """Epochs used."""
    left_out: tuple[int, ...]
    """Epochs that have units, but fewer than two in one of the arms."""


def ratio_estimate(sums: UnitSums, *, confidence: float = 0.95) -> Estimate:
    """Estimate R = Σs/Σn with Var R = K/(K-1) Σ(s - R n)² / (Σn)² over K units, and a t interval on K - 1.

    Deng, Knoblich & Lu 2018; K/(K-1) times the cluster-robust variance of the mean over events (Deng, Lu &
    Qin 2021). Assumes independent units and enough of them for a normal mean: below about 30 it is rough.
    """
    if not sums.units:
        return Estimate(None, None, None, None, 0, 0.0, None)
    if sums.units == 1:
        return Estimate(_finite(sums.s / sums.n), None, None, None, 1, sums.n, None)
    arm = _arm(sums)
    if not math.isfinite(arm.variance):
        return Estimate(_finite(arm.ratio), None, None, None, sums.units, sums.n, None)
    if arm.variance == 0.0:
        return Estimate(arm.ratio, 0.0, None, None, sums.units, sums.n, None)
    se, df = math.sqrt(arm.variance), sums.units - 1
    half = _t_quantile(df, confidence) * se
    return Estimate(arm.ratio, se, arm.ratio - half, arm.ratio + half, sums.units, sums.n, df)


def ratio_difference(
    treatment: Mapping[int, UnitSums], control: Mapping[int, UnitSums], *, confidence: float = 0.95
) -> Difference:
    """Compare two arms epoch by epoch (keys are epoch numbers) and combine, so changed weights bias nothing.

    Within an epoch the weights were constant, so the arms differ by nothing but chance and what they serve.
    Epochs are combined with weights proportional to their units of both arms, variances add with the squared
    weights, and the t interval has the Welch-Satterthwaite degrees of freedom over all arms of all epochs.
    With one epoch and one event per unit this is Welch's test. An epoch with fewer than two units in an arm
    is left out.

    Where the units of one arm all have the same mean, its sample variance of zero is silence and not a
    measurement (three successes in three tries do not make a certainty), so it takes the unit variance of the
    other arm, as it would have under no difference. Where neither arm varies there is no interval, and the
    p-value is that of permuting units within epochs, at most 2 / Π C(K, K_treatment) (Fisher 1935).
    """
    strata: list[_Stratum] = []
    left_out: list[int] = []
    for epoch in sorted(treatment.keys() | control.keys()):
        treated, untreated = treatment.get(epoch, UnitSums()), control.get(epoch, UnitSums())
        if min(treated.units, untreated.units) >= 2:
            strata.append(_stratum(epoch, _arm(treated), _arm(untreated)))
        elif treated.units or untreated.units:
            left_out.append(epoch)
    return _combined(strata, tuple(left_out), confidence)


class _Arm(NamedTuple):
    """One arm of one epoch, with at least two units."""

    ratio: float
    variance: float
    """Of the ratio; 0.0 where no unit varies beyond rounding, not finite where the sums overflow."""
    units: int
    resolution: float
    """How much a unit's mean could vary without being seen through rounding."""


class _Stratum(NamedTuple):
    """The difference within one epoch."""

    epoch: int
    units: int
    value: float
    baseline: float
    components: list[tuple[float, int]]
    """Independent parts of the variance of `value`, each with its degrees of freedom."""
    resolution: float
    log_arrangements: float
    """Logarithm of the number of ways to deal these units to two arms of these sizes."""


def _arm(sums: UnitSums) -> _Arm:
    ratio = sums.s / sums.n
    offset = ratio - sums.center
    moved = offset * offset * sums.nn
    residual = sums.rr - 2 * offset * sums.rn + moved
    rounding = _ROUNDING * (sums.rr + moved) + _ROUNDING * ratio * _ROUNDING * ratio * sums.nn
    resolution = math.sqrt(rounding * sums.units) / sums.n
    if math.isfinite(residual) and residual <= rounding:
        return _Arm(ratio, 0.0, sums.units, resolution)
    variance = sums.units / (sums.units - 1) * residual / sums.n / sums.n
    return _Arm(ratio, variance, sums.units, resolution)


def _stratum(epoch: int, treatment: _Arm, control: _Arm) -> _Stratum:
    units = treatment.units + control.units
    components = [(arm.variance, arm.units - 1) for arm in (treatment, control)]
    if treatment.variance == 0.0:
        components = [(control.variance * units / treatment.units, control.units - 1)]
    elif control.variance == 0.0:
        components = [(treatment.variance * units / control.units, treatment.units - 1)]
    return _Stratum(
        epoch=epoch,
        units=units,
        value=treatment.ratio - control.ratio,
        baseline=control.ratio,
        components=components,
        resolution=treatment.resolution + control.resolution,
        log_arrangements=(
            math.lgamma(units + 1) - math.lgamma(treatment.units + 1) - math.lgamma(control.units + 1)
        ),
    )


def _combined(strata: Sequence[_Stratum], left_out: tuple[int, ...], confidence: float) -> Difference:
    units = sum(stratum.units for stratum in strata)
    epochs = tuple(stratum.epoch for stratum in strata)
    if not strata:
        return Difference(None, None, None, None, None, None, None, units, epochs, left_out)
    weights = [stratum.units / units for stratum in strata]
    value = sum(weight * stratum.value for weight, stratum in zip(weights, strata, strict=True))
    baseline = sum(weight * stratum.baseline for weight, stratum in zip(weights, strata, strict=True))
    components = [
        (weight * weight * variance, df)
        for weight, stratum in zip(weights, strata, strict=True)
        for variance, df in stratum.components
    ]
    variance = sum(part for part, _ in components)
    if not math.isfinite(value + variance):
        value_or_none, baseline_or_none = _finite(value), _finite(baseline)
        return Difference(
            value_or_none, None, None, None, None, None, baseline_or_none, units, epochs, left_out
        )
    if variance == 0.0:
        p_value = _permutation_p(strata)
        return Difference(value, 0.0, None, None, None, p_value, baseline, units, epochs, left_out)
    se = math.sqrt(variance)
    # shares, not squares of variances, which underflow for metrics as small as a cost per token
    df = 1.0 / math.fsum((part / variance) * (part / variance) / part_df for part, part_df in components)
    half = _t_quantile(df, confidence) * se
    p_value = _two_sided_p(value / se, df)
    return Difference(value, se, value - half, value + half, df, p_value, baseline, units, epochs, left_out)


def _permutation_p(strata: Sequence[_Stratum]) -> float:
    """Two-sided p-value where neither arm varies: of all ways to deal the units, only this one and its mirror
    image are as far apart.

    That holds while all epochs point the same way, else 1; epochs without a difference add nothing.
    """
    apart = [stratum for stratum in strata if abs(stratum.value) > _CLEAR_OF_ROUNDING * stratum.resolution]
    if not apart or len({math.copysign(1.0, stratum.value) for stratum in apart}) > 1:
        return 1.0
    return min(1.0, 2 * math.exp(-math.fsum(stratum.log_arrangements for stratum in apart)))


def _t_quantile(df: float, confidence: float) -> float:
    # scipy is slow to import, and only an analysis needs it
    from scipy.special import stdtrit  # noqa: PLC0415

    return float(stdtrit(df, (1.0 + confidence) / 2.0))


def _two_sided_p(t: float, df: float) -> float:
    from scipy.special import stdtr  # noqa: PLC0415 - as above

    return float(2.0 * stdtr(df, -abs(t)))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
