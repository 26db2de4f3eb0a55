"""The coroutines of `AlertOutbox`."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

from sqlalchemy import delete

from promptab.alerts.alert import Alert
from promptab.alerts.channel import EVERYTHING
from promptab.delivering.outbox import AlertOutbox
from promptab.stores.alert_schema import alert_channels
from promptab.stores.base import Transaction
from tests.cancelled.attempts import Attempt, Preparation, Stage, reads
from tests.clock import SettableClock
from tests.contract.test_alerts import an_alert, end_leases, put


class Telling:
    """An alert of this attempt alone, and a channel that hears it."""

    def __init__(self, stage: Stage) -> None:
        self.heard: set[str] = set()
        self.name = stage.name
        self.clock = SettableClock()
        # later than what earlier attempts have put there, which is not this one's to send
        self.clock.advance(days=float(stage.name.removeprefix("p")))
        self.store = stage.lab.store
        self.alert = an_alert(alert_id=f"alert_{stage.name}", at=self.clock.now)
        self.outbox = AlertOutbox(stage.lab.store, clock=self.clock)
        stage.lab.alerts = self.outbox

    async def begin(self) -> Telling:
        def hear(alert: Alert) -> None:
            self.heard.add(alert.alert_id)

        self.outbox.on_alert(hear, name=self.name)
        since = self.alert.at
        await self.store.write(
            lambda tx: tx.alert_deliveries.open_channel(self.name, EVERYTHING, since=since), shown=False
        )
        await put(self.store, self.alert)
        return self

    async def ways(self) -> list[str]:
        found = await self.store.read(lambda tx: tx.alerts.get(self.alert.alert_id))
        assert found is not None
        return [way.status for way in found.deliveries if way.channel == self.name]

    def delivered_by(self, deliver: Any) -> Attempt:
        async def call() -> None:
            # what was cut short is tried again when its lease has ended
            await end_leases(self.store)
            await deliver()

        async def look() -> object:
            return await self.ways(), self.alert.alert_id in self.heard

        return Attempt(
            call,
            look,
            none=([], False),
            whole=(["delivered"], True),
            between=[(["pending"], False), (["pending"], True)],
        )


async def listing(stage: Stage) -> Attempt:
    telling = await Telling(stage).begin()
    return reads(
        lambda: telling.outbox.list_alerts(limit=1),
        [telling.alert],
        lambda found: [told.alert for told in found],
    )


async def delivering(stage: Stage) -> Attempt:
    telling = await Telling(stage).begin()
    return telling.delivered_by(telling.outbox.deliver)


async def delivering_by_the_lab(stage: Stage) -> Attempt:
    telling = await Telling(stage).begin()
    return telling.delivered_by(stage.lab.deliver_alerts)


async def going_on_delivering(stage: Stage) -> Attempt:
    telling = await Telling(stage).begin()

    async def until_delivered() -> None:
        task = asyncio.ensure_future(telling.outbox.keep_delivering(0.001))
        try:
            while await telling.ways() != ["delivered"]:  # noqa: ASYNC110 - the store is asked, which tells nobody
                await asyncio.sleep(0)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    return telling.delivered_by(until_delivered)


async def reviving(stage: Stage) -> Attempt:
    telling = await Telling(stage).begin()
    now = telling.clock.now

    def write(work: Any) -> Coroutine[Any, Any, Any]:
        return telling.store.write(work, shown=False)

    await write(lambda tx: tx.alert_deliveries.enqueue(stage.name, EVERYTHING, now=now))
    (claimed,) = await write(lambda tx: tx.alert_deliveries.claim(stage.name, now=now, seconds=60.0, limit=1))
    await write(lambda tx: tx.alert_deliveries.settle(stage.name, claimed, "dead", now=now))
    return Attempt(
        lambda: telling.outbox.retry(telling.alert.alert_id),
        telling.ways,
        none=["dead"],
        whole=["pending"],
    )


async def forgetting(stage: Stage) -> Attempt:
    telling = await Telling(stage).begin()
    now = telling.clock.now
    await telling.store.write(
        lambda tx: tx.alert_deliveries.enqueue(stage.name, EVERYTHING, now=now), shown=False
    )
    return Attempt(
        lambda: telling.outbox.forget(telling.name),
        telling.ways,
        none=["pending"],
        whole=[],
    )


async def pruning(stage: Stage) -> Attempt:
    telling = await Telling(stage).begin()
    await telling.outbox.deliver()

    async def forget_all(tx: Transaction) -> None:
        # those of other attempts are still to be sent this one's
        await tx.alert_deliveries._connection.execute(delete(alert_channels))

    await telling.store.write(forget_all, shown=False)
    before = telling.clock.now + timedelta(microseconds=1)
    telling.clock.advance(days=2, seconds=1)

    async def look() -> object:
        return await telling.store.read(lambda tx: tx.alerts.get(telling.alert.alert_id)) is not None

    return Attempt(lambda: telling.outbox.prune(before), look, none=True, whole=False)


PREPARATIONS: dict[str, Preparation] = {
    "deliver": delivering,
    "forget": forgetting,
    "keep_delivering": going_on_delivering,
    "list_alerts": listing,
    "prune": pruning,
    "retry": reviving,
}
