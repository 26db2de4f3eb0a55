"""What another process has changed, as PostgreSQL tells it: LISTEN, on a connection kept for it.

Every change that a snapshot shows sends the new revision with its commit. While the connection is there, the last
one heard is the newest; it is read again where nothing has been heard for a while, since a network that is cut
does not say so.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from time import monotonic
from typing import Any

from promptab.errors import StoreError
from promptab.stores.postgres_connecting import Connection, Server, hang_up

CONFIRM_SECONDS = 5.0
"""How long silence counts as no change."""
READ_SECONDS = 2.0


def channel_of(store_id: str) -> str:
    """Return the name under which a store's changes are told; one database may hold several, in schemas."""
    return f"promptab_{store_id}"


class PostgresRevisions:
    """The `Revisions` of a database. Reconnects when it is asked and the connection is gone."""

    def __init__(self, server: Server, *, channel: str, on_change: Callable[[], None]) -> None:
        """`on_change` is called when another process has changed something, or this one."""
        self._server = server
        self._channel = channel
        self._on_change = on_change
        self._process = os.getpid()
        self._connection: Connection | None = None
        self._parents: list[Connection | None] = []
        """Held, as they would be closed otherwise, which is the parent's to do."""
        self._revision = -1
        self._confirmed_at = float("-inf")

    async def current(self) -> int:
        if self._process != os.getpid():
            self._parents.append(self._connection)
            self._process, self._connection = os.getpid(), None
        if self._connection is None or self._connection.is_closed():
            # the server may be another one by now, with a backup in it
            self._revision, self._confirmed_at = -1, float("-inf")
            self._connection = await self._listen()
        if monotonic() - self._confirmed_at > CONFIRM_SECONDS:
            await self._read(self._connection)
        # a loop that was busy has not read yet what came in meanwhile: one turn to find it, and one to hear it
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return self._revision

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and self._process == os.getpid():
            await hang_up(connection)

    async def _listen(self) -> Connection:
        connection = await self._server.connect()
        try:
            with self._server.translated():
                await connection.add_listener(self._channel, self._hear)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _read(self, connection: Connection) -> None:
        began = monotonic()
        try:
            with self._server.translated():
                revision = await connection.fetchval(
                    "SELECT revision FROM promptab_store", timeout=READ_SECONDS
                )
        except BaseException:
            connection.terminate()
            raise
        if revision is None:
            raise StoreError(f"{self._server.url}: the store has lost its revision; restore a backup")
        # a notification that came in while this was read may be of a later one
        self._revision = max(self._revision, int(revision))
        self._confirmed_at = began

    def _hear(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        self._revision = max(self._revision, int(str(payload)))
        self._confirmed_at = monotonic()
        self._on_change()
