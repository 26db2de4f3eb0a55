"""When a delivery that failed is tried again, and when no more."""

from __future__ import annotations

from datetime import timedelta

MOST_ATTEMPTS = 12
"""Over about six hours; then the delivery is dead until somebody revives it."""

FIRST_SECONDS = 10.0
LONGEST_SECONDS = 4 * 3600.0


def pause_after(attempt: int, *, drawn: float, asked_seconds: float | None = None) -> timedelta | None:
    """Return how long to wait after this attempt, counted from 1; None where there is no further one.

    The wait doubles with every attempt. `drawn`, 0 to 1 and at random, takes up to half of it away, so that many
    that failed together do not come back together. `asked_seconds` is what the other side asked for (Retry-After): it
    gets as much, up to four hours.
    """
    if attempt >= MOST_ATTEMPTS:
        return None
    seconds = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** (attempt - 1)) * (1.0 - drawn / 2.0)
    if asked_seconds is not None:
        seconds = max(seconds, min(asked_seconds, LONGEST_SECONDS))
    return timedelta(seconds=seconds)
