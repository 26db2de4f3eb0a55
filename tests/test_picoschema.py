from __future__ import annotations

from typing import Any, NoReturn

import pytest
from jsonschema import Draft202012Validator

from promptab.library.located import JsonPath
from promptab.library.picoschema import is_json_schema, to_json_schema


class RefusedError(Exception):
    def __init__(self, at: JsonPath, message: str) -> None:
        super().__init__(message)
        self.at = at


def refuse(at: JsonPath, message: str) -> NoReturn:
    raise RefusedError(at, message)


def converted(schema: object) -> dict[str, Any]:
    return to_json_schema(schema, refuse=refuse, closed=True)


@pytest.mark.parametrize("kind", ["string", "number", "integer", "boolean", "null"])
def test_scalar_becomes_its_type(kind: str) -> None:
    assert converted(kind) == {"type": kind}


def test_description_follows_the_first_comma_and_may_hold_more() -> None:
    assert converted("integer, in years, rounded down") == {
        "type": "integer",
        "description": "in years, rounded down",
    }


def test_any_allows_everything() -> None:
    assert converted("any, whatever was said") == {"description": "whatever was said"}


def test_object_requires_its_fields_and_refuses_others() -> None:
    assert converted({"name": "string", "age?": "integer"}) == {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": ["integer", "null"]}},
        "required": ["name"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        (
            "a(array, labels)",
            "string",
            {"type": "array", "items": {"type": "string"}, "description": "labels"},
        ),
        ("a?(array)", "string", {"type": ["array", "null"], "items": {"type": "string"}}),
        ("a(enum, mood)", ["calm", "angry"], {"enum": ["calm", "angry"], "description": "mood"}),
        ("a?(enum)", ["calm"], {"enum": ["calm", None]}),
        ("a?(enum)", ["calm", None], {"enum": ["calm", None]}),
        ("a?", "any", {}),
        ("a?", "null", {"type": "null"}),
    ],
)
def test_kinds_of_fields_convert(field: str, value: object, expected: dict[str, Any]) -> None:
    assert converted({field: value})["properties"] == {"a": expected}


@pytest.mark.parametrize("key", ["place(object, where)", "place"], ids=["marked", "plain"])
def test_nested_fields_become_a_closed_object(key: str) -> None:
    place = converted({key: {"street": "string"}})["properties"]["place"]
    assert place["properties"] == {"street": {"type": "string"}}
    assert place["additionalProperties"] is False
    assert place.get("description") == ("where" if "(" in key else None)


def test_object_mark_makes_a_field_called_type_possible() -> None:
    place = converted({"place(object)": {"type": "string"}})["properties"]["place"]
    assert place["properties"] == {"type": {"type": "string"}}


def test_array_of_fields_holds_objects() -> None:
    rows = converted({"rows(array)": {"text": "string"}})["properties"]["rows"]
    assert rows["items"]["required"] == ["text"]


@pytest.mark.parametrize(("value", "expected"), [("any", True), ("string", {"type": "string"})])
def test_wildcard_allows_further_fields(value: str, expected: object) -> None:
    assert converted({"(*)": value})["additionalProperties"] == expected


def test_open_outermost_object_says_nothing_of_further_fields() -> None:
    schema = to_json_schema({"a(object)": {"b": "string"}}, refuse=refuse, closed=False)
    assert "additionalProperties" not in schema
    assert schema["properties"]["a"]["additionalProperties"] is False


def test_converted_schema_accepts_and_rejects_as_written() -> None:
    schema = converted({"name": "string", "tags?(array)": "string", "mood(enum)": ["calm"]})
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    assert validator.is_valid({"name": "Ada", "mood": "calm", "tags": None})
    assert not validator.is_valid({"name": "Ada", "mood": "angry"})
    assert not validator.is_valid({"name": 1, "mood": "calm"})
    assert not validator.is_valid({"name": "Ada", "mood": "calm", "more": 1})


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"type": ["string", "null"]},
        {"properties": {}},
        {"$ref": "#/$defs/a"},
        {"anyOf": [{}]},
        {"enum": [1]},
    ],
)
def test_json_schema_comes_back_as_it_is(schema: dict[str, Any]) -> None:
    assert is_json_schema(schema)
    assert to_json_schema(schema, refuse=refuse, closed=False) == schema


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "the kind of thing"},
        {"properties": "string"},
        {"enum": "string"},
        {"type": "string, kind"},
        "string",
    ],
)
def test_fields_with_the_names_of_keywords_are_fields(schema: object) -> None:
    assert not is_json_schema(schema)


@pytest.mark.parametrize(
    ("schema", "at"),
    [
        ({"a": {"b": "strin"}}, ("a", "b")),
        ({"a": 3}, ("a",)),
        ({"a(list)": "string"}, ("a(list)",)),
        ({"a(enum)": "calm"}, ("a(enum)",)),
        ({"a(enum)": []}, ("a(enum)",)),
        ({"a(object)": "string"}, ("a(object)",)),
        ({"a": "string", "a?": "string"}, ("a?",)),
        ({"a((": "string"}, ("a((",)),
        ([], ()),
        (None, ()),
    ],
)
def test_refusal_names_the_place(schema: object, at: JsonPath) -> None:
    with pytest.raises(RefusedError) as refused:
        converted(schema)
    assert refused.value.at == at


def test_long_hostile_field_is_refused_and_not_searched_for_ever() -> None:
    with pytest.raises(RefusedError):
        converted({"(" * 200_000: "string"})
