"""Group commit: many callers that wait at the same time share one transaction.

A row stays in the queue until the transaction that holds it has committed. So a writer that is interrupted
between the two may commit a row again, which changes nothing: events and exposures both have keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence

from promptab.errors import ConflictError, StoreError, StoreUnavailableError
from promptab.models import Exposure, MetricEvent

Row = MetricEvent | Exposure
Commit = Callable[[Sequence[Row]], Awaitable[frozenset[int]]]
"""Writes rows in one transaction; returns the positions of events that are there already with other content."""

BATCH_ROWS = 2_000
"""The rows of one transaction: large enough to share the commit's cost, small enough not to hold up other
writers.
"""

logger = logging.getLogger("promptab")


class GroupCommit:
    """The queue in front of one store's writer. Belongs to one event loop."""

    def __init__(self, commit: Commit, *, on_refusal: Callable[[], None]) -> None:
        """`on_refusal` is called when rows that nobody waits for could not be written."""
        self._commit = commit
        self._on_refusal = on_refusal
        self._pending: list[tuple[Row, asyncio.Future[None] | None]] = []
        self._drainer: asyncio.Task[None] | None = None
        self._closed = False

    async def submit(self, row: Row) -> None:
        """Return after the commit; raise what the commit raised."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._append(row, future)
        await future

    def enqueue(self, row: Row) -> None:
        """Write the row soon; a failure is logged, since nobody waits for it."""
        self._append(row, None)

    async def flush(self) -> None:
        while self._pending:
            await asyncio.shield(self._drain_task())

    async def close(self) -> None:
        """Write what is queued; afterwards nothing is taken any more."""
        self._closed = True
        while self._pending:
            # the loop may be ending and have cancelled the drainer: then this call writes the rest itself
            with contextlib.suppress(asyncio.CancelledError):
                await self._drain_task()

    def _append(self, row: Row, future: asyncio.Future[None] | None) -> None:
        if self._closed:
            raise StoreUnavailableError("the store is closed; open it again to record")
        self._pending.append((row, future))
        self._drain_task()

    def _drain_task(self) -> asyncio.Task[None]:
        if self._drainer is None or self._drainer.done():
            self._drainer = asyncio.get_running_loop().create_task(self._drain())
        return self._drainer

    async def _drain(self) -> None:
        while self._pending:
            batch = self._pending[:BATCH_ROWS]
            try:
                conflicts = await self._commit([row for row, _ in batch])
            except Exception as error:  # noqa: BLE001 - whoever waits has to hear of it, whatever it was
                del self._pending[: len(batch)]
                self._refuse(batch, error if isinstance(error, StoreError) else _unforeseen(error))
            else:
                del self._pending[: len(batch)]
                _settle(batch, conflicts)

    def _refuse(self, batch: Sequence[tuple[Row, asyncio.Future[None] | None]], error: StoreError) -> None:
        unheard = 0
        for _, future in batch:
            if future is None:
                unheard += 1
            elif not future.done():
                future.set_exception(error)
        if unheard:
            # written again when the unit comes again, or by an event of the unit, as "reported"
            logger.warning("%d exposures could not be written: %s", unheard, error)
            self._on_refusal()


def _settle(batch: Sequence[tuple[Row, asyncio.Future[None] | None]], conflicts: frozenset[int]) -> None:
    for position, (row, future) in enumerate(batch):
        if future is None or future.done():
            continue
        if isinstance(row, MetricEvent) and position in conflicts:
            future.set_exception(
                ConflictError(
                    f"event {row.event_id} exists already with other content; give each event an id of its own"
                )
            )
        else:
            future.set_result(None)


def _unforeseen(error: Exception) -> StoreError:
    refusal = StoreError(f"the events could not be written: {error!r}")
    refusal.__cause__ = error
    return refusal
