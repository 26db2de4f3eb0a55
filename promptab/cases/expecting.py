"""What of an expectation an answer does not meet, as far as the text alone tells."""

from __future__ import annotations

import json

from promptab.cases.case import Expectation
from promptab.records import Json

_SHOWN_CHARS = 200


def unmet(expected: Expectation, answer: str) -> list[str]:
    """Return a sentence for each part that does not hold; patterns and functions are not looked at here."""
    core = answer.strip()
    fold = str.casefold if expected.ignore_case else str
    whole, bare = fold(answer), fold(core)
    found = [f"does not contain {_shown(text)}" for text in expected.contains if fold(text) not in whole]
    found += [f"contains {_shown(text)}" for text in expected.not_contains if fold(text) in whole]
    found += [
        f"does not start with {_shown(text)}"
        for text in expected.starts_with
        if not bare.startswith(fold(text))
    ]
    found += [
        f"does not end with {_shown(text)}" for text in expected.ends_with if not bare.endswith(fold(text))
    ]
    if expected.equals is not None and core != expected.equals.strip():
        found.append(f"is not {_shown(expected.equals)}")
    if expected.json_schema is not None:
        found += _against_schema(expected.json_schema, core)
    return found


def _against_schema(schema: Json, text: str) -> list[str]:
    from promptab.templates import schema_violation  # noqa: PLC0415 - see promptab.templates

    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return [f"is no JSON ({error})"]
    violation = schema_violation(schema, value)
    return [] if violation is None else [f"is not as the JSON schema says: {violation}"]


def _shown(text: str) -> str:
    return repr(text) if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]!r}…"
