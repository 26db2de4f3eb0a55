"""Whether another process has written to a SQLite file: `PRAGMA data_version`, on a connection kept for it.

The pragma answers from the header of the shared index, and the revision is read only where the answer differs
from the last one. It has a thread of its own, since a disk may keep it waiting.
"""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor

from promptab.errors import StoreError
from promptab.stores.driver_errors import translated

WAIT_SECONDS = 1.0
"""How long a check waits for a file that is locked."""


class SqliteRevisions:
    """The `Revisions` of a file."""

    def __init__(self, path: str, *, url: str) -> None:
        self._path = path
        self._url = url
        self._thread = _one_thread()
        self._connection: sqlite3.Connection | None = None
        self._inherited: sqlite3.Connection | None = None
        self._data_version = -1
        self._revision = -1

    async def current(self) -> int:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._read)

    def before_fork(self) -> bool:
        """Close the connection, which the next check opens again; return whether that was done in time."""
        try:
            self._thread.submit(self._disconnect).result(WAIT_SECONDS)
        except TimeoutError:
            return False
        except RuntimeError:
            pass  # closed for good
        return True

    def after_fork_in_child(self) -> None:
        """Begin anew in the child, which may fork again before it asks anything."""
        # neither a thread nor a connection outlives a fork; what was open is the parent's to close, and is held
        self._inherited, self._connection = self._connection, None
        self._thread = _one_thread()

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown(wait=False)

    def _read(self) -> int:
        with translated(self._url):
            if self._connection is None:
                self._connection = sqlite3.connect(self._path, timeout=WAIT_SECONDS, isolation_level=None)
                self._data_version = -1
            try:
                # before the revision: what is committed between the two is found by the next check
                data_version = int(self._connection.execute("PRAGMA data_version").fetchone()[0])
                if data_version != self._data_version:
                    [(self._revision,)] = self._connection.execute("SELECT revision FROM promptab_store")
                    self._data_version = data_version
            except BaseException as error:
                # after an I/O error a new connection may find what this one cannot
                self._disconnect()
                if isinstance(error, ValueError):
                    message = f"{self._url}: the store has lost its revision; restore a backup"
                    raise StoreError(message) from error
                raise
        return self._revision

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _one_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="promptab-snapshot")
