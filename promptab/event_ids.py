"""Ids of events: 16 bytes that begin with the time, so that an index on them grows at its end."""

from __future__ import annotations

import itertools
import os
import random
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_COUNTED = 1 << 12


class _Stretch(NamedTuple):
    """The ids of one millisecond, or of one in `_COUNTED` of its events."""

    milliseconds: int
    head: str
    counter: Iterator[int]
    """A number for each id. Threads may share it: `next` of it is one step."""
    tail: str


class _Ids:
    """UUIDs of version 7 (RFC 9562, sections 5.7 and 6.2, method 1).

    48 bits of milliseconds since 1970, a counter of 12 bits, and 62 bits that are drawn at random for every
    millisecond and process, and whenever the counter has run out.
    """

    def __init__(self) -> None:
        self._random = random.Random()  # noqa: S311 - not for secrets; seeded by the system
        self._stretch = self._begin(0)

    def renew(self) -> None:
        """Draw anew: the child of a fork would go on with its parent's numbers."""
        self._random.seed()
        self._stretch = self._begin(0)

    def new(self, now: datetime) -> str:
        milliseconds = (now - _EPOCH) // _MILLISECOND
        stretch = self._stretch
        count = next(stretch.counter)
        if stretch.milliseconds != milliseconds or count >= _COUNTED:
            stretch = self._stretch = self._begin(milliseconds)
            count = next(stretch.counter)
        return f"{stretch.head}{count:03x}{stretch.tail}"

    def _begin(self, milliseconds: int) -> _Stretch:
        time = max(0, milliseconds)
        # the two highest bits of the fourth group are the variant
        group, node = 0x8000 | self._random.getrandbits(14), self._random.getrandbits(48)
        return _Stretch(
            milliseconds,
            f"{time >> 16:08x}-{time & 0xFFFF:04x}-7",
            itertools.count(),
            f"-{group:04x}-{node:012x}",
        )


_ids = _Ids()
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_ids.renew)

new_event_id = _ids.new
"""Return the id of an event that promptab is told of at this time."""
