"""Opening a store by its URL, and the default store that managers made without arguments share."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from promptab.errors import InvalidInputError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from promptab.stores.base import Store
    from promptab.stores.migrating import Identity

DEFAULT_URL = "sqlite:///promptab.db"
MEMORY_URL = "sqlite:///:memory:"


def resolve_url(url: str | None) -> str:
    """Return the URL to open: the argument, else `PROMPTAB_URL`, else `sqlite:///promptab.db`."""
    return url or os.environ.get("PROMPTAB_URL") or DEFAULT_URL


async def open_store(url: str | None = None) -> Store:
    """Open the store, making or migrating its database where that is needed.

    Raises `InvalidInputError` for a URL of another kind, `StoreUnavailableError` where the database cannot be
    reached and `StoreVersionError` where it is newer than this promptab or belongs to another application.
    """
    path = sqlite_path(resolve_url(url))
    # the store's own imports are most of its cost, and `import promptab` is to stay light
    from promptab.stores import sqlite  # noqa: PLC0415

    if path is None:
        engine = sqlite.memory_engine()
        identity = await _prepare(engine, MEMORY_URL)
        return sqlite.SqliteMemoryStore(engine, url=MEMORY_URL, store_id=identity.store_id)
    shown = f"sqlite:///{path}"
    await sqlite.reach_file(path, url=shown)
    engine = sqlite.file_engine(path)
    identity = await _prepare(engine, shown)
    await sqlite.use_wal(path)
    return sqlite.SqliteFileStore(engine, path=path, url=shown, store_id=identity.store_id)


def sqlite_path(url: str) -> str | None:
    """Return the file of a SQLite URL, or None for a database in memory."""
    prefix = "sqlite://"
    if not url.startswith(prefix):
        scheme = f"{url.partition(':')[0]}:…"  # the rest may hold a password
        raise InvalidInputError(
            "url", scheme, "a SQLite URL", "write sqlite:///path/to/promptab.db, or sqlite:///:memory:"
        )
    path = url.removeprefix(prefix).removeprefix("/")
    if "?" in path or "\x00" in path:
        raise InvalidInputError("url", url, "a SQLite URL without options", "give the path of the file alone")
    # a relative path means the folder of this moment, also after the program has changed to another one
    return None if path in {"", ":memory:"} else str(Path(path).absolute())


async def _prepare(engine: AsyncEngine, url: str) -> Identity:
    from promptab.stores.driver_errors import translated  # noqa: PLC0415
    from promptab.stores.migrating import HEAD, identify, migrate  # noqa: PLC0415

    try:
        with translated(url):
            async with engine.connect() as connection, connection.begin():
                identity = await connection.run_sync(identify)
            if identity is not None and identity.migration == HEAD:
                return identity
            async with engine.connect() as connection:
                await connection.execution_options(promptab_writes=True)
                async with connection.begin():
                    return await connection.run_sync(migrate, now=datetime.now(UTC))
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


async def open_until_the_loop_ends(url: str | None = None) -> Store:
    """Open a store that is closed properly also where nobody closes it.

    A loop closes its asynchronous generators before it stops, which is the one moment when a forgotten store
    can still write what is queued. So a generator holds it open, and is itself held until then.
    """
    loop = asyncio.get_running_loop()
    stores = _held_open.setdefault(loop, _LoopStores())

    async def keep() -> _Keeper:
        store = await open_store(url)
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
    opened = _held_open.setdefault(asyncio.get_running_loop(), _LoopStores()).defaults
    url = resolve_url(None)
    opening = opened.get(url)
    if opening is None or (opening.done() and (opening.cancelled() or opening.exception() is not None)):
        # one task for all who come at the same time; after a failure the next one tries again
        opening = opened[url] = asyncio.ensure_future(open_until_the_loop_ends(url))
    return await asyncio.shield(opening)
