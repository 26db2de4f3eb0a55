"""Where the guardrails of a policy stand: has a variant failed one, or is it shown to keep it, at any look.

Rates of which every unit has one outcome are weighed by exact e-processes; few units of bounded scores, and few that
have several outcomes of a rate behind a bound, by betting; and everything else by one-sided asymptotic confidence
sequences, which wait for 100 units an arm. Which it is follows from what was recorded, never from how it turned out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from promptab.analysis.estimate import arm_means
from promptab.analysis.evidence import Evidence, MetricEvidence, UnitTotal
from promptab.analysis.inference import FEW_SEQUENTIAL_UNITS, are_trials, arms_of
from promptab.analysis.result import GuardReading, GuardTechnique, MetricAnalysis, Safety
from promptab.analysis.sentences import of_guard
from promptab.errors import InvalidInputError
from promptab.guardrails import Guardrail
from promptab.plan import AnalysisPlan
from promptab.policy import Policy
from promptab.stats import sequential
from promptab.stats.contrast import over_common_epochs
from promptab.stats.guardrail import relative_margin_effect
from promptab.stats.interval import Side
from promptab.stats.rate_bound import rate_log_e_value, unit_rate_log_e_value
from promptab.stats.rate_regression import DealtRates, regression_log_e_value
from promptab.stats.ratio import rate_variance, ratio_mean
from promptab.stats.score_bound import score_log_e_value, score_regression_log_e_value
from promptab.stats.summary import UnitSums

_OTHER_SIDE: Mapping[Side, Side] = {"less": "greater", "greater": "less"}


def guard_readings(
    evidence: Evidence, policy: Policy, metrics: Mapping[str, MetricAnalysis]
) -> tuple[GuardReading, ...]:
    """Read every guardrail for every variant but the control; `metrics` is what the analysis says of each metric.

    The policy's `guardrail_alpha` is shared alike among all these readings. Raises `InvalidInputError` for a metric
    that there is no evidence of.
    """
    experiment = evidence.experiment
    guardrails = policy.watched(experiment.plan, primary_metric=experiment.primary_metric)
    treatments = [variant.key for variant in experiment.variants if variant.key != experiment.control]
    known = {metric.definition.name: metric for metric in (evidence.primary, *evidence.others)}
    readings = []
    for guardrail in guardrails:
        if guardrail.metric not in known:
            remedy = "start the experiment with policy.planned(plan), and analyse that metric"
            raise InvalidInputError("policy.guardrails", guardrail.text, f"of {', '.join(known)}", remedy)
        for key in treatments:
            case = _Case(
                guardrail=guardrail,
                metric=known[guardrail.metric],
                variant=key,
                control=experiment.control,
                plan=experiment.plan,
                weights=evidence.weights,
                alpha=policy.guardrail_alpha / (len(guardrails) * len(treatments)),
            )
            readings.append(_reading(case, policy, metrics[guardrail.metric]))
    return tuple(readings)


class _Case(NamedTuple):
    """One guardrail of one variant."""

    guardrail: Guardrail
    metric: MetricEvidence
    variant: str
    control: str
    plan: AnalysisPlan
    weights: Mapping[int, Mapping[str, float]]
    alpha: float

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Those of a score; None for rates, which have methods of their own, and for what has none."""
        definition = self.metric.definition
        if definition.is_rate or definition.lowest is None or definition.highest is None:
            return None
        return definition.lowest, definition.highest

    @property
    def broken(self) -> Side:
        """The side of its bound on which an absolute guardrail has failed."""
        return "less" if self.guardrail.kind == "at_least" else "greater"

    @property
    def is_bet_on(self) -> bool:
        """Whether its units are bet on while they are few, and have a confidence sequence later."""
        if self.guardrail.is_absolute and self.metric.definition.is_rate:
            return not are_trials(self.metric.pooled(self.variant))
        return self.bounds is not None

    def units(self, variant: str) -> int:
        if self.metric.definition.kind == "quantile":
            return sum(arm.units for arm in self.metric.quantiles.get(variant, {}).values())
        return self.metric.pooled(variant).units


class _Test(NamedTuple):
    technique: GuardTechnique
    p_value: float | None = None


def _reading(case: _Case, policy: Policy, metric: MetricAnalysis) -> GuardReading:
    guardrail, estimate = case.guardrail, metric.estimates[case.variant]
    # a bet, and the confidence sequence that takes its place, have a half each
    alpha = case.alpha / 2.0 if case.is_bet_on else case.alpha
    verdict: Safety = "undecided"
    if guardrail.is_absolute:
        found = _against_bound(case, case.broken, alpha)
        # all guardrails have to be kept before anything is promoted, so this alpha is not shared
        kept = _against_bound(case, _OTHER_SIDE[case.broken], policy.alpha).p_value
        if kept is not None and kept <= policy.alpha:
            verdict = "pass"
    else:
        found = _against_control(case, alpha)
        difference = metric.differences[case.variant]
        if difference.safety == "pass" or difference.verdict == "better":
            verdict = "pass"
    if found.p_value is not None and found.p_value <= alpha:
        verdict = "fail"
    reading = GuardReading(
        guardrail=guardrail.text,
        metric=metric.metric,
        variant=case.variant,
        value=estimate.value,
        control=None if guardrail.is_absolute else metric.estimates[case.control].value,
        units=case.units(case.variant),
        p_value=found.p_value,
        alpha=alpha,
        technique=found.technique,
        verdict=verdict,
        # a winner on the primary metric has no regression there, and with a margin of 0 there is none to exclude
        needed=guardrail.is_absolute or (guardrail.amount > 0.0 and metric.role != "primary"),
        sentence="",
    )
    return reading.model_copy(update={"sentence": of_guard(reading)})


def _against_bound(case: _Case, claim: Side, alpha: float) -> _Test:
    """Test that the variant's own value is beyond the bound, on the side of `claim`."""
    bound, evidence = case.guardrail.amount, case.metric
    if evidence.definition.is_rate:
        sums = evidence.pooled(case.variant)
        if are_trials(sums):
            log_e = rate_log_e_value(round(sums.s), sums.units, bound=bound, claim=claim)
            return _Test("exact rates", _p_value(log_e))
    scores = _scores(case)
    if scores is not None and case.bounds is not None:
        low, high = case.bounds
        log_e = score_log_e_value(scores, bound=bound, claim=claim, low=low, high=high, alpha=alpha)
        return _Test("betting", _p_value(log_e))
    if case.units(case.variant) < FEW_SEQUENTIAL_UNITS:
        # alpha is halved for a failure alone: to pass, the confidence sequence has all of it
        totals = _rate_totals(case) if claim == case.broken else None
        if totals is None:
            return _Test("not enough data")
        return _Test("betting", _p_value(unit_rate_log_e_value(totals, bound=bound, claim=claim)))
    if evidence.definition.kind == "quantile":
        mean = over_common_epochs(arm_means(evidence, [case.variant])).get(case.variant)
    else:
        mean = ratio_mean(evidence.pooled(case.variant))
    if mean is None:
        return _Test("not enough data")
    variance = rate_variance(mean, at=bound) if evidence.definition.is_rate else mean.variance
    return _asymptotic(
        case, mean.value, math.sqrt(variance), mean.units, null=bound, claim=claim, alpha=alpha
    )


def _against_control(case: _Case, alpha: float) -> _Test:
    """Test that the variant is worse than the control by more than the margin."""
    guardrail, direction = case.guardrail, case.metric.definition.direction
    margin, relative = guardrail.amount, guardrail.relative
    dealt = _dealt_rates(case)
    if dealt is not None:
        log_e = regression_log_e_value(dealt, margin=margin, relative=relative, direction=direction)
        return _Test("exact rates", _p_value(log_e))
    arms = arms_of(case.metric, case.variant, case.control)
    if arms.scores is not None and case.bounds is not None:
        low, high = case.bounds
        log_e = score_regression_log_e_value(
            *arms.scores,
            margin=margin,
            relative=relative,
            direction=direction,
            low=low,
            high=high,
            alpha=alpha,
        )
        return _Test("betting", _p_value(log_e))
    contrast = arms.contrast
    treatment, control = contrast.treatment, contrast.control
    variances = contrast.treatment_variance, contrast.control_variance
    few = min(case.units(case.variant), case.units(case.control)) < FEW_SEQUENTIAL_UNITS
    if few or treatment is None or control is None or variances[0] is None or variances[1] is None:
        return _Test("not enough data")
    value, se = treatment - control, math.sqrt(variances[0] + variances[1])
    null = -margin if direction == "increase" else margin
    if relative:
        value, se = relative_margin_effect(
            treatment, variances[0], control, variances[1], margin=margin, direction=direction
        )
        null = 0.0
    worse: Side = "less" if direction == "increase" else "greater"
    return _asymptotic(case, value, se, contrast.units, null=null, claim=worse, alpha=alpha)


def _asymptotic(
    case: _Case, value: float, se: float, units: int, *, null: float, claim: Side, alpha: float
) -> _Test:
    if not (se > 0.0 and math.isfinite(se)):
        # what never varied does not tell how much it varies
        return _Test("not enough data")
    p_value = sequential.p_value(
        value, se, units, null=null, tuning_units=case.plan.tuning_units, alpha=alpha, alternative=claim
    )
    return _Test("confidence sequence", p_value)


def _dealt_rates(case: _Case) -> list[DealtRates] | None:
    """Return both arms' outcomes by epoch; None where a unit has other than one outcome of 0 or 1."""
    if not case.metric.definition.is_rate:
        return None
    arms = case.metric.arm(case.variant), case.metric.arm(case.control)
    dealt = []
    for epoch in sorted(arms[0].keys() | arms[1].keys()):
        treatment, control = (arm.get(epoch, UnitSums()) for arm in arms)
        if not (are_trials(treatment) and are_trials(control)):
            return None
        weights = [case.weights.get(epoch, {}).get(key, 0.0) for key in (case.variant, case.control)]
        # an epoch that dealt to one of them alone compares nothing
        if min(weights) > 0.0:
            counts = ((round(arm.s), arm.units) for arm in (treatment, control))
            dealt.append(DealtRates(weights[0] / sum(weights), *counts))
    return dealt


def _scores(case: _Case) -> Sequence[float] | None:
    """Return the variant's single scores by epoch, in the order of exposure, where they are few and within bounds."""
    if case.metric.units is None or case.bounds is None:
        return None
    low, high = case.bounds
    units = _single_units(case)
    if not all(n == 1.0 and low <= score <= high for n, score in units):
        return None
    return [score for _, score in units]


def _rate_totals(case: _Case) -> Sequence[UnitTotal] | None:
    """Return the variant's single units of a rate, where they are few and their outcomes are 0 or 1."""
    if case.metric.units is None or not case.metric.definition.is_rate:
        return None
    units = _single_units(case)
    return units if all(0.0 <= s <= n for n, s in units) else None


def _single_units(case: _Case) -> Sequence[UnitTotal]:
    by_epoch = {} if case.metric.units is None else case.metric.units.get(case.variant, {})
    return [unit for _, of_epoch in sorted(by_epoch.items()) for unit in of_epoch]


def _p_value(log_e: float) -> float:
    return math.exp(-max(0.0, log_e))
