"""The queue in front of the writer: what shares a transaction, and who is told what became of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import pytest

from promptab import ConflictError, MetricEvent, StoreError, StoreUnavailableError
from promptab.stores.group_commit import BATCH_ROWS, BatchOutcome, GroupCommit, Row
from tests.contract.records import an_event, an_experiment, an_exposure


class Writer:
    """Takes batches in memory; fails as often as it is told to, and waits while it is held."""

    def __init__(self) -> None:
        self.batches: list[list[Row]] = []
        self.failures: list[Exception] = []
        self.free = asyncio.Event()
        self.free.set()

    async def commit(self, rows: Sequence[Row]) -> BatchOutcome:
        await self.free.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.batches.append(list(rows))
        return BatchOutcome()

    @property
    def rows(self) -> list[Row]:
        return [row for batch in self.batches for row in batch]


@pytest.fixture
def writer() -> Writer:
    return Writer()


@pytest.fixture
def queue(writer: Writer) -> GroupCommit:
    return GroupCommit(writer.commit, on_refusal=lambda: None)


def some_events(count: int) -> list[MetricEvent]:
    return [an_event() for _ in range(count)]


async def test_rows_that_wait_at_the_same_time_share_a_batch_in_their_order(
    writer: Writer, queue: GroupCommit
) -> None:
    events = some_events(100)
    await asyncio.gather(*map(queue.submit, events))
    assert writer.batches == [events]


async def test_rows_that_come_during_a_commit_share_the_next_one(writer: Writer, queue: GroupCommit) -> None:
    events = some_events(11)
    writer.free.clear()
    first = asyncio.create_task(queue.submit(events[0]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    rest = [asyncio.create_task(queue.submit(event)) for event in events[1:]]
    await asyncio.sleep(0)
    writer.free.set()
    await asyncio.gather(first, *rest)
    assert writer.batches == [events[:1], events[1:]]


async def test_a_long_queue_is_cut_into_batches(writer: Writer, queue: GroupCommit) -> None:
    events = some_events(BATCH_ROWS + 1)
    await asyncio.gather(*map(queue.submit, events))
    assert [len(batch) for batch in writer.batches] == [BATCH_ROWS, 1]
    assert writer.rows == events


async def test_submit_does_not_return_before_the_commit(writer: Writer, queue: GroupCommit) -> None:
    writer.free.clear()
    submitting = asyncio.create_task(queue.submit(an_event()))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not submitting.done()
    writer.free.set()
    await submitting


@pytest.mark.parametrize(
    "failure",
    [
        StoreUnavailableError("disk is full"),
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
    assert writer.rows == [later]


async def test_exposures_that_could_not_be_written_are_counted_in_the_log(
    writer: Writer, queue: GroupCommit, caplog: pytest.LogCaptureFixture
) -> None:
    writer.failures = [StoreUnavailableError("disk is full")]
    for unit in ("u1", "u2"):
        queue.enqueue(an_exposure(an_experiment(), unit))
    await queue.flush()
    assert "2 exposures could not be written: disk is full" in caplog.text


async def test_flush_waits_for_rows_that_nobody_awaits(writer: Writer, queue: GroupCommit) -> None:
    exposures = [an_exposure(an_experiment(), f"u{number}") for number in range(5)]
    for exposure in exposures:
        queue.enqueue(exposure)
    await queue.flush()
    assert writer.rows == exposures


async def test_a_cancelled_flush_leaves_the_rows_to_be_written(writer: Writer, queue: GroupCommit) -> None:
    writer.free.clear()
    queue.enqueue(an_exposure(an_experiment()))
    flushing = asyncio.create_task(queue.flush())
    await asyncio.sleep(0)
    flushing.cancel()
    await asyncio.wait({flushing})
    writer.free.set()
    await queue.flush()
    assert len(writer.rows) == 1


async def test_a_cancelled_submit_disturbs_none_of_the_others(writer: Writer, queue: GroupCommit) -> None:
    writer.free.clear()
    tasks = [asyncio.create_task(queue.submit(event)) for event in some_events(3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    writer.free.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [bool, asyncio.CancelledError, bool]


async def test_close_writes_the_rest_and_takes_nothing_more(writer: Writer, queue: GroupCommit) -> None:
    queue.enqueue(an_exposure(an_experiment()))
    await queue.close()
    assert len(writer.rows) == 1
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
    assert len(writer.rows) == 1


async def test_every_caller_hears_what_became_of_its_own_row() -> None:
    async def commit(rows: Sequence[Row]) -> BatchOutcome:
        return BatchOutcome(conflicts=frozenset({1}), flagged=frozenset({2}))

    queue = GroupCommit(commit, on_refusal=lambda: None)
    plain, conflict, flagged = await asyncio.gather(
        *map(queue.submit, some_events(3)), return_exceptions=True
    )
    assert (plain, flagged) == (False, True)
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
    assert len(writer.rows) >= 1
    await queue.close()


async def never_stop(queue: GroupCommit) -> None:
    while True:
        queue.enqueue(an_exposure(an_experiment()))
        await asyncio.sleep(0)


async def test_a_refusal_is_told_when_nobody_waits_for_the_rows(writer: Writer) -> None:
    refusals: list[str] = []
    queue = GroupCommit(writer.commit, on_refusal=lambda: refusals.append("refused"))
    writer.failures = [StoreUnavailableError("disk is full")]
    await asyncio.gather(queue.submit(an_event()), return_exceptions=True)
    assert refusals == []
    writer.failures = [StoreUnavailableError("disk is full")]
    queue.enqueue(an_exposure(an_experiment()))
    await queue.flush()
    assert refusals == ["refused"]
