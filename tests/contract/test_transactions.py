"""`read` and `write`: whole or not at all, one after the other, and driver errors never come out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import event, text

from promptab import Lab, PromptVersion, StoreError, StoreUnavailableError
from promptab.models import PromptType
from promptab.stores.base import Store, Transaction
from promptab.stores.opening import open_store
from promptab.stores.sql import SqlStore
from tests.contract.records import a_move, a_version, an_epoch, an_event, an_experiment, an_exposure


class RefusedError(Exception):
    """Raised by a piece of work that changes its mind."""


async def all_versions(store: Store) -> list[PromptVersion]:
    async def work(tx: Transaction) -> list[PromptVersion]:
        return await tx.versions.listing()

    return await store.read(work)


async def test_write_returns_what_the_work_returned(store: Store) -> None:
    async def work(tx: Transaction) -> int:
        await tx.versions.insert(a_version())
        return 7

    assert await store.write(work) == 7


async def test_write_that_raises_leaves_nothing_and_raises_the_same(store: Store) -> None:
    experiment, version = an_experiment(), a_version(tags=("kept",))

    async def work(tx: Transaction) -> None:
        await tx.versions.insert(version)
        await tx.deployments.move(a_move(version))
        await tx.experiments.insert(experiment)
        await tx.experiments.add_epoch(an_epoch(experiment))
        await tx.exposures.keep(an_exposure(experiment))
        raise RefusedError("changed its mind")

    with pytest.raises(RefusedError, match="changed its mind"):
        await store.write(work)

    async def look(tx: Transaction) -> list[object]:
        return [
            *await tx.versions.listing(),
            *await tx.deployments.pointers(),
            *await tx.deployments.history(PromptType.SYSTEM, "tone", None),
            *await tx.experiments.listing(),
            *await tx.exposures.listing(experiment.experiment_id),
        ]

    assert await store.read(look) == []


async def test_a_store_is_usable_after_many_writes_that_raise(store: Store) -> None:
    async def refused(tx: Transaction) -> None:
        await tx.versions.insert(a_version())
        raise RefusedError

    # more of them than a pool has connections
    results = await asyncio.gather(*(store.write(refused) for _ in range(40)), return_exceptions=True)
    assert {type(result) for result in results} == {RefusedError}
    assert await all_versions(store) == []


async def test_writers_at_the_same_time_all_see_the_newest_state(store: Store) -> None:
    """Each counts what is there and adds the next: with a lost update two would count alike."""

    async def work(tx: Transaction) -> int:
        count = len(await tx.versions.numbers(PromptType.SYSTEM, "tone"))
        await asyncio.sleep(0)
        await tx.versions.insert(a_version(version=f"{count + 1}.0.0"))
        return count

    counts = await asyncio.gather(*(store.write(work) for _ in range(30)))
    assert sorted(counts) == list(range(30))


async def test_writers_of_two_stores_on_one_database_all_see_the_newest_state(lasting_url: str) -> None:
    async def work(tx: Transaction) -> int:
        count = len(await tx.versions.numbers(PromptType.SYSTEM, "tone"))
        await asyncio.sleep(0)
        await tx.versions.insert(a_version(version=f"{count + 1}.0.0"))
        return count

    one, other = await open_store(lasting_url), await open_store(lasting_url)
    counts = await asyncio.gather(*(store.write(work) for _ in range(15) for store in (one, other)))
    assert sorted(counts) == list(range(30))
    await one.close()
    await other.close()


async def test_read_sees_one_state_while_another_store_writes(lasting_url: str) -> None:
    reader, writer = await open_store(lasting_url), await open_store(lasting_url)
    read_once, written = asyncio.Event(), asyncio.Event()

    async def look(tx: Transaction) -> tuple[int, int]:
        before = len(await tx.versions.listing())
        read_once.set()
        await written.wait()
        return before, len(await tx.versions.listing())

    async def add(tx: Transaction) -> None:
        await tx.versions.insert(a_version())

    reading = asyncio.create_task(reader.read(look))
    await read_once.wait()
    await writer.write(add)
    written.set()
    assert await reading == (0, 0)
    assert len(await all_versions(reader)) == 1
    await reader.close()
    await writer.close()


async def test_a_cancelled_write_still_takes_effect_whole(store: Store) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def work(tx: Transaction) -> None:
        await tx.versions.insert(a_version(version="1.0.0"))
        begun.set()
        await go_on.wait()
        await tx.versions.insert(a_version(version="2.0.0"))

    writing = asyncio.create_task(store.write(work))
    await begun.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    go_on.set()
    await store.write(_nothing)  # waits for its turn, and so for the one before
    assert sorted(version.version for version in await all_versions(store)) == ["1.0.0", "2.0.0"]


async def test_those_who_ask_for_the_same_write_at_the_same_time_share_one(store: Store) -> None:
    done: list[str] = []

    async def work(tx: Transaction) -> None:
        await tx.versions.insert(a_version(version=f"{len(done) + 1}.0.0"))
        done.append("work")

    asking = [asyncio.create_task(store.write_once("same", work)) for _ in range(20)]
    await asyncio.sleep(0)
    asking[0].cancel()  # who began it leaves; the others get what it does
    ended = await asyncio.gather(*asking, store.write_once("other", work), return_exceptions=True)
    assert [type(end) for end in ended] == [asyncio.CancelledError, *[type(None)] * 20]
    assert len(done) == 2
    await store.write_once("same", work)
    assert len(await all_versions(store)) == 3


async def test_all_who_share_a_write_learn_that_it_failed_and_the_next_begins_anew(store: Store) -> None:
    async def refuse(_: Transaction) -> None:
        raise RefusedError

    ended = await asyncio.gather(
        *(store.write_once("same", refuse) for _ in range(3)), return_exceptions=True
    )
    assert [type(end) for end in ended] == [RefusedError] * 3
    await store.write_once("same", _nothing)


async def test_what_a_cancelled_write_did_is_in_the_snapshot(store: Store) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    version = a_version()

    async def work(tx: Transaction) -> None:
        begun.set()
        await go_on.wait()
        await tx.versions.insert(version)

    await store.snapshot()
    writing = asyncio.create_task(store.write(work))
    await begun.wait()
    writing.cancel()
    looking = asyncio.create_task(store.snapshot())
    await asyncio.wait({writing, looking}, timeout=0.05)
    go_on.set()
    await looking
    await store.write(_nothing)
    assert version.version_id in (await store.snapshot()).versions


async def test_driver_errors_come_out_as_store_errors(store: Store) -> None:
    async def work(tx: Transaction) -> None:
        await tx.versions._connection.execute(text("SELECT * FROM promptab_no_such_table"))

    with pytest.raises(StoreError, match="promptab_no_such_table"):
        await store.read(work)
    assert await all_versions(store) == []


async def test_a_record_that_breaks_a_constraint_is_a_store_error_and_changes_nothing(store: Store) -> None:
    experiment = an_experiment()

    async def work(tx: Transaction) -> None:
        await tx.experiments.insert(experiment)
        await tx.experiments.insert(experiment)

    with pytest.raises(StoreError):
        await store.write(work)

    async def look(tx: Transaction) -> int:
        return len(await tx.experiments.listing())

    assert await store.read(look) == 0


async def test_everything_is_there_when_the_store_is_opened_again(lasting_url: str) -> None:
    store = await open_store(lasting_url)
    version = a_version(
        template="{{ a }}\n\tü€😀\u2028",
        tags=("x",),
        config={"n": 1.5, "deep": [{"ü": None}]},
        metadata={"k": [True, 2**53]},
        created_by="Ada",
    )
    experiment = an_experiment(overrides={"boss": "b"}, metadata={"why": "because"})
    exposure, use = an_exposure(experiment), an_event(version.version_id, success=True, metrics={"m": 0.1})

    async def work(tx: Transaction) -> None:
        await tx.versions.insert(version)
        await tx.deployments.move(a_move(version, reason="first", evidence={"p": 0.01}))
        await tx.experiments.insert(experiment)
        await tx.experiments.add_epoch(an_epoch(experiment))
        await tx.experiments.set_holdout("h", "salt", 0.1)

    await store.write(work)
    store.enqueue(exposure)
    await store.record(use)
    before = await everything(store, version, experiment.experiment_id)
    identity = store.store_id
    await store.close()

    again = await open_store(lasting_url)
    assert again.store_id == identity
    assert await everything(again, version, experiment.experiment_id) == before
    assert before["exposures"] == [exposure]
    assert before["events"] == [use]
    assert before["experiment"] == experiment
    await again.close()


async def everything(store: Store, version: PromptVersion, experiment_id: str) -> dict[str, object]:
    async def look(tx: Transaction) -> dict[str, object]:
        return {
            "versions": await tx.versions.listing(),
            "pointers": await tx.deployments.pointers(),
            "history": await tx.deployments.history(version.prompt_type, version.name, None),
            "experiment": await tx.experiments.by_id(experiment_id),
            "epochs": await tx.experiments.epochs_of(experiment_id),
            "holdouts": await tx.experiments.holdouts(),
            "exposures": await tx.exposures.listing(experiment_id),
            "events": await tx.events.listing(version.version_id),
        }

    return await store.read(look)


async def test_close_twice_is_fine(store: Store) -> None:
    await store.close()
    await store.close()


async def test_close_waits_for_what_is_under_way(lasting_url: str) -> None:
    store = await open_store(lasting_url)
    version = a_version()
    begun = asyncio.Event()

    async def work(tx: Transaction) -> None:
        begun.set()
        await asyncio.sleep(0.05)
        await tx.versions.insert(version)

    writing = asyncio.create_task(store.write(work))
    await begun.wait()
    await store.close()
    await writing
    again = await open_store(lasting_url)
    assert await all_versions(again) == [version]
    await again.close()


async def test_close_writes_what_is_queued(lasting_url: str) -> None:
    store = await open_store(lasting_url)
    experiment = an_experiment()

    async def work(tx: Transaction) -> None:
        await tx.experiments.insert(experiment)

    await store.write(work)
    for unit in range(5_000):
        store.enqueue(an_exposure(experiment, f"u{unit}"))
    recording = [asyncio.ensure_future(store.record(an_event(new))) for new in (None, None)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*recording)

    async def look(tx: Transaction) -> tuple[dict[str, int], int]:
        return await tx.exposures.counts(experiment.experiment_id), await tx.events.count()

    again = await open_store(lasting_url)
    assert await again.read(look) == ({"a": 5_000}, 2)
    await again.close()


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.read(_nothing),
        lambda store: store.write(_nothing),
        lambda store: store.write_once("it", _nothing),
        lambda store: store.record(an_event()),
        lambda store: store.keep(an_exposure(an_experiment())),
        lambda store: store.snapshot(),
    ],
    ids=["read", "write", "write_once", "record", "keep", "snapshot"],
)
async def test_a_closed_store_is_unavailable(
    store: Store, call: Callable[[Store], Awaitable[object]]
) -> None:
    await store.snapshot()
    await store.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        await call(store)


async def test_a_closed_store_queues_nothing(store: Store) -> None:
    await store.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        store.enqueue(an_exposure(an_experiment()))


async def test_use_of_a_closed_lab_is_unavailable(lab: Lab) -> None:
    version = await lab.versions.create_version("tone", "system", "Be kind.")
    await lab.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        await lab.versions.promote(version.version_id)
    with pytest.raises(StoreUnavailableError, match="closed"):
        await lab.metrics.record_event(version.version_id, success=True)


async def test_nothing_is_left_checked_out_after_mixed_use(store: Store) -> None:
    assert isinstance(store, SqlStore)
    pool = store._engine.sync_engine.pool
    given: list[str] = []
    event.listen(pool, "checkout", lambda *_: given.append("out"))
    event.listen(pool, "checkin", lambda *_: given.append("in"))
    version = a_version()

    async def add(tx: Transaction) -> None:
        await tx.versions.insert(version)

    async def refused(tx: Transaction) -> None:
        raise RefusedError

    await store.write(add)
    cancelled = [asyncio.create_task(store.read(_slow)) for _ in range(5)]
    await asyncio.gather(
        *(store.write(refused) for _ in range(10)),
        *(all_versions(store) for _ in range(10)),
        *(store.snapshot() for _ in range(10)),
        return_exceptions=True,
    )
    for task in cancelled:
        task.cancel()
    await asyncio.wait(cancelled)
    await store.close()
    assert given.count("out") > 20
    assert given.count("out") == given.count("in")


async def _nothing(tx: Transaction) -> None:
    """Do no work: the transaction itself is what is tried."""
    await tx.deployments.pointers()


async def _slow(tx: Transaction) -> None:
    await tx.deployments.pointers()
    await asyncio.sleep(0.02)
    await tx.deployments.pointers()
