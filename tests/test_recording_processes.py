"""Many processes that write to one file, and that nobody of them notices.

A few for two seconds; twelve for 20 with PROMPTAB_FULL_RACES=1.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import promptab
from tests.processes import race
from tests.workers.ending import VERSION_ID

FULL = os.environ.get("PROMPTAB_FULL_RACES") == "1"
WRITERS, READERS, SECONDS = (8, 4, 20.0) if FULL else (3, 2, 2.0)


async def test_no_lock_reaches_a_caller_of_many_writers_and_readers(
    lasting_url: str, assert_whole: Callable[[str], None], record_property: Callable[[str, object], None]
) -> None:
    async with promptab.open(lasting_url) as lab:
        await lab.versions.create_version("tone", "system", "Be kind.")
    writing = ("write_for", {"seconds": SECONDS, "callers": 16})
    reading = ("read_for", {"seconds": SECONDS})
    results = race(lasting_url, [writing] * WRITERS + [reading] * READERS)
    writers, readers = results[:WRITERS], results[WRITERS:]
    assert [error for result in results for error in result["errors"]] == []

    acknowledged = [event_id for writer in writers for event_id in writer["acknowledged"]]
    assert min(len(writer["acknowledged"]) for writer in writers) > 0
    async with promptab.open(lasting_url) as lab:
        stored = [event.event_id for event in await lab.metrics.get_events(VERSION_ID)]
    assert sorted(stored) == sorted(acknowledged)
    for reader in readers:
        assert reader["seen"] == sorted(reader["seen"]), "what was there once is there in every later look"
    assert_whole(lasting_url)
    record_property("events per second", round(len(stored) / SECONDS))
    record_property("p99 seconds", [round(writer["p99"], 3) for writer in writers])


@pytest.mark.parametrize("held_open", [False, True], ids=["free", "read meanwhile"])
async def test_the_log_is_cut_down_when_nobody_reads_an_old_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, held_open: bool
) -> None:
    """A reader that stays keeps the log from being copied into the file, and it grows; after that it shrinks."""
    monkeypatch.setattr("promptab.stores.event_thread.CHECKPOINT_PAGES", 20)
    monkeypatch.setattr("promptab.stores.event_thread.LARGEST_LOG_PAGES", 100)
    path = tmp_path / "store.db"
    log = tmp_path / "store.db-wal"
    async with promptab.open(f"sqlite:///{path}") as lab:

        async def record(count: int) -> None:
            text = {"text": "x" * 2_000}
            await lab.metrics.record_many([{"version_id": VERSION_ID, "metadata": text}] * count)
            await lab.metrics.record_event(VERSION_ID)

        await record(1)
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            if held_open:
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM promptab_events").fetchone()
            for _ in range(10):
                await record(100)
            grown = log.stat().st_size
        warned = [line for line in caplog.messages if "write-ahead log has grown" in line]
        assert len(warned) == (1 if held_open else 0)
        assert (grown > 200 * 4096) == held_open
        for _ in range(10):
            await record(100)
        assert log.stat().st_size < 200 * 4096
        assert (await lab.metrics.get_metrics(VERSION_ID)).total_events == 1 + 1 + 20 * 101
