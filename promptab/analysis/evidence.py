"""What an analysis is made from: for each metric, what the database summed up over units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from promptab.models import PromptExperiment
from promptab.stats.covariate_sums import CovariateSums
from promptab.stats.metric import MetricDefinition
from promptab.stats.summary import UnitSums

if TYPE_CHECKING:
    from promptab.stats.quantile import QuantileArm

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
    since: datetime | None = None
    late: int = 0
    """Events of a unit's measurement window that were recorded after the unit had been counted; not in any sum."""
    segments: Sequence[SegmentEvidence] = ()
    series: Sequence[SeriesEvidence] = ()

    def exposed(self, variant: str) -> int:
        return sum(counts.exposed for counts in self.arms.get(variant, {}).values())
