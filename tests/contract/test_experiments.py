"""The queries of experiments, their epochs, holdouts and aliases."""

from __future__ import annotations

from datetime import timedelta

import pytest

from promptab import ExperimentStatus, PromptExperiment, PromptVariant, StoreError
from promptab.models import Epoch, PromptType
from promptab.stores.base import Store, Transaction
from promptab.stores.queries.experiments import Holdout
from tests.contract.records import NOON, a_use, an_epoch, an_experiment, an_exposure


async def put(store: Store, *experiments: PromptExperiment) -> None:
    async def work(tx: Transaction) -> None:
        for experiment in experiments:
            await tx.experiments.insert(experiment)

    await store.write(work)


async def found(store: Store, experiment_id: str) -> PromptExperiment | None:
    async def work(tx: Transaction) -> PromptExperiment | None:
        return await tx.experiments.by_id(experiment_id)

    return await store.read(work)


FULL = an_experiment(
    "Ein Versuch ♥",
    prompt_name="tone",
    variants=(
        PromptVariant("1.0.0", 0.1, "the old one", config={"model": "m", "ü": [1, None]}, metadata={"k": 1}),
        PromptVariant("1.0.0", 3.0, key="same version"),
        PromptVariant(key="config only", config={}),
    ),
    control="same version",
    traffic_split={"1.0.0": 0.1, "same version": 0.9, "config only": 0.0},
    traffic=0.25,
    traffic_history=((NOON, 0.5), (NOON + timedelta(hours=1), 0.25)),
    has_reported=True,
    unit="features",
    sticky=False,
    where="plan == 'premium'",
    holdout="global",
    overrides={"boss": "config only", "42": "1.0.0"},
    primary_metric="rating",
    metadata={"why": ["because"]},
    starts_at=NOON,
    ends_at=NOON + timedelta(days=7),
    status=ExperimentStatus.COMPLETED,
    ended_at=NOON + timedelta(hours=1, microseconds=1),
    winner="1.0.0",
    created_by="Ada",
)


@pytest.mark.parametrize("experiment", [an_experiment(), FULL], ids=["plain", "full"])
async def test_insert_keeps_every_field_as_it_was(store: Store, experiment: PromptExperiment) -> None:
    await put(store, experiment)
    assert await found(store, experiment.experiment_id) == experiment


async def test_insert_keeps_the_order_of_variants_and_weights(store: Store) -> None:
    await put(store, FULL)
    kept = await found(store, FULL.experiment_id)
    assert kept is not None
    assert [variant.key for variant in kept.variants] == [variant.key for variant in FULL.variants]


async def test_by_id_of_an_unknown_experiment_is_none(store: Store) -> None:
    assert await found(store, "nobody") is None


async def test_replace_writes_over_the_one_with_the_same_id_alone(store: Store) -> None:
    experiment, other = an_experiment(), an_experiment()
    await put(store, experiment, other)
    changed = FULL.model_copy(update={"experiment_id": experiment.experiment_id})

    async def work(tx: Transaction) -> None:
        await tx.experiments.replace(changed)

    await store.write(work)
    assert await found(store, experiment.experiment_id) == changed
    assert await found(store, other.experiment_id) == other


async def test_listing_is_newest_first_and_takes_every_filter(store: Store) -> None:
    old = an_experiment("tone", created_at=NOON)
    new = an_experiment("tone", created_at=NOON + timedelta(hours=1), status=ExperimentStatus.PAUSED)
    user = an_experiment("ask", created_at=NOON + timedelta(hours=2), prompt_type=PromptType.USER)
    await put(store, old, user, new)

    async def work(tx: Transaction) -> list[list[PromptExperiment]]:
        return [
            await tx.experiments.listing(),
            await tx.experiments.listing(name="tone"),
            await tx.experiments.listing(statuses=frozenset({ExperimentStatus.PAUSED})),
            await tx.experiments.listing(statuses=frozenset(ExperimentStatus), name="ask"),
            await tx.experiments.listing(prompt_type=PromptType.SYSTEM, name="tone"),
            await tx.experiments.listing(name="TONE"),
            await tx.experiments.listing(statuses=frozenset()),
        ]

    assert await store.read(work) == [[user, new, old], [new, old], [new], [user], [new, old], [], []]


async def test_epochs_come_back_in_the_order_of_their_numbers(store: Store) -> None:
    experiment = an_experiment()
    first = an_epoch(experiment, 1)
    second = an_epoch(
        experiment, 2, starts_at=NOON + timedelta(seconds=2), weights={"a": 0.0, "b": 1.0},
        segments=(("10000000000000000", "b"),), evicted=("a",),
    )  # fmt: skip
    await put(store, experiment)

    async def work(tx: Transaction) -> list[Epoch]:
        await tx.experiments.add_epoch(second)
        await tx.experiments.add_epoch(first)
        return await tx.experiments.epochs_of(experiment.experiment_id)

    assert await store.write(work) == [first, second]


async def test_an_epoch_number_is_given_once(store: Store) -> None:
    experiment = an_experiment()
    await put(store, experiment)

    async def work(tx: Transaction) -> None:
        await tx.experiments.add_epoch(an_epoch(experiment))
        await tx.experiments.add_epoch(an_epoch(experiment, weights={"a": 1.0, "b": 0.0}))

    with pytest.raises(StoreError):
        await store.write(work)

    async def look(tx: Transaction) -> list[Epoch]:
        return await tx.experiments.epochs_of(experiment.experiment_id)

    assert await store.read(look) == []


async def test_epochs_by_experiment_gives_each_its_own_in_their_order(store: Store) -> None:
    one, other, none = an_experiment(), an_experiment(), an_experiment()
    await put(store, one, other, none)
    epochs = [an_epoch(one, 2), an_epoch(other, 1), an_epoch(one, 1)]

    async def work(tx: Transaction) -> dict[str, list[Epoch]]:
        for epoch in epochs:
            await tx.experiments.add_epoch(epoch)
        return await tx.experiments.epochs_by_experiment([one.experiment_id, none.experiment_id])

    assert await store.write(work) == {one.experiment_id: [epochs[2], epochs[0]]}


async def test_drop_epochs_after_removes_those_that_have_not_begun(store: Store) -> None:
    one, other = an_experiment(), an_experiment()
    await put(store, one, other)

    async def work(tx: Transaction) -> tuple[list[int], list[int]]:
        for number in (1, 2, 3):
            for experiment in (one, other):
                starts_at = NOON + timedelta(seconds=number)
                await tx.experiments.add_epoch(an_epoch(experiment, number, starts_at=starts_at))
        await tx.experiments.drop_epochs_after(one.experiment_id, NOON + timedelta(seconds=2))
        return (
            [epoch.number for epoch in await tx.experiments.epochs_of(one.experiment_id)],
            [epoch.number for epoch in await tx.experiments.epochs_of(other.experiment_id)],
        )

    assert await store.write(work) == ([1, 2], [1, 2, 3])


async def test_live_returns_the_running_and_paused_experiments(store: Store) -> None:
    by_status = {status: an_experiment(status=status) for status in ExperimentStatus}
    await put(store, *by_status.values())

    async def work(tx: Transaction) -> list[PromptExperiment]:
        return await tx.experiments.live()

    found = {experiment.status for experiment in await store.read(work)}
    assert found == {ExperimentStatus.RUNNING, ExperimentStatus.PAUSED}


async def test_aliases_since_returns_those_told_from_then_on(store: Store) -> None:
    async def work(tx: Transaction) -> dict[str, str]:
        for second in (1, 2, 3):
            await tx.experiments.add_alias(f"session:{second}", "ada", NOON + timedelta(seconds=second))
        return await tx.experiments.aliases_since(NOON + timedelta(seconds=2))

    assert await store.write(work) == {"session:2": "ada", "session:3": "ada"}


async def test_delete_takes_epochs_and_exposures_along_and_leaves_events(store: Store) -> None:
    experiment, other = an_experiment(), an_experiment()
    await put(store, experiment, other)

    async def begin(tx: Transaction) -> None:
        for one in (experiment, other):
            await tx.experiments.add_epoch(an_epoch(one))

    await store.write(begin)
    for one in (experiment, other):
        await store.record(a_use(one, success=True))

    async def work(tx: Transaction) -> tuple[bool, bool]:
        removed = await tx.experiments.delete(experiment.experiment_id)
        return removed, await tx.experiments.delete(experiment.experiment_id)

    assert await store.write(work) == (True, False)

    async def left(tx: Transaction) -> tuple[list[int], int]:
        counts = []
        for one in (experiment, other):
            counts.append(len(await tx.experiments.epochs_of(one.experiment_id)))
            counts.append(len(await tx.exposures.listing(one.experiment_id)))
        return counts, await tx.events.count()

    assert await store.read(left) == ([0, 0, 1, 1], 2)


async def test_events_of_a_deleted_experiment_are_kept_without_an_exposure(store: Store) -> None:
    experiment = an_experiment()
    await put(store, experiment)

    async def delete(tx: Transaction) -> None:
        await tx.experiments.delete(experiment.experiment_id)

    await store.write(delete)
    store.enqueue(an_exposure(experiment))
    await store.record(a_use(experiment, success=True))

    async def look(tx: Transaction) -> tuple[int, int]:
        return await tx.events.count(), len(await tx.exposures.listing(experiment.experiment_id))

    assert await store.read(look) == (1, 0)


async def test_set_holdout_writes_over_the_one_of_that_name(store: Store) -> None:
    async def work(tx: Transaction) -> dict[str, Holdout]:
        await tx.experiments.set_holdout("global", "salt", 0.1)
        await tx.experiments.set_holdout("other", "pepper", 0.0)
        await tx.experiments.set_holdout("global", "salt", 0.2)
        return await tx.experiments.holdouts()

    assert await store.write(work) == {
        "global": Holdout("global", "salt", 0.2),
        "other": Holdout("other", "pepper", 0.0),
    }


async def test_an_alias_is_one_unit_for_ever(store: Store) -> None:
    async def work(tx: Transaction) -> tuple[str | None, str | None]:
        await tx.experiments.add_alias("session:s", "ada", NOON)
        return await tx.experiments.unit_of_alias("session:s"), await tx.experiments.unit_of_alias(
            "session:t"
        )

    assert await store.write(work) == ("ada", None)

    async def again(tx: Transaction) -> None:
        await tx.experiments.add_alias("session:s", "bob", NOON)

    with pytest.raises(StoreError):
        await store.write(again)
