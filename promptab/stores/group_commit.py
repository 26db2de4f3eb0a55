"""Group commit: many callers that wait at the same time share one transaction.

A row stays in the queue until the transaction that holds it has committed. So a writer that is interrupted
between the two may commit a row again, which changes nothing: events and exposures both have keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from promptab.errors import ConflictError, StoreError, StoreUnavailableError
from promptab.models import Exposure, MetricEvent

Row = MetricEvent | Exposure


class BatchOutcome(NamedTuple):
    """What became of a batch that was committed, by position in it."""

    conflicts: frozenset[int] = frozenset()
    """Events that are there already with other content."""
    flagged: frozenset[int] = frozenset()
    """Events of a unit that had been exposed to another variant."""


Commit = Callable[[Sequence[Row]], Awaitable[BatchOutcome]]
"""Writes rows in one transaction."""

BATCH_ROWS = 2_000
"""The rows of one transaction: large enough to share the commit's cost, small enough not to hold up other
writers.
"""

logger = logging.getLogger("promptab")


class _Waiting(NamedTuple):
    row: Row
    answer: asyncio.Future[bool] | None
    """Whether the event is flagged; None where nobody waits for it."""


class GroupCommit:
    """The queue in front of one store's writer. Belongs to one event loop."""

    def __init__(self, commit: Commit, *, on_refusal: Callable[[], None]) -> None:
        """`on_refusal` is called when rows that nobody waits for could not be written."""
        self._commit = commit
        self._on_refusal = on_refusal
        self._pending: list[_Waiting] = []
        self._taken = 0
        """Rows that have come in, and (below) those that have been written or refused."""
        self._settled = 0
        self._drainer: asyncio.Task[None] | None = None
        self._closed = False

    async def submit(self, row: Row) -> bool:
        """Return after the commit whether the row is flagged; raise what the commit raised."""
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._append(row, answer)
        return await answer

    def enqueue(self, row: Row) -> None:
        """Write the row soon; a failure is logged, since nobody waits for it."""
        self._append(row, None)

    async def flush(self) -> None:
        """Return when the rows that have come in so far are settled, however many come in meanwhile."""
        target = self._taken
        while self._settled < target:
            await asyncio.shield(self._batch_task())

    async def close(self) -> None:
        """Write what is queued; afterwards nothing is taken any more."""
        self._closed = True
        while self._pending:
            # the loop may be ending and have cancelled the drainer: then this call writes the rest itself
            with contextlib.suppress(asyncio.CancelledError):
                await self._batch_task()

    def _append(self, row: Row, answer: asyncio.Future[bool] | None) -> None:
        if self._closed:
            raise StoreUnavailableError("the store is closed; open it again to record")
        self._pending.append(_Waiting(row, answer))
        self._taken += 1
        self._batch_task()

    def _batch_task(self) -> asyncio.Task[None]:
        """Return the task that writes the batch under way, beginning one where none is."""
        if self._drainer is None or self._drainer.done():
            self._drainer = asyncio.get_running_loop().create_task(self._write_batch())
            self._drainer.add_done_callback(self._go_on)
        return self._drainer

    def _go_on(self, finished: asyncio.Task[None]) -> None:
        if self._pending and not finished.cancelled():
            self._batch_task()

    async def _write_batch(self) -> None:
        batch = self._pending[:BATCH_ROWS]
        try:
            outcome = await self._commit([waiting.row for waiting in batch])
        except Exception as error:  # noqa: BLE001 - whoever waits has to hear of it, whatever it was
            self._take_out(batch)
            self._refuse(batch, error if isinstance(error, StoreError) else _unforeseen(error))
        else:
            self._take_out(batch)
            _settle(batch, outcome)

    def _take_out(self, batch: Sequence[_Waiting]) -> None:
        del self._pending[: len(batch)]
        self._settled += len(batch)

    def _refuse(self, batch: Sequence[_Waiting], error: StoreError) -> None:
        unheard = 0
        for waiting in batch:
            if waiting.answer is None:
                unheard += 1
            elif not waiting.answer.done():
                waiting.answer.set_exception(error)
        if unheard:
            # written again when the unit comes again, or by an event of the unit, as "reported"
            logger.warning("%d exposures could not be written: %s", unheard, error)
            self._on_refusal()


def _settle(batch: Sequence[_Waiting], outcome: BatchOutcome) -> None:
    for position, waiting in enumerate(batch):
        if waiting.answer is None or waiting.answer.done():
            continue
        if isinstance(waiting.row, MetricEvent) and position in outcome.conflicts:
            waiting.answer.set_exception(
                ConflictError(
                    f"event {waiting.row.event_id} exists already with other content; "
                    "give each event an id of its own"
                )
            )
        else:
            waiting.answer.set_result(position in outcome.flagged)


def _unforeseen(error: Exception) -> StoreError:
    refusal = StoreError(f"the events could not be written: {error!r}")
    refusal.__cause__ = error
    return refusal
