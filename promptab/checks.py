"""What is refused at the door. Each check returns the value it was given, or raises `InvalidInputError`.

Past these checks nobody looks again: the stores, the managers and the statistics trust what they are handed.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from promptab.errors import InvalidInputError

MAX_NAME_CHARS = 128
MAX_LABEL_CHARS = 200
MAX_UNIT_CHARS = 256
MAX_TEXT_CHARS = 4_000
MAX_JSON_CHARS = 100_000
MAX_JSON_DEPTH = 32
MAX_METRICS_PER_EVENT = 64

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*", re.ASCII)
_TAG = re.compile(r"[A-Za-z][A-Za-z0-9._:/-]*", re.ASCII)


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
    _refuse_control(field, value, allowed="")
    if unicodedata.normalize("NFC", value) != value:
        raise InvalidInputError(
            field, value, "in Unicode normal form C", "normalise it with unicodedata.normalize('NFC', …)"
        )
    return value


def check_text(field: str, value: object, *, limit: int = MAX_TEXT_CHARS) -> str:
    """Free text (reasons, descriptions): may be empty and have line breaks."""
    if not isinstance(value, str) or len(value) > limit:
        raise InvalidInputError(field, value, f"text of at most {limit} characters")
    _refuse_control(field, value, allowed="\n\r\t")
    return value


def check_unit(field: str, value: object) -> str:
    """Ids of units: text as it is, an integer as its decimal digits (so 1 and "1" are one unit); nothing
    else.
    """
    bound = f"a text of 1 to {MAX_UNIT_CHARS} characters, or an integer"
    if isinstance(value, int) and not isinstance(value, bool):
        value = (
            str(value) if abs(value) < 10**30 else "too large"
        )  # CPython refuses to print very long integers
    if not isinstance(value, str) or not value or len(value) > MAX_UNIT_CHARS or value == "too large":
        raise InvalidInputError(field, value, bound)
    _refuse_control(field, value, allowed="")
    return value


def check_uuid(field: str, value: object) -> str:
    """Return the id in its canonical form, lower case with hyphens."""
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, str) and len(value) <= 36:
        try:
            return str(uuid.UUID(value))
        except ValueError:
            pass
    raise InvalidInputError(field, value, "a UUID such as 0192f0c1-7b1e-7cc3-98c4-dc0c0c07398f")


def check_number(
    field: str, value: object, *, low: float = -math.inf, high: float = math.inf, above: float | None = None
) -> float:
    """A finite number in [low, high], and greater than `above` where that is given. Booleans are not numbers
    here.
    """
    bound = _number_bound(low, high, above)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidInputError(field, value, bound)
    try:
        number = float(value)
    except OverflowError:
        raise InvalidInputError(field, "an integer too large for a float", bound) from None
    if not math.isfinite(number) or not low <= number <= high or (above is not None and number <= above):
        raise InvalidInputError(field, value, bound)
    return number


def check_count(field: str, value: object, *, high: int = 2**53) -> int:
    """A whole number from 0 to `high`; 2**53 is where JSON readers begin to round."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= high:
        return value
    # CPython refuses to print very long integers
    shown = "a huge number" if isinstance(value, int) and abs(value) >= 10**30 else value
    raise InvalidInputError(field, shown, f"a whole number from 0 to {high}")


def check_share(field: str, value: object) -> float:
    return check_number(field, value, low=0.0, high=1.0)


def check_json_object(field: str, value: object, *, limit: int = MAX_JSON_CHARS) -> dict[str, Any]:
    """A JSON object: finite numbers, text keys, no control characters but line breaks and tabs; returned as a
    copy.
    """
    if not isinstance(value, Mapping):
        raise InvalidInputError(field, value, "a JSON object (a dict with text keys)")
    copied = _checked_json(field, value, depth=0)
    size = len(json.dumps(copied))
    if size > limit:
        raise InvalidInputError(field, f"{size} characters of JSON", f"at most {limit} characters of JSON")
    assert isinstance(copied, dict)  # noqa: S101 - narrows the type: a mapping comes back as a dict
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


def _checked_json(field: str, value: object, *, depth: int) -> Any:
    if depth > MAX_JSON_DEPTH:
        raise InvalidInputError(field, "deeper nesting", f"nested at most {MAX_JSON_DEPTH} deep")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InvalidInputError(field, key, "a JSON object with text keys")
            _refuse_control(field, key, allowed="")
        return {
            str(key): _checked_json(f"{field}.{key}", item, depth=depth + 1) for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_checked_json(f"{field}[{index}]", item, depth=depth + 1) for index, item in enumerate(value)]
    return _checked_scalar(field, value)


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
        _refuse_control(field, value, allowed="\n\r\t")
        return str.__str__(value)  # the text itself, also of a member of a text enumeration
    raise InvalidInputError(field, value, "JSON (null, boolean, number, text, list or object)")


def _refuse_control(field: str, value: str, *, allowed: str) -> None:
    """Refuse what one database would store and another would not: NUL, controls, lone surrogates."""
    for position, character in enumerate(value):
        if unicodedata.category(character) in {"Cc", "Cs"} and character not in allowed:
            raise InvalidInputError(
                field, value, f"free of control characters (U+{ord(character):04X} at position {position})"
            )


def _number_bound(low: float, high: float, above: float | None) -> str:
    if above is not None:
        return f"a finite number greater than {above:g}"
    if math.isinf(low) and math.isinf(high):
        return "a finite number"
    if math.isinf(high):
        return f"a finite number of at least {low:g}"
    return f"a finite number from {low:g} to {high:g}"
