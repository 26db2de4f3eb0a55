"""Events while their store is away: a locked file, a full disk. They wait, and are written when it is back."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import promptab
from promptab import QueueSettings, StoreUnavailableError
from promptab.stores import sqlite

V1 = "11111111-1111-4111-8111-111111111111"
LONG_SECONDS = 30.0


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the file's write lock, as another process in the middle of a long write does."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            connection.execute("ROLLBACK")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.01)
    return tmp_path / "store.db"


async def test_events_wait_while_the_file_is_locked_and_are_written_afterwards(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with promptab.open(f"sqlite:///{path}") as lab:
        await lab.metrics.record_event(V1)
        with locked(path):
            waiting = [asyncio.ensure_future(lab.metrics.record_event(V1)) for _ in range(20)]
            lab.metrics.record_nowait(V1)
            await asyncio.sleep(0.3)
            assert not any(task.done() for task in waiting)
            assert "database is locked" in str(lab.metrics.stats().away)
            assert lab.metrics.stats().queued == 21
        async with asyncio.timeout(LONG_SECONDS):
            await asyncio.gather(*waiting)
            await lab.metrics.flush()
        assert lab.metrics.stats().away is None
        assert (await lab.metrics.get_metrics(V1)).total_events == 22
    levels = [record.levelno for record in caplog.records if record.name == "promptab"]
    assert levels == [logging.WARNING, logging.WARNING], "one for its going, one for its coming back"


@contextmanager
def files_that_do_not_grow_past(size: int) -> Iterator[None]:
    """Let every write behind that fail, as on a disk that is full."""
    resource = pytest.importorskip("resource", reason="there are no such limits on Windows")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_events_wait_while_the_disk_takes_no_more_and_are_written_when_it_does(path: Path) -> None:
    text = {"text": "x" * 50_000}
    async with promptab.open(f"sqlite:///{path}") as lab:
        await lab.metrics.record_event(V1)
        with files_that_do_not_grow_past(path.with_name("store.db-wal").stat().st_size + 100_000):
            waiting = [asyncio.ensure_future(lab.metrics.record_event(V1, metadata=text)) for _ in range(20)]
            async with asyncio.timeout(LONG_SECONDS):
                while lab.metrics.stats().away is None:  # noqa: ASYNC110 - nobody is told of it
                    await asyncio.sleep(0.01)
            assert not any(task.done() for task in waiting)
            # readers go on, and see nothing of a batch that could not be written whole
            assert (await lab.metrics.get_metrics(V1)).total_events == 1
        async with asyncio.timeout(LONG_SECONDS):
            stored = await asyncio.gather(*waiting)
        assert lab.metrics.stats().away is None
        assert {event.event_id for event in stored} < {
            event.event_id for event in await lab.metrics.get_events(V1)
        }
        assert len(await lab.metrics.get_events(V1)) == 21


async def test_closing_a_store_that_stays_away_ends_and_says_what_is_lost(path: Path) -> None:
    lab = await promptab.open(f"sqlite:///{path}", queue=QueueSettings(patience_seconds=0.2))
    with locked(path):
        lab.metrics.record_nowait(V1)
        async with asyncio.timeout(LONG_SECONDS):
            with pytest.raises(StoreUnavailableError, match=r"1 events could not be written within 0\.2 s"):
                await lab.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        await lab.metrics.record_event(V1)


async def test_an_event_that_a_caller_gave_up_on_is_written_when_the_file_is_free(path: Path) -> None:
    settings = QueueSettings(patience_seconds=0.1)
    async with promptab.open(f"sqlite:///{path}", queue=settings) as lab:
        event_id = str(uuid.uuid4())
        with locked(path), pytest.raises(StoreUnavailableError, match="only with the same event_id"):
            await lab.metrics.record_event(V1, event_id=event_id)
        await lab.metrics.flush(LONG_SECONDS)
        again = await lab.metrics.record_event(V1, event_id=event_id)
        assert [event.event_id for event in await lab.metrics.get_events(V1)] == [again.event_id]


async def test_a_version_is_created_as_soon_as_another_writer_is_done(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with promptab.open(f"sqlite:///{path}") as lab:
        with locked(path):
            creating = asyncio.ensure_future(lab.versions.create_version("tone", "system", "Be kind."))
            await asyncio.sleep(0.3)
            assert not creating.done()
        async with asyncio.timeout(LONG_SECONDS):
            assert (await creating).version == "1.0.0"


async def test_a_version_is_not_created_while_another_writer_goes_on(path: Path) -> None:
    async with promptab.open(f"sqlite:///{path}") as lab:
        with locked(path), pytest.raises(StoreUnavailableError, match="database is locked"):
            await lab.versions.create_version("tone", "system", "Be kind.")
        assert (await lab.versions.create_version("tone", "system", "Be kind.")).version == "1.0.0"
