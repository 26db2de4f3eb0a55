"""The thread that writes events: whoever ends it, and whenever, each batch is written, by one thread at a time."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from promptab.stores.backlog import BATCH_ROWS, Backlog
from promptab.stores.event_batch import sqlite_row
from promptab.stores.event_rows import EVENT_COLUMNS, Batch
from promptab.stores.event_thread import EventThread, EventWriter, write_the_rest
from promptab.stores.opening import open_store
from tests.contract.records import an_event

ROUNDS = 100
ENDERS = 2
HANG_SECONDS = 30.0


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A file with promptab's tables."""
    made = tmp_path / "store.db"
    await (await open_store(f"sqlite:///{made}")).close()
    return made


@pytest.fixture
def thread(path: Path) -> EventThread:
    return EventThread(
        partial(EventWriter, str(path), url="sqlite:///store.db", durability="normal", busy_seconds=10.0)
    )


@pytest.fixture
def threads_that_take_turns_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def a_batch() -> Batch:
    return Batch((), [sqlite_row(an_event())])


def writing_threads() -> set[threading.Thread]:
    return {running for running in threading.enumerate() if running.name == "promptab-events"}


def count(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM promptab_events").fetchone()[0])


@pytest.mark.usefixtures("threads_that_take_turns_often")
async def test_every_batch_is_written_while_other_threads_end_the_writing_one(
    path: Path, thread: EventThread
) -> None:
    """As a fork from another thread does; a connection in the wrong thread would be an unhandled error here."""
    done = threading.Event()

    def end_again_and_again() -> None:
        while not done.is_set():
            thread.end()

    with ThreadPoolExecutor(ENDERS) as enders:
        ending = [enders.submit(end_again_and_again) for _ in range(ENDERS)]
        try:
            async with asyncio.timeout(HANG_SECONDS):
                for _ in range(ROUNDS):
                    await asyncio.gather(*(thread.write(a_batch()) for _ in range(3)))
        finally:
            done.set()
    assert [ender.result() for ender in ending] == [None] * ENDERS
    assert thread.end()
    assert count(path) == 3 * ROUNDS


async def test_a_batch_after_the_end_has_a_thread_and_a_connection_of_its_own(
    path: Path, thread: EventThread
) -> None:
    """Also where the thread before is still busy, and the end did not wait for it."""
    before = writing_threads()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        first = thread.write(a_batch())
        assert not thread.end(0.01)
        second = thread.write(a_batch())
        assert len(writing_threads() - before) == 2
        other.execute("ROLLBACK")
    async with asyncio.timeout(HANG_SECONDS):
        await asyncio.gather(first, second)
    assert thread.end()
    assert count(path) == 2


async def test_at_the_end_a_batch_that_the_file_refuses_takes_no_other_along(
    path: Path, thread: EventThread, caplog: pytest.LogCaptureFixture
) -> None:
    backlog = Backlog(capacity=2 * BATCH_ROWS, capacity_bytes=2**30)
    for number in range(BATCH_ROWS + 3):
        event = an_event()
        row = list(sqlite_row(event))
        if number == 5:
            row[EVENT_COLUMNS.index("kind")] = None  # what no check at the door lets through
        backlog.add(tuple(row), event, None, 0.0)
    write_the_rest(backlog, thread, "sqlite:///store.db")
    assert count(path) == 3
    assert f"{BATCH_ROWS} events could not be written: sqlite:///store.db: NOT NULL" in caplog.text


async def test_at_the_end_what_a_file_that_is_away_did_not_take_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = partial(
        EventWriter, str(tmp_path / "gone" / "store.db"), url="u", durability="normal", busy_seconds=0.01
    )
    backlog = Backlog(capacity=10, capacity_bytes=2**20)
    backlog.add(sqlite_row(event := an_event()), event, None, 0.0)
    write_the_rest(backlog, EventThread(writer), "sqlite:///store.db")
    assert "sqlite:///store.db: 1 events were never written; close the lab" in caplog.text


async def test_an_end_without_a_beginning_is_in_time(thread: EventThread) -> None:
    assert thread.end()


async def test_the_first_batch_too_waits_for_somebody_who_locks_the_file_altogether(
    path: Path, thread: EventThread
) -> None:
    """As whoever closes it as its last user does, for a moment."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN IMMEDIATE")
        other.execute("COMMIT")
        written = thread.write(a_batch())
        await asyncio.wait({written}, timeout=0.2)
        assert not written.done()
    async with asyncio.timeout(HANG_SECONDS):
        await written
    assert thread.end()
    assert count(path) == 1


async def test_a_child_hears_that_the_thread_of_its_parent_had_begun(path: Path, thread: EventThread) -> None:
    assert not thread.after_fork_in_child()
    await thread.write(a_batch())
    parents = writing_threads()
    assert thread.after_fork_in_child()
    await thread.write(a_batch())
    assert len(writing_threads() - parents) == 1
    assert thread.end()
    assert count(path) == 2
