"""How an experiment is going, as `promptab experiment status` tells it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from promptab.cli.decision_view import outcome, what
from promptab.cli.output import facts, table
from promptab.cli.wording import counted, day_and_minute, moment, percent, span
from promptab.decisions.stored import RolloutProgress, StoredDecision
from promptab.errors import NotFoundError
from promptab.lab import Lab
from promptab.models import PromptExperiment

if TYPE_CHECKING:
    from rich.console import Console


class ExperimentProgress(NamedTuple):
    experiment: PromptExperiment
    units: Mapping[str, int]
    """Exposed units by variant key."""
    now: datetime
    rollout: RolloutProgress
    latest: StoredDecision | None
    """What was decided about it last."""

    @property
    def seconds(self) -> float | None:
        """How long it has been running, or ran; None before the start."""
        started = self.experiment.started_at
        return None if started is None else ((self.experiment.ended_at or self.now) - started).total_seconds()

    def share(self, key: str) -> float | None:
        total = sum(self.units.values())
        return self.units[key] / total if total else None


async def experiment_status(lab: Lab, experiment: str, *, now: datetime) -> ExperimentProgress:
    found = await lab.experiments.get_experiment(experiment)
    if found is None:
        raise NotFoundError("experiment", experiment, "list them with `promptab experiment list`")
    units = await lab.experiments.get_variant_distribution(found.experiment_id)
    rollout = await lab.rollout.progress(found.experiment_id)
    decisions = await lab.decisions(found.experiment_id, limit=1)
    return ExperimentProgress(found, units, now, rollout, decisions[0] if decisions else None)


def status_document(progress: ExperimentProgress) -> dict[str, Any]:
    experiment = progress.experiment
    return {
        "experiment": experiment,
        "seconds": progress.seconds,
        "units": sum(progress.units.values()),
        "rollout": progress.rollout,
        "variants": [
            {
                "key": variant.key,
                "version": variant.version,
                "control": variant.key == experiment.control,
                "configured": experiment.traffic_split[variant.key],
                "actual": progress.share(variant.key),
                "units": progress.units[variant.key],
            }
            for variant in experiment.variants
        ],
    }


def print_status(to: Console, progress: ExperimentProgress) -> None:
    experiment = progress.experiment
    prompt = experiment.prompt_name or "configurations alone"
    to.print(f"Experiment {experiment.name}", style="bold")
    lines = [
        ("id", experiment.experiment_id),
        ("status", _status(progress)),
        ("on", f"{experiment.prompt_type}/{prompt}" if experiment.prompt_name else prompt),
        ("primary metric", experiment.primary_metric),
        ("enrolled", f"{percent(experiment.traffic)} of all {experiment.unit} units"),
        ("units so far", f"{sum(progress.units.values()):,}"),
    ]
    if experiment.where is not None:
        lines.append(("where", experiment.where))
    if experiment.holdout is not None:
        lines.append(("holdout", experiment.holdout))
    if experiment.overrides:
        lines.append(("shown by hand", counted(len(experiment.overrides), "unit")))
    lines += _acted_on(progress)
    for name, time in (("starts at", experiment.starts_at), ("ends at", experiment.ends_at)):
        if time is not None:
            lines.append((name, f"{moment(time)} UTC"))
    to.print(facts(lines))
    rows = table(
        "variant", "serves", "configured", "actual", "units", right=["configured", "actual", "units"]
    )
    for variant in experiment.variants:
        share = progress.share(variant.key)
        rows.add_row(
            variant.key + (" (control)" if variant.key == experiment.control else ""),
            variant.version or "its configuration",
            percent(experiment.traffic_split[variant.key]),
            "-" if share is None else percent(share),
            f"{progress.units[variant.key]:,}",
        )
    to.print(rows)


def _acted_on(progress: ExperimentProgress) -> list[tuple[str, str]]:
    """Return what is done about its outcomes, and how far that has come."""
    policy, rollout = progress.experiment.policy, progress.rollout
    lines = []
    if policy is not None:
        digest = progress.experiment.policy_digest
        since = progress.experiment.policy_since
        told = "frozen at the start" if digest is None else digest[:12]
        told += (
            "" if since is None else f", since {day_and_minute(since)} UTC: only units exposed from then on"
        )
        lines.append(("policy", f"{told}; on a win: {policy.on_win.replace('_', ' ')}"))
        if policy.ramp:
            step = policy.ramp[rollout.step]
            lines.append(
                ("ramp", f"step {rollout.step + 1} of {len(policy.ramp)}, {percent(step.traffic)} of all")
            )
    if rollout.withdrawn:
        lines.append(("rolled back", ", ".join(rollout.withdrawn)))
    if progress.latest is not None:
        lines.append(("last decision", f"{what(progress.latest.decision)}: {outcome(progress.latest)}"))
    return lines


def _status(progress: ExperimentProgress) -> str:
    experiment = progress.experiment
    told = str(experiment.status)
    if experiment.started_at is not None:
        end = experiment.ended_at
        length = span((end or progress.now) - experiment.started_at)
        told += f", ran for {length}" if end else f", started {length} ago"
    return told + (f", won by {experiment.winner}" if experiment.winner else "")
