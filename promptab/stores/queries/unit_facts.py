"""What each unit of an experiment adds up to: the one construct that every sum over units is made from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    CTE,
    ColumnElement,
    Dialect,
    Float,
    FromClause,
    Select,
    Subquery,
    Text,
    and_,
    case,
    cast,
    func,
    literal,
    select,
    true,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from promptab.errors import InvalidInputError
from promptab.models import PromptExperiment
from promptab.stats.metric import MEASURES, MetricDefinition
from promptab.stores.queries.exposures import analysed_units, any_alias
from promptab.stores.schema import aliases, exposures, unit_metric_totals, unit_totals


class Series(NamedTuple):
    """One measure, as recorded, or with every event's value counted at most `cap`."""

    measure: str
    cap: float | None = None

    @property
    def name(self) -> str:
        """What it is called among the totals; `<` is in no measure's own name."""
        return self.measure if self.cap is None else f"{self.measure}<={self.cap!r}"

    @property
    def has_columns(self) -> bool:
        """Whether the totals have columns for it; the others are rows of their own."""
        return self.cap is None and self.measure in MEASURES


class Carried(NamedTuple):
    """Of one unit: how many events carried a series, and what they add up to."""

    n: ColumnElement[Any]
    s: ColumnElement[Any]


class UnitMetric(NamedTuple):
    """A metric of one unit: its pair (n, s), and whether the unit counts at all."""

    counts: ColumnElement[bool]
    n: ColumnElement[Any]
    s: ColumnElement[Any]


Carrier = Callable[[Series], Carried]
"""Where a series is found among the columns of a query with one row per unit."""

_ERRORS = "error_rate"
"""No event carries it: it is what the successes lack."""


def series_of(metric: MetricDefinition) -> tuple[Series, ...]:
    """Return the series that a metric is computed from. Raises `InvalidInputError` for a quantile, which is no sum."""
    if metric.kind == "quantile":
        raise InvalidInputError(
            f"metrics[{metric.name}].kind", metric.kind, "a sum over units", "read the values of its events"
        )
    cap = metric.cap if metric.kind in {"mean", "ratio"} else None
    found = [_stored(Series(metric.source, cap))]
    if metric.denominator is not None:
        found.append(_stored(Series(metric.denominator)))
    return tuple(found)


def all_series(metrics: Iterable[MetricDefinition]) -> list[Series]:
    """Return the series that some metrics are computed from, each once. Raises as `series_of` does."""
    return list(dict.fromkeys(series for metric in metrics for series in series_of(metric)))


def unit_metric(metric: MetricDefinition, carrier: Carrier) -> UnitMetric:
    """Say how a unit's totals become its pair (n, s), as the kinds of `MetricDefinition` have it."""
    one: ColumnElement[Any] = literal(1.0, Float)
    match metric.kind:
        case "mean_per_unit":
            total = _carried(Series(metric.source), carrier).s
            if metric.cap is not None:
                total = case((total > metric.cap, metric.cap), else_=total)
            return UnitMetric(true(), one, total)
        case "share_of_units":
            total = _carried(Series(metric.source), carrier).s
            return UnitMetric(true(), one, case((total > 0, 1.0), else_=0.0))
        case "ratio":
            over = _carried(Series(metric.source, metric.cap), carrier)
            under = _carried(Series(metric.denominator or ""), carrier)
            return UnitMetric(over.n + under.n > 0, under.s, over.s)
        case _:
            mean = _carried(Series(metric.source, metric.cap), carrier)
            return UnitMetric(mean.n > 0, mean.n, mean.s)


class UnitFacts:
    """A query with one row per chosen unit: what its own events carried of each series, and whose it is.

    A unit has the events that were recorded for it and for the sessions that turned out to be it. Those of another
    variant than its first exposure's do not count, and make it `switched`; those without a variant count.
    """

    @classmethod
    async def of(
        cls,
        connection: AsyncConnection,
        experiment: PromptExperiment,
        series: Collection[Series],
        *which: ColumnElement[bool],
        columns: Sequence[ColumnElement[Any]] = (),
        with_arms: bool = False,
        limit: int | None = None,
    ) -> UnitFacts:
        """`which` are conditions on exposures; `columns` are labelled, and come along with each unit.

        `with_arms` adds whether a unit is reporting and whether it is switched, which takes a fifth longer. With a
        `limit` the units exposed first are taken.
        """
        aliased = await any_alias(connection)
        return cls(
            experiment, series, which, columns=columns, with_arms=with_arms, limit=limit, aliased=aliased
        )

    def __init__(
        self,
        experiment: PromptExperiment,
        series: Collection[Series],
        which: Collection[ColumnElement[bool]],
        *,
        columns: Sequence[ColumnElement[Any]],
        with_arms: bool,
        limit: int | None,
        aliased: bool,
    ) -> None:
        """As `of` has them; `aliased` is whether there is any alias."""
        self._series = list(dict.fromkeys(series))
        self._extra = [str(column.key) for column in columns]
        self._with_arms = with_arms
        members = select(
            exposures.c.unit, exposures.c.variant, exposures.c.epoch, exposures.c.at, *columns
        ).where(exposures.c.experiment_id == experiment.experiment_id, *analysed_units(experiment), *which)
        if limit is not None:
            members = members.order_by(exposures.c.at, exposures.c.unit).limit(limit)
        self._experiment_id = experiment.experiment_id
        self.table = self._table(recorded_under(members, "recorded", aliased=aliased))

    @property
    def c(self) -> Any:
        """The columns: unit, variant, epoch, at, those that came along; with arms, reporting and switched (0 or 1)."""
        return self.table.c

    def carried(self, series: Series) -> Carried:
        index = self._series.index(series)
        return Carried(self.table.c[f"n_{index}"], self.table.c[f"s_{index}"])

    def _table(self, recorded: FromClause) -> CTE:
        own = unit_totals.c.variant.in_(("", recorded.c.variant))
        member = [recorded.c[name] for name in ("unit", "variant", "epoch", "at")]
        arms = {"reporting": own, "switched": ~own} if self._with_arms else {}
        query = (
            select(
                *member,
                # the same in all rows of a unit: in the key they would be computed twice, and sorted by
                *(func.min(recorded.c[name]).label(name) for name in self._extra),
                *(func.max(case((holds, 1), else_=0)).label(name) for name, holds in arms.items()),
                *(
                    cast(
                        func.sum(case((own, unit_totals.c[f"{part}_{series.measure}"]), else_=0)), Float
                    ).label(f"{part}_{index}")
                    for index, series in enumerate(self._series)
                    if series.has_columns
                    for part in ("n", "s")
                ),
            )
            .select_from(recorded)
            .outerjoin(
                unit_totals,
                and_(
                    unit_totals.c.experiment_id == self._experiment_id,
                    unit_totals.c.unit == recorded.c.unit_as_recorded,
                ),
            )
            .group_by(*member)
        )
        rows = self._of_rows(recorded)
        if rows is None:
            return query.cte("facts")
        wide = query.subquery("wide")
        return (
            select(
                *wide.c,
                *(func.coalesce(column, 0.0).label(column.key) for column in rows.c if column.key != "unit"),
            )
            .select_from(wide.outerjoin(rows, rows.c.unit == wide.c.unit))
            .cte("facts")
        )

    def _of_rows(self, recorded: FromClause) -> Subquery | None:
        """Return the series that have no columns, where any is asked for; without the units that carried none."""
        totals = unit_metric_totals
        wanted = {index: series.name for index, series in enumerate(self._series) if not series.has_columns}
        if not wanted:
            return None
        return (
            select(
                recorded.c.unit,
                *(
                    cast(func.sum(case((totals.c.measure == name, totals.c[part]), else_=0)), Float).label(
                        f"{part}_{index}"
                    )
                    for index, name in wanted.items()
                    for part in ("n", "s")
                ),
            )
            .select_from(recorded)
            .join(
                totals,
                and_(
                    totals.c.experiment_id == self._experiment_id,
                    totals.c.measure.in_(sorted(wanted.values())),
                    totals.c.unit == recorded.c.unit_as_recorded,
                    totals.c.variant.in_(("", recorded.c.variant)),
                ),
            )
            .group_by(recorded.c.unit)
            .subquery("of_rows")
        )


def attribute_text(dialect: Dialect, name: str) -> ColumnElement[Any]:
    """Return an attribute of an exposure as text: as in JSON, but strings bare; empty where there is none."""
    if dialect.name == "postgresql":
        each = func.json_each_text(exposures.c.attributes).table_valued("key", "value")
        text: ColumnElement[Any] = each.c.value
    else:
        each = func.json_each(exposures.c.attributes).table_valued("key", "value", "type")
        # true and false come as 1 and 0
        is_boolean = each.c.type.in_(("true", "false"))
        text = case((is_boolean, each.c.type), else_=cast(each.c.value, Text))
    return func.coalesce(select(text).where(each.c.key == name).scalar_subquery(), "")


def recorded_under(members: Select[Any], name: str, *, aliased: bool) -> FromClause:
    """Return each unit under all names that its events were recorded under: its own, and those of its sessions.

    Where no name is an alias, units stay in the order of their key, and need not be sorted to be grouped.
    """
    if not aliased:
        own = members.selected_columns["unit"]
        # no CTE: SQLite would write it down where what is made of it is read twice
        return members.add_columns(own.label("unit_as_recorded")).subquery(name)
    chosen = members.cte(f"{name}_members")
    return union_all(
        select(chosen, chosen.c.unit.label("unit_as_recorded")),
        select(chosen, aliases.c.alias.label("unit_as_recorded")).join(
            aliases, aliases.c.unit == chosen.c.unit
        ),
    ).cte(name)


def _stored(series: Series) -> Series:
    return Series("success_rate") if series == Series(_ERRORS) else series


def _carried(series: Series, carrier: Carrier) -> Carried:
    found = carrier(_stored(series))
    return Carried(found.n, found.n - found.s) if series == Series(_ERRORS) else found
