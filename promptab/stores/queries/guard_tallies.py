"""What the outcomes of a guarded version add up to: each event is added once, and never looked at again."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    CTE,
    ColumnElement,
    Float,
    FromClause,
    Row,
    Select,
    String,
    and_,
    case,
    cast,
    delete,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from promptab.decisions.guard import FEW_UNITS, GuardBound, GuardTally, PastEvent, Weighed
from promptab.stats.metric import MetricDefinition
from promptab.stats.summary import UnitSums
from promptab.stores.queries.exposures import any_alias
from promptab.stores.queries.unit_facts import Series
from promptab.stores.queries.unit_totals import adding, carrying, stretch_after
from promptab.stores.schema import aliases, events
from promptab.stores.totals_schema import version_hours
from promptab.stores.watch_schema import guard_units, guards

RECENT_EVENTS = 20_000
"""At least so many of the version before are its recent record, where there are as many; whole hours of them."""
RECENT_DAYS = 28
"""What happened longer before the promotion than this is no recent record."""


CLOCKS_DIFFER = timedelta(days=1)
"""At most, between who promoted and who said that a session is a user."""

_FOLLOWED = events.outerjoin(aliases, aliases.c.alias == events.c.unit)
"""Events, and the users that the sessions among their units have become."""


class _Place(NamedTuple):
    """One bound of one guard."""

    guard_id: str
    bound: int
    """Its place among the guard's."""
    center: float

    @property
    def rows(self) -> tuple[ColumnElement[bool], ...]:
        return guard_units.c.guard_id == self.guard_id, guard_units.c.bound == self.bound


class GuardTallyQueries:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def past(
        self, version_id: str, definition: MetricDefinition, *, before: datetime
    ) -> list[PastEvent]:
        """Return the latest events of a version that carried the metric, before that moment.

        Where they are is found by the totals of the version's hours, which have to be up to date. Events that have
        been pruned are not among them.
        """
        stretch = await self._recent(version_id, before)
        if stretch is None:
            return []
        source, n, s = _measured(definition, None, _FOLLOWED, self._connection)
        query = (
            select(_unit().label("unit"), n.label("n"), s.label("s"))
            .select_from(source)
            .where(
                events.c.sequence >= stretch[0],
                events.c.sequence <= stretch[1],
                events.c.version_id == version_id,
                events.c.at < before,
                _carried(n, s),
            )
            .order_by(events.c.sequence)
        )
        numbers: dict[str, int] = {}
        return [
            PastEvent(numbers.setdefault(row.unit, len(numbers)), float(row.n or 0.0), float(row.s or 0.0))
            for row in (await self._connection.execute(query)).all()
        ]

    async def fold(self, guard_id: str, weighed: Sequence[Weighed]) -> bool | None:
        """Take one bounded step inside a write that is not shown; return whether there is more to fold, or None where
        somebody else is folding just now, and nothing was done.
        """
        query = select(guards).where(guards.c.guard_id == guard_id, guards.c.status == "watching")
        guard = (await self._connection.execute(query.with_for_update(skip_locked=True))).one_or_none()
        if guard is None:
            present = select(guards.c.status).where(guards.c.guard_id == guard_id)
            status = (await self._connection.execute(present)).scalar_one_or_none()
            return None if status == "watching" else False
        stretch = await stretch_after(self._connection, guard.watermark)
        before = guard.sums
        if stretch.is_last and await any_alias(self._connection):
            before = await self._join_sessions(guard, weighed)
        if stretch.upto > guard.watermark or before != guard.sums:
            within = [
                events.c.sequence > guard.watermark,
                events.c.sequence <= stretch.upto,
                events.c.version_id == guard.version_id,
                events.c.at >= guard.since,
            ]
            counted = select(func.count()).select_from(events).where(*within)
            more = (await self._connection.execute(counted)).scalar_one()
            sums = [
                await self._added(guard_id, place, each, tally_of(before[place]), within)
                for place, each in enumerate(weighed)
            ]
            sums = [tally.model_copy(update={"events": tally.events + more}) for tally in sums]
            await self._connection.execute(
                update(guards)
                .where(guards.c.guard_id == guard_id)
                .values(watermark=stretch.upto, sums=[tally.model_dump(mode="json") for tally in sums])
            )
        return not stretch.is_last

    async def _added(
        self,
        guard_id: str,
        place: int,
        weighed: Weighed,
        before: GuardTally,
        within: Sequence[ColumnElement[bool]],
    ) -> GuardTally:
        """Add the events to the units that they are of; return the sums over units as they are then."""
        if weighed.bound.bound is None:
            return before
        place_of = _Place(guard_id, place, weighed.bound.bound)
        return await self._put(place_of, self._fresh(weighed, within), before)

    async def _put(self, place: _Place, rows: Select[Any], before: GuardTally) -> GuardTally:
        """Add rows (unit, n, s, first_sequence) to what is kept of their units."""
        fresh = rows.cte("fresh")
        row = (await self._connection.execute(_growth(fresh, place))).one()
        added = select(
            literal(place.guard_id).label("guard_id"), literal(place.bound).label("bound"), *fresh.c
        ).where(literal(value=True))
        await self._connection.execute(
            adding(self._connection.dialect, guard_units, added, smallest=("first_sequence",))
        )
        sums = _sums(row, place.center)
        if before.sums.units:
            sums = UnitSums(*map(operator.add, before.sums, sums))._replace(center=place.center)
        alone = before.single_events + int(row.alone or 0)
        return before.model_copy(update={"sums": sums, "single_events": alone})

    async def _join_sessions(self, guard: Row[Any], weighed: Sequence[Weighed]) -> list[Any]:
        """Give what was added under the name of a session to the user that it has turned out to be since: they are one
        unit, of which the events add up. Return the tallies as they are then.
        """
        tallies = []
        for place, (each, document) in enumerate(zip(weighed, guard.sums, strict=True)):
            tally = tally_of(document)
            if each.bound.bound is not None and tally.sums.units:
                tally = await self._joined(
                    _Place(guard.guard_id, place, each.bound.bound), tally, guard.since
                )
            tallies.append(tally.model_dump(mode="json"))
        return tallies

    async def _joined(self, place: _Place, before: GuardTally, since: datetime) -> GuardTally:
        """Move the rows of sessions to their users' in one bound."""
        named = literal("u", String)
        # what was said long before is followed as the events are added
        recent = aliases.c.at >= since - CLOCKS_DIFFER
        sessions = (
            select(*guard_units.c, named.concat(aliases.c.unit).label("user"))
            .join(aliases, guard_units.c.unit == named.concat(aliases.c.alias))
            .where(*place.rows, recent)
            .cte("sessions")
        )
        r = sessions.c.s - place.center * sessions.c.n
        added_up = select(
            func.count().label("units"),
            func.sum(sessions.c.n).label("n"),
            func.sum(sessions.c.s).label("s"),
            func.sum(r * r).label("rr"),
            func.sum(sessions.c.n * sessions.c.n).label("nn"),
            func.sum(r * sessions.c.n).label("rn"),
        ).select_from(sessions)
        row = (await self._connection.execute(added_up)).one()
        if not row.units:
            return before
        left = UnitSums(*map(operator.sub, before.sums, _sums(row, place.center)))
        users = select(
            sessions.c.user.label("unit"),
            func.sum(sessions.c.n).label("n"),
            func.sum(sessions.c.s).label("s"),
            func.min(sessions.c.first_sequence).label("first_sequence"),
        ).group_by(sessions.c.user)
        kept = before.model_copy(update={"sums": left._replace(center=place.center)})
        joined = await self._put(place, users, kept)
        gone = guard_units.c.unit.in_(select(named.concat(aliases.c.alias)).where(recent))
        await self._connection.execute(delete(guard_units).where(*place.rows, gone))
        return joined

    def _fresh(self, weighed: Weighed, within: Sequence[ColumnElement[bool]]) -> Select[Any]:
        """Return what the events add up to by unit."""
        source, n, s = _measured(weighed.definition, weighed.bound, _FOLLOWED, self._connection)
        unit = _unit()
        return (
            select(
                unit.label("unit"),
                func.coalesce(func.sum(n), 0.0).label("n"),
                func.coalesce(func.sum(s), 0.0).label("s"),
                func.min(events.c.sequence).label("first_sequence"),
            )
            .select_from(source)
            .where(*within, _carried(n, s))
            .group_by(unit)
        )

    async def _recent(self, version_id: str, before: datetime) -> tuple[int, int] | None:
        """Return the first and the last sequence of the hours that make up the recent record."""
        query = (
            select(version_hours.c.events, version_hours.c.first_sequence, version_hours.c.last_sequence)
            .where(
                version_hours.c.version_id == version_id,
                version_hours.c.hour < before,
                version_hours.c.hour >= before - timedelta(days=RECENT_DAYS),
            )
            .order_by(version_hours.c.hour.desc())
        )
        counted, first, last = 0, None, 0
        for row in (await self._connection.execute(query)).all():
            counted, last = counted + row.events, max(last, row.last_sequence)
            first = row.first_sequence if first is None else min(first, row.first_sequence)
            if counted >= RECENT_EVENTS:
                break
        return None if first is None else (first, last)


async def with_few_units(
    connection: AsyncConnection, guard_id: str, place: int, tally: GuardTally, *, is_rate: bool
) -> GuardTally:
    """Return the tally with its single units in the order of their arrival, where these are few: of each its score
    where they have one each, and else, of a rate, its (n, s).
    """
    sums = tally.sums
    single = sums.units == sums.n == sums.nn
    if sums.units > FEW_UNITS or not (single or is_rate):
        return tally
    query = (
        select(guard_units.c.n, guard_units.c.s)
        .where(guard_units.c.guard_id == guard_id, guard_units.c.bound == place)
        .order_by(guard_units.c.first_sequence)
    )
    units = [(float(row.n), float(row.s)) for row in await connection.execute(query)]
    if single:
        return tally.model_copy(update={"scores": tuple(s for _, s in units)})
    return tally.model_copy(update={"units": tuple(units)})


def tally_of(document: Any) -> GuardTally:
    """Read a tally as `promptab_guards` has it."""
    return GuardTally.model_validate({**document, "sums": UnitSums(*document["sums"])})


def _unit() -> ColumnElement[Any]:
    """Return whose an event of `_FOLLOWED` is: its unit's, or its own where it names none."""
    named = literal("u", String).concat(func.coalesce(aliases.c.unit, events.c.unit))
    alone = literal("e", String).concat(cast(events.c.sequence, String))
    return case((events.c.unit.is_not(None), named), else_=alone)


def _measured(
    definition: MetricDefinition, bound: GuardBound | None, source: FromClause, connection: AsyncConnection
) -> tuple[FromClause, ColumnElement[Any], ColumnElement[Any]]:
    """Return events joined to what they carried of a metric, and what each adds to its unit's n and s."""
    dialect = connection.dialect
    source, value = carrying(source, Series(definition.source), dialect)
    one = case((value.is_not(None), 1.0))
    if definition.denominator is not None:
        source, divisor = carrying(source, Series(definition.denominator), dialect)
        return source, divisor, value
    if bound is None or bound.threshold is None:
        return source, one, value
    beyond = value > bound.threshold if bound.beyond == "greater" else value < bound.threshold
    return source, one, case((and_(value.is_not(None), beyond), 1.0), (value.is_not(None), 0.0))


def _sums(row: Row[Any], center: float) -> UnitSums:
    grown = {name: float(getattr(row, name) or 0.0) for name in ("n", "s", "rr", "nn", "rn")}
    return UnitSums(units=int(row.units), center=center, **grown)


def _carried(n: ColumnElement[Any], s: ColumnElement[Any]) -> ColumnElement[bool]:
    return (func.coalesce(n, 0.0) != 0.0) | (func.coalesce(s, 0.0) != 0.0)


def _growth(fresh: CTE, place: _Place) -> Any:
    """Return by how much the sums over units grow when these are added to what is kept of them."""
    center = place.center
    kept = and_(*place.rows, guard_units.c.unit == fresh.c.unit)
    old_n, old_s = (func.coalesce(guard_units.c[name], cast(0.0, Float)) for name in ("n", "s"))
    n, old_r = old_n + fresh.c.n, old_s - center * old_n
    r = old_s + fresh.c.s - center * n
    is_new = guard_units.c.unit.is_(None)
    return select(
        func.count().filter(is_new).label("units"),
        func.sum(fresh.c.n).label("n"),
        func.sum(fresh.c.s).label("s"),
        func.sum(r * r - old_r * old_r).label("rr"),
        func.sum(n * n - old_n * old_n).label("nn"),
        func.sum(r * n - old_r * old_n).label("rn"),
        func.count().filter(and_(is_new, fresh.c.unit.startswith("e"))).label("alone"),
    ).select_from(fresh.outerjoin(guard_units, kept))
