"""An endpoint on this machine that takes webhooks, and misbehaves by script: each connection takes the next fault, and
those beyond the script are answered with 204.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Got(NamedTuple):
    """A request that has arrived whole."""

    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """A head, and nothing after it."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Late:
    """A 204 after so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Hang:
    """No answer, until the client goes away."""


@dataclass(frozen=True)
class Reset:
    """The connection is reset once the request has arrived."""


@dataclass(frozen=True)
class Drip:
    """A head that never ends: a letter at a time."""


@dataclass(frozen=True)
class Endless:
    """A head (or, if `body`, a 200 with a body) of as many bytes as the client takes."""

    body: bool


@dataclass(frozen=True)
class Babble:
    """An answer that is no HTTP."""


Fault = Answer | Late | Hang | Reset | Drip | Endless | Babble


@dataclass
class WebhookServer:
    script: deque[Fault] = field(default_factory=deque)
    always: Fault = Answer(204)
    """What those connections get that the script does not reach to."""
    got: list[Got] = field(default_factory=list)
    connections: int = 0
    bytes_taken: int = 0
    """Of endless answers, what the client has taken at least."""
    at_once: int = 0
    most_at_once: int = 0
    port: int = 0

    def url(self, path: str = "/hook", *, scheme: str = "http", host: str = "127.0.0.1") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                self.got.append(await _read(reader))
                await self._respond(self.script.popleft() if self.script else self.always, reader, writer)
        finally:
            self.at_once -= 1
            writer.close()

    async def _respond(
        self, fault: Fault, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        match fault:
            case Answer(status, headers):
                lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
                writer.write(f"HTTP/1.1 {status} So\r\ncontent-length: 0\r\n{lines}\r\n".encode())
            case Late(seconds):
                await asyncio.sleep(seconds)
                writer.write(b"HTTP/1.1 204 So\r\n\r\n")
            case Hang():
                await reader.read()
            case Reset():
                connection: socket.socket = writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            case Drip():
                for letter in "HTTP/1.1 200 OK\r\nx: " + "y" * 10_000:
                    writer.write(letter.encode())
                    await writer.drain()
                    await asyncio.sleep(0.05)
            case Endless(body):
                head = "HTTP/1.1 200 OK\r\n" + ("content-length: 10000000000\r\n\r\n" if body else "")
                writer.write(head.encode())
                while True:
                    writer.write(b"x-more: " + b"y" * 8_000 + b"\r\n")
                    await writer.drain()
                    self.bytes_taken += 8_000
            case Babble():
                writer.write(b"220 mail.example.com ESMTP\r\n")
        await writer.drain()


async def _read(reader: asyncio.StreamReader) -> Got:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.split("\r\n")[:-2]
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Got(first.split(" ")[1], headers, await reader.readexactly(int(headers["content-length"])))


@asynccontextmanager
async def listening(
    server: WebhookServer, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[WebhookServer]:
    """Let the server listen on a port of its own."""
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(server.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listener = await asyncio.start_server(accept, host, 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await listener.wait_closed()
