"""SQLite, in a file or in memory.

A file is in WAL mode: readers never wait for the writer. Every writing transaction begins IMMEDIATE, since a
plain BEGIN that reads before it writes fails at once when another process has written in between. Events go
through a connection and a thread of their own.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import weakref
from contextlib import AbstractAsyncContextManager, closing, nullcontext, suppress
from functools import partial
from typing import Any

from sqlalchemy import URL, Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool

from promptab.errors import StoreUnavailableError
from promptab.queueing import DEFAULT_QUEUE, Durability, QueueSettings
from promptab.recent import Recent
from promptab.stores.driver_errors import translated
from promptab.stores.event_batch import KNOWN_EXPOSURES, Known, Variants, sqlite_row, write_batch
from promptab.stores.event_rows import Batch, BatchOutcome, Encode
from promptab.stores.event_thread import EventThread, EventWriter, write_the_rest
from promptab.stores.forking import (
    CLOSE_SECONDS,
    check_not_inherited,
    idle_connections,
    inherit,
    track_idle_connections,
)
from promptab.stores.queries.readable import lenient_json
from promptab.stores.served import Revisions
from promptab.stores.sql import SqlStore
from promptab.stores.sqlite_revisions import SqliteRevisions
from promptab.stores.sqlite_turns import begin_immediate

BUSY_SECONDS = 10.0
"""How long a writer waits for another one before it gives up."""


def file_engine(path: str, *, durability: Durability = "normal") -> AsyncEngine:
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=path),
        connect_args={"timeout": BUSY_SECONDS},
        json_deserializer=lenient_json,
    )
    track_idle_connections(engine)
    return _with_begin(engine, durability)


async def reach_file(path: str, *, url: str) -> None:
    """Raise what opening the file would raise, before a connection of aiosqlite's meets it.

    Its thread outlives a connection that fails, and dies with a traceback when the loop has ended meanwhile.
    """
    check_not_inherited(path, url=url)

    def reach() -> None:
        with translated(url), closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as connection:
            connection.execute("PRAGMA schema_version")

    await asyncio.to_thread(reach)


async def use_wal(path: str) -> None:
    """Put the file into WAL mode if it is not: a new one, or a copy made by VACUUM INTO."""

    def switch() -> None:
        with closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as connection:
            if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
                # a read-only file stays as it is; of several processes that switch at once one succeeds
                with suppress(sqlite3.OperationalError):
                    connection.execute("PRAGMA journal_mode = WAL")

    await asyncio.to_thread(switch)


def memory_engine() -> AsyncEngine:
    return _with_begin(
        create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool, json_deserializer=lenient_json),
        "normal",
    )


class SqliteFileStore(SqlStore):
    _encode: Encode = staticmethod(sqlite_row)

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        path: str,
        url: str,
        store_id: str,
        durability: Durability = "normal",
        queue: QueueSettings = DEFAULT_QUEUE,
    ) -> None:
        super().__init__(engine, url=url, store_id=store_id, queue=queue)
        self._path = path
        self._writing = asyncio.Lock()
        self._events = EventThread(
            partial(EventWriter, path, url=url, durability=durability, busy_seconds=BUSY_SECONDS)
        )
        self._idle = idle_connections(engine)
        self._source: SqliteRevisions | None = None
        self._shared_with_child = False
        # what is queued can be written without a loop
        self._at_end.detach()
        self._at_end = weakref.finalize(self, write_the_rest, self._queue.backlog, self._events, url)

    def _turn(self, *, writes: bool) -> AbstractAsyncContextManager[Any]:
        check_not_inherited(self._path, url=self._url)
        # SQLite lets waiting writers in by chance; in this process they come in their order, and a writer that waits
        # holds no connection that a reader needs
        return self._writing if writes else nullcontext()

    async def _commit_batch(self, batch: Batch) -> BatchOutcome:
        async with self._turn(writes=True):
            return await self._events.write(batch)

    def _revisions(self) -> Revisions:
        self._source = SqliteRevisions(self._path, url=self._url)
        return self._source

    def before_fork(self) -> None:
        closed = [self._events.end(CLOSE_SECONDS), self._idle.close()]
        if self._source is not None:
            closed.append(self._source.before_fork())
        self._shared_with_child = not all(closed)

    def after_fork_in_child(self) -> None:
        super().after_fork_in_child()
        self._writing = asyncio.Lock()
        # where not the loop's own thread forks, something may have been opened again meanwhile
        opened_again = [self._events.after_fork_in_child(), self._idle.begin_anew()]
        if self._shared_with_child or any(opened_again):
            inherit(self._path)

    async def _release(self) -> None:
        await asyncio.to_thread(self._events.end)


class SqliteMemoryStore(SqlStore):
    """One connection, so one transaction at a time; gone when it is closed."""

    shared = False

    _encode: Encode = staticmethod(sqlite_row)

    def __init__(
        self, engine: AsyncEngine, *, url: str, store_id: str, queue: QueueSettings = DEFAULT_QUEUE
    ) -> None:
        super().__init__(engine, url=url, store_id=store_id, queue=queue)
        self._one_at_a_time = asyncio.Lock()
        self._known: Known = Recent(KNOWN_EXPOSURES)
        self._process = os.getpid()

    def _turn(self, *, writes: bool) -> AbstractAsyncContextManager[Any]:
        if self._process != os.getpid():
            raise StoreUnavailableError(
                "a store in memory is its process's own, and the child of a fork has none; open another one there",
                passing=False,
            )
        return self._one_at_a_time

    async def _commit_batch(self, batch: Batch) -> BatchOutcome:
        def write(connection: Connection) -> tuple[BatchOutcome, Variants]:
            cursor = connection.connection.cursor()
            try:
                return write_batch(cursor, batch, self._known)
            finally:
                cursor.close()

        async with self._connection(writes=True) as connection:
            outcome, learned = await connection.run_sync(write)
        for key, variant in learned.items():
            self._known.put(key, variant)
        return outcome


def _with_begin(engine: AsyncEngine, durability: Durability) -> AsyncEngine:
    """Let SQLAlchemy say BEGIN itself: the driver's own begins are too late, and never IMMEDIATE."""

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute(f"PRAGMA synchronous = {durability}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: Connection) -> None:
        if connection.get_execution_options().get("promptab_writes", False):
            adapted: Any = connection.connection.dbapi_connection
            # in the connection's own thread: going there for every look would take longer than the others write
            adapted.run_async(
                lambda driver: driver._execute(begin_immediate, driver._conn, BUSY_SECONDS)  # noqa: SLF001
            )
        else:
            connection.exec_driver_sql("BEGIN")

    return engine
