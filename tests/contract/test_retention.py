"""Dropping events that every total has: what still answers, what refuses, and what has to stay."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from promptab import InvalidInputError, Lab, PromptExperiment, StateError
from promptab.models import PromptMetrics
from promptab.stats.metric import MetricDefinition
from promptab.stores.base import Transaction
from promptab.stores.queries import retention
from tests.clock import SettableClock
from tests.contract.records import new_id

VERSION = new_id()
PLAN: dict[str, Any] = {
    "metrics": [
        {"name": "cost", "history_days": 3, "cap": 50.0},
        {"name": "rating", "history_days": 2},
        {"name": "m", "kind": "mean_per_unit", "history_days": 1.5},
        {"name": "m_per_success", "kind": "ratio", "measure": "m", "denominator": "success"},
    ],
    "minimum_units": 10,
}
UNCAPPED: dict[str, Any] = {**PLAN, "metrics": [metric for metric in PLAN["metrics"] if "cap" not in metric]}


async def experiment_of(lab: Lab, name: str = "e", plan: Any = None, **fields: Any) -> PromptExperiment:
    variants = [{"key": "a", "config": {"t": 0}}, {"key": "b", "config": {"t": 1}}]
    return await lab.experiments.create_experiment(
        name, "config", variants, salt="s", plan=UNCAPPED if plan is None else plan, **fields
    )


async def serve(lab: Lab, experiment: PromptExperiment, units: range, *, seed: int = 0) -> None:
    for number in units:
        given = await lab.experiments.get_variant_for_user(experiment.experiment_id, f"u{number}")
        assert given is not None
        value = (number * 7 + seed) % 11
        await lab.metrics.record_event(
            VERSION,
            success=value > 4,
            cost=value * 10.0,
            user_rating=1.0 + value % 5,
            metrics={"m": value - 3.0},
            experiment_id=experiment.experiment_id,
            variant=given,
            user_id=f"u{number}",
        )


async def a_week(lab: Lab, clock: SettableClock, **fields: Any) -> tuple[PromptExperiment, datetime]:
    """Three days of a past, then three of an experiment; return its second day as well."""
    for day in range(3):
        for number in range(40):
            await lab.metrics.record_event(
                VERSION,
                cost=float(number % 9 * 10 + day),
                user_rating=1.0 + (number + day) % 5,
                metrics={"m": float(number)},
                success=bool(number % 2),
                user_id=f"u{number}",
            )
        clock.advance(days=1)
    experiment = await experiment_of(lab, **fields)
    middle = clock() + timedelta(days=1)
    for day in range(3):
        await serve(lab, experiment, range(40 + day), seed=day)
        clock.advance(days=1)
    return experiment, middle


async def whole(lab: Lab, **asked: Any) -> dict[str, Any]:
    """Everything that has to be the same before and after."""
    analysis = await lab.analyze("e", "fixed", **asked)
    return {
        "metrics": analysis.metrics,
        "units": analysis.units,
        "history": (await lab.metrics.measured_history("e", "rating")).history_correlation,
        "hours": await lab.metrics.get_version_performance_over_time(VERSION, 1.0),
        "version": await lab.metrics.get_metrics(VERSION),
    }


async def test_totals_answer_as_before_once_the_events_are_gone(
    lab: Lab, clock: SettableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "EVENTS_PER_STEP", 17)
    _, middle = await a_week(lab, clock)
    looked = await lab.metrics.prune_events(middle, apply=False)
    before = await whole(lab)
    assert before["metrics"]["rating"].differences["b"].adjusted.units_with_history == 40
    report = await lab.metrics.prune_events(middle)
    # 120 of the past and 40 of the first day; the first of the second day came at that very moment
    assert (report.dropped, report.applied, report.kept) == (160, True, {})
    assert (looked.dropped, looked.applied) == (160, False)
    assert len(await lab.metrics.get_events(VERSION)) == 83
    assert await whole(lab) == before
    assert await lab.metrics.pruned_before() == await lab.metrics.pruned_before("e") == middle
    again = await lab.metrics.prune_events(middle)
    assert (again.dropped, again.kept) == (0, {})


async def test_what_comes_after_a_pruning_is_added_once(lab: Lab, clock: SettableClock) -> None:
    experiment, _ = await a_week(lab, clock)
    report = await lab.metrics.prune_events(clock() + timedelta(days=1))
    # a database would give the number of the newest event again
    assert report.kept == {retention.NEWEST: 1}
    assert report.dropped == 120 + 40 + 41 + 42 - 1
    before = await lab.metrics.get_metrics(VERSION)
    await serve(lab, experiment, range(50))
    for _ in range(2):
        after = await lab.metrics.get_metrics(VERSION)
        assert after.total_events == before.total_events + 50
        assert sum((await lab.analyze("e")).units.values()) == 50
        events = [one.events for one in (await lab.analyze("e")).metrics["success_rate"].estimates.values()]
        assert sum(events) == 40 + 41 + 42 + 50
    assert await lab.metrics.reset_metrics() == 243 + 50
    assert await lab.metrics.get_metrics(VERSION) == PromptMetrics(version_id=VERSION)
    assert await lab.metrics.pruned_before() is None
    await serve(lab, experiment, range(20))
    assert (await lab.metrics.get_metrics(VERSION)).total_events == 20
    assert (
        sum(one.events for one in (await lab.analyze("e")).metrics["success_rate"].estimates.values()) == 20
    )


async def test_events_stay_that_a_quantile_or_a_later_exposure_needs(lab: Lab, clock: SettableClock) -> None:
    slow = {"name": "slowest", "kind": "quantile", "measure": "cost", "quantile": 0.9}
    with_quantile = await experiment_of(lab, "q", plan={"metrics": [slow], "minimum_units": 10})
    without = await experiment_of(lab, "e")
    await serve(lab, with_quantile, range(12))
    await serve(lab, without, range(12))
    for unit in ("late", "never"):
        await lab.metrics.record_result("e", "m", 3.0, user_id=unit)
    clock.advance(days=2)
    moment = clock()
    await lab.experiments.get_variant_for_user("e", "late")
    clock.advance(days=1)
    await lab.metrics.record_event(VERSION)
    before = await lab.analyze("q", "fixed")
    report = await lab.metrics.prune_events(moment)
    assert report.dropped == 12
    assert report.kept == {retention.SINGLE: 12, retention.UNEXPOSED: 2}
    assert (await lab.analyze("q", "fixed")).metrics == before.metrics


async def test_events_stay_that_came_after_the_totals_were_made(lab: Lab, clock: SettableClock) -> None:
    experiment = await experiment_of(lab)
    await serve(lab, experiment, range(5))
    await lab.metrics.record_event(VERSION)

    async def look(tx: Transaction) -> retention.PruneStep:
        return await tx.retention.look(clock() + timedelta(days=1), after=0, needing=())

    step = await lab.store.read(look)
    assert (step.dropped, step.kept) == (0, {retention.NOT_ADDED: 5, retention.NEWEST: 1})
    report = await lab.metrics.prune_events(clock() + timedelta(days=1))
    assert (report.dropped, report.kept) == (5, {retention.NEWEST: 1})


Call = Callable[[Lab], Awaitable[object]]


@pytest.mark.parametrize(
    "call",
    [
        lambda lab: lab.analyze("e", series="day"),
        lambda lab: lab.analyze("e", metrics=["p95_response_time"]),
        lambda lab: lab.metrics.distribution("e", "cost"),
        lambda lab: lab.metrics.reset_metrics(VERSION),
    ],
    ids=["series", "quantile", "distribution", "deleting one version"],
)
async def test_what_needs_single_events_says_that_they_are_gone(
    lab: Lab, clock: SettableClock, call: Call
) -> None:
    _, middle = await a_week(lab, clock)
    await lab.metrics.prune_events(middle)
    with pytest.raises(StateError, match="pruned"):
        await call(lab)


async def test_quantiles_are_there_of_units_that_were_exposed_since(lab: Lab, clock: SettableClock) -> None:
    _, middle = await a_week(lab, clock)
    await lab.metrics.prune_events(middle)
    found = await lab.metrics.distribution("e", "cost", since=middle)
    # u40 on the second day, and again with u41 on the third
    assert sum(sum(one.counts) for one in found) == 3


async def test_a_capped_past_needs_the_events(lab: Lab, clock: SettableClock) -> None:
    _, middle = await a_week(lab, clock, plan=PLAN)
    adjusted = (await lab.analyze("e")).metrics["cost"].differences["b"].adjusted
    assert adjusted is not None
    assert adjusted.units_with_history == 40
    await lab.metrics.prune_events(middle)
    with pytest.raises(StateError, match="pruned"):
        await lab.analyze("e")


async def test_totals_are_not_made_anew_for_another_plan_without_the_events(
    lab: Lab, clock: SettableClock
) -> None:
    experiment, middle = await a_week(lab, clock)
    await lab.metrics.prune_events(middle)
    capped = MetricDefinition(name="cost", cap=1.0)
    plan = experiment.plan.model_copy(update={"metrics": (capped,)})

    async def change(tx: Transaction) -> None:
        await tx.experiments.replace(experiment.model_copy(update={"plan": plan}))

    await lab.store.write(change)
    with pytest.raises(StateError, match="pruned"):
        await lab.analyze("e")


async def test_a_prompt_s_history_begins_where_its_events_do(lab: Lab, clock: SettableClock) -> None:
    version = await lab.versions.create_version("greeting", "system", "Hello.")
    for day in range(4):
        for number in range(day * 10, 50):
            await lab.metrics.record_event(version.version_id, success=number % 3 > 0, user_id=f"u{number}")
        clock.advance(days=1)
    assert (await lab.metrics.measured_history("system/greeting")).source.endswith("the last 28 days")
    await lab.metrics.prune_events(clock() - timedelta(days=3))
    after = await lab.metrics.measured_history("system/greeting")
    assert after.source == "prompt system/greeting, since 2026-01-06 (earlier events have been pruned)"
    assert after.units == 40


async def test_overrides_of_everybody_need_no_events(lab: Lab, clock: SettableClock) -> None:
    _, middle = await a_week(lab, clock)
    await lab.metrics.prune_events(middle)
    await lab.experiments.set_override("e", "*", "a")
    assert sum((await lab.analyze("e")).units.values()) == 0


async def test_an_event_that_is_told_again_after_it_was_pruned_counts_as_a_new_one(
    lab: Lab, clock: SettableClock
) -> None:
    """Nothing remembers the ids of what is gone: say so where it can be seen."""
    event = await lab.metrics.record_event(VERSION, cost=1.0)
    clock.advance(days=1)
    await lab.metrics.record_event(VERSION, cost=1.0)
    await lab.metrics.prune_events(clock())
    await lab.metrics.record_event(VERSION, cost=1.0, event_id=event.event_id, timestamp=event.timestamp)
    assert (await lab.metrics.get_metrics(VERSION)).total_events == 3


async def test_a_time_is_checked(lab: Lab, clock: SettableClock) -> None:
    with pytest.raises(InvalidInputError, match="before"):
        await lab.metrics.prune_events("yesterday")  # type: ignore[arg-type]
    await serve(lab, await experiment_of(lab), range(5))
    with pytest.raises(InvalidInputError, match="before"):
        await lab.metrics.prune_events(clock() + timedelta(days=400))
    assert await lab.metrics.pruned_before() is None
    assert (
        (await lab.metrics.get_metrics(VERSION)).total_events
        == len(await lab.metrics.get_events(VERSION))
        == 5
    )
