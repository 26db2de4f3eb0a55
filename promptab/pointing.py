"""Moves of an environment inside an open write: the pointer, the statuses beside it and the history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from promptab.alerting import raise_moved
from promptab.checks import required_id
from promptab.errors import NotFoundError, StateError
from promptab.lifecycle import check_version_transition, rollback_candidates
from promptab.models import (
    Deployment,
    Environment,
    ExperimentStatus,
    PromptExperiment,
    PromptType,
    PromptVersion,
    VersionStatus,
)
from promptab.moving import with_status
from promptab.stores.base import Transaction


@dataclass(frozen=True, slots=True)
class Occasion:
    """When, by whom, why and on what grounds something is moved."""

    at: datetime
    actor: str | None = None
    reason: str = ""
    evidence: Mapping[str, Any] | None = None
    decision_id: str | None = None
    """Of the decision that is being applied, which tells of itself; None where somebody moves it by hand."""


async def existing_version(tx: Transaction, version_id: str) -> PromptVersion:
    known = required_id("version", version_id)
    version = await tx.versions.by_id(known)
    if version is None:
        raise NotFoundError("version", known)
    return version


async def live_version(
    tx: Transaction, kind: PromptType, name: str, environment: Environment
) -> PromptVersion | None:
    live_id = await tx.deployments.pointer(kind, name, environment)
    return None if live_id is None else await existing_version(tx, live_id)


async def point(
    tx: Transaction, version: PromptVersion, environment: Environment, occasion: Occasion
) -> Deployment:
    """Move the environment to the version. Raises `StateError` where its status does not allow that."""
    if version.status == VersionStatus.ARCHIVED:
        raise StateError(
            f"{version.label} is archived and cannot be promoted; set its status to active first"
        )
    live = await live_version(tx, version.prompt_type, version.name, environment)
    if environment == "production":
        check_version_transition(version, VersionStatus.PRODUCTION)
        # the status beside the pointer is what remains when the pointer has moved on
        await tx.versions.set_status(version.version_id, VersionStatus.ACTIVE)
    return await _moved(tx, _move(version, live, environment, "promote", occasion), occasion)


async def withdraw(
    tx: Transaction, version: PromptVersion, environment: Environment, occasion: Occasion
) -> Deployment:
    """Leave the environment, in which the version is live, without one."""
    return await _moved(tx, _move(None, version, environment, "withdraw", occasion), occasion)


async def keep(tx: Transaction, live: PromptVersion, occasion: Occasion) -> Deployment:
    """Leave production as it is, with a word in the history about what was decided beside it."""
    return await tx.deployments.append(_move(live, live, "production", "keep", occasion))


async def roll_back(
    tx: Transaction,
    target: PromptVersion,
    left: PromptVersion | None,
    environment: Environment,
    occasion: Occasion,
    *,
    apart_from: str | None = None,
) -> Deployment:
    """Move the environment from `left`, what is live, back to `target`.

    Of production the version left becomes deprecated, and running experiments that serve it are paused, but for the
    one with the id `apart_from`.
    """
    evidence = dict(occasion.evidence or {})
    paused: list[PromptExperiment] = []
    if environment == "production":
        await tx.versions.set_status(target.version_id, VersionStatus.ACTIVE)
    if left is not None and environment == "production":
        await tx.versions.set_status(left.version_id, VersionStatus.DEPRECATED)
        if paused := await _pause_experiments(tx, left, occasion.at, apart_from):
            evidence["paused_experiments"] = [experiment.experiment_id for experiment in paused]
    told = replace(occasion, evidence=evidence or None)
    names = [experiment.name for experiment in paused]
    return await _moved(tx, _move(target, left, environment, "rollback", told), told, paused=names)


async def rollback_target(
    tx: Transaction, kind: PromptType, name: str, environment: Environment
) -> PromptVersion | None:
    """Return what a rollback goes back to: versions that are gone or archived are passed over."""
    for former in rollback_candidates(await tx.deployments.history(kind, name, environment)):
        version = await tx.versions.by_id(former.version_id)
        if version is not None and version.status != VersionStatus.ARCHIVED:
            return version
    return None


async def _pause_experiments(
    tx: Transaction, left: PromptVersion, now: datetime, apart_from: str | None
) -> list[PromptExperiment]:
    """Pause the running experiments that serve a version which was rolled back; return them."""
    paused = []
    running = frozenset({ExperimentStatus.RUNNING})
    for experiment in await tx.experiments.listing(statuses=running, prompt_type=left.prompt_type):
        serves_it = left.version in {variant.version for variant in experiment.variants}
        if experiment.prompt_name == left.name and serves_it and experiment.experiment_id != apart_from:
            await with_status(tx, experiment, ExperimentStatus.PAUSED, now=now)
            paused.append(experiment)
    return paused


async def _moved(
    tx: Transaction, move: Deployment, occasion: Occasion, *, paused: Sequence[str] = ()
) -> Deployment:
    """Move the environment, and tell of it where no decision does."""
    made = await tx.deployments.move(move)
    if occasion.decision_id is None:
        await raise_moved(tx, made, paused=paused)
    return made


def _move(
    version: PromptVersion | None,
    left: PromptVersion | None,
    environment: Environment,
    action: Literal["promote", "rollback", "withdraw", "keep"],
    occasion: Occasion,
) -> Deployment:
    about = version or left
    assert about is not None  # noqa: S101 - every move is to a version or from one
    return Deployment(
        sequence=0,
        name=about.name,
        prompt_type=about.prompt_type,
        environment=environment,
        action=action,
        version_id=None if version is None else version.version_id,
        version=None if version is None else version.version,
        previous_version_id=None if left is None else left.version_id,
        previous_version=None if left is None else left.version,
        at=occasion.at,
        actor=occasion.actor,
        reason=occasion.reason,
        evidence=occasion.evidence,
    )
