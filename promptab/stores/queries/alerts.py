"""Alerts: the outbox, and what is known to hold."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Table, exists, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from promptab.alerts.alert import Alert
from promptab.alerts.delivery import Delivery, DeliveryStatus, ToldAlert
from promptab.alerts.traffic import Pulse, Source
from promptab.stores.alert_schema import alert_deliveries, alert_facts, alert_pulses, alerts

_MICROSECOND = timedelta(microseconds=1)


class AlertQueries:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def put(self, alert: Alert) -> bool:
        """Put it into the outbox, unless one with its id is there; return whether it was put."""
        present = select(alerts.c.sequence).where(alerts.c.alert_id == alert.alert_id)
        if (await self._connection.execute(present)).first() is not None:
            return False
        return await self._inserted(alerts, {**alert.model_dump(), "numbers": dict(alert.numbers)})

    async def settle(
        self, subject: str, *, holding: Collection[str], lingering: Collection[str], at: datetime
    ) -> Mapping[str, int]:
        """Note what holds of the subject now; return the facts that begin with it -> how often they have begun.

        One that holds begins unless it held before; one that lingers goes on as it was; every other has ended.
        """
        query = select(alert_facts).where(alert_facts.c.subject == subject)
        known = {row.fact: row for row in (await self._connection.execute(query)).all()}
        begun = {}
        for fact in holding:
            if fact not in known:
                values = {"subject": subject, "fact": fact, "episode": 1, "holds": True, "changed_at": at}
                if await self._inserted(alert_facts, values):
                    begun[fact] = 1
            elif not known[fact].holds:
                begun[fact] = known[fact].episode + 1
                await self._change(subject, fact, holds=True, episode=begun[fact], changed_at=at)
        for fact, row in known.items():
            if row.holds and fact not in holding and fact not in lingering:
                await self._change(subject, fact, holds=False, changed_at=at)
        return begun

    async def pulse(self, subject: str, source: Source) -> Pulse | None:
        """Return how the count has moved up to the last look; None before the first."""
        query = select(alert_pulses).where(*_pulse_key(subject, source))
        row = (await self._connection.execute(query)).one_or_none()
        if row is None:
            return None
        return Pulse(row.mark, row.moved_at, row.seen_at, row.moves, row.longest * _MICROSECOND)

    async def keep_pulse(self, subject: str, source: Source, pulse: Pulse) -> None:
        values = {**pulse._asdict(), "longest": pulse.longest // _MICROSECOND}
        key = _pulse_key(subject, source)
        if not (await self._connection.execute(update(alert_pulses).where(*key).values(**values))).rowcount:
            await self._inserted(alert_pulses, {"subject": subject, "source": source, **values})

    async def listing(
        self,
        *,
        about: str | None = None,
        status: DeliveryStatus | None = None,
        limit: int | None = None,
    ) -> list[ToldAlert]:
        """Return alerts with their deliveries, the newest first: those whose subject has this id or name, and with
        `status` those with such a delivery.
        """
        query = select(alerts).order_by(alerts.c.sequence.desc()).limit(limit)
        if about is not None:
            query = query.where(_about(about))
        if status is not None:
            such = exists().where(
                alert_deliveries.c.alert_id == alerts.c.alert_id, alert_deliveries.c.status == status
            )
            query = query.where(such)
        rows = (await self._connection.execute(query)).mappings().all()
        return await self._told(rows)

    async def is_known(self, about: str) -> bool:
        """Return whether there is an alert whose subject has this id or name."""
        query = select(exists().where(_about(about)))
        return bool((await self._connection.execute(query)).scalar_one())

    async def get(self, alert_id: str) -> ToldAlert | None:
        query = select(alerts).where(alerts.c.alert_id == alert_id)
        rows = (await self._connection.execute(query)).mappings().all()
        return next(iter(await self._told(rows)), None)

    async def _told(self, rows: Sequence[RowMapping]) -> list[ToldAlert]:
        ids = [row["alert_id"] for row in rows]
        query = (
            select(alert_deliveries)
            .where(alert_deliveries.c.alert_id.in_(ids))
            .order_by(alert_deliveries.c.channel)
        )
        sent: dict[str, list[Delivery]] = {alert_id: [] for alert_id in ids}
        for row in (await self._connection.execute(query)).mappings().all():
            fields = {name: row[name] for name in Delivery.model_fields}
            sent[row["alert_id"]].append(Delivery(**fields))
        return [ToldAlert(alert=alert_of_row(row), deliveries=tuple(sent[row["alert_id"]])) for row in rows]

    async def _inserted(self, table: Table, values: Mapping[str, Any]) -> bool:
        """Insert the row, and return whether nobody else had just done so."""
        try:
            async with self._connection.begin_nested():
                await self._connection.execute(insert(table).values(**values))
        except IntegrityError:
            return False
        return True

    async def _change(self, subject: str, fact: str, **values: Any) -> None:
        key = (alert_facts.c.subject == subject, alert_facts.c.fact == fact)
        await self._connection.execute(update(alert_facts).where(*key).values(**values))


def alert_of_row(row: RowMapping) -> Alert:
    return Alert(**{name: row[name] for name in Alert.model_fields})


def _about(about: str) -> ColumnElement[bool]:
    return or_(alerts.c.subject == about, alerts.c.name == about)


def _pulse_key(subject: str, source: Source) -> tuple[Any, Any]:
    return alert_pulses.c.subject == subject, alert_pulses.c.source == source
