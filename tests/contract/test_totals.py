"""What the events of versions add up to."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from promptab import PromptMetrics, Tokens
from promptab.stores.base import Store, Transaction
from tests.contract.records import NOON, an_event, new_id

VERSION = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"


async def metrics(store: Store, **window: object) -> PromptMetrics:
    async def work(tx: Transaction) -> PromptMetrics:
        return (await tx.version_totals.metrics([VERSION], **window))[VERSION]  # type: ignore[arg-type]

    return await store.read(work)


async def test_metrics_of_no_events_are_zeros(store: Store) -> None:
    assert await metrics(store) == PromptMetrics(version_id=VERSION)


async def test_metrics_are_over_the_events_that_carried_the_measure(store: Store) -> None:
    told = [
        an_event(
            VERSION, success=True, response_time=1.0, tokens=Tokens(input=3, output=4, total=7), cost=0.5
        ),
        an_event(VERSION, success=False, response_time=3.0, user_rating=4.0, metrics={"m": 1.0}),
        an_event(VERSION, tokens=Tokens(total=3), metrics={"m": 2.0, "n": -1.0}),
        an_event(VERSION, kind="outcome", success=True, timestamp=NOON + timedelta(hours=1)),
        an_event(OTHER, success=False, response_time=99.0, metrics={"m": 99.0}),
        an_event(None, success=False),
    ]
    await asyncio.gather(*map(store.record, told))
    assert await metrics(store) == PromptMetrics(
        version_id=VERSION,
        total_events=3,
        success_count=2,
        error_count=1,
        success_rate=2 / 3,
        avg_response_time=2.0,
        response_time_count=2,
        avg_rating=4.0,
        rating_count=1,
        avg_tokens=5.0,
        tokens_count=2,
        total_tokens=10,
        input_tokens=3,
        output_tokens=4,
        avg_cost=0.5,
        cost_count=1,
        total_cost=0.5,
        metrics={"m": 1.5, "n": -1.0},
        first_event_at=NOON,
        last_event_at=NOON + timedelta(hours=1),
    )
    assert (await metrics(store, start_time=NOON + timedelta(minutes=1))).success_count == 1


async def test_pooled_metrics_add_up_the_versions_named(store: Store) -> None:
    third = new_id()
    for version_id, success in ((VERSION, True), (VERSION, True), (OTHER, False), (third, False)):
        await store.record(an_event(version_id, success=success, metrics={"m": float(success)}))

    async def work(tx: Transaction) -> tuple[PromptMetrics, PromptMetrics, list[str]]:
        pooled = await tx.version_totals.pooled_metrics([VERSION, OTHER])
        return pooled, await tx.version_totals.pooled_metrics([]), await tx.version_totals.version_ids()

    pooled, empty, version_ids = await store.read(work)
    assert (pooled.total_events, pooled.success_count, pooled.metrics) == (3, 2, {"m": 2 / 3})
    assert empty == PromptMetrics(version_id="")
    assert version_ids == sorted([VERSION, OTHER, third])


async def test_over_time_cuts_at_whole_stretches_since_1970(store: Store) -> None:
    for minute in (-61, -60, -1, 0, 59, 60, 60 * 24 * 365):
        await store.record(
            an_event(
                VERSION,
                success=minute >= 0,
                timestamp=NOON + timedelta(minutes=minute),
                metrics={"m": minute},
            )
        )

    async def work(tx: Transaction) -> list[tuple[float, int, float]]:
        buckets = await tx.version_totals.over_time(VERSION, seconds=3600, start_time=None, end_time=None)
        return [
            (
                (bucket.start - NOON).total_seconds() / 3600,
                bucket.metrics.total_events,
                bucket.metrics.metrics["m"],
            )
            for bucket in buckets
        ]

    assert await store.read(work) == [
        (-2.0, 1, -61.0),
        (-1.0, 2, -30.5),
        (0.0, 2, 29.5),
        (1.0, 1, 60.0),
        (24.0 * 365, 1, 525_600.0),
    ]


async def test_over_time_cuts_the_years_before_1970_as_well(store: Store) -> None:
    new_year = datetime(1970, 1, 1, tzinfo=UTC)
    for minute in (-61, -60, -1, 0):
        await store.record(an_event(VERSION, timestamp=new_year + timedelta(minutes=minute)))

    async def work(tx: Transaction) -> list[tuple[timedelta, int]]:
        buckets = await tx.version_totals.over_time(VERSION, seconds=3600, start_time=None, end_time=None)
        return [(bucket.start - new_year, bucket.metrics.total_events) for bucket in buckets]

    assert await store.read(work) == [
        (timedelta(hours=hour), count) for hour, count in ((-2, 1), (-1, 2), (0, 1))
    ]


async def test_over_time_keeps_to_its_window(store: Store) -> None:
    for minute in range(0, 240, 30):
        await store.record(
            an_event(VERSION, timestamp=NOON + timedelta(minutes=minute), metrics={"m": minute})
        )

    async def work(tx: Transaction) -> list[tuple[int, float]]:
        start, end = NOON + timedelta(minutes=30), NOON + timedelta(minutes=150)
        buckets = await tx.version_totals.over_time(VERSION, seconds=3600, start_time=start, end_time=end)
        return [(bucket.metrics.total_events, bucket.metrics.metrics["m"]) for bucket in buckets]

    assert await store.read(work) == [(1, 30.0), (2, 75.0), (1, 120.0)]


async def test_metrics_of_several_versions_are_each_its_own_in_the_order_asked(store: Store) -> None:
    for version_id, value in ((VERSION, 1.0), (OTHER, 2.0), (VERSION, 3.0)):
        await store.record(an_event(version_id, success=value > 1, metrics={"m": value}))
    unused = new_id()

    async def work(tx: Transaction) -> dict[str, PromptMetrics]:
        return await tx.version_totals.metrics([OTHER, unused, VERSION])

    found = await store.read(work)
    assert list(found) == [OTHER, unused, VERSION]
    assert [one.version_id for one in found.values()] == list(found)
    assert [(one.total_events, dict(one.metrics)) for one in found.values()] == [
        (1, {"m": 2.0}),
        (0, {}),
        (2, {"m": 2.0}),
    ]
