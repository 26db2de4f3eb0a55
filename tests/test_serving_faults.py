"""Serving goes on: beside rows that were damaged, while the store is away, under load, and up to its closing."""

from __future__ import annotations

import asyncio
import gc
import logging
import sqlite3
import weakref
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import promptab
from promptab import (
    ConflictError,
    Deployment,
    Lab,
    PromptVariant,
    PromptVersion,
    StoreError,
    StoreUnavailableError,
    VersionManager,
)
from promptab.snapshot import Snapshot
from promptab.stores import served, sqlite
from promptab.stores.base import Store, Work
from promptab.stores.opening import open_store, sqlite_path
from promptab.stores.sql import SqlStore

AB = [PromptVariant(key="a", config={"tone": "warm"}), PromptVariant(key="b", config={"tone": "cool"})]
LONG_SECONDS = 10.0
"""Far more than any of this takes: past it something waits for ever."""


@pytest.fixture
def lasting_url(tmp_path: Path) -> str:
    """A file: what is done to it here behind promptab's back, PostgreSQL does not allow."""
    return f"sqlite:///{tmp_path / 'lasting.db'}"


def file_of(url: str) -> Path:
    path = sqlite_path(url)
    assert path is not None
    return Path(path)


def change_behind_its_back(url: str, statement: str, *parameters: object) -> None:
    with closing(sqlite3.connect(file_of(url))) as connection, connection:
        assert connection.execute(statement, parameters).rowcount == 1
        connection.execute("UPDATE promptab_store SET revision = revision + 1")


async def two_prompts(lab: Lab) -> tuple[PromptVersion, PromptVersion]:
    """Make two prompts, each with a production version and a running experiment of its own name."""
    made = []
    for name in ("sound", "damaged"):
        version = await lab.versions.create_version(name, "system", f"The {name} prompt.")
        await lab.versions.promote(version.version_id)
        await lab.experiments.create_experiment(name, "system", AB)
        made.append(version)
    return made[0], made[1]


async def in_turn(url: str, lab: Lab) -> list[tuple[str, str | None]]:
    """Choose the sound prompt in a lab that is open already and in one opened now; return version and variant."""
    # a write of its own makes the open lab look at once
    await lab.versions.create_version("other", "system", "Nothing to do with it.")
    found = []
    async with promptab.open(url) as reopened:
        for each in (lab, reopened):
            choice = await each.choose("sound", user_id="ada")
            version = await each.choose("sound", environment="production")
            assert version.version is not None
            found.append((version.version.version_id, choice.variant))
    return found


@pytest.mark.parametrize(
    "definition", ["{}", '{"unknown": 1}', "[]", "null", "not json", '{"variants": [{"key": "a"}]}']
)
async def test_an_experiment_whose_definition_is_damaged_is_left_out_alone(
    lasting_url: str, caplog: pytest.LogCaptureFixture, definition: str
) -> None:
    async with promptab.open(lasting_url) as lab:
        sound, damaged = await two_prompts(lab)
        change_behind_its_back(
            lasting_url, "UPDATE promptab_experiments SET definition = ? WHERE name = 'damaged'", definition
        )
        for version_id, variant in await in_turn(lasting_url, lab):
            assert version_id == sound.version_id
            assert variant in {"a", "b"}
        choice = await lab.choose("damaged", user_id="ada")
        assert choice.version is not None
        assert (choice.version.version_id, choice.experiment_id) == (damaged.version_id, None)
    assert any(
        record.levelno == logging.ERROR and "experiment" in record.getMessage() for record in caplog.records
    )


async def test_an_experiment_whose_status_is_damaged_is_left_out_alone(lasting_url: str) -> None:
    async with promptab.open(lasting_url) as lab:
        sound, damaged = await two_prompts(lab)
        change_behind_its_back(
            lasting_url, "UPDATE promptab_experiments SET status = 'garbage' WHERE name = 'damaged'"
        )
        for version_id, variant in await in_turn(lasting_url, lab):
            assert version_id == sound.version_id
            assert variant in {"a", "b"}
        choice = await lab.choose("damaged", user_id="ada")
        assert choice.version is not None
        assert (choice.version.version_id, choice.experiment_id) == (damaged.version_id, None)


@pytest.mark.parametrize("column", ["segments", "weights", "evicted"])
@pytest.mark.parametrize("value", ['"garbage"', "[7]", "not json"])
async def test_an_experiment_with_a_damaged_epoch_is_left_out_alone(
    lasting_url: str, caplog: pytest.LogCaptureFixture, column: str, value: str
) -> None:
    async with promptab.open(lasting_url) as lab:
        sound, _ = await two_prompts(lab)
        change_behind_its_back(
            lasting_url,
            f"UPDATE promptab_epochs SET {column} = ? WHERE experiment_id ="
            " (SELECT experiment_id FROM promptab_experiments WHERE name = 'damaged')",
            value,
        )
        for version_id, variant in await in_turn(lasting_url, lab):
            assert version_id == sound.version_id
            assert variant in {"a", "b"}
    assert any(record.levelno == logging.ERROR for record in caplog.records)


async def test_an_experiment_dealt_to_a_variant_that_it_does_not_have_is_left_out_alone(
    lasting_url: str,
) -> None:
    async with promptab.open(lasting_url) as lab:
        sound, damaged = await two_prompts(lab)
        change_behind_its_back(
            lasting_url,
            "UPDATE promptab_epochs SET segments = replace(segments, '\"b\"', '\"nobody\"') WHERE experiment_id ="
            " (SELECT experiment_id FROM promptab_experiments WHERE name = 'damaged')",
        )
        assert {version_id for version_id, _ in await in_turn(lasting_url, lab)} == {sound.version_id}
        choices = [await lab.choose("damaged", user_id=number) for number in range(20)]
        assert {(choice.content_hash, choice.experiment_id) for choice in choices} == {
            (damaged.content_hash, None)
        }


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("content", '{"unknown": 1}'),
        ("content", "[]"),
        ("content", "null"),
        ("content", "not json"),
        ("created_at", "no time"),
        ("created_at", 2**62),
    ],
)
async def test_a_version_that_is_damaged_is_left_out_alone(
    lasting_url: str, caplog: pytest.LogCaptureFixture, column: str, value: str | int
) -> None:
    async with promptab.open(lasting_url) as lab:
        sound, damaged = await two_prompts(lab)
        change_behind_its_back(
            lasting_url,
            f"UPDATE promptab_versions SET {column} = ? WHERE version_id = ?",
            value,
            damaged.version_id,
        )
        for version_id, variant in await in_turn(lasting_url, lab):
            assert version_id == sound.version_id
            assert variant in {"a", "b"}
        with pytest.raises(StoreError, match="what is live in production was left out"):
            await lab.choose("damaged", environment="production")
    assert any(damaged.version_id in record.getMessage() for record in caplog.records)


class Away:
    """A store whose snapshots fail while `gone`, counting how often it is asked for one."""

    def __init__(self, store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gone = False
        self.asked = 0
        look = store._served._look

        async def look_or_fail(changes: int) -> Snapshot:
            self.asked += 1
            if self.gone:
                raise StoreUnavailableError("the disk is gone")
            return await look(changes)

        monkeypatch.setattr(store._served, "_look", look_or_fail)


def due_always(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every call be one that asks the store whether something has changed."""
    monkeypatch.setattr(served, "CHECK_SECONDS", -1.0)
    monkeypatch.setattr(served, "LATEST_SECONDS", -1.0)
    store._served.hint()


async def opened(url: str) -> SqlStore:
    store = await open_store(url)
    assert isinstance(store, SqlStore)
    return store


async def test_choose_goes_on_from_the_last_snapshot_while_the_store_is_away(
    lasting_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = await opened(lasting_url)
    async with Lab(store) as lab:
        sound, _ = await two_prompts(lab)
        await lab.choose("sound", user_id="ada")
        away = Away(store, monkeypatch)
        away.gone = True
        due_always(store, monkeypatch)
        for _ in range(5):
            choice = await lab.choose("sound", environment="production")
            assert choice.version is not None
            assert choice.version.version_id == sound.version_id
            assert (await lab.choose("sound", user_id="ada")).variant in {"a", "b"}
            await asyncio.sleep(0)  # for the check that each call begins
        assert away.asked > 1
        warnings = [record for record in caplog.records if "the disk is gone" in record.getMessage()]
        assert len(warnings) == 1


async def test_a_store_that_is_away_is_asked_once_per_check_and_no_oftener(
    lasting_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await opened(lasting_url)
    async with Lab(store) as lab:
        await two_prompts(lab)
        await lab.choose("sound", user_id="ada")
        away = Away(store, monkeypatch)
        away.gone = True
        monkeypatch.setattr(served, "CHECK_SECONDS", 3600.0)
        # what this process writes itself would otherwise be looked for at once
        await lab.versions.create_version("sound", "system", "A later one.")
        for number in range(20):
            await lab.choose("sound", user_id=number)
        assert away.asked == 1


async def test_choose_sees_what_has_changed_once_the_store_is_back(
    lasting_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = await opened(lasting_url)
    async with Lab(store) as lab:
        await two_prompts(lab)
        await lab.choose("sound", user_id="ada")
        away = Away(store, monkeypatch)
        due_always(store, monkeypatch)
        for going in range(2):
            away.gone = True
            later = await lab.versions.create_version("sound", "system", f"Later, {going}.")
            await lab.versions.promote(later.version_id)
            stale = await lab.choose("sound", environment="production")
            assert stale.version is not None
            assert stale.version.version_id != later.version_id
            away.gone = False
            fresh = await lab.choose("sound", environment="production")
            assert fresh.version is not None
            assert fresh.version.version_id == later.version_id
        warnings = [record for record in caplog.records if "the disk is gone" in record.getMessage()]
        assert len(warnings) == 2, "each time it goes away is logged once"


async def test_a_store_that_is_away_from_the_beginning_is_an_error(
    lasting_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await opened(lasting_url)
    Away(store, monkeypatch).gone = True
    async with Lab(store) as lab:
        with pytest.raises(StoreUnavailableError, match="the disk is gone"):
            await lab.choose("sound")


async def test_flush_returns_while_others_keep_recording(lab: Lab, store: Store) -> None:
    over = asyncio.Event()

    async def keep_recording() -> None:
        for _ in range(1_000):
            if over.is_set():
                return
            await lab.metrics.record_event(None, success=True)

    recording = [asyncio.create_task(keep_recording()) for _ in range(20)]
    await asyncio.sleep(0)
    await asyncio.wait_for(store.flush(), LONG_SECONDS)
    ended = [task.done() for task in recording]
    over.set()
    await asyncio.gather(*recording)
    assert not any(ended)


async def test_tags_and_events_at_once_never_find_the_file_locked(
    lasting_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # without patience: writers of one process come in turn, and never have to wait in SQLite
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.0)
    async with promptab.open(lasting_url) as lab:
        version = await lab.versions.create_version("greeting", "system", "Hello.")
        calls = [
            call
            for number in range(50)
            for call in (
                lab.versions.tag_version(version.version_id, f"tag{number}"),
                lab.metrics.record_event(version.version_id, success=True),
            )
        ]
        await asyncio.gather(*calls)
        tagged = await lab.versions.get_version_by_id(version.version_id)
        assert tagged is not None
        assert len(tagged.tags) == 50
        assert (await lab.metrics.get_metrics(version.version_id)).total_events == 50


async def test_of_two_rollbacks_at_once_one_moves_and_one_is_told() -> None:
    async with promptab.open("sqlite:///:memory:") as lab:
        made = [await lab.versions.create_version("greeting", "system", f"{n}.") for n in range(3)]
        for version in made:
            await lab.versions.promote(version.version_id)
        outcomes = await asyncio.gather(
            *(lab.versions.rollback("greeting", "system") for _ in range(2)), return_exceptions=True
        )
        assert sorted(type(outcome).__name__ for outcome in outcomes) == [
            ConflictError.__name__,
            Deployment.__name__,
        ]
        choice = await lab.choose("greeting", environment="production")
        assert choice.version is not None
        assert choice.version.version_id == made[1].version_id


def exposures_in(url: str) -> int:
    with closing(sqlite3.connect(file_of(url))) as connection:
        return int(connection.execute("SELECT count(*) FROM promptab_exposures").fetchone()[0])


async def test_a_cancelled_close_still_writes_what_is_queued(lasting_url: str) -> None:
    lab = Lab(await open_store(lasting_url))
    await two_prompts(lab)
    for number in range(30):
        await lab.choose("sound", user_id=number)
    closing_task = asyncio.create_task(lab.close())
    await asyncio.sleep(0)
    closing_task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing_task
    await asyncio.wait_for(lab.close(), LONG_SECONDS)
    assert exposures_in(lasting_url) == 30


async def test_two_closes_at_once_both_return_after_the_work_is_done(lasting_url: str) -> None:
    lab = Lab(await open_store(lasting_url))
    await two_prompts(lab)
    for number in range(30):
        await lab.choose("sound", user_id=number)

    async def written_at_its_return() -> int:
        await lab.close()
        return exposures_in(lasting_url)

    first, second = await asyncio.gather(written_at_its_return(), written_at_its_return())
    assert first == second == 30


def test_loops_that_used_the_default_store_are_collected(
    lasting_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMPTAB_URL", lasting_url)
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def use_the_default_store() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        assert await VersionManager().list_versions() == []

    for _ in range(10):
        asyncio.run(use_the_default_store())
    gc.collect()
    assert [loop() for loop in loops] == [None] * 10


async def test_a_file_made_by_vacuum_into_is_in_wal_mode_after_it_has_been_opened(
    lasting_url: str, tmp_path: Path
) -> None:
    def journal_of(path: Path) -> str:
        with closing(sqlite3.connect(path)) as connection:
            return str(connection.execute("PRAGMA journal_mode").fetchone()[0])

    await (await open_store(lasting_url)).close()
    copy = tmp_path / "copy.db"
    with closing(sqlite3.connect(file_of(lasting_url))) as connection:
        connection.execute("VACUUM INTO ?", (str(copy),))
    assert journal_of(copy) == "delete"
    await (await open_store(f"sqlite:///{copy}")).close()
    assert journal_of(copy) == "wal"


@pytest.mark.parametrize("version", ["latest", "^1.0", "1.0.0", "eu"])
async def test_a_version_asked_for_is_read_once_in_one_snapshot(
    lab: Lab, store: Store, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    first = await lab.versions.create_version("greeting", "system", "Hello.", version="1.0.0", tags=["eu"])
    await lab.versions.create_version("greeting", "system", "Hello again.", version="1.1.0")
    reads = 0
    read = store.read

    async def counted(work: Work[Any]) -> Any:
        nonlocal reads
        reads += 1
        return await read(work)

    monkeypatch.setattr(store, "read", counted)
    chosen = (await lab.choose("greeting", version=version)).version
    asked = reads
    for _ in range(5):
        assert (await lab.choose("greeting", version=version)).version == chosen
    assert reads == asked
    later = await lab.versions.create_version("greeting", "system", "Later.", version="1.2.0")
    after = (await lab.choose("greeting", version=version)).version
    assert after is not None
    assert after.version_id == (first if version in {"1.0.0", "eu"} else later).version_id
