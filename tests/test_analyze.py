"""`lab.analyze` on a store: what is read, what is frozen, and what a decision needs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from promptab import (
    InvalidInputError,
    Lab,
    MetricDefinition,
    PromptExperiment,
    PromptVariant,
    StateError,
)
from promptab.analysis.result import METHODS
from promptab.stats.quantile import quantile_arm
from tests.clock import SettableClock

A, B = "1.0.0", "1.1.0"
FEW = {"minimum_units": 10}


async def experiment_of(lab: Lab, *, plan: Mapping[str, Any] = FEW, **options: Any) -> PromptExperiment:
    """Start an experiment on two versions of a greeting."""
    for number in (A, B):
        await lab.versions.create_version("greeting", "system", f"Hello {number}.", number)
    return await lab.experiments.create_experiment(
        "greeting", "system", [PromptVariant(A), PromptVariant(B)], salt="s", plan=plan, **options
    )


Outcome = Callable[[str, int], dict[str, Any]]


async def serve(
    lab: Lab, units: range, outcome: Outcome, *, attributes: Callable[[int], dict[str, Any]] | None = None
) -> dict[str, list[int]]:
    """Let each unit come once and record `outcome(variant, unit)`; return the units by variant."""
    dealt: dict[str, list[int]] = {A: [], B: []}
    for number in units:
        given = None if attributes is None else attributes(number)
        choice = await lab.choose("greeting", user_id=f"u{number}", attributes=given)
        assert choice.variant is not None
        dealt[choice.variant].append(number)
        await choice.record(**outcome(choice.variant, number))
    return dealt


def better_b(variant: str, number: int) -> dict[str, Any]:
    return {"success": number % 10 < (9 if variant == B else 2)}


async def test_analyze_is_sequential_unless_another_method_is_named(lab: Lab) -> None:
    await experiment_of(lab)
    await serve(lab, range(240), better_b)
    for method in METHODS:
        result = await lab.analyze("greeting", method)
        assert (result.method, result.winner) == (method, B), result.reason
    assert (await lab.analyze("greeting")).method == "sequential"
    assert (await lab.compare("greeting")).method == "fixed"


async def test_outcomes_count_only_inside_the_measurement_window_and_once_it_has_closed(
    lab: Lab, clock: SettableClock
) -> None:
    await experiment_of(lab, plan={"window_hours": 24, **FEW})
    await serve(lab, range(40), lambda variant, number: {"success": True})
    assert sum((await lab.analyze("greeting")).units.values()) == 0
    clock.advance(hours=23)
    late = await lab.choose("greeting", user_id="u0")
    await late.record(success=False)
    clock.advance(hours=2)
    await (await lab.choose("greeting", user_id="u1")).record(success=False)
    result = await lab.analyze("greeting")
    assert sum(result.units.values()) == 40
    assert result.approximate is False
    events = [estimate.events for estimate in result.metrics["success_rate"].estimates.values()]
    successes = [
        round((estimate.value or 0.0) * estimate.events)
        for estimate in result.metrics["success_rate"].estimates.values()
    ]
    assert (sum(events), sum(successes)) == (41, 40)
    again = await lab.analyze("greeting")
    assert again.metrics == result.metrics


async def test_since_leaves_out_units_that_came_before(lab: Lab, clock: SettableClock) -> None:
    await experiment_of(lab)
    await serve(lab, range(50), lambda variant, number: {"success": False})
    clock.advance(hours=1)
    start = clock()
    await serve(lab, range(30, 90), lambda variant, number: {"success": True})
    result = await lab.analyze("greeting", "fixed", since=start)
    assert sum(result.units.values()) == 40
    values = [estimate.value for estimate in result.metrics["success_rate"].estimates.values()]
    assert values == [1.0, 1.0]
    assert result.since == start
    whole = await lab.analyze("greeting", "fixed")
    assert sum(whole.units.values()) == 90


async def test_segments_split_the_units_by_an_attribute_of_their_exposure(lab: Lab) -> None:
    await experiment_of(lab)

    def outcome(variant: str, number: int) -> dict[str, Any]:
        return {"success": variant == B if number % 2 else number % 4 == 0}

    plans = {0: "free", 1: "pro"}
    await serve(lab, range(240), outcome, attributes=lambda number: {"plan": plans[number % 2]})
    result = await lab.analyze("greeting", "fixed", segments=["plan"])
    found = {segment.value: segment for segment in result.segments}
    assert set(found) == {"free", "pro"}
    assert found["pro"].analysis.differences[B].verdict == "better"
    assert found["free"].analysis.differences[B].verdict == "undecided"
    assert sum(sum(segment.units.values()) for segment in found.values()) == 240
    merged = sum(estimate.events for one in found.values() for estimate in one.analysis.estimates.values())
    assert merged == sum(estimate.events for estimate in result.metrics["success_rate"].estimates.values())


async def test_a_series_ends_at_what_the_analysis_says_now(lab: Lab, clock: SettableClock) -> None:
    await experiment_of(lab)
    for day in range(4):
        await serve(lab, range(60 * day, 60 * day + 60), better_b)
        clock.advance(days=1)
    result = await lab.analyze("greeting", series="day")
    difference = result.metrics["success_rate"].differences[B]
    assert [point.units for point in result.series] == [60, 120, 180, 240]
    last = result.series[-1]
    assert (last.value, last.low, last.high) == pytest.approx(
        (difference.value, difference.low, difference.high)
    )
    hourly = await lab.analyze("greeting", series="hour")
    assert len(hourly.series) == 4
    # a day that is not over yet has been looked at until now
    await serve(lab, range(240, 250), better_b)
    unfinished = await lab.analyze("greeting", series="day")
    assert unfinished.series[-1].at == unfinished.at
    assert unfinished.series[-2].at < unfinished.at


async def test_an_error_rate_is_the_mirror_image_of_a_success_rate_everywhere(
    lab: Lab, clock: SettableClock
) -> None:
    await experiment_of(lab, primary_metric="error_rate")
    await serve(lab, range(240), better_b, attributes=lambda number: {"plan": "free"})
    errors = await lab.analyze("greeting", segments=["plan"], series="day", metrics=["success_rate"])
    of_errors, of_successes = (errors.metrics[name].differences[B] for name in ("error_rate", "success_rate"))
    assert errors.winner == B
    assert of_errors.value == pytest.approx(-(of_successes.value or 0.0))
    assert errors.segments[0].analysis.differences[B].value == pytest.approx(of_errors.value)
    assert errors.series[-1].value == pytest.approx(of_errors.value)


async def test_a_quantile_is_computed_when_it_is_asked_for_and_kept_until_something_new_comes(
    lab: Lab,
) -> None:
    await experiment_of(lab)
    generator = np.random.default_rng(3)
    times = generator.gamma(2.0, 1.0, size=400)
    dealt = await serve(
        lab, range(400), lambda variant, number: {"success": True, "response_time": float(times[number])}
    )
    assert "p95_response_time" not in (await lab.analyze("greeting")).metrics
    result = await lab.analyze("greeting", metrics=["p95_response_time"])
    assert set(result.metrics) == {"success_rate", "p95_response_time"}
    for key, estimate in result.metrics["p95_response_time"].estimates.items():
        expected = quantile_arm(times[dealt[key]], np.arange(len(dealt[key])), 0.95)
        assert estimate.value == expected.value
        assert (estimate.units, estimate.events) == (len(dealt[key]), len(dealt[key]))
        assert expected.variance is not None
        assert estimate.se == pytest.approx(expected.variance**0.5)
    assert (await lab.analyze("greeting", metrics=["p95_response_time"])).metrics == result.metrics
    await (await lab.choose("greeting", user_id="u0")).record(response_time=99.0)
    changed = await lab.analyze("greeting", metrics=["p95_response_time"])
    assert changed.metrics["p95_response_time"].estimates != result.metrics["p95_response_time"].estimates


async def test_a_ratio_of_two_measures_is_declared_once_and_analysed_by_itself(lab: Lab) -> None:
    ratio = {
        "name": "cost_of_solving",
        "kind": "ratio",
        "measure": "cost",
        "denominator": "success",
        "direction": "decrease",
        "format": "dollars",
    }
    await experiment_of(lab, plan={"metrics": [ratio], **FEW})
    dealt = await serve(
        lab,
        range(200),
        lambda variant, number: {"cost": 0.02 if variant == A else 0.01, "success": number % 2 == 0},
    )
    estimates = (await lab.analyze("greeting")).metrics["cost_of_solving"].estimates
    for key, cost in ((A, 0.02), (B, 0.01)):
        solved = sum(number % 2 == 0 for number in dealt[key])
        assert estimates[key].value == pytest.approx(cost * len(dealt[key]) / solved)
    asked = await lab.analyze("greeting", metrics=["cost_per_success"])
    assert asked.metrics["cost_per_success"].estimates[A].value == pytest.approx(estimates[A].value)


async def test_units_without_an_event_count_in_a_mean_per_unit(lab: Lab) -> None:
    metrics = [
        {"name": "tickets", "kind": "mean_per_unit"},
        {"name": "came_back", "kind": "share_of_units", "measure": "tickets"},
    ]
    await experiment_of(lab, plan={"metrics": metrics, **FEW})
    for number in range(60):
        choice = await lab.choose("greeting", user_id=number)
        if number % 3 == 0:
            await choice.record(metrics={"tickets": 3.0})
    result = await lab.analyze("greeting", "fixed")
    totals = {
        name: sum(
            (estimate.value or 0.0) * estimate.units for estimate in result.metrics[name].estimates.values()
        )
        for name in ("tickets", "came_back")
    }
    assert totals == pytest.approx({"tickets": 60.0, "came_back": 20.0})
    assert sum(estimate.units for estimate in result.metrics["tickets"].estimates.values()) == 60


async def test_a_percentile_cap_is_frozen_by_what_came_before_the_start(lab: Lab) -> None:
    before = await lab.versions.create_version("greeting", "system", "Before.", "0.9.0")
    for cost in range(1, 101):
        await lab.metrics.record_event(before.version_id, cost=float(cost))
    capped = {"name": "cost", "direction": "decrease", "cap_percentile": 0.9}
    experiment = await experiment_of(lab, plan={"metrics": [capped], **FEW})
    assert experiment.plan.definition("cost").cap == 90.0
    await serve(lab, range(60), lambda variant, number: {"cost": 1e6 if number == 7 else 50.0})
    for _ in range(3):
        await lab.metrics.record_event(before.version_id, cost=1e9)
    result = await lab.analyze("greeting", "fixed")
    total = sum((found.value or 0.0) * found.events for found in result.metrics["cost"].estimates.values())
    assert total == pytest.approx(59 * 50.0 + 90.0)


async def test_a_cap_that_was_not_declared_before_the_start_is_refused(lab: Lab) -> None:
    await experiment_of(lab)
    await serve(lab, range(20), lambda variant, number: {"cost": 1.0})
    later = MetricDefinition(name="cost", direction="decrease", cap=5.0)
    with pytest.raises(InvalidInputError, match="cap"):
        await lab.analyze("greeting", metrics=[later])


async def test_history_before_the_first_exposure_narrows_the_interval(lab: Lab, clock: SettableClock) -> None:
    version = await lab.versions.create_version("greeting", "system", "Before.", "0.9.0")
    generator = np.random.default_rng(8)
    habits = generator.gamma(4.0, 1.0, size=300)
    for number in range(300):
        for _ in range(3):
            noise = float(generator.normal(0.0, 0.1))
            await lab.metrics.record_event(
                version.version_id, response_time=max(0.0, habits[number] + noise), user_id=f"u{number}"
            )
    clock.advance(days=1)
    plan = {"metrics": [{"name": "response_time", "direction": "decrease", "history_days": 7}], **FEW}
    await experiment_of(lab, plan=plan, primary_metric="response_time")

    def outcome(variant: str, number: int) -> dict[str, Any]:
        faster = 0.2 if variant == B else 0.0
        return {"response_time": max(0.0, habits[number] - faster + float(generator.normal(0.0, 0.1)))}

    await serve(lab, range(300), outcome)
    result = await lab.analyze("greeting")
    difference = result.metrics["response_time"].differences[B]
    assert difference.adjusted is not None
    assert difference.adjusted.units_with_history == 300
    assert difference.adjusted.correlation > 0.98
    assert difference.high is not None
    assert difference.high > 0.0 > difference.adjusted.high
    assert result.winner == B


async def test_a_guardrail_of_the_plan_is_analysed_whatever_is_asked_for(lab: Lab) -> None:
    guardrail = {
        "name": "response_time",
        "direction": "decrease",
        "role": "guardrail",
        "largest_regression": 0.1,
    }
    await experiment_of(lab, plan={"metrics": [guardrail], **FEW})

    def slow(variant: str, number: int) -> dict[str, Any]:
        seconds = (1.5 if variant == B else 1.0) + number % 5 / 100
        return {**better_b(variant, number), "response_time": seconds}

    await serve(lab, range(240), slow)
    result = await lab.analyze("greeting", metrics=["cost"])
    assert result.metrics["response_time"].differences[B].safety == "fail"
    assert result.better() == B
    assert result.winner is None
    with pytest.raises(StateError, match="no winner"):
        await lab.promote_winner("greeting", allow_approximate=True)
    assert await lab.versions.deployments("greeting", "system") == []


async def test_the_winner_is_promoted_once_with_the_numbers_as_evidence(lab: Lab) -> None:
    experiment = await experiment_of(lab)
    await serve(lab, range(240), better_b)
    with pytest.raises(StateError, match="approximate"):
        await lab.promote_winner("greeting")
    assert await lab.versions.deployments("greeting", "system") == []
    moved = await lab.promote_winner("greeting", allow_approximate=True, actor="ada")
    assert (moved.version, moved.actor) == (B, "ada")
    assert moved.evidence is not None
    assert moved.evidence["approximate"] is True
    assert moved.evidence["method"] == "sequential"
    assert moved.evidence["metrics"]["success_rate"]["differences"][B]["verdict"] == "better"
    ended = await lab.experiments.get_experiment(experiment.experiment_id)
    assert ended is not None
    assert (ended.status, ended.winner) == ("completed", B)
    again = await lab.promote_winner(experiment.experiment_id, allow_approximate=True)
    assert again.sequence == moved.sequence
    assert len(await lab.versions.deployments("greeting", "system")) == 1


async def test_a_winner_with_a_measurement_window_needs_no_leave(lab: Lab, clock: SettableClock) -> None:
    await experiment_of(lab, plan={"window_hours": 1, **FEW})
    await serve(lab, range(240), better_b)
    clock.advance(hours=2)
    assert (await lab.promote_winner("greeting")).version == B


async def test_many_analyses_at_once_agree(lab: Lab) -> None:
    await experiment_of(lab)
    await serve(lab, range(120), better_b)
    results = await asyncio.gather(*(lab.analyze("greeting", method) for method in METHODS for _ in range(4)))
    for first, *others in (results[0:4], results[4:8], results[8:12]):
        assert all(other.metrics == first.metrics for other in others)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"method": "peeking"}, "method"),
        ({"confidence": 1.0}, "confidence"),
        ({"confidence": 95}, "confidence"),
        ({"series": "week"}, "series"),
        ({"segments": "plan"}, "segments"),
        ({"metrics": "cost"}, "metrics"),
        ({"metrics": ["no metric!"]}, "metrics"),
        ({"segments": ["no attribute!"]}, "segments"),
        ({"since": "yesterday"}, "since"),
    ],
)
async def test_what_cannot_be_asked_is_refused_by_name(
    lab: Lab, arguments: dict[str, Any], field: str
) -> None:
    await experiment_of(lab)
    with pytest.raises(InvalidInputError) as refused:
        await lab.analyze("greeting", **arguments)
    assert refused.value.field == field


async def test_a_plan_that_does_not_fit_together_makes_no_experiment(lab: Lab) -> None:
    for plan, field in (
        ({"window_hours": -1}, "plan.window_hours"),
        ({"metrics": [{"name": "x", "kind": "ratio"}]}, "metrics[x].denominator"),
        ({"metrics": [{"name": "x", "role": "guardrail"}]}, "metrics[x].largest_regression"),
        ({"colour": "blue"}, "AnalysisPlan.colour"),
    ):
        with pytest.raises(InvalidInputError) as refused:
            await lab.experiments.create_experiment(
                "greeting", "system", [PromptVariant("a", key="a"), PromptVariant("b", key="b")], plan=plan
            )
        assert refused.value.field == field
    assert await lab.experiments.list_experiments() == []


async def test_an_analysis_a_day_costs_no_validity_when_units_are_late(
    lab: Lab, clock: SettableClock
) -> None:
    """Events may come long after the exposure and between looks: sums stay those of all events, exactly."""
    await experiment_of(lab)
    choices = [await lab.choose("greeting", user_id=f"u{number}") for number in range(60)]
    for day in range(5):
        for number, choice in enumerate(choices):
            if (number + day) % 3 == 0:
                await choice.record(success=(number + day) % 2 == 0)
        clock.advance(days=1)
        result = await lab.analyze("greeting", "fixed")
        told = [(n, d) for d in range(day + 1) for n in range(60) if (n + d) % 3 == 0]
        estimates = result.metrics["success_rate"].estimates.values()
        assert sum(estimate.events for estimate in estimates) == len(told)
        right = sum((n + d) % 2 == 0 for n, d in told)
        assert sum((found.value or 0.0) * found.events for found in estimates) == pytest.approx(right)
    assert clock() - timedelta(days=5) <= result.at
