"""Adding every event to the totals by the hour and by the day, exactly once, up to a watermark for each of the two.

They are of all events, in an experiment or not, and so have watermarks of their own: who never asks for a unit's past
never pays for it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Literal

from sqlalchemy import ColumnElement, Float, Table, cast, delete, func, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from promptab.stats.metric import MEASURES
from promptab.stores.queries.time_spans import DAY, HOUR, start_of_stretch
from promptab.stores.queries.unit_facts import Series
from promptab.stores.queries.unit_totals import adding, each_metric, event_value, stretch_after
from promptab.stores.queries.version_totals import LARGEST, SMALLEST, sums_of_events
from promptab.stores.schema import events
from promptab.stores.totals_schema import (
    prunings,
    total_watermarks,
    unit_days,
    unit_metric_days,
    version_hours,
    version_metric_hours,
)

TotalKind = Literal["versions", "units"]
"""By version and hour, or by unit and day."""


class TotalRollupQueries:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def behind(self, kind: TotalKind) -> int:
        """Return how many numbers of events are behind the watermark: at least as many as events."""
        newest = select(func.max(events.c.sequence)).scalar_subquery()
        query = select(newest.label("newest"), total_watermarks.c.watermark).where(
            total_watermarks.c.kind == kind
        )
        row = (await self._connection.execute(query)).one()
        return max(0, (row.newest or 0) - int(row.watermark))

    async def fold(self, kind: TotalKind) -> bool:
        """Take one bounded step inside a write that is not shown; return whether there is more to fold."""
        query = select(total_watermarks.c.watermark).where(total_watermarks.c.kind == kind)
        watermark = int((await self._connection.execute(query.with_for_update())).scalar_one())
        stretch = await stretch_after(self._connection, watermark)
        if stretch.upto > watermark:
            within = [events.c.sequence > watermark, events.c.sequence <= stretch.upto]
            if kind == "versions":
                await self._add_versions(within)
            else:
                await self._add_units(within)
            await self._connection.execute(
                update(total_watermarks).where(total_watermarks.c.kind == kind).values(watermark=stretch.upto)
            )
        return not stretch.is_last

    async def forget(self, version_id: str | None) -> None:
        """Forget the totals of a version (None: all, and that events were pruned) whose events have been deleted.

        Those of units are made anew from the events that are left: to be called only where none has been pruned.
        """
        await self._connection.execute(select(total_watermarks.c.kind).with_for_update())
        for table in (version_hours, version_metric_hours):
            of_version = [] if version_id is None else [table.c.version_id == version_id]
            await self._connection.execute(delete(table).where(*of_version))
        for table in (unit_days, unit_metric_days, *([prunings] if version_id is None else [])):
            await self._connection.execute(delete(table))
        # a database may give the numbers of the newest events again
        newest = select(func.coalesce(func.max(events.c.sequence), 0)).scalar_subquery()
        for kind, limit in (("versions", newest), ("units", literal(0))):
            behind = total_watermarks.c.watermark > limit
            await self._connection.execute(
                update(total_watermarks)
                .where(total_watermarks.c.kind == kind, behind)
                .values(watermark=limit)
            )

    async def _add_versions(self, within: Iterable[ColumnElement[bool]]) -> None:
        key = {"version_id": events.c.version_id, "hour": start_of_stretch(events.c.at, HOUR)}
        conditions = [*within, events.c.version_id.is_not(None)]
        await self._add(version_hours, key, sums_of_events(), conditions, smallest=SMALLEST, largest=LARGEST)
        await self._add_named(version_metric_hours, key, conditions)

    async def _add_units(self, within: Iterable[ColumnElement[bool]]) -> None:
        key = {"unit": events.c.unit, "day": start_of_stretch(events.c.at, DAY)}
        conditions = [*within, events.c.unit.is_not(None)]
        values = {measure: event_value(Series(measure)) for measure in MEASURES}
        sums: dict[str, ColumnElement[Any]] = {
            f"n_{measure}": func.count(value) for measure, value in values.items()
        }
        sums |= {
            f"s_{measure}": func.coalesce(func.sum(value), literal(0.0, Float))
            for measure, value in values.items()
        }
        await self._add(unit_days, key, sums, conditions)
        await self._add_named(unit_metric_days, key, conditions)

    async def _add_named(
        self, table: Table, key: dict[str, ColumnElement[Any]], conditions: list[ColumnElement[bool]]
    ) -> None:
        each = each_metric(self._connection.dialect)
        value = cast(each.c.value, Float)
        query = (
            select(
                *(column.label(name) for name, column in {**key, "measure": each.c.key}.items()),
                func.count(value).label("n"),
                func.sum(value).label("s"),
            )
            .select_from(events.join(each, literal(value=True)))
            .where(*conditions, events.c.metrics.is_not(None))
            .group_by(*key.values(), each.c.key)
        )
        await self._connection.execute(adding(self._connection.dialect, table, query))

    async def _add(
        self,
        table: Table,
        key: dict[str, ColumnElement[Any]],
        sums: dict[str, ColumnElement[Any]],
        conditions: list[ColumnElement[bool]],
        **merged: Collection[str],
    ) -> None:
        query = (
            select(*(column.label(name) for name, column in {**key, **sums}.items()))
            .where(*conditions)
            .group_by(*key.values())
        )
        await self._connection.execute(adding(self._connection.dialect, table, query, **merged))
