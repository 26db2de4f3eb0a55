"""Reading everything that was recorded, day by day, to be written out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Row, Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from promptab.stores.queries.time_spans import DAY, Span, start_of_stretch
from promptab.stores.schema import aliases, events, exposures

ROWS_AT_ONCE = 10_000


class EventDay(NamedTuple):
    """The events that happened on one day."""

    start: int
    """Microseconds since 1970, UTC."""
    first: int
    last: int
    """Between these two sequences they all are."""


class ExportQueries:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def event_days(self, span: Span, experiment_id: str | None) -> list[EventDay]:
        """Return the days on which events (of an experiment) happened, oldest first."""
        day = start_of_stretch(events.c.at, DAY).label("day")
        query = (
            select(
                day,
                func.min(events.c.sequence).label("first"),
                func.max(events.c.sequence).label("last"),
            )
            .where(*span.limits(events.c.at), *_of(events.c.experiment_id, experiment_id))
            .group_by(day)
            .order_by(day)
        )
        return [EventDay(*row) for row in (await self._connection.execute(query)).all()]

    def events(self, day: EventDay, experiment_id: str | None) -> AsyncIterator[Sequence[Row[Any]]]:
        """Return the events of a day in the order in which they were recorded, some at a time."""
        return self._stream(
            select(events)
            .where(
                events.c.sequence >= day.first,
                events.c.sequence <= day.last,
                *Span(day.start, day.start + DAY).limits(events.c.at),
                *_of(events.c.experiment_id, experiment_id),
            )
            .order_by(events.c.sequence)
        )

    def exposures(self, span: Span, experiment_id: str | None) -> AsyncIterator[Sequence[Row[Any]]]:
        """Return exposures in the order of their time, some at a time."""
        return self._stream(
            select(exposures)
            .where(*span.limits(exposures.c.at), *_of(exposures.c.experiment_id, experiment_id))
            .order_by(exposures.c.at, exposures.c.experiment_id, exposures.c.unit)
        )

    def aliases(self) -> AsyncIterator[Sequence[Row[Any]]]:
        """Return which sessions turned out to be which users."""
        return self._stream(select(aliases).order_by(aliases.c.alias))

    async def _stream(self, query: Select[Any]) -> AsyncIterator[Sequence[Row[Any]]]:
        async with self._connection.stream(query, execution_options={"yield_per": ROWS_AT_ONCE}) as result:
            async for rows in result.partitions():
                yield rows


def _of(column: ColumnElement[Any], experiment_id: str | None) -> list[ColumnElement[bool]]:
    return [] if experiment_id is None else [column == experiment_id]
