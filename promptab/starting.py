"""Beginning to serve an experiment: what has to be there, and what is frozen with the first unit."""

from __future__ import annotations

from datetime import datetime, timedelta

from promptab.errors import NotFoundError, StateError
from promptab.experiment_rules import check_schedule, first_epoch, settled
from promptab.models import ExperimentStatus, PromptExperiment, VersionStatus
from promptab.plan import AnalysisPlan
from promptab.stats.metric import MetricDefinition
from promptab.stores.base import Transaction


async def started(tx: Transaction, experiment: PromptExperiment, now: datetime) -> PromptExperiment:
    """Begin serving: check the schedule and the versions, freeze the plan and the policy, deal the first map.

    With a ramp the traffic is its first step's.
    """
    check_schedule(experiment, now)
    if experiment.prompt_name is not None:
        await _check_versions(tx, experiment, experiment.prompt_name)
    ramp = () if experiment.policy is None else experiment.policy.ramp
    traffic = ramp[0].traffic if ramp else experiment.traffic
    running = experiment.model_copy(
        update={
            "status": ExperimentStatus.RUNNING,
            "started_at": now,
            "traffic": traffic,
            "traffic_history": ((now, traffic),),
            **settled(experiment, await _frozen(tx, experiment)),
        }
    )
    await tx.experiments.replace(running)
    progress = await tx.rollouts.of(running.experiment_id)
    await tx.rollouts.move(running.experiment_id, progress.model_copy(update={"step_since": now}))
    await tx.experiments.add_epoch(first_epoch(experiment, now))
    return running


async def check_holdout(tx: Transaction, experiment: PromptExperiment) -> None:
    if experiment.holdout is not None and experiment.holdout not in await tx.experiments.holdouts():
        raise NotFoundError("holdout", experiment.holdout, "make it with set_holdout first")


async def _check_versions(tx: Transaction, experiment: PromptExperiment, name: str) -> None:
    """Refuse to serve versions that are missing or archived. A prompt that does not exist has none to be missing."""
    numbers = await tx.versions.numbers(experiment.prompt_type, name)
    for variant in experiment.variants:
        if not numbers or variant.version is None:
            continue
        version = await tx.versions.by_number(experiment.prompt_type, name, variant.version)
        if version is None:
            raise NotFoundError(
                "version",
                f"{experiment.prompt_type}/{name}@{variant.version}",
                f"the prompt has {', '.join(numbers[:5])}",
            )
        if version.status == VersionStatus.ARCHIVED:
            raise StateError(
                f"{version.label} is archived and cannot be served; set its status to active first"
            )


async def _frozen(tx: Transaction, experiment: PromptExperiment) -> AnalysisPlan:
    """Settle every cap that was declared as a percentile, by the prompt's events before the start; of a total per unit
    by the totals of its units, over the measurement window where there is one.

    Where there are none, nothing is known to cap by and the metric is not capped.
    """
    metrics = []
    for metric in experiment.plan.metrics:
        cap = metric.cap
        if metric.cap_percentile is not None and cap is None and experiment.prompt_name is not None:
            cap = await _percentile(tx, experiment, experiment.prompt_name, metric, metric.cap_percentile)
        metrics.append(metric.model_copy(update={"cap": cap}))
    return experiment.plan.model_copy(update={"metrics": tuple(metrics)})


async def _percentile(
    tx: Transaction, experiment: PromptExperiment, name: str, metric: MetricDefinition, share: float
) -> float | None:
    if metric.kind != "mean_per_unit":
        return await tx.events.percentile(experiment.prompt_type, name, metric.source, share)
    hours = experiment.plan.window_hours
    window = None if hours is None else timedelta(hours=hours)
    return await tx.history.unit_percentile_of_prompt(
        experiment.prompt_type, name, metric.source, share, window=window
    )
