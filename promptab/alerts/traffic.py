"""Whether units, or outcomes, have stopped coming: told by how the counts moved from look to look."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal, NamedTuple

Source = Literal["units", "outcomes"]
SOURCES: tuple[Source, ...] = ("units", "outcomes")

LEAST_MOVES = 10
"""Looks at which something new had come, before a silence is one."""
LEAST_SILENCE = timedelta(hours=1)
LONGER = 1.5
"""How many times as long as any silence before: nights and weekends come again."""


class Pulse(NamedTuple):
    """How a count has moved so far."""

    mark: str
    """What the count was at the last look, in any form."""
    moved_at: datetime
    """The look at which something new was seen last."""
    seen_at: datetime
    """The last look of all."""
    moves: int = 0
    """Looks at which something new was seen."""
    longest: timedelta = timedelta(0)
    """The longest silence that has ended: as long as it was looked at, as the looks may have stopped, too."""


def beaten(pulse: Pulse | None, mark: str, now: datetime) -> Pulse:
    """Return the pulse after a look at `now` that found `mark`."""
    if pulse is None:
        return Pulse(mark, now, now)
    if pulse.mark == mark:
        return pulse._replace(seen_at=max(now, pulse.seen_at))
    silence = pulse.seen_at - pulse.moved_at
    return Pulse(mark, now, now, pulse.moves + 1, max(pulse.longest, silence))


def rested(pulse: Pulse | None, mark: str, now: datetime) -> Pulse:
    """Return the pulse after a look while nothing was meant to come: no silence counts, before or after."""
    if pulse is None:
        return Pulse(mark, now, now)
    return pulse._replace(mark=mark, moved_at=now, seen_at=now)


def silence_of(pulse: Pulse, now: datetime) -> timedelta | None:
    """Return how long nothing has come, where that is much longer than ever before; None where it is not."""
    silence = now - pulse.moved_at
    if pulse.moves < LEAST_MOVES or silence < LEAST_SILENCE or silence < LONGER * pulse.longest:
        return None
    return silence
