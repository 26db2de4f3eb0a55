"""Ids of events: 16 bytes that begin with the time, so that an index on them grows at its end."""

from __future__ import annotations

import secrets
import uuid
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def new_event_id(now: datetime) -> str:
    """Return a UUIDv7 (RFC 9562, section 5.7): 48 bits of milliseconds since 1970, then 74 random bits."""
    milliseconds = max(0, (now - _EPOCH) // _MILLISECOND)
    random = secrets.randbits(74)
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80
    value |= 0x7 << 76 | (random >> 62) << 64
    value |= 0b10 << 62 | (random & (1 << 62) - 1)
    return str(uuid.UUID(int=value))
