"""The coroutines of `ABTestManager`."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from promptab import PromptVariant
from promptab.managed import utc_now
from promptab.stores.base import Transaction
from tests.cancelled.attempts import (
    FIRST,
    SECOND,
    Attempt,
    Preparation,
    Stage,
    dealt,
    moved_away,
    pair,
    reads,
    running,
)


async def creating(stage: Stage) -> Attempt:
    await pair(stage)

    async def look() -> object:
        found = await stage.lab.experiments.list_experiments(stage.name)
        # an experiment without its first map of weights could assign nobody
        return [(await stage.lab.experiments.assign(each.experiment_id, "u1")).reason for each in found]

    return Attempt(
        lambda: stage.lab.experiments.create_experiment(
            stage.name, "system", [PromptVariant(FIRST), PromptVariant(SECOND)]
        ),
        look,
        none=[],
        whole=["allocated"],
    )


def changing_status(
    change: str, *arguments: str, status: str, before: str = "running", **options: str
) -> Preparation:
    """Call one of the methods that change an experiment's status."""

    async def prepare(stage: Stage) -> Attempt:
        begun = await running(stage, status="draft" if before == "draft" else "running")
        if before == "paused":
            await stage.lab.experiments.pause(begun.experiment_id)

        async def look() -> object:
            found = await stage.lab.experiments.get_experiment(begun.experiment_id)
            assert found is not None
            served = await stage.lab.experiments.get_variant_for_user(begun.experiment_id, "u1")
            return found.status.value, found.winner, served is not None

        method = getattr(stage.lab.experiments, change)
        return Attempt(
            lambda: method(begun.experiment_id, *arguments, **options),
            look,
            none=(before, None, before == "running"),
            whole=(status, options.get("winner"), status == "running"),
        )

    return prepare


async def changing_weights(stage: Stage) -> Attempt:
    begun = await running(stage)

    async def look() -> object:
        found = await stage.lab.experiments.get_experiment(begun.experiment_id)
        assert found is not None
        live = (await stage.lab.store.snapshot()).experiment(begun.experiment_id, utc_now())
        assert live is not None
        return dict(found.traffic_split), dict(live.experiment.traffic_split), len(live.dealings)

    old, new = {FIRST: 0.5, SECOND: 0.5}, {FIRST: 0.25, SECOND: 0.75}
    return Attempt(
        lambda: stage.lab.experiments.update_weights(begun.experiment_id, new, lead_seconds=0),
        look,
        none=(old, old, 1),
        whole=(new, new, 2),
    )


async def changing_traffic(stage: Stage) -> Attempt:
    begun = await running(stage)

    async def look() -> object:
        found = await stage.lab.experiments.get_experiment(begun.experiment_id)
        assert found is not None
        return found.traffic, [share for _, share in found.traffic_history]

    none = await look()
    assert isinstance(none, tuple)
    return Attempt(
        lambda: stage.lab.experiments.update_traffic(begun.experiment_id, 0.5),
        look,
        none=none,
        whole=(0.5, [*none[1], 0.5]),
    )


async def changing_policy(stage: Stage) -> Attempt:
    begun = await running(stage)

    async def look() -> object:
        found = await stage.lab.experiments.get_experiment(begun.experiment_id)
        assert found is not None
        told = await stage.lab.store.read(lambda tx: tx.decisions.of(begun.experiment_id))
        return found.traffic, found.policy_since is not None, [each.decision.rule for each in told]

    return Attempt(
        lambda: stage.lab.experiments.set_policy(begun.experiment_id, {"ramp": [0.5]}),
        look,
        none=(1.0, False, []),
        whole=(0.5, True, ["policy"]),
    )


async def overriding(stage: Stage) -> Attempt:
    experiment, answers = await dealt(stage, units=1)
    await stage.lab.store.flush()

    async def look() -> object:
        found = await stage.lab.experiments.get_experiment(experiment)
        assert found is not None
        return dict(found.overrides), await sources(stage, experiment)

    other = SECOND if answers["u0"] == FIRST else FIRST
    return Attempt(
        lambda: stage.lab.experiments.set_override(experiment, "u0", other),
        look,
        none=({}, {"u0": "assigned"}),
        whole=({"u0": other}, {"u0": "override"}),
    )


async def sources(stage: Stage, experiment: str) -> dict[str, str]:
    async def work(tx: Transaction) -> dict[str, str]:
        return {each.unit: each.source for each in await tx.exposures.listing(experiment)}

    return await stage.lab.store.read(work)


async def holding_out(stage: Stage) -> Attempt:
    async def work(tx: Transaction) -> float | None:
        found = (await tx.experiments.holdouts()).get(stage.name)
        return None if found is None else found.share

    return Attempt(
        lambda: stage.lab.experiments.set_holdout(stage.name, 0.1),
        lambda: stage.lab.store.read(work),
        none=None,
        whole=0.1,
    )


async def becoming_a_user(stage: Stage) -> Attempt:
    begun = await running(stage)
    met = await stage.lab.experiments.assign(begun.experiment_id, session_id=f"s-{stage.name}")
    session, user = met.unit, f"u-{stage.name}"
    return Attempt(
        lambda: stage.lab.experiments.alias(f"s-{stage.name}", user),
        lambda: stage.lab.experiments.get_experiment_assignments(begun.experiment_id),
        none={session: met.variant},
        whole={user: met.variant},
    )


async def deleting(stage: Stage) -> Attempt:
    experiment, answers = await dealt(stage)
    await stage.lab.store.flush()

    async def look() -> object:
        found = await stage.lab.experiments.get_experiment(experiment)
        return found is not None, await stage.lab.experiments.get_experiment_assignments(experiment)

    return Attempt(
        lambda: stage.lab.experiments.delete_experiment(experiment),
        look,
        none=(True, answers),
        whole=(False, {}),
    )


async def assigning(stage: Stage) -> Attempt:
    experiment = await moved_away(stage)
    return Attempt(
        lambda: stage.lab.experiments.assign(experiment, "u1"),
        lambda: stage.lab.experiments.get_experiment_assignments(experiment),
        none={},
        whole={"u1": FIRST},
    )


async def asking_for_a_user(stage: Stage) -> Attempt:
    experiment = await moved_away(stage)
    return Attempt(
        lambda: stage.lab.experiments.get_variant_for_user(experiment, "u1"),
        lambda: stage.lab.experiments.get_experiment_assignments(experiment),
        none={},
        whole={"u1": FIRST},
    )


async def drawing(stage: Stage) -> Attempt:
    begun = await running(stage)
    return reads(
        lambda: stage.lab.experiments.get_random_variant(begun.experiment_id, random.Random(1)),
        FIRST,
        lambda version: version,
    )


async def reading_assignments(stage: Stage) -> Attempt:
    experiment, answers = await dealt(stage)
    return reads(lambda: stage.lab.experiments.get_experiment_assignments(experiment), answers, dict)


async def reading_one_assignment(stage: Stage) -> Attempt:
    experiment, answers = await dealt(stage)
    return reads(
        lambda: stage.lab.experiments.get_user_assignment(experiment, "u3"), answers["u3"], lambda key: key
    )


async def reading_the_distribution(stage: Stage) -> Attempt:
    experiment, answers = await dealt(stage)
    return reads(
        lambda: stage.lab.experiments.get_variant_distribution(experiment),
        {FIRST: 0, SECOND: 0} | Counter(answers.values()),
        dict,
    )


async def finding(stage: Stage) -> Attempt:
    begun = await running(stage)
    return reads(
        lambda: stage.lab.experiments.get_experiment(stage.name),
        begun.experiment_id,
        lambda found: found and found.experiment_id,
    )


async def listing(stage: Stage) -> Attempt:
    begun = await running(stage)
    return reads(lambda: stage.lab.experiments.list_experiments(stage.name), [begun.experiment_id], ids)


def ids(found: list[Any]) -> list[str]:
    return [experiment.experiment_id for experiment in found]


PREPARATIONS: dict[str, Preparation] = {
    "alias": becoming_a_user,
    "assign": assigning,
    "complete": changing_status("complete", status="completed", winner=SECOND),
    "create_experiment": creating,
    "delete_experiment": deleting,
    "get_experiment": finding,
    "get_experiment_assignments": reading_assignments,
    "get_random_variant": drawing,
    "get_user_assignment": reading_one_assignment,
    "get_variant_distribution": reading_the_distribution,
    "get_variant_for_user": asking_for_a_user,
    "list_experiments": listing,
    "pause": changing_status("pause", status="paused"),
    "resume": changing_status("resume", status="running", before="paused"),
    "set_holdout": holding_out,
    "set_override": overriding,
    "set_policy": changing_policy,
    "start": changing_status("start", status="running", before="draft"),
    "stop": changing_status("stop", status="stopped"),
    "update_experiment_status": changing_status("update_experiment_status", "paused", status="paused"),
    "update_traffic": changing_traffic,
    "update_weights": changing_weights,
}
