"""Sums over units, from what each unit adds up to; and the table that keeps them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Float, FromClause, Table, case, delete, func, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from promptab.analysis.evidence import ArmCounts
from promptab.models import PromptExperiment
from promptab.stats.metric import BUILT_IN_METRICS, MEASURES, MetricDefinition
from promptab.stats.summary import UnitSums
from promptab.stores.queries.events import MetricSums
from promptab.stores.queries.unit_facts import UnitFacts, UnitMetric, unit_metric
from promptab.stores.queries.unit_totals import adding
from promptab.stores.schema import arms, moments

ArmsByEpoch = dict[str, dict[int, ArmCounts]]
"""variant -> epoch -> counts of units."""

METRICS_PER_QUERY = 50
"""Six sums each: a database bounds the columns of one query (SQLite: 2,000, PostgreSQL: 1,664)."""


class Sums(NamedTuple):
    """Everything that some units add up to."""

    metrics: MetricSums
    arms: ArmsByEpoch


FactsOf = Callable[[Sequence[MetricDefinition]], Awaitable[UnitFacts]]
"""Makes the facts that these metrics need, of the units that are meant, with their arms."""


def rolled_up_metrics(experiment: PromptExperiment, named: Iterable[str]) -> list[MetricDefinition]:
    """Return what has moments: the plan's metrics that are sums, every measure, and the cost per success.

    `named` are the named metrics that events carried. What the plan declares under a name goes before what has it
    otherwise.
    """
    chosen = {name: BUILT_IN_METRICS[name] for name in (*MEASURES, "cost_per_success")}
    chosen |= {name: MetricDefinition(name=name) for name in named}
    chosen |= {metric.name: metric for metric in experiment.plan.metrics}
    return [metric for metric in chosen.values() if metric.kind != "quantile"]


async def summed(
    connection: AsyncConnection,
    facts_of: FactsOf,
    metrics: Sequence[MetricDefinition],
    centers: Mapping[str, float],
    *,
    by: str | None = None,
) -> dict[str, Sums]:
    """Return the sums of these metrics over units, by the value of the facts' column `by`, or under "".

    Second moments are about `centers`; where a metric has none, about its mean over all these units.
    """
    found: dict[str, Sums] = {}
    for start in range(0, max(len(metrics), 1), METRICS_PER_QUERY):
        some = metrics[start : start + METRICS_PER_QUERY]
        for value, sums in (await _summed(connection, await facts_of(some), some, centers, by)).items():
            found.setdefault(value, Sums({}, sums.arms)).metrics.update(sums.metrics)
    return found


async def add_moments(connection: AsyncConnection, experiment_id: str, sums: Sums, *, sign: int) -> None:
    """Add sums over units to the moments, or take them out with `sign` -1; what has no units left has no row."""
    rows = [
        {"experiment_id": experiment_id, "metric": metric, "epoch": epoch, "variant": variant}
        | {name: value if name == "center" else sign * value for name, value in part._asdict().items()}
        for metric, by_variant in sums.metrics.items()
        for variant, by_epoch in by_variant.items()
        for epoch, part in by_epoch.items()
    ]
    await _add(connection, moments, rows, "units", constant=("center",))
    counted = [
        {"experiment_id": experiment_id, "epoch": epoch, "variant": variant}
        | {name: sign * value for name, value in counts._asdict().items()}
        for variant, by_epoch in sums.arms.items()
        for epoch, counts in by_epoch.items()
    ]
    await _add(connection, arms, counted, "exposed")


async def kept_moments(connection: AsyncConnection, experiment_id: str) -> Sums:
    """Return the moments that are kept, metrics by name."""
    query = (
        select(moments)
        .where(moments.c.experiment_id == experiment_id)
        .order_by(moments.c.metric, moments.c.variant, moments.c.epoch)
    )
    metrics: MetricSums = {}
    for row in (await connection.execute(query)).all():
        by_epoch = metrics.setdefault(row.metric, {}).setdefault(row.variant, {})
        by_epoch[row.epoch] = UnitSums(**{name: getattr(row, name) for name in UnitSums._fields})
    counts: ArmsByEpoch = {}
    listing = select(arms).where(arms.c.experiment_id == experiment_id).order_by(arms.c.variant, arms.c.epoch)
    for row in (await connection.execute(listing)).all():
        counts.setdefault(row.variant, {})[row.epoch] = ArmCounts(row.exposed, row.reporting, row.switched)
    return Sums(metrics, counts)


async def kept_centers(connection: AsyncConnection, experiment_id: str) -> dict[str, float]:
    query = (
        select(moments.c.metric, func.max(moments.c.center).label("center"))
        .where(moments.c.experiment_id == experiment_id)
        .group_by(moments.c.metric)
    )
    return {row.metric: row.center for row in (await connection.execute(query)).all()}


def mean_over(n: ColumnElement[Any], s: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return Σs/Σn, and 0 where nothing can be divided by: what second moments are taken about."""
    return case((func.sum(n) != 0, func.sum(s) / func.sum(n)), else_=0.0)


async def _summed(
    connection: AsyncConnection,
    facts: UnitFacts,
    metrics: Sequence[MetricDefinition],
    centers: Mapping[str, float],
    by: str | None,
) -> dict[str, Sums]:
    pairs = [unit_metric(metric, facts.carried) for metric in metrics]
    known = {index: centers[metric.name] for index, metric in enumerate(metrics) if metric.name in centers}
    about: dict[int, ColumnElement[Any]] = {index: literal(center, Float) for index, center in known.items()}
    source: FromClause = facts.table
    if unknown := [index for index in range(len(metrics)) if index not in known]:
        # both read the same rows, which the database keeps for the second
        means = select(*(mean_over(pairs[i].n, pairs[i].s).label(f"mean_{i}") for i in unknown)).cte("means")
        about |= {index: means.c[f"mean_{index}"] for index in unknown}
        source = source.join(means, literal(value=True))
    grouped = [facts.c.variant, facts.c.epoch, *([] if by is None else [facts.c[by]])]
    sums = [
        column.label(f"{name}_{index}")
        for index, pair in enumerate(pairs)
        for name, column in _moments(pair, about[index]).items()
    ]
    sums += [func.max(about[index]).label(f"center_{index}") for index in unknown]
    query = (
        select(
            *grouped,
            func.count().label("exposed"),
            func.sum(facts.c.reporting).label("reporting"),
            func.sum(facts.c.switched).label("switched"),
            *sums,
        )
        .select_from(source)
        .group_by(*grouped)
    )
    found: dict[str, Sums] = {}
    for row in (await connection.execute(query)).all():
        part = found.setdefault("" if by is None else getattr(row, by), Sums({}, {}))
        counts = ArmCounts(int(row.exposed), int(row.reporting), int(row.switched))
        part.arms.setdefault(row.variant, {})[row.epoch] = counts
        for index, metric in enumerate(metrics):
            values = {name: getattr(row, f"{name}_{index}") for name in UnitSums._fields if name != "center"}
            if units := int(values.pop("units")):
                center = known[index] if index in known else getattr(row, f"center_{index}")
                sums_of_arm = {name: float(value) for name, value in {**values, "center": center}.items()}
                by_epoch = part.metrics.setdefault(metric.name, {}).setdefault(row.variant, {})
                by_epoch[row.epoch] = UnitSums(units=units, **sums_of_arm)
    return found


def _moments(pair: UnitMetric, center: ColumnElement[Any]) -> dict[str, ColumnElement[Any]]:
    """Return the columns of `UnitSums` but for the center; a unit that does not count has n = s = 0."""
    residual = pair.s - center * pair.n
    return {
        "units": func.sum(case((pair.counts, 1), else_=0)),
        "n": func.sum(pair.n),
        "s": func.sum(pair.s),
        "rr": func.sum(residual * residual),
        "nn": func.sum(pair.n * pair.n),
        "rn": func.sum(residual * pair.n),
    }


async def _add(
    connection: AsyncConnection,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    count: str,
    *,
    constant: Collection[str] = (),
) -> None:
    """Add rows to those with the same keys, and drop those whose count is 0 afterwards: rounding leaves no trace."""
    if not rows:
        return
    await connection.execute(adding(connection.dialect, table, constant=constant), rows)
    experiment = table.c.experiment_id == rows[0]["experiment_id"]
    await connection.execute(delete(table).where(experiment, table.c[count] == 0))
