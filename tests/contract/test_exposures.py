"""Exposures: written once, by whoever is first, awaited or queued."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from promptab.models import Exposure
from promptab.stores.base import Store, Transaction
from promptab.stores.opening import open_store
from tests.contract.records import NOON, a_use, an_epoch, an_experiment, an_exposure

EXPERIMENT = an_experiment()


async def begin(store: Store) -> None:
    async def work(tx: Transaction) -> None:
        await tx.experiments.insert(EXPERIMENT)
        await tx.experiments.add_epoch(an_epoch(EXPERIMENT))

    await store.write(work)


@pytest.fixture
async def begun(store: Store) -> Store:
    """A store in which EXPERIMENT runs."""
    await begin(store)
    return store


async def exposures(store: Store) -> list[Exposure]:
    async def work(tx: Transaction) -> list[Exposure]:
        return await tx.exposures.listing(EXPERIMENT.experiment_id)

    return await store.read(work)


async def test_keep_writes_the_exposure_and_returns_it(begun: Store) -> None:
    exposure = an_exposure(
        EXPERIMENT, attributes={"plan": "premium", "ü": [1]}, at=NOON.replace(microsecond=7)
    )
    assert await begun.keep(exposure) == exposure
    assert await exposures(begun) == [exposure]


async def test_keep_returns_the_first_writers_exposure(begun: Store) -> None:
    first = await begun.keep(an_exposure(EXPERIMENT, variant="a"))
    later = an_exposure(EXPERIMENT, variant="b", epoch=2, at=NOON + timedelta(days=1))
    assert await begun.keep(later) == first
    assert await exposures(begun) == [first]


async def test_keep_finds_what_is_still_queued(begun: Store) -> None:
    queued = an_exposure(EXPERIMENT, variant="a")
    begun.enqueue(queued)
    assert await begun.keep(an_exposure(EXPERIMENT, variant="b")) == queued


async def test_all_who_keep_at_the_same_time_get_the_same_answer(begun: Store) -> None:
    kept = await asyncio.gather(
        *(begun.keep(an_exposure(EXPERIMENT, variant="ab"[turn % 2])) for turn in range(20))
    )
    assert all(exposure == kept[0] for exposure in kept)
    assert await exposures(begun) == [kept[0]]


async def test_two_stores_that_keep_at_the_same_time_agree(lasting_url: str) -> None:
    one, other = await open_store(lasting_url), await open_store(lasting_url)
    await begin(one)
    units = [f"u{number}" for number in range(25)]
    mine, theirs = await asyncio.gather(
        asyncio.gather(*(one.keep(an_exposure(EXPERIMENT, unit, variant="a")) for unit in units)),
        asyncio.gather(*(other.keep(an_exposure(EXPERIMENT, unit, variant="b")) for unit in units)),
    )
    assert mine == theirs
    assert sorted(await exposures(one), key=lambda e: e.unit) == sorted(mine, key=lambda e: e.unit)
    await one.close()
    await other.close()


async def test_enqueue_is_written_by_the_time_flush_returns(begun: Store) -> None:
    for number in range(3_000):
        begun.enqueue(an_exposure(EXPERIMENT, f"u{number:04}"))
    await begun.flush()
    assert [exposure.unit for exposure in await exposures(begun)] == [
        f"u{number:04}" for number in range(3_000)
    ]


async def test_enqueue_of_a_unit_that_has_one_changes_nothing(begun: Store) -> None:
    first = await begun.keep(an_exposure(EXPERIMENT, variant="a"))
    begun.enqueue(an_exposure(EXPERIMENT, variant="b"))
    begun.enqueue(an_exposure(EXPERIMENT, "u2", variant="b"))
    begun.enqueue(an_exposure(EXPERIMENT, "u2", variant="a"))
    await begun.flush()
    assert [(e.unit, e.variant) for e in await exposures(begun)] == [("u1", "a"), ("u2", "b")]
    assert (await exposures(begun))[0] == first


async def test_flush_with_nothing_queued_returns(store: Store) -> None:
    await store.flush()


async def test_units_are_compared_byte_by_byte(begun: Store) -> None:
    units = ["u", "U", "ú", "u ", "1", "01", "%", "_"]
    for unit in units:
        begun.enqueue(an_exposure(EXPERIMENT, unit))
    await begun.flush()
    assert sorted(exposure.unit for exposure in await exposures(begun)) == sorted(units)


async def test_listing_is_in_the_order_of_time_then_unit(begun: Store) -> None:
    for unit, second in (("b", 2), ("a", 2), ("c", 1), ("d", 3)):
        begun.enqueue(an_exposure(EXPERIMENT, unit, at=NOON + timedelta(seconds=second)))
    await begun.flush()
    assert [exposure.unit for exposure in await exposures(begun)] == ["c", "a", "b", "d"]

    async def work(tx: Transaction) -> list[str]:
        return [found.unit for found in await tx.exposures.listing(EXPERIMENT.experiment_id, limit=2)]

    assert await begun.read(work) == ["c", "a"]


async def test_an_event_of_an_unexposed_unit_creates_a_reported_exposure(begun: Store) -> None:
    event = a_use(EXPERIMENT, "u1", "b", success=True, timestamp=NOON + timedelta(seconds=5))
    await begun.record(event)
    assert await exposures(begun) == [
        an_exposure(EXPERIMENT, "u1", variant="b", at=NOON + timedelta(seconds=5), source="reported")
    ]


async def test_a_reported_exposure_is_of_the_epoch_of_its_time(begun: Store) -> None:
    async def work(tx: Transaction) -> None:
        await tx.experiments.add_epoch(an_epoch(EXPERIMENT, 2, starts_at=NOON + timedelta(seconds=10)))

    await begun.write(work)
    for unit, second in (("before", -60), ("first", 9), ("second", 10), ("later", 999)):
        await begun.record(a_use(EXPERIMENT, unit, timestamp=NOON + timedelta(seconds=second)))
    assert {exposure.unit: exposure.epoch for exposure in await exposures(begun)} == {
        "before": 1,
        "first": 1,
        "second": 2,
        "later": 2,
    }


async def test_an_exposure_queued_before_an_event_holds_against_the_reported_one(begun: Store) -> None:
    queued = an_exposure(EXPERIMENT, variant="a")
    begun.enqueue(queued)
    await begun.record(a_use(EXPERIMENT, "u1", "b"))
    assert await exposures(begun) == [queued]


@pytest.mark.parametrize(
    ("unit", "variant"), [(None, "a"), ("u1", None), (None, None)], ids=["no unit", "no variant", "neither"]
)
async def test_an_event_without_unit_or_variant_creates_no_exposure(
    begun: Store, unit: str | None, variant: str | None
) -> None:
    await begun.record(a_use(EXPERIMENT, unit, variant, success=True))
    assert await exposures(begun) == []


async def test_counts_are_of_units_and_analysed_counts_leave_out_those_shown_by_hand(
    begun: Store,
) -> None:
    for unit, variant, source in (
        ("u1", "a", "assigned"),
        ("u2", "a", "reported"),
        ("u3", "b", "override"),
        ("session:s", "b", "assigned"),
        ("ada", "b", "alias"),
    ):
        begun.enqueue(an_exposure(EXPERIMENT, unit, variant=variant, source=source))
    await begun.flush()

    async def work(tx: Transaction) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
        await tx.experiments.add_alias("session:s", "ada", NOON)
        return (
            await tx.exposures.counts(EXPERIMENT.experiment_id),
            await tx.exposures.analysed_counts(EXPERIMENT.experiment_id),
            await tx.exposures.counts("nobody"),
        )

    assert await begun.write(work) == ({"a": 2, "b": 2}, {"a": 2, "b": 1}, {})


async def test_analysed_counts_since_a_time_are_of_units_exposed_from_then_on(begun: Store) -> None:
    later = NOON + timedelta(microseconds=1)
    for unit, at in (("u1", NOON), ("u2", later), ("u3", later)):
        await begun.keep(an_exposure(EXPERIMENT, unit, at=at))

    async def work(tx: Transaction) -> dict[str, int]:
        return await tx.exposures.analysed_counts(EXPERIMENT.experiment_id, since=later)

    assert await begun.read(work) == {"a": 2}


async def test_of_unit_returns_the_units_exposures_to_the_experiments_named(begun: Store) -> None:
    second, third = an_experiment("second"), an_experiment("third")

    async def add(tx: Transaction) -> None:
        await tx.experiments.insert(second)
        await tx.experiments.insert(third)

    await begun.write(add)
    mine = [await begun.keep(an_exposure(experiment, "u1")) for experiment in (EXPERIMENT, second)]
    await begun.keep(an_exposure(second, "u2"))
    await begun.keep(an_exposure(third, "u1"))

    async def work(tx: Transaction) -> tuple[list[Exposure], list[Exposure]]:
        ids = [EXPERIMENT.experiment_id, second.experiment_id, "nobody"]
        return await tx.exposures.of_unit("u1", ids), await tx.exposures.of_unit("u1", [])

    found, none = await begun.read(work)
    assert sorted(found, key=lambda e: e.experiment_id) == sorted(mine, key=lambda e: e.experiment_id)
    assert none == []


async def test_brought_returns_the_exposures_that_came_with_an_alias(begun: Store) -> None:
    await begun.keep(an_exposure(EXPERIMENT, "u1"))
    told = await begun.keep(an_exposure(EXPERIMENT, "u2", source="alias"))

    async def work(tx: Transaction) -> tuple[list[Exposure], list[Exposure]]:
        return await tx.exposures.brought([EXPERIMENT.experiment_id]), await tx.exposures.brought(["nobody"])

    assert await begun.read(work) == ([told], [])


async def test_leave_out_takes_a_unit_or_all_out_of_the_analysis_and_keeps_the_exposures(
    begun: Store,
) -> None:
    for unit in ("u1", "u2", "u3"):
        await begun.keep(an_exposure(EXPERIMENT, unit))

    async def leave_out(tx: Transaction, unit: str | None) -> tuple[dict[str, int], dict[str, int]]:
        await tx.exposures.leave_out(EXPERIMENT.experiment_id, unit)
        return (
            await tx.exposures.counts(EXPERIMENT.experiment_id),
            await tx.exposures.analysed_counts(EXPERIMENT.experiment_id),
        )

    assert await begun.write(lambda tx: leave_out(tx, "u1")) == ({"a": 3}, {"a": 2})
    assert await begun.write(lambda tx: leave_out(tx, None)) == ({"a": 3}, {})


async def test_held_returns_the_units_exposure_also_while_it_is_queued(begun: Store) -> None:
    assert await begun.held(EXPERIMENT.experiment_id, "u1") is None
    kept = await begun.keep(an_exposure(EXPERIMENT, "u1"))
    assert await begun.held(EXPERIMENT.experiment_id, "u1") == kept
    assert await begun.held("nobody", "u1") is None


async def test_held_does_not_say_nothing_for_ever(lasting_url: str) -> None:
    """That a unit has no exposure may change at any moment, and by anybody."""
    one, other = await open_store(lasting_url), await open_store(lasting_url)
    await begin(one)
    await one.snapshot()
    assert await one.held(EXPERIMENT.experiment_id, "u1") is None
    kept = await other.keep(an_exposure(EXPERIMENT, "u1"))
    assert await one.keep(an_exposure(EXPERIMENT, "u1", variant="b")) == kept
    assert await one.held(EXPERIMENT.experiment_id, "u1") == kept
    await one.close()
    await other.close()


async def test_serve_instead_changes_what_is_served_and_not_the_first_exposure(begun: Store) -> None:
    held = await begun.keep(an_exposure(EXPERIMENT, "u1", variant="a"))
    after = await begun.serve_instead(held, "b")
    assert after == held._replace(served="b")
    assert (after.variant, after.current) == ("a", "b")
    assert await begun.held(EXPERIMENT.experiment_id, "u1") == after
    assert await exposures(begun) == [after]
    back = await begun.serve_instead(after, "a")
    assert back.current == "a"


async def test_serve_instead_keeps_what_a_faster_writer_set(begun: Store) -> None:
    held = await begun.keep(an_exposure(EXPERIMENT, "u1", variant="a"))
    answers = await asyncio.gather(*(begun.serve_instead(held, variant) for variant in ("b", "c", "d")))
    assert {answer.current for answer in answers} == {answers[0].current}
    assert (await exposures(begun))[0].current == answers[0].current


async def test_serve_instead_of_one_unit_leaves_the_others(begun: Store) -> None:
    held = await begun.keep(an_exposure(EXPERIMENT, "u1"))
    other = await begun.keep(an_exposure(EXPERIMENT, "u2"))
    await begun.serve_instead(held, "b")
    assert (await exposures(begun))[1] == other


async def test_listing_leaves_out_sessions_that_became_users(begun: Store) -> None:
    for unit in ("session:s", "session:t", "ada"):
        await begun.keep(an_exposure(EXPERIMENT, unit))

    async def alias(tx: Transaction) -> None:
        await tx.experiments.add_alias("session:s", "ada", NOON)

    await begun.write(alias)
    assert [exposure.unit for exposure in await exposures(begun)] == ["ada", "session:t"]
