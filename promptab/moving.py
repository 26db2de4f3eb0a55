"""Moves of an experiment inside an open write: its status, weights and traffic.

Each but the steps of a bandit and of shadows raises the number of the experiment's rollout, so that a decision which
was made before it is not applied.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from promptab.decisions.stored import RolloutProgress
from promptab.errors import NotFoundError, StateError
from promptab.experiment_rules import next_epoch, next_uniform_epoch, reached_step, with_shadow_share
from promptab.lifecycle import ENDED_STATUSES, check_experiment_transition
from promptab.models import ExperimentStatus, PromptExperiment
from promptab.starting import started
from promptab.stores.base import Transaction


async def reread(tx: Transaction, experiment: PromptExperiment) -> PromptExperiment:
    """Return the experiment as it is inside this transaction: what was found before may have changed since."""
    current = await tx.experiments.by_id(experiment.experiment_id)
    if current is None:
        raise NotFoundError("experiment", experiment.name)
    return current


async def moved(
    tx: Transaction, experiment: PromptExperiment, progress: RolloutProgress | None = None
) -> PromptExperiment:
    """Write the experiment, and how far its rollout is where that has changed too."""
    await tx.experiments.replace(experiment)
    known = await tx.rollouts.of(experiment.experiment_id) if progress is None else progress
    await tx.rollouts.move(experiment.experiment_id, known)
    return experiment


async def with_status(
    tx: Transaction,
    current: PromptExperiment,
    status: ExperimentStatus,
    *,
    now: datetime,
    winner: str | None = None,
    progress: RolloutProgress | None = None,
) -> PromptExperiment:
    """Change the status; the present one again changes nothing. Raises `StateError`."""
    check_experiment_transition(current.name, current.status, status)
    if status == current.status:
        if winner not in {None, current.winner}:
            raise StateError(f"experiment {current.name!r} is completed with the winner {current.winner}")
        return current
    if status == ExperimentStatus.RUNNING and current.started_at is None:
        return await started(tx, current, now)
    update: dict[str, Any] = {"status": status}
    if status in ENDED_STATUSES:
        update |= {"ended_at": now, "winner": winner}
    return await moved(tx, current.model_copy(update=update), progress)


async def with_weights(
    tx: Transaction,
    current: PromptExperiment,
    shares: Mapping[str, float],
    *,
    now: datetime,
    starts_at: datetime,
    evict: bool = False,
    progress: RolloutProgress | None = None,
    by_itself: bool = False,
) -> PromptExperiment:
    """Deal by other weights from `starts_at` on, in the place of a change that has not taken effect by now.

    Of a bandit that moves its weights `by_itself` the rollout's number stays: what was decided before is as right as
    it was, and may wait for a person longer than a batch lasts.

    A variant that is evicted is withdrawn, whoever does it, so that nothing promotes what a person has taken out; one
    that is dealt to again is no longer withdrawn: it is watched as the others are.
    """
    _check_open(current, "weights")
    if current.started_at is not None:
        await tx.experiments.drop_epochs_after(current.experiment_id, now)
        epochs = await tx.experiments.epochs_of(current.experiment_id)
        await tx.experiments.add_epoch(next_epoch(epochs, shares, evict=evict, starts_at=starts_at))
        alike = next_uniform_epoch(epochs, shares, starts_at=starts_at)
        if alike is not None:
            await tx.experiments.add_epoch(alike)
    if progress is None:
        progress = await tx.rollouts.of(current.experiment_id)
    left = tuple(
        key
        for key, share in shares.items()
        if share == 0.0
        and (key in progress.withdrawn or (evict and current.started_at is not None))
        and key != current.control
    )
    changed = current.model_copy(update={"traffic_split": dict(shares)})
    if by_itself:
        await tx.experiments.replace(changed)
        return changed
    return await moved(tx, changed, progress.model_copy(update={"withdrawn": left}))


async def with_traffic(
    tx: Transaction, current: PromptExperiment, share: float, *, now: datetime
) -> PromptExperiment:
    """Enrol another share of units; the ramp goes on from the step that is reached with it."""
    _check_open(current, "traffic")
    changed = current.model_copy(update={"traffic": share})
    if current.started_at is None:
        return await moved(tx, changed)
    changed = changed.model_copy(update={"traffic_history": (*current.traffic_history, (now, share))})
    ramp = () if current.policy is None else current.policy.ramp
    return await moved(tx, changed, await at_step(tx, changed, reached_step(ramp, share), now=now))


async def with_shadow(
    tx: Transaction, current: PromptExperiment, key: str, share: float, *, now: datetime
) -> PromptExperiment:
    """Run a shadow on another share of units. No decision rests on it, so none is superseded."""
    _check_open(current, "shadows")
    changed = with_shadow_share(current, key, share, now)
    await tx.experiments.replace(changed)
    return changed


async def at_step(
    tx: Transaction, experiment: PromptExperiment, step: int, *, now: datetime
) -> RolloutProgress:
    """Return the progress with this step of the ramp beginning now."""
    exposed = await tx.exposures.analysed_counts(experiment, since=experiment.policy_since)
    progress = await tx.rollouts.of(experiment.experiment_id)
    return progress.model_copy(update={"step": step, "step_since": now, "step_units": exposed})


def _check_open(experiment: PromptExperiment, what: str) -> None:
    if experiment.status in ENDED_STATUSES:
        raise StateError(
            f"experiment {experiment.name!r} is {experiment.status}: its {what} cannot change any more"
        )
