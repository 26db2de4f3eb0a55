"""Values as they are typed on a command line: KEY=VALUE pairs, JSON, times, and who is typing."""

from __future__ import annotations

import getpass
import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from promptab.errors import InvalidInputError

_AGO = re.compile(r"(\d{1,6})\s*(m|h|d|w)", re.ASCII)
_SPANS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def split_pairs(option: str, pairs: Iterable[str]) -> dict[str, str]:
    """Read KEY=VALUE as text. A key that is given twice is refused."""
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InvalidInputError(option, pair, "KEY=VALUE", f"write {option} {key or 'key'}=value")
        if key in found:
            raise InvalidInputError(option, key, "given once")
        found[key] = value
    return found


def read_values(option: str, pairs: Iterable[str]) -> dict[str, Any]:
    """Read KEY=VALUE as text and KEY:=VALUE as JSON, so that nobody has to guess what `count=3` is."""
    values: dict[str, Any] = {}
    for key, value in split_pairs(option, pairs).items():
        if key.endswith(":"):
            values[key[:-1]] = read_json(f"{option} {key}", value)
        else:
            values[key] = value
    return values


def read_numbers(option: str, pairs: Iterable[str]) -> dict[str, float]:
    """Read KEY=NUMBER."""
    return {key: read_number(f"{option} {key}", value) for key, value in split_pairs(option, pairs).items()}


def read_number(field: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidInputError(field, text, "a number") from None


def read_json(field: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(field, text, f"JSON ({error})", "texts stand in double quotes") from None


def read_json_object(field: str, text: str) -> dict[str, Any]:
    value = read_json(field, text)
    if not isinstance(value, dict):
        raise InvalidInputError(field, text, 'a JSON object such as {"model": "gpt-4.1-mini"}')
    return value


def read_file(field: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInputError(field, str(path), f"a file that can be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise InvalidInputError(field, str(path), f"UTF-8 text (byte {error.start})") from None


def read_time(field: str, text: str, *, now: datetime) -> datetime:
    """Read an ISO 8601 time, in UTC where it says no offset, or a span before now: 30m, 12h, 7d, 2w."""
    if ago := _AGO.fullmatch(text):
        try:
            return now - timedelta(**{_SPANS[ago[2]]: int(ago[1])})
        except OverflowError:
            raise InvalidInputError(field, text, "a span of less than 2000 years") from None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError(
            field, text, "a time such as 2025-06-30T14:00 (UTC), or a span before now such as 12h or 7d"
        ) from None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time


def actor_or_user(actor: str | None) -> str | None:
    """Return who moves: as told, else the operating system's user, else nobody in particular."""
    if actor is not None:
        return actor
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        # a container may run under a number that no user has
        return None
