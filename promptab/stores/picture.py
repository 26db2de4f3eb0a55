"""Building a snapshot: one read transaction's picture of what is live."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from promptab.allocation import seed
from promptab.errors import PromptabError
from promptab.live_experiment import HeldOut, LiveExperiment, build_live_experiment
from promptab.models import Exposure, PromptExperiment, PromptType, PromptVersion
from promptab.snapshot import Snapshot
from promptab.stores.base import Transaction

logger = logging.getLogger("promptab")


async def take_snapshot(tx: Transaction, *, store_id: str, revision: int) -> Snapshot:
    """Read everything that a request may need. The cost grows with what is live, not with history."""
    pointers = await tx.deployments.pointers()
    latest = await tx.versions.highest_served()
    experiments = await tx.experiments.live()
    versions = {version.version_id: version for version in latest}
    versions.update(await tx.versions.by_ids(set(pointers.values()) - set(versions)))
    for version in await tx.versions.by_numbers(_served_numbers(experiments)):
        versions[version.version_id] = version
    await _add_included(tx, versions)
    return Snapshot(
        store_id=store_id,
        revision=revision,
        experiments=tuple(await _live_experiments(tx, experiments)),
        live=pointers,
        latest={(version.prompt_type, version.name): version.version_id for version in latest},
        versions=versions,
        numbers={(v.prompt_type, v.name, v.version): v.version_id for v in versions.values()},
        aliases=await tx.experiments.aliases_since(min(map(_started, experiments))) if experiments else {},
    )


def _served_numbers(experiments: Iterable[PromptExperiment]) -> list[tuple[PromptType, str, str]]:
    return [
        (experiment.prompt_type, experiment.prompt_name, number)
        for experiment in experiments
        if experiment.prompt_name is not None
        for number in experiment.versions_in_use
    ]


async def _add_included(tx: Transaction, versions: dict[str, PromptVersion]) -> None:
    missing = {i for version in versions.values() for i in version.includes.values()} - set(versions)
    while missing:
        found = await tx.versions.by_ids(missing)
        versions.update(found)
        missing = {i for version in found.values() for i in version.includes.values()} - set(versions)


async def _live_experiments(tx: Transaction, experiments: Sequence[PromptExperiment]) -> list[LiveExperiment]:
    if not experiments:
        return []
    ids = [experiment.experiment_id for experiment in experiments]
    epochs = await tx.experiments.epochs_by_experiment(ids)
    holdouts = await tx.experiments.holdouts()
    kept = _kept_by_experiment(await tx.exposures.brought(ids))
    live = []
    for experiment in sorted(
        experiments, key=lambda experiment: (_started(experiment), experiment.experiment_id)
    ):
        holdout = None if experiment.holdout is None else holdouts.get(experiment.holdout)
        try:
            live.append(
                build_live_experiment(
                    experiment,
                    epochs.get(experiment.experiment_id, ()),
                    None if holdout is None else HeldOut(holdout.name, seed(holdout.salt), holdout.share),
                    kept.get(experiment.experiment_id, {}),
                )
            )
        except (PromptabError, ValueError, KeyError) as error:
            # one experiment that was damaged past the checks must not take all others out of service
            logger.error("left out experiment %s: %s", experiment.experiment_id, error)  # noqa: TRY400 - the row is what is wrong
    return live


def _started(experiment: PromptExperiment) -> datetime:
    started = experiment.started_at or experiment.created_at
    return max(started, experiment.starts_at or started)


def _kept_by_experiment(exposures: Iterable[Exposure]) -> Mapping[str, Mapping[str, str]]:
    kept: dict[str, dict[str, str]] = {}
    for exposure in exposures:
        kept.setdefault(exposure.experiment_id, {})[exposure.unit] = exposure.current
    return kept
