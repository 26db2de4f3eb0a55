"""Storing decisions inside an open write: the one place where a decision comes into the store."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from promptab.decisions.decision import Consent, Decision
from promptab.decisions.stored import DecisionStatus, Standing, StoredDecision
from promptab.models import PromptExperiment
from promptab.stores.base import Transaction

_WAITING: Mapping[Consent, DecisionStatus] = {
    "none": "pending",
    "approval": "awaiting_approval",
    "by_hand": "by_hand",
}


NOTED_FOR = timedelta(days=1)
"""How long every decision that changed nothing is kept; of older ones that are alike one an hour."""


async def standing_of(tx: Transaction, experiment: PromptExperiment) -> Standing:
    """Return where the experiment stands, as it was read in this transaction."""
    experiment_id = experiment.experiment_id
    epochs = await tx.experiments.epochs_of(experiment_id)
    # a bandit's weights move by themselves, and the number tells when a person moves them
    follows = experiment.bandit is not None
    live_id = live = None
    if experiment.prompt_name is not None:
        live_id = await tx.deployments.pointer(experiment.prompt_type, experiment.prompt_name, "production")
        live = None if live_id is None else await tx.versions.by_id(live_id)
    return Standing(
        number=(await tx.rollouts.of(experiment_id)).number,
        status=experiment.status,
        policy_digest=experiment.policy_digest,
        epoch=0 if follows or not epochs else epochs[-1].number,
        weights={} if follows else experiment.traffic_split,
        traffic=experiment.traffic,
        production_id=live_id,
        production=None if live is None else live.version,
    )


async def keep_decision(tx: Transaction, decision: Decision, standing: Standing) -> StoredDecision:
    """Store a decision that was made on this standing; what was open before and is no longer right is superseded.

    The same decision from the same inputs but for the time, one look after the other, is the one that is there: seen
    once more. Where the experiment has moved since, it is superseded from the beginning.
    """
    latest = await tx.decisions.latest(decision.experiment_id)
    if latest is not None and _is_again(latest, decision, standing):
        await tx.decisions.seen_again(latest.sequence, decision.at)
        return latest.model_copy(update={"seen": latest.seen + 1, "seen_at": decision.at})
    status = "noted" if decision.action == "continue" else _WAITING[decision.consent]
    stored = _new(decision, standing, status)
    if (moved := await moved_since(tx, stored)) is not None:
        return await tx.decisions.append(stored.settled("superseded", at=decision.at, detail=moved))
    outdated = [
        before
        for before in await tx.decisions.open(decision.experiment_id)
        if not _goes_beside(before, stored)
    ]
    await supersede(tx, outdated, by=decision.sentence, at=decision.at)
    await _thin_out(tx, latest, decision)
    return await tx.decisions.append(stored)


async def keep_unmoved(tx: Transaction, decision: Decision) -> StoredDecision:
    """Store a decision that is made from nothing that could move: what it is about looks for itself when it acts."""
    latest = await tx.decisions.latest(decision.experiment_id)
    if latest is not None and _is_again(latest, decision, None):
        await tx.decisions.seen_again(latest.sequence, decision.at)
        return latest.model_copy(update={"seen": latest.seen + 1, "seen_at": decision.at})
    # each rests on more than the one before
    await supersede(tx, await tx.decisions.open(decision.experiment_id), by=decision.sentence, at=decision.at)
    await _thin_out(tx, latest, decision)
    return await tx.decisions.append(
        _new(decision, None, "noted" if decision.action == "continue" else "pending")
    )


async def keep_by_hand(
    tx: Transaction, decision: Decision, standing: Standing | None = None
) -> StoredDecision:
    """Store a decision that takes effect in this transaction: a person's, or one about a guard.

    It supersedes all that is open.
    """
    outdated = await tx.decisions.open(decision.experiment_id)
    await supersede(tx, outdated, by=decision.sentence, at=decision.at)
    return await tx.decisions.append(_new(decision, standing, "pending"))


async def _thin_out(tx: Transaction, latest: StoredDecision | None, decision: Decision) -> None:
    """Drop old decisions that changed nothing, but for one an hour of those that are alike, when the first one of an
    hour is stored.

    A loop that looks every half minute while events come in would store 30 MB a day for each experiment.
    """
    if latest is not None and _hour(latest.decision.at) < _hour(decision.at):
        await tx.decisions.thin_out(decision.experiment_id, before=_hour(decision.at) - NOTED_FOR)


def _hour(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)


def _new(decision: Decision, standing: Standing | None, status: DecisionStatus) -> StoredDecision:
    return StoredDecision(
        sequence=0,
        decision_id=str(uuid.uuid4()),
        decision=decision,
        standing=standing,
        status=status,
        seen_at=decision.at,
    )


async def moved_since(tx: Transaction, stored: StoredDecision) -> str | None:
    """Return what has moved since the decision was made, as a sentence; None where nothing has."""
    experiment = await tx.experiments.by_id(stored.decision.experiment_id)
    if experiment is None:
        return "The experiment has been deleted"
    moved = None if stored.standing is None else stored.standing.moved(await standing_of(tx, experiment))
    return None if moved is None else f"{moved[:1].upper()}{moved[1:]}"


async def supersede(tx: Transaction, outdated: list[StoredDecision], *, by: str, at: datetime) -> None:
    await tx.decisions.settle(
        [before.settled("superseded", at=at, detail=f"Another decision: {by}") for before in outdated]
    )


async def void(tx: Transaction, experiment_id: str, *, why: str, at: datetime) -> None:
    """Supersede all that is open about an experiment that nobody looks at any more: it has ended, or is deleted."""
    outdated = await tx.decisions.open(experiment_id)
    await tx.decisions.settle([before.settled("superseded", at=at, detail=why) for before in outdated])


def _is_again(latest: StoredDecision, decision: Decision, standing: Standing | None) -> bool:
    before = latest.decision
    return (
        latest.status not in {"applied", "superseded"}
        and latest.standing == standing
        and _intent(before) == _intent(decision)
        and _timeless(before) == _timeless(decision)
    )


def _goes_beside(before: StoredDecision, stored: StoredDecision) -> bool:
    """Whether an open decision may still be applied: of two lookers that decide the same thing at the same time
    neither takes the other's away. Whichever is applied first counts.
    """
    same = _intent(before.decision) == _intent(stored.decision) and before.standing == stored.standing
    return same and before.status == stored.status == "pending"


def _intent(decision: Decision) -> tuple[Any, ...]:
    return decision.action, decision.rule, decision.variants, decision.consent, decision.step


def _timeless(decision: Decision) -> Any:
    """Return what it was made from, without the time that it was made at."""
    if decision.inputs is None:
        return None
    inputs = decision.inputs
    analysis = {name: value for name, value in inputs.analysis.items() if name != "at"}
    return analysis, inputs.policy, inputs.state
