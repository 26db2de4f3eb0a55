"""A clock that stands still until a test moves it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class SettableClock:
    """Give it to a lab or a manager as `clock`; it begins at noon on 5 January 2026, UTC."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 5, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, *, days: float = 0.0, hours: float = 0.0, seconds: float = 0.0) -> datetime:
        self.now += timedelta(days=days, hours=hours, seconds=seconds)
        return self.now
