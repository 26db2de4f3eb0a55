"""Taking turns among the writers of one SQLite file."""

from __future__ import annotations

import random
import sqlite3
import time
from time import monotonic

SHORTEST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.0005, 0.004
"""Between two looks whether another writer is done; at random, so that several do not keep in step."""


def begin_immediate(connection: sqlite3.Connection, busy_seconds: float) -> None:
    """Begin to write, waiting for other writers for so long; in the thread of the connection.

    SQLite's own patience ends in looking ten times in a second: among many writers those would wait for seconds that
    are fast asleep whenever the file is free. Raises `sqlite3.OperationalError`.
    """
    [(patience,)] = connection.execute("PRAGMA busy_timeout")
    if patience:
        connection.execute("PRAGMA busy_timeout = 0")
    deadline = monotonic() + busy_seconds
    try:
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                # the upper bytes say what kind of busy
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or monotonic() >= deadline:
                    raise
                time.sleep(random.uniform(SHORTEST_WAIT_SECONDS, LONGEST_WAIT_SECONDS))  # noqa: S311 - no secret
            else:
                return
    finally:
        if patience:
            connection.execute(f"PRAGMA busy_timeout = {patience}")
