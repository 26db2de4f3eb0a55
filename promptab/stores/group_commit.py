"""Group commit: many callers that wait at the same time share one transaction.

While the store is away its rows wait here, and are offered again until it is back.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

from promptab.errors import StoreError, StoreUnavailableError
from promptab.models import Exposure, MetricEvent
from promptab.queueing import QueueSettings, QueueStats
from promptab.stores.answers import reject, tell
from promptab.stores.backlog import Backlog, Blocked
from promptab.stores.event_rows import Batch, BatchOutcome, Encode

Commit = Callable[[Batch], Awaitable[BatchOutcome]]
"""Writes a batch in one transaction. `StoreUnavailableError` means that it is worth offering again."""

SHORTEST_PATIENCE_SECONDS = 1.0
"""How long an attempt may last at least before those who wait for it are told that the store is away."""

LOOKS = 4
"""How often in the time of their patience it is looked who has lost it."""

FIRST_RETRY_SECONDS = 0.05
LAST_RETRY_SECONDS = 1.0

logger = logging.getLogger("promptab")


# What the queue is waiting for, in order of how soon something happens by itself. Plain numbers: they are compared
# for every event.
_IDLE = 0
_DELAYED = 1
"""For more rows, since nobody awaits those that are there."""
_STARTING = 2
"""For the callers that are ready in this step of the loop."""
_WRITING = 3
_AWAY = 4
"""For the moment at which the store is tried again."""


class GroupCommit:
    """The queue in front of one store's writer. Belongs to one event loop at a time."""

    def __init__(
        self, commit: Commit, *, encode: Encode, settings: QueueSettings, on_refusal: Callable[[], None]
    ) -> None:
        """`on_refusal` is called when exposures could not be written, or found no room."""
        self.backlog = Backlog(capacity=settings.capacity, capacity_bytes=settings.capacity_bytes)
        self._commit = commit
        self._encode = encode
        self._settings = settings
        self._on_refusal = on_refusal
        self._closed = False
        self._loop: asyncio.AbstractEventLoop
        """The one in which the next batch is begun. Asking which it is takes a system call (getpid), and so is not
        done for every event.
        """
        self._written = self._batches = self._dropped = self._refused = 0
        self._start_over()

    def _start_over(self) -> None:
        self._state = _IDLE
        self._hurried = False
        """Whether somebody awaits a row that is not handed to the writer yet."""
        self._next: asyncio.Handle | None = None
        self._look: asyncio.Handle | None = None
        self._attempt: asyncio.Future[BatchOutcome] | None = None
        self._away: StoreUnavailableError | None = None
        self._failures = 0
        self._told_full = self._owed = False
        """Whether the log has it that the queue is full, and whether exposures found no room since."""
        self._settled = 0
        """Rows that have been written or refused."""
        self._flushes: list[tuple[int, asyncio.Future[None]]] = []

    def submit(self, event: MetricEvent) -> asyncio.Future[MetricEvent]:
        """Return what becomes the event as it is stored, flagged or not; or the error that kept it out."""
        if self._closed:
            raise _closed()
        row = self._encode(event)
        if self._state < _STARTING:
            self._hurry()
        self._hurried = True
        answer: asyncio.Future[MetricEvent] = self._loop.create_future()
        if self.backlog.has_room():
            self.backlog.add(row, event, answer, monotonic())
        elif self._settings.when_full == "wait":
            self.backlog.outside.append(Blocked(row, event, answer, monotonic()))
        else:
            raise self._full()
        return answer

    def offer(self, event: MetricEvent) -> bool:
        """Write the event soon; return False where it was dropped instead."""
        if self._closed:
            raise _closed()
        if not self.backlog.has_room():
            if self._settings.when_full != "drop":
                raise self._full()
            self._drop("event")
            return False
        self.backlog.add(self._encode(event), event, None, monotonic())
        if self._state == _IDLE:
            self._delay()
        return True

    def enqueue(self, exposure: Exposure) -> None:
        """Write the exposure soon. One that is lost is written when the unit comes again, or with its events."""
        if self._closed:
            raise _closed()
        if not self.backlog.has_room():
            self._drop("exposure")
            self._owed = True
            return
        self.backlog.add_exposure(exposure)
        if self._state == _IDLE:
            self._delay()

    async def flush(self, timeout: float | None = None) -> None:
        """Return when the rows that have come in so far are settled, however many come in meanwhile.

        Raises `StoreUnavailableError` after `timeout` seconds (None: the patience of the settings); the rows stay
        in the queue.
        """
        if not self.backlog:
            return
        limit = self._settings.patience_seconds if timeout is None else timeout
        settled = asyncio.get_running_loop().create_future()
        self._flushes.append((self._settled + len(self.backlog), settled))
        self._hurry()
        try:
            async with asyncio.timeout(limit):
                await settled
        except TimeoutError:
            raise StoreUnavailableError(
                f"{self.backlog.counted()} not written after {limit:g} s{self._cause()}; "
                "they stay in the queue and are written when the store is back"
            ) from self._away

    async def close(self) -> None:
        """Write what is queued; afterwards nothing is taken any more.

        Raises `StoreUnavailableError` where the store has been away for all of the patience, naming what is lost.
        """
        self._closed = True
        self._let_in(everybody=True)
        deadline = monotonic() + self._settings.patience_seconds
        while self.backlog:
            try:
                await self.flush(max(0.0, deadline - monotonic()))
            except StoreUnavailableError:
                raise self._give_up() from self._away
        self._cancel_handles()

    def stats(self) -> QueueStats:
        return QueueStats(
            queued=len(self.backlog),
            queued_bytes=self.backlog.bytes,
            blocked=len(self.backlog.outside),
            oldest_seconds=self.backlog.oldest_seconds(),
            written=self._written,
            batches=self._batches,
            dropped=self._dropped,
            refused=self._refused,
            away=None if self._away is None else str(self._away),
        )

    def after_fork_in_child(self) -> None:
        """Begin anew: what is queued is the parent's to write."""
        # a child that goes on in the loop of its parent would still come to them
        self._cancel_handles()
        self.backlog.forget()
        self._start_over()

    def _hurry(self) -> None:
        self._hurried = True
        if self._state < _STARTING:
            self._cancel_next()
            self._state = _STARTING
            self._loop = asyncio.get_running_loop()
            # not at once: the other callers that are ready in this step of the loop add their rows first
            self._next = self._loop.call_soon(self._start)

    def _delay(self) -> None:
        self._state = _DELAYED
        self._loop = asyncio.get_running_loop()
        self._next = self._loop.call_later(self._settings.delay_seconds, self._start)

    def _cancel_next(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _cancel_handles(self) -> None:
        self._cancel_next()
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def _start(self) -> None:
        self._next = None
        batch = self.backlog.take()
        self._hurried = self._hurried and bool(self.backlog.coming)
        self._state = _WRITING
        self._attempt = asyncio.ensure_future(self._commit(batch))
        self._attempt.add_done_callback(self._ended)
        if self._look is None:
            self._look_again_later(0)

    def _ended(self, attempt: asyncio.Future[BatchOutcome]) -> None:
        error = None if attempt.cancelled() else attempt.exception()
        if attempt is not self._attempt:
            return  # closing has given it up, or it is the parent's of a fork
        self._state = _IDLE
        if attempt.cancelled():
            # the loop is ending, and the rows are still here for `close`; unless somebody goes on waiting for them
            if any(answer is not None and not answer.done() for answer in self._waiting()):
                self._hurry()
            return
        if error is None:
            self._take_answer(attempt.result())
        elif isinstance(error, StoreUnavailableError) and error.passing:
            self._wait_for_the_store(error)
            return
        else:
            self._refuse(error if isinstance(error, StoreError) else _unforeseen(error))
        self._go_on()

    def _go_on(self) -> None:
        self._let_in()
        while self._flushes and self._flushes[0][0] <= self._settled:
            _, settled = self._flushes.pop(0)
            if not settled.done():
                settled.set_result(None)
        if not self.backlog:
            self._hurried = False
        elif self._hurried or self._flushes:
            self._hurry()
        else:
            self._delay()

    def _waiting(self) -> list[asyncio.Future[Any] | None]:
        """Return what everybody waits for whose row is in the queue, or who flushes it."""
        flushes = [settled for _, settled in self._flushes]
        return [*self.backlog.batch.answers, *self.backlog.coming.answers, *flushes]

    def _let_in(self, *, everybody: bool = False) -> None:
        outside = self.backlog.outside
        if not self._told_full and not outside:
            return
        while outside and (everybody or self.backlog.has_room()):
            blocked = outside.popleft()
            if blocked.answer is not None and not blocked.answer.done():
                self.backlog.add(*blocked)
                self._hurried = True
        if self._told_full and self.backlog.has_room():
            self._told_full = False
            if self._owed:
                self._owed = False
                self._on_refusal()

    def _take_answer(self, outcome: BatchOutcome) -> None:
        if self._away is not None:
            logger.warning("the store is back after %d attempts", self._failures)
            self._away, self._failures = None, 0
        self._batches += 1
        self._written += len(self.backlog.batch) - len(outcome.conflicts)
        self._refused += len(outcome.conflicts)
        settled = self.backlog.settle()
        self._settled += len(settled)
        tell(settled, outcome)

    def _refuse(self, error: StoreError) -> None:
        refused = self.backlog.settle()
        self._settled += len(refused)
        self._refused += len(refused)
        reject(refused.answers, error)
        if refused.exposures or None in refused.answers:
            logger.warning("%s could not be written: %s", refused.counted(), error)
        if refused.exposures:
            self._on_refusal()

    def _wait_for_the_store(self, error: StoreUnavailableError) -> None:
        if self._away is None:
            logger.warning("%s wait until the store is back: %s", self.backlog.counted(), error)
        self._away = error
        self._failures += 1
        self._reject_the_impatient(self._settings.patience_seconds)
        longest = min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(self._failures, 10))
        # at a random moment, so that processes that lost the store together do not come back together
        pause = random.uniform(longest / 2, longest)  # noqa: S311 - no secret
        self._state = _AWAY
        self._next = self._loop.call_later(pause, self._start)

    def _look_again_later(self, times: int) -> None:
        patience = max(self._settings.patience_seconds, SHORTEST_PATIENCE_SECONDS)
        self._look = self._loop.call_later(
            patience / LOOKS, self._look_who_waits, patience, self._attempt, times
        )

    def _look_who_waits(
        self, patience: float, attempt: asyncio.Future[BatchOutcome] | None, times: int
    ) -> None:
        """Let nobody wait for an attempt that neither fails nor succeeds, and has been seen `times` times."""
        self._look = None
        # the clock alone would tell of a process that was stopped meanwhile that it had waited
        times = times + 1 if attempt is self._attempt else 0
        if times >= LOOKS:
            self._reject_the_impatient(patience)
        if self.backlog:
            self._look_again_later(times)

    def _reject_the_impatient(self, patience: float) -> None:
        before = monotonic() - patience
        reject(
            self.backlog.batch.late(before) + self.backlog.coming.late(before),
            StoreUnavailableError(
                f"the event is not stored yet after {patience:g} s{self._cause()}; it stays in the queue and is "
                "written when the store is back; tell it again only with the same event_id"
            ),
        )
        outside = self.backlog.outside
        while outside and outside[0].since <= before:
            reject([outside.popleft().answer], self._full())

    def _full(self) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"the queue is full with {len(self.backlog)} events and exposures, {self.backlog.bytes} bytes"
            f"{self._cause()}; the event was not taken: try again later, or open the store with larger QueueSettings"
        )

    def _drop(self, what: str) -> None:
        self._dropped += 1
        if not self._told_full:
            self._told_full = True
            logger.warning(
                "dropping every %s that comes until there is room: the queue is full with %d rows%s; "
                "%d have been dropped so far",
                what,
                len(self.backlog),
                self._cause(),
                self._dropped,
            )

    def _give_up(self) -> StoreUnavailableError:
        """Let go of what is queued, so that nothing is tried any more, and return what is to be said of it."""
        error = StoreUnavailableError(
            f"closed, but {self.backlog.counted()} could not be written within "
            f"{self._settings.patience_seconds:g} s{self._cause()}"
        )
        logger.error("%s", error)
        reject(self._waiting(), error)
        self._cancel_handles()
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()
        self._dropped += len(self.backlog)
        self.backlog.forget()
        return error

    def _cause(self) -> str:
        return "" if self._away is None else f": {self._away}"


def _closed() -> StoreUnavailableError:
    return StoreUnavailableError("the store is closed; open it again to record")


def _unforeseen(error: BaseException) -> StoreError:
    refusal = StoreError(f"the events could not be written: {error!r}")
    refusal.__cause__ = error
    return refusal
