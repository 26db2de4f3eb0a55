"""What an analysis reads of the store: sums over units, and single units only where they are few."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from promptab.analysis.evidence import (
    Evidence,
    MetricEvidence,
    SegmentEvidence,
    SeriesEvidence,
    complement,
)
from promptab.errors import InvalidInputError, NotFoundError
from promptab.models import PromptExperiment
from promptab.records import Json
from promptab.stats.metric import BUILT_IN_METRICS, MEASURES, MetricDefinition
from promptab.stats.summary import UnitSums
from promptab.stores.base import Transaction

if TYPE_CHECKING:
    from promptab.stats.quantile import QuantileArm
    from promptab.stores.queries.event_values import EventValues
    from promptab.stores.queries.rollup import Summaries

FEW_UNITS = 100
"""Below this many units in an arm the single units are read: methods for few units want them."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of an experiment."""

    metrics: Sequence[str | MetricDefinition] | None
    segments: Sequence[str] = ()
    since: datetime | None = None
    series_seconds: int | None = None


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
    reader = _Reader(tx, experiment, question.since, await tx.rollup.summaries(experiment))
    definitions = chosen_metrics(experiment, question.metrics, reader.rolled_up.sums)
    primary = experiment.plan.definition(experiment.primary_metric)
    arms = reader.rolled_up.arms
    if question.since is not None:
        fresh = await tx.rollup.sums_where(experiment, (), since=question.since)
        arms = fresh[""].arms if "" in fresh else {}
    evidence = Evidence(
        experiment=experiment,
        at=now,
        since=question.since,
        primary=await reader.evidence(primary),
        others=[await reader.evidence(definition) for definition in definitions],
        arms=arms,
        weights={
            epoch.number: epoch.weights for epoch in await tx.experiments.epochs_of(experiment.experiment_id)
        },
        segments=[
            segment
            for attribute in question.segments
            for segment in await _segments(tx, experiment, primary, attribute, question.since)
        ],
        series=await _series(tx, experiment, primary, question.series_seconds),
    )
    return Gathered(evidence, reader.rolled_up.watermark, reader.worked_out)


def chosen_metrics(
    experiment: PromptExperiment, wanted: Sequence[str | MetricDefinition] | None, seen: Collection[str]
) -> list[MetricDefinition]:
    """Return the metrics beside the primary one: those asked for, else the plan's and every measure `seen`.

    The plan's guardrails are always among them: nothing wins without them. Raises `NotFoundError` for a name that is
    nowhere declared or seen.
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
    chosen: dict[str, MetricDefinition] = {}
    for metric in asked:
        definition = plan.definition(metric) if isinstance(metric, str) else metric
        chosen.setdefault(definition.name, definition)
    chosen.pop(experiment.primary_metric, None)
    return list(chosen.values())


class _Reader:
    """Reads one metric after the other."""

    def __init__(
        self, tx: Transaction, experiment: PromptExperiment, since: datetime | None, rolled_up: Summaries
    ) -> None:
        self._tx = tx
        self._experiment = experiment
        self._since = since
        self.rolled_up = rolled_up
        self.worked_out: dict[str, Json] = {}
        """Quantiles that were not in the store yet."""

    async def evidence(self, definition: MetricDefinition) -> MetricEvidence:
        if definition.source == "error_rate":
            return complement(await self.evidence(counted(definition)), definition)
        if definition.kind == "quantile":
            return MetricEvidence(definition, quantiles=await self._quantiles(definition))
        sums = await self._sums(definition)
        few = min(
            (
                UnitSums.pooled(sums.get(variant.key, {}).values()).units
                for variant in self._experiment.variants
            ),
            default=0,
        )
        units = None
        if 0 < few < FEW_UNITS:
            units = await self._tx.rollup.unit_values(self._experiment, definition, since=self._since)
        history = None
        if definition.history_days is not None:
            history = await self._tx.rollup.covariate_sums(
                self._experiment, definition, days=definition.history_days, since=self._since
            )
        return MetricEvidence(definition, sums=sums, units=units, history=history)

    async def _sums(self, definition: MetricDefinition) -> Mapping[str, Mapping[int, UnitSums]]:
        plain = definition.kind in {"proportion", "mean"} and definition.source == definition.name
        rolled_up = definition in self._experiment.plan.metrics or (plain and definition.cap is None)
        if self._since is None and rolled_up:
            return self.rolled_up.sums.get(definition.name, {})
        found = await self._tx.rollup.sums_where(self._experiment, [definition], since=self._since)
        return found[""].sums.get(definition.name, {}) if "" in found else {}

    async def _quantiles(self, definition: MetricDefinition) -> Mapping[str, Mapping[int, QuantileArm]]:
        """Return the quantile of every arm, worked out once for each watermark."""
        watermark, experiment_id = self.rolled_up.watermark, self._experiment.experiment_id
        name = f"{definition.source} {definition.quantile}"
        cached = self._since is None
        if cached and (kept := await self._tx.rollup.cached_quantile(experiment_id, name, watermark)):
            return _arms_of_document(kept)
        values = await self._tx.rollup.event_values(self._experiment, definition.source, since=self._since)
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
) -> list[SegmentEvidence]:
    if primary.kind == "quantile":
        raise InvalidInputError(
            "segments", attribute, "asked of a metric that is a sum or a mean", "a quantile has no segments"
        )
    definition = counted(primary)
    found = await tx.rollup.sums_where(experiment, [definition], segment=attribute, since=since)
    return [
        SegmentEvidence(
            attribute=attribute,
            value=value,
            primary=told_as(primary, summaries.sums.get(definition.name, {})),
            arms=summaries.arms,
        )
        for value, summaries in sorted(found.items())
    ]


async def _series(
    tx: Transaction, experiment: PromptExperiment, primary: MetricDefinition, seconds: int | None
) -> list[SeriesEvidence]:
    if seconds is None:
        return []
    if primary.kind == "quantile":
        raise InvalidInputError("series", primary.name, "asked of a metric that is a sum or a mean")
    return [
        SeriesEvidence(at=moment.at, primary=told_as(primary, moment.sums))
        for moment in await tx.rollup.daily_sums(experiment, counted(primary), seconds=seconds)
    ]


def counted(definition: MetricDefinition) -> MetricDefinition:
    """Return what is counted for this metric: for error rates the successes, whose complement they are."""
    return BUILT_IN_METRICS["success_rate"] if definition.source == "error_rate" else definition


def told_as(definition: MetricDefinition, sums: Mapping[str, Mapping[int, UnitSums]]) -> MetricEvidence:
    """Put the sums of what was counted under the metric that was asked for."""
    found = MetricEvidence(counted(definition), sums=sums)
    return complement(found, definition) if definition.source == "error_rate" else found
