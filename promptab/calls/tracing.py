"""Spans of calls: what a tracer is asked to do while a call goes on, and a guard around whatever it raises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from promptab.calls.finished import FinishedCall, Subject
from promptab.calls.request import Request


class CallSpan(Protocol):
    """What a tracer keeps of one call."""

    def enter(self) -> None:
        """What the running task does from here on, such as its HTTP requests, is part of the call."""

    def leave(self) -> None:
        """What the running task does from here on is not; the call itself may go on, as a stream does.

        It may be another task than the one that entered: then nothing of this one changes.
        """

    def end(self, call: FinishedCall) -> None:
        """The call has ended; possibly in another task."""


class CallTracer(Protocol):
    """Opens a span for every call, such as one of OpenTelemetry.

    It works in the thread of the event loop, so it returns at once. What it raises is logged and counted, and
    reaches nobody.
    """

    def begin(self, subject: Subject, request: Request) -> CallSpan | None:
        """A call begins in the running task; None where nobody wants to know of it."""


class TracedCall:
    """The span of one call, if a tracer wants one."""

    def __init__(
        self, tracer: CallTracer, subject: Subject, failed: Callable[[object, Exception], None]
    ) -> None:
        """`failed` is told which tracer raised, and what."""
        self._tracer = tracer
        self._subject = subject
        self._failed = failed
        self._span: CallSpan | None = None
        self._begun = False

    def enter(self, request: Request) -> None:
        self._begin(request)
        if (span := self._span) is not None:
            self._guarded(span.enter)

    def leave(self) -> None:
        if (span := self._span) is not None:
            self._guarded(span.leave)

    def end(self, request: Request, call: FinishedCall) -> None:
        # a prompt that did not render was never sent, and has a span all the same
        self._begin(request)
        if (span := self._span) is not None:
            self._guarded(lambda: span.end(call))

    def _begin(self, request: Request) -> None:
        if not self._begun:
            self._begun = True
            self._guarded(lambda: self._open(request))

    def _open(self, request: Request) -> None:
        self._span = self._tracer.begin(self._subject, request)

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001 - anything: a tracer is no part of the call
            self._failed(self._tracer, error)


class UntracedCall:
    """The span of a call that nobody traces."""

    def enter(self, request: Request) -> None: ...

    def leave(self) -> None: ...

    def end(self, request: Request, call: FinishedCall) -> None: ...


UNTRACED = UntracedCall()
