"""Stretches of time in queries, as whole microseconds: the hours of the year 9999 end after the last datetime."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, type_coerce

from promptab.stores.schema import microseconds

HOUR = 3_600_000_000
DAY = 24 * HOUR


class Span(NamedTuple):
    """From one moment on and before another; None for no limit."""

    start: int | None
    end: int | None

    @classmethod
    def of(cls, start: datetime | None, end: datetime | None) -> Span:
        return cls(None if start is None else microseconds(start), None if end is None else microseconds(end))

    def limits(self, at: ColumnElement[Any]) -> list[ColumnElement[bool]]:
        """Return the conditions under which `at` is in it."""
        time = type_coerce(at, BigInteger)
        return [
            *([] if self.start is None else [time >= self.start]),
            *([] if self.end is None else [time < self.end]),
        ]

    def full_hours(self) -> Span:
        """Return the hours that are in it from their beginning to their end."""
        return Span(
            None if self.start is None else -(-self.start // HOUR) * HOUR,
            None if self.end is None else self.end // HOUR * HOUR,
        )

    def touched_hours(self) -> Span:
        """Return the hours that any part of is in it."""
        return Span(
            None if self.start is None else self.start // HOUR * HOUR,
            None if self.end is None else -(-self.end // HOUR) * HOUR,
        )

    def cut_hours(self) -> dict[int, Span]:
        """Return, by the beginning of each hour that is in it in part, that part."""
        cut = {time // HOUR * HOUR for time in self if time is not None and time % HOUR}
        return {
            hour: Span(
                hour if self.start is None else max(hour, self.start),
                hour + HOUR if self.end is None else min(hour + HOUR, self.end),
            )
            for hour in sorted(cut)
        }


def start_of_stretch(at: ColumnElement[Any], width: int) -> ColumnElement[Any]:
    """Return the beginning of the stretch of so many microseconds, counted from 1970, in which a time is."""
    time = type_coerce(at, BigInteger)
    # the remainder of a time before 1970 is negative
    return time - (time % width + width) % width
