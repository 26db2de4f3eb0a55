"""SQLite, in a file or in memory.

A file is in WAL mode: readers never wait for the writer. Every writing transaction begins IMMEDIATE, since a
plain BEGIN that reads before it writes fails at once when another process has written in between. Events go
through a connection and a thread of their own.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, closing, nullcontext, suppress
from typing import Any

from sqlalchemy import URL, Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool

from promptab.stores.driver_errors import translated
from promptab.stores.event_batch import write_batch
from promptab.stores.group_commit import BatchOutcome, Row
from promptab.stores.queries.readable import lenient_json
from promptab.stores.sql import SqlStore

BUSY_SECONDS = 5.0
"""How long a writer waits for another one before it gives up."""


def file_engine(path: str) -> AsyncEngine:
    return _with_begin(
        create_async_engine(
            URL.create("sqlite+aiosqlite", database=path),
            connect_args={"timeout": BUSY_SECONDS},
            json_deserializer=lenient_json,
        )
    )


async def reach_file(path: str, *, url: str) -> None:
    """Raise what opening the file would raise, before a connection of aiosqlite's meets it.

    Its thread outlives a connection that fails, and dies with a traceback when the loop has ended meanwhile.
    """

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
        create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool, json_deserializer=lenient_json)
    )


class SqliteFileStore(SqlStore):
    def __init__(self, engine: AsyncEngine, *, path: str, url: str, store_id: str) -> None:
        super().__init__(engine, url=url, store_id=store_id)
        self._path = path
        self._writing = asyncio.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="promptab-events")
        self._driver: sqlite3.Connection | None = None

    def _turn(self, *, writes: bool) -> AbstractAsyncContextManager[Any]:
        # SQLite lets waiting writers in by chance; in this process they come in their order, and a writer that waits
        # holds no connection that a reader needs
        return self._writing if writes else nullcontext()

    async def _commit_batch(self, rows: Sequence[Row]) -> BatchOutcome:
        async with self._turn(writes=True):
            return await asyncio.get_running_loop().run_in_executor(
                self._thread, self._commit_in_thread, rows
            )

    def _commit_in_thread(self, rows: Sequence[Row]) -> BatchOutcome:
        with translated(self._url):
            if self._driver is None:
                self._driver = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)
                self._driver.execute("PRAGMA synchronous = NORMAL")
                self._driver.execute("PRAGMA foreign_keys = ON")
            cursor = self._driver.cursor()
            cursor.execute("BEGIN IMMEDIATE")
            try:
                outcome = write_batch(cursor, rows)
                cursor.execute("COMMIT")
            except BaseException:
                # after a full disk or an I/O error SQLite may have rolled back by itself
                if self._driver.in_transaction:
                    cursor.execute("ROLLBACK")
                raise
            finally:
                cursor.close()
        return outcome

    async def _release(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close_driver)
        self._thread.shutdown(wait=False)

    def _close_driver(self) -> None:
        if self._driver is not None:
            self._driver.close()
            self._driver = None


class SqliteMemoryStore(SqlStore):
    """One connection, so one transaction at a time; gone when it is closed."""

    shared = False

    def __init__(self, engine: AsyncEngine, *, url: str, store_id: str) -> None:
        super().__init__(engine, url=url, store_id=store_id)
        self._one_at_a_time = asyncio.Lock()

    def _turn(self, *, writes: bool) -> AbstractAsyncContextManager[Any]:
        return self._one_at_a_time

    async def _commit_batch(self, rows: Sequence[Row]) -> BatchOutcome:
        def write(connection: Connection) -> BatchOutcome:
            cursor = connection.connection.cursor()
            try:
                return write_batch(cursor, rows)
            finally:
                cursor.close()

        async with self._connection(writes=True) as connection:
            return await connection.run_sync(write)


def _with_begin(engine: AsyncEngine) -> AsyncEngine:
    """Let SQLAlchemy say BEGIN itself: the driver's own begins are too late, and never IMMEDIATE."""

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("promptab_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
