"""What waits to be written, in its order. Knows nothing of event loops, so that it can be written out without one."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterator
from itertools import chain
from time import monotonic
from typing import NamedTuple

from promptab.models import Exposure, MetricEvent
from promptab.stores.event_rows import Batch, EventRow, exposure_bytes, row_bytes

BATCH_ROWS = 2_000
"""The rows of one transaction: large enough to share the commit's cost, small enough not to hold up other
writers.
"""

BATCH_BYTES = 4 * 2**20
"""As much as one transaction takes of large rows; a single row is taken whatever its size."""


logger = logging.getLogger("promptab")


class Waiting(NamedTuple):
    """An event in the queue."""

    row: EventRow
    event: MetricEvent
    answer: asyncio.Future[MetricEvent] | None
    """None where nobody waits for it."""
    since: float


Entry = Waiting | Exposure


class Backlog:
    """A row stays here until the transaction that holds it is known to have committed.

    So a writer that is interrupted between the two may commit a row again, which changes nothing: events and
    exposures both have keys.
    """

    def __init__(self, *, capacity: int, capacity_bytes: int) -> None:
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self.forget()

    def forget(self) -> None:
        """Let go of everything, as the child of a fork does: it is the parent's to write."""
        self.coming: list[Entry] = []
        self.coming_bytes = 0
        self.batch: list[Entry] = []
        """Handed to the writer, which has not answered yet."""
        self._batch_bytes = 0
        self._room, self._room_bytes = self._capacity, self._capacity_bytes
        """What may be coming beside the batch."""
        self._coming_since = self._batch_since = 0.0
        self.outside: deque[Waiting] = deque()
        """Awaited events that found no room."""

    def __len__(self) -> int:
        return len(self.coming) + len(self.batch)

    @property
    def bytes(self) -> int:
        return self.coming_bytes + self._batch_bytes

    def has_room(self) -> bool:
        return len(self.coming) < self._room and self.coming_bytes < self._room_bytes

    def oldest_seconds(self) -> float:
        if not self:
            return 0.0
        return monotonic() - (self._batch_since if self.batch else self._coming_since)

    def add(self, waiting: Waiting) -> None:
        if not self.coming:
            self._coming_since = waiting.since
        self.coming.append(waiting)
        self.coming_bytes += row_bytes(waiting.row)

    def add_exposure(self, exposure: Exposure) -> None:
        if not self.coming:
            self._coming_since = monotonic()
        self.coming.append(exposure)
        self.coming_bytes += exposure_bytes(exposure)

    def take(self) -> Batch:
        """Return the batch that the writer has not answered yet, or the next one."""
        if not self.batch:
            self._take_next()
        events = [entry.row for entry in self.batch if type(entry) is Waiting]
        if len(events) == len(self.batch):
            return Batch((), events)
        return Batch([entry for entry in self.batch if isinstance(entry, Exposure)], events)

    def settle(self) -> list[Entry]:
        """Take out the batch that has been answered, and return it."""
        settled = self.batch
        self._hold([], 0)
        return settled

    def __iter__(self) -> Iterator[Entry]:
        return chain(self.batch, self.coming)

    def _take_next(self) -> None:
        self._batch_since = self._coming_since
        if len(self.coming) <= BATCH_ROWS and self.coming_bytes <= BATCH_BYTES:
            self._hold(self.coming, self.coming_bytes)
            self.coming, self.coming_bytes = [], 0
            return
        rows = size = 0
        for entry in self.coming[:BATCH_ROWS]:
            if rows and size + _size(entry) > BATCH_BYTES:
                break
            rows, size = rows + 1, size + _size(entry)
        self._hold(self.coming[:rows], size)
        del self.coming[:rows]
        self.coming_bytes -= size

    def _hold(self, batch: list[Entry], size: int) -> None:
        self.batch, self._batch_bytes = batch, size
        self._room, self._room_bytes = self._capacity - len(batch), self._capacity_bytes - size


def report_lost(backlog: Backlog, url: str) -> None:
    """Say at the end of a program that nobody closed its store, and what has gone with it."""
    if backlog:
        logger.error(
            "%s: %d events and exposures were never written; close the lab, or leave the event loop by asyncio.run",
            url,
            len(backlog),
        )


def _size(entry: Entry) -> int:
    return row_bytes(entry.row) if isinstance(entry, Waiting) else exposure_bytes(entry)
