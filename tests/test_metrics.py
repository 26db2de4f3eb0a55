"""Recording outcomes, and what they add up to per version."""

from __future__ import annotations

import uuid
from datetime import UTC, timedelta
from typing import Any

import pytest

from promptab import (
    ConflictError,
    InvalidInputError,
    Lab,
    MetricsCollector,
    NotFoundError,
    PromptMetrics,
    PromptVariant,
    Tokens,
)
from tests.clock import SettableClock

V1, V2, V3 = (str(uuid.UUID(int=number)) for number in (1, 2, 3))


@pytest.fixture
def store_url() -> str:
    return "sqlite:///:memory:"


async def test_no_events_are_zeros(metrics: MetricsCollector) -> None:
    assert await metrics.get_metrics(V1) == PromptMetrics(version_id=V1)
    empty = await metrics.get_metrics("no id at all")
    assert (empty.total_events, empty.success_rate, empty.avg_rating, empty.metrics) == (0, 0.0, 0.0, {})
    assert await metrics.get_events(V1) == []


async def test_means_are_over_the_events_that_carried_the_measure(metrics: MetricsCollector) -> None:
    await metrics.record_event(V1, True, 0.5, user_rating=4, cost=0.25)
    await metrics.record_event(V1, False, 1.5, user_rating=1.0)
    await metrics.record_event(V1, tokens=100, metrics={"resolved": 1})
    await metrics.record_event(V1, tokens=300, metrics={"resolved": 0, "depth": 2.5})
    await metrics.record_event(V1)
    found = await metrics.get_metrics(V1)
    assert (found.total_events, found.success_count, found.error_count) == (5, 1, 1)
    assert (found.success_rate, found.avg_response_time) == (0.5, 1.0)
    assert (found.avg_rating, found.rating_count) == (2.5, 2)
    assert (found.avg_tokens, found.total_tokens) == (200.0, 400)
    assert (found.avg_cost, found.total_cost) == (0.25, 0.25)
    assert found.metrics == {"depth": 2.5, "resolved": 0.5}


async def test_zero_is_a_value_and_unknown_is_not_zero(metrics: MetricsCollector) -> None:
    await metrics.record_event(V1, response_time=0.0, cost=0.0, tokens=0, metrics={"m": 0.0})
    await metrics.record_event(V1, response_time=2.0, cost=0.5, tokens=10, metrics={"m": 1.0})
    await metrics.record_event(V1)
    found = await metrics.get_metrics(V1)
    assert (found.avg_response_time, found.avg_cost, found.avg_tokens) == (1.0, 0.25, 5.0)
    assert found.metrics == {"m": 0.5}


async def test_input_cached_and_output_tokens_are_kept_apart(metrics: MetricsCollector) -> None:
    parts = await metrics.record_event(V1, tokens={"input": 80, "cached_input": 20, "output": 50})
    assert parts.tokens == Tokens(input=80, cached_input=20, output=50, total=150)
    await metrics.record_event(V1, tokens=Tokens(input=1, output=2))
    some = await metrics.record_event(V1, tokens={"output": 7})
    assert some.tokens == Tokens(output=7)
    found = await metrics.get_metrics(V1)
    assert (found.input_tokens, found.cached_input_tokens, found.output_tokens) == (81, 20, 59)
    assert (found.total_tokens, found.avg_tokens) == (153, 76.5)


@pytest.mark.parametrize("rating", [1, 1.0, 3.7, 5])
async def test_a_rating_from_1_to_5_is_kept_as_it_is(metrics: MetricsCollector, rating: float) -> None:
    await metrics.record_event(V1, user_rating=rating)
    assert (await metrics.get_metrics(V1)).avg_rating == rating


async def test_an_event_comes_back_as_it_was_recorded(
    metrics: MetricsCollector, clock: SettableClock
) -> None:
    earlier = clock.now - timedelta(hours=1)
    event = await metrics.record_event(
        V1,
        True,
        0.25,
        {"input": 3},
        4.5,
        {"trace": "ü\n", "nested": {"n": [1, None]}},
        cost=0.001,
        metrics={"resolved": 0.5},
        user_id=17,
        timestamp=earlier.replace(tzinfo=None),
    )
    assert await metrics.get_events(V1) == [event]
    assert (event.timestamp, event.timestamp.tzinfo, event.recorded_at) == (earlier, UTC, clock.now)
    assert (event.kind, event.user_id, event.flagged) == ("use", "17", False)


async def test_the_same_event_id_twice_is_one_event(metrics: MetricsCollector, clock: SettableClock) -> None:
    event_id = str(uuid.uuid4())
    await metrics.record_event(V1, True, event_id=event_id)
    clock.advance(seconds=5)
    await metrics.record_event(V1, True, event_id=event_id.upper())
    with pytest.raises(ConflictError, match=event_id):
        await metrics.record_event(V1, False, event_id=event_id)
    found = await metrics.get_metrics(V1)
    assert (found.total_events, found.success_rate) == (1, 1.0)


async def test_events_are_newest_first_within_a_window_and_a_limit(
    metrics: MetricsCollector, clock: SettableClock
) -> None:
    start = clock.now
    recorded = []
    for _ in range(4):
        recorded.append(await metrics.record_event(V1, True))
        clock.advance(hours=1)
    await metrics.record_event(V2, True)
    newest_first = recorded[::-1]
    assert await metrics.get_events(V1) == newest_first
    assert await metrics.get_events(V1, limit=2) == newest_first[:2]
    assert await metrics.get_events(V1, limit=0) == []
    second, fourth = start + timedelta(hours=1), start + timedelta(hours=3)
    assert await metrics.get_events(V1, None, second, fourth) == newest_first[1:3]
    assert (await metrics.get_metrics(V1, start_time=second, end_time=fourth)).total_events == 2
    naive = await metrics.get_events(V1, start_time=second.replace(tzinfo=None))
    assert naive == newest_first[:3]


async def test_events_of_one_moment_come_back_last_recorded_first(metrics: MetricsCollector) -> None:
    recorded = [await metrics.record_event(V1, cost=float(number)) for number in range(5)]
    assert await metrics.get_events(V1) == recorded[::-1]


@pytest.mark.parametrize(
    ("metric", "best_first"),
    [
        ("success_rate", [V2, V1, V3]),
        ("success", [V2, V1, V3]),
        ("error_rate", [V2, V1, V3]),
        ("user_rating", [V2, V1, V3]),
        ("avg_response_time", [V1, V2, V3]),
        ("response_time", [V1, V2, V3]),
        ("avg_rating", [V2, V1, V3]),
        ("avg_tokens", [V1, V2, V3]),
        ("cost", [V1, V2, V3]),
        ("resolved", [V2, V1, V3]),
        ("total_events", [V2, V1, V3]),
    ],
)
async def test_top_versions_put_the_best_first_and_those_without_the_metric_last(
    metrics: MetricsCollector, metric: str, best_first: list[str]
) -> None:
    await metrics.record_event(V1, False, 0.1, 10, 2, cost=0.1, metrics={"resolved": 0.1})
    for _ in range(2):
        await metrics.record_event(V2, True, 0.9, 90, 5, cost=0.9, metrics={"resolved": 0.9})
    await metrics.record_event(V3, metrics={"other": 9.0})
    if metric == "total_events":
        await metrics.record_event(V1)
        await metrics.record_event(V2)
    top = await metrics.get_top_versions([V3, V2, V1], metric)
    assert [version_id for version_id, _ in top] == best_first
    assert await metrics.get_top_versions([V3, V2, V1], metric, limit=1) == top[:1]


async def test_a_version_that_costs_nothing_is_the_cheapest(metrics: MetricsCollector) -> None:
    await metrics.record_event(V1, cost=0.01, tokens=5)
    await metrics.record_event(V2, cost=0.0, tokens=0)
    await metrics.record_event(V3)
    for metric in ("cost", "tokens"):
        top = await metrics.get_top_versions([V3, V1, V2], metric)
        assert [version_id for version_id, _ in top] == [V2, V1, V3]


async def test_compare_variants_keeps_the_order_given(metrics: MetricsCollector) -> None:
    await metrics.record_event(V1, True)
    compared = await metrics.compare_variants([V2, V1, V2])
    assert list(compared) == [V2, V1]
    assert compared[V1] == await metrics.get_metrics(V1)


async def test_summary_pools_the_versions(metrics: MetricsCollector) -> None:
    assert (await metrics.get_summary()).total_versions == 0
    await metrics.record_event(V1, True, tokens=10)
    for success in (True, False, False):
        await metrics.record_event(V2, success, tokens=30)
    summary = await metrics.get_summary()
    assert (summary.total_versions, list(summary.by_version)) == (2, [V1, V2])
    assert (summary.metrics.total_events, summary.metrics.success_rate) == (4, 0.5)
    assert (summary.metrics.total_tokens, summary.metrics.avg_tokens) == (100, 25.0)
    chosen = await metrics.get_summary([V2, V3])
    assert (chosen.total_versions, chosen.metrics.total_events) == (2, 3)
    assert chosen.by_version[V3] == PromptMetrics(version_id=V3)


async def test_performance_over_time_has_days_from_midnight_utc(
    metrics: MetricsCollector, clock: SettableClock
) -> None:
    midnight = clock.now.replace(hour=0)
    for hours, success in ((-1, True), (0, True), (23, False), (72, True)):
        at = midnight + timedelta(hours=hours)
        await metrics.record_event(V1, success, timestamp=at, metrics={"m": float(hours)})
    periods = await metrics.get_version_performance_over_time(V1)
    assert [(p.start - midnight).days for p in periods] == [-1, 0, 3]
    assert [p.end - p.start for p in periods] == [timedelta(days=1)] * 3
    assert [p.metrics.success_rate for p in periods] == [1.0, 0.5, 1.0]
    assert [p.metrics.metrics for p in periods] == [{"m": -1.0}, {"m": 11.5}, {"m": 72.0}]
    hourly = await metrics.get_version_performance_over_time(
        V1, interval_hours=1, start_time=midnight, end_time=midnight + timedelta(days=1)
    )
    assert [(p.start - midnight, p.metrics.total_events) for p in hourly] == [
        (timedelta(0), 1),
        (timedelta(hours=23), 1),
    ]


async def test_periods_before_1970_are_counted_like_all_others(
    metrics: MetricsCollector, clock: SettableClock
) -> None:
    early = clock.now.replace(year=1969, hour=6)
    await metrics.record_event(V1, True, timestamp=early)
    (period,) = await metrics.get_version_performance_over_time(V1)
    assert (period.start, period.metrics.total_events) == (early.replace(hour=0), 1)


async def test_reset_deletes_the_events_of_one_version_or_of_all(metrics: MetricsCollector) -> None:
    for version_id in (V1, V1, V2, V3):
        await metrics.record_event(version_id, True)
    assert await metrics.reset_metrics(V1) == 2
    assert await metrics.get_metrics(V1) == PromptMetrics(version_id=V1)
    assert await metrics.reset_metrics(V1) == 0
    assert await metrics.reset_metrics() == 2
    assert (await metrics.get_summary()).total_versions == 0


async def test_any_well_formed_version_id_is_taken(metrics: MetricsCollector) -> None:
    event = await metrics.record_event(V1.upper())
    assert event.version_id == V1
    with pytest.raises(InvalidInputError, match="version_id: 'v1' is not a UUID"):
        await metrics.record_event("v1")


async def outcomes(lab: Lab) -> dict[str, float | None]:
    """The estimate of every metric over all units of the experiment `greeting`."""
    compared = (await lab.compare("greeting")).metrics
    return {
        name: next((e.value for e in metric.estimates.values() if e.units), None)
        for name, metric in compared.items()
    }


@pytest.fixture
async def experiment_id(lab: Lab) -> str:
    created = await lab.experiments.create_experiment(
        "greeting", "system", [PromptVariant("1.0.0"), PromptVariant("1.1.0")]
    )
    return created.experiment_id


@pytest.mark.parametrize(
    ("metric", "value", "shown_as"),
    [
        ("success", 1, "success_rate"),
        ("success_rate", 0.0, "success_rate"),
        ("response_time", 0.5, "response_time"),
        ("cost", 0.01, "cost"),
        ("rating", 4, "rating"),
        ("user_rating", 4.5, "rating"),
        ("tokens", 12.0, "tokens"),
        ("revenue", -12.5, "revenue"),
    ],
)
async def test_a_result_counts_for_the_variant_of_its_user(
    lab: Lab, experiment_id: str, metric: str, value: float, shown_as: str
) -> None:
    served = await lab.experiments.assign(experiment_id, "ada")
    event = await lab.metrics.record_result("greeting", metric, value, user_id="ada")
    assert (event.kind, event.experiment_id, event.version_id) == ("outcome", experiment_id, None)
    estimates = (await lab.compare("greeting")).metrics[shown_as].estimates
    assert {key: found.value for key, found in estimates.items() if found.units} == {served.variant: value}


async def test_a_result_of_a_session_counts_for_the_session(lab: Lab, experiment_id: str) -> None:
    await lab.experiments.assign(experiment_id, session_id="s1")
    await lab.metrics.record_result("greeting", "revenue", 3.0, session_id="s1")
    assert (await outcomes(lab))["revenue"] == 3.0


async def test_a_result_of_a_unit_that_met_no_variant_is_compared_nowhere(
    lab: Lab, experiment_id: str
) -> None:
    event = await lab.metrics.record_result(experiment_id, "revenue", 3.0, user_id="stranger")
    assert event.user_id == "stranger"
    assert (await outcomes(lab)).get("revenue") is None


@pytest.mark.parametrize(
    ("metric", "value", "field"),
    [
        ("success", 0.5, "metric_value"),
        ("success_rate", 0.5, "metric_value"),
        ("error_rate", 1.0, "metric_name"),
        ("p95_response_time", 1.0, "metric_name"),
        ("tokens", 1e17, "metric_value"),
        ("revenue", 1e19, "metric_value"),
        ("rating", 6, "metric_value"),
        ("cost", -1, "metric_value"),
        ("tokens", 1.5, "metric_value"),
        ("tokens", -1, "metric_value"),
        ("revenue", float("nan"), "metric_value"),
        ("my revenue", 1.0, "metric_name"),
    ],
)
async def test_a_result_out_of_bounds_is_refused(
    lab: Lab, experiment_id: str, metric: str, value: float, field: str
) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        await lab.metrics.record_result(experiment_id, metric, value, user_id="ada")
    assert refusal.value.field == field


async def test_a_result_names_an_experiment_and_a_unit(lab: Lab, experiment_id: str) -> None:
    with pytest.raises(InvalidInputError, match="user_id or session_id"):
        await lab.metrics.record_result(experiment_id, "revenue", 1.0)
    with pytest.raises(NotFoundError, match="nothing"):
        await lab.metrics.record_result("nothing", "revenue", 1.0, user_id="ada")


def spellings(version_id: str) -> list[Any]:
    return [
        version_id,
        version_id.upper(),
        version_id.replace("-", ""),
        uuid.UUID(version_id),
    ]


async def test_an_id_is_one_id_in_every_spelling(lab: Lab) -> None:
    version = (await lab.versions.create_version("greeting", "system", "Hello.")).version_id
    for spelling in spellings(version):
        event = await lab.metrics.record_event(spelling, True)
        assert event.version_id == version
    for spelling in spellings(version):
        assert (await lab.metrics.get_metrics(spelling)).total_events == 4
        assert (await lab.metrics.get_metrics(spelling)).version_id == version
        assert len(await lab.metrics.get_events(spelling)) == 4
        assert len(await lab.metrics.get_version_performance_over_time(spelling)) == 1
        assert (await lab.versions.tag_version(spelling, "eu")).tags == ("eu",)
        assert (await lab.versions.promote(spelling, expected=None)).version_id == version
        await lab.versions.untag_version(spelling, "production")
        assert (await lab.versions.untag_version(spelling, "eu")).tags == ()
        assert (await lab.versions.update_status(spelling, "deprecated")).status == "deprecated"
        assert (await lab.versions.diff(spelling, version)).empty
        await lab.versions.update_status(spelling, "active")
    assert await lab.metrics.reset_metrics(version.upper()) == 4
    assert await lab.versions.delete_version(version.upper())


async def test_metrics_come_back_under_the_ids_as_they_were_given(metrics: MetricsCollector) -> None:
    version_id = str(uuid.UUID(int=0xABCDEF))
    await metrics.record_event(version_id, True)
    given: list[Any] = [*spellings(version_id), V2, "no id at all"]
    keys = [*given[:3], V2, "no id at all"]
    compared = await metrics.compare_variants(given)
    assert list(compared) == keys
    assert [found.total_events for found in compared.values()] == [1, 1, 1, 0, 0]
    summary = await metrics.get_summary(given)
    assert list(summary.by_version) == keys
    assert (summary.total_versions, summary.metrics.total_events) == (3, 1)


@pytest.mark.parametrize("tokens", [10**12, {"input": 10**12, "output": 10**12}])
async def test_the_sums_of_many_large_events_stay_within_bounds(
    metrics: MetricsCollector, tokens: Any
) -> None:
    for _ in range(3):
        await metrics.record_event(V1, response_time=1e18, tokens=tokens, cost=1e18, metrics={"m": -1e18})
    found = await metrics.get_metrics(V1)
    assert (found.avg_response_time, found.total_cost, found.metrics["m"]) == (1e18, 3e18, -1e18)
    assert found.total_tokens == 3 * (tokens if isinstance(tokens, int) else 2 * 10**12)


async def test_a_comparison_of_the_largest_values_can_be_computed(lab: Lab, experiment_id: str) -> None:
    for number in range(8):
        await lab.experiments.assign(experiment_id, f"u{number}")
        sign = -1 if number % 2 else 1
        await lab.metrics.record_result(experiment_id, "m", sign * 1e18, user_id=f"u{number}")
    compared = (await lab.metrics.compare(experiment_id)).metrics["m"]
    assert sum(estimate.events for estimate in compared.estimates.values()) == 8


async def test_a_session_may_be_as_long_as_its_unit_leaves_room_for(lab: Lab, experiment_id: str) -> None:
    event = await lab.metrics.record_result(experiment_id, "m", 1.0, session_id="s" * 248)
    assert event.user_id == "session:" + "s" * 248
