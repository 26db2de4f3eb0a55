"""What units did before their first exposure, beside what they did since: the sums that CUPED needs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Float,
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
from promptab.stores.queries.exposures import analysed
from promptab.stores.queries.moments import mean_over
from promptab.stores.queries.unit_facts import Carried, Series, UnitFacts, series_of, unit_metric
from promptab.stores.queries.unit_totals import carrying, with_exposures
from promptab.stores.schema import events, exposures

_MICROSECOND = timedelta(microseconds=1)


async def covariate_sums(
    connection: AsyncConnection,
    experiment: PromptExperiment,
    metric: MetricDefinition,
    history: timedelta,
    *which: ColumnElement[bool],
) -> dict[str, dict[int, CovariateSums]]:
    """Return the sums by variant and epoch over the units that count in the metric, about the means of all of them.

    `which` are conditions on exposures.
    """
    pairs = _pairs(connection, experiment, metric, history, which)
    means = select(
        mean_over(pairs.c.n, pairs.c.s).label("center"), mean_over(pairs.c.m, pairs.c.x).label("pre_center")
    ).cte("means")
    n, s, m, x = pairs.c.n, pairs.c.s, pairs.c.m, pairs.c.x
    r, z = s - means.c.center * n, x - means.c.pre_center * m
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


def _pairs(
    connection: AsyncConnection,
    experiment: PromptExperiment,
    metric: MetricDefinition,
    history: timedelta,
    which: tuple[ColumnElement[bool], ...],
) -> Any:
    """Return one row per unit that counts: (n, s) since its exposure, (m, x) before it."""
    series = series_of(metric)
    facts = UnitFacts(experiment, series, *which)
    earlier = _earlier(connection, experiment, series, history, which)

    def carried_earlier(one: Series) -> Carried:
        index = series.index(one)
        return Carried(*(func.coalesce(earlier.c[f"{part}_{index}"], 0.0) for part in ("n", "s")))

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
        .select_from(facts.table.outerjoin(earlier, earlier.c.unit == facts.c.unit))
        .where(since.counts)
        .cte("pairs")
    )


def _earlier(
    connection: AsyncConnection,
    experiment: PromptExperiment,
    series: tuple[Series, ...],
    history: timedelta,
    which: tuple[ColumnElement[bool], ...],
) -> Subquery:
    """Return what each unit's events carried in that time before its exposure; without units that have none."""
    source = with_exposures(experiment.experiment_id)
    values = []
    for one in series:
        source, value = carrying(source, one, connection.dialect)
        values.append(value)
    before = type_coerce(exposures.c.at, BigInteger) - type_coerce(events.c.at, BigInteger)
    return (
        select(
            exposures.c.unit,
            *(cast(func.count(value), Float).label(f"n_{index}") for index, value in enumerate(values)),
            *(func.coalesce(func.sum(value), 0.0).label(f"s_{index}") for index, value in enumerate(values)),
        )
        .select_from(source)
        .where(and_(before > 0, before <= history // _MICROSECOND), *analysed(experiment.overrides), *which)
        .group_by(exposures.c.unit)
        .subquery("earlier")
    )
