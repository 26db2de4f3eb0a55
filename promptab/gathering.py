"""What an analysis reads of the store: sums over units, and single units only where they are few."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from promptab.analysis.evidence import Evidence, MetricEvidence, SegmentEvidence, SeriesEvidence
from promptab.errors import InvalidInputError, NotFoundError, StateError
from promptab.models import UNIFORM_EPOCH, Epoch, PromptExperiment
from promptab.plan import AnalysisPlan
from promptab.policy import Policy
from promptab.records import Json
from promptab.stats.metric import BUILT_IN_METRICS, MEASURES, MetricDefinition
from promptab.stats.summary import UnitSums
from promptab.stores.base import Transaction

if TYPE_CHECKING:
    from promptab.stats.quantile import QuantileArm
    from promptab.stores.queries.event_values import EventValues
    from promptab.stores.queries.rolled_up import Summaries

K = TypeVar("K")

Weights = Mapping[int, Mapping[str, float]]
"""By epoch number, then variant key."""

FEW_UNITS = 100
"""Below this many units in an arm the single units are read: methods for few units want them."""

MOST_SINGLE_UNITS = 20_000
"""With more units than this in all arms none are read one by one, however few an arm has: it would take longer than
everything else together. The methods for sums have to do then, and the caution says that a small arm makes them rough.
Of all small segments together no more are read, and of all moments of a series with few units.
"""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of an experiment."""

    metrics: Sequence[str | MetricDefinition] | None
    segments: Sequence[str] = ()
    since: datetime | None = None
    series_seconds: int | None = None
    policy: Policy | None = None
    """Whose guardrails are read as well; the experiment's plan is settled with it."""
    uniform: bool = False
    """Of a bandit: the units of its uniform slice alone."""


class Gathered(NamedTuple):
    """The evidence, and what the store should keep of the work that went into it."""

    evidence: Evidence
    watermark: int
    quantiles: Mapping[str, Json]
    """By name, as documents."""


async def gather(
    tx: Transaction, experiment: PromptExperiment, question: Question, *, now: datetime
) -> Gathered:
    """Read everything that the question needs, in one transaction."""
    epochs = await tx.experiments.epochs_of(experiment.experiment_id)
    weights = {epoch.number: epoch.weights for epoch in epochs}
    followed = None if experiment.bandit is None else weights
    rolled_up = await tx.rolled_up.summaries(experiment)
    reader = _Reader(tx, experiment, question.since, rolled_up, followed)
    definitions = chosen_metrics(experiment, question.metrics, reader.rolled_up.sums, policy=question.policy)
    primary = experiment.plan.definition(experiment.primary_metric)
    arms = reader.rolled_up.arms
    if question.since is not None:
        fresh = await tx.rolled_up.sums_where(experiment, (), since=question.since)
        arms = fresh[""].arms if "" in fresh else {}
    evidence = Evidence(
        experiment=experiment,
        at=now,
        since=question.since,
        late=reader.rolled_up.late,
        primary=await reader.evidence(primary),
        others=[await reader.evidence(definition) for definition in definitions],
        arms=arms,
        weights=weights,
        cut_short=_cut_short(epochs),
        segments=[
            segment
            for attribute in question.segments
            for segment in await _segments(tx, experiment, primary, attribute, question.since, followed)
        ],
        series=await _series(tx, experiment, primary, question, now, followed),
    )
    if question.uniform:
        evidence = _uniform_slice(evidence)
    if experiment.bandit is not None and evidence.has_few_units:
        evidence = replace(evidence, undealt=await tx.exposures.undealt(experiment))
    return Gathered(evidence, reader.rolled_up.watermark, reader.worked_out)


async def gather_primary(tx: Transaction, experiment: PromptExperiment, *, now: datetime) -> Evidence:
    """Read the sums of the primary metric alone, with the weights that its units were dealt by."""
    rolled_up = await tx.rolled_up.summaries(experiment)
    weights = {
        epoch.number: epoch.weights for epoch in await tx.experiments.epochs_of(experiment.experiment_id)
    }
    primary = experiment.plan.definition(experiment.primary_metric)
    return Evidence(
        experiment=experiment,
        at=now,
        late=rolled_up.late,
        primary=await _Reader(tx, experiment, None, rolled_up, weights).sums_alone(primary),
        others=(),
        arms=rolled_up.arms,
        weights=weights,
    )


def _cut_short(epochs: Sequence[Epoch]) -> dict[int, frozenset[str]]:
    """Return the variants of each epoch whose units have been evicted in a later one."""
    return {
        epoch.number: frozenset(
            key for later in epochs if _begins_after(later, epoch) for key in later.evicted
        )
        for epoch in epochs
    }


def _begins_after(later: Epoch, epoch: Epoch) -> bool:
    return (later.starts_at, later.number) > (epoch.starts_at, epoch.number)


def _uniform_slice(evidence: Evidence) -> Evidence:
    if UNIFORM_EPOCH not in evidence.weights:
        raise StateError(
            f"experiment {evidence.experiment.name!r} has no uniform slice; it is a part of a bandit, declared before "
            "the start: Bandit(uniform=0.1)"
        )
    return evidence.uniform()


def chosen_metrics(
    experiment: PromptExperiment,
    wanted: Sequence[str | MetricDefinition] | None,
    seen: Collection[str],
    *,
    policy: Policy | None = None,
) -> list[MetricDefinition]:
    """Return the metrics beside the primary one: those asked for, else the plan's and every measure `seen`.

    The guardrails of the plan and of the policy are always among them: nothing wins without them.

    Raises `NotFoundError` for a name that is nowhere declared or seen.
    """
    plan = experiment.plan
    if wanted is None:
        names = [metric.name for metric in plan.metrics]
        names += [name for name in BUILT_IN_METRICS if name in seen and name in MEASURES]
        names += sorted(name for name in seen if name not in BUILT_IN_METRICS)
        asked: list[str | MetricDefinition] = list(names)
    else:
        known = [*(metric.name for metric in plan.metrics), *BUILT_IN_METRICS, *sorted(seen)]
        known.append(experiment.primary_metric)
        if unknown := [name for name in wanted if isinstance(name, str) and name not in known]:
            told = ", ".join(dict.fromkeys(known))
            raise NotFoundError("metric", str(unknown[0]), f"declared, built in or recorded are {told}")
        asked = [metric for metric in plan.metrics if metric.role == "guardrail"]
        asked += wanted
    if policy is not None:
        watched = policy.watched(plan, primary_metric=experiment.primary_metric)
        asked += [plan.definition(guardrail.metric) for guardrail in watched]
    chosen: dict[str, MetricDefinition] = {}
    for metric in asked:
        definition = plan.definition(metric) if isinstance(metric, str) else _settled(plan, metric)
        chosen.setdefault(definition.name, definition)
    chosen.pop(experiment.primary_metric, None)
    return list(chosen.values())


def _settled(plan: AnalysisPlan, definition: MetricDefinition) -> MetricDefinition:
    """Return a definition with its cap: one that the plan declares by a percentile has the one that was frozen."""
    if definition.cap_percentile is None or definition.cap is not None:
        return definition
    declared = plan.definition(definition.name)
    if definition != declared.model_copy(update={"cap": None}):
        raise InvalidInputError(
            f"metrics[{definition.name}].cap_percentile",
            definition.cap_percentile,
            "left out, or as the experiment's plan declares it for this metric",
            "declare it before the start: a percentile is frozen from what came before that",
        )
    return declared


class _Reader:
    """Reads one metric after the other."""

    def __init__(
        self,
        tx: Transaction,
        experiment: PromptExperiment,
        since: datetime | None,
        rolled_up: Summaries,
        followed: Weights | None,
    ) -> None:
        self._tx = tx
        self._experiment = experiment
        self._since = since
        self._followed = followed
        self.rolled_up = rolled_up
        self.worked_out: dict[str, Json] = {}
        """Quantiles that were not in the store yet."""

    async def evidence(self, definition: MetricDefinition) -> MetricEvidence:
        if definition.kind == "quantile":
            quantiles = await self._quantiles(definition)
            return MetricEvidence(definition, quantiles=quantiles, weights=self._followed)
        sums = await self._sums(definition)
        units = None
        if 0 < single_units(sums) <= MOST_SINGLE_UNITS:
            units = await self._tx.rolled_up.unit_values(self._experiment, definition, since=self._since)
        history = None
        if definition.history_days is not None:
            history = await self._tx.rolled_up.covariate_sums(
                self._experiment, definition, days=definition.history_days, since=self._since
            )
        return MetricEvidence(definition, sums=sums, units=units, history=history, weights=self._followed)

    async def sums_alone(self, definition: MetricDefinition) -> MetricEvidence:
        return MetricEvidence(definition, sums=await self._sums(definition), weights=self._followed)

    async def _sums(self, definition: MetricDefinition) -> Mapping[str, Mapping[int, UnitSums]]:
        if self._since is None:
            if self._is_rolled_up(definition):
                return self.rolled_up.sums[definition.name]
            successes = BUILT_IN_METRICS["success_rate"]
            if _counts_errors(definition) and self._is_rolled_up(successes):
                return {
                    key: {epoch: sums.complement() for epoch, sums in by_epoch.items()}
                    for key, by_epoch in self.rolled_up.sums[successes.name].items()
                }
        found = await self._tx.rolled_up.sums_where(self._experiment, [definition], since=self._since)
        return found[""].sums.get(definition.name, {}) if "" in found else {}

    def _is_rolled_up(self, definition: MetricDefinition) -> bool:
        """Whether the sums that are kept under its name are its own: another metric of that name has others."""
        kept = self._experiment.plan.definition(definition.name)
        return definition.name in self.rolled_up.sums and _summed(definition) == _summed(kept)

    async def _quantiles(self, definition: MetricDefinition) -> Mapping[str, Mapping[int, QuantileArm]]:
        """Return the quantile of every arm, worked out once for each watermark."""
        watermark, experiment_id = self.rolled_up.watermark, self._experiment.experiment_id
        name = f"{definition.source} {definition.quantile}"
        cached = self._since is None
        if cached and (kept := await self._tx.rolled_up.cached_quantile(experiment_id, name, watermark)):
            return _arms_of_document(kept)
        values = await self._tx.rolled_up.event_values(self._experiment, definition.source, since=self._since)
        # hundreds of thousands of values may be sorted here, and the event loop has others to serve
        arms = await asyncio.to_thread(_quantile_arms, values, definition.quantile or 0.5)
        if cached:
            self.worked_out[name] = {
                key: {str(epoch): list(arm) for epoch, arm in by_epoch.items()}
                for key, by_epoch in arms.items()
            }
        return arms


def _arms_of_document(document: Json) -> dict[str, dict[int, QuantileArm]]:
    from promptab.stats.quantile import QuantileArm  # noqa: PLC0415 - brings scipy, which only an analysis needs

    return {
        key: {int(epoch): QuantileArm(*arm) for epoch, arm in by_epoch.items()}
        for key, by_epoch in document.items()
    }


def _quantile_arms(values: EventValues, quantile: float) -> dict[str, dict[int, QuantileArm]]:
    from promptab.stats.quantile import quantile_arm  # noqa: PLC0415 - as above

    return {
        key: {epoch: quantile_arm(*arrays, quantile) for epoch, arrays in by_epoch.items()}
        for key, by_epoch in values.items()
    }


async def _segments(
    tx: Transaction,
    experiment: PromptExperiment,
    primary: MetricDefinition,
    attribute: str,
    since: datetime | None,
    followed: Weights | None,
) -> list[SegmentEvidence]:
    if primary.kind == "quantile":
        raise InvalidInputError(
            "segments", attribute, "asked of a metric that is a sum or a mean", "a quantile has no segments"
        )
    found = await tx.rolled_up.sums_where(experiment, [primary], segment=attribute, since=since)
    sums = {value: summaries.sums.get(primary.name, {}) for value, summaries in found.items()}
    small = _within_reach({value: single_units(of_value) for value, of_value in sorted(sums.items())})
    units = await tx.rolled_up.segment_unit_values(experiment, primary, attribute, small, since=since)
    return [
        SegmentEvidence(
            attribute=attribute,
            value=value,
            primary=MetricEvidence(primary, sums=sums[value], units=units.get(value), weights=followed),
            arms=summaries.arms,
        )
        for value, summaries in sorted(found.items())
    ]


async def _series(
    tx: Transaction,
    experiment: PromptExperiment,
    primary: MetricDefinition,
    question: Question,
    now: datetime,
    followed: Weights | None,
) -> list[SeriesEvidence]:
    seconds, since = question.series_seconds, question.since
    if seconds is None:
        return []
    if primary.kind == "quantile":
        raise InvalidInputError("series", primary.name, "asked of a metric that is a sum or a mean")
    moments = await tx.rolled_up.daily_sums(experiment, primary, seconds=seconds, since=since)
    small = _within_reach({moment.at: single_units(moment.sums) for moment in moments})
    units = await tx.rolled_up.daily_unit_values(experiment, primary, small, seconds=seconds, since=since)
    return [
        # the day, or the hour, is not over yet
        SeriesEvidence(
            at=min(moment.at, now),
            primary=MetricEvidence(primary, sums=moment.sums, units=units.get(moment.at), weights=followed),
        )
        for moment in moments
    ]


def single_units(sums: Mapping[str, Mapping[int, UnitSums]]) -> int:
    """Return how many units there are to read one by one, in all arms: none where no arm has few."""
    counts = [sum(arm.units for arm in by_epoch.values()) for by_epoch in sums.values()]
    return sum(counts) if any(0 < count < FEW_UNITS for count in counts) else 0


def _within_reach(single_units: Mapping[K, int]) -> set[K]:
    """Return, of those that have single units to read, as many as can be read, the first ones first."""
    chosen, left = set(), MOST_SINGLE_UNITS
    for key, units in single_units.items():
        if 0 < units <= left:
            chosen.add(key)
            left -= units
    return chosen


def _summed(definition: MetricDefinition) -> tuple[str, str, str | None, float | None]:
    """Return what the sums over units depend on; a proportion adds up as a mean does."""
    kind = "mean" if definition.kind == "proportion" else definition.kind
    return kind, definition.source, definition.denominator, definition.cap


def _counts_errors(definition: MetricDefinition) -> bool:
    """Whether it is a share of events, or their mean, and so 1 minus that of the successes."""
    return _summed(definition) == _summed(BUILT_IN_METRICS["error_rate"])
