"""Totals by the hour and by the day: fed once with every event, equal to the events, and there when these are gone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from promptab import InvalidInputError, Lab, MetricEvent, PromptMetrics, Tokens
from promptab.stores.base import Store, Transaction
from promptab.stores.opening import open_store
from promptab.stores.queries import retention, unit_totals
from promptab.stores.queries.version_totals import Bucket
from promptab.totalling import add_up
from tests.contract.records import NOON, an_event, new_id

Window = tuple[int | None, int | None]
"""In minutes after noon."""

amounts = st.integers(0, 10_000).map(lambda cents: cents / 100)
told: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    minute=st.integers(-200, 400),
    kind=st.sampled_from(["use", "use", "outcome"]),
    success=st.sampled_from([None, True, False]),
    cost=st.none() | amounts,
    response_time=st.none() | amounts,
    tokens=st.none() | st.integers(0, 10**6).map(lambda total: Tokens(total=total, output=total // 2)),
    user_rating=st.none() | st.sampled_from([1.0, 4.5]),
    metrics=st.dictionaries(st.sampled_from(["m", "n.1"]), amounts, max_size=2),
    user_id=st.sampled_from([None, "u1", "u2"]),
)
windows = st.tuples(st.none() | st.integers(-210, 410), st.none() | st.integers(-210, 410))


@pytest.fixture
def runner(store_url: str) -> Iterator[tuple[asyncio.Runner, Store]]:
    with asyncio.Runner() as loop:
        store = loop.run(open_store(store_url))
        yield loop, store
        loop.run(store.close())


def time_of(minute: int | None) -> datetime | None:
    return None if minute is None else NOON + timedelta(minutes=minute)


def plain_metrics(version_id: str, events: list[MetricEvent], window: Window) -> PromptMetrics:
    """Add up one by one."""
    start, end = time_of(window[0]), time_of(window[1])
    among = [
        event
        for event in events
        if (start is None or event.timestamp >= start) and (end is None or event.timestamp < end)
    ]
    successes = [event.success for event in among if event.success is not None]
    times = [event.response_time for event in among if event.response_time is not None]
    ratings = [event.user_rating for event in among if event.user_rating is not None]
    costs = [event.cost for event in among if event.cost is not None]
    tokens = [event.tokens for event in among if event.tokens is not None]
    totals = [one.total for one in tokens if one.total is not None]
    named: dict[str, list[float]] = {}
    for event in among:
        for name, value in event.metrics.items():
            named.setdefault(name, []).append(value)

    def mean(values: list[float]) -> float:
        return sum(values) / len(values) if values else 0.0

    return PromptMetrics(
        version_id=version_id,
        total_events=sum(event.kind == "use" for event in among),
        success_count=sum(successes),
        error_count=len(successes) - sum(successes),
        success_rate=mean([float(success) for success in successes]),
        avg_response_time=mean(times),
        response_time_count=len(times),
        avg_rating=mean(ratings),
        rating_count=len(ratings),
        avg_tokens=mean([float(total) for total in totals]),
        tokens_count=len(totals),
        total_tokens=sum(totals),
        output_tokens=sum(one.output or 0 for one in tokens),
        avg_cost=mean(costs),
        cost_count=len(costs),
        total_cost=sum(costs),
        metrics={name: mean(values) for name, values in named.items()},
        first_event_at=min((event.timestamp for event in among), default=None),
        last_event_at=max((event.timestamp for event in among), default=None),
    )


def assert_same(found: PromptMetrics, expected: PromptMetrics) -> None:
    """Sums of some dozens of amounts with two decimals, in whatever order."""
    one, other = found.model_dump(), expected.model_dump()
    assert one.pop("metrics") == pytest.approx(other.pop("metrics"), rel=1e-12)
    for name, value in other.items():
        assert one[name] == (pytest.approx(value, rel=1e-12) if isinstance(value, float) else value), name


@pytest.mark.parametrize("size", [2, 1_000], ids=["many steps", "one step"])
@given(
    history=st.lists(st.one_of(told, st.just("fold")), max_size=20),
    asked=st.lists(windows, min_size=1, max_size=4),
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_metrics_are_those_of_the_events_wherever_the_totals_end(
    runner: tuple[asyncio.Runner, Store],
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    history: list[Any],
    asked: list[Window],
) -> None:
    monkeypatch.setattr(unit_totals, "EVENTS_PER_STEP", size)
    loop, store = runner
    loop.run(_check_history(store, history, asked))


async def _check_history(store: Store, history: list[Any], asked: list[Window]) -> None:
    version_id, other = new_id(), new_id()
    for step in history:
        if step == "fold":
            await add_up(store, "versions")
            continue
        fields = dict(step)
        at = NOON + timedelta(minutes=fields.pop("minute"))
        for version in (version_id, other, None):
            await store.record(an_event(version, timestamp=at, **fields))

    async def events(tx: Transaction) -> list[MetricEvent]:
        return await tx.events.listing(version_id)

    whole = await store.read(events)
    for window in (*asked, (None, None)):
        found = await metrics_in(store, version_id, window)
        assert_same(found, plain_metrics(version_id, whole, window))
    for seconds in (3_600, 5_400, 7_200):
        for window in asked:
            buckets = await over_time(store, version_id, seconds, window)
            assert [bucket.start for bucket in buckets] == sorted({bucket.start for bucket in buckets})
            pooled = plain_metrics(version_id, whole, window)
            assert sum(bucket.metrics.total_events for bucket in buckets) == pooled.total_events
            for bucket in buckets:
                within = [
                    event
                    for event in whole
                    if bucket.start <= event.timestamp < bucket.start + timedelta(seconds=seconds)
                ]
                assert_same(bucket.metrics, plain_metrics(version_id, within, window))


async def metrics_in(store: Store, version_id: str, window: Window) -> PromptMetrics:
    async def work(tx: Transaction) -> PromptMetrics:
        found = await tx.version_totals.metrics(
            [version_id], start_time=time_of(window[0]), end_time=time_of(window[1])
        )
        return found[version_id]

    return await store.read(work)


async def over_time(store: Store, version_id: str, seconds: int, window: Window) -> list[Bucket]:
    async def work(tx: Transaction) -> list[Bucket]:
        return await tx.version_totals.over_time(
            version_id, seconds=seconds, start_time=time_of(window[0]), end_time=time_of(window[1])
        )

    return await store.read(work)


async def test_two_that_add_up_at_once_add_every_event_once(
    lasting_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unit_totals, "EVENTS_PER_STEP", 7)
    stores = [await open_store(lasting_url) for _ in range(2)]
    version_id = new_id()
    for _ in range(40):
        await stores[0].record(an_event(version_id, user_id="u1", cost=1.0))
    both = [*(add_up(store, "versions") for store in stores), *(add_up(store, "units") for store in stores)]
    await asyncio.gather(*both)
    found = await metrics_in(stores[1], version_id, (None, None))
    assert (found.total_events, found.total_cost) == (40, 40.0)
    for store in stores:
        await store.close()


@pytest.mark.parametrize(
    "at",
    [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
    ],
    ids=["first", "before 1970", "last"],
)
async def test_hours_at_the_ends_of_time_are_added_up(store: Store, at: datetime) -> None:
    version_id = new_id()
    await store.record(an_event(version_id, timestamp=at, cost=2.0))
    await add_up(store, "versions")

    async def work(tx: Transaction) -> PromptMetrics:
        return (await tx.version_totals.metrics([version_id], start_time=at))[version_id]

    found = await store.read(work)
    assert (found.first_event_at, found.last_event_at, found.total_cost) == (at, at, 2.0)


async def test_an_hour_cannot_be_cut_where_its_events_are_gone(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "EVENTS_PER_STEP", 2)
    version_id = new_id()
    for minute in range(0, 240, 10):
        await lab.metrics.record_event(version_id, cost=1.0, timestamp=NOON + timedelta(minutes=minute))
    before = await lab.metrics.get_metrics(version_id, start_time=NOON + timedelta(minutes=60))
    report = await lab.metrics.prune_events(NOON + timedelta(minutes=95))
    assert (report.dropped, report.kept) == (10, {})
    for minute in (0, 60, 120):
        found = await lab.metrics.get_metrics(version_id, start_time=NOON + timedelta(minutes=minute))
        assert found.cost_count == 24 - minute // 10
    assert await lab.metrics.get_metrics(version_id, start_time=NOON + timedelta(minutes=60)) == before
    cut = await lab.metrics.get_metrics(version_id, start_time=NOON + timedelta(minutes=130))
    assert cut.cost_count == 11
    for minute in (5, 65, 100):
        with pytest.raises(InvalidInputError, match="hour"):
            await lab.metrics.get_metrics(version_id, start_time=NOON + timedelta(minutes=minute))
    hourly = await lab.metrics.get_version_performance_over_time(version_id, 1.0)
    assert [period.metrics.cost_count for period in hourly] == [6, 6, 6, 6]
    with pytest.raises(InvalidInputError, match="interval_hours"):
        await lab.metrics.get_version_performance_over_time(version_id, 0.5)
    late = await lab.metrics.get_version_performance_over_time(version_id, 0.5, NOON + timedelta(hours=2))
    assert [period.metrics.cost_count for period in late] == [3, 3, 3, 3]


async def test_deleting_the_events_of_a_version_takes_its_totals_along(lab: Lab) -> None:
    version_id, other = new_id(), new_id()
    for _ in range(3):
        await lab.metrics.record_event(version_id, cost=1.0, user_id="u1")
        await lab.metrics.record_event(other, cost=1.0, user_id="u1")
    await add_up(lab.store, "versions")
    await add_up(lab.store, "units")
    assert await lab.metrics.reset_metrics(version_id) == 3
    assert (await lab.metrics.get_metrics(version_id)).cost_count == 0
    assert (await lab.metrics.get_metrics(other)).cost_count == 3
    await lab.metrics.record_event(version_id, cost=1.0, user_id="u1")
    await add_up(lab.store, "versions")
    await add_up(lab.store, "units")
    assert (await lab.metrics.get_metrics(version_id)).cost_count == 1
    assert await lab.metrics.reset_metrics() == 4
    assert (await lab.metrics.get_summary()).total_versions == 0
