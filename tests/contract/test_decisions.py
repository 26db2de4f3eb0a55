"""Stored decisions, and how far they have brought an experiment."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from promptab import Decision, DecisionState, PromptExperiment, StoreError
from promptab.decisions.decision import DecisionInputs
from promptab.decisions.stored import RolloutProgress, Standing, StoredDecision
from promptab.models import ExperimentStatus
from promptab.stores.base import Store, Transaction
from tests.contract.records import NOON, an_experiment, new_id


@pytest.fixture
async def experiment(store: Store) -> PromptExperiment:
    made = an_experiment()
    await store.write(lambda tx: tx.experiments.insert(made))
    return made


def a_decision(experiment: PromptExperiment, **fields: Any) -> Decision:
    given: dict[str, Any] = {
        "experiment_id": experiment.experiment_id,
        "experiment": experiment.name,
        "at": NOON,
        "action": "promote",
        "rule": "won",
        "variants": ("b",),
        "numbers": {"value": 0.1 + 0.2, "p_value": None, "units": 7},
        "sentence": "Promoted: b is “better”\nby far",
        "policy_digest": "d" * 64,
        "inputs": DecisionInputs(
            analysis={"metrics": {"success_rate": [0.1 + 0.2, None]}},
            policy={"alpha": 0.05},
            now=NOON,
            state=DecisionState(started_at=NOON, step_units={"a": 3}, withdrawn=("c",)),
        ),
    }
    return Decision(**{**given, **fields})


def stored(decision: Decision, **fields: Any) -> StoredDecision:
    standing = Standing(
        number=3,
        status=ExperimentStatus.RUNNING,
        policy_digest="d" * 64,
        epoch=2,
        weights={"a": 1 / 3, "b": 2 / 3},
        traffic=0.1,
        production_id=new_id(),
        production="1.0.0",
    )
    given: dict[str, Any] = {
        "sequence": 0,
        "decision_id": new_id(),
        "decision": decision,
        "standing": standing,
        "status": "pending",
        "seen_at": NOON,
    }
    return StoredDecision(**{**given, **fields})


async def appended(store: Store, *given: StoredDecision) -> list[StoredDecision]:
    async def work(tx: Transaction) -> list[StoredDecision]:
        return [await tx.decisions.append(each) for each in given]

    return await store.write(work)


async def test_a_decision_comes_back_as_it_was_stored(store: Store, experiment: PromptExperiment) -> None:
    whole = stored(a_decision(experiment))
    bare = stored(a_decision(experiment, inputs=None, policy_digest=None, rule="override"), standing=None)
    first, second = await appended(store, whole, bare)
    assert second.sequence > first.sequence > 0
    assert first == whole.model_copy(update={"sequence": first.sequence})
    assert await store.read(lambda tx: tx.decisions.by_id(whole.decision_id)) == first
    assert await store.read(lambda tx: tx.decisions.by_id(bare.decision_id)) == second
    assert await store.read(lambda tx: tx.decisions.by_id(new_id())) is None


async def test_the_same_decision_id_is_refused(store: Store, experiment: PromptExperiment) -> None:
    given = stored(a_decision(experiment))
    await appended(store, given)
    with pytest.raises(StoreError):
        await appended(store, given)


async def test_decisions_are_listed_newest_first_by_id_and_by_name(
    store: Store, experiment: PromptExperiment
) -> None:
    namesake = an_experiment()
    first, second, other = await appended(
        store,
        stored(a_decision(experiment)),
        stored(a_decision(experiment)),
        stored(a_decision(namesake)),
    )
    own = experiment.experiment_id
    assert await store.read(lambda tx: tx.decisions.of(own)) == [second, first]
    assert await store.read(lambda tx: tx.decisions.of(own, limit=1)) == [second]
    assert await store.read(lambda tx: tx.decisions.latest(own)) == second
    assert await store.read(lambda tx: tx.decisions.latest(new_id())) is None
    assert await store.read(lambda tx: tx.decisions.of_name("tone")) == [other, second, first]
    assert await store.read(lambda tx: tx.decisions.of_name("other")) == []


async def test_of_old_decisions_that_changed_nothing_the_first_of_each_hour_is_kept(
    store: Store, experiment: PromptExperiment
) -> None:
    def at(minutes: int, **fields: Any) -> StoredDecision:
        moment = NOON + timedelta(minutes=minutes)
        return stored(a_decision(experiment, at=moment), seen_at=moment, **{"status": "noted", **fields})

    made = await appended(
        store, at(0), at(5), at(10, status="superseded"), at(59), at(60), at(90), at(120), at(121)
    )
    other = an_experiment()
    [theirs] = await appended(store, stored(a_decision(other), status="noted"))
    own = experiment.experiment_id
    await store.write(lambda tx: tx.decisions.thin_out(own, before=NOON + timedelta(hours=2)))
    kept = [made[position] for position in (7, 6, 4, 2, 0)]
    assert await store.read(lambda tx: tx.decisions.of(own)) == kept
    assert await store.read(lambda tx: tx.decisions.of(other.experiment_id)) == [theirs]


async def test_decisions_are_found_by_the_beginning_of_their_id(
    store: Store, experiment: PromptExperiment
) -> None:
    namesake = an_experiment()
    ids = ["ab%" + "0" * 33, "ab%" + "1" * 33, "abc" + "2" * 33]
    made = [stored(a_decision(experiment), decision_id=each) for each in ids]
    first, second, third = await appended(store, *made)
    await appended(store, stored(a_decision(namesake), decision_id="ab%" + "3" * 33))
    own = experiment.experiment_id
    assert await store.read(lambda tx: tx.decisions.beginning(own, "abc2")) == [third]
    # a sign that stands for others in a pattern stands for itself
    assert await store.read(lambda tx: tx.decisions.beginning(own, "ab%")) == [second, first]
    assert await store.read(lambda tx: tx.decisions.beginning(own, "zz")) == []


async def test_what_became_of_a_decision_is_written_over_it(
    store: Store, experiment: PromptExperiment
) -> None:
    waiting, told, asked = await appended(
        store,
        stored(a_decision(experiment)),
        stored(a_decision(experiment), status="noted"),
        stored(a_decision(experiment), status="awaiting_approval"),
    )
    own = experiment.experiment_id
    assert await store.read(lambda tx: tx.decisions.open(own)) == [asked, waiting]
    later = NOON + timedelta(microseconds=1)
    done = asked.settled(
        "applied", at=later, detail="It is live", actor="Ada", effects={"deployment": 4, "deprecated": ["a"]}
    )
    await store.write(lambda tx: tx.decisions.settle([done]))
    await store.write(lambda tx: tx.decisions.seen_again(told.sequence, later))
    assert await store.read(lambda tx: tx.decisions.open(own)) == [waiting]
    assert await store.read(lambda tx: tx.decisions.by_id(asked.decision_id)) == done
    again = await store.read(lambda tx: tx.decisions.by_id(told.decision_id))
    assert again == told.model_copy(update={"seen": 2, "seen_at": later})


async def test_decisions_outlive_their_experiment_and_its_progress_does_not(
    store: Store, experiment: PromptExperiment
) -> None:
    own = experiment.experiment_id
    [kept] = await appended(store, stored(a_decision(experiment)))
    await store.write(lambda tx: tx.rollouts.move(own, RolloutProgress(step=1)))
    await store.write(lambda tx: tx.experiments.delete(own))
    assert await store.read(lambda tx: tx.decisions.of(own)) == [kept]
    assert await store.read(lambda tx: tx.rollouts.of(own)) == RolloutProgress()


async def test_every_move_raises_the_number_of_a_rollout(store: Store, experiment: PromptExperiment) -> None:
    own = experiment.experiment_id
    assert await store.read(lambda tx: tx.rollouts.of(own)) == RolloutProgress()
    progress = RolloutProgress(
        step=2, step_since=NOON, step_units={"a": 4, "b": 5}, withdrawn=("b",), number=0
    )
    first = await store.write(lambda tx: tx.rollouts.move(own, progress))
    assert first == progress.model_copy(update={"number": 1})
    assert await store.read(lambda tx: tx.rollouts.of(own)) == first
    again = await store.write(lambda tx: tx.rollouts.move(own, first.model_copy(update={"withdrawn": ()})))
    assert (again.number, again.withdrawn, again.step) == (2, (), 2)
    assert await store.read(lambda tx: tx.rollouts.of(own)) == again
