"""`validation`: what it admits, what its errors name, and that no schema fetches anything or runs for long."""

from __future__ import annotations

import socket
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from promptab.errors import InvalidInputError, TemplateLimitError, VariableError
from promptab.models import MessageTemplate
from promptab.templates import check_schema, compile_prompt


class Address(BaseModel):
    city: str


class Ticket(BaseModel):
    customer: str = Field(min_length=1)
    priority: Literal["low", "high"] = "low"
    age: int = Field(ge=0)
    address: Address


def render(validation: Any, variables: dict[str, Any], source: str = "x") -> str:
    messages = [MessageTemplate(role="user", content=source)]
    return compile_prompt(messages=messages, validation=validation, name="system/x").text(variables)


def test_pydantic_model_gives_its_schema() -> None:
    schema = check_schema(Ticket)
    assert schema["required"] == ["customer", "age", "address"]
    assert schema["properties"]["priority"]["default"] == "low"
    variables = {"customer": "Ada", "age": 3, "address": Address(city="London")}
    source = "{{ customer }} {{ priority }} {{ address.city }}"
    assert render(schema, variables, source) == "Ada low London"
    assert render(Ticket, variables, source) == "Ada low London"


def test_older_form_with_required_params_becomes_a_schema() -> None:
    assert check_schema({"level": "error", "required_params": ["a", "b"]}) == {
        "type": "object",
        "properties": {"a": {}, "b": {}},
        "required": ["a", "b"],
    }


@pytest.mark.parametrize(
    ("variables", "variable", "message"),
    [
        ({"age": 3, "address": {"city": "x"}}, "customer", "missing variable 'customer'"),
        (
            {"customer": "", "age": 3, "address": {"city": "x"}},
            "customer",
            "'' is not a text of at least 1 char|what `minLength`",
        ),
        (
            {"customer": "a", "age": -1, "address": {"city": "x"}},
            "age",
            r"variable age: -1 is not at least 0",
        ),
        (
            {"customer": "a", "age": "3", "address": {"city": "x"}},
            "age",
            r"variable age: '3' is not of type 'integer'",
        ),
        ({"customer": "a", "age": True, "address": {"city": "x"}}, "age", r"True is not of type 'integer'"),
        (
            {"customer": "a", "age": 3, "address": {"city": 5}},
            "address",
            r"variable address\.city: 5 is not of type 'string'",
        ),
        ({"customer": "a", "age": 3, "address": {}}, "address", r"an object with the members \['city'\]"),
        (
            {"customer": "a", "age": 3, "address": {"city": "x"}, "priority": "mid"},
            "priority",
            r"one of \['low', 'high'\]",
        ),
        (
            {"customer": "a", "age": 3, "address": {"city": "x"}, "extra": 1},
            "extra",
            "unknown variable 'extra'",
        ),
    ],
)
def test_variable_that_is_not_as_declared_is_named(
    variables: dict[str, Any], variable: str, message: str
) -> None:
    with pytest.raises(VariableError, match=message) as caught:
        render(Ticket, variables)
    assert caught.value.variable == variable


def test_long_values_are_shortened_in_errors() -> None:
    with pytest.raises(VariableError) as caught:
        render({"properties": {"v": {"type": "integer"}}}, {"v": "a" * 100_000})
    assert len(str(caught.value)) < 300


def test_items_of_lists_are_named_by_position() -> None:
    schema = {"properties": {"tags": {"type": "array", "items": {"type": "string"}}}}
    with pytest.raises(VariableError, match=r"variable tags\[1\]: 5 is not of type 'string'"):
        render(schema, {"tags": ("a", 5)})


def test_rules_between_variables_are_checked() -> None:
    schema = {"properties": {"a": {}, "b": {}}, "dependentRequired": {"a": ["b"]}}
    assert render(schema, {"a": 1, "b": 2}) == "x"
    with pytest.raises(VariableError, match="dependentRequired"):
        render(schema, {"a": 1})


def test_variable_that_a_closed_schema_does_not_declare_is_named() -> None:
    schema = {"properties": {"a": {}}, "additionalProperties": False}
    with pytest.raises(VariableError, match="variable b is not declared"):
        render(schema, {"a": 1, "b": 2}, "{{ a }}{{ b }}")


def test_defaults_of_a_schema_make_variables_optional() -> None:
    schema = {"properties": {"tone": {"type": "string", "default": "warm"}}, "required": ["tone"]}
    assert render(schema, {}, "{{ tone }}") == "warm"


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        ("x", "a JSON object"),
        ({"type": "array"}, '"object"'),
        ({"properties": {"a": {"type": "strnig"}}}, r"validation\.properties\.a\.type: 'strnig'"),
        ({"properties": []}, "valid JSON Schema"),
        ({"required": "a"}, r"validation\.required"),
        ({"properties": {"a": {"pattern": "("}}}, "valid JSON Schema"),
        ({"properties": {"a": {"minimum": float("nan")}}}, "finite"),
        ({"properties": {"a": {"default": object()}}}, "JSON"),
        ({"level": "warning", "required_params": ["a"]}, r"validation\.level"),
        ({"level": "error", "required_params": "a"}, "a list of variable names"),
        ({"required_params": [1]}, "a list of variable names"),
        ({"required_params": ["a"], "optional_params": ["b"]}, "optional_params"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "2020-12"),
        (
            {"properties": {"a": {"$schema": "http://json-schema.org/draft-07/schema#"}}},
            "only the whole schema",
        ),
        ({"$id": "https://example.com/x"}, "left out"),
    ],
)
def test_invalid_schema_is_refused(validation: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        check_schema(validation)
    assert caught.value.field.startswith("validation")


@pytest.mark.parametrize(
    "reference",
    [
        "http://127.0.0.1:9/x.json",
        "https://example.com/x",
        "file:///etc/passwd",
        "other.json",
        "//example.com/x",
        "#/$defs/absent",
        "#anchor",
        "urn:x",
        "",
    ],
)
@pytest.mark.parametrize("keyword", ["$ref", "$dynamicRef"])
def test_reference_that_leads_out_of_the_schema_is_refused(
    keyword: str, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args: asked.append(args))
    monkeypatch.setattr(socket.socket, "connect", lambda *args: asked.append(args))
    with pytest.raises(InvalidInputError, match="a reference to a part of this schema"):
        check_schema({"properties": {"a": {"anyOf": [{keyword: reference}]}}})
    assert asked == []


def test_words_that_are_data_are_not_taken_for_references() -> None:
    schema = {"properties": {"a": {"const": {"$ref": "http://x"}}, "$ref": {"type": "string"}}}
    assert check_schema(schema) == schema


def test_references_inside_the_schema_are_followed() -> None:
    schema = {"$defs": {"a/b": {"type": "integer"}}, "properties": {"v": {"$ref": "#/$defs/a~1b"}}}
    assert render(schema, {"v": 1}) == "x"
    with pytest.raises(VariableError, match="integer"):
        render(schema, {"v": "1"})


def test_recursive_schema_checks_recursive_data() -> None:
    schema = {"$defs": {"t": {"properties": {"kids": {"items": {"$ref": "#/$defs/t"}}, "n": {"type": "integer"}}}},
              "properties": {"v": {"$ref": "#/$defs/t"}}}  # fmt: skip
    assert render(schema, {"v": {"kids": [{"n": 1, "kids": []}]}}) == "x"
    with pytest.raises(VariableError, match=r"v\.kids\[0\]\.n"):
        render(schema, {"v": {"kids": [{"n": "1"}]}})


def _doubling() -> dict[str, Any]:
    definitions: dict[str, Any] = {"p0": {"type": "integer"}}
    for level in range(1, 40):
        definitions[f"p{level}"] = {"allOf": [{"$ref": f"#/$defs/p{level - 1}"}] * 2}
    return {"$defs": definitions, "properties": {"v": {"$ref": "#/$defs/p39"}}}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (_doubling(), 1),
        ({"properties": {"v": {"$ref": "#/properties/v"}}}, 1),
        ({"properties": {"v": {"uniqueItems": True}}}, [[number] for number in range(5_000)]),
        ({"properties": {"v": {"pattern": "^a*a*a*a*a*b$"}}}, "a" * 5_000),
        ({"properties": {"v": {"pattern": "a.*b.*c.*d"}}}, "ab" * 5_000),
        ({"properties": {"v": {"patternProperties": {"^a*a*a*b$": {}}}}}, {"a" * 3_000: 1}),
        ({"properties": {"v": {"items": {"enum": list(range(1_000))}}}}, list(range(9_000))),
    ],
    ids=[
        "doubling references",
        "endless reference",
        "unique",
        "pattern",
        "search",
        "pattern of names",
        "enum",
    ],
)
def test_schema_that_takes_long_is_stopped(schema: dict[str, Any], value: Any) -> None:
    with pytest.raises(TemplateLimitError, match=r"checking the variables|without end"):
        render(schema, {"v": value})


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(a|a)*$", "(a|aa){1,99}$", r"(a)\1", "(?=a)b", "(?P<n>a)", r"^([ab]*)+$"]
)
def test_pattern_that_may_take_exponential_time_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidInputError, match="a pattern without repeated groups"):
        check_schema({"properties": {"v": {"pattern": pattern}}})
    with pytest.raises(InvalidInputError, match="a pattern without repeated groups"):
        check_schema({"properties": {"v": {"patternProperties": {pattern: {}}}}})


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        ("^[A-Z]{2}-[0-9]+$", "AB-12", "ab-12"),
        (r"^[^@ ]+@[^@ ]+\.[a-z]+$", "ada@example.com", "ada"),
        ("^(a|b)?c$", "bc", "abc"),
    ],
)
def test_everyday_patterns_are_checked(pattern: str, good: str, bad: str) -> None:
    schema = {"properties": {"v": {"type": "string", "pattern": pattern}}}
    assert render(schema, {"v": good}) == "x"
    with pytest.raises(VariableError, match="a text that matches"):
        render(schema, {"v": bad})


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("a?" * 40 + "a" * 40 + "b", "a" * 40),
        ("(?:a|[a])" * 40 + "b", "a" * 40),
        ("(?:a|[ab]|[abc])" * 20 + "!", "a" * 20),
        ("x*" * 12 + "y", "x" * 400),
    ],
    ids=["optional", "alternatives", "three_ways", "repeats"],
)
def test_a_pattern_with_too_many_ways_to_match_is_stopped_before_it_is_tried(pattern: str, text: str) -> None:
    schema = {"properties": {"a": {"type": "string", "pattern": pattern}}}
    with pytest.raises(TemplateLimitError, match="more than 200000 steps"):
        render(check_schema(schema), {"a": text}, "{{ a }}")


@pytest.mark.parametrize(
    "pattern", [r"^(mon|tue|wed|thu|fri|sat|sun)$", r"^[a?*+|()]?\?\*$", r"colou?r|gr[ae]y"]
)
def test_an_ordinary_pattern_is_tried(pattern: str) -> None:
    schema = check_schema({"properties": {"a": {"type": "string", "pattern": pattern}}})
    with pytest.raises(VariableError):
        render(schema, {"a": "x" * 60}, "{{ a }}")
