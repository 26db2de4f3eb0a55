"""Opening: never longer than it may take; from a snapshot file where the store is away; and back to the store."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import promptab
from promptab import InvalidInputError, Lab, PromptVariant, StoreError, StoreUnavailableError
from promptab.snapshot import Snapshot
from promptab.snapshot_file import read_snapshot, write_snapshot
from promptab.stores import served
from tests.clock import SettableClock

AB = [PromptVariant("1.0.0"), PromptVariant("1.1.0")]
UNITS = [f"u{number}" for number in range(40)]
LONG_SECONDS = 20.0
"""Far more than any of this takes: past it something waits for ever."""


async def fill(lab: Lab) -> None:
    for number in ("1.0.0", "1.1.0"):
        version = await lab.versions.create_version(
            "greeting", "system", f"Hello {{{{ name }}}} ({number}).", number
        )
        await lab.versions.promote(version.version_id)
    await lab.experiments.create_experiment("greeting", "system", AB)


class Site:
    """A store in a folder that can be taken away, and a snapshot file beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "database"
        self.gone = folder / "gone"
        self.folder.mkdir()
        self.url = f"sqlite:///{self.folder / 'store.db'}"
        self.file = folder / "snapshot.json"

    def take_away(self) -> None:
        self.folder.rename(self.gone)

    def bring_back(self) -> None:
        self.gone.rename(self.folder)

    @asynccontextmanager
    async def opened(self, **how: Any) -> AsyncIterator[Lab]:
        async with promptab.open(self.url, snapshot_file=self.file, **how) as lab:
            yield lab


@pytest.fixture
async def site(tmp_path: Path) -> Site:
    """A store with a prompt, an experiment and units that were exposed to it; and then it is away."""
    made = Site(tmp_path)
    async with made.opened() as lab:
        await fill(lab)
        for unit in UNITS:
            await lab.choose("greeting", user_id=unit)
    made.take_away()
    return made


def numbers(snapshot: Snapshot | None) -> set[str]:
    return set() if snapshot is None else {version.version for version in snapshot.versions.values()}


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(LONG_SECONDS):
        while not holds():  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(0.01)


async def test_a_service_starts_from_the_file_that_another_one_kept(site: Site) -> None:
    site.bring_back()
    async with site.opened() as lab:
        expected = {unit: (await lab.choose("greeting", user_id=unit)).variant for unit in UNITS}
    site.take_away()
    async with site.opened() as lab:
        choices = {unit: await lab.choose("greeting", user_id=unit) for unit in UNITS}
        assert {unit: choice.variant for unit, choice in choices.items()} == expected
        assert choices["u0"].render(name="Ada").startswith("Hello Ada (1.")
        assert (await lab.choose("greeting", environment="production")).version is not None
        nowait = lab.choose_nowait("greeting", user_id="u0")
        assert nowait.variant == expected["u0"]
        assert lab.store.snapshot_age() > 0.0
        site.bring_back()


async def test_a_choice_from_an_old_file_says_how_old_it_is(site: Site, clock: SettableClock) -> None:
    filed = read_snapshot(site.file)
    clock.now = filed.taken_at
    clock.advance(hours=2)
    async with site.opened(clock=clock) as lab:
        choice = await lab.choose("greeting", user_id="ada")
        assert choice.stale
        assert 7200.0 <= choice.snapshot_age < 7200.0 + LONG_SECONDS
        site.bring_back()


async def test_everything_else_is_unavailable_until_the_store_is_back(site: Site) -> None:
    async with site.opened() as lab:
        with pytest.raises(StoreUnavailableError, match="folder exists"):
            await lab.versions.list_versions()
        with pytest.raises(StoreUnavailableError):
            await lab.versions.create_version("greeting", "system", "Later.")
        site.bring_back()
        assert len(await lab.versions.list_versions()) == 2


async def test_it_goes_over_to_the_store_when_that_is_back_and_writes_what_waited(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "CHECK_SECONDS", 0.01)
    async with site.opened() as lab:
        await lab.choose("greeting", user_id="new")
        assert (await lab.choose("greeting", user_id="ada")).variant in {"1.0.0", "1.1.0"}
        site.bring_back()
        async with promptab.open(site.url) as other:
            await other.versions.create_version("greeting", "system", "Brand new.", "3.0.0")
        production = [version.version for version in await lab.versions.list_versions("greeting")]
        assert "3.0.0" in production
        await until(lambda: "3.0.0" in numbers(lab.store.fresh_snapshot()))
        assert (await lab.choose("greeting", version="latest")).render() == "Brand new."
        exposed = await lab.experiments.get_experiment_assignments("greeting")
        assert {"new", "ada", *UNITS} == set(exposed)
    assert "3.0.0" in numbers(read_snapshot(site.file).snapshot)


async def test_a_unit_whose_range_has_moved_is_served_while_nobody_can_be_asked(site: Site) -> None:
    site.bring_back()
    async with site.opened() as lab:
        before = await lab.experiments.get_experiment_assignments("greeting")
        await lab.experiments.update_weights("greeting", {"1.0.0": 0.0, "1.1.0": 1.0}, lead_seconds=0)
        await lab.store.snapshot()
    site.take_away()
    async with site.opened() as lab:
        choices = {unit: await lab.choose("greeting", user_id=unit) for unit in [*UNITS, "new"]}
        moved = {unit for unit, choice in choices.items() if "the store is away" in choice.reason}
        assert {unit for unit in UNITS if before[unit] == "1.0.0"} == moved - {"new"}
        assert {choices[unit].variant for unit in moved} == {"1.1.0"}
        site.bring_back()
        await until(lambda: lab.store.fresh_snapshot() is not None and not lab.store.away)
        # what could not be asked is asked now, and was not remembered meanwhile
        after = {unit: (await lab.choose("greeting", user_id=unit)).variant for unit in UNITS}
        assert after == before


async def test_an_event_waits_for_the_store_that_was_away_at_the_start(site: Site) -> None:
    async with site.opened() as lab:
        choice = await lab.choose("greeting", user_id="ada")
        recording = asyncio.create_task(choice.record(success=True))
        await asyncio.sleep(0.1)
        assert not recording.done()
        site.bring_back()
        event = await asyncio.wait_for(recording, LONG_SECONDS)
        assert event.version_id is not None
        assert (await lab.metrics.get_metrics(event.version_id)).total_events == 1


async def test_the_file_of_another_store_is_void_as_soon_as_that_is_known(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "CHECK_SECONDS", 0.01)
    async with site.opened() as lab:
        assert (await lab.choose("greeting", user_id="ada")).variant is not None
        elsewhere = site.folder.with_name("elsewhere")
        elsewhere.mkdir()
        async with promptab.open(f"sqlite:///{elsewhere / 'store.db'}") as other:
            await other.versions.create_version("greeting", "system", "Of another store.")
            expected = other.store.store_id
        elsewhere.rename(site.folder)
        with caplog.at_level(logging.ERROR):
            await until(lambda: lab.store.fresh_snapshot() is not None and lab.store.store_id == expected)
        assert (await lab.choose("greeting", user_id="ada")).render() == "Of another store."
        assert any("another store" in record.getMessage() for record in caplog.records)


async def test_without_a_file_an_absent_store_is_an_error(site: Site) -> None:
    with pytest.raises(StoreUnavailableError, match="folder exists"):
        async with promptab.open(site.url):
            pytest.fail("it opened")


@pytest.mark.parametrize("damage", ["absent", "cut", "empty"])
async def test_an_absent_store_and_a_file_that_is_no_use_are_one_error_that_names_both(
    site: Site, damage: str
) -> None:
    if damage == "absent":
        site.file.unlink()
    else:
        site.file.write_bytes(site.file.read_bytes()[: -100 if damage == "cut" else 0])
    with pytest.raises(StoreUnavailableError, match=r"folder exists.*snapshot_file"):
        async with site.opened():
            pytest.fail("it opened")


async def test_a_store_that_can_be_reached_goes_before_the_file(site: Site) -> None:
    site.bring_back()
    site.file.write_text("nonsense")
    async with site.opened() as lab:
        assert (await lab.choose("greeting", user_id="ada")).variant is not None
    assert read_snapshot(site.file).snapshot.store_id == lab.store.store_id


async def test_no_version_stands_in_for_one_that_is_live_and_was_left_out_of_the_file(tmp_path: Path) -> None:
    site = Site(tmp_path)
    async with site.opened() as lab:
        live = await lab.versions.create_version("tone", "system", "Be kind.")
        await lab.versions.promote(live.version_id)
        await lab.versions.create_version("tone", "system", "Be rude.")
        only = await lab.versions.create_version("only", "system", "Be brief.")
        snapshot = await lab.store.snapshot()
    damaged = {
        version.version_id: version.model_copy(update={"content_hash": "0" * 64}) for version in (live, only)
    }
    versions = {**snapshot.versions, **damaged}
    write_snapshot(
        site.file, dataclasses.replace(snapshot, versions=versions), taken_at=datetime(2026, 1, 5, tzinfo=UTC)
    )
    site.take_away()
    async with site.opened() as lab:
        for environment in (None, "production"):
            with pytest.raises(StoreError, match=r"system/tone: what is live in production was left"):
                await lab.choose("tone", environment=environment)
        with pytest.raises(StoreError, match=r"system/only: the latest active version was left"):
            lab.choose_nowait("only")
        assert (await lab.choose("tone", version="1.0.1")).render() == "Be rude."


async def test_a_file_that_cannot_be_written_is_told_once_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "no such folder" / "snapshot.json"
    async with promptab.open(f"sqlite:///{tmp_path / 'store.db'}", snapshot_file=path) as lab:
        for number in range(3):
            await lab.versions.create_version("greeting", "system", f"{number}.")
            assert (await lab.choose("greeting")).render() == f"{number}."
    told = [record for record in caplog.records if "not kept up to date" in record.getMessage()]
    assert len(told) == 1


async def test_open_takes_no_longer_than_it_may(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with closing(sqlite3.connect(path)) as locker:
        locker.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        with pytest.raises(StoreUnavailableError, match=r"not open after 0\.2 s"):
            async with promptab.open(f"sqlite:///{path}", timeout=0.2):
                pytest.fail("it opened")
        # its own threads give up after five seconds; what is waited for is far less
        assert time.monotonic() - began < 4.0
        locker.rollback()
    async with promptab.open(f"sqlite:///{path}") as lab:
        await lab.versions.create_version("greeting", "system", "Hello.")


async def test_a_cancelled_opening_leaves_nothing_open(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    for steps in range(0, 60, 3):
        opening = asyncio.create_task(promptab.open(url).__aenter__())
        for _ in range(steps):
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait({opening})
        if not opening.cancelled():
            await opening.result().close()
    async with promptab.open(url) as lab:
        await lab.versions.create_version("greeting", "system", "Hello.")


@pytest.mark.parametrize("timeout", [0, -1, 0.01, 3601, float("nan"), float("inf"), "5", None, True])
def test_a_timeout_that_is_none_is_refused_at_once(timeout: Any) -> None:
    with pytest.raises(InvalidInputError, match="timeout"):
        promptab.open("sqlite:///:memory:", timeout=timeout)


@pytest.mark.parametrize("queue", [None, {"capacity": 5}, promptab.QueueSettings])
async def test_a_queue_that_is_no_settings_is_refused(queue: Any) -> None:
    with pytest.raises(InvalidInputError, match="queue"):
        await promptab.open("sqlite:///:memory:", queue=queue)


@pytest.mark.parametrize("path", ["", 7, b"snapshot", "a\x00b"])
def test_a_snapshot_file_that_is_no_path_is_refused_at_once(path: Any) -> None:
    with pytest.raises(InvalidInputError, match="snapshot_file"):
        promptab.open("sqlite:///:memory:", snapshot_file=path)


async def test_without_a_snapshot_a_lab_may_begin_with_fallbacks_alone(site: Site) -> None:
    site.file.unlink()
    with pytest.raises(StoreUnavailableError):
        async with site.opened():
            pass
    async with site.opened(may_be_away=True) as lab:
        with pytest.raises(StoreUnavailableError, match=r"store\.db"):
            await lab.choose("greeting", user_id="u0")
        choice = await lab.choose("greeting", user_id="u0", fallback="Hi {{ name }}.")
        assert (choice.render(name="Ada"), choice.source, choice.stale) == ("Hi Ada.", "fallback", True)
        site.bring_back()
        await until(lambda: lab.store.latest_snapshot() is not None)
        choice = await lab.choose("greeting", user_id="u0", fallback="Hi {{ name }}.")
        assert (choice.source, choice.stale) == ("experiment", False)
    assert numbers(read_snapshot(site.file).snapshot) == {"1.0.0", "1.1.0"}


async def test_a_store_that_has_never_answered_is_not_asked_by_every_caller(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "CHECK_SECONDS", LONG_SECONDS)
    async with promptab.open(site.url, may_be_away=True) as lab:
        site.bring_back()
        # within the time in which a store that failed is left alone, nobody waits for it
        with pytest.raises(StoreUnavailableError):
            await lab.choose("greeting", user_id="u0")


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_may_be_away_is_true_or_false(value: Any) -> None:
    with pytest.raises(InvalidInputError, match="may_be_away"):
        promptab.open(may_be_away=value)
