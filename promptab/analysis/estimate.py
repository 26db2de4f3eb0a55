"""One metric: what each variant comes to by itself, and how likely it is the best of all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from promptab.analysis.evidence import ByEpoch, MetricEvidence
from promptab.analysis.inference import Reading, critical
from promptab.analysis.result import VariantEstimate
from promptab.checks import MAX_MEASURE
from promptab.stats.adaptive import weighted_means
from promptab.stats.bayesian import probability_best
from promptab.stats.contrast import ArmMean, over_common_epochs
from promptab.stats.interval import Interval
from promptab.stats.metric import Direction
from promptab.stats.quantile import QuantileArm
from promptab.stats.ratio import ratio_mean


def estimated(
    evidence: MetricEvidence, keys: Sequence[str], control: str, reading: Reading
) -> dict[str, VariantEstimate]:
    """Return the estimate of every variant.

    Values and errors are over the epochs that the variants have in common, as `side_by_side` has it; units and events
    are all there are. With one unit there is a value without an error, and without units there is neither.
    """
    means = arm_means(evidence, keys)
    alike = side_by_side(means, control)
    if evidence.weights is not None and evidence.definition.kind != "quantile":
        alike = _weighted(evidence.sums, evidence.weights, keys, control)
    estimates = {key: _estimate(evidence, key, alike.get(key), reading) for key in keys}
    if reading.method != "bayesian":
        return estimates
    if evidence.weights is not None and evidence.definition.kind != "quantile":
        means = {
            key: {0: mean}
            for key, mean in weighted_means(evidence.sums, evidence.weights, list(means)).items()
        }
    best = probabilities_best(means, direction=evidence.definition.direction)
    return {
        key: estimate.model_copy(update={"probability_best": best.get(key)})
        for key, estimate in estimates.items()
    }


def _weighted(
    sums: Mapping[str, ByEpoch], weights: Mapping[int, Mapping[str, float]], keys: Sequence[str], control: str
) -> dict[str, ArmMean]:
    """Return each variant of a bandit over the batches that it shares with the control, the control over those that it
    shares with most of them.
    """
    pairs = {key: weighted_means(sums, weights, (control, key)) for key in keys if key != control}
    found = {key: pair[key] for key, pair in pairs.items() if pair}
    widest = max(
        (pair[control] for pair in pairs.values() if pair), key=lambda mean: mean.units, default=None
    )
    return found if widest is None else {control: widest, **found}


def arm_means(evidence: MetricEvidence, keys: Sequence[str]) -> dict[str, dict[int, ArmMean]]:
    """Return each variant's metric by epoch, where its error is known too; variants without any are left out."""
    found: dict[str, dict[int, ArmMean]] = {}
    for key in keys:
        if evidence.definition.kind == "quantile":
            means = {epoch: arm.mean for epoch, arm in evidence.quantiles.get(key, {}).items()}
        else:
            means = {epoch: ratio_mean(sums) for epoch, sums in evidence.arm(key).items()}
        known = {epoch: mean for epoch, mean in means.items() if mean is not None}
        if known:
            found[key] = known
    return found


def side_by_side(means: Mapping[str, Mapping[int, ArmMean]], control: str) -> dict[str, ArmMean]:
    """Return each variant over epochs that it shares with the control, weighted alike wherever they are the same, so
    that estimates differ as the differences between variants do: weights that changed while the base rate moved say
    nothing of a variant.

    Of the epochs that a variant shares with the control, those are taken that keep the most units of the variants that
    have them all. A variant without one of these, such as one that was dealt for a while, is taken over the epochs that
    it shares with the control by itself. Those that share none are left out.
    """
    base = means.get(control, {})
    shared = {key: set(of_key) & set(base) for key, of_key in means.items() if key != control}

    def whole(epochs: set[int]) -> list[str]:
        return [control, *(key for key, common in shared.items() if common >= epochs)]

    def units(epochs: set[int]) -> int:
        return sum(means[key][epoch].units for key in whole(epochs) for epoch in epochs)

    most = max(filter(None, shared.values()), key=units, default=None)
    if most is None:
        return {}
    alike = over_common_epochs({key: _only(means[key], most) for key in whole(most)})
    apart = [key for key, common in shared.items() if common and key not in alike]
    return alike | {key: over_common_epochs({control: base, key: means[key]})[key] for key in apart}


def _only(mean: Mapping[int, ArmMean], epochs: set[int]) -> dict[int, ArmMean]:
    return {epoch: mean[epoch] for epoch in epochs}


def probabilities_best(
    means: Mapping[str, Mapping[int, ArmMean]], *, direction: Direction
) -> dict[str, float]:
    """Return for each variant the probability that no other is better, from flat normal posteriors.

    Over the epochs that all of them have, weighted alike, so that weights which change while the base rate moves
    bias nothing. A variant whose units are all alike takes the largest unit variance of the others: what never
    varied is not certain. Empty where no epoch has all of them, where no unit varies, and where numbers overflow.
    """
    alike = over_common_epochs(means)
    lent = max((mean.variance * mean.units for mean in alike.values()), default=0.0)
    sds = [math.sqrt(mean.variance or lent / mean.units) for mean in alike.values()]
    values = [mean.value for mean in alike.values()]
    if not all(0.0 < sd <= MAX_MEASURE for sd in sds) or not all(abs(v) <= MAX_MEASURE for v in values):
        return {}
    return dict(zip(alike, probability_best(values, sds, direction=direction), strict=True))


def _estimate(evidence: MetricEvidence, key: str, alike: ArmMean | None, reading: Reading) -> VariantEstimate:
    """Return the estimate of a variant: `alike`, or all its epochs pooled where it can be compared in none."""
    definition = evidence.definition
    if definition.kind == "quantile":
        value, arm, units, events = _pooled_quantile(evidence.quantiles.get(key, {}))
    else:
        sums = evidence.pooled(key)
        value = sums.s / sums.n if sums.n else None
        arm, units, events = ratio_mean(sums), sums.units, round(sums.n)
    if alike is not None:
        value, arm = alike.value, alike
    low = high = se = None
    if arm is not None and math.isfinite(arm.variance):
        se = math.sqrt(arm.variance)
        if se > 0.0:
            reach = se * critical(
                reading.method, reading.plan, reading.confidence, units=arm.units, df=arm.units - 1
            )
            # never cut off the estimate itself, should the declared bounds be wrong
            low, high = Interval(arm.value - reach, arm.value + reach).within(
                None if definition.lowest is None else min(definition.lowest, arm.value),
                None if definition.highest is None else max(definition.highest, arm.value),
            )
    return VariantEstimate(
        variant=key,
        value=value if value is not None and math.isfinite(value) else None,
        se=se,
        low=low,
        high=high,
        units=units,
        events=events,
    )


def _pooled_quantile(arms: Mapping[int, QuantileArm]) -> tuple[float | None, ArmMean | None, int, int]:
    """Return value, value with error, units and events: epochs by their units, without those of unknown error where
    another one's is known.
    """
    means = [mean for arm in arms.values() if (mean := arm.mean) is not None]
    events = sum(arm.events for arm in arms.values())
    known = over_common_epochs({"": dict(enumerate(means))}).get("")
    if known is not None:
        return known.value, known, known.units, events
    units = sum(arm.units for arm in arms.values())
    values = [arm.units / units * arm.value for arm in arms.values() if arm.value is not None]
    return (sum(values) if values else None), None, units, events
