"""One metric: how each variant differs from the control, and what that amounts to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from promptab.analysis import sentences
from promptab.analysis.estimate import estimated
from promptab.analysis.evidence import MetricEvidence
from promptab.analysis.inference import (
    Arms,
    Finding,
    Reading,
    arms_of,
    critical,
    find,
    one_sided,
    whole_of,
)
from promptab.analysis.result import (
    CovariateAdjustment,
    Method,
    MetricAnalysis,
    Role,
    Safety,
    Size,
    VariantDifference,
    VariantEstimate,
    Verdict,
)
from promptab.models import PromptExperiment
from promptab.stats.contrast import Contrast
from promptab.stats.cuped import cuped_contrast
from promptab.stats.guardrail import guardrail_verdict, relative_margin_effect
from promptab.stats.interval import Interval
from promptab.stats.lift import lift_interval
from promptab.stats.metric import MetricDefinition
from promptab.stats.multiplicity import holm


def compared_metric(
    evidence: MetricEvidence, experiment: PromptExperiment, method: Method, confidence: float, *, role: Role
) -> MetricAnalysis:
    """Compare every variant with the control on one metric."""
    definition, control = evidence.definition, experiment.control
    keys = [variant.key for variant in experiment.variants]
    others = [key for key in keys if key != control]
    reading = Reading(method, experiment.plan, confidence, len(others), role)
    estimates = estimated(evidence, keys, control, reading)
    judged = [_judged(evidence, key, control, reading) for key in others]
    p_values = [found.finding.p_value for found in judged]
    # all others are judged together with the rest of their kind, or have to pass one and all
    adjusted = holm(p_values) if role == "primary" else p_values
    return MetricAnalysis(
        metric=definition.name,
        label=definition.heading,
        direction=definition.direction,
        format=definition.format,
        role=role,
        largest_regression=definition.largest_regression if role == "guardrail" else None,
        smallest_effect=definition.smallest_effect,
        relative=definition.relative,
        estimates=estimates,
        differences={
            key: _difference(definition, found, adjusted_p, estimates, (key, control), reading)
            for key, found, adjusted_p in zip(others, judged, adjusted, strict=True)
        },
    )


class _Judged(NamedTuple):
    arms: Arms
    raw: Finding
    finding: Finding
    """What the verdict goes by: adjusted for history where there is one, else `raw`."""
    contrast: Contrast
    adjustment: CovariateAdjustment | None


def _judged(evidence: MetricEvidence, key: str, control: str, reading: Reading) -> _Judged:
    arms = arms_of(evidence, key, control)
    raw = find(reading.method, arms, reading.plan, reading.level)
    if evidence.history is None or arms.is_adaptive:
        return _Judged(arms, raw, raw, arms.contrast, None)
    adjusted = cuped_contrast(evidence.history.get(key, {}), evidence.history.get(control, {}))
    contrast = adjusted.contrast
    finding = find(reading.method, Arms(contrast, arms.direction), reading.plan, reading.level)
    if (
        finding.interval is None
        or contrast.value is None
        or contrast.se is None
        or adjusted.correlation is None
        or adjusted.variance_reduction is None
    ):
        return _Judged(arms, raw, raw, arms.contrast, None)
    shown = CovariateAdjustment(
        value=contrast.value,
        se=contrast.se,
        low=finding.interval.low,
        high=finding.interval.high,
        p_value=finding.p_value,
        correlation=adjusted.correlation,
        variance_reduction=adjusted.variance_reduction,
        units_with_history=adjusted.units_with_history,
    )
    return _Judged(arms, raw, finding, contrast, shown)


def _difference(
    definition: MetricDefinition,
    found: _Judged,
    adjusted_p: float | None,
    estimates: Mapping[str, VariantEstimate],
    pair: tuple[str, str],
    reading: Reading,
) -> VariantDifference:
    contrast, finding = found.contrast, found.finding
    raw, interval = found.arms.contrast, found.raw.interval
    verdict = _verdict(definition, contrast, finding, adjusted_p, reading)
    safety = _safety(definition, found, reading) if reading.role == "guardrail" else None
    lift = None
    if raw.df is not None:
        reach = critical(reading.method, reading.plan, reading.level, units=raw.units, df=raw.df)
        lift = lift_interval(raw, reach)
    # a belief is shown as it is, prior included: its middle is then within its interval
    believed = found.raw.posterior
    value, se = (raw.value, raw.se) if believed is None else (believed.mean, believed.sd)
    difference = VariantDifference(
        variant=pair[0],
        value=value,
        se=se,
        low=None if interval is None else interval.low,
        high=None if interval is None else interval.high,
        df=raw.df if found.raw.technique == "t" else None,
        p_value=found.raw.p_value,
        adjusted_p=adjusted_p,
        technique=found.raw.technique,
        lift=_share(value, raw.control),
        lift_low=None if lift is None else lift.low,
        lift_high=None if lift is None else lift.high,
        adjusted=found.adjustment,
        probability_better=None if finding.posterior is None else finding.posterior.probability_better,
        expected_loss=None if finding.posterior is None else finding.posterior.loss_treatment,
        verdict=verdict,
        size=_size(definition, contrast, finding) if verdict == "better" else None,
        safety=safety,
        left_out=raw.left_out,
        sentence="",
    )
    sentence = sentences.of_difference(
        definition, difference, estimates[pair[0]], estimates[pair[1]], confidence=reading.level
    )
    return difference.model_copy(update={"sentence": sentence})


def _verdict(
    definition: MetricDefinition,
    contrast: Contrast,
    finding: Finding,
    adjusted_p: float | None,
    reading: Reading,
) -> Verdict:
    value = contrast.value
    if value is None:
        return "undecided"
    if finding.posterior is not None:
        tolerated = reading.plan.acceptable_loss * whole_of(contrast, is_rate=definition.is_rate)
        loss, other = finding.posterior.loss_treatment, finding.posterior.loss_control
        if (loss <= tolerated) == (other <= tolerated):
            return "undecided"  # not known well enough, or it makes no difference which
        return "better" if loss <= tolerated else "worse"
    # a sliver beyond alpha is what 1 - confidence loses to rounding
    if adjusted_p is None or adjusted_p > (1.0 - reading.confidence) * (1.0 + 1e-12):
        return "undecided"
    return "better" if definition.sign * value > 0.0 else "worse"


def _safety(definition: MetricDefinition, found: _Judged, reading: Reading) -> Safety:
    """Judge a guardrail by one-sided bounds of the method at hand, each at the whole confidence."""
    margin, contrast = definition.largest_regression, found.contrast
    treatment, control = contrast.treatment, contrast.control
    variances = contrast.treatment_variance, contrast.control_variance
    if margin is None or treatment is None or control is None or variances[0] is None or variances[1] is None:
        return "undecided"
    if contrast.df is None:
        return _safety_of_rates(definition, found.arms, margin, control, reading)
    value, se, null = treatment - control, math.sqrt(variances[0] + variances[1]), margin
    if definition.relative:
        effect = relative_margin_effect(
            treatment, variances[0], control, variances[1], margin=margin, direction=definition.direction
        )
        value, se, null = effect.value, effect.se, 0.0
    reach = se * critical(
        reading.method, reading.plan, reading.confidence, units=contrast.units, df=contrast.df, one_sided=True
    )
    return guardrail_verdict(
        Interval(value - reach, value + reach), margin=null, direction=definition.direction
    )


def _safety_of_rates(
    definition: MetricDefinition, arms: Arms, margin: float, control: float, reading: Reading
) -> Safety:
    """Judge where no unit differs from another in its arm, which rates alone can say something about."""
    if arms.trials is None:
        return "undecided"
    bounds = one_sided(reading.method, arms.trials, reading.plan, reading.confidence)
    null = margin * abs(control) if definition.relative else margin
    return guardrail_verdict(bounds, margin=null, direction=definition.direction)


def _size(definition: MetricDefinition, contrast: Contrast, finding: Finding) -> Size | None:
    """Say whether an improvement is worth having: by its estimate, and surely not where its best end is not."""
    smallest, value = definition.smallest_effect, contrast.value
    if smallest is None or value is None:
        return None
    worth = smallest * abs(contrast.control or 0.0) if definition.relative else smallest
    if definition.sign * value >= worth:
        return "large enough"
    if finding.interval is None:
        return "unclear"
    best = finding.interval.high if definition.direction == "increase" else -finding.interval.low
    return "too small" if best < worth else "unclear"


def _share(value: float | None, control: float | None) -> float | None:
    """Return a difference as a share of the control's value; None unless that is positive."""
    if value is None or control is None or control <= 0.0:
        return None
    return _finite(value / control)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
