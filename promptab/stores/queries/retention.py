"""Dropping events that the totals have: which of them, and why the others stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, case, delete, exists, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from promptab.stores.queries.shadows import of_shadow
from promptab.stores.schema import aliases, events, experiments, exposures, rollups
from promptab.stores.totals_schema import prunings, total_watermarks
from promptab.stores.watch_schema import guards

EVENTS_PER_STEP = 50_000
"""The events that one transaction looks at: a part of a second, so that writers come in between."""

DROPPED = "dropped"
NOT_ADDED = "not added up yet"
SINGLE = "of an experiment with a quantile or a shadow, which needs every event"
UNEXPOSED = "of a unit that was not exposed to its experiment before then"
NEWEST = "the newest event, which carries the numbering"


class PruneStep(NamedTuple):
    """What became of one stretch of events that happened before a moment."""

    upto: int
    """The last event that was looked at."""
    is_last: bool
    dropped: int
    kept: Counter[str]
    """Why -> events."""


class RetentionQueries:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def pruned_before(self, experiment_id: str | None = None) -> datetime | None:
        """Return the moment before which events (of an experiment) may have been dropped; None where none has."""
        query = select(func.max(prunings.c.before))
        if experiment_id is not None:
            query = select(rollups.c.pruned_before).where(rollups.c.experiment_id == experiment_id)
        found: datetime | None = (await self._connection.execute(query)).scalar_one_or_none()
        return found

    async def dropped(self) -> int:
        """Return how many events have been dropped so far."""
        query = select(func.coalesce(func.sum(prunings.c.dropped), 0))
        return int((await self._connection.execute(query)).scalar_one())

    async def begin(self, before: datetime, *, at: datetime) -> int:
        """Note that events are being dropped, before the first one is; return the number of this pruning."""
        noted = insert(prunings).values(at=at, before=before, dropped=0).returning(prunings.c.number)
        return int((await self._connection.execute(noted)).scalar_one())

    async def look(self, before: datetime, *, after: int, needing: Collection[str]) -> PruneStep:
        """Return what `prune` would do with the next stretch of events, behind this sequence. Changes nothing.

        `needing` are the experiments that need every event.
        """
        upto, is_last = await self._stretch(after)
        within = (*_within(after, upto), events.c.at < before)
        fate = _fate(before, needing).label("fate")
        found = select(fate).where(*within).subquery()
        query = select(found.c.fate, func.count().label("events")).group_by(found.c.fate)
        counts = {row.fate: int(row.events) for row in (await self._connection.execute(query)).all()}
        return PruneStep(upto, is_last, counts.pop(DROPPED, 0), Counter(counts))

    async def prune(
        self, number: int, before: datetime, *, after: int, needing: Collection[str]
    ) -> PruneStep:
        """Drop the events of the next stretch that are in all totals they count in, and note what is incomplete now."""
        # first, so that no roll-up is begun anew while what it would need is dropped
        await self._connection.execute(select(rollups.c.experiment_id).with_for_update())
        step = await self.look(before, after=after, needing=needing)
        if step.dropped:
            gone = (
                *_within(after, step.upto),
                events.c.at < before,
                _fate(before, needing) == DROPPED,
            )
            await self._mark(before, gone)
            await self._connection.execute(delete(events).where(*gone))
            await self._connection.execute(
                update(prunings)
                .where(prunings.c.number == number)
                .values(dropped=prunings.c.dropped + step.dropped)
            )
        return step

    async def _mark(self, before: datetime, gone: tuple[ColumnElement[bool], ...]) -> None:
        touched = select(events.c.experiment_id).where(*gone, events.c.experiment_id.is_not(None)).distinct()
        experiment_ids = (await self._connection.execute(touched)).scalars().all()
        earlier = or_(rollups.c.pruned_before.is_(None), rollups.c.pruned_before < before)
        await self._connection.execute(
            update(rollups)
            .where(rollups.c.experiment_id.in_(experiment_ids), earlier)
            .values(pruned_before=before)
        )

    async def _stretch(self, after: int) -> tuple[int, bool]:
        behind = (
            select(events.c.sequence)
            .where(events.c.sequence > after)
            .order_by(events.c.sequence)
            .offset(EVENTS_PER_STEP - 1)
            .limit(1)
        )
        upto = (await self._connection.execute(behind)).scalar_one_or_none()
        if upto is not None:
            return int(upto), False
        newest = (await self._connection.execute(select(func.max(events.c.sequence)))).scalar_one()
        return max(after, newest or 0), True


def _within(after: int, upto: int) -> tuple[ColumnElement[bool], ...]:
    return events.c.sequence > after, events.c.sequence <= upto


def _fate(before: datetime, needing: Collection[str]) -> ColumnElement[Any]:
    """Return `DROPPED`, or why an event is kept: it must be in every total that it counts in."""
    # numbers of events may be given again when the newest is gone, and watermarks would be ahead of them
    newest = select(func.max(events.c.sequence)).correlate(None).scalar_subquery()
    in_experiment = and_(
        events.c.experiment_id.is_not(None),
        events.c.unit.is_not(None),
        exists().where(experiments.c.experiment_id == events.c.experiment_id),
    )
    rolled_up = exists().where(
        rollups.c.experiment_id == events.c.experiment_id, rollups.c.watermark >= events.c.sequence
    )
    # what a guard has still to weigh, or to draw its lines by
    awaited = exists().where(
        guards.c.status == "watching",
        or_(
            and_(guards.c.version_id == events.c.version_id, guards.c.watermark < events.c.sequence),
            and_(guards.c.previous_version_id == events.c.version_id, guards.c.bounds.is_(None)),
        ),
    )
    added = and_(
        ~awaited,
        or_(events.c.version_id.is_(None), events.c.sequence <= _watermark("versions")),
        or_(events.c.unit.is_(None), events.c.sequence <= _watermark("units")),
        or_(~in_experiment, rolled_up),
    )
    unit = func.coalesce(
        select(aliases.c.unit).where(aliases.c.alias == events.c.unit).scalar_subquery(), events.c.unit
    )
    exposed = exists().where(
        exposures.c.experiment_id == events.c.experiment_id,
        exposures.c.unit == unit,
        exposures.c.at < before,
    )
    return case(
        (events.c.sequence == newest, NEWEST),
        (~added, NOT_ADDED),
        (and_(in_experiment, events.c.experiment_id.in_(sorted(needing))), SINGLE),
        (and_(events.c.kind == "shadow", of_shadow("experiment_id").in_(sorted(needing))), SINGLE),
        (and_(in_experiment, ~exposed), UNEXPOSED),
        else_=DROPPED,
    )


def _watermark(kind: str) -> ColumnElement[Any]:
    query = select(total_watermarks.c.watermark).where(total_watermarks.c.kind == kind)
    return query.correlate(None).scalar_subquery()
