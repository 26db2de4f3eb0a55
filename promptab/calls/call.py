"""One call of a model, from its start to the one event that says what came of it."""

from __future__ import annotations

import contextvars
import time
from collections.abc import AsyncIterable, Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from promptab.calls.answer import Answer, Api
from promptab.calls.apis import api_of
from promptab.calls.failures import Failure, attempts_by_header, attempts_of, failure_of
from promptab.calls.finished import FinishedCall, Status, Subject
from promptab.calls.log import CallLog
from promptab.calls.pricing import Asked
from promptab.calls.request import UNKNOWN_REQUEST, Request
from promptab.calls.stream import ObservedStream
from promptab.checks import check_count, check_json_object
from promptab.errors import StateError
from promptab.event_ids import new_event_id

T = TypeVar("T")


class Call:
    """A tracked call: `async with choice.call() as call`, and in it `call.observe(response)`.

    Leaving the block records one event, whatever happened in it: an exception that comes before the response is
    the call's failure, and goes on to the caller unchanged. What comes after a whole response is not the call's.
    """

    def __init__(
        self,
        log: CallLog,
        subject: Subject,
        request: Request = UNKNOWN_REQUEST,
        metadata: Mapping[str, Any] | None = None,
        *,
        ticks: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._log = log
        self._subject = subject
        self._request = request
        self._metadata = {} if metadata is None else check_json_object("metadata", metadata)
        self._ticks = ticks
        self._context = contextvars.copy_context()
        self._started_at = log.clock()
        self._call_id = new_event_id(self._started_at)
        self._began: float | None = None
        self._seconds: float | None = None
        self._first: float | None = None
        self._api = request.api
        self.attempts: int | None = None
        """Requests that the client sent, retries included, as far as somebody said."""
        self._answer: Answer | None = None
        self._stream: ObservedStream[Any] | None = None
        self._failure: Failure | None = None
        self._finished: FinishedCall | None = None
        self._span = log.span(subject)

    @property
    def call_id(self) -> str:
        """The id of the event, which is what `lab.feedback` takes."""
        return self._call_id

    @property
    def subject(self) -> Subject:
        return self._subject

    @property
    def finished(self) -> FinishedCall | None:
        """What came of it; None until it has ended."""
        return self._finished

    def fallback(self) -> Call:
        """Return the call that stands in for this one: it counts for no version and no variant."""
        subject = self._subject.fallback
        return Call(self._log, subject, metadata=self._metadata, ticks=self._ticks)

    @contextmanager
    def sending(self, request: Request) -> Iterator[None]:
        """Send this within; the time of the call counts from here."""
        self._request, self._api = request, request.api
        self._span.enter(request)
        self._began = self._ticks()
        try:
            yield
        finally:
            self._span.leave()

    @overload
    def observe(self, response: AsyncIterable[T], *, attempts: int | None = None) -> ObservedStream[T]: ...

    @overload
    def observe(self, response: T, *, attempts: int | None = None) -> T: ...

    def observe(self, response: Any, *, attempts: int | None = None) -> Any:
        """Take note of the response, and return it; of a stream return one to read in its place.

        `attempts` is how many requests it took, where you know: `with_raw_response` says `retries_taken`, which
        is one less. Raises `StateError` for a second response: begin a call for each.
        """
        if attempts is not None:
            self.attempts = check_count("attempts", attempts, low=1)
        if isinstance(response, AsyncIterable):
            return self.observe_stream(response)
        self._check_open()
        self._seconds = self._elapsed()
        self._api = self._api or api_of(response)
        self._answer = Answer() if self._api is None else self._api.read(response)
        self._failure = self._answer.failure
        return response

    def observe_stream(self, stream: AsyncIterable[T]) -> ObservedStream[T]:
        """As `observe`, for what is known to be a stream."""
        self._check_open()
        if self.attempts is None:
            request = getattr(getattr(stream, "response", None), "request", None)
            self.attempts = attempts_by_header(request)
        self._request = self._request._replace(streamed=True)
        observed = self._stream = ObservedStream(stream, self, self._api)
        return observed

    def fail(self, error: BaseException) -> None:
        """Say what the client raised. The first failure counts, and none that comes after a whole answer."""
        if self._finished is not None or self._failure is not None or self._answer is not None:
            return
        self._failure = failure_of(error)
        if self._failure.kind != "prompt":
            self._seconds = self._elapsed()
        if self.attempts is None:
            self.attempts = attempts_of(error)

    def finish(self) -> FinishedCall:
        """Record what came of it; a second time does nothing."""
        if self._finished is None:
            if self._stream is not None:
                self._answer = self._stream.answer
            status = self._status()
            self._finished = self._summary(status, self._answer or Answer())
            self._span.end(self._request, self._finished)
            self._log.add(self._finished, self._context)
        return self._finished

    async def begin(self) -> None:
        """Start the clock. The first call of a process loads the prices before."""
        await self._log.prices.ready()
        self._began = self._ticks()

    async def __aenter__(self) -> Self:
        await self.begin()
        # what is sent in the block, and by whom, is the caller's affair
        self._span.enter(self._request)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._span.leave()
        if self._stream is not None:
            if self._finished is None:
                await self._stream.close()
            return
        if error is not None:
            self.fail(error)
        self.finish()

    def first_piece(self) -> None:
        if self._first is None:
            self._first = self._elapsed()

    def stream_ended(self) -> None:
        if self._failure is None and self._stream is not None and self._finished is None:
            self._failure = self._stream.answer.failure
            if self._failure is None and not self._stream.whole:
                self._failure = Failure("truncated")
            self._seconds = self._elapsed()
        self.finish()

    def stream_failed(self, error: BaseException) -> None:
        self.fail(error)
        self.finish()

    def stream_left(self) -> None:
        if self._finished is None and self._stream is not None:
            # who stops after the last piece of the answer has all of it
            self._seconds = self._elapsed()
            self._failure = None if self._stream.whole else Failure("cancelled")
            self._failure = self._stream.answer.failure or self._failure
        self.finish()

    def _check_open(self) -> None:
        if self._answer is not None or self._stream is not None or self._finished is not None:
            raise StateError("this call has its response already; begin another one with choice.call()")

    def _elapsed(self) -> float | None:
        return None if self._began is None else self._ticks() - self._began

    def _status(self) -> Status:
        if self._failure is None:
            return "unobserved" if self._answer is None else "ok"
        if self._failure.kind == "cancelled":
            return "cancelled"
        return "error" if self._first is None else "partial"

    def _summary(self, status: Status, answer: Answer) -> FinishedCall:
        request = self._request
        api = self._api or (None if self._stream is None else self._stream.api)
        return FinishedCall(
            call_id=self._call_id,
            subject=self._subject,
            status=status,
            failure=self._failure,
            started_at=self._started_at,
            seconds=self._seconds if self._seconds is not None or self._failure else self._elapsed(),
            seconds_to_first_token=self._first,
            vendor=None if api is None else api.vendor,
            api=None if api is None else api.name,
            url=request.url,
            model=request.model or answer.model,
            parameters=request.parameters,
            streamed=request.streamed,
            attempts=self.attempts,
            answer=answer,
            cost=self._cost(api, answer),
            metadata=self._metadata,
        )

    def _cost(self, api: Api | None, answer: Answer) -> float | None:
        model = answer.model or self._request.model
        if api is None or model is None:
            return None
        asked = Asked(api.vendor, self._request.url, model, answer.terms)
        return self._log.prices.cost(asked, answer.usage, self._started_at)
