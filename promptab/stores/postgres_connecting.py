"""Connections to PostgreSQL: how they are made, and how long anything on them may wait."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias
from urllib.parse import parse_qs, urlsplit

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from promptab.errors import InvalidInputError, StoreUnavailableError
from promptab.stores.driver_errors import store_error
from promptab.stores.postgres_url import shown_url
from promptab.stores.queries.readable import lenient_json

CONNECT_SECONDS = 5.0
STATEMENT_SECONDS = 30.0
"""The server ends a statement that takes longer; `?statement_timeout=` in the URL (milliseconds, 0 for none) says
otherwise.
"""
LOCK_SECONDS = 10.0
"""How long a statement waits for other transactions."""
CLOSING_SECONDS = 2.0
MIGRATION_LOCK_SECONDS = 60.0
"""How long a process waits for another one that migrates the database."""
ACQUIRE_SECONDS = 5.0
"""How long a transaction waits for a connection of the pool."""
ANSWER_SECONDS = 2.0
"""So much later than the server this process gives up: then there is no server, or no way to it."""
POOL_CONNECTIONS = 5
"""Of one store. One more writes its events, and one hears of changes."""

_DIALECT = "postgresql+asyncpg://"
_SETTINGS = {
    "application_name": "promptab",
    "lock_timeout": f"{LOCK_SECONDS:g}s",
    # a transaction of a process that is gone must not hold up the others
    "idle_in_transaction_session_timeout": f"{STATEMENT_SECONDS:g}s",
    # compiling the sums of an analysis takes longer than computing them
    "jit": "off",
}
_SWITCHED_OFF = (
    "SELECT name FROM pg_settings WHERE setting = 'off'"
    " AND name IN ('fsync', 'full_page_writes', 'synchronous_commit') ORDER BY name"
)

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class Server:
    """A database of a server, and the way to it."""

    def __init__(self, url: str) -> None:
        """Raises `InvalidInputError` for a URL that is not well formed."""
        self._dsn = url
        self.url = shown_url(url)
        given = parse_qs(urlsplit(url).query)
        self._settings = {name: value for name, value in _SETTINGS.items() if name not in given}
        milliseconds = given.get("statement_timeout", [f"{STATEMENT_SECONDS * 1000:.0f}"])[-1]
        if not milliseconds.isdecimal():
            raise InvalidInputError("url: statement_timeout", milliseconds, "a whole number of milliseconds")
        self._settings["statement_timeout"] = milliseconds
        self._patience = int(milliseconds) / 1000 + ANSWER_SECONDS if int(milliseconds) else None

    async def connect(self) -> Connection:
        """Return a new connection. Raises `StoreUnavailableError` and `StoreError`."""
        return await self._connect(self._settings, self._patience)

    async def switched_off(self) -> list[str]:
        """Return which of the settings are off that let a commit, and the whole database, survive a crash."""
        connection = await self.connect()
        try:
            with self.translated():
                rows = await connection.fetch(_SWITCHED_OFF)
        finally:
            await hang_up(connection)
        return [row["name"] for row in rows]

    def engine(self) -> AsyncEngine:
        """Return an engine whose transactions each see one state of the database."""
        return create_async_engine(
            _DIALECT,
            async_creator=self.connect,
            isolation_level="REPEATABLE READ",
            json_deserializer=lenient_json,
            pool_size=POOL_CONNECTIONS,
            max_overflow=0,
            pool_timeout=ACQUIRE_SECONDS,
        )

    def migrating_engine(self) -> AsyncEngine:
        """Return an engine for migrations: they take their time, and see what others have done while they waited."""
        settings = {
            **self._settings,
            "statement_timeout": "0",
            "lock_timeout": f"{MIGRATION_LOCK_SECONDS:g}s",
        }

        async def connect() -> Connection:
            return await self._connect(settings, None)

        return create_async_engine(
            _DIALECT, async_creator=connect, isolation_level="READ COMMITTED", poolclass=NullPool
        )

    async def _connect(self, settings: dict[str, str], patience: float | None) -> Connection:
        with self.translated():
            return await asyncpg.connect(
                self._dsn, timeout=CONNECT_SECONDS, command_timeout=patience, server_settings=settings
            )

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Raise store errors for what the driver itself raises inside, where SQLAlchemy is not between."""
        try:
            yield
        except asyncpg.ClientConfigurationError:
            # its message may quote what was meant to be a password
            raise InvalidInputError("url", self.url, "a URL that asyncpg understands") from None
        except (asyncpg.PostgresError, OSError) as error:
            raise store_error(self.url, error) from error
        except (asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            if isinstance(error, ValueError):
                # a value that has no place in its column
                raise store_error(self.url, error) from error
            raise StoreUnavailableError(
                f"{self.url}: the connection was lost ({error}); try again"
            ) from error


async def hang_up(connection: Connection) -> None:
    """Close a connection as far as that is possible: the server may be gone, or the network cut."""
    try:
        await connection.close(timeout=CLOSING_SECONDS)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        connection.terminate()
