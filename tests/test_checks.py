"""What is refused at the door, and in which form the rest comes in."""

from __future__ import annotations

import json
import math
import sys
import time
import unicodedata
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptab import InvalidInputError, NotFoundError
from promptab.checks import (
    CONTROL,
    CONTROL_BUT_BREAKS,
    MAX_SESSION_CHARS,
    check_count,
    check_event_time,
    check_items,
    check_json_object,
    check_label,
    check_mapping,
    check_name,
    check_number,
    check_share,
    check_tag,
    check_text,
    check_time,
    check_unit,
    check_uuid,
    known_id,
    required_id,
)

CHECKS: dict[str, tuple[Any, list[Any], list[Any]]] = {
    "name": (
        check_name,
        ["a", "_x", "0", "my-prompt.v2", "x" * 128],
        ["", "x" * 129, ".a", "-a", "a b", "a/b", "é", "a\n", None, 5, b"a"],
    ),
    "tag": (
        check_tag,
        ["production", "eu:fast/1", "x" * 128],
        ["", "1.0", "^1", "latest", "a b", "x" * 129, "é", None],
    ),
    "label": (
        check_label,
        ["Does it rhyme?", "Überprüfung", "名前", "x" * 200],
        ["", " a", "a ", "a\tb", "a\x00", "x" * 201, "e\u0301", "\ud800", None],
    ),
    "text": (check_text, ["", "two\nlines\t", "x" * 4_000], ["x" * 4_001, "\x00", "\x1b[0m", None, 5]),
    "unit": (
        check_unit,
        ["ada", "Ada Lovelace", "é", "x" * 256],
        ["", "x" * 257, "a\n", 1.5, True, None, 10**31, -(10**31)],
    ),
    "share": (check_share, [0.0, 0.5, 1.0], [-0.001, 1.001, math.nan, math.inf, "1", True, None]),
    "count": (check_count, [0, 1, 2**53], [-1, 2**53 + 1, 10**400, 1.0, True, "1", None]),
}


@pytest.mark.parametrize(
    ("check", "value"),
    [
        pytest.param(check, value, id=f"{name}-{value!r:.20}")
        for name, (check, good, _) in CHECKS.items()
        for value in good
    ],
)
def test_what_is_within_bounds_comes_back_as_it_is(check: Any, value: Any) -> None:
    assert check("field", value) == value


@pytest.mark.parametrize(
    ("check", "value"),
    [
        pytest.param(check, value, id=f"{name}-{value!r:.20}")
        for name, (check, _, bad) in CHECKS.items()
        for value in bad
    ],
)
def test_what_is_out_of_bounds_is_refused_in_one_short_line(check: Any, value: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"^field: ") as refusal:
        check("field", value)
    assert refusal.value.field == "field"
    assert len(str(refusal.value)) < 400
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("number", [1, 0, -7, 10**20])
def test_a_whole_number_is_the_unit_of_its_digits(number: int) -> None:
    assert check_unit("user_id", number) == str(number)


@given(st.uuids())
def test_a_uuid_comes_back_in_its_canonical_form(value: uuid.UUID) -> None:
    for given_as in (value, str(value), str(value).upper(), value.hex):
        assert check_uuid("version_id", given_as) == str(value)


@pytest.mark.parametrize("value", ["", "1.0.0", "g" * 32, "{" + str(uuid.UUID(int=1)) + "}", 5, None])
def test_what_is_no_uuid_is_refused(value: object) -> None:
    with pytest.raises(InvalidInputError, match=r"version_id: .* is not a UUID such as"):
        check_uuid("version_id", value)


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**15), 10**15))
def test_any_finite_number_is_a_number(value: float) -> None:
    assert check_number("cost", value) == value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, "1", None, 1j, 10**400])
def test_what_is_no_finite_number_is_refused(value: object) -> None:
    with pytest.raises(InvalidInputError, match="is not a finite number"):
        check_number("cost", value)


@pytest.mark.parametrize(
    ("bounds", "outside", "bound"),
    [
        ({"low": 1.0, "high": 5.0}, 5.1, "a finite number from 1 to 5"),
        ({"low": 0.0}, -1, "a finite number of at least 0"),
        ({"above": 0.0}, 0, "a finite number greater than 0"),
        ({"low": 0.001, "below": 0.5}, 0.5, "a finite number of at least 0.001 and less than 0.5"),
        ({"below": 0.5}, 0.5, "a finite number less than 0.5"),
    ],
)
def test_the_bound_of_a_number_is_named(bounds: dict[str, float], outside: float, bound: str) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        check_number("rating", outside, **bounds)
    assert refusal.value.bound == bound


@pytest.fixture
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine that is nine hours ahead of UTC."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "JST-9")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("tokyo")
def test_times_come_out_in_utc_wherever_the_machine_is() -> None:
    naive = datetime(2026, 1, 5, 12)  # noqa: DTZ001 - naive times are read as UTC
    east = timezone(timedelta(hours=2))
    assert check_time("time", naive) == datetime(2026, 1, 5, 12, tzinfo=UTC)
    moved = check_time("time", datetime(2026, 1, 5, 12, tzinfo=east))
    assert (moved, moved.tzinfo) == (datetime(2026, 1, 5, 10, tzinfo=UTC), UTC)


@pytest.mark.parametrize(
    "value", ["2026-01-05", 0, None, datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5)))]
)
def test_what_is_no_time_of_utc_is_refused(value: object) -> None:
    with pytest.raises(InvalidInputError, match=r"^start_time: "):
        check_time("start_time", value)


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=8), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=8), JSON_VALUES, max_size=4
    )
)
def test_a_json_object_comes_back_as_an_equal_copy(value: dict[str, Any]) -> None:
    checked = check_json_object("metadata", value)
    assert checked == value
    assert json.loads(json.dumps(checked)) == checked
    assert checked is not value


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ([1], "metadata"),
        ("text", "metadata"),
        ({1: "a"}, "metadata"),
        ({"a": {"b": [0, math.nan]}}, "metadata.a.b[1]"),
        ({"a": object()}, "metadata.a"),
        ({"a": b"bytes"}, "metadata.a"),
        ({"a": 2**63}, "metadata.a"),
        ({"a": "\x00"}, "metadata.a"),
        ({"a\n": 1}, "metadata"),
        ({"a": "\ud800"}, "metadata.a"),
    ],
)
def test_what_json_cannot_hold_is_refused_where_it_stands(value: Any, field: str) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        check_json_object("metadata", value)
    assert refusal.value.field == field


def test_json_that_is_too_deep_or_too_large_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(40):
        deep = {"a": deep}
    with pytest.raises(InvalidInputError, match="nested at most 32 deep"):
        check_json_object("metadata", deep)
    circular: dict[str, Any] = {}
    circular["again"] = circular
    with pytest.raises(InvalidInputError, match="nested at most 32 deep"):
        check_json_object("metadata", circular)
    with pytest.raises(InvalidInputError, match="at most 100000 characters of JSON"):
        check_json_object("metadata", {"a": "x" * 100_000})


def test_a_text_enumeration_comes_in_as_its_text() -> None:
    class Colour(StrEnum):
        RED = "red"

    checked = check_json_object("metadata", {"colour": Colour.RED})
    assert type(checked["colour"]) is str
    assert checked == {"colour": "red"}


def test_control_characters_are_the_unicode_categories_cc_and_cs() -> None:
    every = [chr(code) for code in range(sys.maxunicode + 1)]
    controls = {character for character in every if unicodedata.category(character) in {"Cc", "Cs"}}
    assert set(CONTROL.findall("".join(every))) == controls
    assert set(CONTROL_BUT_BREAKS.findall("".join(every))) == controls - set("\n\r\t")


class Endless(Mapping[str, Any]):
    """A mapping that never ends, of one value under ever new keys."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __getitem__(self, key: str) -> Any:
        return self._value

    def __iter__(self) -> Iterator[str]:
        number = 0
        while True:
            number += 1
            yield str(number)

    def __len__(self) -> int:
        return sys.maxsize


@pytest.mark.parametrize("value", [1, None, "x", [], {}, ["a", {"b": 1.5}]])
def test_json_that_is_too_large_is_refused_before_it_is_read_to_its_end(value: Any) -> None:
    with pytest.raises(InvalidInputError, match="at most 100000 characters of JSON") as refusal:
        check_json_object("metadata", {"inner": Endless(value)})
    assert refusal.value.field == "metadata"


def test_lengths_are_looked_at_before_characters() -> None:
    with pytest.raises(InvalidInputError, match="text of at most 4000 characters"):
        check_text("reason", "\x00" * 4_001)
    with pytest.raises(InvalidInputError, match="characters of JSON"):
        check_json_object("metadata", {"a": "\x00" * 100_000})
    with pytest.raises(InvalidInputError, match="characters of JSON"):
        check_json_object("metadata", {"\x00" * 100_000: 1})


def test_json_is_measured_as_it_is_written() -> None:
    assert check_json_object("metadata", {"a": "é"}, limit=15) == {"a": "é"}
    with pytest.raises(InvalidInputError, match="at most 14 characters"):
        check_json_object("metadata", {"a": "é"}, limit=14)


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=4), JSON_VALUES, max_size=4
    )
)
def test_json_of_exactly_the_limit_is_taken_and_one_character_more_is_refused(value: dict[str, Any]) -> None:
    size = len(json.dumps(value))
    assert check_json_object("metadata", value, limit=size) == value
    with pytest.raises(InvalidInputError, match=f"at most {size - 1} characters of JSON"):
        check_json_object("metadata", value, limit=size - 1)


@given(st.uuids())
def test_a_known_id_is_canonical_whatever_its_case_and_hyphens(value: uuid.UUID) -> None:
    for given_as in (value, str(value), str(value).upper(), value.hex, value.hex.upper()):
        assert known_id(given_as) == str(value)
        assert required_id("version", given_as) == str(value)


NO_IDS = [
    "",
    "1.0.0",
    "g" * 32,
    "{" + "0" * 32 + "}",
    "0x" + "0" * 30,
    "1_" * 16,
    " " + "0" * 31,
    "\N{ARABIC-INDIC DIGIT ZERO}" * 32,
    "-" * 36,
    "0" * 36,
    "\ud800",
    5,
    10**30,
    None,
    [],
    {},
    b"0" * 32,
]


@pytest.mark.parametrize("value", NO_IDS, ids=repr)
def test_what_is_no_id_is_known_to_nobody_and_not_found_by_a_change(value: object) -> None:
    assert known_id(value) is None
    with pytest.raises(NotFoundError, match="an id is a UUID such as"):
        required_id("version", value)
    with pytest.raises(InvalidInputError, match="a UUID such as"):
        check_uuid("version_id", value)


@pytest.mark.parametrize("value", ["abc", b"abc", bytearray(b"abc"), None, 5, 1.5])
def test_what_is_not_several_is_refused_with_the_remedy(value: object) -> None:
    with pytest.raises(InvalidInputError, match=r"^tags: .* is not a list; write a list"):
        check_items("tags", value)


@pytest.mark.parametrize("value", [["a", "b"], ("a", "b"), {"a": 1, "b": 2}, iter("ab")])
def test_several_come_back_in_their_order(value: object) -> None:
    assert check_items("tags", value) == ("a", "b")


@pytest.mark.parametrize("value", [["a"], "a", 5, None, [("a", 1)]])
def test_what_is_no_mapping_is_refused_with_the_remedy(value: object) -> None:
    with pytest.raises(InvalidInputError, match=r"^metrics: .* is not a mapping; write a dict"):
        check_mapping("metrics", value)


@pytest.mark.parametrize("year", [1900, 1969, 2026, 2199])
def test_an_event_may_be_old_or_planned(year: int) -> None:
    moment = datetime(year, 1, 1, tzinfo=UTC)
    assert check_event_time("timestamp", moment) == moment


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1899, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime(2200, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, tzinfo=UTC),
        datetime(2200, 1, 1, tzinfo=timezone(timedelta(hours=-1))),
    ],
)
def test_an_event_of_another_age_is_refused_with_the_bound(moment: datetime) -> None:
    with pytest.raises(InvalidInputError, match="from the year 1900 up to 2200"):
        check_event_time("timestamp", moment)


def test_the_limit_of_a_unit_is_named() -> None:
    assert check_unit("session_id", "s" * MAX_SESSION_CHARS, limit=MAX_SESSION_CHARS)
    with pytest.raises(InvalidInputError, match=r"^session_id: .* a text of 1 to 248 characters"):
        check_unit("session_id", "s" * (MAX_SESSION_CHARS + 1), limit=MAX_SESSION_CHARS)
