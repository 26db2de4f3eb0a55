"""What is refused at the door. Each check returns the value it was given, or raises `InvalidInputError`.

Past these checks nobody looks again: the stores, the managers and the statistics trust what they are handed.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from promptab.errors import InvalidInputError, NotFoundError

MAX_NAME_CHARS = 128
MAX_LABEL_CHARS = 200
MAX_UNIT_CHARS = 256
SESSION_PREFIX = "session:"
"""Stands before the id of an anonymous session, which is a unit apart from the user of the same id."""
MAX_SESSION_CHARS = MAX_UNIT_CHARS - len(SESSION_PREFIX)
MAX_TEXT_CHARS = 4_000
MAX_JSON_CHARS = 100_000
MAX_JSON_DEPTH = 32
MAX_METRICS_PER_EVENT = 64
MAX_MEASURE = 1e18
"""Squares and sums of values up to this one stay finite, however many events there are."""

_LONGEST_PER_COUNTED = 16
"""Characters of JSON per character that `_JsonCopy` counts: a pair of surrogates takes 12, a number in a list of one
half of 26.
"""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*", re.ASCII)
_TAG = re.compile(r"[A-Za-z][A-Za-z0-9._:/-]*", re.ASCII)
_HEX_DIGITS = re.compile(r"[0-9A-Fa-f-]{32,36}", re.ASCII)
_CANONICAL_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
_UUID_BOUND = "a UUID such as 0192f0c1-7b1e-7cc3-98c4-dc0c0c07398f"
_FIRST_EVENT = datetime(1900, 1, 1, tzinfo=UTC)
_LAST_EVENT = datetime(2200, 1, 1, tzinfo=UTC)

# The Unicode categories Cc and Cs: NUL, controls and lone surrogates, which one database would store and
# another would not
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
CONTROL_BUT_BREAKS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""Leaves out the line breaks and the tab, which belong in free text."""


def check_name(field: str, value: object) -> str:
    """Names of prompts, variants and metrics: they become file names, labels and keys, so plain ASCII only."""
    bound = f"1 to {MAX_NAME_CHARS} characters of A-Z a-z 0-9 _ . - that do not begin with . or -"
    if not isinstance(value, str) or len(value) > MAX_NAME_CHARS or _NAME.fullmatch(value) is None:
        raise InvalidInputError(field, value, bound)
    return value


def check_tag(field: str, value: object) -> str:
    """Tags begin with a letter, so that no tag can be read as a version or a range."""
    bound = f"1 to {MAX_NAME_CHARS} characters of A-Z a-z 0-9 _ . : / - that begin with a letter"
    if not isinstance(value, str) or len(value) > MAX_NAME_CHARS or _TAG.fullmatch(value) is None:
        raise InvalidInputError(field, value, bound)
    if value == "latest":
        raise InvalidInputError(
            field, value, "a free tag", "'latest' always means the highest active version"
        )
    return value


def check_label(field: str, value: object, *, limit: int = MAX_LABEL_CHARS) -> str:
    """Names that people read (experiments, layers, actors): any printable text, one spelling per name."""
    bound = f"1 to {limit} printable characters without control characters or outer spaces"
    if not isinstance(value, str) or not value or len(value) > limit or value != value.strip():
        raise InvalidInputError(field, value, bound)
    _refuse(CONTROL, field, value)
    if unicodedata.normalize("NFC", value) != value:
        raise InvalidInputError(
            field, value, "in Unicode normal form C", "normalise it with unicodedata.normalize('NFC', …)"
        )
    return value


def check_text(field: str, value: object, *, limit: int = MAX_TEXT_CHARS) -> str:
    """Free text (reasons, descriptions): may be empty and have line breaks."""
    if not isinstance(value, str) or len(value) > limit:
        raise InvalidInputError(field, value, f"text of at most {limit} characters")
    _refuse(CONTROL_BUT_BREAKS, field, value)
    return value


def check_unit(field: str, value: object, *, limit: int = MAX_UNIT_CHARS) -> str:
    """Ids of units: text as it is, an integer as its decimal digits (so 1 and "1" are one unit); nothing
    else.
    """
    # nearly every id; what Python calls printable holds no control characters and no surrogates
    if type(value) is str and 0 < len(value) <= limit and value.isprintable():
        return value
    if isinstance(value, str) and 0 < len(value) <= limit and value.isascii() and value.isprintable():
        return value
    bound = f"a text of 1 to {limit} characters, or an integer"
    if isinstance(value, int) and not isinstance(value, bool):
        value = (
            str(value) if abs(value) < 10**30 else "too large"
        )  # CPython refuses to print very long integers
    if not isinstance(value, str) or not value or len(value) > limit or value == "too large":
        raise InvalidInputError(field, value, bound)
    _refuse(CONTROL, field, value)
    return value


def known_id(value: object) -> str | None:
    """Return an id in its canonical form, lower case with hyphens; None for what cannot be an id of anything.

    Takes a UUID, or its text in any case and with any hyphens. A read answers None, False or empty where this
    is None, a change says "not found": see `required_id`.
    """
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, str) and _CANONICAL_UUID.fullmatch(value) is not None:
        return value
    # the pattern first: uuid.UUID takes braces, underscores and the digits of every script
    if isinstance(value, str) and len(value) <= 36 and _HEX_DIGITS.fullmatch(value) is not None:
        try:
            return str(uuid.UUID(value))
        except ValueError:
            return None
    return None


def required_id(kind: str, value: object) -> str:
    """Return the canonical id of what a change names. Raises `NotFoundError` for what is no id of anything."""
    known = known_id(value)
    if known is None:
        key = value if isinstance(value, str) else type(value).__name__
        raise NotFoundError(kind, key, f"an id is {_UUID_BOUND}")
    return known


def check_uuid(field: str, value: object) -> str:
    """Return the id in its canonical form, lower case with hyphens."""
    known = known_id(value)
    if known is None:
        raise InvalidInputError(field, value, _UUID_BOUND)
    return known


def check_mapping(field: str, value: object) -> Mapping[Any, Any]:
    """A mapping, its keys and values not looked at yet."""
    if not isinstance(value, Mapping):
        raise InvalidInputError(field, value, "a mapping", "write a dict")
    return value


def check_items(field: str, value: object) -> tuple[Any, ...]:
    """Several of something, not looked at yet. A text is one thing, not a list of its characters."""
    if isinstance(value, (str, bytes, bytearray)) or not isinstance(value, Iterable):
        raise InvalidInputError(field, value, "a list", "write a list, even of one")
    return tuple(value)


def check_confidence(field: str, value: float) -> float:
    """Return the confidence of an interval: so that one side has a meaning too, and tails can still be computed."""
    return check_number(field, value, above=0.5, high=0.9999)


def check_number(
    field: str,
    value: object,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    above: float | None = None,
    below: float | None = None,
) -> float:
    """A finite number in [low, high], and greater than `above` and less than `below` where these are given.
    Booleans are not numbers here.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidInputError(field, value, _number_bound(low, high, above, below))
    try:
        number = float(value)
    except OverflowError:
        bound = _number_bound(low, high, above, below)
        raise InvalidInputError(field, "an integer too large for a float", bound) from None
    if (
        not math.isfinite(number)
        or not low <= number <= high
        or (above is not None and number <= above)
        or (below is not None and number >= below)
    ):
        raise InvalidInputError(field, value, _number_bound(low, high, above, below))
    return number


def check_count(field: str, value: object, *, low: int = 0, high: int = 2**53) -> int:
    """A whole number from `low` to `high`; 2**53 is where JSON readers begin to round."""
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    # CPython refuses to print very long integers
    shown = "a huge number" if isinstance(value, int) and abs(value) >= 10**30 else value
    raise InvalidInputError(field, shown, f"a whole number from {low} to {high}")


def check_flag(field: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidInputError(field, value, "True or False")
    return value


def check_share(field: str, value: object) -> float:
    return check_number(field, value, low=0.0, high=1.0)


def check_json_object(field: str, value: object, *, limit: int = MAX_JSON_CHARS) -> dict[str, Any]:
    """A JSON object: finite numbers, text keys, no control characters but line breaks and tabs; returned as a
    copy.
    """
    if not isinstance(value, Mapping):
        raise InvalidInputError(field, value, "a JSON object (a dict with text keys)")
    copying = _JsonCopy(field, limit)
    copied = copying.of_mapping(field, value, depth=0)
    # what is written as \u00e9 is longer than it was counted, and so are numbers, but never by more than this
    if _LONGEST_PER_COUNTED * copying.counted > limit and len(json.dumps(copied)) > limit:
        raise _too_much_json(field, limit)
    return copied


def check_time(field: str, value: object) -> datetime:
    """Return the time in UTC; naive times are read as UTC."""
    if not isinstance(value, datetime):
        raise InvalidInputError(field, value, "a datetime")
    if value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise InvalidInputError(field, value, "a time between the years 1 and 9999 in UTC") from None


def check_event_time(field: str, value: object) -> datetime:
    """Return the time of an event in UTC: further away than this is a wrong clock or a wrong unit."""
    moment = check_time(field, value)
    if not _FIRST_EVENT <= moment < _LAST_EVENT:
        raise InvalidInputError(
            field, moment.isoformat(), f"a time from the year {_FIRST_EVENT.year} up to {_LAST_EVENT.year}"
        )
    return moment


class _JsonCopy:
    """Copies JSON, and stops as soon as it is certain to be too long: millions of characters are never read.

    The least that a value can be written with is one character, and is counted with what holds the value; each
    value counts what it takes beyond that.
    """

    def __init__(self, root: str, limit: int) -> None:
        self._root = root
        self._limit = limit
        self._left = limit

    @property
    def counted(self) -> int:
        return self._limit - self._left

    def of_mapping(self, field: str, value: Mapping[Any, Any], *, depth: int) -> dict[str, Any]:
        # {"": 0, "": 0} and so on
        self._count(7 * len(value) - 1 if value else 1)
        copied = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidInputError(field, key, "a JSON object with text keys")
            self._count(len(key))
            _refuse(CONTROL, field, key)
            copied[str.__str__(key)] = self._of(f"{field}.{key}", item, depth=depth + 1)
        return copied

    def _of(self, field: str, value: object, *, depth: int) -> Any:
        if depth > MAX_JSON_DEPTH:
            raise InvalidInputError(field, "deeper nesting", f"nested at most {MAX_JSON_DEPTH} deep")
        if isinstance(value, Mapping):
            return self.of_mapping(field, value, depth=depth)
        if isinstance(value, (list, tuple)):
            # [0, 0, 0] and so on
            self._count(3 * len(value) - 1 if value else 1)
            return [self._of(f"{field}[{index}]", item, depth=depth + 1) for index, item in enumerate(value)]
        if isinstance(value, str):
            self._count(len(value) + 1)
        return _checked_scalar(field, value)

    def _count(self, characters: int) -> None:
        self._left -= characters
        if self._left < 0:
            raise _too_much_json(self._root, self._limit)


def _checked_scalar(field: str, value: object) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if abs(value) >= 2**63:
            raise InvalidInputError(
                field, "an integer of more than 63 bits", "an integer of at most 63 bits", "store it as text"
            )
        return int(value)
    if isinstance(value, float):
        return check_number(field, value)
    if isinstance(value, str):
        _refuse(CONTROL_BUT_BREAKS, field, value)
        return str.__str__(value)  # the text itself, also of a member of a text enumeration
    raise InvalidInputError(field, value, "JSON (null, boolean, number, text, list or object)")


def _too_much_json(field: str, limit: int) -> InvalidInputError:
    return InvalidInputError(
        field, f"more than {limit} characters of JSON", f"at most {limit} characters of JSON"
    )


def _refuse(control: re.Pattern[str], field: str, value: str) -> None:
    found = control.search(value)
    if found is not None:
        raise InvalidInputError(
            field,
            value,
            f"free of control characters (U+{ord(found[0]):04X} at position {found.start()})",
        )


def _number_bound(low: float, high: float, above: float | None, below: float | None) -> str:
    most = (
        f" and less than {below:g}"
        if below is not None
        else f" and at most {high:g}"
        if high < math.inf
        else ""
    )
    if above is not None:
        return f"a finite number greater than {above:g}{most}"
    if below is not None:
        return (
            f"a finite number of at least {low:g}{most}"
            if low > -math.inf
            else f"a finite number less than {below:g}"
        )
    if math.isinf(low) and math.isinf(high):
        return "a finite number"
    if math.isinf(high):
        return f"a finite number of at least {low:g}"
    return f"a finite number from {low:g} to {high:g}"
