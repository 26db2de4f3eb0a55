"""Events: reading them back, and summing them over units one by one."""

from __future__ import annotations

import math
import uuid
from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Float,
    Row,
    Select,
    and_,
    case,
    cast,
    delete,
    func,
    literal,
    or_,
    select,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from promptab.models import MetricEvent, PromptType, Tokens
from promptab.stats.summary import UnitSums
from promptab.stores.queries.exposures import analysed
from promptab.stores.queries.flushing import flushed
from promptab.stores.queries.unit_totals import each_metric
from promptab.stores.schema import aliases, events, exposures, versions
from promptab.stores.totals_schema import version_metric_hours

LATEST_EVENTS = 20_000
"""Among so many it is looked whether a metric is known; older ones are in the totals."""

MetricSums = dict[str, dict[str, dict[int, UnitSums]]]
"""metric -> variant -> epoch -> sums over units."""


class EventQueries:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def listing(
        self,
        version_id: str,
        *,
        limit: int | None = None,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
    ) -> list[MetricEvent]:
        """Return a version's events with start_time <= timestamp < end_time, newest first."""
        query = (
            select(events)
            .where(*_within(version_id, start_time, end_time))
            .order_by(events.c.at.desc(), events.c.sequence.desc())
            .limit(limit)
        )
        return [_record(row) for row in (await self._connection.execute(query)).all()]

    async def by_id(self, event_id: str) -> MetricEvent | None:
        query = select(events).where(events.c.event_id == uuid.UUID(event_id).bytes)
        row = (await self._connection.execute(query)).one_or_none()
        return None if row is None else _record(row)

    async def is_carried(self, metric: str) -> bool:
        """Return whether any of the latest events, or any that is in the totals by the hour, carries a named metric."""
        newest = select(func.coalesce(func.max(events.c.sequence), 0)).scalar_subquery()
        each = each_metric(self._connection.dialect)
        latest = (
            select(events.c.sequence)
            .select_from(events.join(each, literal(value=True)))
            .where(
                events.c.sequence > newest - LATEST_EVENTS,
                events.c.metrics.is_not(None),
                each.c.key == metric,
            )
        )
        totalled = select(version_metric_hours.c.measure).where(version_metric_hours.c.measure == metric)
        query = select(or_(latest.exists(), totalled.exists()))
        return bool((await self._connection.execute(query)).scalar_one())

    async def unit_sums(self, experiment_id: str, *, without: Collection[str] = ()) -> MetricSums:
        """Return the sums over units of every metric that an experiment's events carry.

        A unit belongs to the variant and epoch of its first exposure, with all its events. Left out: events of
        another variant, units shown a variant by hand (those of `without` too, `*` being all), and events
        without a unit. The second moments are about the metric's mean over the whole experiment, which is the
        `center` of every sum.
        """
        totals = self._unit_totals(experiment_id, without)
        centers = (
            select(totals.c.metric, (flushed(func.sum(totals.c.s)) / func.sum(totals.c.n)).label("center"))
            .group_by(totals.c.metric)
            .cte("centers")
        )
        residual = flushed(totals.c.s - centers.c.center * totals.c.n)
        query = (
            select(
                totals.c.metric,
                totals.c.variant,
                totals.c.epoch,
                centers.c.center,
                func.count().label("units"),
                func.sum(totals.c.n).label("n"),
                func.sum(totals.c.s).label("s"),
                func.sum(residual * residual).label("rr"),
                func.sum(totals.c.n * totals.c.n).label("nn"),
                func.sum(residual * totals.c.n).label("rn"),
            )
            .join(centers, centers.c.metric == totals.c.metric)
            .group_by(totals.c.metric, totals.c.variant, totals.c.epoch, centers.c.center)
            .order_by(totals.c.metric, totals.c.variant, totals.c.epoch)
        )
        sums: MetricSums = {}
        for row in (await self._connection.execute(query)).all():
            by_epoch = sums.setdefault(row.metric, {}).setdefault(row.variant, {})
            by_epoch[row.epoch] = UnitSums(
                units=row.units,
                n=float(row.n),
                s=float(row.s),
                center=float(row.center),
                rr=float(row.rr),
                nn=float(row.nn),
                rn=float(row.rn),
            )
        return sums

    async def percentile(
        self, prompt_type: PromptType, name: str, measure: str, share: float
    ) -> float | None:
        """Return the value of rank ceil(share · n) among all events of a prompt's versions that carried the
        measure; None where none did.
        """
        of_prompt = select(versions.c.version_id).where(
            versions.c.prompt_type == prompt_type, versions.c.name == name
        )
        if measure in _MEASURES:
            value: ColumnElement[Any] = _as_number(measure)
            source = select(value.label("value")).where(
                events.c.version_id.in_(of_prompt), value.is_not(None)
            )
        else:
            each = each_metric(self._connection.dialect)
            source = (
                select(cast(each.c.value, Float).label("value"))
                .select_from(events.join(each, literal(value=True)))
                .where(events.c.version_id.in_(of_prompt), each.c.key == measure)
            )
        found = source.subquery()
        count = (await self._connection.execute(select(func.count()).select_from(found))).scalar_one()
        if not count:
            return None
        query = select(found.c.value).order_by(found.c.value).offset(rank(share, count) - 1).limit(1)
        return float((await self._connection.execute(query)).scalar_one())

    async def delete(self, version_ids: Iterable[str] | None) -> int:
        """Remove the events of these versions (None: all events); return how many there were."""
        query = delete(events)
        if version_ids is not None:
            query = query.where(events.c.version_id.in_(list(version_ids)))
        return (await self._connection.execute(query)).rowcount

    async def experiment_ids(self, version_ids: Iterable[str]) -> list[str]:
        """Return the experiments that the events of these versions were part of."""
        of_versions = (events.c.experiment_id.is_not(None), events.c.version_id.in_(list(version_ids)))
        query = select(events.c.experiment_id).where(*of_versions).distinct()
        return sorted((await self._connection.execute(query)).scalars())

    async def count(self) -> int:
        return int((await self._connection.execute(select(func.count()).select_from(events))).scalar_one())

    def _unit_totals(self, experiment_id: str, without: Collection[str]) -> CTE:
        """Per metric and unit: n events that carried the metric, and their total s."""
        unit = func.coalesce(aliases.c.unit, events.c.unit)
        joined = events.outerjoin(aliases, aliases.c.alias == events.c.unit).join(
            exposures,
            and_(exposures.c.experiment_id == events.c.experiment_id, exposures.c.unit == unit),
        )
        condition = and_(
            events.c.experiment_id == experiment_id,
            # not of another variant than the unit's: flagged ones, and those of a session that became a user of another
            or_(events.c.variant.is_(None), events.c.variant == exposures.c.variant),
            *analysed(without),
        )
        key = (exposures.c.variant, exposures.c.epoch, exposures.c.unit)
        measured = {name: _as_number(name) for name in _MEASURES}
        wide = (
            select(
                *key,
                *(func.count(value).label(f"n_{name}") for name, value in measured.items()),
                *(func.sum(value).label(f"s_{name}") for name, value in measured.items()),
            )
            .select_from(joined)
            .where(condition)
            .group_by(*key)
            .cte("unit_totals")
        )
        parts: list[Select[Any]] = [
            select(
                literal(name).label("metric"),
                wide.c.variant,
                wide.c.epoch,
                wide.c.unit,
                cast(wide.c[f"n_{name}"], Float).label("n"),
                cast(wide.c[f"s_{name}"], Float).label("s"),
            ).where(wide.c[f"n_{name}"] > 0)
            for name in _MEASURES
        ]
        each = each_metric(self._connection.dialect)
        parts.append(
            select(
                each.c.key.label("metric"),
                *key,
                cast(func.count(), Float).label("n"),
                func.sum(cast(each.c.value, Float)).label("s"),
            )
            .select_from(joined.join(each, literal(value=True)))
            .where(condition, events.c.metrics.is_not(None))
            .group_by(each.c.key, *key)
        )
        return union_all(*parts).cte("metric_totals")


_MEASURES = ("success_rate", "response_time", "tokens", "cost", "rating")


def rank(share: float, count: int) -> int:
    """Return ceil(share · count), at least 1: which of so many values in their order is the percentile."""
    # one rank of rounding is nothing among so many, but ceil(0.99 * 100) has to be 99
    return max(math.ceil(share * count - 1e-9), 1)


def _as_number(measure: str) -> ColumnElement[Any]:
    if measure == "success_rate":
        return case((events.c.success.is_(True), 1.0), (events.c.success.is_(False), 0.0))
    return events.c[measure]


def _within(
    version_id: str, start_time: datetime | None, end_time: datetime | None
) -> list[ColumnElement[bool]]:
    return [events.c.version_id == version_id, *_between(start_time, end_time)]


def _between(start_time: datetime | None, end_time: datetime | None) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if start_time is not None:
        conditions.append(events.c.at >= start_time)
    if end_time is not None:
        conditions.append(events.c.at < end_time)
    return conditions


def _record(row: Row[Any]) -> MetricEvent:
    tokens = Tokens(
        input=row.input_tokens,
        cached_input=row.cached_input_tokens,
        output=row.output_tokens,
        total=row.tokens,
    )
    return MetricEvent(
        event_id=str(uuid.UUID(bytes=row.event_id)),
        kind=row.kind,
        version_id=row.version_id,
        success=row.success,
        response_time=row.response_time,
        tokens=tokens if tokens != Tokens() else None,
        user_rating=row.rating,
        cost=row.cost,
        metrics=row.metrics or {},
        metadata=row.metadata or {},
        experiment_id=row.experiment_id,
        variant=row.variant,
        user_id=row.unit,
        timestamp=row.at,
        recorded_at=row.recorded_at,
        flagged=row.flagged,
    )
