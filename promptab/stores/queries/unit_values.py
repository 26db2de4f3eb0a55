"""What single units add up to: read where there are few of them, for the methods that want to see each."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncConnection

from promptab.models import PromptExperiment
from promptab.stats.metric import MetricDefinition
from promptab.stores.queries.unit_facts import UnitFacts, attribute_text, series_of, unit_metric

UnitValues = dict[str, dict[int, list[tuple[float, float]]]]
"""variant -> epoch -> (n, s) of each unit."""

VALUES_PER_QUERY = 500
"""Databases bound the number of parameters in one statement (SQLite: 999 in old builds)."""


async def unit_values(
    connection: AsyncConnection,
    experiment: PromptExperiment,
    metric: MetricDefinition,
    *which: ColumnElement[bool],
    limit: int | None = None,
) -> UnitValues:
    """Return (n, s) of every unit that counts in the metric, in the order of exposure, then of the unit's name.

    `which` are conditions on exposures.
    """
    values: UnitValues = {}
    facts = await UnitFacts.of(connection, experiment, series_of(metric), *which, limit=limit)
    for row in await _rows(connection, facts, metric):
        _add(values, row)
    return values


async def segment_unit_values(
    connection: AsyncConnection,
    experiment: PromptExperiment,
    metric: MetricDefinition,
    attribute: str,
    segments: Collection[str],
    *which: ColumnElement[bool],
) -> dict[str, UnitValues]:
    """Return the same for each of these values, as text, of an attribute of the units' exposures."""
    text, series = attribute_text(connection.dialect, attribute), series_of(metric)
    found: dict[str, UnitValues] = {}
    wanted = sorted(segments)
    for start in range(0, len(wanted), VALUES_PER_QUERY):
        among = text.in_(wanted[start : start + VALUES_PER_QUERY])
        facts = await UnitFacts.of(
            connection, experiment, series, *which, among, columns=(text.label("segment"),)
        )
        for row in await _rows(connection, facts, metric, facts.c.segment):
            _add(found.setdefault(row.segment, {}), row)
    return found


async def _rows(
    connection: AsyncConnection, facts: UnitFacts, metric: MetricDefinition, *more: ColumnElement[Any]
) -> Sequence[Any]:
    pair = unit_metric(metric, facts.carried)
    query = (
        select(facts.c.variant, facts.c.epoch, pair.n.label("n"), pair.s.label("s"), *more)
        .where(pair.counts)
        .order_by(facts.c.at, facts.c.unit)
    )
    return (await connection.execute(query)).all()


def _add(values: UnitValues, row: Any) -> None:
    values.setdefault(row.variant, {}).setdefault(row.epoch, []).append((float(row.n), float(row.s)))
