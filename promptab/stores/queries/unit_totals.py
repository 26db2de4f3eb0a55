"""Totals per unit: purely additive, so that events are added once and never looked at again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Connection,
    Dialect,
    Float,
    FromClause,
    Select,
    Table,
    and_,
    case,
    cast,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    type_coerce,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from promptab.models import PromptExperiment
from promptab.stats.metric import MEASURES
from promptab.stores.queries.exposures import analysed_units
from promptab.stores.queries.unit_facts import Series, series_of
from promptab.stores.schema import aliases, events, exposures, rollups, unit_metric_totals, unit_totals

_Source = tuple[FromClause, list[ColumnElement[bool]]]
"""What rows are read from, and under which conditions."""

EVENTS_PER_STEP = 200_000
"""The events of one transaction: a second's work at most, so that writers come in between."""

SETTLED = "promptab_settled"
"""The execution option that names the last sequence before which no event can appear any more."""

_MICROSECOND = timedelta(microseconds=1)


class Step(NamedTuple):
    """The next stretch of events: those after one sequence, up to and including another."""

    after: int
    upto: int
    has_events: bool
    """Whether any of them is the experiment's, and of a unit."""
    has_named: bool
    """Whether any of these has named metrics."""
    is_last: bool
    """Whether there is nothing behind it."""


class Stretch(NamedTuple):
    """Events by their sequence: those after one, up to and including `upto`."""

    upto: int
    is_last: bool
    """Whether there is nothing behind it."""


async def stretch_after(connection: AsyncConnection, sequence: int) -> Stretch:
    """Return the next events that a roll-up may take, at most `EVENTS_PER_STEP` of them.

    On SQLite sequences are committed in their order, so that nothing can appear behind `upto` later. Where they are
    not, the connection's option `SETTLED` says up to which they may be taken.
    """
    settled = (await connection.run_sync(Connection.get_execution_options)).get(SETTLED)
    takeable = [events.c.sequence > sequence]
    if settled is not None:
        takeable.append(events.c.sequence <= settled)
    full = (
        select(events.c.sequence)
        .where(*takeable)
        .order_by(events.c.sequence)
        .offset(EVENTS_PER_STEP - 1)
        .limit(1)
        .scalar_subquery()
    )
    newest = select(func.max(events.c.sequence)).where(*takeable).scalar_subquery()
    end = (await connection.execute(select(full.label("full"), newest.label("newest")))).one()
    return Stretch(end.full or end.newest or sequence, end.full is None)


async def next_step(connection: AsyncConnection, experiment_id: str, *, after: int) -> Step:
    """Return the experiment's next step, which begins after this sequence."""
    stretch = await stretch_after(connection, after)
    step = Step(after, stretch.upto, has_events=False, has_named=False, is_last=stretch.is_last)
    counted = exists().where(*_within(experiment_id, step))
    named = counted.where(events.c.metrics.is_not(None))
    has_events, has_named = (await connection.execute(select(counted, named))).one()
    return step._replace(has_events=bool(has_events), has_named=bool(has_named))


def window_of(experiment: PromptExperiment) -> timedelta | None:
    """Return how long after its first exposure a unit's outcomes count; None for always."""
    hours = experiment.plan.window_hours
    return None if hours is None else timedelta(hours=hours)


def in_window(window: timedelta) -> ColumnElement[bool]:
    """Return whether an event that is joined to its unit's exposure happened in the unit's window."""
    since_exposure = type_coerce(events.c.at, BigInteger) - type_coerce(exposures.c.at, BigInteger)
    return and_(since_exposure >= 0, since_exposure < window // _MICROSECOND)


def with_exposures(experiment_id: str) -> FromClause:
    """Join events of any experiment to the exposures of their units to this one, aliases followed."""
    return events.outerjoin(aliases, aliases.c.alias == events.c.unit).join(
        exposures,
        and_(
            exposures.c.experiment_id == experiment_id,
            exposures.c.unit == func.coalesce(aliases.c.unit, events.c.unit),
        ),
    )


def of_own_variant() -> ColumnElement[bool]:
    """Not of another variant than the unit's: flagged ones, and those of a session that became a user of another."""
    return or_(events.c.variant.is_(None), events.c.variant == exposures.c.variant)


def up_to_the_roll_up(experiment: PromptExperiment) -> list[ColumnElement[bool]]:
    """Return which events are in the moments, of those that are joined to the exposures of units that are in them.

    What came late for a unit whose window had closed is not. The window is that of the exposure which the unit has now;
    see `add_events` for when that is another one than the event was judged by.
    """
    window = window_of(experiment)
    if window is not None:
        return [events.c.sequence <= exposures.c.rolled_up, in_window(window)]
    watermark = select(rollups.c.watermark).where(rollups.c.experiment_id == experiment.experiment_id)
    return [events.c.sequence <= watermark.scalar_subquery()]


def units_with_events(experiment_id: str, step: Step) -> Select[Any]:
    """Return the units that the events of a stretch belong to, aliases followed; each as often as it has events."""
    return (
        select(func.coalesce(aliases.c.unit, events.c.unit))
        .select_from(events.outerjoin(aliases, aliases.c.alias == events.c.unit))
        .where(*_within(experiment_id, step))
    )


def units_with_later_events(experiment_id: str, sequence: int) -> Select[Any]:
    """Return the same of the events behind a sequence, which are there to be seen, but not to be taken yet."""
    return (
        select(func.coalesce(aliases.c.unit, events.c.unit))
        .select_from(events.outerjoin(aliases, aliases.c.alias == events.c.unit))
        .where(*_behind(experiment_id, sequence))
    )


async def count_late(connection: AsyncConnection, experiment: PromptExperiment, step: Step) -> int:
    """Return how many events of a stretch belong into the window of a unit that has been counted without them."""
    window = window_of(experiment)
    if window is None:
        return 0
    query = (
        select(func.count())
        .select_from(with_exposures(experiment.experiment_id))
        .where(
            *_within(experiment.experiment_id, step),
            exposures.c.rolled_up.is_not(None),
            in_window(window),
            of_own_variant(),
            *analysed_units(experiment),
        )
    )
    return int((await connection.execute(query)).scalar_one())


async def add_events(connection: AsyncConnection, experiment: PromptExperiment, step: Step) -> None:
    """Add the events of a stretch to the totals of their units.

    With a measurement window only events in the window of a unit that has not been counted yet are added: the window
    is that of the exposure that the unit has now. So where a session turns out later to be a user who had been exposed
    before, its events stay judged by the session's own window; and outcomes of a unit that is exposed only later are
    lost.
    """
    source, conditions = _source(experiment, step)
    measured = {measure: event_value(Series(measure)) for measure in MEASURES}
    columns: dict[str, ColumnElement[Any]] = {
        # of the bare column, which is cheaper to count than its value
        f"n_{measure}": func.count(events.c["success" if measure == "success_rate" else measure])
        for measure in MEASURES
    }
    columns |= {f"s_{measure}": _total(value) for measure, value in measured.items()}
    await _add(connection, unit_totals, _key(experiment), columns, (source, conditions))
    if step.has_named:
        each = each_metric(connection.dialect)
        value = cast(each.c.value, Float)
        named = [*conditions, events.c.metrics.is_not(None), each.c.key.not_in(MEASURES)]
        await _add(
            connection,
            unit_metric_totals,
            {**_key(experiment), "measure": each.c.key},
            {"n": func.count(value), "s": _total(value)},
            (source.join(each, literal(value=True)), named),
        )
    for series in capped_series(experiment):
        joined, capped = carrying(source, series, connection.dialect)
        await _add(
            connection,
            unit_metric_totals,
            {**_key(experiment), "measure": literal(series.name)},
            {"n": func.count(capped), "s": _total(capped)},
            (joined, [*conditions, capped.is_not(None)]),
        )


def capped_series(experiment: PromptExperiment) -> list[Series]:
    """Return the series that have totals of their own, because events are capped one by one, in a fixed order."""
    found = {
        series
        for metric in experiment.plan.metrics
        if metric.kind != "quantile"
        for series in series_of(metric)
        if series.cap is not None
    }
    return sorted(found, key=lambda series: series.name)


async def named_measures(connection: AsyncConnection, experiment_id: str) -> list[str]:
    """Return the measures without columns that have totals, capped ones left out, in the order of their names.

    One step down the key per name, however many units there are.
    """
    totals = unit_metric_totals
    of_experiment = totals.c.experiment_id == experiment_id
    first = select(func.min(totals.c.measure).label("measure")).where(of_experiment).cte("m", recursive=True)
    following = (
        select(func.min(totals.c.measure))
        .where(of_experiment, totals.c.measure > first.c.measure)
        .scalar_subquery()
    )
    names = first.union_all(select(following).where(first.c.measure.is_not(None)))
    query = select(names.c.measure).where(names.c.measure.is_not(None)).order_by(names.c.measure)
    return [name for name in (await connection.execute(query)).scalars() if "<" not in name]


def event_value(series: Series) -> ColumnElement[Any]:
    """Return what a single event carried of a measure that has a column; null where it carried none."""
    value: ColumnElement[Any]
    match series.measure:
        case "success_rate":
            value = case((events.c.success.is_(True), 1.0), (events.c.success.is_(False), 0.0))
        case "error_rate":
            value = case((events.c.success.is_(True), 0.0), (events.c.success.is_(False), 1.0))
        case "tokens":
            # sums of whole numbers overflow where those of floats do not
            value = cast(events.c.tokens, Float)
        case measure:
            value = events.c[measure]
    return _capped(value, series.cap)


def carrying(source: FromClause, series: Series, dialect: Dialect) -> tuple[FromClause, ColumnElement[Any]]:
    """Return events joined to what each carried of a series, and that value; null where it carried none."""
    if series.measure in {*MEASURES, "error_rate"}:
        return source, event_value(series)
    each = each_metric(dialect)
    return source.outerjoin(each, each.c.key == series.measure), _capped(
        cast(each.c.value, Float), series.cap
    )


def each_metric(dialect: Dialect) -> Any:
    """Return the rows (key, value) of an event's named metrics, which databases spell differently."""
    if dialect.name == "postgresql":
        return func.jsonb_each_text(events.c.metrics).table_valued("key", "value").lateral()
    return func.json_each(events.c.metrics).table_valued("key", "value")


def adding(
    dialect: Dialect,
    table: Table,
    query: Select[Any] | None = None,
    *,
    constant: Collection[str] = (),
    smallest: Collection[str] = (),
    largest: Collection[str] = (),
) -> Any:
    """Return an insert, of a query's rows or of values, that adds to the row with the same key where there is one.

    Columns in `constant` stay as they were; of those in `smallest` and `largest` one of the two values stays.
    """
    insert = (postgresql if dialect.name == "postgresql" else sqlite).insert(table)

    def together(column: ColumnElement[Any], more: ColumnElement[Any]) -> ColumnElement[Any]:
        if column.key in smallest:
            return case((more < column, more), else_=column)
        if column.key in largest:
            return case((more > column, more), else_=column)
        return column + more

    keys = [column.name for column in table.primary_key]
    merged = {
        column.name: together(column, insert.excluded[column.name])
        for column in table.columns
        if column.name not in {*keys, *constant}
    }
    if query is not None:
        insert = insert.from_select(query.selected_columns.keys(), query)
    return insert.on_conflict_do_update(index_elements=keys, set_=merged)


def _capped(value: ColumnElement[Any], cap: float | None) -> ColumnElement[Any]:
    return value if cap is None else case((value > cap, cap), else_=value)


def _within(experiment_id: str, step: Step) -> Iterable[ColumnElement[bool]]:
    return *_behind(experiment_id, step.after), events.c.sequence <= step.upto


def _behind(experiment_id: str, sequence: int) -> Iterable[ColumnElement[bool]]:
    return (
        events.c.sequence > sequence,
        events.c.experiment_id == experiment_id,
        events.c.unit.is_not(None),
    )


def _source(experiment: PromptExperiment, step: Step) -> _Source:
    conditions = list(_within(experiment.experiment_id, step))
    window = window_of(experiment)
    if window is None:
        return events, conditions
    return with_exposures(experiment.experiment_id), [
        *conditions,
        exposures.c.rolled_up.is_(None),
        in_window(window),
    ]


def _total(value: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.coalesce(func.sum(value), 0.0)


def _key(experiment: PromptExperiment) -> dict[str, ColumnElement[Any]]:
    return {
        "experiment_id": literal(experiment.experiment_id),
        "unit": events.c.unit,
        "variant": func.coalesce(events.c.variant, literal_column("''")),
    }


async def _add(
    connection: AsyncConnection,
    table: Table,
    key: Mapping[str, ColumnElement[Any]],
    sums: Mapping[str, ColumnElement[Any]],
    rows: _Source,
) -> None:
    """Add sums over rows to a table, one row for each key."""
    source, conditions = rows
    query = (
        select(*(column.label(name) for name, column in {**key, **sums}.items()))
        .select_from(source)
        .where(*conditions)
        .group_by(*(column for column in key.values() if not isinstance(column, BindParameter)))
    )
    await connection.execute(adding(connection.dialect, table, query))
