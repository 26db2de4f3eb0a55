"""Building a snapshot: one read transaction's picture of what is live."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from promptab.allocation import seed
from promptab.models import ExperimentStatus, Exposure, PromptExperiment, PromptType, PromptVersion
from promptab.snapshot import HeldOut, LiveExperiment, Snapshot, build_live_experiment
from promptab.stores.base import Transaction

LIVE_STATUSES = frozenset({ExperimentStatus.RUNNING, ExperimentStatus.PAUSED})


async def take_snapshot(tx: Transaction, *, store_id: str, revision: int) -> Snapshot:
    """Read everything that a request may need. The cost grows with what is live, not with history."""
    pointers = await tx.deployments.pointers()
    latest = await tx.versions.highest_served()
    experiments = await tx.experiments.listing(statuses=LIVE_STATUSES)
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
    )


def _served_numbers(experiments: Iterable[PromptExperiment]) -> list[tuple[PromptType, str, str]]:
    return [
        (experiment.prompt_type, experiment.prompt_name, variant.version)
        for experiment in experiments
        if experiment.prompt_name is not None
        for variant in experiment.variants
        if variant.version is not None
    ]


async def _add_included(tx: Transaction, versions: dict[str, PromptVersion]) -> None:
    missing = {i for version in versions.values() for i in version.includes.values()} - set(versions)
    while missing:
        found = await tx.versions.by_ids(missing)
        versions.update(found)
        missing = {i for version in found.values() for i in version.includes.values()} - set(versions)


async def _live_experiments(tx: Transaction, experiments: Sequence[PromptExperiment]) -> list[LiveExperiment]:
    holdouts = await tx.experiments.holdouts() if experiments else {}
    kept = _kept_by_experiment(await tx.exposures.with_source("alias")) if experiments else {}
    live = []
    for experiment in sorted(experiments, key=_start_order):
        holdout = holdouts.get(experiment.holdout) if experiment.holdout is not None else None
        live.append(
            build_live_experiment(
                experiment,
                await tx.experiments.epochs_of(experiment.experiment_id),
                None if holdout is None else HeldOut(holdout.name, seed(holdout.salt), holdout.share),
                kept.get(experiment.experiment_id, {}),
            )
        )
    return live


def _start_order(experiment: PromptExperiment) -> tuple[float, str]:
    started = experiment.started_at or experiment.created_at
    return (max(started, experiment.starts_at or started).timestamp(), experiment.experiment_id)


def _kept_by_experiment(exposures: Iterable[Exposure]) -> Mapping[str, Mapping[str, str]]:
    kept: dict[str, dict[str, str]] = {}
    for exposure in exposures:
        kept.setdefault(exposure.experiment_id, {})[exposure.unit] = exposure.variant
    return kept
