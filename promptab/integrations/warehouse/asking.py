"""Analysing an experiment out of a warehouse: what `gathering` is for the store."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from promptab.analysis.analyzing import analyze as analyze_evidence
from promptab.analysis.evidence import ArmCounts, Evidence, MetricEvidence, SegmentEvidence, UnitTotal
from promptab.analysis.result import METHODS, AnalysisResult, Method
from promptab.checks import check_items, check_name, check_number, check_time
from promptab.errors import InvalidInputError
from promptab.gathering import MOST_SINGLE_UNITS, chosen_metrics, single_units
from promptab.integrations.warehouse.columns import (
    ExposureColumns,
    OutcomeColumns,
    Table,
    check_measures,
    named_measures,
)
from promptab.integrations.warehouse.sums import (
    ByVariant,
    Sums,
    covariate_sums,
    quantiles,
    summed,
    unit_totals,
)
from promptab.integrations.warehouse.units import Source
from promptab.managed import utc_now
from promptab.measures import canonical_metric
from promptab.models import PromptExperiment
from promptab.stats.metric import MetricDefinition
from promptab.stores.queries.moments import rolled_up_metrics
from promptab.stores.queries.unit_facts import Series, all_series

if TYPE_CHECKING:
    from collections.abc import Iterator


Weights = Mapping[int, Mapping[str, float]]
"""Number of the epoch -> variant -> weight."""


def analyze(
    experiment: PromptExperiment,
    *,
    exposures: Table,
    outcomes: Table,
    aliases: Table | None = None,
    method: Method = "sequential",
    metrics: Iterable[str | MetricDefinition] | None = None,
    segments: Iterable[str] = (),
    since: datetime | None = None,
    confidence: float | None = None,
    weights: Weights | None = None,
    now: datetime | None = None,
    exposure_columns: ExposureColumns | None = None,
    outcome_columns: OutcomeColumns | None = None,
) -> AnalysisResult:
    """Say what an experiment shows, as `lab.analyze` does, by tables of a warehouse; the rest is as there.

    `exposures` and `outcomes` are ibis tables of one backend, their columns as `export_events` writes them unless
    `exposure_columns` and `outcome_columns` say otherwise; `aliases` has the columns alias and unit. Units are as they
    count now: `now` is the time. `weights` are those of each epoch, and have to be given where they have changed.

    Two things are otherwise than in the store: outcomes count that came late for a window which had closed, and there
    is no series. It waits for the warehouse; call it in a thread where an event loop runs.

    Raises `NotFoundError` for a metric that is nowhere declared or recorded, and `InvalidInputError`.
    """
    if method not in METHODS:
        raise InvalidInputError("method", method, f"one of {', '.join(METHODS)}")
    level = None if confidence is None else check_number("confidence", confidence, above=0.0, below=1.0)
    found = evidence(
        experiment,
        exposures=exposures,
        outcomes=outcomes,
        aliases=aliases,
        metrics=metrics,
        segments=segments,
        since=since,
        weights=weights,
        now=now,
        exposure_columns=exposure_columns,
        outcome_columns=outcome_columns,
    )
    return analyze_evidence(found, method, confidence=level)


def evidence(
    experiment: PromptExperiment,
    *,
    exposures: Table,
    outcomes: Table,
    aliases: Table | None = None,
    metrics: Iterable[str | MetricDefinition] | None = None,
    segments: Iterable[str] = (),
    since: datetime | None = None,
    weights: Weights | None = None,
    now: datetime | None = None,
    exposure_columns: ExposureColumns | None = None,
    outcome_columns: OutcomeColumns | None = None,
) -> Evidence:
    """Return what `analyze` judges by: the sums over units, metric by metric."""
    source = Source(
        experiment=experiment,
        exposures=exposures,
        outcomes=outcomes,
        aliases=aliases,
        exposure_columns=exposure_columns or ExposureColumns(),
        outcome_columns=outcome_columns or OutcomeColumns(),
        now=utc_now() if now is None else check_time("now", now),
        since=None if since is None else check_time("since", since),
    )
    wanted = None if metrics is None else [_wanted(metric) for metric in check_items("metrics", metrics)]
    attributes = [check_name("segments", name) for name in check_items("segments", segments)]
    return _Asking(source, wanted, attributes).evidence(weights)


class _Asking:
    """One question: the units are added up once, and every sum is made from that."""

    def __init__(
        self, source: Source, wanted: Sequence[str | MetricDefinition] | None, attributes: Sequence[str]
    ) -> None:
        self._source = source
        self._experiment = source.experiment
        self._wanted = wanted
        self._attributes = attributes
        self._primary = self._experiment.plan.definition(self._experiment.primary_metric)
        self._followed: Weights | None = None
        named = named_measures(source.outcomes, source.outcome_columns, self._experiment.experiment_id)
        # each name once: what is asked for beside them is summed up where it is needed
        self._summed = rolled_up_metrics(self._experiment, named)
        given = [metric for metric in wanted or () if isinstance(metric, MetricDefinition)]
        meant = [self._primary, *self._experiment.plan.metrics, *given]
        check_measures(source.outcome_columns, _series_of_all(meant))
        self._series = _series_of_all([*self._summed, *meant])

    def evidence(self, weights: Weights | None) -> Evidence:
        with _cached(self._source.facts(self._series, self._attributes)) as facts:
            sums = summed(facts, self._series, self._summed).get("", Sums({}, {}))
            weights = _weights(self._experiment, sums.arms, weights)
            # of a bandit they follow outcomes, and each unit counts by them
            self._followed = None if self._experiment.bandit is None else weights
            seen = [name for name, by_variant in sums.metrics.items() if by_variant]
            definitions = chosen_metrics(self._experiment, self._wanted, seen)
            return Evidence(
                experiment=self._experiment,
                at=self._source.now,
                since=self._source.since,
                primary=self._metric(facts, sums, self._primary),
                others=[self._metric(facts, sums, definition) for definition in definitions],
                arms=sums.arms,
                weights=weights,
                segments=[
                    segment
                    for index, attribute in enumerate(self._attributes)
                    for segment in self._segments(facts, f"segment_{index}", attribute)
                ],
            )

    def _metric(self, facts: Table, sums: Sums, definition: MetricDefinition) -> MetricEvidence:
        if definition.kind == "quantile":
            return MetricEvidence(definition, quantiles=quantiles(self._source, definition))
        if definition not in self._summed:
            sums = summed(facts, self._series, [definition]).get("", Sums({}, {}))
        by_variant = sums.metrics.get(definition.name, {})
        return MetricEvidence(
            definition,
            sums=by_variant,
            units=self._single_units(facts, definition, by_variant),
            history=None if definition.history_days is None else covariate_sums(self._source, definition),
            weights=self._followed,
        )

    def _segments(self, facts: Table, column: str, attribute: str) -> list[SegmentEvidence]:
        if self._primary.kind == "quantile":
            raise InvalidInputError(
                "segments",
                attribute,
                "asked of a metric that is a sum or a mean",
                "a quantile has no segments",
            )
        found = summed(facts, self._series, [self._primary], segment=column)
        return [
            SegmentEvidence(
                attribute=attribute,
                value=value,
                primary=MetricEvidence(
                    self._primary,
                    sums=(by_variant := sums.metrics.get(self._primary.name, {})),
                    units=self._single_units(facts.filter(facts[column] == value), self._primary, by_variant),
                    weights=self._followed,
                ),
                arms=sums.arms,
            )
            for value, sums in sorted(found.items())
        ]

    def _single_units(
        self, facts: Table, definition: MetricDefinition, sums: ByVariant
    ) -> Mapping[str, Mapping[int, Sequence[UnitTotal]]] | None:
        """Return the units one by one where an arm has few of them: methods for few units want them."""
        if 0 < single_units(sums) <= MOST_SINGLE_UNITS:
            return unit_totals(facts, self._series, definition)
        return None


def _wanted(metric: str | MetricDefinition) -> str | MetricDefinition:
    return metric if isinstance(metric, MetricDefinition) else canonical_metric("metrics", metric)


def _series_of_all(metrics: Iterable[MetricDefinition]) -> list[Series]:
    return all_series([metric for metric in metrics if metric.kind != "quantile"])


def _weights(
    experiment: PromptExperiment,
    arms: Mapping[str, Mapping[int, ArmCounts]],
    given: Weights | None,
) -> Weights:
    epochs: Collection[int] = sorted({epoch for by_epoch in arms.values() for epoch in by_epoch})
    if given is None:
        if len(epochs) > 1:
            raise InvalidInputError(
                "weights",
                None,
                f"given for the epochs {', '.join(map(str, epochs))}",
                "the weights have changed",
            )
        return {epoch: dict(experiment.traffic_split) for epoch in epochs}
    if missing := [epoch for epoch in epochs if epoch not in given]:
        raise InvalidInputError("weights", sorted(given), f"those of every epoch; {missing[0]} is missing")
    return given


@contextmanager
def _cached(table: Table) -> Iterator[Table]:
    """Let the warehouse keep a table until it is not needed any more."""
    kept = table.cache()
    try:
        yield kept
    finally:
        kept.release()
