"""What units did before their first exposure, beside what they did since: the sums that CUPED needs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Float,
    FromClause,
    Subquery,
    and_,
    case,
    cast,
    func,
    literal,
    select,
    type_coerce,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from promptab.models import PromptExperiment
from promptab.stats.covariate_sums import CovariateSums
from promptab.stats.metric import MetricDefinition
from promptab.stores.queries.exposures import analysed_units, any_alias
from promptab.stores.queries.flushing import flushed
from promptab.stores.queries.moments import mean_over
from promptab.stores.queries.time_spans import DAY, start_of_stretch
from promptab.stores.queries.unit_facts import (
    Carried,
    Series,
    UnitFacts,
    recorded_under,
    series_of,
    unit_metric,
)
from promptab.stores.queries.unit_totals import carrying
from promptab.stores.schema import events, exposures
from promptab.stores.totals_schema import unit_days, unit_metric_days


async def covariate_sums(
    connection: AsyncConnection,
    experiment: PromptExperiment,
    metric: MetricDefinition,
    history_days: float,
    *which: ColumnElement[bool],
) -> dict[str, dict[int, CovariateSums]]:
    """Return the sums by variant and epoch over the units that count in the metric, about the means of all of them.

    `which` are conditions on exposures. The past are the full days (UTC) before the day of the exposure, so that the
    totals by the day have it, whether the events are still there or not.
    """
    pairs = await _pairs(connection, experiment, metric, math.ceil(history_days), which)
    means = select(
        mean_over(pairs.c.n, pairs.c.s).label("center"), mean_over(pairs.c.m, pairs.c.x).label("pre_center")
    ).cte("means")
    n, s, m, x = flushed(pairs.c.n), pairs.c.s, flushed(pairs.c.m), pairs.c.x
    r, z = flushed(s - means.c.center * n), flushed(x - means.c.pre_center * m)
    products = {"rr": r * r, "nn": n * n, "rn": r * n, "zz": z * z, "mm": m * m, "zm": z * m}
    products |= {"rz": r * z, "rm": r * m, "nz": n * z, "nm": n * m, "n": n, "s": s, "m": m, "x": x}
    query = (
        select(
            pairs.c.variant,
            pairs.c.epoch,
            func.count().label("units"),
            func.sum(case(((m != 0) | (x != 0), 1), else_=0)).label("with_history"),
            func.max(means.c.center).label("center"),
            func.max(means.c.pre_center).label("pre_center"),
            *(func.sum(product).label(name) for name, product in products.items()),
        )
        .select_from(pairs.join(means, literal(value=True)))
        .group_by(pairs.c.variant, pairs.c.epoch)
    )
    found: dict[str, dict[int, CovariateSums]] = {}
    for row in (await connection.execute(query)).all():
        sums = {name: float(getattr(row, name)) for name in CovariateSums._fields}
        units, with_history = int(sums.pop("units")), int(sums.pop("with_history"))
        by_epoch = found.setdefault(row.variant, {})
        by_epoch[row.epoch] = CovariateSums(units=units, with_history=with_history, **sums)
    return found


async def _pairs(
    connection: AsyncConnection,
    experiment: PromptExperiment,
    metric: MetricDefinition,
    days: int,
    which: tuple[ColumnElement[bool], ...],
) -> Any:
    """Return one row per unit that counts: (n, s) since its exposure, (m, x) before it."""
    series = series_of(metric)
    facts = await UnitFacts.of(connection, experiment, series, *which)
    members = select(exposures.c.unit, start_of_stretch(exposures.c.at, DAY).label("day")).where(
        exposures.c.experiment_id == experiment.experiment_id, *analysed_units(experiment), *which
    )
    recorded = recorded_under(members, "recorded_earlier", aliased=await any_alias(connection))
    capped = any(one.cap is not None for one in series)
    told = _from_events(connection, series, recorded, days) if capped else _from_days(series, recorded, days)
    source: FromClause = facts.table
    for part in told:
        source = source.outerjoin(part, part.c.unit == facts.c.unit)

    def carried_earlier(one: Series) -> Carried:
        index = series.index(one)
        n, s = (
            next(part.c[name] for part in told if name in part.c) for name in (f"n_{index}", f"s_{index}")
        )
        return Carried(func.coalesce(n, 0.0), func.coalesce(s, 0.0))

    since, before = unit_metric(metric, facts.carried), unit_metric(metric, carried_earlier)
    return (
        select(
            facts.c.variant,
            facts.c.epoch,
            since.n.label("n"),
            since.s.label("s"),
            before.n.label("m"),
            before.s.label("x"),
        )
        .select_from(source)
        .where(since.counts)
        .cte("pairs")
    )


def _from_days(series: tuple[Series, ...], recorded: FromClause, days: int) -> list[Subquery]:
    """Return what each unit's events carried before its exposure, by the totals; without units that have none."""
    sums: dict[str, ColumnElement[Any]]
    wide = {index: one for index, one in enumerate(series) if one.has_columns}
    rows = {index: one for index, one in enumerate(series) if not one.has_columns}
    told = []
    if wide:
        sums = {
            f"{part}_{index}": unit_days.c[f"{part}_{one.measure}"]
            for index, one in wide.items()
            for part in ("n", "s")
        }
        of_unit = and_(
            unit_days.c.unit == recorded.c.unit_as_recorded, *_earlier(unit_days.c.day, recorded, days)
        )
        told.append(_summed_up(recorded, recorded.join(unit_days, of_unit), sums, "earlier"))
    if rows:
        totals = unit_metric_days
        sums = {
            f"{part}_{index}": case((totals.c.measure == one.measure, totals.c[part]), else_=0)
            for index, one in rows.items()
            for part in ("n", "s")
        }
        of_measure = and_(
            totals.c.measure.in_(sorted({one.measure for one in rows.values()})),
            totals.c.unit == recorded.c.unit_as_recorded,
            *_earlier(totals.c.day, recorded, days),
        )
        told.append(_summed_up(recorded, recorded.join(totals, of_measure), sums, "earlier_rows"))
    return told


def _from_events(
    connection: AsyncConnection, series: tuple[Series, ...], recorded: FromClause, days: int
) -> list[Subquery]:
    """Return the same from the single events, which is the only place to cap them in."""
    happened = start_of_stretch(events.c.at, DAY)
    source: FromClause = events.join(
        recorded,
        and_(recorded.c.unit_as_recorded == events.c.unit, *_earlier(happened, recorded, days)),
    )
    sums: dict[str, ColumnElement[Any]] = {}
    for index, one in enumerate(series):
        source, value = carrying(source, one, connection.dialect)
        sums |= {f"n_{index}": case((value.is_(None), 0), else_=1), f"s_{index}": func.coalesce(value, 0.0)}
    return [_summed_up(recorded, source, sums, "earlier")]


def _earlier(day: ColumnElement[Any], recorded: FromClause, days: int) -> tuple[ColumnElement[bool], ...]:
    """Return whether a day is among the full ones before the day of the unit's exposure."""
    at = type_coerce(day, BigInteger)
    return at < recorded.c.day, at >= recorded.c.day - days * DAY


def _summed_up(
    recorded: FromClause, source: FromClause, sums: Mapping[str, ColumnElement[Any]], name: str
) -> Subquery:
    totals = (cast(func.sum(column), Float).label(label) for label, column in sums.items())
    return select(recorded.c.unit, *totals).select_from(source).group_by(recorded.c.unit).subquery(name)
