"""`lab.alerts`: what was told, what has not arrived, and sending it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from datetime import datetime
from typing import NoReturn, TypedDict, TypeVar, Unpack

from promptab.alerts.alert import AlertKind, Severity
from promptab.alerts.channel import LOG, AlertSettings, Wanted
from promptab.alerts.delivery import DeliveryStatus, ToldAlert
from promptab.assigning import find_experiment
from promptab.checks import check_count, check_name, check_number, check_time
from promptab.delivering.channels import AlertCallback, CallbackChannel, Channel, LogChannel
from promptab.delivering.passes import FIRST_SIGHT, DeliveryReport, deliver_due
from promptab.errors import InvalidInputError, MissingExtraError, NotFoundError, StateError, StoreError
from promptab.managed import Clock, Managed, utc_now
from promptab.retention import PruneReport
from promptab.stores.base import Store, Transaction

logger = logging.getLogger("promptab.alerts")

T = TypeVar("T")

LISTED = 100
"""Alerts that a listing holds unless more are asked for."""
YOUNGEST_PRUNED = 2 * FIRST_SIGHT
"""Younger alerts are not dropped, for the sake of channels that are new."""
PASS_SECONDS = 10.0
"""Between two passes of `keep_delivering`."""


class WantedAlerts(TypedDict, total=False):
    """Which alerts are sent, as in `Wanted`."""

    kinds: Collection[AlertKind]
    least_severity: Severity


class AlertOutbox(Managed):
    """The alerts of a store, and the channels of this process that they are sent to.

    Alerts are written with the decisions that they are about. Sending them is apart from that: by `deliver`, once,
    or by `keep_delivering`, beside everything else. Any number of processes may do so at the same time.
    """

    def __init__(self, store: Store | None = None, *, clock: Clock = utc_now) -> None:
        super().__init__(store, clock=clock)
        self._channels: dict[str, Channel] = {}
        self._trouble: str | None = None
        """Why the last pass of `keep_delivering` failed."""

    @property
    def channels(self) -> tuple[str, ...]:
        """The names of the channels that this process sends to."""
        return tuple(self._channels)

    def add(self, channel: Channel) -> None:
        """Send alerts to this channel as well, in the place of one with its name."""
        self._channels[channel.name] = channel

    def declare(self, settings: AlertSettings) -> None:
        """Send alerts to what `alerts:` in promptab.yaml declares; secrets are read from the environment now.

        Raises `InvalidInputError` for a variable that is not set, and `MissingExtraError` where there are webhooks
        and the package that they need is not installed.
        """
        if settings.log is not None:
            self.add(LogChannel(settings.log))
        if not settings.webhooks:
            return
        try:
            from promptab.delivering.webhook import WebhookChannel  # noqa: PLC0415 - an extra
        except ImportError:
            raise MissingExtraError("httpcore2", "webhooks") from None
        for webhook in settings.webhooks:
            self.add(WebhookChannel(webhook, clock=self._clock))

    def on_alert(
        self,
        callback: AlertCallback,
        *,
        name: str = "callback",
        **wanted: Unpack[WantedAlerts],
    ) -> None:
        """Call, or await, this function with each alert, when alerts are delivered: at least once in all processes
        that use the same `name`, and of these `kinds` and from this severity on. One that raises, or takes longer
        than 30 s, is called again later. A plain function runs on the event loop and must not wait: while it does
        nothing else goes on; make it a coroutine function, with `asyncio.to_thread` around what waits.

        Raises `InvalidInputError` for a name, kinds and a severity that there are none of.
        """
        check_name("name", name)
        if name == LOG:
            raise InvalidInputError("name", name, "another name", "that one writes to the log")
        self.add(CallbackChannel(name, callback, Wanted.model_validate(wanted)))

    async def list_alerts(
        self, experiment: str | None = None, *, dead: bool = False, limit: int = LISTED
    ) -> list[ToldAlert]:
        """Return alerts, the newest first, with what became of each on its way.

        `experiment`: those about it, also once it has been deleted, by its id or name; or about a prompt with guarded
        versions, as in system/greeting. `dead`: those alone of which a delivery was given up. Raises `NotFoundError`
        for an experiment of which nothing is known.
        """
        check_count("limit", limit, low=1, high=100_000)
        store = await self._store()
        status: DeliveryStatus | None = "dead" if dead else None
        if experiment is None:
            return await store.read(lambda tx: tx.alerts.listing(status=status, limit=limit))
        try:
            found = await find_experiment(store, experiment, now=self._clock())
        except NotFoundError:
            if not await store.read(lambda tx: tx.alerts.is_known(experiment)):
                raise
            return await store.read(
                lambda tx: tx.alerts.listing(about=experiment, status=status, limit=limit)
            )
        subject = found.experiment_id
        return await store.read(lambda tx: tx.alerts.listing(about=subject, status=status, limit=limit))

    async def retry(self, alert_id: str, channel: str | None = None) -> tuple[str, ...]:
        """Send a dead alert again, with all its attempts anew, when alerts are delivered next; return to which
        channels.

        Raises `NotFoundError`, and `StateError` where nothing of it is dead.
        """
        store = await self._store()
        told = await store.read(lambda tx: tx.alerts.get(alert_id))
        if told is None:
            raise NotFoundError("alert", alert_id, "list them with `promptab alerts --dead`")
        now = self._clock()
        revived = await store.write(
            lambda tx: tx.alert_deliveries.revive(alert_id, channel, now=now), shown=False
        )
        if not revived:
            where = "to no channel" if channel is None else f"not to {channel}"
            raise StateError(
                f"the delivery of alert {alert_id} was given up {where}: there is nothing to retry"
            )
        return tuple(revived)

    async def prune(self, before: datetime, *, dead: bool = False, apply: bool = True) -> PruneReport:
        """Drop the alerts that were told before this time, with what became of each on its way.

        Kept are those that are still to be delivered to any channel that this store has seen (see `forget`), and those
        of which a delivery was given up, unless `dead`. What holds already is not told again. With `apply` False
        nothing is dropped, and the report says what would be.

        Raises `InvalidInputError`, also for a time less than two days ago: a channel that is seen for the first time
        is sent what was told in the last day, and clocks differ.
        """
        limit = check_time("before", before)
        newest = self._clock() - YOUNGEST_PRUNED
        if limit > newest:
            bound = f"at least two days ago, {newest.isoformat()} at the latest"
            raise InvalidInputError(
                "before", limit.isoformat(), bound, "a new channel is still sent what is younger"
            )
        store = await self._store()
        dropped = 0

        async def prune(tx: Transaction) -> int:
            return await tx.alert_retention.prune(limit, dead=dead)

        while apply and (some := await store.write(prune, shown=False)):
            dropped += some
        left, kept = await store.read(lambda tx: tx.alert_retention.look(limit, dead=dead))
        return PruneReport(before=limit, dropped=dropped if apply else left, kept=kept, applied=apply)

    async def forget(self, channel: str) -> int:
        """Forget a channel that there is no longer: what waits for it is delivered no more. Return how many
        deliveries had been begun and were still to be made. A channel of this name that is delivered to afterwards
        is new.

        Raises `NotFoundError` for a channel to which nothing was ever delivered.
        """
        store = await self._store()
        waiting = await store.write(lambda tx: tx.alert_deliveries.forget_channel(channel), shown=False)
        if waiting is None:
            raise NotFoundError("channel", channel, "it is the name under alerts: or of on_alert")
        return waiting

    async def deliver(self) -> DeliveryReport:
        """Try everything that is due, to every channel at the same time, and return what became of it.

        It ends: what is tried has a time limit, and a channel that is away is left for the next time. Raises
        `StateError` without a channel, and `StoreUnavailableError`.
        """
        if not self._channels:
            remedy = "name one with on_alert(...), or under alerts: in promptab.yaml"
            raise StateError(f"there is no channel to deliver alerts to; {remedy}")
        store = await self._store()
        passes = (deliver_due(store, channel, self._clock) for channel in tuple(self._channels.values()))
        # each to its end, also where another one fails
        reports = await asyncio.gather(*passes, return_exceptions=True)
        total = DeliveryReport()
        for report in reports:
            if isinstance(report, BaseException):
                raise report
            total = total.plus(report)
        return total

    async def keep_delivering(self, interval: float = PASS_SECONDS) -> NoReturn:
        """Deliver for ever, every `interval` seconds, until it is cancelled: a task to be run beside others.

        While the store is away it says so in the log and goes on. What is cancelled in the middle of an attempt is
        tried again when its lease has ended.
        """
        check_number("interval", interval, above=0.0, high=86_400.0)
        while True:
            await self._pass()
            await asyncio.sleep(interval)

    async def beside(self, looks: AsyncGenerator[T], *, once: bool = False) -> AsyncGenerator[T]:
        """Yield what `looks` yields, and deliver meanwhile in a task beside it; with `once` one time, at the end."""
        delivering = None if once else asyncio.ensure_future(self.keep_delivering())
        try:
            async with aclosing(looks) as found:
                async for each in found:
                    yield each
            if once:
                await self._pass()
        finally:
            if delivering is not None:
                delivering.cancel()
                await asyncio.gather(delivering, return_exceptions=True)

    async def _pass(self) -> None:
        """Deliver, and put what goes wrong into the log: once, until it is well again."""
        try:
            if self._channels:
                await self.deliver()
            trouble = None
        except StoreError as error:
            trouble = f"the store cannot be used: {error}"
        except Exception as error:  # noqa: BLE001 - the outermost loop: whatever a channel of the program's own raises
            trouble = f"a channel has failed: {type(error).__name__}"
        if trouble is not None and self._trouble is None:
            logger.warning("alerts wait, as %s", trouble)
        if trouble is None and self._trouble is not None:
            logger.warning("alerts are delivered again")
        self._trouble = trouble
