"""Applying decisions inside an open write: the one place where a decision takes effect."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from promptab.alerting import raise_applied
from promptab.allocation import normalise
from promptab.analysis.result import AnalysisResult
from promptab.decision_keeping import moved_since, supersede
from promptab.decisions.deciding import grounds_of_pause
from promptab.decisions.decision import Action, Decision
from promptab.decisions.stored import RolloutProgress, StoredDecision
from promptab.errors import NotFoundError, StateError
from promptab.lifecycle import LIVE_STATUSES, SERVED_STATUSES
from promptab.models import (
    Deployment,
    ExperimentStatus,
    PromptExperiment,
    PromptVersion,
    VersionStatus,
)
from promptab.moving import at_step, moved, with_status, with_weights
from promptab.pointing import Occasion, keep, live_version, point, roll_back, rollback_target
from promptab.stores.base import Transaction


async def apply_decision(
    tx: Transaction, stored: StoredDecision, occasion: Occasion, *, approved: bool = False
) -> StoredDecision:
    """Do what was decided, once, and only where nothing has moved since; return it with what became of it.

    One that was applied or superseded already is returned as it is, and so is one that needs somebody's consent, unless
    it is `approved` now. `occasion` says when and by whom; its reason is what a person has added.

    Raises `StateError` and `NotFoundError` where it cannot be done; nothing has changed then.
    """
    now = occasion.at
    if not (stored.status == "pending" or (approved and stored.is_open)):
        return stored
    if (moved := await moved_since(tx, stored)) is not None:
        settled = stored.settled("superseded", at=now, detail=f"{moved}{await _by_whom(tx, stored)}")
        await tx.decisions.settle([settled])
        return settled
    experiment = await tx.experiments.by_id(stored.decision.experiment_id)
    assert experiment is not None  # noqa: S101 - it has not moved
    reason = "; ".join(filter(None, [stored.decision.sentence, occasion.reason]))
    why = Occasion(now, occasion.actor, reason, _evidence(stored), stored.decision_id)
    act = _Act(tx, experiment, stored, why)
    done = await _ACTS[stored.decision.action](act)
    settled = stored.settled(
        "applied", at=now, detail=done.detail, actor=occasion.actor, effects=done.effects
    )
    await tx.decisions.settle([settled])
    await raise_applied(tx, settled)
    await supersede(
        tx, await tx.decisions.open(experiment.experiment_id), by=stored.decision.sentence, at=now
    )
    return settled


async def _by_whom(tx: Transaction, stored: StoredDecision) -> str:
    """Return which decision has moved it since, where one did."""
    for later in await tx.decisions.of(stored.decision.experiment_id, limit=20):
        if later.status == "applied" and later.settled_at and later.settled_at >= stored.decision.at:
            who = f" by {later.actor}" if later.actor else ""
            return f"; applied{who} in between: {later.decision.sentence}"
    return ""


def _evidence(stored: StoredDecision) -> dict[str, Any]:
    """Return what the deployment history keeps of the decision."""
    decision = stored.decision
    told: dict[str, Any] = {
        "decision_id": stored.decision_id,
        "action": decision.action,
        "rule": decision.rule,
        "experiment_id": decision.experiment_id,
        "experiment": decision.experiment,
        "variants": list(decision.variants),
        "numbers": dict(decision.numbers),
        "policy_digest": decision.policy_digest,
    }
    if decision.inputs is not None:
        told["analysis"] = AnalysisResult.model_validate(decision.inputs.analysis).evidence()
    return told


class _Done(NamedTuple):
    """What applying a decision did."""

    detail: str
    effects: Mapping[str, Any]


class _Act(NamedTuple):
    """A decision that is being applied."""

    tx: Transaction
    experiment: PromptExperiment
    stored: StoredDecision
    occasion: Occasion

    @property
    def decision(self) -> Decision:
        return self.stored.decision

    @property
    def now(self) -> datetime:
        return self.occasion.at

    async def progress(self) -> RolloutProgress:
        return await self.tx.rollouts.of(self.experiment.experiment_id)

    async def live(self) -> PromptVersion | None:
        """Return what is in production of the experiment's prompt."""
        name = self.experiment.prompt_name
        if name is None:
            return None
        return await live_version(self.tx, self.experiment.prompt_type, name, "production")

    async def version_of(self, key: str) -> PromptVersion | None:
        """Return the version that a variant serves; None where it serves a configuration alone."""
        variant = self.experiment.variant(key)
        name = self.experiment.prompt_name
        if variant is None or variant.version is None or name is None:
            return None
        return await self.tx.versions.by_number(self.experiment.prompt_type, name, variant.version)

    async def done(self, detail: str, move: Deployment | None = None, **effects: Any) -> _Done:
        """Return what was done, after a word in the deployment history where production has not moved."""
        if move is None and (live := await self.live()) is not None:
            move = await keep(self.tx, live, self.occasion)
        if move is not None:
            effects |= {"deployment": move.sequence, "moved": move.action}
        return _Done(detail, effects)


async def _ramp(act: _Act) -> _Done:
    traffic, step = act.decision.traffic, act.decision.step
    assert traffic is not None  # noqa: S101 - of a ramp both are there
    assert step is not None  # noqa: S101
    history = (*act.experiment.traffic_history, (act.now, traffic))
    changed = act.experiment.model_copy(update={"traffic": traffic, "traffic_history": history})
    await moved(act.tx, changed, await at_step(act.tx, changed, step, now=act.now))
    return await act.done(f"Traffic is {traffic:.3g}", traffic=traffic, step=step)


async def _promote(act: _Act) -> _Done:
    [winner] = act.decision.variants
    variant = act.experiment.variant(winner)
    version = await act.version_of(winner)
    if version is None and variant is not None and variant.version is not None and act.experiment.prompt_name:
        label = f"{act.experiment.prompt_type}/{act.experiment.prompt_name}@{variant.version}"
        raise NotFoundError("version", label, "it has been deleted and cannot be promoted")
    completed = ExperimentStatus.COMPLETED
    if version is None:
        await with_status(act.tx, act.experiment, completed, now=act.now, winner=winner)
        return await act.done(f"Completed: {winner} has won, and serves no version to promote", winner=winner)
    live = await act.live()
    move = None
    if live is None or live.version_id != version.version_id:
        move = await point(act.tx, version, "production", act.occasion)
    await with_status(act.tx, act.experiment, completed, now=act.now, winner=winner)
    was = "already" if move is None else "now"
    return await act.done(
        f"{version.label} is {was} live in production, and the experiment is completed",
        move,
        winner=winner,
        version_id=version.version_id,
    )


async def _rollback(act: _Act) -> _Done:
    failed, progress = act.decision.variants, await act.progress()
    progress = progress.model_copy(update={"withdrawn": (*progress.withdrawn, *failed)})
    out = frozenset(progress.withdrawn)
    remaining = [variant.key for variant in act.experiment.variants if variant.key not in out]
    goes_on = any(key != act.experiment.control for key in remaining)
    if goes_on:
        shares = _without(act.experiment, out)
        await with_weights(
            act.tx, act.experiment, shares, now=act.now, starts_at=act.now, evict=True, progress=progress
        )
    else:
        stopped = ExperimentStatus.STOPPED
        await with_status(act.tx, act.experiment, stopped, now=act.now, progress=progress)
    move, deprecated = await _leave_versions(act, remaining)
    told = [f"{', '.join(failed)} is served to nobody any more"]
    told += [] if goes_on else ["the experiment has ended, as only its control is left"]
    live = await act.live()
    told += [f"production is back at {move.version}"] if move is not None else []
    if move is None and live is not None and live.version in _numbers(act, failed):
        told.append(f"production stays at {live.version}, as there is nothing to go back to")
    told += [f"{label} is deprecated" for label in deprecated]
    return await act.done("; ".join(told), move, withdrawn=list(failed), deprecated=deprecated)


def _without(experiment: PromptExperiment, out: frozenset[str]) -> dict[str, float]:
    """Return the weights that are left, with those of the variants in `out` at zero."""
    shares = {key: 0.0 if key in out else share for key, share in experiment.traffic_split.items()}
    if not any(shares.values()):
        shares[experiment.control] = 1.0
    return normalise(shares, positive=False)


async def _leave_versions(act: _Act, remaining: Sequence[str]) -> tuple[Deployment | None, list[str]]:
    """Deprecate the versions of the failed variants, unless they are in use elsewhere, and take production back from
    them; return the move of production, and what was deprecated.
    """
    in_use = _numbers(act, remaining)
    failed = [await act.version_of(key) for key in act.decision.variants]
    left = {version.version_id: version for version in failed if version and version.version not in in_use}
    live, move = await act.live(), None
    if live is not None and live.version_id in left:
        move = await _roll_production_back(act, live, left)
    deprecated = [] if move is None or live is None else [live.label]
    for version in left.values():
        beside = version.status in {*SERVED_STATUSES, VersionStatus.DRAFT}
        is_live = live is not None and live.version_id == version.version_id
        if beside and not is_live and not await _is_in_use(act, version):
            await act.tx.versions.set_status(version.version_id, VersionStatus.DEPRECATED)
            deprecated.append(version.label)
    return move, deprecated


def _numbers(act: _Act, keys: Sequence[str]) -> set[str]:
    """Return the numbers of the versions that these variants serve."""
    return {each.version for each in act.experiment.variants if each.key in keys and each.version is not None}


async def _roll_production_back(
    act: _Act, live: PromptVersion, left: Mapping[str, PromptVersion]
) -> Deployment | None:
    """Take production back to what was live before, else to what the control serves; None where there is neither."""
    target = await rollback_target(act.tx, live.prompt_type, live.name, "production")
    if target is None or target.version_id in left:
        target = await act.version_of(act.experiment.control)
    if target is None or target.status == VersionStatus.ARCHIVED:
        return None
    return await roll_back(
        act.tx, target, live, "production", act.occasion, apart_from=act.experiment.experiment_id
    )


async def _is_in_use(act: _Act, version: PromptVersion) -> bool:
    """Whether the version is live in an environment, or served by another experiment."""
    if await act.tx.deployments.environments_of(version.version_id):
        return True
    others = await act.tx.experiments.listing(statuses=LIVE_STATUSES, prompt_type=version.prompt_type)
    return any(
        other.prompt_name == version.name and version.version in {v.version for v in other.variants}
        for other in others
        if other.experiment_id != act.experiment.experiment_id
    )


async def _pause(act: _Act) -> _Done:
    progress, known = await act.progress(), act.decision.inputs
    if known is not None:
        analysis = AnalysisResult.model_validate(known.analysis)
        grounds = grounds_of_pause(analysis, act.decision)
        told = dict.fromkeys((*progress.paused_for, *grounds))
        progress = progress.model_copy(update={"paused_for": tuple(told)})
    await with_status(act.tx, act.experiment, ExperimentStatus.PAUSED, now=act.now, progress=progress)
    return await act.done("The experiment is paused")


async def _stop(act: _Act) -> _Done:
    winner = next(iter(act.decision.variants), None)
    ended = ExperimentStatus.STOPPED if winner is None else ExperimentStatus.COMPLETED
    await with_status(act.tx, act.experiment, ended, now=act.now, winner=winner)
    if winner is None:
        return await act.done("The experiment is stopped")
    return await act.done(f"The experiment is completed with the winner {winner}", winner=winner)


async def _go_on(act: _Act) -> _Done:
    if act.experiment.status != ExperimentStatus.PAUSED:
        raise StateError(f"experiment {act.experiment.name!r} is {act.experiment.status}, not paused")
    await with_status(act.tx, act.experiment, ExperimentStatus.RUNNING, now=act.now)
    return await act.done("The experiment goes on")


_ACTS: Mapping[Action, Callable[[_Act], Awaitable[_Done]]] = {
    "continue": _go_on,
    "ramp": _ramp,
    "promote": _promote,
    "rollback": _rollback,
    "pause": _pause,
    "stop": _stop,
}
