"""Events: durable when `record` returns, once per id, many to a transaction."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from promptab import ConflictError, MetricEvent, Tokens
from promptab.stores.base import Store, Transaction
from promptab.stores.event_rows import Batch, BatchOutcome
from promptab.stores.opening import open_store
from promptab.stores.sql import SqlStore
from tests.contract.records import NOON, a_use, an_epoch, an_event, an_experiment, an_exposure, new_id

VERSION = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"
EXPERIMENT = an_experiment()


@pytest.fixture
async def begun(store: Store) -> Store:
    """A store in which EXPERIMENT runs."""

    async def work(tx: Transaction) -> None:
        await tx.experiments.insert(EXPERIMENT)
        await tx.experiments.add_epoch(an_epoch(EXPERIMENT))

    await store.write(work)
    return store


async def events(store: Store, version_id: str = VERSION, **window: object) -> list[MetricEvent]:
    async def work(tx: Transaction) -> list[MetricEvent]:
        return await tx.events.listing(version_id, **window)  # type: ignore[arg-type]

    return await store.read(work)


def by_id(event: MetricEvent) -> str:
    return event.event_id


@pytest.mark.parametrize(
    "event",
    [
        an_event(VERSION),
        an_event(VERSION, success=False, response_time=0.1 + 0.2, cost=1e-9, user_rating=4.5),
        an_event(VERSION, tokens=Tokens(input=1, cached_input=0, output=2**53, total=7)),
        an_event(VERSION, tokens=Tokens(total=0)),
        an_event(
            VERSION, metrics={"b": -1e300, "a": 5e-324, "z.1": 0.0}, metadata={"ü": [{"k": None}, "€😀\n"]}
        ),
        an_event(
            VERSION, kind="outcome", user_id="ünit\u2028 'x'", timestamp=NOON.replace(year=1, microsecond=1)
        ),
        an_event(VERSION, timestamp=NOON.replace(year=9999), recorded_at=NOON.replace(microsecond=999_999)),
    ],
    ids=["bare", "measures", "tokens", "no tokens", "named", "outcome", "far"],
)
async def test_record_keeps_every_field_as_it_was(store: Store, event: MetricEvent) -> None:
    assert await store.record(event) == event
    assert await events(store) == [event]


async def test_what_record_returned_for_is_there_for_everybody(lasting_url: str) -> None:
    writer, reader = await open_store(lasting_url), await open_store(lasting_url)
    for count in range(1, 6):
        await writer.record(an_event(VERSION))
        assert len(await events(reader)) == count
    await writer.close()
    await reader.close()


async def test_many_records_at_once_share_transactions(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(store, SqlStore)
    commit, sizes = store._queue._commit, []

    async def counted(batch: Batch) -> BatchOutcome:
        sizes.append(len(batch.events))
        return await commit(batch)

    monkeypatch.setattr(store._queue, "_commit", counted)

    async def caller(number: int) -> None:
        for turn in range(4):
            await store.record(an_event(VERSION, metadata={"caller": number, "turn": turn}))

    await asyncio.gather(*map(caller, range(256)))
    assert len(await events(store)) == sum(sizes) == 256 * 4
    assert len(sizes) < 256 * 4 / 20


async def test_one_caller_at_a_time_has_a_transaction_each(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(store, SqlStore)
    commit, sizes = store._queue._commit, []

    async def counted(batch: Batch) -> BatchOutcome:
        sizes.append(len(batch.events))
        return await commit(batch)

    monkeypatch.setattr(store._queue, "_commit", counted)
    for _ in range(5):
        await store.record(an_event(VERSION))
    assert sizes == [1] * 5


async def test_the_same_event_twice_is_one_event(store: Store) -> None:
    event = an_event(
        VERSION, success=True, response_time=0.1, metrics={"b": 1.0, "a": 2.0}, metadata={"k": [1]}
    )
    await store.record(event)
    await store.record(event)
    # a retry is told by a later clock, and dicts have no order
    retry = event.model_copy(
        update={
            "timestamp": NOON + timedelta(seconds=3),
            "recorded_at": NOON + timedelta(seconds=3),
            "metrics": {"a": 2.0, "b": 1.0},
        }
    )
    await asyncio.gather(store.record(retry), store.record(event), store.record(retry))
    assert await events(store) == [event]


@pytest.mark.parametrize(
    "change",
    [
        {"version_id": OTHER},
        {"version_id": None},
        {"success": False},
        {"success": None},
        {"response_time": 0.2},
        {"tokens": Tokens(total=1)},
        {"cost": 0.0},
        {"user_rating": 1.0},
        {"metrics": {"m": 1.5}},
        {"metrics": {}},
        {"metadata": {"k": "v"}},
        {"kind": "outcome"},
        {"user_id": "u2"},
    ],
    ids=lambda change: "-".join(f"{key}={value}" for key, value in change.items()),
)
async def test_the_same_id_with_other_content_is_a_conflict_and_the_first_stays(
    store: Store, change: dict[str, object]
) -> None:
    first = an_event(VERSION, success=True, metrics={"m": 1.0}, user_id="u1")
    await store.record(first)
    with pytest.raises(ConflictError, match=first.event_id):
        await store.record(first.model_copy(update=change))
    assert await events(store) == [first]
    assert await events(store, OTHER) == []


async def test_of_two_contents_under_one_id_at_the_same_time_the_first_is_kept(store: Store) -> None:
    first, beside = an_event(VERSION, success=True), an_event(VERSION)
    told = [
        first,
        first.model_copy(update={"success": False}),
        first,
        first.model_copy(update={"cost": 1.0}),
        beside,
    ]
    results = await asyncio.gather(*map(store.record, told), return_exceptions=True)
    refused = [position for position, result in enumerate(results) if isinstance(result, ConflictError)]
    assert refused == [1, 3]
    assert [results[0], results[2], results[4]] == [first, first, beside]
    assert sorted(await events(store), key=by_id) == sorted([first, beside], key=by_id)


async def test_a_conflict_disturbs_none_of_the_events_beside_it(store: Store) -> None:
    taken = an_event(VERSION, success=True)
    await store.record(taken)
    fine = [an_event(VERSION) for _ in range(5)]
    results = await asyncio.gather(
        *map(store.record, [*fine[:2], taken.model_copy(update={"success": False}), *fine[2:]]),
        return_exceptions=True,
    )
    assert [type(result) for result in results].count(ConflictError) == 1
    assert len(await events(store)) == 6


async def test_an_event_of_another_variant_than_the_exposures_is_kept_and_flagged(begun: Store) -> None:
    await begun.keep(an_exposure(EXPERIMENT, "u1", variant="a"))
    right = a_use(EXPERIMENT, "u1", "a", version_id=VERSION)
    wrong = a_use(EXPERIMENT, "u1", "b", version_id=VERSION)
    without = a_use(EXPERIMENT, "u1", None, version_id=VERSION)
    told = await asyncio.gather(*map(begun.record, [right, wrong, without]))
    assert [event.flagged for event in told] == [False, True, False]
    assert sorted(await events(begun), key=by_id) == sorted(told, key=by_id)


async def test_of_two_variants_reported_at_the_same_time_the_first_makes_the_exposure(begun: Store) -> None:
    first, second = (
        a_use(EXPERIMENT, "u1", "b", version_id=VERSION),
        a_use(EXPERIMENT, "u1", "a", version_id=VERSION),
    )
    await asyncio.gather(begun.record(first), begun.record(second))

    async def work(tx: Transaction) -> str | None:
        exposure = await tx.exposures.get(EXPERIMENT.experiment_id, "u1")
        return None if exposure is None else exposure.variant

    assert await begun.read(work) == "b"
    assert {event.event_id: event.flagged for event in await events(begun)} == {
        first.event_id: False,
        second.event_id: True,
    }


async def test_an_event_that_conflicts_leaves_no_exposure_behind(begun: Store) -> None:
    taken = an_event(VERSION, success=True)
    await begun.record(taken)
    with pytest.raises(ConflictError):
        await begun.record(a_use(EXPERIMENT, "u1", "a", version_id=VERSION, event_id=taken.event_id))

    async def work(tx: Transaction) -> dict[str, int]:
        return await tx.exposures.counts(EXPERIMENT.experiment_id)

    assert await begun.read(work) == {}


async def test_a_flagged_event_told_again_is_still_one_event(begun: Store) -> None:
    await begun.keep(an_exposure(EXPERIMENT, "u1", variant="a"))
    wrong = a_use(EXPERIMENT, "u1", "b", version_id=VERSION)
    assert (await begun.record(wrong)).flagged
    assert (await begun.record(wrong)).flagged
    assert [event.flagged for event in await events(begun)] == [True]


async def test_listing_is_newest_first_by_time_and_then_by_arrival(store: Store) -> None:
    told = [an_event(VERSION, timestamp=NOON + timedelta(seconds=second)) for second in (1, 3, 2, 3, 1)]
    for event in told:
        await store.record(event)
    assert await events(store) == [told[3], told[1], told[2], told[4], told[0]]
    assert await events(store, limit=2) == [told[3], told[1]]
    assert await events(store, limit=0) == []


async def test_listing_takes_a_window_with_its_start_and_without_its_end(store: Store) -> None:
    told = [an_event(VERSION, timestamp=NOON + timedelta(seconds=second)) for second in range(4)]
    await asyncio.gather(*map(store.record, [*told, an_event(OTHER)]))
    start, end = NOON + timedelta(seconds=1), NOON + timedelta(seconds=3)
    assert await events(store, start_time=start, end_time=end) == [told[2], told[1]]
    assert await events(store, start_time=end) == [told[3]]
    assert await events(store, end_time=start) == [told[0]]
    assert await events(store, start_time=end, end_time=start) == []


async def test_delete_removes_the_events_of_the_versions_named_or_all(store: Store) -> None:
    for version_id in (VERSION, VERSION, OTHER, None):
        await store.record(an_event(version_id))

    async def work(tx: Transaction) -> list[int]:
        return [
            await tx.events.delete([]),
            await tx.events.delete([VERSION, new_id()]),
            await tx.events.count(),
            await tx.events.delete(None),
            await tx.events.count(),
        ]

    assert await store.write(work) == [0, 2, 2, 2, 0]


async def test_a_cancelled_record_leaves_the_event_whole_or_not_there(store: Store) -> None:
    event = an_event(VERSION, success=True)
    recording = asyncio.ensure_future(store.record(event))
    await asyncio.sleep(0)
    recording.cancel()
    await asyncio.wait({recording})
    await store.flush()
    assert await events(store) in ([], [event])
    await store.record(event)
    assert await events(store) == [event]
