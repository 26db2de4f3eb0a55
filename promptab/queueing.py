"""How events wait for their transaction: what users may set about it, and what they may look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from promptab.checks import check_count, check_number
from promptab.errors import InvalidInputError

WhenFull = Literal["wait", "raise", "drop"]
Durability = Literal["normal", "full"]

_MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """The bounds of the queue in which events and exposures wait to be written.

    It fills up while the store is away, or while events come faster than they are written.
    """

    capacity: int = 100_000
    """Events and exposures, from 1 to 10 million."""
    capacity_bytes: int = 64 * _MIB
    """What they may take together, by a rough count; at least 1 MiB."""
    when_full: WhenFull = "wait"
    """What becomes of an event that finds the queue full.

    `wait`: an awaited one waits for room, one that is not awaited raises `StoreUnavailableError`; `raise`: both
    raise it; `drop`: one that is not awaited is dropped and counted, an awaited one raises, since returning
    means that it is stored.
    """
    delay_seconds: float = 0.005
    """How long an event that nobody awaits may wait for others to share its transaction: from 0 to 1."""
    patience_seconds: float = 10.0
    """How long an awaited event, a flush and the closing wait for a store that is away: from 0 to 3600.

    A store that does not answer counts as away; an awaited event waits up to a quarter longer for that, and no less
    than a second.
    """

    def __post_init__(self) -> None:
        check_count("queue.capacity", self.capacity, low=1, high=10_000_000)
        check_count("queue.capacity_bytes", self.capacity_bytes, low=_MIB)
        if self.when_full not in get_args(WhenFull):
            raise InvalidInputError("queue.when_full", self.when_full, "one of wait, raise, drop")
        check_number("queue.delay_seconds", self.delay_seconds, low=0.0, high=1.0)
        check_number("queue.patience_seconds", self.patience_seconds, low=0.0, high=3600.0)


DEFAULT_QUEUE = QueueSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStats:
    """What the queue of one open store holds now, and what has become of all that came since it was opened."""

    queued: int
    """Events and exposures that are not known to be committed yet."""
    queued_bytes: int
    """What these take, by a rough count."""
    blocked: int
    """Awaited events that wait for room in the queue."""
    oldest_seconds: float
    """How long the oldest of what is queued has been waiting; 0 for an empty queue."""
    written: int
    """Events and exposures that were committed; one that was stored already counts too."""
    batches: int
    """The transactions that took."""
    dropped: int
    """Events and exposures that were let go: they found the queue full, or closing could not write them."""
    refused: int
    """Events and exposures that the store would not take, such as an id that is there with other content."""
    away: str | None
    """Why the store could not be written to at the last attempt; None where it could."""


def check_durability(value: object) -> Durability:
    match value:
        case "normal" | "full":
            return value
        case _:
            raise InvalidInputError("durability", value, "one of normal, full")
