"""The coroutines of `Lab` and of `Choice`, and opening."""

from __future__ import annotations

import promptab
from promptab import StoreError
from tests.cancelled import calls, metrics
from tests.cancelled.attempts import (
    SECOND,
    Attempt,
    Preparation,
    Stage,
    pair,
    reads,
    recorded,
    running,
)


async def choosing(stage: Stage) -> Attempt:
    _, second = await pair(stage)
    await stage.lab.versions.promote(second.version_id)  # and the snapshot in hand does not know it yet
    return reads(
        lambda: stage.lab.choose(stage.name),
        (SECOND, "environment", "Be kinder."),
        lambda choice: (choice.version and choice.version.version, choice.source, choice.render()),
    )


async def analyzing(stage: Stage) -> Attempt:
    begun = await recorded(stage)
    return reads(lambda: stage.lab.analyze(begun.experiment_id), metrics.RATES, metrics.rates)


async def comparing(stage: Stage) -> Attempt:
    begun = await recorded(stage)
    return reads(lambda: stage.lab.compare(begun.experiment_id), metrics.RATES, metrics.rates)


async def crossing(stage: Stage) -> Attempt:
    one, other = await metrics.crossed(stage)
    return reads(lambda: stage.lab.interaction(one, other), 6, lambda result: result.units)


async def replaying(stage: Stage) -> Attempt:
    begun = await recorded(stage, metrics.UNITS_TO_REPLAY)
    return reads(lambda: stage.lab.replay(begun.experiment_id, runs=5), 5, lambda result: result.runs)


async def promoting_the_winner(stage: Stage) -> Attempt:
    begun = await recorded(stage, 120, plan={"minimum_units": 10})

    async def look() -> object:
        moves = await stage.lab.versions.deployments(stage.name, "system")
        found = await stage.lab.experiments.get_experiment(begun.experiment_id)
        assert found is not None
        return [(move.action, move.version) for move in moves], found.status.value, found.winner

    moved = [("promote", SECOND)]
    return Attempt(
        lambda: stage.lab.promote_winner(begun.experiment_id, allow_approximate=True),
        look,
        none=([], "running", None),
        whole=(moved, "completed", SECOND),
        between=[(moved, "running", None)],
    )


CERTAIN = {"allow_approximate": True, "guardrails": ["cost <= 1"]}


async def deciding(stage: Stage) -> Attempt:
    begun = await recorded(stage, 120, plan={"minimum_units": 10}, policy=CERTAIN)

    async def look() -> object:
        found = await stage.lab.store.read(lambda tx: tx.decisions.of(begun.experiment_id))
        return [(each.decision.action, each.status) for each in found]

    return Attempt(
        lambda: stage.lab.decide(begun.experiment_id), look, none=[], whole=[("continue", "noted")]
    )


async def acted(stage: Stage, experiment_id: str) -> object:
    """Return everything that applying a decision changes."""
    moves = await stage.lab.versions.deployments(stage.name, "system")
    found = await stage.lab.experiments.get_experiment(experiment_id)
    assert found is not None
    decisions = await stage.lab.decisions(experiment_id)
    return (
        [(move.action, move.version) for move in moves],
        found.status.value,
        found.winner,
        [(each.decision.action, each.status) for each in decisions],
    )


async def to_be_promoted(stage: Stage, on_win: str) -> tuple[str, str]:
    """Start an experiment that is to be promoted; return its id and the decision's."""
    policy = {"allow_approximate": True, "on_win": on_win}
    begun = await recorded(stage, 120, plan={"minimum_units": 10}, policy=policy)
    stored = await stage.lab.decide(begun.experiment_id)
    return begun.experiment_id, stored.decision_id


async def applying(stage: Stage) -> Attempt:
    experiment_id, decision_id = await to_be_promoted(stage, "promote")
    return Attempt(
        lambda: stage.lab.apply(decision_id),
        lambda: acted(stage, experiment_id),
        none=([], "running", None, [("promote", "pending")]),
        whole=([("promote", SECOND)], "completed", SECOND, [("promote", "applied")]),
    )


async def approving(stage: Stage) -> Attempt:
    experiment_id, _ = await to_be_promoted(stage, "require_approval")
    return Attempt(
        lambda: stage.lab.approve(experiment_id, actor="Ada"),
        lambda: acted(stage, experiment_id),
        none=([], "running", None, [("promote", "awaiting_approval")]),
        whole=([("promote", SECOND)], "completed", SECOND, [("promote", "applied")]),
    )


async def overriding(stage: Stage) -> Attempt:
    begun = await running(stage)
    await stage.lab.versions.promote(begun.first.version_id)
    first = ("promote", begun.first.version)

    async def look() -> object:
        found = await stage.lab.store.read(lambda tx: tx.decisions.of(begun.experiment_id))
        moves = await stage.lab.versions.deployments(stage.name, "system")
        return [each.status for each in found], [(move.action, move.version) for move in moves]

    return Attempt(
        lambda: stage.lab.override(begun.experiment_id, "rollback", reason="it is rude"),
        look,
        none=([], [first]),
        whole=(["applied"], [first, ("keep", begun.first.version)]),
    )


async def listing_decisions(stage: Stage) -> Attempt:
    begun = await running(stage)
    await stage.lab.override(begun.experiment_id, "pause", reason="lunch")
    return reads(
        lambda: stage.lab.decisions(begun.experiment_id),
        ["pause"],
        lambda found: [each.decision.action for each in found],
    )


async def closing(stage: Stage) -> Attempt:
    other = await promptab.open(stage.url).__aenter__()
    version = await other.versions.create_version(stage.name, "system", "Be kind.")
    for _ in range(3):
        assert other.metrics.record_nowait(version.version_id, True)

    async def look() -> object:
        await other.close()
        try:
            await other.versions.list_versions()
        except StoreError:
            return "closed", other.metrics.stats().written
        return "open", other.metrics.stats().written

    # whoever closes may be cancelled; it is closed, and what is queued is written, all the same
    return Attempt(other.close, look, none=("closed", 3), whole=("closed", 3))


async def opening(stage: Stage) -> Attempt:
    async def open_and_look() -> int:
        async with promptab.open(stage.url) as other:
            return len(await other.versions.list_versions(stage.name))

    return reads(open_and_look, 0, lambda count: count)


async def recording(stage: Stage) -> Attempt:
    await running(stage)
    choice = await stage.lab.choose(stage.name, user_id="u1")
    assert choice.version is not None
    version_id, number = choice.version.version_id, choice.version.version

    async def look() -> object:
        await stage.lab.store.flush()
        events = await stage.lab.metrics.get_events(version_id)
        return [(event.success, event.variant, event.user_id) for event in events]

    return Attempt(lambda: choice.record(True), look, none=[], whole=[(True, number, "u1")])


PREPARATIONS: dict[str, Preparation] = calls.PREPARATIONS | {
    "analyze": analyzing,
    "apply": applying,
    "approve": approving,
    "choose": choosing,
    "close": closing,
    "compare": comparing,
    "decide": deciding,
    "decisions": listing_decisions,
    "interaction": crossing,
    "override": overriding,
    "promote_winner": promoting_the_winner,
    "replay": replaying,
}
OF_CHOICES: dict[str, Preparation] = {"record": recording}
OPENING: dict[str, Preparation] = {"open": opening}
