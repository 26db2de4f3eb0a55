"""Deliveries of alerts to channels: which are due, who is at them, and what became of them.

One process at a time is at a delivery: it claims it until its lease ends. Whoever was killed meanwhile has left it
pending, and after the lease another one takes it up, so that it arrives once at least, and now and then twice. Leases
end by the database's clock, whatever those of the callers say; by theirs it is when a delivery is tried again.
"""

from __future__ import annotations

import json
import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    and_,
    delete,
    exists,
    insert,
    literal,
    or_,
    select,
    type_coerce,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from promptab.alerts.channel import Wanted
from promptab.alerts.delivery import Claimed, DeliveryStatus
from promptab.stores.alert_schema import alert_channels, alert_deliveries, alerts
from promptab.stores.queries.alerts import alert_of_row
from promptab.stores.queries.database_clock import database_now


class AlertDeliveryQueries:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def open_channel(self, name: str, wanted: Wanted, *, since: datetime) -> None:
        """Make the channel known, and what it wants; unless it was known, alerts from `since` on are sent to it."""
        told = wanted_text(wanted)
        again = update(alert_channels).where(alert_channels.c.name == name).values(wanted=told)
        if (await self._connection.execute(again)).rowcount:
            return
        try:
            async with self._connection.begin_nested():
                await self._connection.execute(
                    insert(alert_channels).values(name=name, since=since, wanted=told)
                )
        except IntegrityError:
            # another process has just done so, and tells the same
            return

    async def forget_channel(self, name: str) -> int | None:
        """Drop the channel, and the deliveries to it that are still to be made; return how many those were.

        None where there is no such channel. Deliveries that were made or given up stay.
        """
        gone = delete(alert_channels).where(alert_channels.c.name == name)
        if not (await self._connection.execute(gone)).rowcount:
            return None
        pending = (alert_deliveries.c.channel == name, alert_deliveries.c.status == "pending")
        return int((await self._connection.execute(delete(alert_deliveries).where(*pending))).rowcount)

    async def is_due(self, channel: str, wanted: Wanted, *, now: datetime) -> bool:
        """Return whether there is anything to do for the channel: to make it and its wants known, to begin, to try."""
        known = exists().where(
            alert_channels.c.name == channel, alert_channels.c.wanted == wanted_text(wanted)
        )
        begun = exists().where(*_not_begun(channel, wanted))
        due = exists().where(alert_deliveries.c.channel == channel, self._due(now))
        return bool((await self._connection.execute(select(or_(~known, begun, due)))).scalar_one())

    async def enqueue(self, channel: str, wanted: Wanted, *, now: datetime) -> None:
        """Begin a delivery to the channel of every alert that it wants, and that has none yet."""
        missing = select(
            alerts.c.alert_id,
            literal(channel),
            literal("pending"),
            literal(0),
            literal(now, alert_deliveries.c.due_at.type),
            literal(now, alert_deliveries.c.changed_at.type),
        ).where(*_not_begun(channel, wanted))
        columns = ("alert_id", "channel", "status", "attempts", "due_at", "changed_at")
        try:
            async with self._connection.begin_nested():
                await self._connection.execute(insert(alert_deliveries).from_select(columns, missing))
        except IntegrityError:
            # another process has just begun the same ones
            return

    async def claim(self, channel: str, *, now: datetime, seconds: float, limit: int) -> list[Claimed]:
        """Take up to `limit` deliveries that are due, the longest due first, for so many seconds from now."""
        due = (
            select(alerts, alert_deliveries.c.attempts)
            .join(alert_deliveries, alert_deliveries.c.alert_id == alerts.c.alert_id)
            .where(alert_deliveries.c.channel == channel, self._due(now))
            .order_by(alert_deliveries.c.due_at, alerts.c.sequence)
            .limit(limit)
        )
        until = database_now(self._connection.dialect) + round(seconds * 1e6)
        claimed = []
        for row in (await self._connection.execute(due)).mappings().all():
            claim = str(uuid.uuid4())
            taken = (
                update(alert_deliveries)
                .where(*_key(row["alert_id"], channel), self._due(now))
                .values(claim=claim, attempts=row["attempts"] + 1, due_at=until, changed_at=now)
            )
            if (await self._connection.execute(taken)).rowcount:
                claimed.append(Claimed(alert_of_row(row), row["attempts"] + 1, claim))
        return claimed

    async def settle(
        self,
        channel: str,
        claimed: Claimed,
        status: DeliveryStatus,
        *,
        now: datetime,
        due_at: datetime | None = None,
        error: str | None = None,
    ) -> bool:
        """Say what became of an attempt; `due_at` is when a pending one is tried again.

        Return False, and change nothing, where the lease has ended and somebody else is at it.
        """
        values = {"status": status, "claim": None, "due_at": due_at or now, "changed_at": now, "error": error}
        said = (
            update(alert_deliveries)
            .where(*_key(claimed.alert.alert_id, channel), alert_deliveries.c.claim == claimed.claim)
            .values(**values)
        )
        return bool((await self._connection.execute(said)).rowcount)

    async def revive(self, alert_id: str, channel: str | None, *, now: datetime) -> list[str]:
        """Make dead deliveries of the alert (to this channel, or to all) due anew; return their channels."""
        dead = and_(alert_deliveries.c.alert_id == alert_id, alert_deliveries.c.status == "dead")
        chosen = dead if channel is None else and_(dead, alert_deliveries.c.channel == channel)
        revived = (
            update(alert_deliveries)
            .where(chosen)
            .values(status="pending", attempts=0, due_at=now, changed_at=now)
            .returning(alert_deliveries.c.channel)
        )
        return sorted((await self._connection.execute(revived)).scalars())

    def _due(self, now: datetime) -> ColumnElement[bool]:
        # of one that is being tried, due_at is where its lease ends
        free = and_(alert_deliveries.c.claim.is_(None), alert_deliveries.c.due_at <= now)
        ended = type_coerce(alert_deliveries.c.due_at, BigInteger) <= database_now(self._connection.dialect)
        left = and_(alert_deliveries.c.claim.is_not(None), ended)
        return and_(alert_deliveries.c.status == "pending", or_(free, left))


def wanted_text(wanted: Wanted) -> str:
    """Return what a channel wants in the words in which the store keeps it."""
    return json.dumps({"kinds": sorted(wanted.kinds), "severities": sorted(wanted.severities)})


def _not_begun(channel: str, wanted: Wanted) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions under which an alert is to be sent to the channel, and nothing of that has begun."""
    since = select(alert_channels.c.since).where(alert_channels.c.name == channel).scalar_subquery()
    begun = exists().where(
        alert_deliveries.c.alert_id == alerts.c.alert_id, alert_deliveries.c.channel == channel
    )
    return (
        alerts.c.at >= since,
        alerts.c.kind.in_(wanted.kinds),
        alerts.c.severity.in_(wanted.severities),
        ~begun,
    )


def _key(alert_id: str, channel: str) -> tuple[Any, Any]:
    return alert_deliveries.c.alert_id == alert_id, alert_deliveries.c.channel == channel
