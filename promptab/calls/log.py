"""Where finished calls go: one event each into the store, beside the caller's way, and to whoever observes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from contextvars import Context
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from promptab.calls.finished import CallObserver, FinishedCall, Subject
from promptab.calls.pricing import PriceBook
from promptab.calls.tracing import UNTRACED, CallTracer, TracedCall, UntracedCall
from promptab.measures import TokensInput
from promptab.models import MetricEvent

logger = logging.getLogger("promptab.calls")


class Record(Protocol):
    """`MetricsCollector.record_event`."""

    async def __call__(
        self,
        version_id: str | None,
        success: bool | None = None,  # noqa: FBT001 - as there
        response_time: float | None = None,
        tokens: TokensInput = None,
        user_rating: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        cost: float | None = None,
        metrics: Mapping[str, float] | None = None,
        experiment_id: str | None = None,
        variant: str | None = None,
        user_id: str | int | None = None,
        event_id: str | None = None,
        timestamp: datetime | None = None,
    ) -> MetricEvent: ...


class CallStats(NamedTuple):
    """What has become of the calls of this process so far."""

    finished: int
    pending: int
    """Events that are on their way into the store."""
    not_recorded: int
    """Events that the store did not take; each is in the log with its reason."""
    observer_errors: int
    """Raised by observers or by the tracer."""


class CallLog:
    """Takes finished calls without making their callers wait, and loses none silently.

    `observers` are told of each call, `tracer` opens a span for each; `prices` may be replaced. An event is on its way
    when the call returns, and in the store a few milliseconds later; `flush` waits for that, and so does closing the
    lab.
    """

    def __init__(self, record: Record, clock: Callable[[], datetime]) -> None:
        self.clock = clock
        self.observers: list[CallObserver] = []
        self.tracer: CallTracer | None = None
        self._record = record
        self._prices: PriceBook | None = None
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
        return CallStats(self._finished, len(self._pending), self._not_recorded, self._observer_errors)

    async def flush(self) -> None:
        """Return when every call that has finished so far is in the store, or was refused by it."""
        while self._pending:
            await asyncio.wait(self._pending.values())
            # the callbacks that count them run in the next turn of the loop
            await asyncio.sleep(0)

    async def settle(self, call_id: str) -> None:
        """Return when the event of this call is no longer on its way."""
        if (task := self._pending.get(call_id)) is not None:
            await asyncio.wait([task])

    def span(self, subject: Subject) -> TracedCall | UntracedCall:
        """Return the span of a call that is about to begin."""
        return UNTRACED if self.tracer is None else TracedCall(self.tracer, subject, self._watcher_failed)

    def add(self, call: FinishedCall, context: Context) -> None:
        """Record the call, and tell the observers in the context that it began in. Never raises for either."""
        self._finished += 1
        task = asyncio.get_running_loop().create_task(self._stored(call))
        self._pending[call.call_id] = task
        task.add_done_callback(lambda done: self._settled(call.call_id, done))
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

    async def _stored(self, call: FinishedCall) -> MetricEvent:
        subject = call.subject
        return await self._record(
            subject.version_id,
            call.success,
            call.seconds,
            call.answer.usage.tokens,
            metadata=call.event_metadata(),
            cost=call.cost,
            metrics=call.metrics,
            experiment_id=subject.experiment_id,
            variant=subject.variant,
            user_id=subject.unit,
            event_id=call.call_id,
            timestamp=call.started_at,
        )

    def _settled(self, call_id: str, task: asyncio.Task[MetricEvent]) -> None:
        self._pending.pop(call_id, None)
        error: BaseException | None = None
        with contextlib.suppress(asyncio.CancelledError):
            error = task.exception()
        if error is None and not task.cancelled():
            return
        self._not_recorded += 1
        reason = "the program ended first" if error is None else f"{type(error).__name__}: {error}"
        logger.error("call %s was not recorded: %s", call_id, reason)
