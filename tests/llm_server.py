"""A provider on this machine that speaks Chat Completions, Responses and Messages, whole and streamed.

It answers by a function from what was asked to a text, and misbehaves by script: each request takes the next
fault, and requests beyond the script are answered. Only the standard library is needed, so an example can run it.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

OPENAI_USAGE: Mapping[str, Any] = {
    "prompt_tokens": 120,
    "completion_tokens": 30,
    "total_tokens": 150,
    "prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 5},
    "completion_tokens_details": {"reasoning_tokens": 12},
}
RESPONSES_USAGE: Mapping[str, Any] = {
    "input_tokens": 120,
    "output_tokens": 30,
    "total_tokens": 150,
    "input_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 5},
    "output_tokens_details": {"reasoning_tokens": 12},
}
ANTHROPIC_USAGE: Mapping[str, Any] = {
    "input_tokens": 15,
    "output_tokens": 30,
    "cache_read_input_tokens": 100,
    "cache_creation_input_tokens": 5,
    "cache_creation": {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 0},
    "output_tokens_details": {"thinking_tokens": 12},
}


class Asked(NamedTuple):
    """One request."""

    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: Any

    @property
    def api(self) -> str:
        return self.path.rpartition("/")[2].replace("completions", "chat")

    @property
    def messages(self) -> list[tuple[str, str]]:
        """Role and text of each message, in whichever protocol; Anthropic's `system` goes first."""
        turns = self.body.get("messages", self.body.get("input", []))
        system = self.body.get("system")
        found = [] if system is None else [{"role": "system", "content": system}]
        return [(turn["role"], _text(turn["content"])) for turn in [*found, *turns]]


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


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
class LlmServer:
    """What it was asked, and what it answers."""

    answer: Callable[[Asked], str] = lambda asked: "Hello there."
    usage: Mapping[str, Mapping[str, Any] | None] = field(
        default_factory=lambda: {
            "chat": OPENAI_USAGE,
            "responses": RESPONSES_USAGE,
            "messages": ANTHROPIC_USAGE,
        }
    )
    script: deque[Fault] = field(default_factory=deque)
    asked: list[Asked] = field(default_factory=list)
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by every request."""
    url: str = ""

    @property
    def openai(self) -> dict[str, Any]:
        """Arguments of OpenAI's client."""
        return {"base_url": f"{self.url}/v1", "api_key": "a-key"}

    @property
    def anthropic(self) -> dict[str, Any]:
        """Arguments of Anthropic's client."""
        return {"base_url": self.url, "api_key": "a-key"}

    def events(self, asked: Asked) -> list[bytes]:
        """Return the events of a streamed answer."""
        return list(_EVENTS[asked.api](self.answer(asked), asked.body, self.usage[asked.api]))

    def reply(self, asked: Asked) -> Any:
        return _REPLIES[asked.api](self.answer(asked), asked.body.get("model"), self.usage[asked.api])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while (asked := await _read(reader)) is not None:
                self.asked.append(asked)
                self.heard.set()
                fault = self.script.popleft() if self.script else None
                if not await self._respond(asked, fault, reader, writer):
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away, which is what many tests are about
        finally:
            writer.close()

    async def _respond(
        self, asked: Asked, fault: Fault, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Return whether the connection can be used again."""
        streamed = bool(asked.body.get("stream"))
        match fault:
            case Status():
                _write(writer, _error(fault, asked), status=fault.code, retry_after=fault.retry_after)
            case Body():
                _write(writer, fault.content)
            case Hang(after_events=None):
                await reader.read()
                return False
            case _ if streamed:
                return await self._stream(asked, fault, reader, writer)
            case Cut():
                content = json.dumps(self.reply(asked)).encode()
                _write(writer, content[: fault.after_bytes], length=len(content))
                return False
            case _:
                _write(writer, json.dumps(self.reply(asked)).encode())
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
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        if isinstance(fault, Cut):
            _write_chunk(writer, b"".join(events)[: fault.after_bytes])
            if fault.clean:
                writer.write(b"0\r\n\r\n")
            await writer.drain()
            return fault.clean
        for event in events:
            _write_chunk(writer, event)
            await writer.drain()
        if isinstance(fault, Hang):
            await reader.read()
            return False
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


@asynccontextmanager
async def running(server: LlmServer) -> AsyncIterator[LlmServer]:
    """Run the server on a free port of loopback; leaving ends its connections."""
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await server.serve(reader, writer)
        except asyncio.CancelledError:
            pass  # the task is asyncio's own, which reports a cancelled one as an error
        finally:
            connections.discard(task)

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()
        ending = list(connections)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.split("\r\n")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
    }
    content = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(first.split(" ")[1], headers, json.loads(content))


def _write(
    writer: asyncio.StreamWriter,
    content: bytes,
    *,
    status: int = 200,
    retry_after: str | None = None,
    length: int | None = None,
) -> None:
    later = "" if retry_after is None else f"retry-after: {retry_after}\r\n"
    writer.write(
        f"HTTP/1.1 {status} Status\r\nContent-Type: application/json\r\n{later}"
        f"Content-Length: {len(content) if length is None else length}\r\n\r\n".encode()
        + content
    )


def _write_chunk(writer: asyncio.StreamWriter, content: bytes) -> None:
    if content:
        writer.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")


def _error(fault: Status, asked: Asked) -> bytes:
    error = {"type": "error_of_the_script", "message": fault.message}
    document = {"type": "error", "error": error} if asked.api == "messages" else {"error": error}
    return json.dumps(document).encode()


def _error_event(asked: Asked, kind: str) -> bytes:
    error = {"type": kind, "message": "broken"}
    match asked.api:
        case "messages":
            return _event({"type": "error", "error": error}, name="error")
        case "responses":
            return _event(
                {"type": "error", "code": kind, "message": "broken", "sequence_number": 9}, name="error"
            )
        case _:
            return _event({"error": error})


def _event(document: Any, *, name: str | None = None) -> bytes:
    return (
        f"event: {name}\n" if name else ""
    ).encode() + f"data: {json.dumps(document, separators=(',', ':'))}\n\n".encode()


def _pieces(text: str) -> list[str]:
    words = text.split(" ")
    return [word if index == 0 else f" {word}" for index, word in enumerate(words)]


def _chat(text: str, model: Any, usage: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "service_tier": "default",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": usage,
    }


def _chat_events(text: str, body: Any, usage: Any) -> Iterator[bytes]:
    def chunk(choices: Iterable[Any], **more: Any) -> bytes:
        head = {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": body.get("model"),
        }
        return _event({**head, "choices": list(choices), **more})

    yield chunk([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
    for piece in _pieces(text):
        yield chunk([{"index": 0, "delta": {"content": piece}, "finish_reason": None}])
    yield chunk([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    if (body.get("stream_options") or {}).get("include_usage"):
        yield chunk([], usage=usage)
    yield b"data: [DONE]\n\n"


def _response(text: str, model: Any, usage: Any) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [part],
    }
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 0,
        "status": "completed",
        "model": model,
        "output": [message],
        "usage": usage,
    }


def _response_events(text: str, body: Any, usage: Any) -> Iterator[bytes]:
    whole = _response(text, body.get("model"), usage)
    number = iter(range(1000))

    def event(kind: str, **more: Any) -> bytes:
        return _event({"type": kind, "sequence_number": next(number), **more}, name=kind)

    yield event("response.created", response={**whole, "status": "in_progress", "output": [], "usage": None})
    for piece in _pieces(text):
        place = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "logprobs": []}
        yield event("response.output_text.delta", delta=piece, **place)
    yield event("response.completed", response=whole)


def _message(text: str, model: Any, usage: Any) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": usage,
    }


def _message_events(text: str, body: Any, usage: Any) -> Iterator[bytes]:
    def event(kind: str, **more: Any) -> bytes:
        return _event({"type": kind, **more}, name=kind)

    at_first = None if usage is None else {**usage, "output_tokens": 1}
    started = {**_message(text, body.get("model"), at_first), "content": [], "stop_reason": None}
    yield event("message_start", message=started)
    yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    yield event("ping")
    for piece in _pieces(text):
        yield event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})
    yield event("content_block_stop", index=0)
    last = {name: count for name, count in (usage or {}).items() if name.startswith("output")}
    yield event("message_delta", delta={"stop_reason": "end_turn"}, usage=last)
    yield event("message_stop")


_REPLIES = {"chat": _chat, "responses": _response, "messages": _message}
_EVENTS = {"chat": _chat_events, "responses": _response_events, "messages": _message_events}
