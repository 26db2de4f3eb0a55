"""A provider on this machine that misbehaves by script: each request takes the next fault, and requests beyond the
script are answered. How it speaks when all is well is `examples/local_provider.py`.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from examples.local_provider import (
    ANTHROPIC_USAGE,
    OPENAI_USAGE,
    RESPONSES_USAGE,
    Asked,
    LocalProvider,
    event_of,
    running,
    write_body,
    write_chunk,
    write_stream_head,
)

__all__ = [
    "ANTHROPIC_USAGE",
    "OPENAI_USAGE",
    "RESPONSES_USAGE",
    "Asked",
    "Body",
    "Cut",
    "ErrorEvent",
    "Hang",
    "LlmServer",
    "Status",
    "running",
    "running_beside",
]


@dataclass(frozen=True)
class Status:
    """An error of HTTP."""

    code: int
    retry_after: str | None = None
    message: str = "not now"


@dataclass(frozen=True)
class Body:
    """A 200 whose body is this, whatever was asked."""

    content: bytes


@dataclass(frozen=True)
class Hang:
    """No answer, until the client goes away; of a stream, after so many events."""

    after_events: int | None = None


@dataclass(frozen=True)
class Cut:
    """The connection breaks after so many bytes of the body; or, if `clean`, the body ends there."""

    after_bytes: int
    clean: bool = False


@dataclass(frozen=True)
class ErrorEvent:
    """A stream that reports an error after so many events of a 200."""

    after_events: int
    kind: str = "overloaded_error"


Fault = Status | Body | Hang | Cut | ErrorEvent | None


@dataclass
class LlmServer(LocalProvider):
    """A provider with a script of faults."""

    script: deque[Fault] = field(default_factory=deque)
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by every request."""

    async def respond(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        self.heard.set()
        fault = self.script.popleft() if self.script else None
        if fault is None:
            return await super().respond(asked, reader, writer)
        streamed = bool(asked.body.get("stream"))
        match fault:
            case Status():
                write_body(writer, _error(fault, asked), status=fault.code, retry_after=fault.retry_after)
            case Body():
                write_body(writer, fault.content)
            case Hang(after_events=None):
                await reader.read()
                return False
            case Hang() | Cut() | ErrorEvent() if streamed:
                return await self._stream(asked, fault, reader, writer)
            case Cut():
                content = json.dumps(self.reply(asked)).encode()
                write_body(writer, content[: fault.after_bytes], length=len(content))
                return False
            case _:
                return await super().respond(asked, reader, writer)
        await writer.drain()
        return True

    async def _stream(
        self, asked: Asked, fault: Fault, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        events = self.events(asked)
        match fault:
            case Hang(after_events=count):
                events = events[:count]
            case ErrorEvent():
                events = [*events[: fault.after_events], _error_event(asked, fault.kind)]
        write_stream_head(writer)
        if isinstance(fault, Cut):
            write_chunk(writer, b"".join(events)[: fault.after_bytes])
            if fault.clean:
                writer.write(b"0\r\n\r\n")
            await writer.drain()
            return fault.clean
        for event in events:
            write_chunk(writer, event)
            await writer.drain()
        if isinstance(fault, Hang):
            await reader.read()
            return False
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


def _error(fault: Status, asked: Asked) -> bytes:
    error = {"type": "error_of_the_script", "message": fault.message}
    document = {"type": "error", "error": error} if asked.api == "messages" else {"error": error}
    return json.dumps(document).encode()


def _error_event(asked: Asked, kind: str) -> bytes:
    error = {"type": kind, "message": "broken"}
    match asked.api:
        case "messages":
            return event_of({"type": "error", "error": error}, name="error")
        case "responses":
            return event_of(
                {"type": "error", "code": kind, "message": "broken", "sequence_number": 9}, name="error"
            )
        case _:
            return event_of({"error": error})


@contextmanager
def running_beside(server: LlmServer) -> Iterator[LlmServer]:
    """Run the server in a thread with a loop of its own, for code that runs its own loop."""
    loop = asyncio.new_event_loop()
    stopping = asyncio.Event()
    ready = threading.Event()

    async def serve() -> None:
        async with running(server):
            ready.set()
            await stopping.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join(10)
        loop.close()
