"""Outcomes: recording what came of each use of a version, and adding it up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from promptab.analysis import Comparison, compare
from promptab.assigning import find_experiment, session_unit
from promptab.checks import (
    check_count,
    check_json_object,
    check_name,
    check_number,
    check_time,
    check_unit,
    check_uuid,
)
from promptab.errors import InvalidInputError
from promptab.event_ids import new_event_id
from promptab.managed import Managed
from promptab.measures import (
    TokensInput,
    check_metrics,
    check_optional,
    check_success,
    check_tokens,
    outcome_fields,
)
from promptab.models import MetricEvent, PromptExperiment, PromptMetrics, Record, Utc
from promptab.stores.base import Transaction


class _Ranking(NamedTuple):
    """Where the mean of a built-in metric is, and how many events carried it."""

    mean: str
    counts: tuple[str, ...]
    lower_is_better: bool = False


_RANKINGS = {
    "success_rate": _Ranking("success_rate", ("success_count", "error_count")),
    "response_time": _Ranking("avg_response_time", ("response_time_count",), lower_is_better=True),
    "tokens": _Ranking("avg_tokens", ("tokens_count",), lower_is_better=True),
    "cost": _Ranking("avg_cost", ("cost_count",), lower_is_better=True),
    "rating": _Ranking("avg_rating", ("rating_count",)),
    "total_events": _Ranking("total_events", ("total_events",)),
}
_RANKINGS |= {ranking.mean: ranking for ranking in _RANKINGS.values()}


class MetricsSummary(Record):
    """The events of several versions together."""

    total_versions: int
    metrics: PromptMetrics
    by_version: Mapping[str, PromptMetrics]


class PerformancePeriod(Record):
    """The events of one version from `start` (included) to `end` (not included)."""

    start: Utc
    end: Utc
    metrics: PromptMetrics


class MetricsCollector(Managed):
    """Records events and outcomes, and answers what they add up to."""

    async def record_event(
        self,
        version_id: str | None,
        success: bool | None = None,  # noqa: FBT001 - the second thing everyone says of a call
        response_time: float | None = None,
        tokens: TokensInput = None,
        user_rating: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        cost: float | None = None,
        metrics: Mapping[str, float] | None = None,
        experiment_id: str | None = None,
        variant: str | None = None,
        user_id: str | int | None = None,
        event_id: str | None = None,
        timestamp: datetime | None = None,
    ) -> MetricEvent:
        """Store one use of a version and return it after the commit. What is left out is unknown, not zero.

        `response_time` is in seconds, `cost` in US dollars, `user_rating` from 1 to 5; `tokens` is a total,
        or the parts `input` (not from a cache), `cached_input` and `output`. `experiment_id` is an id or the
        name of a running experiment. The same `event_id` twice is one event; with other content it raises
        `ConflictError`.

        Raises `InvalidInputError` and stores nothing. `version_id` is None for a variant that serves a
        configuration alone.
        """
        return await self._record(
            kind="use",
            version_id=None if version_id is None else check_uuid("version_id", version_id),
            success=check_success(success),
            response_time=check_optional("response_time", response_time, low=0.0),
            tokens=check_tokens(tokens),
            user_rating=check_optional("user_rating", user_rating, low=1.0, high=5.0),
            cost=check_optional("cost", cost, low=0.0),
            metrics=check_metrics(metrics),
            metadata=check_json_object("metadata", metadata or {}),
            experiment=experiment_id,
            variant=variant,
            unit=None if user_id is None else check_unit("user_id", user_id),
            event_id=event_id,
            timestamp=timestamp,
        )

    async def record_result(
        self,
        experiment_name: str,
        metric_name: str,
        metric_value: float,
        user_id: str | int | None = None,
        session_id: str | None = None,
        *,
        event_id: str | None = None,
        timestamp: datetime | None = None,
    ) -> MetricEvent:
        """Store an outcome that came later, for a user or an anonymous session of an experiment.

        `success` (1 or 0), `response_time`, `cost` and `rating` are the built-in metrics; any other name is a
        metric of its own. It counts for the variant that the unit was exposed to; of a unit that never was it
        is kept, and compared nowhere.

        Raises `NotFoundError` for an unknown experiment, `InvalidInputError` where no unit is given.
        """
        if user_id is None and session_id is None:
            raise InvalidInputError(
                "user_id", None, "given", "say whose result it is by user_id or session_id"
            )
        unit = check_unit("user_id", user_id) if user_id is not None else session_unit(session_id)
        value = check_number("metric_value", metric_value)
        return await self._record(
            kind="outcome",
            **outcome_fields(metric_name, value),
            experiment=experiment_name,
            unit=unit,
            event_id=event_id,
            timestamp=timestamp,
        )

    async def get_metrics(
        self, version_id: str, *, start_time: datetime | None = None, end_time: datetime | None = None
    ) -> PromptMetrics:
        """Return what a version's events add up to, from `start_time` on and before `end_time`."""
        return (await self.compare_variants([version_id], start_time=start_time, end_time=end_time))[
            version_id
        ]

    async def get_events(
        self,
        version_id: str,
        limit: int | None = None,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
    ) -> list[MetricEvent]:
        """Return a version's events, newest first, from `start_time` on and before `end_time`."""
        most = None if limit is None else check_count("limit", limit)
        start, end = _check_window(start_time, end_time)

        async def work(tx: Transaction) -> list[MetricEvent]:
            return await tx.events.listing(version_id, limit=most, start_time=start, end_time=end)

        return await (await self._store()).read(work)

    async def compare_variants(
        self,
        version_ids: Iterable[str],
        *,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
    ) -> dict[str, PromptMetrics]:
        """Return each version's metrics side by side, in the order given. What differs reliably is in
        `compare`.
        """
        wanted = list(dict.fromkeys(version_ids))
        start, end = _check_window(start_time, end_time)

        async def work(tx: Transaction) -> dict[str, PromptMetrics]:
            return await tx.events.metrics(wanted, start_time=start, end_time=end)

        return await (await self._store()).read(work)

    async def get_top_versions(
        self, version_ids: Iterable[str], metric: str = "success_rate", limit: int = 5
    ) -> list[tuple[str, PromptMetrics]]:
        """Return the best versions by a mean, best first; lower is better for response time, tokens and cost.

        Versions whose events do not carry the metric come last. Any named metric may be given; more of it is
        better.
        """
        most = check_count("limit", limit)
        compared = await self.compare_variants(version_ids)
        ranked = sorted(compared.items(), key=lambda item: _rank(metric, item[1]))
        return ranked[:most]

    async def get_summary(self, version_ids: Iterable[str] | None = None) -> MetricsSummary:
        """Return the events of these versions together and one by one; of all versions that have events for
        None.
        """
        wanted = None if version_ids is None else list(dict.fromkeys(version_ids))

        async def work(tx: Transaction) -> MetricsSummary:
            chosen = await tx.events.version_ids() if wanted is None else wanted
            return MetricsSummary(
                total_versions=len(chosen),
                metrics=await tx.events.pooled_metrics(chosen),
                by_version=await tx.events.metrics(chosen),
            )

        return await (await self._store()).read(work)

    async def get_version_performance_over_time(
        self,
        version_id: str,
        interval_hours: float = 24.0,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
    ) -> list[PerformancePeriod]:
        """Return a version's metrics period by period, oldest first; periods without events are left out.

        Periods are `interval_hours` long and counted from 1970-01-01 00:00 UTC, so that days begin at
        midnight UTC.
        """
        seconds = round(check_number("interval_hours", interval_hours, low=1 / 60, high=24 * 366) * 3600)
        start, end = _check_window(start_time, end_time)

        async def work(tx: Transaction) -> list[PerformancePeriod]:
            buckets = await tx.events.over_time(version_id, seconds=seconds, start_time=start, end_time=end)
            return [
                PerformancePeriod(
                    start=bucket.start, end=bucket.start + timedelta(seconds=seconds), metrics=bucket.metrics
                )
                for bucket in buckets
            ]

        return await (await self._store()).read(work)

    async def reset_metrics(self, version_id: str | None = None) -> int:
        """Delete the events of a version, or with None all events; return how many there were."""

        async def work(tx: Transaction) -> int:
            return await tx.events.delete(None if version_id is None else [version_id])

        return await (await self._store()).write(work)

    async def compare(self, experiment: str, *, confidence: float = 0.95) -> Comparison:
        """Compare an experiment's variants with its control, metric by metric, over units.

        The intervals are right where units are randomised and have many events each (delta method), for one
        look at a planned moment. Raises `NotFoundError`.
        """
        store = await self._store()
        await store.flush()
        found = await find_experiment(store, experiment)

        async def work(tx: Transaction) -> Comparison:
            return compare(
                await tx.events.unit_sums(found.experiment_id),
                experiment=found,
                exposed_units=await tx.exposures.analysed_counts(found.experiment_id),
                confidence=confidence,
            )

        return await store.read(work)

    async def _record(
        self,
        *,
        experiment: str | None,
        event_id: str | None,
        timestamp: datetime | None,
        variant: str | None = None,
        unit: str | None = None,
        **measures: Any,
    ) -> MetricEvent:
        store = await self._store()
        found = None
        if experiment is not None:
            live = (await store.snapshot()).experiment(experiment)
            found = live.experiment if live is not None else await find_experiment(store, experiment)
        now = self._clock()
        event = MetricEvent(
            event_id=new_event_id(now) if event_id is None else check_uuid("event_id", event_id),
            experiment_id=None if found is None else found.experiment_id,
            variant=None if variant is None else _check_variant(variant, found),
            user_id=unit,
            timestamp=now if timestamp is None else check_time("timestamp", timestamp),
            recorded_at=now,
            **measures,
        )
        await store.record(event)
        return event


def _check_variant(variant: str, experiment: PromptExperiment | None) -> str:
    if experiment is None:
        raise InvalidInputError("variant", variant, "given together with experiment_id")
    if experiment.variant(variant) is None:
        keys = ", ".join(known.key for known in experiment.variants)
        raise InvalidInputError("variant", variant, f"one of the variants {keys} of {experiment.name!r}")
    return variant


def _check_window(start: datetime | None, end: datetime | None) -> tuple[datetime | None, datetime | None]:
    return (
        None if start is None else check_time("start_time", start),
        None if end is None else check_time("end_time", end),
    )


def _rank(metric: str, metrics: PromptMetrics) -> tuple[bool, float]:
    """Return what to sort by, ascending: versions that carry the metric first, the best of them first."""
    ranking = _RANKINGS.get(metric)
    if ranking is None:
        value = metrics.metrics.get(check_name("metric", metric))
        return (value is None, -(value or 0.0))
    carried = sum(getattr(metrics, count) for count in ranking.counts) > 0
    value = float(getattr(metrics, ranking.mean))
    return (not carried, value if ranking.lower_is_better else -value)
