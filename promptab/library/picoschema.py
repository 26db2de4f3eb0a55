"""Picoschema, the short notation for schemas in Dotprompt front matter, to JSON Schema.

    name: string, the customer's name
    age?: integer                       optional, and null is allowed
    tags(array, free labels): string
    mood(enum): [calm, angry]
    address(object):
      street: string
    (*): any                            further fields are allowed

Notation: https://google.github.io/dotprompt/reference/picoschema/
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from promptab.library.located import JsonPath

Refuse = Callable[[JsonPath, str], NoReturn]

_SCALARS = ("string", "number", "integer", "boolean", "null", "any")
_JSON_TYPES = {"string", "number", "integer", "boolean", "null", "object", "array"}
_FIELD = re.compile(
    r"(?P<name>[^()?,]+)(?P<optional>\?)?(?:\((?P<kind>[^(),]+)(?:,(?P<description>.*))?\))?", re.DOTALL
)
_WILDCARD = "(*)"


def is_json_schema(schema: object) -> bool:
    """Whether a schema is written as JSON Schema: whatever could not, or should not, be read as fields."""
    if not isinstance(schema, Mapping):
        return False
    declared = schema.get("type")
    return (
        not schema
        or (isinstance(declared, str) and declared in _JSON_TYPES)
        or isinstance(declared, list)
        or isinstance(schema.get("properties"), Mapping)
        or (isinstance(schema.get("$ref"), str) or isinstance(schema.get("$schema"), str))
        or any(isinstance(schema.get(word), list) for word in ("anyOf", "oneOf", "allOf", "enum"))
    )


def to_json_schema(schema: object, *, refuse: Refuse, closed: bool) -> dict[str, Any]:
    """Convert Picoschema; JSON Schema, also as a part of Picoschema, comes back as it is.

    Args:
        schema: a scalar ("string, description"), a mapping of fields, or JSON Schema.
        refuse: called with the path of the part that is wrong, and what is wrong with it; has to raise.
        closed: whether the outermost object refuses further fields, as inner objects without `(*)` do.
    """
    converted = _convert(schema, (), refuse)
    if not closed and not is_json_schema(schema) and converted.get("additionalProperties") is False:
        del converted["additionalProperties"]
    return converted


def _convert(schema: object, at: JsonPath, refuse: Refuse) -> dict[str, Any]:
    if isinstance(schema, str):
        return _scalar(schema, at, refuse)
    if not isinstance(schema, Mapping):
        refuse(at, "expected a type such as 'string', or fields")
    if is_json_schema(schema):
        return dict(schema)
    return _object(schema, at, refuse)


def _scalar(text: str, at: JsonPath, refuse: Refuse) -> dict[str, Any]:
    kind, _, description = (part.strip() for part in text.partition(","))
    if kind not in _SCALARS:
        refuse(at, f"{kind[:80]!r} is not one of the types {', '.join(_SCALARS)}")
    converted: dict[str, Any] = {} if kind == "any" else {"type": kind}
    return converted | ({"description": description} if description else {})


def _object(fields: Mapping[str, Any], at: JsonPath, refuse: Refuse) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    required: list[str] = []
    further: bool | dict[str, Any] = False
    for key, value in fields.items():
        here = (*at, key)
        if key.strip() == _WILDCARD:
            further = _convert(value, here, refuse) or True
            continue
        field = _FIELD.fullmatch(key.strip())
        if field is None:
            refuse(here, f"{key[:80]!r} is not a field such as 'name', 'name?' or 'name(array, description)'")
        name = field["name"].strip()
        if name in properties:
            refuse(here, f"the field {name[:80]!r} is there twice")
        properties[name] = _property(field, value, here, refuse)
        if not field["optional"]:
            required.append(name)
    converted: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": further}
    return converted | ({"required": required} if required else {})


def _property(field: re.Match[str], value: object, at: JsonPath, refuse: Refuse) -> dict[str, Any]:
    kind = (field["kind"] or "").strip()
    if kind == "array":
        converted: dict[str, Any] = {"type": "array", "items": _convert(value, at, refuse)}
    elif kind == "enum":
        if not isinstance(value, list) or not value:
            refuse(at, "an enum needs a list of its values")
        converted = {"enum": list(value)}
    elif kind == "object":
        if not isinstance(value, Mapping):
            refuse(at, "an object needs its fields")
        converted = _object(value, at, refuse)
    elif not kind:
        converted = _convert(value, at, refuse)
    else:
        refuse(at, f"({kind[:80]}) is not one of (array), (object), (enum)")
    if field["optional"]:
        converted = _nullable(converted)
    description = (field["description"] or "").strip()
    return converted | ({"description": description} if description else {})


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    """Allow null beside what the schema allows: an optional field may be left out or be null."""
    if "enum" in schema:
        values = schema["enum"]
        schema = schema | {"enum": values if None in values else [*values, None]}
    if isinstance(kind := schema.get("type"), str) and kind != "null":
        schema = schema | {"type": [kind, "null"]}
    return schema
