"""Two arms side by side: estimated within each epoch, and combined so that changed weights bias nothing.

Within an epoch the weights were constant, so the arms differ by nothing but chance and what they serve. Epochs
are combined with weights proportional to their units of both arms: pooling the events over a change of weights
while the base rate moves would compare mornings with evenings (Simpson's paradox).

References:
    Satterthwaite, "An approximate distribution of estimates of variance components", Biometrics Bulletin 2,
        1946
    Welch, "The generalization of 'Student's' problem when several different population variances are
        involved", Biometrika 34, 1947
    Fisher, "The Design of Experiments", 1935, section 21 (permutation)
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

Arm = TypeVar("Arm", bound=Hashable)

# A difference between constant arms has to stand this far above the rounding of both to be believed.
_CLEAR_OF_ROUNDING = 100.0


class ArmMean(NamedTuple):
    """What one arm of one epoch comes to: a mean, a ratio or a quantile."""

    value: float
    variance: float
    """Of `value`, between repetitions of the experiment; 0.0 where no unit varies beyond rounding."""
    units: int
    """At least 2."""
    resolution: float = 0.0
    """How much `value` could vary without being seen through rounding."""


class Stratum(NamedTuple):
    """Both arms of one epoch."""

    epoch: int
    treatment: ArmMean
    control: ArmMean

    @property
    def units(self) -> int:
        return self.treatment.units + self.control.units

    def variances(self) -> tuple[float, float]:
        """Return the variance of the treatment and that of the control.

        Where the units of one arm are all alike, its sample variance of zero is silence and not a measurement
        (three successes in three tries do not make a certainty), so it takes the unit variance of the other
        arm, as it would have under no difference.
        """
        treatment, control = self.treatment, self.control
        if treatment.variance == 0.0:
            return control.variance * control.units / treatment.units, control.variance
        if control.variance == 0.0:
            return treatment.variance, treatment.variance * treatment.units / control.units
        return treatment.variance, control.variance

    def components(self) -> list[tuple[float, int]]:
        """Return the independent parts of the variance of the difference, with their degrees of freedom.

        A variance that was lent is the same measurement twice, and so one part.
        """
        treatment, control = self.variances()
        if self.treatment.variance == 0.0:
            return [(treatment + control, self.control.units - 1)]
        if self.control.variance == 0.0:
            return [(treatment + control, self.treatment.units - 1)]
        return [(treatment, self.treatment.units - 1), (control, self.control.units - 1)]


class Contrast(NamedTuple):
    """A treatment and the control over the same epochs, weighted alike; the effect is their difference.

    All but the last three are None where no epoch has two units in both arms; the variances, `df` and
    `exact_p` are None too where the sums overflow.
    """

    treatment: float | None
    """Σ w R_treatment over the epochs used."""
    control: float | None
    """Σ w R_control with the same weights: what a lift is relative to."""
    treatment_variance: float | None
    control_variance: float | None
    df: float | None
    """Welch-Satterthwaite over all arms of all epochs; None where no unit varies in either arm."""
    exact_p: float | None
    """Where no unit varies in either arm: two-sided, by permutation of the units within epochs; else None."""
    units: int
    """Of both arms in the epochs used."""
    epochs: tuple[int, ...]
    left_out: tuple[int, ...]
    """Epochs that have units, but fewer than two in one of the arms."""

    @property
    def value(self) -> float | None:
        """The effect: treatment minus control."""
        if self.treatment is None or self.control is None:
            return None
        return _finite(self.treatment - self.control)

    @property
    def se(self) -> float | None:
        """The standard error of the effect; 0.0 where no unit varies in either arm."""
        if self.treatment_variance is None or self.control_variance is None:
            return None
        return math.sqrt(self.treatment_variance + self.control_variance)


def combined(strata: Sequence[Stratum], left_out: tuple[int, ...] = ()) -> Contrast:
    """Combine epochs: weights proportional to units, variances with the squared weights."""
    units = sum(stratum.units for stratum in strata)
    epochs = tuple(stratum.epoch for stratum in strata)
    if not strata:
        return Contrast(None, None, None, None, None, None, 0, epochs, left_out)
    weights = [stratum.units / units for stratum in strata]
    pairs = list(zip(weights, strata, strict=True))
    treatment = sum(weight * stratum.treatment.value for weight, stratum in pairs)
    control = sum(weight * stratum.control.value for weight, stratum in pairs)
    treatment_variance, control_variance = (
        math.fsum(weight * weight * stratum.variances()[arm] for weight, stratum in pairs) for arm in (0, 1)
    )
    variance = treatment_variance + control_variance
    if not math.isfinite(treatment - control + variance):
        return Contrast(_finite(treatment), _finite(control), None, None, None, None, units, epochs, left_out)
    if variance == 0.0:
        return Contrast(treatment, control, 0.0, 0.0, None, _permutation_p(strata), units, epochs, left_out)
    # shares, not squares of variances, which underflow for metrics as small as a cost per token
    df = 1.0 / math.fsum(
        (weight * weight * part / variance) ** 2 / part_df
        for weight, stratum in pairs
        for part, part_df in stratum.components()
    )
    return Contrast(
        treatment, control, treatment_variance, control_variance, df, None, units, epochs, left_out
    )


def over_common_epochs(arms: Mapping[Arm, Mapping[int, ArmMean]]) -> dict[Arm, ArmMean]:
    """Put several arms side by side: each over the epochs that all of them have, weighted alike.

    Weights are proportional to the units of all arms in an epoch, variances combine with their squares: `combined`
    for more than two arms. Empty where no epoch has all of them, and without arms.
    """
    shared = sorted(set.intersection(*(set(by_epoch) for by_epoch in arms.values()))) if arms else []
    units = [sum(by_epoch[epoch].units for by_epoch in arms.values()) for epoch in shared]
    weights = [of_epoch / sum(units) for of_epoch in units]
    if not shared:
        return {}
    return {arm: _weighted([by_epoch[epoch] for epoch in shared], weights) for arm, by_epoch in arms.items()}


def _weighted(means: Sequence[ArmMean], weights: Sequence[float]) -> ArmMean:
    pairs = list(zip(weights, means, strict=True))
    return ArmMean(
        sum(weight * mean.value for weight, mean in pairs),
        sum(weight * weight * mean.variance for weight, mean in pairs),
        sum(mean.units for mean in means),
        sum(weight * mean.resolution for weight, mean in pairs),
    )


def _permutation_p(strata: Sequence[Stratum]) -> float:
    """Two-sided p-value where neither arm varies: of all ways to deal the units, only this one and its mirror
    image are as far apart, so at most 2 / Π C(K, K_treatment) (Fisher 1935).

    That holds while all epochs point the same way, else 1; epochs without a difference add nothing.
    """
    apart = [
        (stratum, difference)
        for stratum in strata
        for difference in [stratum.treatment.value - stratum.control.value]
        if abs(difference) > _CLEAR_OF_ROUNDING * (stratum.treatment.resolution + stratum.control.resolution)
    ]
    if not apart or len({math.copysign(1.0, difference) for _, difference in apart}) > 1:
        return 1.0
    return min(1.0, 2 * math.exp(-math.fsum(_log_arrangements(stratum) for stratum, _ in apart)))


def _log_arrangements(stratum: Stratum) -> float:
    """Return the logarithm of the number of ways to deal these units to two arms of these sizes."""
    return (
        math.lgamma(stratum.units + 1)
        - math.lgamma(stratum.treatment.units + 1)
        - math.lgamma(stratum.control.units + 1)
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
