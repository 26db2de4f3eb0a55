"""Leading among many machines: by an advisory lock of PostgreSQL, which is lost with its connection.

No clock is compared with another one's. The server ends the connection of a leader that is dead at once, and that of
one that hangs or is cut off once it has been silent for the time of a claim.
"""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

import asyncpg

from promptab.errors import StoreError
from promptab.stores.base import Transaction
from promptab.stores.postgres_connecting import Connection, Server, hang_up

if TYPE_CHECKING:
    from promptab.stores.base import Store

# PostgreSQL 13 has no such setting: there a leader that hangs goes on leading until its machine is found to be gone
_SILENCE = "SELECT set_config('idle_session_timeout', $1, false) FROM pg_settings WHERE name = 'idle_session_timeout'"
_UNLOCK = "SELECT pg_advisory_unlock_all()"
_LOCK = "SELECT pg_try_advisory_lock(hashtextextended($1, 0))"


class PostgresLeadership:
    """A `Leadership` by an advisory lock; the row of its lease only counts the terms."""

    def __init__(self, store: Store, server: Server, name: str, *, seconds: float) -> None:
        self._store = store
        self._server = server
        self._name = name
        self._seconds = seconds
        self._process = os.getpid()
        self._connection: Connection | None = None
        self._parents: list[Connection | None] = []
        """Held, as they would be closed otherwise, which is the parent's to do."""
        self._term: int | None = None

    async def claim(self) -> int | None:
        self._begin_anew_in_a_child()
        if self._connection is not None:
            # the server may have ended it, as that of one who was silent for too long
            with suppress(StoreError):
                return await self._claim()
        return await self._claim()

    async def release(self) -> None:
        self._begin_anew_in_a_child()
        connection, self._connection, self._term = self._connection, None, None
        if connection is None:
            return
        try:
            # hanging up does as much, but only when the server gets to it
            with self._server.translated():
                await connection.execute(_UNLOCK, timeout=self._seconds)
        except TimeoutError:
            connection.terminate()
        finally:
            await hang_up(connection)

    async def _claim(self) -> int | None:
        try:
            return await self._granted()
        except BaseException:
            # cancelled too: what the server has answered is not known, and the lock may be held
            self._drop()
            raise

    async def _granted(self) -> int | None:
        if self._connection is None or self._connection.is_closed():
            # which store it is, and so what the lock is called, is known when it has been reached
            await self._store.read(_nothing)
            self._connection, self._term = await self._server.connect(), None
            await self._asked(_SILENCE, f"{self._seconds * 1000:.0f}ms")
        if self._term is not None:
            await self._asked("SELECT 1")
        elif await self._asked(_LOCK, f"promptab {self._store.store_id} {self._name}"):
            self._term = await self._store.write(self._begin, shown=False)
        return self._term

    async def _begin(self, tx: Transaction) -> int:
        return await tx.leases.take(self._name, uuid.uuid4().hex, seconds=self._seconds)

    async def _asked(self, query: str, *arguments: object) -> object:
        assert self._connection is not None  # noqa: S101 - the caller has just connected
        with self._server.translated():
            try:
                return await self._connection.fetchval(query, *arguments, timeout=self._seconds)
            except TimeoutError as error:
                message = f"no answer for {self._seconds:g} seconds"
                raise asyncpg.ConnectionDoesNotExistError(message) from error

    def _drop(self) -> None:
        connection, self._connection, self._term = self._connection, None, None
        if connection is not None:
            connection.terminate()

    def _begin_anew_in_a_child(self) -> None:
        if self._process != os.getpid():
            self._parents.append(self._connection)
            self._process, self._connection, self._term = os.getpid(), None, None


async def _nothing(_tx: Transaction) -> None:
    """Reach the store, and no more."""
