"""The snapshot: what is live, at once for its own store and soon for every other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import Executable, delete, update

from promptab import ExperimentStatus, VersionStatus
from promptab.models import PromptType
from promptab.snapshot import Snapshot
from promptab.stores import schema
from promptab.stores.base import Store, Transaction
from promptab.stores.opening import open_store
from tests.contract.records import a_move, a_version, an_epoch, an_event, an_experiment, an_exposure, new_id

LIVE = a_version(version="1.0.0")
NEXT = a_version(version="2.0.0")


@pytest.fixture
async def begun(store: Store) -> Store:
    """A store with two versions of a prompt, the older one in production."""

    async def work(tx: Transaction) -> None:
        await tx.versions.insert(LIVE)
        await tx.versions.insert(NEXT)
        await tx.deployments.move(a_move(LIVE))

    await store.write(work)
    return store


@pytest.fixture
async def pair(lasting_url: str) -> AsyncIterator[tuple[Store, Store]]:
    """Two stores on one database, as two processes have them."""
    one, other = await open_store(lasting_url), await open_store(lasting_url)
    yield one, other
    await one.close()
    await other.close()


async def promote(store: Store) -> None:
    async def work(tx: Transaction) -> None:
        await tx.deployments.move(a_move(NEXT, LIVE))

    await store.write(work)


async def test_an_empty_store_has_an_empty_snapshot(store: Store) -> None:
    snapshot = await store.snapshot()
    assert snapshot == Snapshot(
        store_id=store.store_id,
        revision=snapshot.revision,
        experiments=(),
        live={},
        latest={},
        versions={},
        numbers={},
    )


async def test_snapshot_shows_what_is_live_and_what_is_latest(begun: Store) -> None:
    snapshot = await begun.snapshot()
    assert snapshot.latest_active(PromptType.SYSTEM, "tone") == NEXT
    live = snapshot.deployed(PromptType.SYSTEM, "tone", "production")
    assert live == LIVE.model_copy(update={"status": VersionStatus.PRODUCTION, "tags": ("production",)})
    assert snapshot.deployed(PromptType.SYSTEM, "tone", "staging") is None
    assert snapshot.numbered(PromptType.SYSTEM, "tone", "2.0.0") == NEXT


async def test_snapshot_shows_its_own_writes_at_once(begun: Store) -> None:
    before = await begun.snapshot()
    await promote(begun)
    after = await begun.snapshot()
    live = after.deployed(PromptType.SYSTEM, "tone", "production")
    assert live is not None
    assert live.version_id == NEXT.version_id
    assert after.revision > before.revision


async def test_a_snapshot_in_hand_never_changes(begun: Store) -> None:
    before = await begun.snapshot()
    await promote(begun)
    await begun.snapshot()
    live = before.deployed(PromptType.SYSTEM, "tone", "production")
    assert live is not None
    assert live.version_id == LIVE.version_id


async def test_many_who_ask_after_a_write_all_see_it(begun: Store) -> None:
    await begun.snapshot()
    await promote(begun)
    seen = await asyncio.gather(*(begun.snapshot() for _ in range(20)))
    assert {snapshot.live[PromptType.SYSTEM, "tone", "production"] for snapshot in seen} == {NEXT.version_id}


async def test_a_cancelled_caller_does_not_hide_a_write_from_the_next(begun: Store) -> None:
    await begun.snapshot()
    await promote(begun)
    asking = asyncio.create_task(begun.snapshot())
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait({asking})
    assert (await begun.snapshot()).live[PromptType.SYSTEM, "tone", "production"] == NEXT.version_id


async def test_a_write_that_raises_changes_no_snapshot(begun: Store) -> None:
    before = await begun.snapshot()

    async def work(tx: Transaction) -> None:
        await tx.deployments.move(a_move(NEXT, LIVE))
        raise LookupError

    with pytest.raises(LookupError):
        await begun.write(work)
    assert await begun.snapshot() == before


async def test_events_and_exposures_change_no_snapshot(begun: Store) -> None:
    experiment = an_experiment()

    async def work(tx: Transaction) -> None:
        await tx.experiments.insert(experiment)
        await tx.experiments.add_epoch(an_epoch(experiment))

    await begun.write(work)
    before = await begun.snapshot()
    await begun.record(an_event(LIVE.version_id, success=True))
    await begun.keep(an_exposure(experiment, "u1"))
    begun.enqueue(an_exposure(experiment, "u2"))
    await begun.flush()
    assert (await begun.snapshot()).revision == before.revision


async def test_snapshot_holds_running_and_paused_experiments_in_the_order_of_their_start(
    store: Store,
) -> None:
    running, paused = an_experiment("running"), an_experiment("paused", status=ExperimentStatus.PAUSED)
    earlier = paused.started_at.replace(year=2025) if paused.started_at else None
    paused = paused.model_copy(update={"started_at": earlier})
    others = [an_experiment(status, status=status) for status in ("draft", "completed", "stopped")]

    async def work(tx: Transaction) -> None:
        for experiment in (running, paused, *others):
            await tx.experiments.insert(experiment)
            await tx.experiments.add_epoch(an_epoch(experiment))

    await store.write(work)
    assert [live.experiment for live in (await store.snapshot()).experiments] == [paused, running]


async def test_snapshot_holds_whatever_it_may_have_to_serve(store: Store) -> None:
    leaf = a_version("leaf", status=VersionStatus.ARCHIVED)
    top = a_version("top", includes={"system/leaf": leaf.version_id})
    old = a_version("served", version="0.1.0", status=VersionStatus.DEPRECATED)
    unserved = a_version("served", version="0.2.0", status=VersionStatus.DEPRECATED)
    experiment = an_experiment(
        "served", prompt_name="served", variants=({"version": "0.1.0"}, {"version": "9.9.9"}), control="0.1.0"
    )
    experiment = experiment.model_copy(update={"traffic_split": {"0.1.0": 0.5, "9.9.9": 0.5}})

    async def work(tx: Transaction) -> None:
        for version in (leaf, top, old, unserved):
            await tx.versions.insert(version)
        await tx.experiments.insert(experiment)
        await tx.experiments.add_epoch(an_epoch(experiment, segments=(("10000000000000000", "0.1.0"),)))

    await store.write(work)
    snapshot = await store.snapshot()
    assert set(snapshot.versions) == {leaf.version_id, top.version_id, old.version_id}
    assert snapshot.latest == {(PromptType.SYSTEM, "top"): top.version_id}


async def test_another_stores_write_is_seen_without_being_told(pair: tuple[Store, Store]) -> None:
    one, other = pair

    async def add(tx: Transaction) -> None:
        await tx.versions.insert(LIVE)
        await tx.versions.insert(NEXT)
        await tx.deployments.move(a_move(LIVE))

    await one.write(add)
    await other.snapshot()
    await promote(one)
    # the promise is a second; a busy machine gets more, since what is tried is that it is seen at all
    async with asyncio.timeout(30):
        production = (PromptType.SYSTEM, "tone", "production")
        while (await other.snapshot()).live[production] != NEXT.version_id:  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(0.01)


async def test_snapshot_age_is_no_more_than_the_time_since_it_was_asked_for(store: Store) -> None:
    assert store.snapshot_age() == float("inf")
    asked = time.monotonic()
    await store.snapshot()
    assert 0.0 <= store.snapshot_age() <= time.monotonic() - asked


async def test_snapshot_of_many_prompts_holds_each(store: Store) -> None:
    names = [f"p{number}" for number in range(1_100)]

    async def work(tx: Transaction) -> None:
        for name in names:
            version = a_version(name, includes={"system/gone": new_id()})
            await tx.versions.insert(version)
            await tx.deployments.move(a_move(version))

    await store.write(work)
    snapshot = await store.snapshot()
    assert {name for _, name in snapshot.latest} == set(names)
    assert len(snapshot.live) == len(names)


@pytest.mark.parametrize(
    "damage",
    [
        update(schema.versions).values(content={"template": 7}).where(schema.versions.c.name == "damaged"),
        update(schema.versions).values(prompt_type="nonsense").where(schema.versions.c.name == "damaged"),
        update(schema.experiments).values(definition={}).where(schema.experiments.c.name == "damaged"),
        update(schema.epochs).values(segments=[["zz", "a"]]).where(schema.epochs.c.number == 7),
        delete(schema.epochs).where(schema.epochs.c.number == 7),
    ],
    ids=["version", "type", "experiment", "map", "no map"],
)
async def test_a_row_that_was_damaged_past_the_checks_takes_nothing_else_out_of_service(
    store: Store, caplog: pytest.LogCaptureFixture, damage: Executable
) -> None:
    sound, damaged = an_experiment("sound"), an_experiment("damaged")

    async def work(tx: Transaction) -> None:
        for version in (LIVE, NEXT, a_version("damaged")):
            await tx.versions.insert(version)
            await tx.deployments.point(PromptType.SYSTEM, version.name, "production", version.version_id)
        await tx.experiments.insert(sound)
        await tx.experiments.insert(damaged)
        await tx.experiments.add_epoch(an_epoch(sound, 1))
        await tx.experiments.add_epoch(an_epoch(damaged, 7))
        await tx.versions._connection.execute(damage)

    await store.write(work)
    snapshot = await store.snapshot()
    assert snapshot.latest_active(PromptType.SYSTEM, "tone") is not None
    assert snapshot.deployed(PromptType.SYSTEM, "tone", "production") is not None
    assert "sound" in [live.experiment.name for live in snapshot.experiments]
    assert "left out" in caplog.text
