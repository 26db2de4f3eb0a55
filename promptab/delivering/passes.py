"""One pass over what is due to a channel: claim a few, send them, say what became of them, until none is due."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

from promptab.alerts.delivery import Claimed, DeliveryStatus
from promptab.alerts.retrying import MOST_ATTEMPTS, pause_after
from promptab.delivering.channels import Channel, Refused
from promptab.managed import Clock
from promptab.stores.base import Store, Transaction

logger = logging.getLogger("promptab.alerts")

AT_ONCE = 4
"""Deliveries to one channel at the same time."""
LEASE_BEYOND_SECONDS = 30.0
"""How much longer than an attempt may take nobody else is at it: for the writes around it."""
FIRST_SIGHT = timedelta(days=1)
"""Of what was raised before a channel was seen for the first time, this much is sent to it."""


class DeliveryReport(NamedTuple):
    """What became of the attempts of a pass."""

    delivered: int = 0
    postponed: int = 0
    dead: int = 0

    def plus(self, other: DeliveryReport) -> DeliveryReport:
        return DeliveryReport(*(one + another for one, another in zip(self, other, strict=True)))


async def deliver_due(
    store: Store, channel: Channel, clock: Clock, *, draw: Callable[[], float] = random.random
) -> DeliveryReport:
    """Try every delivery to the channel that is due, a few at a time.

    Once all of those few have failed the rest waits for the next pass, without an attempt less: the other side is
    away. `draw` gives numbers from 0 to 1, for the jitter.
    """
    total = DeliveryReport()
    # most passes find nothing, and a write would be in the way of others
    if not await store.read(lambda tx: tx.alert_deliveries.is_due(channel.name, channel.wanted, now=clock())):
        return total
    await store.write(lambda tx: _enqueue(tx, channel, clock), shown=False)
    while True:
        claimed = await store.write(lambda tx: _claim(tx, channel, clock), shown=False)
        if not claimed:
            return total
        reports = await asyncio.gather(*(_deliver(store, channel, one, clock, draw) for one in claimed))
        for report in reports:
            total = total.plus(report)
        if not any(report.delivered for report in reports):
            return total


async def _enqueue(tx: Transaction, channel: Channel, clock: Clock) -> None:
    await tx.alert_deliveries.open_channel(channel.name, channel.wanted, since=clock() - FIRST_SIGHT)
    await tx.alert_deliveries.enqueue(channel.name, channel.wanted, now=clock())


async def _claim(tx: Transaction, channel: Channel, clock: Clock) -> list[Claimed]:
    seconds = channel.seconds + LEASE_BEYOND_SECONDS
    return await tx.alert_deliveries.claim(channel.name, now=clock(), seconds=seconds, limit=AT_ONCE)


async def _deliver(
    store: Store, channel: Channel, claimed: Claimed, clock: Clock, draw: Callable[[], float]
) -> DeliveryReport:
    # whoever dies at every attempt never says so: the count of those that were begun ends it
    if claimed.attempt > MOST_ATTEMPTS:
        refused: Refused | None = Refused("every attempt ended without a word", for_good=True)
    else:
        refused = await _sent(channel, claimed)
    status, due_in = _after(claimed, refused, draw)
    now = clock()
    error = None if refused is None else refused.error
    due_at = None if due_in is None else now + due_in

    async def work(tx: Transaction) -> bool:
        return await tx.alert_deliveries.settle(
            channel.name, claimed, status, now=now, due_at=due_at, error=error
        )

    if not await store.write(work, shown=False):
        # it took longer than its lease, and whoever has it now says what becomes of it
        return DeliveryReport()
    if refused is not None:
        level = logging.ERROR if status == "dead" else logging.WARNING
        told = "given up" if due_in is None else f"next attempt in {due_in.total_seconds():.0f} s"
        logger.log(
            level,
            "%s was not delivered to %s: %s; attempt %d of %d, %s",
            *(claimed.alert.alert_id, channel.name, refused.error, claimed.attempt, MOST_ATTEMPTS, told),
        )
    return DeliveryReport(int(status == "delivered"), int(status == "pending"), int(status == "dead"))


async def _sent(channel: Channel, claimed: Claimed) -> Refused | None:
    try:
        return await channel.send(claimed.alert)
    except Exception as error:  # noqa: BLE001 - channels may be the program's own; the others are sent to all the same
        # its message may hold an address or a secret
        return Refused(f"the channel raised {type(error).__name__}")


def _after(
    claimed: Claimed, refused: Refused | None, draw: Callable[[], float]
) -> tuple[DeliveryStatus, timedelta | None]:
    """Return what becomes of the delivery, and when it is tried next."""
    if refused is None:
        return "delivered", None
    if refused.for_good:
        return "dead", None
    due_in = pause_after(claimed.attempt, drawn=draw(), asked_seconds=refused.again_in_seconds)
    return ("dead" if due_in is None else "pending"), due_in
