"""How large an experiment has to be, for the analysis that promptab makes of it: pure, on `promptab.stats.power`."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from promptab.analysis import wording
from promptab.analysis.planned import MetricHistory, PlannedTest, SampleSizePlan
from promptab.checks import check_count, check_number
from promptab.errors import InvalidInputError
from promptab.plan import TUNING_UNITS
from promptab.stats import power as stats_power
from promptab.stats.metric import Direction, MetricFormat
from promptab.stats.multiplicity import simultaneous_confidence
from promptab.stats.power import Design, Measured, Proportion, Ratio, SampleSize

_METHODS: tuple[Literal["sequential", "fixed"], ...] = ("sequential", "fixed")
_MOST_VARIANTS = 1_000


class Outcome(NamedTuple):
    """What is measured of a unit under the control."""

    measured: Measured
    value: float | None
    """The control's; None where it is not known, and no effect is relative to it."""
    format: MetricFormat = "number"
    direction: Direction = "increase"
    """The change that is an improvement."""
    variance_factor: float = 1.0
    """`Clustering.variance_factor`; 1.0 where `measured` is of whole units."""
    events_per_unit: float | None = None

    @classmethod
    def of_history(cls, history: MetricHistory) -> Outcome:
        """Return what the recorded units show. Raises `InvalidInputError` where they show too little to plan by."""
        mean, variance = history.mean, history.variance_per_unit
        if mean is None or variance is None or variance == 0.0:
            raise InvalidInputError(
                "history",
                f"{history.units} units with {history.metric} in {history.source}",
                "two units or more that are not all alike",
                "give the baseline, or the mean and the standard deviation, yourself",
            )
        common = (mean, history.format, history.direction)
        if history.is_share:
            # the units may vary more or less than single throws of the coin would
            factor = variance / (mean * (1.0 - mean))
            return cls(Proportion(mean), *common, factor, history.events_per_unit)
        return cls(Ratio(math.sqrt(variance)), *common, 1.0, history.events_per_unit)


class SizeQuestion(NamedTuple):
    """What an experiment is to find; two of effect, units and power are given, and the third is answered."""

    effect: float | None = None
    """The improvement that is to be found, whichever direction is one; below 0 it is a loss."""
    units: float | None = None
    """Of the control."""
    power: float = 0.8
    relative: bool = False
    """Whether `effect` and `margin` are shares of the control's value."""
    margin: float | None = None
    """Non-inferiority: how much worse is tolerated. The effect is taken to be 0 unless given."""
    alpha: float = 0.05
    """Of all comparisons with the control together, as in the analysis of a primary metric; with a margin of each,
    one-sided, as in that of a guardrail."""
    variants: int = 2
    """With the control."""
    allocation: float = 1.0
    """Units of each treatment for each of the control."""
    history_correlation: float | None = None
    """CUPED: of a unit's outcomes with its own before the experiment."""
    tuning_units: float = TUNING_UNITS
    units_per_day: float | None = None
    """Units that come for the first time, whether enrolled or not."""
    traffic: float = 1.0
    """The share of them that is enrolled."""


def plan_sample_size(outcome: Outcome, question: SizeQuestion) -> SampleSizePlan:
    """Answer for the sequential analysis and for the fixed horizon.

    Alpha is shared among the treatments (Bonferroni, at most as sharp as the analysis' Holm). The sequential power is
    that of a single look at the end. Raises `InvalidInputError` as `promptab.stats.power` does, where neither an
    effect, nor units, nor a margin is given, and for a relative effect of a control that is not above 0.
    """
    check_count("variants", question.variants, low=2, high=_MOST_VARIANTS)
    check_number("alpha", question.alpha, above=0.0, below=0.5)
    effect, margin = _in_own_unit(outcome, question)
    design = _design(outcome, question, margin)
    tests = tuple(
        _test(
            outcome,
            question,
            method,
            effect=effect,
            design=design._replace(sequential=method == "sequential"),
        )
        for method in _METHODS
    )
    plan = SampleSizePlan(
        question="units" if question.units is None else "effect" if effect is None else "power",
        format=outcome.format,
        direction=outcome.direction,
        baseline=outcome.value,
        margin=margin,
        variants=question.variants,
        alpha=design.alpha,
        variance_factor=design.variance_factor,
        tests=tests,
        sentence="",
    )
    return plan.model_copy(update={"sentence": _sentence(plan, question)})


def _in_own_unit(outcome: Outcome, question: SizeQuestion) -> tuple[float | None, float | None]:
    """Return the effect, treatment minus control, and the margin, in the metric's own unit."""
    scale = _scale(outcome, relative=question.relative)
    margin = None if question.margin is None else scale * check_number("margin", question.margin, low=0.0)
    if question.effect is None:
        if question.units is None and margin is None:
            remedy = "give the smallest effect that is worth finding, or the units to see what they find"
            raise InvalidInputError("effect", None, "given", remedy)
        return (0.0 if question.units is None else None), margin
    improvement = scale * check_number("effect", question.effect)
    effect = improvement if outcome.direction == "increase" else -improvement
    rate = outcome.measured.baseline if isinstance(outcome.measured, Proportion) else None
    if rate is not None and not 0.0 < rate + effect < 1.0:
        bound = f"small enough: a rate of {rate:g} would become {rate + effect:g}"
        remedy = "" if question.relative else "a share of the control's value is said to be relative"
        raise InvalidInputError("effect", question.effect, bound, remedy)
    return effect, margin


def _design(outcome: Outcome, question: SizeQuestion, margin: float | None) -> Design:
    shared = 1.0 - simultaneous_confidence(question.variants - 1, 1.0 - question.alpha)
    # guardrails have to pass for every treatment, so nothing is shared among them
    return Design(
        alpha=shared if margin is None else question.alpha,
        sides=2 if margin is None else 1,
        direction=outcome.direction,
        allocation=question.allocation,
        margin=margin,
        tuning_units=question.tuning_units,
        variance_factor=outcome.variance_factor * _left_by_history(question.history_correlation),
    )


def _scale(outcome: Outcome, *, relative: bool) -> float:
    if not relative:
        return 1.0
    if outcome.value is None or outcome.value <= 0.0:
        raise InvalidInputError(
            "relative",
            outcome.value,
            "a control's value above 0",
            "give the mean, or an effect in the metric's own unit",
        )
    return outcome.value


def _left_by_history(correlation: float | None) -> float:
    return 1.0 if correlation is None else stats_power.cuped_factor(correlation)


def _test(
    outcome: Outcome,
    question: SizeQuestion,
    method: Literal["sequential", "fixed"],
    *,
    effect: float | None,
    design: Design,
) -> PlannedTest:
    size = _size(outcome, question, effect, design)
    found = effect
    if question.units is not None and effect is None:
        found = stats_power.detectable_effect(
            outcome.measured, control_units=question.units, power=question.power, design=design
        )
    treatments = question.variants - 1
    units = size.control + treatments * size.treatment
    per_unit = outcome.events_per_unit
    value = outcome.value
    return PlannedTest(
        method=method,
        control_units=size.control,
        treatment_units=size.treatment,
        units=units,
        events=None if per_unit is None else math.ceil(units * per_unit),
        days=_days(size, question),
        power=size.power,
        effect=found,
        lift=None if found is None or value is None or value <= 0.0 else found / value,
    )


def _size(outcome: Outcome, question: SizeQuestion, effect: float | None, design: Design) -> SampleSize:
    """Return the units with their power: those that the effect needs, or those that were given."""
    measured, units = outcome.measured, question.units
    if units is None:
        return stats_power.sample_size(measured, effect or 0.0, power=question.power, design=design)
    power = question.power
    if effect is not None:
        power = stats_power.achieved_power(measured, effect, control_units=units, design=design)
    treatment = math.ceil(units * design.allocation)
    return SampleSize(units, math.ceil(units), treatment, effect or 0.0, power)


def _days(size: SampleSize, question: SizeQuestion) -> int | None:
    if question.units_per_day is None:
        return None
    weights = 1.0 + (question.variants - 1) * question.allocation
    return stats_power.days_needed(
        size,
        units_per_day=question.units_per_day,
        traffic=question.traffic,
        control_share=1.0 / weights,
        treatment_share=question.allocation / weights,
    )


def _sentence(plan: SampleSizePlan, question: SizeQuestion) -> str:
    sequential, fixed = plan.tests
    units = f"{fixed.control_units:,} units of the control"
    match plan.question:
        case "units":
            asked = f"{_finding(plan, fixed)} with power {question.power:g} takes"
            answers = [_told_units(test) for test in (sequential, fixed)]
        case "power":
            asked = f"{_finding(plan, fixed)} with {units} has power"
            answers = [wording.probability(test.power) for test in (sequential, fixed)]
        case "effect":
            shown = "found" if plan.margin is None else f"shown to be worse by less than {_margin(plan)}"
            asked = f"With {units} and power {question.power:g} the smallest change that is {shown} is"
            answers = [_change(plan, test) for test in (sequential, fixed)]
    return (
        f"{asked} {answers[0]} looking whenever you like (sequential), "
        f"{answers[1]} with one look at the end (fixed)."
    )


def _finding(plan: SampleSizePlan, test: PlannedTest) -> str:
    if plan.margin is not None:
        expected = f"changes it by {_change(plan, test)}" if test.effect else "changes nothing"
        return f"Showing that a variant is worse by less than {_margin(plan)}, where it {expected},"
    start = "" if plan.baseline is None else f" from {wording.measure(plan.baseline, plan.format)}"
    return f"Finding a change of {_change(plan, test)}{start}"


def _margin(plan: SampleSizePlan) -> str:
    margin = wording.change(plan.margin, None, None, plan.format)
    return margin.told(wording.change_unit(plan.format)).removeprefix("+")


def _change(plan: SampleSizePlan, test: PlannedTest) -> str:
    if test.effect is None:
        return "none (too few units)"
    change = wording.change(test.effect, None, None, plan.format).told(wording.change_unit(plan.format))
    return change if test.lift is None else f"{change} ({100 * test.lift:+.3g} %)"


def _told_units(test: PlannedTest) -> str:
    if test.control_units == test.treatment_units:
        return f"{test.control_units:,} units per variant"
    return f"{test.control_units:,} units of the control and {test.treatment_units:,} of a treatment"
