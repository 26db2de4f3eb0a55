"""Where finished calls go: one event each into the store, beside the caller's way, and to whoever observes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from contextvars import Context
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple, Protocol

from promptab.calls.finished import CallObserver, FinishedCall, Subject
from promptab.calls.pricing import PriceBook
from promptab.calls.tracing import UNTRACED, CallTracer, TracedCall, UntracedCall
from promptab.errors import NeedsStoreError
from promptab.models import MetricEvent

logger = logging.getLogger("promptab.calls")


class Recorder(Protocol):
    """What a `CallLog` needs of a `MetricsCollector`."""

    async def record_event(self, *args: Any, **fields: Any) -> MetricEvent: ...

    def record_nowait(self, *args: Any, **fields: Any) -> bool: ...

    async def flush(self) -> None: ...


class CallStats(NamedTuple):
    """What has become of the calls of this process so far."""

    finished: int
    pending: int
    """Events that are not in the store's queue yet; of those that are, `lab.metrics.stats` has the count."""
    not_recorded: int
    """Events that did not get into the queue; each is in the log with its reason."""
    observer_errors: int
    """Raised by observers or by the tracer."""


class CallLog:
    """Takes finished calls without making their callers wait, and loses none silently.

    `observers` are told of each call, `tracer` opens a span for each; `prices` may be replaced. An event is in the
    queue a turn of the event loop after the call returns, and in the store a few milliseconds later, or when that is
    back. Closing the lab waits for that.
    """

    def __init__(self, recorder: Recorder, clock: Callable[[], datetime]) -> None:
        self.clock = clock
        self.observers: list[CallObserver] = []
        self.tracer: CallTracer | None = None
        self._recorder = recorder
        self._prices: PriceBook | None = None
        self._unsent: list[FinishedCall] = []
        self._pending: dict[str, asyncio.Task[MetricEvent]] = {}
        self._finished = self._not_recorded = self._observer_errors = 0

    @property
    def prices(self) -> PriceBook:
        if self._prices is None:
            self._prices = PriceBook.of_environment()
        return self._prices

    @prices.setter
    def prices(self, prices: PriceBook) -> None:
        self._prices = prices

    def stats(self) -> CallStats:
        return CallStats(
            self._finished, len(self._unsent) + len(self._pending), self._not_recorded, self._observer_errors
        )

    async def flush(self) -> None:
        """Return when the event of every call that has finished so far is in the store, or was refused.

        Raises as `MetricsCollector.flush` does while the store is away.
        """
        await self.settle()
        await self._recorder.flush()

    async def settle(self) -> None:
        """Return when all these events are in the queue at least, or were refused."""
        self._send()
        while self._pending:
            await asyncio.wait(self._pending.values())
            # the callbacks that count them run in the next turn of the loop
            await asyncio.sleep(0)

    def span(self, subject: Subject) -> TracedCall | UntracedCall:
        """Return the span of a call that is about to begin."""
        return UNTRACED if self.tracer is None else TracedCall(self.tracer, subject, self._watcher_failed)

    def add(self, call: FinishedCall, context: Context) -> None:
        """Record the call, and tell the observers in the context that it began in. Never raises for either."""
        self._finished += 1
        if not self._unsent:
            # once the caller goes on: what it takes to queue an event is not the caller's to wait for
            asyncio.get_running_loop().call_soon(self._send)
        self._unsent.append(call)
        self._tell(lambda observer: context.run(observer.call_finished, call))

    def add_feedback(self, feedback: MetricEvent, call: MetricEvent) -> None:
        """Tell the observers. Never raises."""
        self._tell(lambda observer: observer.feedback_given(feedback, call))

    def _tell(self, what: Callable[[CallObserver], None]) -> None:
        for observer in self.observers:
            try:
                what(observer)
            except Exception as error:  # noqa: BLE001 - anything: an observer is no part of the call
                self._watcher_failed(observer, error)

    def _watcher_failed(self, watcher: object, error: Exception) -> None:
        self._observer_errors += 1
        logger.error("an observer of calls failed: %s", type(watcher).__name__, exc_info=error)

    def _send(self) -> None:
        """Put events into the queue; one whose unit has to be looked up first goes there when that is done."""
        calls, self._unsent = self._unsent, []
        for call in calls:
            fields = _fields(call)
            try:
                if not self._recorder.record_nowait(**fields):
                    self._lost(call.call_id, "the queue was full")
            except NeedsStoreError:
                task = asyncio.get_running_loop().create_task(self._recorder.record_event(**fields))
                self._pending[call.call_id] = task
                task.add_done_callback(partial(self._settled, call.call_id))
            except Exception as error:  # noqa: BLE001 - anything: the record is no part of the call
                self._lost(call.call_id, f"{type(error).__name__}: {error}")

    def _settled(self, call_id: str, task: asyncio.Task[MetricEvent]) -> None:
        self._pending.pop(call_id, None)
        error: BaseException | None = None
        with contextlib.suppress(asyncio.CancelledError):
            error = task.exception()
        if error is not None or task.cancelled():
            self._lost(
                call_id, "the program ended first" if error is None else f"{type(error).__name__}: {error}"
            )

    def _lost(self, call_id: str, reason: str) -> None:
        self._not_recorded += 1
        logger.error("call %s was not recorded: %s", call_id, reason)


def _fields(call: FinishedCall) -> dict[str, Any]:
    """Return the arguments of `MetricsCollector.record_event`."""
    return {
        **call.subject.place,
        "success": call.success,
        "response_time": call.seconds,
        "tokens": call.answer.usage.tokens,
        "metadata": call.event_metadata(),
        "cost": call.cost,
        "metrics": call.metrics,
        "event_id": call.call_id,
        "timestamp": call.started_at,
    }
