"""Keeping a snapshot fresh: who waits, who does not, and what runs when nobody asks."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

import pytest

from promptab.errors import StoreError, StoreUnavailableError
from promptab.snapshot import Snapshot
from promptab.stores import served
from promptab.stores.served import Revisions, ServedSnapshot


def snapshot(revision: int) -> Snapshot:
    return Snapshot(
        store_id="store", revision=revision, experiments=(), live={}, latest={}, versions={}, numbers={}
    )


class Database:
    """What a store would show, with a count of how often it is asked for the whole and for its revision."""

    def __init__(self) -> None:
        self.revision = 1
        self.taken = 0
        self.asked = 0
        self.failure: StoreError | None = None
        self.free = asyncio.Event()
        self.free.set()
        self.closed = False

    async def take(self, current: Snapshot | None) -> Snapshot:
        self.taken += 1
        revision = self.revision
        await self._answer()
        return current if current is not None and current.revision == revision else snapshot(revision)

    async def current(self) -> int:
        self.asked += 1
        await self._answer()
        return self.revision

    async def close(self) -> None:
        self.closed = True

    async def _answer(self) -> None:
        await self.free.wait()
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def shared(database: Database) -> ServedSnapshot:
    """The snapshot of a store that other processes write to as well."""
    return ServedSnapshot(database.take, lambda: database, url="store")


@pytest.fixture
def due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every call find that a check is due, and none that it must wait for it."""
    monkeypatch.setattr(served, "CHECK_SECONDS", -1.0)
    monkeypatch.setattr(served, "LATEST_SECONDS", 3600.0)


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every call find that the last check was too long ago."""
    monkeypatch.setattr(served, "CHECK_SECONDS", -1.0)
    monkeypatch.setattr(served, "LATEST_SECONDS", -1.0)


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def number(found: Snapshot | None) -> int | None:
    return None if found is None else found.revision


async def test_nothing_is_fresh_before_the_first_and_get_takes_it(
    shared: ServedSnapshot, database: Database
) -> None:
    assert shared.fresh() is None
    assert shared.age() == float("inf")
    first = await shared.get()
    assert first.revision == 1
    assert shared.fresh() is first
    assert (database.taken, database.asked) == (1, 0)


async def test_a_fresh_snapshot_is_given_out_without_asking_anybody(
    shared: ServedSnapshot, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "CHECK_SECONDS", 3600.0)
    first = await shared.get()
    tasks = asyncio.all_tasks()
    assert {id(shared.fresh()) for _ in range(1_000)} == {id(first)}
    assert {id(await shared.get()) for _ in range(100)} == {id(first)}
    assert asyncio.all_tasks() == tasks
    assert (database.taken, database.asked) == (1, 0)


@pytest.mark.usefixtures("due")
async def test_a_check_that_is_due_goes_on_behind_the_one_who_asks(
    shared: ServedSnapshot, database: Database
) -> None:
    first = await shared.get()
    database.revision = 2
    assert shared.fresh() is first, "whoever asks is answered from what is at hand"
    await settled()
    assert number(shared.fresh()) == 2


@pytest.mark.usefixtures("due")
async def test_an_unchanged_revision_keeps_the_very_snapshot(
    shared: ServedSnapshot, database: Database
) -> None:
    first = await shared.get()
    for _ in range(5):
        assert shared.fresh() is first
        await settled()
    assert database.taken == 1
    assert database.asked >= 4


@pytest.mark.usefixtures("due")
async def test_many_who_ask_at_once_share_one_check(shared: ServedSnapshot, database: Database) -> None:
    await shared.get()
    for _ in range(100):
        shared.fresh()
    await settled()
    assert database.asked == 1


@pytest.mark.usefixtures("late")
async def test_past_the_limit_a_caller_waits_for_what_is_true_now(
    shared: ServedSnapshot, database: Database
) -> None:
    await shared.get()
    database.revision = 2
    assert shared.fresh() is None
    assert (await shared.get()).revision == 2


async def test_nothing_runs_while_nobody_asks(
    shared: ServedSnapshot, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "CHECK_SECONDS", 0.001)
    await shared.get()
    scheduled = len(asyncio.get_running_loop()._scheduled)  # type: ignore[attr-defined] # what the loop would wake up for
    for _ in range(10):
        await asyncio.sleep(0.005)
    assert (database.taken, database.asked) == (1, 0)
    assert len(asyncio.all_tasks()) == 1
    assert len(asyncio.get_running_loop()._scheduled) <= scheduled  # type: ignore[attr-defined]


async def test_a_write_of_this_process_is_in_the_next_snapshot(
    shared: ServedSnapshot, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "CHECK_SECONDS", 3600.0)
    await shared.get()
    database.revision = 2
    shared.changed()
    assert shared.fresh() is None
    assert (await shared.get()).revision == 2


async def test_a_write_that_ends_during_a_check_is_not_missed(
    shared: ServedSnapshot, database: Database
) -> None:
    database.free.clear()
    asking = asyncio.create_task(shared.get())
    await settled()
    database.revision = 2
    shared.changed()
    database.free.set()
    await asking
    assert (await shared.get()).revision == 2


async def test_a_hint_makes_the_next_caller_start_a_check(
    shared: ServedSnapshot, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "LATEST_SECONDS", 3600.0)
    monkeypatch.setattr(served, "CHECK_SECONDS", 3600.0)
    first = await shared.get()
    database.revision = 2
    shared.hint()
    assert shared.fresh() is first
    await settled()
    assert number(shared.fresh()) == 2


async def test_nobody_else_writes_to_a_store_without_a_source(database: Database) -> None:
    alone = ServedSnapshot(database.take, lambda: None, url="store")
    await alone.get()
    assert alone.age() == 0.0
    for _ in range(100):
        assert alone.fresh() is not None
    assert database.taken == 1
    alone.changed()
    await alone.get()
    assert database.taken == 2


@pytest.mark.usefixtures("late")
async def test_the_last_snapshot_is_served_while_the_store_is_away(
    shared: ServedSnapshot, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    first = await shared.get()
    database.failure = StoreUnavailableError("gone")
    assert await shared.get() is first
    for _ in range(10):
        assert shared.fresh() is first, "and nobody waits any more"
        await settled()
    assert sum("gone" in record.getMessage() for record in caplog.records) == 1
    assert shared.away
    with pytest.raises(StoreUnavailableError, match="away"):
        shared.require()
    assert shared.age() > 0.0
    database.failure, database.revision = None, 2
    shared.fresh()
    await settled()
    assert (await shared.get()).revision == 2
    shared.require()


async def test_a_store_that_was_never_there_is_an_error_each_time(
    shared: ServedSnapshot, database: Database
) -> None:
    database.failure = StoreUnavailableError("gone")
    for _ in range(3):
        with pytest.raises(StoreUnavailableError, match="gone"):
            await shared.get()
    assert shared.latest() is None


@pytest.mark.usefixtures("late")
async def test_a_store_that_hangs_holds_nobody_up_for_long(
    shared: ServedSnapshot, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "PATIENCE_SECONDS", 0.02)
    first = await shared.get()
    database.free.clear()
    async with asyncio.timeout(10):
        assert await shared.get() is first
    assert shared.fresh() is first
    database.revision = 2
    database.free.set()
    await settled()
    assert (await shared.get()).revision == 2


@pytest.mark.usefixtures("late")
async def test_a_caller_who_is_cancelled_leaves_the_check_to_the_others(
    shared: ServedSnapshot, database: Database
) -> None:
    await shared.get()
    database.free.clear()
    database.revision = 2
    asking = [asyncio.create_task(shared.get()) for _ in range(3)]
    await settled()
    asking[0].cancel()
    await asyncio.wait({asking[0]})
    database.free.set()
    assert [found.revision for found in await asyncio.gather(*asking[1:])] == [2, 2]


async def test_a_renewed_snapshot_is_equal_and_another(shared: ServedSnapshot) -> None:
    first = await shared.get()
    shared.renew()
    second = shared.fresh()
    assert second == first
    assert second is not first


async def test_latest_is_what_is_at_hand_however_old(
    shared: ServedSnapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shared.latest() is None
    await settled()
    first = shared.latest()
    assert first is not None, "asking for it begins a check"
    monkeypatch.setattr(served, "LATEST_SECONDS", -1.0)
    shared.changed()
    assert shared.fresh() is None
    assert shared.latest() is first
    await settled()


async def test_one_from_elsewhere_is_served_until_the_store_answers(
    shared: ServedSnapshot, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "CHECK_SECONDS", -1.0)
    database.failure = StoreUnavailableError("gone")
    begun = snapshot(0)
    shared.begin_with(begun, age=90.0)
    assert await shared.get() is begun
    assert 90.0 <= shared.age() < 120.0
    await settled()
    assert shared.fresh() is begun
    database.failure = None
    await settled()
    assert number(shared.fresh()) == 1
    assert shared.age() < 60.0


async def test_each_new_snapshot_is_prepared_before_it_is_given_out(
    shared: ServedSnapshot, database: Database
) -> None:
    class Preparing:
        def __init__(self) -> None:
            self.seen: list[tuple[int, int | None]] = []

        async def prepare(self, new: Snapshot) -> None:
            await asyncio.sleep(0)
            self.seen.append((new.revision, number(shared._current)))

    held, dropped = Preparing(), Preparing()
    shared.prepare_with(held.prepare)
    shared.prepare_with(dropped.prepare)
    seen_by_dropped = dropped.seen
    del dropped
    gc.collect()
    await shared.get()
    database.revision = 2
    shared.changed()
    await shared.get()
    assert held.seen == [(1, None), (2, 1)]
    assert seen_by_dropped == [], "whom nobody holds is not asked"


async def test_a_closed_one_gives_nothing_out_and_lets_go_of_its_source(
    shared: ServedSnapshot, database: Database
) -> None:
    await shared.get()
    await shared.close()
    assert database.closed
    assert shared.fresh() is None
    assert shared.latest() is None
    with pytest.raises(StoreUnavailableError, match="closed"):
        await shared.get()


@pytest.mark.usefixtures("due")
async def test_close_waits_for_the_check_under_way(shared: ServedSnapshot, database: Database) -> None:
    await shared.get()
    database.free.clear()
    shared.fresh()
    closing = asyncio.create_task(shared.close())
    await settled()
    assert not closing.done()
    database.free.set()
    await closing
    assert len(asyncio.all_tasks()) == 1


def test_a_loop_that_ends_during_a_check_leaves_nothing_behind(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "CHECK_SECONDS", -1.0)
    checks: list[asyncio.Task[None]] = []

    async def main(make: Callable[[], Revisions]) -> None:
        one = ServedSnapshot(database.take, make, url="store")
        await one.get()
        database.free = asyncio.Event()
        one.fresh()
        await settled()
        assert one._check is not None
        checks.append(one._check)

    asyncio.run(main(lambda: database))
    assert [check.cancelled() for check in checks] == [True]
