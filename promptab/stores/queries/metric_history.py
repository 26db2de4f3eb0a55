"""What events have shown so far of a metric: read once in a while, to plan by, and so by going through the events."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Float,
    FromClause,
    case,
    cast,
    func,
    literal,
    select,
    type_coerce,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from promptab.models import PromptExperiment, PromptType
from promptab.stats.metric import MetricDefinition
from promptab.stats.summary import UnitSums
from promptab.stores.queries.events import rank
from promptab.stores.queries.exposures import analysed_units
from promptab.stores.queries.flushing import flushed
from promptab.stores.queries.unit_facts import Carried, Series, series_of, unit_metric
from promptab.stores.queries.unit_totals import carrying, of_own_variant, up_to_the_roll_up, with_exposures
from promptab.stores.schema import aliases, events, exposures, instant, versions

_Rows = tuple[FromClause, list[ColumnElement[bool]]]
"""Events, and the conditions under which they count."""


class PromptHistory(NamedTuple):
    """The events of a prompt's versions, whichever experiment they were part of, or none."""

    sums: UnitSums
    first: datetime | None
    last: datetime | None
    """When the first and the last of these events happened; None without events."""


class MetricHistoryQueries:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def of_prompt(
        self, kind: PromptType, name: str, metric: MetricDefinition, *, since: datetime
    ) -> PromptHistory:
        """Return the sums over units of the prompt's events since then, sessions that became users being those users.

        Events of nobody in particular are left out. Raises `InvalidInputError` for a quantile.
        """
        source, conditions = _of_prompt(kind, name, since)
        values = []
        for series in (wanted := series_of(metric)):
            source, value = carrying(source, series, self._connection.dialect)
            values.append(value)
        unit = func.coalesce(aliases.c.unit, events.c.unit).label("unit")
        units = (
            select(
                unit,
                func.min(type_coerce(events.c.at, BigInteger)).label("first"),
                func.max(type_coerce(events.c.at, BigInteger)).label("last"),
                *(cast(func.count(value), Float).label(f"n_{at}") for at, value in enumerate(values)),
                *(func.coalesce(func.sum(value), 0.0).label(f"s_{at}") for at, value in enumerate(values)),
            )
            .select_from(source)
            .where(*conditions)
            .group_by(unit)
            .cte("units")
        )

        def carried(one: Series) -> Carried:
            at = wanted.index(one)
            return Carried(units.c[f"n_{at}"], units.c[f"s_{at}"])

        pair = unit_metric(metric, carried)
        totals = select(
            func.count().label("units"),
            func.min(units.c.first).label("first"),
            func.max(units.c.last).label("last"),
            func.sum(pair.n).label("n"),
            func.sum(pair.s).label("s"),
        )
        told = (await self._connection.execute(totals)).one()
        if not told.units:
            return PromptHistory(UnitSums(), None, None)
        center = told.s / told.n if told.n else 0.0
        n = flushed(pair.n)
        residual = flushed(pair.s - literal(center, Float) * n)
        second = select(
            func.sum(case((pair.counts, 1), else_=0)).label("units"),
            func.sum(residual * residual).label("rr"),
            func.sum(n * n).label("nn"),
            func.sum(residual * n).label("rn"),
        )
        row = (await self._connection.execute(second)).one()
        sums = UnitSums(
            int(row.units), float(told.n), float(told.s), center, float(row.rr), float(row.nn), float(row.rn)
        )
        return PromptHistory(sums, instant(told.first), instant(told.last))

    async def unit_percentile_of_prompt(
        self, kind: PromptType, name: str, measure: str, share: float, *, window: timedelta | None = None
    ) -> float | None:
        """Return the value of rank ceil(share · n) among the totals of the n units for which events of the prompt's
        versions carried the measure; None where none did.

        With a `window` a unit's total is that of the events in this time from its first event of the prompt on.
        Sessions that became users are those users; events of nobody in particular are left out.
        """
        source, conditions = _of_prompt(kind, name)
        source, value = carrying(source, Series(measure), self._connection.dialect)
        unit = func.coalesce(aliases.c.unit, events.c.unit)
        at = type_coerce(events.c.at, BigInteger)
        used = (
            select(
                unit.label("unit"),
                value.label("value"),
                (at - func.min(at).over(partition_by=unit)).label("since_first"),
            )
            .select_from(source)
            .where(*conditions)
            .subquery("used")
        )
        counted: list[ColumnElement[bool]] = [used.c.value.is_not(None)]
        if window is not None:
            counted.append(used.c.since_first < window // timedelta(microseconds=1))
        totals = (
            select(func.sum(used.c.value).label("total")).where(*counted).group_by(used.c.unit).subquery()
        )
        count = (await self._connection.execute(select(func.count()).select_from(totals))).scalar_one()
        if not count:
            return None
        query = select(totals.c.total).order_by(totals.c.total).offset(rank(share, count) - 1).limit(1)
        return float((await self._connection.execute(query)).scalar_one())

    async def event_variance_of_prompt(
        self, kind: PromptType, name: str, metric: MetricDefinition, *, since: datetime, center: float
    ) -> float | None:
        """Return the variance of the single events of a mean; None where no event carried it.

        `center` is near their mean: raw squares would cancel.
        """
        return await self._variance(_of_prompt(kind, name, since), metric, center)

    async def event_variance(
        self, experiment: PromptExperiment, metric: MetricDefinition, *, variant: str, center: float
    ) -> float | None:
        """Return the same of the events of a variant that count in the experiment's analysis."""
        conditions = [
            events.c.experiment_id == experiment.experiment_id,
            exposures.c.variant == variant,
            exposures.c.rolled_up.is_not(None),
            of_own_variant(),
            *up_to_the_roll_up(experiment),
            *analysed_units(experiment),
        ]
        return await self._variance((with_exposures(experiment.experiment_id), conditions), metric, center)

    async def _variance(self, rows: _Rows, metric: MetricDefinition, center: float) -> float | None:
        source, conditions = rows
        source, value = carrying(source, series_of(metric)[0], self._connection.dialect)
        off = flushed(value - literal(center, Float))
        query = select(
            func.count(value).label("n"), func.sum(off).label("off"), func.sum(off * off).label("squares")
        )
        row = (await self._connection.execute(query.select_from(source).where(*conditions))).one()
        if not row.n:
            return None
        return max(0.0, float(row.squares / row.n - (row.off / row.n) ** 2))


def _of_prompt(kind: PromptType, name: str, since: datetime | None = None) -> _Rows:
    of_prompt = select(versions.c.version_id).where(versions.c.prompt_type == kind, versions.c.name == name)
    return events.outerjoin(aliases, aliases.c.alias == events.c.unit), [
        events.c.version_id.in_(of_prompt),
        events.c.unit.is_not(None),
        *([] if since is None else [events.c.at >= since]),
    ]
