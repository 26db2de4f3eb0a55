"""Which facts hold that somebody should hear of, by an analysis and the decision that was made on it.

A fact begins once and is told once, however often it is looked at; ended and begun again it is told again. So that
one that wavers at its border is not told at every turn, a fact ends later than it begins: in between it lingers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from promptab.alerts.alert import AlertKind, Numbers, Severity
from promptab.analysis.result import AnalysisResult, GuardReading, MetricAnalysis, VariantDifference
from promptab.analysis.uncarried import uncarried_clause, uncarried_metrics
from promptab.decisions.decision import Decision
from promptab.errors import InvalidInputError
from promptab.plan import AnalysisPlan

NEAR, STILL_NEAR = 1 / 2, 1 / 3
"""How far the evidence against a guardrail has come, of its way to failing it: log p over log alpha."""
STILL_SIGNIFICANT = 2.0
"""A difference that was shown remains one up to this many times alpha."""
STILL_REACHED = 0.8
"""What is needed is worked out from what varies, and grows and shrinks with it."""


class Fact(NamedTuple):
    """Something that somebody should hear of."""

    kind: AlertKind
    about: str
    """What of the experiment it is about: a variant, a guardrail, a check."""
    severity: Severity
    sentence: str
    numbers: Numbers
    holds: bool = True
    """False: it lingers. One that had begun has not ended, and none begins."""

    @property
    def key(self) -> str:
        """What makes it the same fact at another look."""
        return f"{self.kind}:{self.about}"


def facts_of(decision: Decision, analysis: AnalysisResult, plan: AnalysisPlan) -> list[Fact]:
    """Return the facts that hold or linger, by this analysis; whatever is not among them has ended."""
    withdrawn = () if decision.inputs is None else decision.inputs.state.withdrawn
    primary = analysis.metrics[analysis.primary_metric]
    differences = [found for key, found in primary.differences.items() if key not in withdrawn]
    mismatches = list(_mismatches(analysis))
    return [
        *mismatches,
        *guardrail_facts([reading for reading in analysis.guards if reading.variant not in withdrawn]),
        # what cannot be believed neither begins nor ends anything
        *(
            fact._replace(holds=fact.holds and not mismatches)
            for difference in differences
            for fact in _significant(primary, difference, analysis, is_valid=not mismatches)
        ),
        *_sample_size(analysis, primary, plan, withdrawn),
        *uncarried_facts(uncarried_metrics(analysis), sum(analysis.units.values()), "units"),
        *_awaiting(decision),
    ]


def guardrail_facts(readings: Sequence[GuardReading]) -> list[Fact]:
    """Return what holds or lingers about guardrails."""
    return [fact for reading in readings for fact in _guardrail(reading)]


def uncarried_facts(metrics: Sequence[str], count: int, what: str) -> list[Fact]:
    """Return that none of so many units, or events, carries these metrics."""
    return [
        Fact("uncarried", metric, "warning", uncarried_clause(metric, f"{count} {what}"), {what: count})
        for metric in metrics
    ]


def _mismatches(analysis: AnalysisResult) -> Iterator[Fact]:
    for check in analysis.checks:
        if check.name in {"sample_ratio", "missing_outcomes"} and not check.passed:
            yield Fact("mismatch", check.name, "critical", check.detail, {"p_value": check.p_value})


def _guardrail(reading: GuardReading) -> Iterator[Fact]:
    way = _way(reading)
    about = f"{reading.variant}: {reading.guardrail}"
    numbers: dict[str, float | int | None] = {
        "value": reading.value,
        "control": reading.control,
        "units": reading.units,
        "p_value": reading.p_value,
        "alpha": reading.alpha,
    }
    failed = reading.verdict == "fail"
    if failed or way >= NEAR:
        yield Fact("guardrail_failed", about, "critical", reading.sentence, numbers, holds=failed)
    if failed or way >= STILL_NEAR:
        told = f"The evidence has come {100 * min(way, 1.0):.0f} % of its way against {reading.sentence}"
        yield Fact("guardrail_near", about, "warning", told, numbers, holds=not failed and way >= NEAR)


def _way(reading: GuardReading) -> float:
    """Return how far the evidence has come on the log scale: 0 for none, 1 where the guardrail fails."""
    if reading.p_value is None:
        return 0.0
    if reading.p_value <= 0.0:
        return math.inf
    return math.log(reading.p_value) / math.log(reading.alpha)


def _significant(
    primary: MetricAnalysis, difference: VariantDifference, analysis: AnalysisResult, *, is_valid: bool
) -> Iterator[Fact]:
    p_value, alpha = difference.adjusted_p, 1.0 - analysis.confidence
    shown = difference.adjusted or difference
    improves = (shown.value or 0.0) > 0.0 if primary.direction == "increase" else (shown.value or 0.0) < 0.0
    for verdict in ("better", "worse"):
        holds = difference.verdict == verdict
        lingers = not is_valid or (
            improves == (verdict == "better") and p_value is not None and p_value <= STILL_SIGNIFICANT * alpha
        )
        if holds or lingers:
            numbers: dict[str, float | int | None] = {
                "value": shown.value,
                "low": shown.low,
                "high": shown.high,
                "p_value": p_value,
                "units": primary.estimates[difference.variant].units,
            }
            severity: Severity = "info" if verdict == "better" else "warning"
            about = f"{difference.variant} is {verdict}"
            yield Fact("significant", about, severity, difference.sentence, numbers, holds=holds)


def _sample_size(
    analysis: AnalysisResult, primary: MetricAnalysis, plan: AnalysisPlan, withdrawn: tuple[str, ...]
) -> Iterator[Fact]:
    have = {key: found.units for key, found in primary.estimates.items() if key not in withdrawn}
    needed = max(plan.minimum_units, _planned_units(analysis, primary, plan, len(have)) or 0)
    fewest = min(have.values(), default=0)
    if fewest < STILL_REACHED * needed:
        return
    told = f"The sample size is reached: every variant has at least {needed} units with {primary.metric}"
    if needed > plan.minimum_units:
        told += f", with which the smallest effect worth having is found in {100 * plan.power:.3g} % of cases"
    yield Fact("sample_size", "", "info", told, {"units": fewest, "needed": needed}, holds=fewest >= needed)


def _planned_units(
    analysis: AnalysisResult, primary: MetricAnalysis, plan: AnalysisPlan, variants: int
) -> int | None:
    """Return the units of each variant with which the smallest effect is found, as far as units vary by now."""
    control = primary.estimates[analysis.control]
    if (
        primary.smallest_effect is None
        or variants < 2
        or not control.se
        or control.units < plan.minimum_units
    ):
        return None
    # loaded by now, as an analysis needs it; `import promptab` does not
    from promptab.analysis.sizing import Outcome, SizeQuestion, plan_sample_size  # noqa: PLC0415
    from promptab.stats.power import Ratio  # noqa: PLC0415

    sd = control.se * math.sqrt(control.units)
    question = SizeQuestion(
        effect=primary.smallest_effect,
        power=plan.power,
        relative=primary.relative,
        alpha=1.0 - analysis.confidence,
        variants=variants,
        tuning_units=plan.tuning_units,
    )
    try:
        planned = plan_sample_size(
            Outcome(Ratio(sd), control.value, primary.format, primary.direction), question
        )
    except InvalidInputError:
        # a share of nothing, or an effect that no number of units finds
        return None
    return next(test.control_units for test in planned.tests if test.method == "sequential")


def _awaiting(decision: Decision) -> Iterator[Fact]:
    if decision.consent != "none":
        about = f"{decision.action} {' '.join(decision.variants)}"
        yield Fact("awaiting", about, "warning", decision.sentence, decision.numbers)
