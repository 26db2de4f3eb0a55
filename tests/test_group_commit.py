"""The queue in front of the writer: what shares a transaction, and who is told what became of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from promptab import (
    ConflictError,
    InvalidInputError,
    MetricEvent,
    QueueSettings,
    StoreError,
    StoreUnavailableError,
)
from promptab.models import Exposure
from promptab.stores import group_commit
from promptab.stores.backlog import BATCH_BYTES, BATCH_ROWS
from promptab.stores.event_rows import Batch, BatchOutcome, EventRow, event_row, row_bytes
from promptab.stores.group_commit import Commit, GroupCommit
from tests.contract.records import an_event, an_experiment, an_exposure


class Writer:
    """Takes batches in memory; fails as often as it is told to, and waits while it is held."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.failures: list[Exception] = []
        self.away: StoreUnavailableError | None = None
        self.free = asyncio.Event()
        self.free.set()
        self.offered = 0

    async def commit(self, batch: Batch) -> BatchOutcome:
        self.offered += 1
        await self.free.wait()
        if self.away is not None:
            raise self.away
        if self.failures:
            raise self.failures.pop(0)
        self.batches.append(batch)
        return BatchOutcome()

    @property
    def rows(self) -> list[EventRow]:
        return [row for batch in self.batches for row in batch.events]

    @property
    def exposures(self) -> list[Exposure]:
        return [exposure for batch in self.batches for exposure in batch.exposures]


def a_queue(commit: Commit, *, on_refusal: Callable[[], None] = lambda: None, **settings: Any) -> GroupCommit:
    return GroupCommit(commit, encode=event_row, settings=QueueSettings(**settings), on_refusal=on_refusal)


def rows_of(*events: MetricEvent) -> list[EventRow]:
    return [event_row(event) for event in events]


@pytest.fixture
def writer() -> Writer:
    return Writer()


@pytest.fixture
def queue(writer: Writer) -> GroupCommit:
    return a_queue(writer.commit)


def some_events(count: int) -> list[MetricEvent]:
    return [an_event() for _ in range(count)]


async def test_rows_that_wait_at_the_same_time_share_a_batch_in_their_order(
    writer: Writer, queue: GroupCommit
) -> None:
    events = some_events(100)
    await asyncio.gather(*map(queue.submit, events))
    assert [batch.events for batch in writer.batches] == [rows_of(*events)]


async def test_rows_that_come_during_a_commit_share_the_next_one(writer: Writer, queue: GroupCommit) -> None:
    events = some_events(11)
    writer.free.clear()
    first = queue.submit(events[0])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    rest = [queue.submit(event) for event in events[1:]]
    await asyncio.sleep(0)
    writer.free.set()
    await asyncio.gather(first, *rest)
    assert [batch.events for batch in writer.batches] == [rows_of(events[0]), rows_of(*events[1:])]


async def test_a_long_queue_is_cut_into_batches(writer: Writer, queue: GroupCommit) -> None:
    events = some_events(BATCH_ROWS + 1)
    await asyncio.gather(*map(queue.submit, events))
    assert [len(batch.events) for batch in writer.batches] == [BATCH_ROWS, 1]
    assert writer.rows == rows_of(*events)


async def test_submit_does_not_return_before_the_commit(writer: Writer, queue: GroupCommit) -> None:
    writer.free.clear()
    submitting = queue.submit(an_event())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not submitting.done()
    writer.free.set()
    await submitting


@pytest.mark.parametrize(
    "failure",
    [
        StoreError("malformed"),
        StoreUnavailableError("readonly", passing=False),
        RuntimeError("shut down"),
        OverflowError("too large"),
        MemoryError(),
    ],
    ids=lambda failure: type(failure).__name__,
)
async def test_a_failed_commit_is_a_store_error_for_all_who_wait_and_for_nobody_later(
    writer: Writer, queue: GroupCommit, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, logger="promptab")
    writer.failures = [failure]
    async with asyncio.timeout(10):
        results = await asyncio.gather(*map(queue.submit, some_events(3)), return_exceptions=True)
        assert all(isinstance(result, StoreError) for result in results)
        later = an_event()
        await queue.submit(later)
    assert writer.rows == rows_of(later)


async def test_exposures_that_could_not_be_written_are_counted_in_the_log(
    writer: Writer, queue: GroupCommit, caplog: pytest.LogCaptureFixture
) -> None:
    writer.failures = [StoreError("malformed")]
    for unit in ("u1", "u2"):
        queue.enqueue(an_exposure(an_experiment(), unit))
    await queue.flush()
    assert "2 exposures could not be written: malformed" in caplog.text


async def test_flush_waits_for_rows_that_nobody_awaits(writer: Writer, queue: GroupCommit) -> None:
    exposures = [an_exposure(an_experiment(), f"u{number}") for number in range(5)]
    for exposure in exposures:
        queue.enqueue(exposure)
    await queue.flush()
    assert writer.exposures == exposures


async def test_a_cancelled_flush_leaves_the_rows_to_be_written(writer: Writer, queue: GroupCommit) -> None:
    writer.free.clear()
    queue.enqueue(an_exposure(an_experiment()))
    flushing = asyncio.create_task(queue.flush())
    await asyncio.sleep(0)
    flushing.cancel()
    await asyncio.wait({flushing})
    writer.free.set()
    await queue.flush()
    assert len(writer.exposures) == 1


async def test_a_cancelled_submit_disturbs_none_of_the_others(writer: Writer, queue: GroupCommit) -> None:
    writer.free.clear()
    tasks = [asyncio.ensure_future(queue.submit(event)) for event in some_events(3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    writer.free.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [MetricEvent, asyncio.CancelledError, MetricEvent]


async def test_close_writes_the_rest_and_takes_nothing_more(writer: Writer, queue: GroupCommit) -> None:
    queue.enqueue(an_exposure(an_experiment()))
    await queue.close()
    assert len(writer.exposures) == 1
    with pytest.raises(StoreUnavailableError, match="closed"):
        await queue.submit(an_event())
    with pytest.raises(StoreUnavailableError, match="closed"):
        queue.enqueue(an_exposure(an_experiment()))


async def test_close_writes_the_rest_after_the_loop_has_cancelled_the_writer(
    writer: Writer, queue: GroupCommit
) -> None:
    """What `asyncio.run` does at its end: cancel every task, then close asynchronous generators."""
    writer.free.clear()
    queue.enqueue(an_exposure(an_experiment()))
    await asyncio.sleep(0)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.sleep(0)
    writer.free.set()
    await queue.close()
    assert len(writer.exposures) == 1


async def test_every_caller_hears_what_became_of_its_own_row() -> None:
    async def commit(batch: Batch) -> BatchOutcome:
        return BatchOutcome(conflicts=frozenset({1}), flagged=frozenset({2}))

    queue, events = a_queue(commit), some_events(3)
    plain, conflict, flagged = await asyncio.gather(*map(queue.submit, events), return_exceptions=True)
    assert plain == events[0]
    assert flagged == events[2].model_copy(update={"flagged": True})
    assert isinstance(conflict, ConflictError)


async def test_flush_does_not_wait_for_rows_that_come_in_after_it(writer: Writer, queue: GroupCommit) -> None:
    """Rows that never stop coming must not keep a reader waiting for ever."""
    queue.enqueue(an_exposure(an_experiment(), "first"))
    flushing = asyncio.create_task(queue.flush())
    await asyncio.sleep(0)
    coming = asyncio.create_task(never_stop(queue))
    async with asyncio.timeout(10):
        await flushing
    coming.cancel()
    await asyncio.wait({coming})
    assert len(writer.exposures) >= 1
    await queue.close()


async def never_stop(queue: GroupCommit) -> None:
    while True:
        queue.enqueue(an_exposure(an_experiment()))
        await asyncio.sleep(0)


async def test_a_refusal_is_told_when_nobody_waits_for_the_rows(writer: Writer) -> None:
    refusals: list[str] = []
    queue = a_queue(writer.commit, on_refusal=lambda: refusals.append("refused"))
    writer.failures = [StoreError("malformed")]
    await asyncio.gather(queue.submit(an_event()), return_exceptions=True)
    assert refusals == []
    writer.failures = [StoreError("malformed")]
    queue.enqueue(an_exposure(an_experiment()))
    await queue.flush()
    assert refusals == ["refused"]


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "FIRST_RETRY_SECONDS", 0.001)
    monkeypatch.setattr(group_commit, "LAST_RETRY_SECONDS", 0.002)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.001)


@pytest.mark.usefixtures("quick_retries")
async def test_rows_wait_while_the_store_is_away_and_are_written_once_when_it_is_back(
    writer: Writer, queue: GroupCommit, caplog: pytest.LogCaptureFixture
) -> None:
    writer.away = StoreUnavailableError("the disk is gone")
    first, second = some_events(2)
    waiting = queue.submit(first)
    await until(lambda: writer.offered >= 3)
    later = queue.submit(second)
    queue.enqueue(an_exposure(an_experiment()))
    assert queue.stats().away == "the disk is gone"
    assert not waiting.done()
    writer.away = None
    assert [await waiting, await later] == [first, second]
    await queue.flush()
    assert sorted(writer.rows) == sorted(rows_of(first, second))
    assert len(writer.exposures) == 1
    assert queue.stats().away is None
    said = [record.getMessage() for record in caplog.records]
    assert [text.partition(" after")[0] for text in said] == [
        "1 events wait until the store is back: the disk is gone",
        "the store is back",
    ]


@pytest.mark.usefixtures("quick_retries")
async def test_a_caller_whose_patience_ends_is_told_and_the_event_is_written_all_the_same(
    writer: Writer,
) -> None:
    queue = a_queue(writer.commit, patience_seconds=0.05)
    writer.away = StoreUnavailableError("the disk is gone")
    event = an_event()
    async with asyncio.timeout(10):
        with pytest.raises(
            StoreUnavailableError, match=r"not stored yet after 0.05 s: the disk is gone; it stays"
        ):
            await queue.submit(event)
    writer.away = None
    await queue.flush(10)
    assert writer.rows == rows_of(event)


async def test_nobody_waits_for_a_store_that_does_not_answer(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "SHORTEST_PATIENCE_SECONDS", 0.05)
    queue = a_queue(writer.commit, patience_seconds=0.05, capacity=2)
    writer.free.clear()
    events = some_events(3)
    taken, later, blocked = (queue.submit(event) for event in events)
    async with asyncio.timeout(10):
        for answer in (taken, later):
            with pytest.raises(StoreUnavailableError, match=r"not stored yet after 0.05 s; it stays"):
                await answer
        with pytest.raises(StoreUnavailableError, match="the event was not taken"):
            await blocked
    writer.free.set()
    await queue.flush()
    assert writer.rows == rows_of(*events[:2])
    await queue.submit(events[2])


@pytest.mark.usefixtures("quick_retries")
async def test_a_flush_of_a_store_that_is_away_ends_and_says_how_much_waits(
    writer: Writer, queue: GroupCommit
) -> None:
    writer.away = StoreUnavailableError("the disk is gone")
    queue.enqueue(an_exposure(an_experiment()))
    for event in some_events(2):
        assert queue.offer(event)
    with pytest.raises(
        StoreUnavailableError, match=r"2 events and 1 exposures not written after 0\.02 s: the disk"
    ):
        await queue.flush(0.02)
    writer.away = None
    await queue.flush()
    assert len(writer.rows) == 2


@pytest.mark.usefixtures("quick_retries")
async def test_a_close_that_cannot_write_ends_and_reports_what_is_lost(
    writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    queue = a_queue(writer.commit, patience_seconds=0.05)
    writer.away = StoreUnavailableError("the disk is gone")
    waiting = queue.submit(an_event())
    queue.offer(an_event())
    async with asyncio.timeout(10):
        with pytest.raises(
            StoreUnavailableError, match=r"closed, but 2 events could not be written within 0\.05 s"
        ):
            await queue.close()
        with pytest.raises(StoreUnavailableError):
            await waiting
    assert "2 events could not be written" in caplog.text


@pytest.mark.usefixtures("quick_retries")
@pytest.mark.parametrize("ends", ["refused", "written"])
async def test_a_closed_queue_tries_nothing_any_more_whatever_becomes_of_the_attempt_under_way(
    writer: Writer, ends: str
) -> None:
    queue = a_queue(writer.commit, patience_seconds=0.05)
    writer.free.clear()
    queue.offer(an_event())
    with pytest.raises(StoreUnavailableError, match=r"1 events could not be written within 0\.05 s"):
        await queue.close()
    writer.away = StoreUnavailableError("the disk is gone") if ends == "refused" else None
    writer.free.set()
    await asyncio.sleep(0.05)
    assert writer.offered == 1
    assert (queue.stats().queued, queue.stats().dropped) == (0, 1)
    await queue.flush(0.01)


async def test_a_writer_that_is_cancelled_begins_again_for_those_who_go_on_waiting(
    writer: Writer, queue: GroupCommit
) -> None:
    writer.free.clear()
    before = asyncio.all_tasks()
    waiting, queued = queue.submit(an_event()), asyncio.create_task(queue.flush())
    await asyncio.sleep(0.001)
    for task in asyncio.all_tasks() - before - {queued}:
        task.cancel()
    writer.free.set()
    async with asyncio.timeout(5):
        await asyncio.gather(waiting, queued)
    assert len(writer.rows) == 1


async def test_the_child_of_a_fork_in_the_same_loop_has_nothing_to_write(
    writer: Writer, queue: GroupCommit
) -> None:
    queue.offer(an_event())
    queue.after_fork_in_child()
    await asyncio.sleep(0.02)
    assert writer.offered == 0
    writer.free.clear()
    queue.offer(an_event())
    await asyncio.sleep(0.02)
    queue.after_fork_in_child()
    writer.free.set()
    own = an_event()
    await queue.submit(own)
    await asyncio.sleep(0.01)
    assert writer.rows[-1:] == rows_of(own)
    assert (queue.stats().queued, queue.stats().batches) == (0, 1)


async def test_rows_that_nobody_awaits_share_a_batch_however_slowly_they_come(writer: Writer) -> None:
    queue, events = a_queue(writer.commit, delay_seconds=0.5), some_events(20)
    for event in events:
        assert queue.offer(event)
        await asyncio.sleep(0)
    assert writer.batches == []
    await until(lambda: len(writer.rows) == 20)
    assert [batch.events for batch in writer.batches] == [rows_of(*events)]


async def test_no_batch_is_begun_without_rows(writer: Writer, queue: GroupCommit) -> None:
    writer.free.clear()
    answer = queue.submit(an_event())
    await asyncio.sleep(0.001)
    flushing = asyncio.create_task(queue.flush())
    await asyncio.sleep(0.001)
    writer.free.set()
    await asyncio.gather(answer, flushing)
    await queue.close()
    for _ in range(5):
        await asyncio.sleep(0)
    assert writer.offered == 1


async def test_a_row_that_is_awaited_takes_those_along_that_were_not(writer: Writer) -> None:
    queue = a_queue(writer.commit, delay_seconds=1.0)
    passing, awaited = some_events(2)
    queue.offer(passing)
    await queue.submit(awaited)
    assert writer.rows == rows_of(passing, awaited)


async def test_a_full_queue_makes_an_awaited_event_wait_for_room(writer: Writer) -> None:
    queue = a_queue(writer.commit, capacity=2)
    writer.free.clear()
    events = some_events(5)
    answers = [queue.submit(event) for event in events]
    await asyncio.sleep(0.01)
    assert (queue.stats().queued, queue.stats().blocked) == (2, 3)
    with pytest.raises(StoreUnavailableError, match="the queue is full with 2 events and exposures"):
        queue.offer(an_event())
    writer.free.set()
    assert await asyncio.gather(*answers) == events
    assert writer.rows == rows_of(*events)
    assert max(len(batch.events) for batch in writer.batches) == 2


async def test_a_caller_who_gives_up_waiting_for_room_leaves_nothing_behind(writer: Writer) -> None:
    queue = a_queue(writer.commit, capacity=1)
    writer.free.clear()
    events = some_events(3)
    answers = [queue.submit(event) for event in events]
    answers[1].cancel()
    writer.free.set()
    await asyncio.gather(*answers, return_exceptions=True)
    assert writer.rows == rows_of(events[0], events[2])


@pytest.mark.parametrize("policy", ["raise", "drop"])
async def test_a_full_queue_refuses_an_awaited_event_where_it_is_not_to_wait(
    writer: Writer, policy: str
) -> None:
    queue = a_queue(writer.commit, capacity=1, when_full=policy)
    writer.free.clear()
    first = queue.submit(an_event())
    with pytest.raises(StoreUnavailableError, match="queue is full"):
        await queue.submit(an_event())
    writer.free.set()
    await first
    await queue.submit(an_event())
    assert len(writer.rows) == 2


async def test_a_full_queue_drops_what_nobody_awaits_and_counts_it(
    writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []
    queue = a_queue(writer.commit, capacity=3, when_full="drop", on_refusal=lambda: told.append("again"))
    writer.free.clear()
    taken = [queue.offer(event) for event in some_events(5)]
    queue.enqueue(an_exposure(an_experiment()))
    assert taken == [True, True, True, False, False]
    assert queue.stats().dropped == 3
    assert len(caplog.records) == 1
    assert told == [], "while there is no room, telling again would change nothing"
    writer.free.set()
    await queue.flush()
    assert (len(writer.rows), writer.exposures, told) == (3, [], ["again"])
    assert queue.offer(an_event())
    await queue.flush()


async def test_the_bytes_of_the_queue_are_bounded_too(writer: Writer) -> None:
    queue = a_queue(writer.commit, capacity_bytes=2**20, when_full="raise")
    writer.free.clear()
    large = [an_event(metadata={"text": "x" * 90_000}) for _ in range(4)]
    answers = [queue.submit(event) for event in large[:3]]
    assert queue.stats().queued_bytes > 2**20
    with pytest.raises(StoreUnavailableError, match="queue is full"):
        queue.submit(large[3])
    writer.free.set()
    await asyncio.gather(*answers)
    assert queue.stats().queued_bytes == 0


async def test_large_rows_are_cut_into_batches_by_their_bytes(writer: Writer, queue: GroupCommit) -> None:
    events = [an_event(metadata={"text": "x" * 90_000}) for _ in range(30)]
    await asyncio.gather(*map(queue.submit, events))
    assert writer.rows == rows_of(*events)
    assert len(writer.batches) > 1
    assert max(sum(map(row_bytes, batch.events)) for batch in writer.batches) <= BATCH_BYTES


async def test_exposures_go_before_the_events_that_came_after_them(
    writer: Writer, queue: GroupCommit
) -> None:
    experiment = an_experiment()
    exposures = [an_exposure(experiment, f"u{number}") for number in range(BATCH_ROWS + 10)]
    for exposure in exposures:
        queue.enqueue(exposure)
    await queue.submit(an_event())
    assert writer.exposures == exposures
    assert [len(batch.events) for batch in writer.batches] == [0, 1]


async def test_stats_say_what_waits_and_what_became_of_the_rest(writer: Writer) -> None:
    async def commit(batch: Batch) -> BatchOutcome:
        await writer.commit(batch)
        return BatchOutcome(conflicts=frozenset({0}))

    queue = a_queue(commit)
    assert queue.stats().oldest_seconds == 0.0
    writer.free.clear()
    answers = [queue.submit(event) for event in some_events(3)]
    queue.enqueue(an_exposure(an_experiment()))
    await asyncio.sleep(0.01)
    during = queue.stats()
    assert (during.queued, during.written, during.batches) == (4, 0, 0)
    assert during.oldest_seconds >= 0.01
    writer.free.set()
    await asyncio.gather(*answers, return_exceptions=True)
    after = queue.stats()
    assert (after.queued, after.queued_bytes, after.written, after.refused) == (0, 0, 3, 1)
    assert after.batches == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"capacity": 0},
        {"capacity": 10**8},
        {"capacity": True},
        {"capacity_bytes": 1000},
        {"when_full": "block"},
        {"delay_seconds": -0.1},
        {"delay_seconds": 1.5},
        {"patience_seconds": float("nan")},
        {"patience_seconds": 1e6},
    ],
    ids=str,
)
def test_settings_out_of_bounds_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=f"queue.{next(iter(settings))}"):
        QueueSettings(**settings)
