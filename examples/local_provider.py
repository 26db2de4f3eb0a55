"""A provider on this machine, so that the examples run without a key: `--local`.

    async with openai_client(local=True, answer=lambda asked: "Hello there.") as client: ...

It speaks the protocols of OpenAI (Chat Completions, Responses) and Anthropic (Messages), whole and streamed, and
answers by a function from what was asked to a text. What it says of tokens is made up. Only the standard library is
needed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic
    from openai import AsyncOpenAI

Provider = TypeVar("Provider", bound="LocalProvider")

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


@dataclass
class LocalProvider:
    """What it answers, and what it was asked."""

    answer: Callable[[Asked], str] = lambda asked: "Hello there."
    usage: Mapping[str, Mapping[str, Any] | None] = field(
        default_factory=lambda: {
            "chat": OPENAI_USAGE,
            "responses": RESPONSES_USAGE,
            "messages": ANTHROPIC_USAGE,
        }
    )
    asked: list[Asked] = field(default_factory=list)
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
                if not await self.respond(asked, reader, writer):
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away
        finally:
            writer.close()

    async def respond(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Return whether the connection can be used again."""
        if asked.body.get("stream"):
            write_stream_head(writer)
            for event in self.events(asked):
                write_chunk(writer, event)
                await writer.drain()
            writer.write(b"0\r\n\r\n")
        else:
            write_body(writer, json.dumps(self.reply(asked)).encode())
        await writer.drain()
        return True


@asynccontextmanager
async def running(server: Provider) -> AsyncIterator[Provider]:
    """Run the server on a free port of loopback; leaving ends its connections."""
    connections: set[asyncio.Future[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving = asyncio.ensure_future(server.serve(reader, writer))
        connections.add(serving)
        try:
            await serving
        except asyncio.CancelledError:
            pass  # the task around it is asyncio's own, which reports a cancelled one as an error
        finally:
            connections.discard(serving)

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()
        ending = list(connections)
        for serving in ending:
            serving.cancel()
        await asyncio.gather(*ending, return_exceptions=True)


@asynccontextmanager
async def openai_client(*, local: bool, answer: Callable[[Asked], str]) -> AsyncIterator[AsyncOpenAI]:
    """Open OpenAI's client: on a provider of our own that answers so, or with the key in `OPENAI_API_KEY`."""
    from openai import AsyncOpenAI  # noqa: PLC0415 - the examples need one of the two packages

    if not local:
        async with AsyncOpenAI() as client:
            yield client
        return
    async with running(LocalProvider(answer)) as provider, AsyncOpenAI(**provider.openai) as client:
        yield client


@asynccontextmanager
async def anthropic_client(*, local: bool, answer: Callable[[Asked], str]) -> AsyncIterator[AsyncAnthropic]:
    """As `openai_client`, for Anthropic's and the key in `ANTHROPIC_API_KEY`."""
    from anthropic import AsyncAnthropic  # noqa: PLC0415 - as above

    if not local:
        async with AsyncAnthropic() as client:
            yield client
        return
    async with running(LocalProvider(answer)) as provider, AsyncAnthropic(**provider.anthropic) as client:
        yield client


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


def write_body(
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


def write_stream_head(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")


def write_chunk(writer: asyncio.StreamWriter, content: bytes) -> None:
    if content:
        writer.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")


def event_of(document: Any, *, name: str | None = None) -> bytes:
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
        return event_of({**head, "choices": list(choices), **more})

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
        return event_of({"type": kind, "sequence_number": next(number), **more}, name=kind)

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
        return event_of({"type": kind, **more}, name=kind)

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
