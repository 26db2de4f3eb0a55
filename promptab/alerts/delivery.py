"""How far an alert has come on its way to a channel."""

from __future__ import annotations

from typing import Literal, NamedTuple

from promptab.alerts.alert import Alert
from promptab.records import Record, Utc

DeliveryStatus = Literal["pending", "delivered", "dead"]


class Delivery(Record):
    """One alert on its way to one channel."""

    channel: str
    status: DeliveryStatus
    """`dead`: it was tried as often as it is, or the other side wants no more; it waits for somebody to revive it."""
    attempts: int
    due_at: Utc
    """When it is tried next, at the earliest. Of no meaning once it is delivered or dead."""
    changed_at: Utc
    error: str | None = None
    """Why the last attempt failed."""


class ToldAlert(Record):
    """An alert, and where it has been sent."""

    alert: Alert
    deliveries: tuple[Delivery, ...] = ()
    """By channel; of those alone that have sent something since."""


class Claimed(NamedTuple):
    """A delivery that one process has taken upon itself until its lease ends."""

    alert: Alert
    attempt: int
    """Counted from 1."""
    claim: str
