"""What a fork does to an open store.

SQLite's locks belong to a process, but a child inherits what its parent knew of them. A child that opens a file of
which it inherited any open connection therefore locks nothing, the parent takes itself for the last user when it closes
the file, and what the child has been told was committed is gone with the write-ahead log
(https://sqlite.org/howtocorrupt.html, 2.6). So every connection that no transaction holds is closed before a fork, in
the parent, which opens others as it needs them; where one was held, the child is told not to use the file.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import Engine, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine

from promptab.errors import StoreUnavailableError

CLOSE_SECONDS = 1.0
"""How long a fork waits for each connection to be closed."""


class Forked(Protocol):
    """A store that hears of forks. Both are called in the thread that forks, and may not await."""

    def before_fork(self) -> None: ...

    def after_fork_in_child(self) -> None: ...


_open: WeakSet[Forked] = WeakSet()
_inherited: set[Path] = set()
"""Files of which this process has inherited an open connection."""


def watch(store: Forked) -> None:
    """Tell the store of the forks to come."""
    _open.add(store)


def inherit(path: str) -> None:
    """Note, in the child, that it has inherited an open connection to the file."""
    _inherited.add(Path(path).resolve())


def check_not_inherited(path: str, *, url: str) -> None:
    """Raise `StoreUnavailableError` where this process would use the file without locking it."""
    if _inherited and Path(path).resolve() in _inherited:
        raise StoreUnavailableError(
            f"{url}: this process was forked while its parent had a transaction open on the file, which SQLite does "
            "not allow it to share; fork when nothing is under way, or use multiprocessing with the method 'spawn'",
            passing=False,
        )


class IdleConnections:
    """The connections of aiosqlite's that an engine's pool holds and no transaction does."""

    def __init__(self) -> None:
        self._idle: set[Any] = set()
        self._in_use = 0
        self._closed: WeakSet[Any] = WeakSet()

    def close(self) -> bool:
        """Close them, each in its own thread; return whether none is open any more, in use or not."""
        idle, self._idle = self._idle, set()
        for connection in idle:
            self._closed.add(connection)
            connection.stop()
        for connection in idle:
            connection._thread.join(CLOSE_SECONDS)  # noqa: SLF001 - nothing else tells without awaiting
        return self._in_use == 0 and not any(connection._thread.is_alive() for connection in idle)  # noqa: SLF001

    def begin_anew(self) -> bool:
        """Know of no connection, in a child; return whether it has inherited one."""
        inherited = bool(self._idle) or self._in_use > 0
        self._idle, self._in_use = set(), 0
        return inherited

    def on_checkin(self, dbapi_connection: Any, _record: Any) -> None:
        self._in_use -= 1
        if dbapi_connection is not None:
            self._idle.add(dbapi_connection.driver_connection)

    def on_checkout(self, dbapi_connection: Any, _record: Any, _proxy: Any) -> None:
        self._idle.discard(dbapi_connection.driver_connection)
        if dbapi_connection.driver_connection in self._closed:
            raise DisconnectionError  # the pool makes another one
        self._in_use += 1

    def on_close(self, dbapi_connection: Any, _record: Any) -> None:
        self._idle.discard(dbapi_connection.driver_connection)


_of_engines: WeakKeyDictionary[Engine, IdleConnections] = WeakKeyDictionary()


def track_idle_connections(engine: AsyncEngine) -> None:
    """To be called before the first connection is made."""
    idle = _of_engines[engine.sync_engine] = IdleConnections()
    event.listen(engine.sync_engine, "checkin", idle.on_checkin)
    event.listen(engine.sync_engine, "checkout", idle.on_checkout)
    event.listen(engine.sync_engine, "close", idle.on_close)


def idle_connections(engine: AsyncEngine) -> IdleConnections:
    return _of_engines[engine.sync_engine]


def _before() -> None:
    for store in list(_open):
        store.before_fork()


def _in_child() -> None:
    for store in list(_open):
        store.after_fork_in_child()


if sys.platform != "win32":
    os.register_at_fork(before=_before, after_in_child=_in_child)
