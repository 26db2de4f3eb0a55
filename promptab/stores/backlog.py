"""What waits to be written, in its order. Knows nothing of event loops, so that it can be written out without one."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
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

Answer = asyncio.Future[MetricEvent] | None
"""What an event's caller waits for; None where nobody does."""

logger = logging.getLogger("promptab")


class Blocked(NamedTuple):
    """An awaited event that found no room."""

    row: EventRow
    event: MetricEvent
    answer: Answer
    since: float


class Rows:
    """Exposures, and events in columns: each step needs one thing of all of them, and lists of what is there already
    cost less than an object for each.
    """

    __slots__ = ("answers", "bytes", "events", "exposures", "rows", "since")

    def __init__(self) -> None:
        self.exposures: list[Exposure] = []
        self.rows: list[EventRow] = []
        self.events: list[MetricEvent] = []
        self.answers: list[Answer] = []
        self.since: list[float] = []
        """When each event came, by the monotonic clock."""
        self.bytes = 0

    def __len__(self) -> int:
        return len(self.exposures) + len(self.rows)

    def counted(self) -> str:
        """Return how many of each kind there are, as "3 events and 1 exposures"."""
        counts = {"events": len(self.rows), "exposures": len(self.exposures)}
        return " and ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "nothing"

    def late(self, before: float) -> list[Answer]:
        """Return the answers of the events that came before that moment."""
        return [answer for answer, since in zip(self.answers, self.since, strict=True) if since <= before]

    def cut(self, rows: int, size: int) -> Rows:
        """Take the exposures and the first events out, which together are so many rows and bytes."""
        taken = Rows()
        taken.exposures, self.exposures = self.exposures[:rows], self.exposures[rows:]
        events = rows - len(taken.exposures)
        taken.rows, self.rows = self.rows[:events], self.rows[events:]
        taken.events, self.events = self.events[:events], self.events[events:]
        taken.answers, self.answers = self.answers[:events], self.answers[events:]
        taken.since, self.since = self.since[:events], self.since[events:]
        taken.bytes, self.bytes = size, self.bytes - size
        return taken


class Backlog:
    """A row stays here until the transaction that holds it is known to have committed.

    So a writer that is interrupted between the two may commit a row again, which changes nothing: events and
    exposures both have keys. Exposures go before the events that came after them, so that they hold against what
    these report.
    """

    def __init__(self, *, capacity: int, capacity_bytes: int) -> None:
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self.forget()

    def forget(self) -> None:
        """Let go of everything, as the child of a fork does: it is the parent's to write."""
        self.coming = Rows()
        self.batch = Rows()
        """Handed to the writer, which has not answered yet."""
        self._room, self._room_bytes = self._capacity, self._capacity_bytes
        """What may be coming beside the batch."""
        self._coming_since = self._batch_since = 0.0
        self.outside: deque[Blocked] = deque()

    def __len__(self) -> int:
        return len(self.coming) + len(self.batch)

    @property
    def bytes(self) -> int:
        return self.coming.bytes + self.batch.bytes

    def has_room(self) -> bool:
        coming = self.coming
        return len(coming.rows) + len(coming.exposures) < self._room and coming.bytes < self._room_bytes

    def oldest_seconds(self) -> float:
        if not self:
            return 0.0
        return monotonic() - (self._batch_since if self.batch else self._coming_since)

    def counted(self) -> str:
        both = Rows()
        both.rows = self.batch.rows + self.coming.rows
        both.exposures = self.batch.exposures + self.coming.exposures
        return both.counted()

    def add(self, row: EventRow, event: MetricEvent, answer: Answer, since: float) -> None:
        coming = self.coming
        if not coming.rows and not coming.exposures:
            self._coming_since = since
        coming.rows.append(row)
        coming.events.append(event)
        coming.answers.append(answer)
        coming.since.append(since)
        coming.bytes += row_bytes(row)

    def add_exposure(self, exposure: Exposure) -> None:
        coming = self.coming
        if not coming.exposures and not coming.rows:
            self._coming_since = monotonic()
        coming.exposures.append(exposure)
        coming.bytes += exposure_bytes(exposure)

    def take(self) -> Batch:
        """Return the batch that the writer has not answered yet, or the next one."""
        if not self.batch:
            self._batch_since = self._coming_since
            coming = self.coming
            if len(coming) <= BATCH_ROWS and coming.bytes <= BATCH_BYTES:
                self._hold(coming)
                self.coming = Rows()
            else:
                self._hold(coming.cut(*_measure(coming)))
        return Batch(self.batch.exposures, self.batch.rows)

    def settle(self) -> Rows:
        """Take out the batch that has been answered, and return it."""
        settled = self.batch
        self._hold(Rows())
        return settled

    def _hold(self, batch: Rows) -> None:
        self.batch = batch
        self._room, self._room_bytes = self._capacity - len(batch), self._capacity_bytes - batch.bytes


def report_lost(backlog: Backlog, url: str) -> None:
    """Say at the end of a program that nobody closed its store, and what has gone with it."""
    if backlog:
        logger.error(
            "%s: %s were never written; close the lab, or leave the event loop by asyncio.run",
            url,
            backlog.counted(),
        )


def _measure(coming: Rows) -> tuple[int, int]:
    """Return how many rows the next batch takes, and their bytes; the exposures first."""
    sizes = [exposure_bytes(exposure) for exposure in coming.exposures[:BATCH_ROWS]]
    sizes += [row_bytes(row) for row in coming.rows[: BATCH_ROWS - len(sizes)]]
    rows, size = 1, sizes[0]
    while rows < len(sizes) and size + sizes[rows] <= BATCH_BYTES:
        size += sizes[rows]
        rows += 1
    return rows, size
