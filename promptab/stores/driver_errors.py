"""Driver errors become promptab's, in this one place. Unknown stays unknown: never "not found" for "could not
ask".
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from promptab.errors import StoreError, StoreUnavailableError

_UNAVAILABLE = {
    "database is locked": "another process has been writing for longer than the busy timeout; try again",
    "database table is locked": "another process has been writing for longer than the busy timeout; try again",
    "readonly database": "the database is read-only; check the permissions of the file and its folder",
    "unable to open database file": "check that the folder exists and may be written to",
    "disk is full": "free some space; nothing that was acknowledged is lost",
    "disk I/O error": "check the disk; nothing that was acknowledged is lost",
}
_BROKEN = {
    "file is not a database": "the file is not a SQLite database; it was left untouched",
    "malformed": "the database is damaged; restore a backup, or copy what is readable with `sqlite3 FILE .recover`",
}


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Raise `StoreUnavailableError` or `StoreError` for whatever the driver raises inside."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise _translate(url, error) from error


def _translate(url: str, error: Exception) -> StoreError:
    message = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    for sign, remedy in _UNAVAILABLE.items():
        if sign in message:
            return StoreUnavailableError(f"{url}: {message}; {remedy}")
    for sign, remedy in _BROKEN.items():
        if sign in message:
            return StoreError(f"{url}: {message}; {remedy}")
    return StoreError(f"{url}: {message}")
