"""The thread that writes the events of one SQLite file, with a connection of its own.

It is a daemon: a program that forgets to close its store ends all the same, and what is queued is written at that
end. Checkpoints are made here too, between two batches and not inside a commit that callers wait for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import NamedTuple

from promptab.errors import StoreError, StoreUnavailableError
from promptab.queueing import Durability
from promptab.recent import Recent
from promptab.stores.backlog import Backlog, report_lost
from promptab.stores.driver_errors import translated
from promptab.stores.event_batch import KNOWN_EXPOSURES, Known, write_batch
from promptab.stores.event_rows import Batch, BatchOutcome
from promptab.stores.sqlite_turns import begin_immediate

CHECKPOINT_PAGES = 2_000
"""About how much of the write-ahead log waits to be copied into the file: twice SQLite's own default."""

LARGEST_LOG_PAGES = 16_384
"""64 MiB at 4 KiB a page. Past it the log is cut down as soon as no reader needs it any more."""

TRUNCATE_MILLISECONDS = 100
"""How long cutting the log down waits for readers; the callers wait for the next batch meanwhile."""

END_SECONDS = 5.0
"""How long the end of a program waits for a batch that is under way."""

_ROWS_PER_PAGE = 12
_PAGES_PER_COMMIT = 3

logger = logging.getLogger("promptab")


class _Job(NamedTuple):
    batch: Batch
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[BatchOutcome]


class EventWriter:
    """A connection to one file, used by one thread at a time and opened by its first batch."""

    def __init__(self, path: str, *, url: str, durability: Durability, busy_seconds: float) -> None:
        self._path = path
        self._url = url
        self._durability = durability
        self._busy_seconds = busy_seconds
        self._connection: sqlite3.Connection | None = None
        self._known: Known = Recent(KNOWN_EXPOSURES)
        self._log_pages = 0
        """About how many pages of the log have not been copied into the file."""
        self._told_of_the_log = False

    def commit(self, batch: Batch) -> BatchOutcome:
        """Write the batch in one transaction. Raises `StoreError`; nothing of the batch is there then."""
        with translated(self._url):
            connection = self._connect()
            cursor = connection.cursor()
            begin_immediate(connection, self._busy_seconds)
            try:
                outcome, learned = write_batch(cursor, batch, self._known)
                cursor.execute("COMMIT")
            except BaseException:
                # after a full disk or an I/O error SQLite may have rolled back by itself
                if connection.in_transaction:
                    cursor.execute("ROLLBACK")
                raise
            finally:
                cursor.close()
        for key, variant in learned.items():
            self._known.put(key, variant)
        rows = len(batch.events) + len(batch.exposures)
        self._log_pages += _PAGES_PER_COMMIT + rows // _ROWS_PER_PAGE
        return outcome

    def checkpoint_when_due(self) -> None:
        """Copy the log into the file when there is enough of it, and cut it down when it has grown too large."""
        if self._connection is None or self._log_pages < CHECKPOINT_PAGES:
            return
        # what fails here, such as a full disk, fails the next batch too, which has callers to tell
        with contextlib.suppress(sqlite3.Error):
            _, pages, copied = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            self._log_pages = pages - copied
            if pages > LARGEST_LOG_PAGES:
                self._truncate(self._connection, pages)
            else:
                self._told_of_the_log = False

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            # somebody who closes the file as its last user locks it altogether for a moment
            connection = sqlite3.connect(self._path, timeout=self._busy_seconds, isolation_level=None)
            try:
                connection.execute(f"PRAGMA synchronous = {self._durability}")
                connection.execute("PRAGMA foreign_keys = ON")
                connection.execute("PRAGMA wal_autocheckpoint = 0")
                # from here on `begin_immediate` waits, and looks more often
                connection.execute("PRAGMA busy_timeout = 0")
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _truncate(self, connection: sqlite3.Connection, pages: int) -> None:
        connection.execute(f"PRAGMA busy_timeout = {TRUNCATE_MILLISECONDS}")
        try:
            busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        finally:
            connection.execute("PRAGMA busy_timeout = 0")
        if busy and not self._told_of_the_log:
            logger.warning(
                "%s: the write-ahead log has grown to %d pages, since somebody has been reading an old state of "
                "the file for long; it is cut down when that ends",
                self._url,
                pages,
            )
        self._told_of_the_log = bool(busy)


class EventThread:
    """Lets a writer work in a thread of its own, from the first batch on."""

    def __init__(self, new_writer: Callable[[], EventWriter]) -> None:
        self.new_writer = new_writer
        self._inbox: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._handing_over = threading.Lock()
        """Whoever ends the thread may be another one than the loop's: nothing is handed over behind the end."""

    def write(self, batch: Batch) -> asyncio.Future[BatchOutcome]:
        """Return what becomes the outcome; to be called in the loop that awaits it."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[BatchOutcome] = loop.create_future()
        with self._handing_over:
            if self._thread is None:
                # inbox and writer are this thread's alone, whatever becomes of the one before
                self._inbox = SimpleQueue()
                self._thread = threading.Thread(
                    target=_run, args=(self._inbox, self.new_writer()), name="promptab-events", daemon=True
                )
                self._thread.start()
            self._inbox.put(_Job(batch, loop, answer))
        return answer

    def end(self, timeout: float = END_SECONDS) -> bool:
        """Close the connection after what was handed over; return whether that was done in time.

        A later batch begins anew.
        """
        with self._handing_over:
            thread, self._thread = self._thread, None
            if thread is None:
                return True
            self._inbox.put(None)
        if thread is threading.current_thread():
            return False  # the collector found a forgotten store in this of all threads
        thread.join(timeout)
        return not thread.is_alive()

    def after_fork_in_child(self) -> bool:
        """Begin anew in the child; return whether the parent's thread had the file open after all."""
        was_open, self._thread = self._thread is not None, None
        self._handing_over = threading.Lock()
        return was_open


def write_the_rest(backlog: Backlog, thread: EventThread, url: str) -> None:
    """Write what is queued at the end of a program that did not close its store, in the thread that ends it."""
    if not thread.end():
        report_lost(backlog, url)
        return
    writer = thread.new_writer()
    try:
        while backlog:
            _write_or_refuse(backlog, writer)
    except StoreUnavailableError as error:
        logger.warning("%s", error)
        report_lost(backlog, url)
    finally:
        writer.close()


def _write_or_refuse(backlog: Backlog, writer: EventWriter) -> None:
    try:
        writer.commit(backlog.take())
    except StoreUnavailableError:
        raise
    except StoreError as error:
        # as in a loop: what the store does not take is no reason to lose what comes after it
        logger.warning("%s could not be written: %s", backlog.batch.counted(), error)
    backlog.settle()


def _run(inbox: SimpleQueue[_Job | None], writer: EventWriter) -> None:
    while (job := inbox.get()) is not None:
        outcome: BatchOutcome | None = None
        error: BaseException | None = None
        try:
            outcome = writer.commit(job.batch)
        except BaseException as raised:  # noqa: BLE001 - whoever waits has to hear of it, whatever it was
            error = raised
        # a loop that has ended meanwhile awaits nothing; what it queued is settled at the end of the program
        with contextlib.suppress(RuntimeError):
            job.loop.call_soon_threadsafe(_answer, job.answer, outcome, error)
        writer.checkpoint_when_due()
    writer.close()


def _answer(
    answer: asyncio.Future[BatchOutcome], outcome: BatchOutcome | None, error: BaseException | None
) -> None:
    if answer.done():
        return
    if outcome is not None:
        answer.set_result(outcome)
    elif error is not None:
        answer.set_exception(error)
