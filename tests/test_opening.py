"""Opening a store by its URL, and the default store that managers made without arguments share."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

import promptab
from promptab import ABTestManager, InvalidInputError, MetricsCollector, StoreUnavailableError, VersionManager
from promptab.stores.opening import default_store, open_store, resolve_url


def prompts_in(path: Path) -> list[str]:
    """Return the names of the prompts in a database file, read without promptab."""
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT name FROM promptab_versions ORDER BY name").fetchall()
    connection.close()
    return [name for (name,) in rows]


def test_resolve_url_prefers_the_argument_to_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMPTAB_URL", "sqlite:///environment.db")
    assert resolve_url("sqlite:///argument.db") == "sqlite:///argument.db"
    assert resolve_url(None) == "sqlite:///environment.db"


def test_resolve_url_falls_back_to_a_file_in_the_working_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMPTAB_URL", raising=False)
    assert resolve_url(None) == "sqlite:///promptab.db"
    monkeypatch.setenv("PROMPTAB_URL", "")
    assert resolve_url(None) == "sqlite:///promptab.db"


async def test_open_without_a_url_makes_promptab_db_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PROMPTAB_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    async with promptab.open() as lab:
        await lab.versions.create_version("tone", "system", "Be kind.")
    assert prompts_in(tmp_path / "promptab.db") == ["tone"]


async def test_open_takes_the_url_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMPTAB_URL", f"sqlite:///{tmp_path / 'named.db'}")
    async with promptab.open() as lab:
        await lab.versions.create_version("tone", "system", "Be kind.")
    assert prompts_in(tmp_path / "named.db") == ["tone"]


@pytest.mark.parametrize(
    "name", ["a b.db", "ä.db", "50%20.db", "#1.db", "a@b:c.db", "x.sqlite3", "-rf", "'q\".db", "+.db"]
)
async def test_open_makes_the_very_file_that_the_url_names(tmp_path: Path, name: str) -> None:
    async with promptab.open(f"sqlite:///{tmp_path / name}") as lab:
        version = await lab.versions.create_version("tone", "system", "Be kind.")
        await lab.metrics.record_event(version.version_id, success=True)
        assert (await lab.metrics.get_metrics(version.version_id)).total_events == 1
    assert {path.name for path in tmp_path.iterdir()} == {name}
    assert prompts_in(tmp_path / name) == ["tone"]


async def test_a_relative_file_stays_the_same_when_the_working_folder_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    monkeypatch.chdir(first)
    async with promptab.open("sqlite:///store.db") as lab:
        version = await lab.versions.create_version("tone", "system", "Be kind.")
        monkeypatch.chdir(second)
        await lab.metrics.record_event(version.version_id, success=True)
        await asyncio.gather(*(lab.versions.get_version_by_id(version.version_id) for _ in range(20)))
        assert (await lab.metrics.get_metrics(version.version_id)).total_events == 1
    assert list(second.iterdir()) == []


@pytest.mark.parametrize("url", ["sqlite:///:memory:", "sqlite://", "sqlite:///"])
async def test_open_in_memory_makes_no_file(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with promptab.open(url) as lab:
        await lab.versions.create_version("tone", "system", "Be kind.")
        assert lab.store.url == "sqlite:///:memory:"
    assert list(tmp_path.iterdir()) == []


async def test_two_stores_in_memory_are_apart() -> None:
    async with promptab.open("sqlite:///:memory:") as one, promptab.open("sqlite:///:memory:") as other:
        await one.versions.create_version("tone", "system", "Be kind.")
        assert await other.versions.list_versions() == []
        assert one.store.store_id != other.store.store_id


@pytest.mark.parametrize(
    "url",
    [
        "mysql://ada:hunter2@localhost/promptab",
        "redis://:hunter2@localhost",
    ],
)
async def test_a_url_of_another_kind_is_refused_without_showing_its_password(url: str) -> None:
    with pytest.raises(InvalidInputError, match="write sqlite:") as caught:
        await open_store(url)
    assert caught.value.field == "url"
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value)
    assert "hunter2" not in str(caught.value.value)


@pytest.mark.parametrize("url", [Path("promptab.db"), b"postgresql://ada:hunter2@host/db", 7])
async def test_a_url_that_is_no_text_is_refused_without_showing_it(url: Any) -> None:
    with pytest.raises(InvalidInputError, match=f"url: '{type(url).__name__}' is not text; write sqlite:///"):
        await promptab.open(url)


@pytest.mark.parametrize(
    "url", ["promptab.db", "sqlite:promptab.db", "sqlite:/promptab.db", "file:promptab.db", " "]
)
async def test_a_path_that_is_no_url_is_refused_with_the_form_to_write(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match="write sqlite:"):
        await open_store(url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url", ["sqlite:///store.db?mode=ro", "sqlite:///store.db\x00.txt"], ids=["options", "nul"]
)
async def test_options_and_control_characters_in_a_sqlite_url_are_refused(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match="path of the file"):
        await open_store(url)
    assert list(tmp_path.iterdir()) == []


async def test_a_missing_folder_is_unavailable_and_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="folder exists"):
        await open_store(f"sqlite:///{tmp_path / 'absent' / 'store.db'}")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_open_leaves_no_thread_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that answers to a loop which has ended prints a traceback under the error that was meant."""
    failures: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", failures.append)
    before = threading.active_count()
    for _ in range(60):
        with pytest.raises(StoreUnavailableError):
            asyncio.run(open_store(f"sqlite:///{tmp_path / 'absent' / 'store.db'}"))
    for thread in threading.enumerate():
        if thread.name.startswith("Thread-"):
            thread.join(timeout=10)
    assert failures == []
    assert threading.active_count() == before


async def test_managers_without_arguments_share_one_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMPTAB_URL", f"sqlite:///{tmp_path / 'default.db'}")
    version = await VersionManager().create_version("tone", "system", "Be kind.")
    await MetricsCollector().record_event(version.version_id, success=True)
    assert (await VersionManager().get_version("tone", "system")) == version
    assert (await MetricsCollector().get_metrics(version.version_id)).total_events == 1
    assert await ABTestManager().list_experiments() == []
    assert await default_store() is await default_store()


def test_making_a_manager_without_arguments_does_no_io(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMPTAB_URL", f"sqlite:///{tmp_path / 'default.db'}")
    VersionManager()
    ABTestManager()
    MetricsCollector()
    assert list(tmp_path.iterdir()) == []


async def test_many_first_calls_at_once_open_one_default_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMPTAB_URL", f"sqlite:///{tmp_path / 'default.db'}")
    opened = await asyncio.gather(*(default_store() for _ in range(20)))
    assert all(store is opened[0] for store in opened)


async def test_another_url_is_another_default_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = VersionManager()
    for name in ("one", "two"):
        monkeypatch.setenv("PROMPTAB_URL", f"sqlite:///{tmp_path / name}.db")
        await manager.create_version(name, "system", "Be kind.")
    assert prompts_in(tmp_path / "one.db") == ["one"]
    assert prompts_in(tmp_path / "two.db") == ["two"]


async def test_default_store_is_tried_again_after_it_failed_to_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMPTAB_URL", f"sqlite:///{tmp_path / 'later' / 'default.db'}")
    with pytest.raises(StoreUnavailableError):
        await VersionManager().list_versions()
    (tmp_path / "later").mkdir()
    assert await VersionManager().list_versions() == []


async def test_default_store_survives_a_first_caller_that_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMPTAB_URL", f"sqlite:///{tmp_path / 'default.db'}")
    first = asyncio.create_task(default_store())
    second = asyncio.create_task(default_store())
    await asyncio.sleep(0)
    first.cancel()
    assert await second is await default_store()
    assert first.cancelled()


def test_two_loops_one_after_the_other_each_have_a_default_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMPTAB_URL", f"sqlite:///{tmp_path / 'default.db'}")
    manager, collector = VersionManager(), MetricsCollector()

    async def use() -> int:
        version = await manager.create_version("tone", "system", "Be kind.")
        await collector.record_event(version.version_id, success=True)
        return len(await manager.list_versions("tone", "system"))

    assert [asyncio.run(use()) for _ in range(3)] == [1, 2, 3]
    # every loop closed its store: nothing is left beside the file itself
    assert [path.name for path in tmp_path.iterdir()] == ["default.db"]


def test_a_loop_that_ends_writes_the_exposures_that_were_queued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMPTAB_URL", f"sqlite:///{tmp_path / 'default.db'}")
    manager = ABTestManager()

    async def assign() -> None:
        await manager.create_experiment(
            "tone", "system", [{"key": "a", "config": {}}, {"key": "b", "config": {}}]
        )
        for user in range(50):
            await manager.assign("tone", user)

    async def assigned() -> dict[str, str]:
        return await manager.get_experiment_assignments("tone")

    asyncio.run(assign())
    assert set(asyncio.run(assigned())) == {str(user) for user in range(50)}


async def test_open_twice_on_one_file_is_two_stores_of_one_database(lasting_url: str) -> None:
    async with promptab.open(lasting_url) as one, promptab.open(lasting_url) as other:
        assert one.store is not other.store
        assert one.store.store_id == other.store.store_id
        version = await one.versions.create_version("tone", "system", "Be kind.")
        assert await other.versions.get_version_by_id(version.version_id) == version


async def test_a_lab_that_was_awaited_can_be_closed_by_hand(lasting_url: str) -> None:
    lab = await promptab.open(lasting_url)
    await lab.versions.create_version("tone", "system", "Be kind.")
    await lab.close()
    await lab.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        await lab.versions.list_versions()
