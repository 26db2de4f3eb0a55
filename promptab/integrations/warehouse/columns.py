"""What the columns of a warehouse's tables are called, and the tables as the rest reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import ibis

from promptab.errors import InvalidInputError
from promptab.stores.queries.unit_facts import Series

Table = Any
"""An ibis table expression, of any backend."""
Column = Any

MEASURE_COLUMNS: Mapping[str, str] = {
    "success_rate": "success",
    "response_time": "response_time",
    "tokens": "tokens",
    "cost": "cost",
    "rating": "rating",
}


@dataclass(frozen=True, slots=True)
class ExposureColumns:
    """The names of the columns of a table of exposures, as `export_events` writes it unless said otherwise.

    One row for the first time that a unit met an experiment; of several, the earliest counts. What may be missing is
    None: without `experiment_id` the table is of the one experiment, without `epoch` its weights have never changed,
    without `source` no unit was shown a variant by hand.
    """

    unit: str = "unit"
    variant: str = "variant"
    at: str = "exposed_at"
    """A timestamp; one without a time zone is UTC."""
    experiment_id: str | None = "experiment_id"
    epoch: str | None = "epoch"
    source: str | None = "source"
    attributes: str | None = "attributes"
    """A map from text to text; an attribute that is not asked for there is a column of its own name."""


@dataclass(frozen=True, slots=True)
class OutcomeColumns:
    """The names of the columns of a table of outcomes, as `export_events` writes the events unless said otherwise.

    One row for each event; null in a measure's column is for an event that did not carry it. What may be missing is
    None: without `experiment_id` all outcomes are of the experiment, without `variant` all count for the variant that
    the unit was exposed to.
    """

    unit: str = "unit"
    at: str = "happened_at"
    """A timestamp; one without a time zone is UTC."""
    experiment_id: str | None = "experiment_id"
    variant: str | None = "variant"
    measures: Mapping[str, str] = field(default_factory=lambda: MEASURE_COLUMNS)
    """Measure -> column; numbers, or booleans."""
    metrics: str | None = "metrics"
    """A map from the names of further measures to numbers."""


def exposures_of(
    table: Table, columns: ExposureColumns, experiment_id: str, attributes: Sequence[str]
) -> Table:
    """Return unit, variant, epoch, at, source, and what each attribute is as text (empty where there is none)."""
    check_columns(
        "exposure_columns",
        table,
        [columns.unit, columns.variant, columns.at, columns.experiment_id, columns.epoch, columns.source],
    )
    if columns.experiment_id is not None:
        table = table.filter(table[columns.experiment_id] == experiment_id)
    return table.select(
        unit=table[columns.unit].cast("string"),
        variant=table[columns.variant].cast("string"),
        epoch=ibis.literal(1) if columns.epoch is None else table[columns.epoch].cast("int32"),
        at=table[columns.at],
        source=ibis.literal("assigned") if columns.source is None else table[columns.source],
        **{
            f"segment_{index}": _attribute(table, columns, name).fill_null("")
            for index, name in enumerate(attributes)
        },
    )


def outcomes_of(table: Table, columns: OutcomeColumns, series: Sequence[Series]) -> Table:
    """Return unit, variant, experiment_id, at, and the number that each series takes of an event, null for none."""
    measures = columns.measures.values()
    check_columns(
        "outcome_columns",
        table,
        [columns.unit, columns.at, columns.experiment_id, columns.variant, columns.metrics, *measures],
    )
    nothing = ibis.null("string")
    return table.filter(table[columns.unit].notnull()).select(
        unit=table[columns.unit].cast("string"),
        variant=nothing if columns.variant is None else table[columns.variant].cast("string"),
        experiment_id=nothing if columns.experiment_id is None else table[columns.experiment_id],
        at=table[columns.at],
        **{f"value_{index}": _value(table, columns, one) for index, one in enumerate(series)},
    )


def named_measures(table: Table, columns: OutcomeColumns, experiment_id: str) -> list[str]:
    """Return the further measures that the outcomes of an experiment carry, in the order of their names."""
    own = [name for name in columns.measures if name not in MEASURE_COLUMNS]
    if columns.metrics is None:
        return sorted(own)
    check_columns("outcome_columns", table, [columns.metrics, columns.experiment_id, columns.unit])
    among = table.filter(table[columns.metrics].notnull(), table[columns.unit].notnull())
    if columns.experiment_id is not None:
        among = among.filter(among[columns.experiment_id] == experiment_id)
    names = among.select(name=among[columns.metrics].keys().unnest()).distinct()
    return sorted({*own, *names.to_pyarrow()["name"].to_pylist()})


def check_columns(field_name: str, table: Table, names: Sequence[str | None]) -> None:
    """Refuse names that are no columns of the table."""
    for name in names:
        if name is not None and name not in table.columns:
            present = ", ".join(table.columns)
            raise InvalidInputError(field_name, name, f"a column of the table, which has {present}")


def check_measures(columns: OutcomeColumns, series: Sequence[Series]) -> None:
    """Refuse series that there is no column for."""
    for one in series:
        if columns.metrics is None and _carried_as(one) not in columns.measures:
            raise InvalidInputError(
                "outcome_columns.measures",
                one.measure,
                f"one of {', '.join(columns.measures)}",
                "name its column",
            )


def moment(time: datetime, column: Column) -> Column:
    """Return a time that a column can be compared with."""
    zoned = column.type().timezone is not None
    return ibis.literal(time if zoned else time.astimezone(UTC).replace(tzinfo=None))


def _attribute(table: Table, columns: ExposureColumns, name: str) -> Column:
    if columns.attributes is not None and columns.attributes in table.columns:
        return table[columns.attributes].get(name)
    check_columns("segments", table, [name])
    return table[name].cast("string")


def _carried_as(series: Series) -> str:
    """Errors are what the successes lack."""
    return "success_rate" if series.measure == "error_rate" else series.measure


def _value(table: Table, columns: OutcomeColumns, series: Series) -> Column:
    """Return what an event carried of a series, capped; null where it carried none."""
    measure = _carried_as(series)
    if measure in columns.measures:
        found = table[columns.measures[measure]]
        # not every backend makes a float of a boolean at once
        value = found.cast("int8").cast("float64") if found.type().is_boolean() else found.cast("float64")
    elif columns.metrics is not None:
        value = table[columns.metrics].get(measure).cast("float64")
    else:
        return ibis.null("float64")
    if series.measure == "error_rate":
        value = 1.0 - value
    if series.cap is None:
        return value
    return ibis.ifelse(value > series.cap, ibis.literal(float(series.cap)), value)
