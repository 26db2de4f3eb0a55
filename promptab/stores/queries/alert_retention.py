"""Dropping alerts that nobody waits for any more: which of them, and why the others stay."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, case, delete, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from promptab.stores.alert_schema import alert_channels, alert_deliveries, alerts

ALERTS_PER_STEP = 2_000
"""The alerts that one transaction drops, so that writers come in between."""

DROPPED = "dropped"
DEAD = "given up on their way"
PENDING = "still to be delivered"


class AlertRetentionQueries:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def look(self, before: datetime, *, dead: bool) -> tuple[int, Counter[str]]:
        """Return how many of the alerts told before a moment are to be dropped, and why others are kept -> how many.

        `dead`: those that were given up on their way are dropped as well. Changes nothing.
        """
        fate = (await self._fate(dead=dead)).label("fate")
        found = select(fate).where(alerts.c.at < before).subquery()
        query = select(found.c.fate, func.count().label("alerts")).group_by(found.c.fate)
        counts = Counter({row.fate: int(row.alerts) for row in (await self._connection.execute(query)).all()})
        return counts.pop(DROPPED, 0), counts

    async def prune(self, before: datetime, *, dead: bool) -> int:
        """Drop some of the alerts that `look` would, with what became of them; return how many, 0 at the end."""
        chosen = (
            select(alerts.c.alert_id)
            .where(alerts.c.at < before, await self._fate(dead=dead) == DROPPED)
            .limit(ALERTS_PER_STEP)
            # from here on no delivery of them is begun
            .with_for_update()
        )
        ids = set((await self._connection.execute(chosen)).scalars())
        ids -= await self._wanted_meanwhile(ids, dead=dead)
        if ids:
            await self._connection.execute(delete(alerts).where(alerts.c.alert_id.in_(ids)))
        return len(ids)

    async def _wanted_meanwhile(self, ids: set[str], *, dead: bool) -> set[str]:
        """Return those of which a delivery was begun, or begun anew, since they were chosen."""
        open_ways = ("pending",) if dead else ("pending", "dead")
        query = (
            select(alert_deliveries.c.alert_id, alert_deliveries.c.status)
            .where(alert_deliveries.c.alert_id.in_(ids))
            .with_for_update()
        )
        rows = (await self._connection.execute(query)).all()
        return {row.alert_id for row in rows if row.status in open_ways}

    async def _fate(self, *, dead: bool) -> ColumnElement[Any]:
        channels = (await self._connection.execute(select(alert_channels).order_by("name"))).all()
        given_up = [] if dead else [(_sent("dead"), DEAD)]
        waiting = [(_awaited_by(channel), f"{PENDING} to {channel.name}") for channel in channels]
        return case(*waiting, (_sent("pending"), PENDING), *given_up, else_=DROPPED)


def _awaited_by(channel: Row[Any]) -> ColumnElement[bool]:
    """Return whether the channel has still to be sent an alert: it is on its way, or nobody has begun to."""
    begun = exists().where(
        alert_deliveries.c.alert_id == alerts.c.alert_id, alert_deliveries.c.channel == channel.name
    )
    return or_(_sent("pending", channel.name), and_(alerts.c.at >= channel.since, *_wanted(channel), ~begun))


def _wanted(channel: Row[Any]) -> Sequence[ColumnElement[bool]]:
    if channel.wanted is None:
        # known from before its wants were kept: it may be any
        return ()
    wanted = json.loads(channel.wanted)
    return alerts.c.kind.in_(wanted["kinds"]), alerts.c.severity.in_(wanted["severities"])


def _sent(status: str, channel: str | None = None) -> ColumnElement[bool]:
    """Return whether there is a delivery (to the channel) with this status."""
    found = exists().where(
        alert_deliveries.c.alert_id == alerts.c.alert_id, alert_deliveries.c.status == status
    )
    return found if channel is None else found.where(alert_deliveries.c.channel == channel)
