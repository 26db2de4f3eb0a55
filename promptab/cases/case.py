"""One case: what a prompt is given, and what is expected of the answer.

    name: late parcel                             how people call it; by default its place in the list
    variables: {customer: Ada}
    messages: [{role: user, content: Where …?}]   the conversation that follows the prompt
    expect: {contains: Ada, not_contains: [sorry]}

Cases belong to a prompt and not to one version of it: every version is tried on the same ones. So they are no part
of a version's content, its hash included, and may change while versions stay.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import Field

from promptab.checks import check_flag, check_items, check_json_object, check_label, check_mapping, check_text
from promptab.errors import InvalidInputError
from promptab.models import Message
from promptab.records import Json, Record

MAX_CASES = 500
MAX_TEXTS = 50
"""Texts of one kind in one expectation."""
MAX_PATTERN_CHARS = 1_000
MAX_PATTERNS_CHARS = 20_000
"""Of all patterns of a prompt: each is looked at when it is read, which may take 20 microseconds a character."""
MAX_CASES_CHARS = 1_000_000
"""Of all cases of a prompt, as JSON."""

_CASE_KEYS = ("name", "variables", "messages", "expect")
_MESSAGE_KEYS = ("role", "content")
_ROLES: tuple[str, ...] = get_args(Message.model_fields["role"].annotation)
_TEXTS = ("contains", "not_contains", "starts_with", "ends_with", "regex", "python")
_EXPECTED_KEYS = (*_TEXTS, "equals", "ignore_case", "json_schema")
_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
# a set may span all of Unicode only by an escape or by letters that are not ASCII, and building it takes long
_WIDE = re.compile(r"\\[uUN]|[^\x00-\x7f]")


class Expectation(Record):
    """What an answer has to be. All of it has to hold; nothing at all holds for every answer."""

    contains: tuple[str, ...] = ()
    not_contains: tuple[str, ...] = ()
    starts_with: tuple[str, ...] = ()
    ends_with: tuple[str, ...] = ()
    equals: str | None = None
    """The answer, blanks around it aside; so are they for `starts_with` and `ends_with`."""
    ignore_case: bool = False
    """Of `contains`, `not_contains`, `starts_with` and `ends_with`; `equals` is exact."""
    regex: tuple[str, ...] = ()
    """Patterns of Python's `re` that are found somewhere in the answer."""
    json_schema: Json | None = None
    """The answer is JSON and nothing else, and as this schema (draft 2020-12) says."""
    python: tuple[str, ...] = ()
    """Functions as `module:name`, which are run by those only who allow it."""


class Case(Record):
    """One input of a prompt, with what is expected of the answer."""

    name: str
    """Unique among the cases of a prompt."""
    variables: Json = Field(default_factory=dict)
    messages: tuple[Message, ...] = ()
    """The conversation that follows what the prompt renders."""
    expect: Expectation = Field(default_factory=Expectation)


def digest_of(case: Case) -> str:
    """Return SHA-256 in hex over all but the name: a result is one of exactly this input and expectation."""
    # what says nothing is left out, so that parts which later releases add change no digest
    said = {key: part for key, part in case_document(case).items() if key != "name"}
    canonical = json.dumps(said, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def check_cases(field: str, value: object) -> tuple[Case, ...]:
    """Return the cases: records, or mappings as a file has them.

    Raises `InvalidInputError`, whose field is the path of what is wrong, such as `tests[1].expect.regex[0]`.
    """
    items = check_items(field, value)
    if len(items) > MAX_CASES:
        raise InvalidInputError(field, f"{len(items)} cases", f"a list of at most {MAX_CASES}")
    cases = tuple(_case(f"{field}[{index}]", item, index) for index, item in enumerate(items))
    _check_patterns(field, cases)
    if sum(len(json.dumps(case_document(case))) for case in cases) > MAX_CASES_CHARS:
        raise InvalidInputError(
            field, f"{len(cases)} cases", f"at most {MAX_CASES_CHARS} characters of JSON together"
        )
    seen: set[str] = set()
    for index, case in enumerate(cases):
        if case.name in seen:
            raise InvalidInputError(f"{field}[{index}].name", case.name, "a name that no other case has")
        seen.add(case.name)
    return cases


def case_document(case: Case) -> dict[str, Any]:
    """Return the mapping that `check_cases` reads as this case, without what says nothing."""
    written = case.model_dump(mode="json")
    expected = {key: _shortest(value) for key, value in written["expect"].items() if _says(value)}
    whole = {**written, "expect": expected}
    return {key: value for key, value in whole.items() if value not in ({}, [])}


def _says(value: object) -> bool:
    return value is not None and value is not False and value != []


def _shortest(value: object) -> object:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _case(field: str, value: object, index: int) -> Case:
    if isinstance(value, Case):
        value = value.model_dump(mode="json")
    given = _only(field, value, _CASE_KEYS)
    name = given.get("name")
    messages = check_items(f"{field}.messages", given.get("messages") or ())
    return Case(
        name=f"case {index + 1}" if name is None else check_label(f"{field}.name", name),
        variables=check_json_object(f"{field}.variables", given.get("variables") or {}),
        messages=tuple(_message(f"{field}.messages[{at}]", each) for at, each in enumerate(messages)),
        expect=_expectation(f"{field}.expect", given.get("expect") or {}),
    )


def _message(field: str, value: object) -> Message:
    given = _only(field, value, _MESSAGE_KEYS)
    role = given.get("role")
    if role not in _ROLES:
        raise InvalidInputError(f"{field}.role", role, f"one of {', '.join(_ROLES)}")
    return Message(role=role, content=check_text(f"{field}.content", given.get("content")))


def _expectation(field: str, value: object) -> Expectation:
    given = {key: item for key, item in _only(field, value, _EXPECTED_KEYS).items() if item is not None}
    texts = {key: _texts(f"{field}.{key}", given[key]) for key in _TEXTS if key in given}
    for at, function in enumerate(texts.get("python", ())):
        if _FUNCTION.fullmatch(function) is None:
            raise InvalidInputError(
                f"{field}.python[{at}]", function, "a function, such as shop.checks:polite"
            )
    return Expectation(
        **texts,
        equals=None if "equals" not in given else check_text(f"{field}.equals", given["equals"]),
        ignore_case=check_flag(f"{field}.ignore_case", given.get("ignore_case", False)),
        json_schema=_schema(f"{field}.json_schema", given.get("json_schema")),
    )


def _schema(field: str, value: object) -> dict[str, Any] | None:
    from promptab.templates import check_value_schema  # noqa: PLC0415 - see promptab.templates

    return None if value is None else check_value_schema(field, value)


def _only(field: str, value: object, known: tuple[str, ...]) -> Mapping[str, Any]:
    given = check_mapping(field, value)
    if unknown := [key for key in given if key not in known]:
        raise InvalidInputError(f"{field}.{unknown[0]}", unknown[0], f"one of {', '.join(known)}")
    return given


def _texts(field: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [value]
    texts = tuple(check_text(f"{field}[{at}]", text) for at, text in enumerate(check_items(field, value)))
    if len(texts) > MAX_TEXTS:
        raise InvalidInputError(field, f"{len(texts)} texts", f"a list of at most {MAX_TEXTS}")
    if "" in texts:
        raise InvalidInputError(f"{field}[{texts.index('')}]", "", "a text of 1 character or more")
    return texts


def _check_patterns(field: str, cases: Sequence[Case]) -> None:
    """Refuse what is no pattern, as far as that can be told at once; a match has its own limit of time."""
    patterns = [
        (f"{field}[{index}].expect.regex[{at}]", pattern)
        for index, case in enumerate(cases)
        for at, pattern in enumerate(case.expect.regex)
    ]
    if (total := sum(len(pattern) for _, pattern in patterns)) > MAX_PATTERNS_CHARS:
        bound = f"at most {MAX_PATTERNS_CHARS} characters of regular expressions together"
        raise InvalidInputError(field, f"{total} characters of regular expressions", bound)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for place, pattern in patterns:
            _check_pattern(place, pattern)


def _check_pattern(field: str, pattern: str) -> None:
    if len(pattern) > MAX_PATTERN_CHARS:
        bound = f"a regular expression of at most {MAX_PATTERN_CHARS} characters"
        raise InvalidInputError(field, pattern, bound)
    if _WIDE.search(pattern):
        return
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise InvalidInputError(field, pattern, f"a regular expression ({error})") from None
