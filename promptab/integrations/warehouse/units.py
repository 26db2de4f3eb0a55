"""What each unit of an experiment adds up to, out of a warehouse: what `stores.queries.unit_facts` is for the store."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

import ibis

from promptab.errors import InvalidInputError
from promptab.integrations.warehouse.columns import (
    Column,
    ExposureColumns,
    OutcomeColumns,
    Table,
    exposures_of,
    moment,
    outcomes_of,
)
from promptab.models import EVERY_UNIT, PromptExperiment
from promptab.stats.metric import MetricDefinition
from promptab.stores.queries.exposures import ANALYSED_SOURCES
from promptab.stores.queries.unit_facts import Series

_SECONDS_PER_DAY = 86_400


class UnitMetric(NamedTuple):
    """A metric of one unit: its pair (n, s), and whether the unit counts at all."""

    counts: Column
    n: Column
    s: Column


Carrier = Callable[[Series], tuple[Column, Column]]
"""A series of a unit: how many events carried it, and what they add up to."""


@dataclass(frozen=True, slots=True)
class Source:
    """The tables of a warehouse, and whose units are meant."""

    experiment: PromptExperiment
    exposures: Table
    outcomes: Table
    aliases: Table | None
    """Columns alias and unit: sessions that turned out to be users."""
    exposure_columns: ExposureColumns
    outcome_columns: OutcomeColumns
    now: datetime
    since: datetime | None

    @property
    def window(self) -> timedelta | None:
        hours = self.experiment.plan.window_hours
        return None if hours is None else timedelta(hours=hours)

    def members(self, attributes: Sequence[str] = ()) -> Table:
        """Return the units that count: unit, variant, epoch, at, and segment_0, ... for the attributes."""
        exposed = self.exposures
        if self.experiment.bandit is not None and "propensity" in exposed.columns:
            # what was reported and not dealt has no probability to be weighed by
            exposed = exposed.filter(exposed["propensity"].notnull())
        met = exposures_of(exposed, self.exposure_columns, self.experiment.experiment_id, attributes)
        turn = ibis.row_number().over(group_by=met.unit, order_by=[met.at, met.variant])
        met = met.mutate(turn=turn)
        met = met.filter(met.turn == 0, met.source.isin(ANALYSED_SOURCES)).drop("turn", "source")
        overrides = self.experiment.overrides
        if EVERY_UNIT in overrides:
            met = met.filter(ibis.literal(value=False))
        elif overrides:
            met = met.filter(met.unit.notin(sorted(overrides)))
        if self.aliases is not None:
            known = self.aliases.select(unit=self.aliases["alias"].cast("string"))
            met = met.anti_join(known, "unit")
        if self.window is not None:
            met = met.filter(met.at <= moment(self.now - self.window, met.at))
        if self.since is not None:
            met = met.filter(met.at >= moment(self.since, met.at))
        return met

    def events(self, series: Sequence[Series], *, of_experiment: bool = True) -> Table:
        """Return the outcomes, of the experiment or of all, sessions that became users being those users."""
        told = outcomes_of(self.outcomes, self.outcome_columns, series)
        if of_experiment and self.outcome_columns.experiment_id is not None:
            told = told.filter(told.experiment_id == self.experiment.experiment_id)
        if self.aliases is None:
            return told
        known = self.aliases.select(
            session=self.aliases["alias"].cast("string"), owner=self.aliases["unit"].cast("string")
        )
        joined = told.left_join(known, told.unit == known.session)
        return joined.mutate(unit=ibis.coalesce(joined.owner, joined.unit)).drop("session", "owner")

    def met_events(self, members: Table, series: Sequence[Series]) -> Table:
        """Return the events that count for members, with `own`: of the unit's variant, and not of another."""
        met = members.select("unit", "epoch", exposed_to=members.variant, exposed_at=members.at)
        told = self.events(series)
        if (told.at.type().timezone is None) != (met.exposed_at.type().timezone is None):
            raise InvalidInputError(
                "outcomes",
                self.outcome_columns.at,
                "a timestamp with a time zone where the exposures' has one",
            )
        joined = told.join(met, "unit")
        own = joined.variant.isnull() | (joined.variant == joined.exposed_to)
        if self.window is not None:
            end = joined.exposed_at + ibis.interval(microseconds=self.window // timedelta(microseconds=1))
            joined = joined.filter(joined.at >= joined.exposed_at, joined.at < end)
        return joined.mutate(own=own)

    def facts(self, series: Sequence[Series], attributes: Sequence[str] = ()) -> Table:
        """Return one row per member: with reporting, switched, and n_0, s_0, ... of the series."""
        members = self.members(attributes)
        told = self.met_events(members, series)
        units = told.group_by("unit").aggregate(
            reporting=told.own.cast("int8").max(),
            switched=(~told.own).cast("int8").max(),
            **_sums(told, len(series), told.own),
        )
        return _filled(members, units)

    def pasts(self, series: Sequence[Series], days: float) -> Table:
        """Return what members did, in any experiment or none, on full days (UTC) before that of their exposure."""
        members = self.members()
        told = self.events(series, of_experiment=False)
        joined = told.join(members.select("unit", exposed_at=members.at), "unit")
        between = _day(joined.exposed_at) - _day(joined.at)
        joined = joined.filter(between >= 1, between <= math.ceil(days))
        return joined.group_by("unit").aggregate(**_sums(joined, len(series), ibis.literal(value=True)))

    def values(self, series: Series) -> Table:
        """Return what the single events carried that count: variant, epoch, unit, value."""
        told = self.met_events(self.members(), [series])
        told = told.filter(told.own, told.value_0.notnull())
        return told.select("epoch", "unit", variant=told.exposed_to, value=told.value_0)


def unit_metric(metric: MetricDefinition, carried: Carrier) -> UnitMetric:
    """Say how a unit's totals become its pair (n, s), as the kinds of `MetricDefinition` have it."""
    match metric.kind:
        case "mean_per_unit":
            _, total = _of(Series(metric.source), carried)
            if metric.cap is not None:
                total = ibis.ifelse(total > metric.cap, ibis.literal(float(metric.cap)), total)
            return _of_every_unit(total)
        case "share_of_units":
            _, total = _of(Series(metric.source), carried)
            return _of_every_unit(_one_where(total > 0))
        case "ratio":
            over_n, over = _of(Series(metric.source, metric.cap), carried)
            under_n, under = _of(Series(metric.denominator or ""), carried)
            return UnitMetric(over_n + under_n > 0, under, over)
        case _:
            n, s = _of(Series(metric.source, metric.cap), carried)
            return UnitMetric(n > 0, n, s)


def _of_every_unit(value: Column) -> UnitMetric:
    # columns, and no constants: they are summed up
    counts = value.notnull()
    return UnitMetric(counts, _one_where(counts), value)


def _one_where(condition: Column) -> Column:
    # 1.0 itself would be a decimal number to some backends
    return ibis.ifelse(condition, 1, 0).cast("float64")


def carrier(table: Table, series: Sequence[Series], suffix: str = "") -> Carrier:
    """Return where the series are found in a table of `facts` or `pasts`."""

    def carried(one: Series) -> tuple[Column, Column]:
        index = series.index(one)
        return table[f"n_{index}{suffix}"], table[f"s_{index}{suffix}"]

    return carried


def _of(series: Series, carried: Carrier) -> tuple[Column, Column]:
    """Errors are what the successes lack, unless each was capped."""
    if series == Series("error_rate"):
        n, s = carried(Series("success_rate"))
        return n, n - s
    return carried(series)


def _sums(table: Table, count: int, which: Column) -> dict[str, Column]:
    """Return how many of these rows carried each series, and what they add up to, as numbers that may be null."""
    sums: dict[str, Column] = {}
    for index in range(count):
        value = table[f"value_{index}"]
        sums[f"n_{index}"] = value.count(where=which).cast("float64")
        sums[f"s_{index}"] = value.sum(where=which)
    return sums


def _filled(members: Table, units: Table) -> Table:
    """Join what units add up to; those without events have zeros."""
    told = units.rename(told_unit="unit")
    joined = members.left_join(told, members.unit == told.told_unit)
    zeros = {name: joined[name].fill_null(0) for name in told.columns if name != "told_unit"}
    return joined.mutate(**zeros).drop("told_unit")


def _day(at: Column) -> Column:
    return (at.epoch_seconds() / _SECONDS_PER_DAY).floor().cast("int64")
