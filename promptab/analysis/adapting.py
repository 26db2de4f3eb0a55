"""What a bandit's weights should be by now, and whether it is time for them. Pure: no store, no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from promptab.analysis.evidence import Evidence
from promptab.analysis.inference import are_trials
from promptab.bandit import Bandit, Rebalancing
from promptab.live_experiment import not_serving
from promptab.models import Epoch, PromptExperiment
from promptab.stats.adaptive import weighted_means
from promptab.stats.bandit import bandit_shares
from promptab.stats.contrast import ArmMean

SMALLEST_CHANGE = 0.01
"""The least share of new units that has to change hands: less is not worth an epoch."""


class _Look(NamedTuple):
    experiment: PromptExperiment
    bandit: Bandit
    epoch: Epoch
    """The last one, which may not be in force yet."""
    units: Mapping[str, int]
    at: datetime

    def told(self, reason: str, *, best: Mapping[str, float] | None = None) -> Rebalancing:
        return Rebalancing(
            experiment_id=self.experiment.experiment_id,
            experiment=self.experiment.name,
            at=self.at,
            changed=False,
            epoch=self.epoch.number,
            weights=self.epoch.weights,
            best=best or {},
            units=self.units,
            reason=reason,
        )


def proposed(evidence: Evidence, bandit: Bandit, epochs: Sequence[Epoch]) -> Rebalancing:
    """Return the weights that new units should be dealt by, as the next epoch, or why they stay as they are.

    `evidence` is of the primary metric, `epochs` are all that there are. A variant with weight zero keeps it.
    """
    experiment = evidence.experiment
    keys = [key for key, share in epochs[-1].weights.items() if share > 0.0]
    units = {key: evidence.primary.pooled(key).units for key in keys}
    look = _Look(experiment, bandit, epochs[-1], units, evidence.at)
    if (early := _too_early(look, evidence)) is not None:
        return look.told(early)
    means = weighted_means(evidence.primary.sums, evidence.weights, keys)
    if not means:
        return look.told("the variants have no batch in common yet")
    return _moved(
        look, means, trials=all(are_trials(evidence.primary.pooled(key)) for key in keys), evidence=evidence
    )


def _too_early(look: _Look, evidence: Evidence) -> str | None:
    bandit, epoch = look.bandit, look.epoch
    if (idle := not_serving(look.experiment, look.at)) is not None:
        return idle
    if len(look.units) < 2:
        return "fewer than two variants take new units"
    due = epoch.starts_at + timedelta(hours=bandit.batch_hours)
    if look.at < due:
        return f"these weights are in force until {due:%Y-%m-%d %H:%M:%S} (UTC) at least"
    few = {key: count for key, count in look.units.items() if count < bandit.minimum_units}
    if few:
        told = ", ".join(f"{key} has {count}" for key, count in few.items())
        return f"{told} of the {bandit.minimum_units} counted units that each variant needs first"
    batch = sum(counts[epoch.number].exposed for counts in evidence.arms.values() if epoch.number in counts)
    if batch < bandit.batch_units:
        return f"{batch} of the {bandit.batch_units} units of a batch are counted"
    return None


def _moved(look: _Look, means: Mapping[str, ArmMean], *, trials: bool, evidence: Evidence) -> Rebalancing:
    definition, bandit, old = evidence.primary.definition, look.bandit, look.epoch.weights
    found = bandit_shares(
        means,
        algorithm=bandit.algorithm,
        direction=definition.direction,
        floor=bandit.floor,
        challenger=bandit.challenger,
        are_trials=definition.is_rate and trials,
    )
    weights = dict.fromkeys(old, 0.0) | found.weights
    distance = sum(max(0.0, weights[key] - share) for key, share in old.items())
    if distance < SMALLEST_CHANGE:
        return look.told(f"only {distance:.2%} of new units would change hands", best=found.best)
    told = ", ".join(f"{key} {old[key]:.1%} to {share:.1%}" for key, share in weights.items())
    changed = {"changed": True, "epoch": look.epoch.number + 1, "weights": weights}
    return look.told(f"by {definition.name}: {told}", best=found.best).model_copy(update=changed)
