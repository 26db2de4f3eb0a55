"""Driver errors become promptab's, in this one place. Unknown stays unknown: never "not found" for "could not
ask".

SQLite tells its errors apart by their sentences, PostgreSQL by its codes (SQLSTATE), whatever language it speaks.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from promptab.errors import StoreError, StoreUnavailableError

SERIALIZATION_FAILURES = frozenset({"40001", "40P01", "23505"})
"""What a transaction that is run again may not meet again: others were faster, or held what it needed.

A key that is taken is among them where its row was committed after the transaction had begun: PostgreSQL's manual,
section 13.5.
"""

UNDEFINED_TABLE = "42P01"

_UNAVAILABLE = {
    "database is locked": "another process has been writing for longer than the busy timeout; try again",
    "database table is locked": "another process has been writing for longer than the busy timeout; try again",
    "locking protocol": "other processes were opening and closing the file at the same moment; try again",
    "readonly database": "the database is read-only; check the permissions of the file and its folder",
    "unable to open database file": "check that the folder exists and may be written to",
    "disk is full": "free some space; nothing that was acknowledged is lost",
    "disk I/O error": "check the disk; nothing that was acknowledged is lost",
}
_BROKEN = {
    "file is not a database": "the file is not a SQLite database; it was left untouched",
    "malformed": "the database is damaged; restore a backup, or copy what is readable with `sqlite3 FILE .recover`",
}
_UNAVAILABLE_STATES = {
    "08": "the connection to the server was lost; try again",
    "40": "other transactions were in the way again and again; try again",
    "53300": "the server has no connection left; raise its max_connections, or put a pooler before it",
    "53": "the server has run out of space or memory; nothing that was acknowledged is lost",
    "55P03": "another transaction has held a lock for longer than the lock timeout; try again",
    "57014": "the statement took longer than its timeout; try again",
    "57P": "the server is going down or coming up; try again",
    "25006": "the server takes no writes; name the primary in the URL, and not a replica",
}
_BROKEN_STATES = {
    "28": "check the user and the password in the URL, and the server's pg_hba.conf",
    "3D000": "make the database first, with `createdb`",
    "42501": "the user of the URL may not do this; grant it, or name the owner of the tables",
    "42704": "the URL has an option that the server does not know",
}
"""By SQLSTATE, or by what it begins with; the longest that fits says it."""


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Raise `StoreUnavailableError` or `StoreError` for whatever the driver raises inside."""
    try:
        yield
    # asyncpg answers a broken socket, and a server that does not answer, with the errors of the socket
    except (SQLAlchemyError, sqlite3.Error, ConnectionError, TimeoutError) as error:
        raise store_error(url, error) from error


def sqlstate(error: BaseException | None) -> str | None:
    """Return PostgreSQL's code of a driver's error, or of what a store error came from; None without one."""
    if isinstance(error, StoreError):
        error = error.__cause__
    if isinstance(error, DBAPIError):
        error = error.orig
    code = getattr(error, "sqlstate", None)
    return code if isinstance(code, str) else None


def store_error(url: str, error: Exception) -> StoreError:
    """Return what a driver's error means to a caller, with the remedy."""
    message = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    if (code := sqlstate(error)) is not None:
        return _of_state(url, code, message)
    for sign, remedy in _UNAVAILABLE.items():
        if sign in message:
            passing = sign != "readonly database"
            return StoreUnavailableError(f"{url}: {message}; {remedy}", passing=passing)
    for sign, remedy in _BROKEN.items():
        if sign in message:
            return StoreError(f"{url}: {message}; {remedy}")
    if isinstance(error, PoolTimeoutError):
        return StoreUnavailableError(f"{url}: all connections of this process are in use; try again")
    if isinstance(error, OSError) or (isinstance(error, DBAPIError) and error.connection_invalidated):
        reason = message or "no answer in time"
        return StoreUnavailableError(f"{url}: {reason}; check that the server is there and can be reached")
    return StoreError(f"{url}: {message}")


def _of_state(url: str, code: str, message: str) -> StoreError:
    # SQLAlchemy puts the class of the driver's error before its sentence
    sentence = message.partition(">: ")[2] or message
    for kind, remedies in ((StoreUnavailableError, _UNAVAILABLE_STATES), (StoreError, _BROKEN_STATES)):
        for sign in sorted(remedies, key=len, reverse=True):
            if code.startswith(sign):
                return kind(f"{url}: {sentence}; {remedies[sign]}")
    return StoreError(f"{url}: {sentence} (SQLSTATE {code})")
