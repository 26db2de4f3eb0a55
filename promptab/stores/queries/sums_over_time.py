"""What the sums over units had been, stretch of time by stretch of time."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Float,
    case,
    func,
    literal,
    select,
    type_coerce,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from promptab.models import PromptExperiment
from promptab.stats.metric import MetricDefinition
from promptab.stats.summary import UnitSums
from promptab.stores.queries.exposures import analysed_units
from promptab.stores.queries.flushing import flushed
from promptab.stores.queries.moments import mean_over
from promptab.stores.queries.unit_facts import Carried, Series, UnitFacts, UnitMetric, series_of, unit_metric
from promptab.stores.queries.unit_totals import (
    carrying,
    of_own_variant,
    up_to_the_roll_up,
    window_of,
    with_exposures,
)
from promptab.stores.queries.unit_values import UnitValues
from promptab.stores.schema import events, exposures, instant, microseconds


class _Member(NamedTuple):
    """A unit, in the order of exposure, then of its name."""

    at: datetime
    unit: str
    variant: str
    epoch: int


class SumsAt(NamedTuple):
    """The sums over units as they were at one moment."""

    at: datetime
    """The end of the stretch, which is not in it."""
    sums: dict[str, dict[int, UnitSums]]
    """variant -> epoch -> sums; without those that had no units yet."""


async def sums_over_time(
    connection: AsyncConnection,
    experiment: PromptExperiment,
    metric: MetricDefinition,
    seconds: int,
    *which: ColumnElement[bool],
) -> list[SumsAt]:
    """Return the sums at the end of each stretch in which they changed, oldest first, all about one center.

    `which` are conditions on exposures. A unit is there from its exposure on, and what happened to it before counts
    from then; with a measurement window it is there, with all it will ever have, once its window has closed.
    """
    width = seconds * 1_000_000
    changes = await _changes(connection, experiment, metric, width, which)
    before = UnitMetric(changes.c.counts_before, changes.c.n_before, changes.c.s_before)
    after = UnitMetric(changes.c.counts, changes.c.n, changes.c.s)
    mean = select(mean_over(after.n - before.n, after.s - before.s).label("center")).cte("mean")
    now, then = _products(after, mean.c.center), _products(before, mean.c.center)
    query = (
        select(
            changes.c.start,
            changes.c.variant,
            changes.c.epoch,
            func.max(mean.c.center).label("center"),
            *(func.sum(now[name] - then[name]).label(name) for name in now),
        )
        .select_from(changes.join(mean, literal(value=True)))
        .group_by(changes.c.start, changes.c.variant, changes.c.epoch)
        .order_by(changes.c.start)
    )
    points: list[SumsAt] = []
    so_far: dict[tuple[str, int], UnitSums] = {}
    for row in (await connection.execute(query)).all():
        at = instant(row.start + width)
        key = (row.variant, row.epoch)
        so_far[key] = _grown(so_far.get(key, UnitSums()), row)
        if points and points[-1].at == at:
            points.pop()
        points.append(SumsAt(at, _by_variant(so_far)))
    return points


async def units_over_time(
    connection: AsyncConnection,
    experiment: PromptExperiment,
    metric: MetricDefinition,
    seconds: int,
    moments: Collection[datetime],
    *which: ColumnElement[bool],
) -> dict[datetime, UnitValues]:
    """Return the units that `sums_over_time` sums up, at those of its moments that are asked for: those that counted by
    then, in the order of exposure, then of the unit's name.
    """
    if not moments:
        return {}
    width = seconds * 1_000_000
    changes = await _changes(connection, experiment, metric, width, which)
    last = microseconds(max(moments)) - width
    query = select(changes).where(changes.c.start <= last).order_by(changes.c.start)
    found: dict[datetime, UnitValues] = {}
    so_far: dict[_Member, tuple[float, float]] = {}
    rows = (await connection.execute(query)).all()
    for start, changed in groupby(rows, key=lambda row: row.start):
        for row in changed:
            if row.counts:
                so_far[_Member(row.at, row.unit, row.variant, row.epoch)] = (float(row.n), float(row.s))
        if (at := instant(start + width)) in moments:
            found[at] = _values(so_far)
    return found


async def _changes(
    connection: AsyncConnection,
    experiment: PromptExperiment,
    metric: MetricDefinition,
    width: int,
    which: tuple[ColumnElement[bool], ...],
) -> Any:
    """Return a row for each unit and stretch in which it changed: its pair (n, s) after it, and before it."""
    window = window_of(experiment)
    if window is None:
        return _growth(connection, experiment, metric, width, which)
    facts = await UnitFacts.of(connection, experiment, series_of(metric), *which)
    pair = unit_metric(metric, facts.carried)
    closed = _instant(facts.c.at) + int(window.total_seconds() * 1_000_000)
    nothing = literal(0.0, Float)
    return select(
        facts.c.unit,
        facts.c.at,
        facts.c.variant,
        facts.c.epoch,
        _start(closed, width).label("start"),
        *_labelled(pair, ""),
        *_labelled(UnitMetric(literal(value=False), nothing, nothing), "_before"),
    ).cte("changes")


def _growth(
    connection: AsyncConnection,
    experiment: PromptExperiment,
    metric: MetricDefinition,
    width: int,
    which: tuple[ColumnElement[bool], ...],
) -> Any:
    series = series_of(metric)
    told = _told(connection, experiment, series, width, which)
    earlier = {"partition_by": told.c.unit, "order_by": told.c.start, "rows": (None, -1)}
    sums = [f"{part}_{index}" for index in range(len(series)) for part in ("n", "s")]
    running = select(
        told,
        *(
            func.coalesce(func.sum(told.c[name]).over(**earlier), 0.0).label(f"{name}_before")
            for name in sums
        ),
    ).subquery("running")

    def before(one: Series) -> Carried:
        index = series.index(one)
        return Carried(running.c[f"n_{index}_before"], running.c[f"s_{index}_before"])

    def after(one: Series) -> Carried:
        index = series.index(one)
        n, s = before(one)
        return Carried(n + running.c[f"n_{index}"], s + running.c[f"s_{index}"])

    was_there = running.c.start > running.c.first
    old = unit_metric(metric, before)
    held = UnitMetric(
        was_there & old.counts,
        case((was_there, old.n), else_=0.0),
        case((was_there, old.s), else_=0.0),
    )
    return select(
        running.c.unit,
        running.c.at,
        running.c.variant,
        running.c.epoch,
        running.c.start,
        *_labelled(unit_metric(metric, after), ""),
        *_labelled(held, "_before"),
    ).cte("changes")


def _told(
    connection: AsyncConnection,
    experiment: PromptExperiment,
    series: tuple[Series, ...],
    width: int,
    which: tuple[ColumnElement[bool], ...],
) -> Any:
    """Return what each unit's events of each stretch carried; one row of nothing stands for its exposure."""
    source = with_exposures(experiment.experiment_id)
    values = []
    for one in series:
        source, value = carrying(source, one, connection.dialect)
        values.append(value)
    exposed, happened = _instant(exposures.c.at), _instant(events.c.at)
    first = _start(exposed, width).label("first")
    member = (exposures.c.unit, exposures.c.at, exposures.c.variant, exposures.c.epoch, first)
    chosen = (
        exposures.c.experiment_id == experiment.experiment_id,
        *analysed_units(experiment),
        *which,
    )
    carried = (
        select(
            *member,
            _start(case((happened > exposed, happened), else_=exposed), width).label("start"),
            *(case((value.is_(None), 0.0), else_=1.0).label(f"n_{i}") for i, value in enumerate(values)),
            *(func.coalesce(value, 0.0).label(f"s_{i}") for i, value in enumerate(values)),
        )
        .select_from(source)
        .where(
            events.c.experiment_id == experiment.experiment_id,
            of_own_variant(),
            *up_to_the_roll_up(experiment),
            *chosen,
        )
    )
    nothing = [literal(0.0, Float).label(f"{part}_{i}") for part in ("n", "s") for i in range(len(values))]
    rows = union_all(carried, select(*member, first.label("start"), *nothing).where(*chosen)).subquery("rows")
    key = (rows.c.unit, rows.c.at, rows.c.variant, rows.c.epoch, rows.c.first, rows.c.start)
    sums = [column for column in rows.c if column not in set(key)]
    return (
        select(*key, *(func.sum(column).label(column.key) for column in sums)).group_by(*key).subquery("told")
    )


def _instant(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return type_coerce(column, BigInteger)


def _start(at: ColumnElement[Any], width: int) -> ColumnElement[Any]:
    # the remainder of a time before 1970 is negative
    return at - (at % width + width) % width


def _labelled(pair: UnitMetric, suffix: str) -> list[ColumnElement[Any]]:
    counts = case((pair.counts, 1), else_=0)
    return [counts.label(f"counts{suffix}"), pair.n.label(f"n{suffix}"), pair.s.label(f"s{suffix}")]


def _products(pair: UnitMetric, center: ColumnElement[Any]) -> dict[str, ColumnElement[Any]]:
    n = flushed(pair.n)
    residual = flushed(pair.s - center * n)
    return {
        "units": pair.counts,
        "n": pair.n,
        "s": pair.s,
        "rr": residual * residual,
        "nn": n * n,
        "rn": residual * n,
    }


def _grown(sums: UnitSums, row: Any) -> UnitSums:
    """Add the differences that units have made, those that were there before and those that are new."""
    grown = {name: getattr(sums, name) + float(getattr(row, name)) for name in UnitSums._fields}
    return UnitSums(**{**grown, "units": int(grown["units"]), "center": float(row.center)})


def _by_variant(sums: dict[tuple[str, int], UnitSums]) -> dict[str, dict[int, UnitSums]]:
    found: dict[str, dict[int, UnitSums]] = {}
    for (variant, epoch), part in sums.items():
        if part.units:
            found.setdefault(variant, {})[epoch] = part
    return found


def _values(units: Mapping[_Member, tuple[float, float]]) -> UnitValues:
    found: UnitValues = {}
    for member in sorted(units):
        found.setdefault(member.variant, {}).setdefault(member.epoch, []).append(units[member])
    return found
