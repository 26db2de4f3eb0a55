"""Sizes of experiments: from numbers that are told, and from what has been recorded."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptab import InvalidInputError, Lab, MetricHistory, NotFoundError, PromptVariant
from promptab.analysis.sizing import Outcome, SizeQuestion, plan_sample_size
from promptab.stats.metric import BUILT_IN_METRICS
from promptab.stats.power import Mean, Measured, Proportion, Ratio
from promptab.stats.summary import UnitSums
from tests.clock import SettableClock

A, B = "1.0.0", "1.1.0"
RATE = Outcome(Proportion(0.15), 0.15, "percent")


def test_plan_has_both_methods_and_the_pooled_formula_at_the_end() -> None:
    plan = plan_sample_size(RATE, SizeQuestion(effect=0.10, relative=True))
    sequential, fixed = plan.tests
    assert (sequential.method, fixed.method) == ("sequential", "fixed")
    assert (fixed.control_units, fixed.treatment_units, fixed.units) == (9_257, 9_257, 18_514)
    assert sequential.units > fixed.units
    assert fixed.effect == pytest.approx(0.015)
    assert fixed.lift == pytest.approx(0.10)
    assert plan.sentence == (
        f"Finding a change of +1.5 points (+10 %) from 15 % with power 0.8 takes {sequential.control_units:,} units "
        "per variant looking whenever you like (sequential), 9,257 units per variant with one look at the end (fixed)."
    )


def test_units_answer_with_power_or_with_the_smallest_effect() -> None:
    asked = SizeQuestion(effect=0.10, relative=True, units=9_257)
    power = plan_sample_size(RATE, asked)
    assert power.question == "power"
    assert power.tests[1].power == pytest.approx(0.8, abs=1e-4)
    effect = plan_sample_size(RATE, SizeQuestion(units=9_257))
    assert effect.question == "effect"
    assert effect.tests[1].effect == pytest.approx(0.015, abs=1e-5)
    assert effect.tests[0].effect is not None
    assert effect.tests[0].effect > 0.015


def test_effect_is_none_where_the_units_are_too_few() -> None:
    plan = plan_sample_size(Outcome(Proportion(0.9), 0.9, "percent"), SizeQuestion(units=10))
    assert plan.tests[1].effect is None
    assert plan.tests[1].lift is None
    assert "none (too few units)" in plan.sentence


def test_more_variants_share_alpha_and_add_units() -> None:
    two = plan_sample_size(RATE, SizeQuestion(effect=0.02))
    four = plan_sample_size(RATE, SizeQuestion(effect=0.02, variants=4))
    alone = plan_sample_size(RATE, SizeQuestion(effect=0.02, alpha=0.05 / 3))
    assert four.alpha == pytest.approx(0.05 / 3)
    assert four.tests[1].control_units == alone.tests[1].control_units > two.tests[1].control_units
    assert four.tests[1].units == 4 * four.tests[1].control_units


def test_margin_is_shown_at_the_whole_alpha_for_every_variant() -> None:
    plan = plan_sample_size(RATE, SizeQuestion(margin=0.02, variants=3))
    assert plan.alpha == 0.05
    assert plan.tests[1].effect == 0.0
    # Chow, Shao & Wang: (z.95 + z.80)² 2 p (1 - p) / M²
    expected = (1.6448536 + 0.8416212) ** 2 * 2 * 0.15 * 0.85 / 0.02**2
    assert plan.tests[1].control_units == math.ceil(expected)
    assert "worse by less than 2 points, where it changes nothing," in plan.sentence


def test_days_are_those_of_the_arm_that_fills_last() -> None:
    question = SizeQuestion(
        effect=0.10, relative=True, units_per_day=1_000, traffic=0.5, variants=3, allocation=0.5
    )
    fixed = plan_sample_size(RATE, question).tests[1]
    # of 500 a day the control gets a half, each treatment a quarter
    assert fixed.days == math.ceil(max(fixed.control_units / 250, fixed.treatment_units / 125))


def test_history_and_clustering_multiply_the_variance() -> None:
    plain = plan_sample_size(RATE, SizeQuestion(effect=0.01)).tests[1]
    outcome = RATE._replace(variance_factor=0.36, events_per_unit=5.0)
    plan = plan_sample_size(outcome, SizeQuestion(effect=0.01, history_correlation=0.6))
    assert plan.variance_factor == pytest.approx(0.36 * 0.64)
    fixed = plan.tests[1]
    assert fixed.control_units == pytest.approx(plain.control_units * 0.36 * 0.64, rel=1e-3)
    assert fixed.events == 5 * fixed.units


@given(
    st.sampled_from([Proportion(0.3), Mean(1.7), Ratio(0.4)]),
    st.floats(0.01, 0.2),
    st.sampled_from([None, 0.05]),
)
def test_less_is_planned_as_more_of_the_complement(
    measured: Measured, effect: float, margin: float | None
) -> None:
    mirrored = Proportion(1.0 - measured.baseline) if isinstance(measured, Proportion) else measured
    question = SizeQuestion(effect=effect, margin=margin)
    up = plan_sample_size(Outcome(measured, None), question)
    down = plan_sample_size(Outcome(mirrored, None, direction="decrease"), question)
    for one, other in zip(up.tests, down.tests, strict=True):
        assert one.effect == -(other.effect or 0.0)
        # the solver's last digit may fall to either side of a whole unit
        assert abs(one.control_units - other.control_units) <= 1
        assert one.power == pytest.approx(other.power, abs=1e-3)


@pytest.mark.parametrize(
    ("outcome", "question", "field"),
    [
        (RATE, SizeQuestion(), "effect"),
        (RATE, SizeQuestion(effect=0.0), "effect"),
        (RATE, SizeQuestion(effect=0.9), "effect"),
        (RATE, SizeQuestion(effect=0.1, variants=1), "variants"),
        (RATE, SizeQuestion(effect=0.1, alpha=0.0), "alpha"),
        (RATE, SizeQuestion(effect=0.1, power=1.0), "power"),
        (RATE, SizeQuestion(effect=0.1, margin=-0.1), "margin"),
        (RATE, SizeQuestion(effect=-0.03, margin=0.02), "effect"),
        (RATE, SizeQuestion(effect=0.1, history_correlation=1.0), "correlation"),
        (RATE, SizeQuestion(effect=0.1, units=1), "control_units"),
        (RATE, SizeQuestion(effect=0.1, units_per_day=0.0), "units_per_day"),
        (RATE, SizeQuestion(effect=0.1, units_per_day=9.0, traffic=0.0), "traffic"),
        (Outcome(Mean(1.0), None), SizeQuestion(effect=0.1, relative=True), "relative"),
        (Outcome(Mean(1.0), -2.0), SizeQuestion(effect=0.1, relative=True), "relative"),
    ],
)
def test_impossible_questions_are_refused_by_name(
    outcome: Outcome, question: SizeQuestion, field: str
) -> None:
    with pytest.raises(InvalidInputError) as refused:
        plan_sample_size(outcome, question)
    assert refused.value.field == field


async def start(lab: Lab, **options: Any) -> None:
    for number in (A, B):
        await lab.versions.create_version("greeting", "system", f"Hello {number}.", number)
    await lab.experiments.create_experiment(
        "greeting", "system", [PromptVariant(A), PromptVariant(B)], salt="s", **options
    )


Totals = dict[str, list[list[dict[str, float]]]]


async def record(lab: Lab, clock: SettableClock, *, units: int, days: float) -> Totals:
    """Let units come evenly over the days, each with some uses; return the uses by variant and unit."""
    generator = np.random.default_rng(3)
    uses: Totals = {A: [], B: []}
    for number in range(units):
        choice = await lab.choose("greeting", user_id=f"u{number}")
        assert choice.variant is not None
        leaning = generator.beta(4, 2)
        of_unit = []
        for _ in range(int(generator.integers(1, 8))):
            success, seconds = bool(generator.random() < leaning), leaning + float(generator.exponential(0.3))
            await choice.record(success=success, response_time=seconds)
            of_unit.append({"success": float(success), "seconds": seconds})
        uses[choice.variant].append(of_unit)
        clock.advance(days=days / units)
    return uses


async def test_history_of_an_experiment_is_that_of_its_control(lab: Lab, clock: SettableClock) -> None:
    await start(lab)
    uses = await record(lab, clock, units=240, days=3)
    history = await lab.metrics.measured_history("greeting")
    control = [[use["success"] for use in unit] for unit in uses[A]]
    sums = UnitSums.of([(len(unit), sum(unit)) for unit in control])
    events = [event for unit in control for event in unit]
    assert history.source == "experiment greeting, variant 1.0.0"
    assert (history.metric, history.is_share, history.units) == ("success_rate", True, len(control))
    assert history.mean == pytest.approx(np.mean(events))
    assert history.events_per_unit == pytest.approx(len(events) / len(control))
    assert history.event_cv == pytest.approx(np.std([len(unit) for unit in control]) / (sums.n / sums.units))
    assert history.units_per_day == pytest.approx(80.0, rel=0.01)
    # a beta-binomial's correlation is 1 / (a + b + 1)
    assert history.correlation == pytest.approx(1 / 7, abs=0.12)
    assert history.design_effect is not None
    assert history.design_effect > 1.2
    assert history.tuning_units == 5_000


async def test_means_are_measured_with_the_variance_of_their_single_events(
    lab: Lab, clock: SettableClock
) -> None:
    await start(lab)
    uses = await record(lab, clock, units=240, days=3)
    of_control = [[use["seconds"] for use in unit] for unit in uses[A]]
    of_both = of_control + [[use["seconds"] for use in unit] for unit in uses[B]]
    for name, units in (("greeting", of_control), ("system/greeting", of_both)):
        history = await lab.metrics.measured_history(name, "response_time")
        events = np.array([event for unit in units for event in unit])
        residuals = [sum(unit) - events.mean() * len(unit) for unit in units]
        count = len(units)
        variance = count / (count - 1) * float(np.square(residuals).sum()) / len(events) ** 2
        assert history.variance_per_unit == pytest.approx(variance * count)
        # the delta method's variance over that of independent events
        assert history.design_effect == pytest.approx(variance * len(events) / events.var(), rel=1e-9)
        assert (history.direction, history.format, history.units) == ("decrease", "seconds", count)


async def test_history_of_a_prompt_is_that_of_its_last_weeks(lab: Lab, clock: SettableClock) -> None:
    await start(lab)
    await record(lab, clock, units=20, days=0.9)
    before = await lab.metrics.measured_history("system/greeting", "success")
    # a morning tells nothing of a day
    assert (before.units, before.units_per_day) == (20, None)
    clock.advance(days=27)
    for number in range(100, 160):
        choice = await lab.choose("greeting", user_id=f"u{number}")
        await choice.record(success=number % 3 > 0)
        clock.advance(hours=1)
    history = await lab.metrics.measured_history("system/greeting", "success")
    assert history.source == "prompt system/greeting, the last 28 days"
    assert history.units == 60
    assert history.mean == pytest.approx(2 / 3)
    assert history.units_per_day == pytest.approx(60 / (59 / 24))
    assert history.tuning_units is None


async def test_history_counts_traffic_that_was_enrolled_in_part(lab: Lab, clock: SettableClock) -> None:
    await start(lab, traffic=0.5)
    for number in range(200):
        choice = await lab.choose("greeting", user_id=f"u{number}")
        if choice.variant is not None:
            await choice.record(success=True)
        clock.advance(days=2 / 200)
    history = await lab.metrics.measured_history("greeting")
    assert history.units_per_day == pytest.approx(100.0, rel=0.2)


async def test_units_a_day_are_those_that_have_the_metric(lab: Lab, clock: SettableClock) -> None:
    await start(lab)
    for number in range(200):
        choice = await lab.choose("greeting", user_id=f"u{number}")
        await choice.record(success=True, cost=0.01 if number % 4 == 0 else None)
        clock.advance(days=2 / 200)
    for name in ("greeting", "system/greeting"):
        of_all = await lab.metrics.measured_history(name)
        of_some = await lab.metrics.measured_history(name, "cost")
        assert of_all.units_per_day == pytest.approx(100.0, rel=0.02)
        assert of_some.units_per_day == pytest.approx(25.0, rel=0.03)


async def test_history_that_shows_nothing_says_so(lab: Lab, clock: SettableClock) -> None:
    await start(lab)
    for name in ("greeting", "system/greeting"):
        history = await lab.metrics.measured_history(name)
        assert (history.units, history.mean, history.units_per_day, history.design_effect) == (
            0,
            None,
            None,
            None,
        )
        with pytest.raises(InvalidInputError, match="not two units or more"):
            Outcome.of_history(history)


async def test_history_of_what_is_not_there_is_not_found(lab: Lab) -> None:
    await start(lab)
    for name in ("nobody", "system/nobody"):
        with pytest.raises(NotFoundError):
            await lab.metrics.measured_history(name)
    with pytest.raises(InvalidInputError, match="quantile"):
        await lab.metrics.measured_history("greeting", "p95_response_time")
    with pytest.raises(InvalidInputError):
        await lab.metrics.measured_history("planet/greeting")


async def test_correlation_with_the_past_is_measured_where_the_metric_has_one(
    lab: Lab, clock: SettableClock
) -> None:
    metric = {"name": "rating", "history_days": 14}
    for number in (A, B):
        await lab.versions.create_version("greeting", "system", f"Hello {number}.", number)
    version = await lab.versions.get_version("greeting", "system", A)
    assert version is not None
    generator = np.random.default_rng(5)
    likes = generator.uniform(1.5, 4.5, 120)
    for at, liked in enumerate(likes):
        await lab.metrics.record_event(version.version_id, user_rating=float(liked), user_id=f"u{at}")
    clock.advance(days=1)
    await start_again(lab, metric)
    for at, liked in enumerate(likes):
        choice = await lab.choose("greeting", user_id=f"u{at}")
        await choice.record(user_rating=float(liked + generator.uniform(-0.4, 0.4)))
    history = await lab.metrics.measured_history("greeting")
    assert history.history_correlation is not None
    assert history.history_correlation > 0.9


async def start_again(lab: Lab, metric: dict[str, Any]) -> None:
    await lab.experiments.create_experiment(
        "greeting",
        "system",
        [PromptVariant(A), PromptVariant(B)],
        salt="s",
        primary_metric="rating",
        plan={"metrics": [metric]},
    )


@pytest.mark.parametrize("events", [1, 6])
def test_size_by_history_is_that_of_the_design_effect(events: int) -> None:
    """The two roads meet: variance per unit, and rate with events per unit and their correlation."""
    generator = np.random.default_rng(7)
    rates = generator.beta(3, 2, 5_000)
    sums = UnitSums.of([(events, float(generator.binomial(events, rate))) for rate in rates])
    history = MetricHistory.of(
        "simulated", BUILT_IN_METRICS["success_rate"], sums, event_variance=None, units_per_day=None
    )
    measured = plan_sample_size(Outcome.of_history(history), SizeQuestion(effect=0.02)).tests[1]
    mean = sums.s / sums.n
    # the correlation of a beta(3, 2) is 1/6
    factor = (1 + (events - 1) / 6) / events
    told = plan_sample_size(
        Outcome(Proportion(mean), mean, variance_factor=factor), SizeQuestion(effect=0.02)
    )
    assert measured.control_units == pytest.approx(told.tests[1].control_units, rel=0.06)


def test_history_of_units_that_are_all_alike_has_no_design_effect() -> None:
    history = MetricHistory.of(
        "all fine",
        BUILT_IN_METRICS["success_rate"],
        UnitSums.of([(3, 3)] * 9),
        event_variance=None,
        units_per_day=None,
    )
    assert (history.mean, history.variance_per_unit, history.correlation) == (1.0, 0.0, None)
    with pytest.raises(InvalidInputError, match="all alike"):
        Outcome.of_history(history)
