"""How times, spans, counts and shares are written for people."""

from __future__ import annotations

from datetime import datetime, timedelta

from promptab.models import PromptVersion


def moment(time: datetime | None) -> str:
    """Return 2025-06-30 14:05:12, in UTC as all times are."""
    return "" if time is None else time.strftime("%Y-%m-%d %H:%M:%S")


def day_and_minute(time: datetime | None) -> str:
    """Return 2025-06-30 14:05, for lists in which a second tells nothing."""
    return moment(time)[:16]


def span(length: timedelta) -> str:
    """Return the two largest units: 5 days 3 hours, 12 minutes, less than a minute."""
    minutes = max(0, int(length.total_seconds())) // 60
    parts = [(minutes // 1440, "day"), (minutes // 60 % 24, "hour"), (minutes % 60, "minute")]
    told = [counted(number, unit) for number, unit in parts if number][:2]
    return " ".join(told) or "less than a minute"


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def percent(share: float) -> str:
    """Return a share of 1 as percent with one decimal, 50.0 %."""
    return f"{100 * share:.1f} %"


def free_tags(version: PromptVersion) -> str:
    return ", ".join(tag for tag in version.tags if tag != version.status)
