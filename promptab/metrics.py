"""Outcomes: recording what came of each use of a version, and adding it up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from functools import cached_property
from typing import NamedTuple

from promptab.calls.log import CallLog
from promptab.checks import check_count, check_items, check_number, check_time, known_id
from promptab.errors import InvalidInputError, StateError
from promptab.measures import measured_metric
from promptab.models import MetricEvent, PromptMetrics
from promptab.recording import Recording
from promptab.records import Record, Utc
from promptab.retention import Retention
from promptab.stores.base import Transaction


class _Ranking(NamedTuple):
    """Where the mean of a built-in metric is, and how many events carried it."""

    mean: str
    counts: tuple[str, ...]
    lower_is_better: bool = False


_RANKINGS = {
    "success_rate": _Ranking("success_rate", ("success_count", "error_count")),
    # the fewest errors are the most successes
    "error_rate": _Ranking("success_rate", ("success_count", "error_count")),
    "response_time": _Ranking("avg_response_time", ("response_time_count",), lower_is_better=True),
    "tokens": _Ranking("avg_tokens", ("tokens_count",), lower_is_better=True),
    "cost": _Ranking("avg_cost", ("cost_count",), lower_is_better=True),
    "rating": _Ranking("avg_rating", ("rating_count",)),
    "total_events": _Ranking("total_events", ("total_events",)),
}
_RANKINGS |= {ranking.mean: ranking for ranking in _RANKINGS.values()}


_NO_VERSION = PromptMetrics(version_id="")
"""Of what is no id of anything."""


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


class MetricsCollector(Recording, Retention):
    """Records events and outcomes, and answers what they add up to."""

    @cached_property
    def calls(self) -> CallLog:
        """Where the tracked calls of a model go."""
        return CallLog(self, self._clock)

    async def get_metrics(
        self, version_id: str, *, start_time: datetime | None = None, end_time: datetime | None = None
    ) -> PromptMetrics:
        """Return what a version's events add up to, from `start_time` on and before `end_time`.

        Zeros for a version without events; with an empty `version_id` for what is no id of anything.
        """
        known = known_id(version_id) or ""
        return (await self._metrics([known], start_time, end_time))[known]

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
        known = known_id(version_id)
        if known is None:
            return []

        async def work(tx: Transaction) -> list[MetricEvent]:
            return await tx.events.listing(known, limit=most, start_time=start, end_time=end)

        return await (await self._store()).read(work)

    async def compare_variants(
        self,
        version_ids: Iterable[str],
        *,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
    ) -> dict[str, PromptMetrics]:
        """Return each version's metrics side by side, in the order given and under the ids as they were
        given. What differs reliably is in `analyze`.
        """
        wanted = _check_ids(version_ids)
        found = await self._metrics(wanted.values(), start_time, end_time)
        return {given: found[known] for given, known in wanted.items()}

    async def get_top_versions(
        self, version_ids: Iterable[str], metric: str = "success_rate", limit: int = 5
    ) -> list[tuple[str, PromptMetrics]]:
        """Return the best versions by a mean, best first; lower is better for response time, tokens and cost.

        Versions whose events do not carry the metric come last. Any named metric may be given; more of it is
        better.
        """
        most = check_count("limit", limit)
        name = metric if metric in tuple(_RANKINGS) else measured_metric("metric", metric)
        compared = await self.compare_variants(version_ids)
        ranked = sorted(compared.items(), key=lambda item: _rank(name, item[1]))
        return ranked[:most]

    async def get_summary(self, version_ids: Iterable[str] | None = None) -> MetricsSummary:
        """Return the events of these versions together and one by one; of all versions that have events for
        None. `by_version` is under the ids as they were given.
        """
        wanted = None if version_ids is None else _check_ids(version_ids)

        async def work(tx: Transaction) -> MetricsSummary:
            chosen = {i: i for i in await tx.version_totals.version_ids()} if wanted is None else wanted
            ids = sorted(set(chosen.values()) - {""})
            found = {"": _NO_VERSION, **await tx.version_totals.metrics(ids)}
            return MetricsSummary(
                total_versions=len({known or given for given, known in chosen.items()}),
                metrics=await tx.version_totals.pooled_metrics(ids),
                by_version={given: found[known] for given, known in chosen.items()},
            )

        return await (await self._totalled()).read(work)

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
        known = known_id(version_id)
        if known is None:
            return []

        async def work(tx: Transaction) -> list[PerformancePeriod]:
            buckets = await tx.version_totals.over_time(
                known, seconds=seconds, start_time=start, end_time=end
            )
            return [
                PerformancePeriod(
                    start=bucket.start, end=bucket.start + timedelta(seconds=seconds), metrics=bucket.metrics
                )
                for bucket in buckets
            ]

        return await (await self._totalled()).read(work)

    async def reset_metrics(self, version_id: str | None = None) -> int:
        """Delete the events of a version, or with None all events, and what they add up to; return how many there were.

        Events that had been pruned count. Raises `StateError` for a version's where events have been pruned: what the
        others' units add up to could not be made anew.
        """
        known = known_id(version_id)
        if version_id is not None and known is None:
            return 0

        async def work(tx: Transaction) -> int:
            version_ids = None if known is None else [known]
            touched = None if version_ids is None else await tx.events.experiment_ids(version_ids)
            pruned = await tx.retention.dropped()
            if pruned and known is not None:
                raise StateError(
                    f"the events of version {known} cannot be deleted alone: events have been pruned, and the totals "
                    "of units cannot be made anew without them; delete all with reset_metrics()"
                )
            deleted = await tx.events.delete(version_ids)
            await tx.rollup.reset(touched)
            await tx.totals.forget(known)
            await tx.guards.forget(known)
            return deleted + pruned

        return await (await self._store()).write(work)

    async def _metrics(
        self,
        version_ids: Iterable[str],
        start_time: datetime | None,
        end_time: datetime | None,
    ) -> dict[str, PromptMetrics]:
        """Return the metrics of canonical ids; zeros for the empty one."""
        wanted = set(version_ids) - {""}
        start, end = _check_window(start_time, end_time)

        async def work(tx: Transaction) -> dict[str, PromptMetrics]:
            return await tx.version_totals.metrics(wanted, start_time=start, end_time=end)

        found = await (await self._totalled()).read(work)
        return {"": _NO_VERSION, **found}


def _check_ids(version_ids: Iterable[str]) -> dict[str, str]:
    """Return each id as it was given (a UUID as its text) and in its canonical form, empty for what is no id."""
    wanted: dict[str, str] = {}
    for given in check_items("version_ids", version_ids):
        known = known_id(given)
        if not isinstance(given, str) and known is None:
            raise InvalidInputError("version_ids", given, "a list of ids")
        wanted[given if isinstance(given, str) else str(given)] = known or ""
    return wanted


def _check_window(start: datetime | None, end: datetime | None) -> tuple[datetime | None, datetime | None]:
    return (
        None if start is None else check_time("start_time", start),
        None if end is None else check_time("end_time", end),
    )


def _rank(metric: str, metrics: PromptMetrics) -> tuple[bool, float]:
    """Return what to sort by, ascending: versions that carry the metric first, the best of them first."""
    ranking = _RANKINGS.get(metric)
    if ranking is None:
        value = metrics.metrics.get(metric)
        return (value is None, -(value or 0.0))
    carried = sum(getattr(metrics, count) for count in ranking.counts) > 0
    value = float(getattr(metrics, ranking.mean))
    return (not carried, value if ranking.lower_is_better else -value)
