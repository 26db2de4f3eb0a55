"""Ids of events: 16 bytes that begin with the time, so that an index on them grows at its end."""

from __future__ import annotations

import os
import random
import sys
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_LAST_62_BITS = (1 << 62) - 1
_VERSION_AND_VARIANT = 0x7 << 76 | 0b10 << 62


# Not for secrets; seeded by the system, and anew in the child of a fork, which would go on with the same numbers.
_random = random.Random()  # noqa: S311
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_random.seed)


def new_event_id(now: datetime) -> str:
    """Return a UUIDv7 (RFC 9562, section 5.7): 48 bits of milliseconds since 1970, then 74 random bits."""
    milliseconds = max(0, (now - _EPOCH) // _MILLISECOND)
    random_bits = _random.getrandbits(74)
    value = milliseconds << 80 | random_bits >> 62 << 64 | random_bits & _LAST_62_BITS | _VERSION_AND_VARIANT
    digits = value.to_bytes(16, "big").hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
