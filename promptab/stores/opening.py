"""Opening a store by its URL, and the default store that managers made without arguments share."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

from promptab.errors import InvalidInputError, MissingExtraError, StoreUnavailableError
from promptab.queueing import DEFAULT_QUEUE, Durability, QueueSettings, check_durability, check_queue
from promptab.stores.postgres_url import is_postgres, shown_url

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from promptab.snapshot import Snapshot
    from promptab.stores.base import Store
    from promptab.stores.sql import SqlStore

DEFAULT_URL = "sqlite:///promptab.db"
MEMORY_URL = "sqlite:///:memory:"

_URL_REMEDY = (
    "write sqlite:///path/to/promptab.db, sqlite:///:memory: or postgresql://user:password@host/database"
)


def resolve_url(url: str | None) -> str:
    """Return the URL to open: the argument, else `PROMPTAB_URL`, else `sqlite:///promptab.db`."""
    if url is not None and not isinstance(url, str):
        # what it holds may be a password
        raise InvalidInputError("url", type(url).__name__, "text", _URL_REMEDY)
    return url or os.environ.get("PROMPTAB_URL") or DEFAULT_URL


async def open_store(
    url: str | None = None, *, durability: Durability = "normal", queue: QueueSettings = DEFAULT_QUEUE
) -> Store:
    """Open the store, making or migrating its database where that is needed.

    What returned from an awaited write survives the process in any case; with durability "full" it survives a
    loss of power too, where with "normal" a file may lose the last moments, and never more than those.

    Raises `InvalidInputError` for a URL of another kind, `StoreUnavailableError` where the database cannot be
    reached, `StoreVersionError` where it is newer than this promptab or belongs to another application, and
    `MissingExtraError` for PostgreSQL where its driver is not installed.
    """
    way = _way(url, durability, queue)
    return way.store(await way.arrive())


def open_away(
    failure: StoreUnavailableError,
    filed: tuple[Snapshot, float] | None,
    url: str | None = None,
    *,
    durability: Durability = "normal",
    queue: QueueSettings = DEFAULT_QUEUE,
) -> Store:
    """Return a store that could not be reached just now, as `failure` says; it serves a snapshot of so many seconds ago
    meanwhile, if there is one.

    Everything that asks for the database tries to reach it first, and raises `StoreUnavailableError` until it is
    there.
    """
    from promptab.stores.sql import UNKNOWN_STORE  # noqa: PLC0415 - as in _way

    way = _way(url, durability, queue)
    snapshot, age = filed or (None, 0.0)
    store = way.store(UNKNOWN_STORE if snapshot is None else snapshot.store_id)
    store.begin_away(snapshot, failure, age=age, arrive=way.arrive)
    return store


class _Way(NamedTuple):
    """The way to one database."""

    arrive: Callable[[], Awaitable[str]]
    """Reaches it, making or migrating it where that is needed, and returns its store_id."""
    store: Callable[[str], SqlStore]
    """Makes the store on it, without I/O."""


def _way(url: str | None, durability: Durability, queue: QueueSettings) -> _Way:
    durability = check_durability(durability)
    check_queue(queue)
    resolved = resolve_url(url)
    if is_postgres(resolved):
        return _way_to_postgres(resolved, queue)
    path = sqlite_path(resolved)
    # the store's own imports are most of its cost, and `import promptab` is to stay light
    from promptab.stores import sqlite  # noqa: PLC0415

    if path is None:
        engine = sqlite.memory_engine()
        return _Way(
            partial(_prepare, engine, MEMORY_URL),
            lambda store_id: sqlite.SqliteMemoryStore(engine, url=MEMORY_URL, store_id=store_id, queue=queue),
        )
    shown = f"sqlite:///{path}"
    engine = sqlite.file_engine(path, durability=durability)

    async def arrive() -> str:
        await sqlite.reach_file(path, url=shown)
        store_id = await _prepare(engine, shown)
        await sqlite.use_wal(path)
        return store_id

    return _Way(
        arrive,
        lambda store_id: sqlite.SqliteFileStore(
            engine, path=path, url=shown, store_id=store_id, durability=durability, queue=queue
        ),
    )


def _way_to_postgres(url: str, queue: QueueSettings) -> _Way:
    try:
        import asyncpg  # noqa: F401, PLC0415 - an extra
    except ImportError as error:
        raise MissingExtraError("asyncpg", "postgres") from error
    from promptab.stores.postgres import PostgresStore  # noqa: PLC0415 - as above
    from promptab.stores.postgres_connecting import Server  # noqa: PLC0415

    server = Server(url)
    engine = server.engine()
    return _Way(
        lambda: _prepare(engine, server.url, server.migrating_engine()),
        lambda store_id: PostgresStore(engine, server=server, store_id=store_id, queue=queue),
    )


def shown_location(url: str) -> str:
    """Return the URL as it may be shown: with the whole path of a file, and without a password."""
    if is_postgres(url):
        return shown_url(url)
    path = sqlite_path(url)
    return MEMORY_URL if path is None else f"sqlite:///{path}"


def sqlite_path(url: str) -> str | None:
    """Return the file of a URL, or None for a database that is no file: in memory, or PostgreSQL's."""
    if is_postgres(url):
        return None
    prefix = "sqlite://"
    if not url.startswith(prefix):
        scheme = f"{url.partition(':')[0]}:…"  # the rest may hold a password
        raise InvalidInputError(
            "url",
            scheme,
            "a URL of SQLite or PostgreSQL",
            _URL_REMEDY,
        )
    path = url.removeprefix(prefix).removeprefix("/")
    if "?" in path or "\x00" in path:
        raise InvalidInputError("url", url, "a SQLite URL without options", "give the path of the file alone")
    # a relative path means the folder of this moment, also after the program has changed to another one
    return None if path in {"", ":memory:"} else str(Path(path).absolute())


async def _prepare(engine: AsyncEngine, url: str, migrating_engine: AsyncEngine | None = None) -> str:
    from promptab.stores.driver_errors import translated  # noqa: PLC0415
    from promptab.stores.migrating import HEAD, identify, migrate  # noqa: PLC0415

    try:
        with translated(url):
            async with engine.connect() as connection, connection.begin():
                identity = await connection.run_sync(identify)
            if identity is not None and identity.migration == HEAD:
                return identity.store_id
            async with (migrating_engine or engine).connect() as connection:
                await connection.execution_options(promptab_writes=True)
                async with connection.begin():
                    return (await connection.run_sync(migrate, now=datetime.now(UTC))).store_id
    except BaseException:
        await engine.dispose()
        raise


_Keeper = AsyncGenerator["Store"]


class _LoopStores:
    """The stores that one running event loop holds open until it ends."""

    def __init__(self) -> None:
        self.keepers: set[_Keeper] = set()
        self.defaults: dict[str, asyncio.Task[Store]] = {}


_held_open: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopStores] = WeakKeyDictionary()


async def open_until_the_loop_ends(opening: Callable[[], Awaitable[Store]]) -> Store:
    """Open a store that is closed properly also where nobody closes it.

    A loop closes its asynchronous generators before it stops, which is the one moment when a forgotten store
    can still write what is queued. So a generator holds it open, and is itself held until then.
    """
    loop = asyncio.get_running_loop()
    stores = _held_open.setdefault(loop, _LoopStores())

    async def keep() -> _Keeper:
        store = await opening()
        try:
            yield store
        finally:
            stores.keepers.discard(keeper)
            if not stores.keepers:
                _held_open.pop(loop, None)  # its tasks hold on to the loop, which would never be collected
            await store.close()

    keeper = keep()
    stores.keepers.add(keeper)
    try:
        return await anext(keeper)
    except BaseException:
        stores.keepers.discard(keeper)
        raise


async def default_store() -> Store:
    """Return the store that this event loop shares for `resolve_url(None)`, opening it at first use."""
    at_hand = default_store_at_hand()
    if at_hand is not None:
        return at_hand
    opened = _held_open.setdefault(asyncio.get_running_loop(), _LoopStores()).defaults
    url = resolve_url(None)
    opening = opened.get(url)
    if opening is None or (opening.done() and (opening.cancelled() or opening.exception() is not None)):
        # one task for all who come at the same time; after a failure the next one tries again
        opening = opened[url] = asyncio.ensure_future(open_until_the_loop_ends(partial(open_store, url)))
    return await asyncio.shield(opening)


def default_store_at_hand() -> Store | None:
    """Return what `default_store` has opened in this event loop; None where it has not."""
    held = _held_open.get(asyncio.get_running_loop())
    opening = None if held is None else held.defaults.get(resolve_url(None))
    if opening is None or not opening.done() or opening.cancelled() or opening.exception() is not None:
        return None
    return opening.result()
