"""What an analysis is made from: for each metric, what the database summed up over units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from promptab.models import UNIFORM_EPOCH, PromptExperiment
from promptab.stats.covariate_sums import CovariateSums
from promptab.stats.metric import MetricDefinition
from promptab.stats.summary import UnitSums

if TYPE_CHECKING:
    from promptab.stats.quantile import QuantileArm

T = TypeVar("T")

ByEpoch = Mapping[int, UnitSums]
UnitTotal = tuple[float, float]
"""(n_u, s_u) of one unit."""


class ArmCounts(NamedTuple):
    """Units of one variant and epoch, whatever was recorded for them."""

    exposed: int = 0
    reporting: int = 0
    """Of these, units with at least one event of their variant."""
    switched: int = 0
    """Of these, units that also have events of another variant."""

    @property
    def missing(self) -> int:
        """Exposed units for which nothing was recorded."""
        return self.exposed - self.reporting


@dataclass(frozen=True, slots=True)
class MetricEvidence:
    """One metric; mappings are by variant key, then by epoch number. What is missing has no units."""

    definition: MetricDefinition
    sums: Mapping[str, ByEpoch] = field(default_factory=dict)
    """Of every kind but the quantiles."""
    units: Mapping[str, Mapping[int, Sequence[UnitTotal]]] | None = None
    """The single units, in the order of their exposure, where they are few enough to matter one by one."""
    history: Mapping[str, Mapping[int, CovariateSums]] | None = None
    """With the units' outcomes before their first exposure, where the metric has `history_days`."""
    quantiles: Mapping[str, Mapping[int, QuantileArm]] = field(default_factory=dict)
    """Of the kind `quantile`."""
    weights: Mapping[int, Mapping[str, float]] | None = None
    """Of a bandit: the variants' shares by epoch, which follow outcomes; None where weights follow nothing."""

    def arm(self, variant: str) -> ByEpoch:
        return self.sums.get(variant, {})

    def pooled(self, variant: str) -> UnitSums:
        return UnitSums.pooled(self.arm(variant).values())


@dataclass(frozen=True, slots=True)
class SegmentEvidence:
    """The primary metric among the units of which an attribute has one value."""

    attribute: str
    value: str
    primary: MetricEvidence
    arms: Mapping[str, Mapping[int, ArmCounts]]


@dataclass(frozen=True, slots=True)
class SeriesEvidence:
    """The primary metric as its sums over units were at one moment."""

    at: datetime
    primary: MetricEvidence


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that an analysis looks at, at one moment."""

    experiment: PromptExperiment
    at: datetime
    primary: MetricEvidence
    others: Sequence[MetricEvidence]
    arms: Mapping[str, Mapping[int, ArmCounts]]
    weights: Mapping[int, Mapping[str, float]]
    """By epoch number, then variant key."""
    cut_short: Mapping[int, frozenset[str]] = field(default_factory=dict)
    """Variants by epoch number: units that were dealt them in that epoch have been served others since."""
    since: datetime | None = None
    late: int = 0
    """Events of a unit's measurement window that were recorded after the unit had been counted; not in any sum."""
    undealt: int = 0
    """Units of a bandit that were reported and never dealt, so that they are in nothing; asked where units are few."""
    segments: Sequence[SegmentEvidence] = ()
    series: Sequence[SeriesEvidence] = ()

    def exposed(self, variant: str) -> int:
        return sum(counts.exposed for counts in self.arms.get(variant, {}).values())

    def units_of(self, variant: str) -> int:
        """Return how many units the primary metric of a variant is over."""
        if self.primary.definition.kind == "quantile":
            return sum(arm.units for arm in self.primary.quantiles.get(variant, {}).values())
        return self.primary.pooled(variant).units

    @property
    def has_few_units(self) -> bool:
        """Whether any variant has fewer units than the plan wants of each."""
        needed = self.experiment.plan.minimum_units
        return any(self.units_of(variant.key) < needed for variant in self.experiment.variants)

    def uniform(self) -> Evidence:
        """Return the evidence of a bandit's uniform slice alone, whose weights follow nothing."""
        return replace(
            self,
            primary=_uniform_metric(self.primary),
            others=[_uniform_metric(metric) for metric in self.others],
            arms=_uniform_arms(self.arms),
            weights={epoch: shares for epoch, shares in self.weights.items() if epoch <= UNIFORM_EPOCH},
            segments=[
                replace(segment, primary=_uniform_metric(segment.primary), arms=_uniform_arms(segment.arms))
                for segment in self.segments
            ],
            series=[replace(moment, primary=_uniform_metric(moment.primary)) for moment in self.series],
        )


def _uniform_metric(metric: MetricEvidence) -> MetricEvidence:
    return replace(
        metric,
        sums=_uniform_arms(metric.sums),
        units=None if metric.units is None else _uniform_arms(metric.units),
        history=None if metric.history is None else _uniform_arms(metric.history),
        quantiles=_uniform_arms(metric.quantiles),
        weights=None,
    )


def _uniform_arms(arms: Mapping[str, Mapping[int, T]]) -> dict[str, dict[int, T]]:
    alike = {
        key: {epoch: of_epoch for epoch, of_epoch in by_epoch.items() if epoch <= UNIFORM_EPOCH}
        for key, by_epoch in arms.items()
    }
    return {key: by_epoch for key, by_epoch in alike.items() if by_epoch}
