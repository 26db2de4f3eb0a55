"""Inputs and outputs of Prompty, a list or a mapping of properties with a kind, to JSON Schema and back.

Prompty 2 says `kind`, Prompty 1 `type`; 1 has values in their place as samples (`name: Jane`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from promptab.formats.foreign import ForeignKeys
from promptab.library.located import JsonPath

_TYPES = {
    "string": "string", "integer": "integer", "float": "number", "number": "number", "boolean": "boolean",
    "array": "array", "list": "array", "object": "object",
}  # fmt: skip
_KINDS = {
    "string": "string",
    "integer": "integer",
    "number": "float",
    "boolean": "boolean",
    "array": "array",
    "object": "object",
}
_KNOWN = frozenset({
    "name", "kind", "type", "description", "required", "default", "sample", "example", "enumValues", "enum",
    "items", "properties",
})  # fmt: skip
_SCHEMA_WORDS = frozenset(
    {"type", "description", "enum", "items", "properties", "required", "additionalProperties"}
)
_MAX_DEPTH = 16


class Properties(NamedTuple):
    """A list of properties, read."""

    schema: dict[str, Any] | None
    """JSON Schema of the object that has them; None where none is declared."""
    defaults: dict[str, Any]
    samples: dict[str, Any]
    notes: tuple[str, ...]


def read_properties(keys: ForeignKeys, key: str) -> Properties:
    """Read `inputs` or `outputs`. Refuses kinds that are no data (threads, images, files) with their line."""
    reader = _Reader(keys)
    declared = keys.value.get(key)
    if not declared:
        return Properties(None, {}, {}, ())
    schema = reader.members(declared, (key,), outermost=True, depth=0)
    return Properties(schema, reader.defaults, reader.samples, tuple(reader.notes))


def written_properties(
    schema: Mapping[str, Any], defaults: Mapping[str, Any], lost: list[str], where: str
) -> list[dict[str, Any]]:
    """The properties of an object's schema as Prompty 2 lists them; what it has no word for is added to `lost`."""
    properties = schema.get("properties")
    declared = properties if isinstance(properties, Mapping) else {}
    required = schema.get("required", ())
    lost += [f"{where}: {word}" for word in sorted(set(schema) - {"type", "properties", "required"})]
    names = [*declared, *(name for name in defaults if name not in declared)]
    names += [name for name in required if name not in names]
    return [
        _property(name, declared.get(name, {}), defaults, lost, where, required=name in required)
        for name in names
    ]


def _property(
    name: str, schema: object, defaults: Mapping[str, Any], lost: list[str], where: str, *, required: bool
) -> dict[str, Any]:
    here = f"{where}.{name}"
    told: dict[str, Any] = {"name": name, **_kind(schema if isinstance(schema, Mapping) else {}, lost, here)}
    if required:
        told["required"] = True
    if name in defaults:
        told["default"] = defaults[name]
    return told


def _kind(schema: Mapping[str, Any], lost: list[str], where: str) -> dict[str, Any]:
    declared = schema.get("type")
    listed = declared if isinstance(declared, list | tuple) else [declared]
    kinds = [_KINDS[kind] for kind in listed if kind in _KINDS]
    told: dict[str, Any] = {"kind": kinds[0]} if kinds else {}
    if len(listed) > 1:
        lost.append(f"{where}: the other types of {', '.join(map(str, listed))}")
    if "description" in schema:
        told["description"] = schema["description"]
    if "enum" in schema:
        told["enumValues"] = schema["enum"]
    items = schema.get("items")
    if isinstance(items, Mapping) and items:
        told["items"] = _kind(items, lost, f"{where}[]")
    if isinstance(schema.get("properties"), Mapping):
        told["properties"] = [
            _property(name, inner, {}, lost, where, required=name in schema.get("required", ()))
            for name, inner in schema["properties"].items()
        ]
    lost += [f"{where}: {word}" for word in sorted(set(schema) - _SCHEMA_WORDS)]
    if "additionalProperties" in schema:
        lost.append(f"{where}: additionalProperties")
    return told


class _Reader:
    def __init__(self, keys: ForeignKeys) -> None:
        self.keys = keys
        self.defaults: dict[str, Any] = {}
        self.samples: dict[str, Any] = {}
        self.notes: list[str] = []

    def members(self, declared: object, at: JsonPath, *, outermost: bool, depth: int) -> dict[str, Any]:
        if depth > _MAX_DEPTH:
            self.keys.refuse(at, f"properties nest more than {_MAX_DEPTH} deep")
        properties: dict[str, Any] = {}
        required: list[str] = []
        for name, value, here in self.listed(declared, at):
            properties[name] = self.property(name, value, here, outermost=outermost, depth=depth)
            if isinstance(value, Mapping) and value.get("required") is True:
                required.append(name)
        schema: dict[str, Any] = {"type": "object", "properties": properties}
        return schema | ({"required": required} if required else {})

    def listed(self, declared: object, at: JsonPath) -> list[tuple[str, Any, JsonPath]]:
        """Name, declaration and place of each property."""
        if isinstance(declared, Mapping):
            return [(name, value, (*at, name)) for name, value in declared.items()]
        if not isinstance(declared, list):
            self.keys.refuse(at, "expected a list of properties with a name and a kind, or names with these")
        found = []
        for index, value in enumerate(declared):
            name = value.get("name") if isinstance(value, Mapping) else None
            if not isinstance(name, str):
                self.keys.refuse((*at, index), "expected a property with a name")
            found.append((name, value, (*at, index)))
        return found

    def property(self, name: str, value: Any, at: JsonPath, *, outermost: bool, depth: int) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            # `name: string` declares, `name: Jane` gives a sample
            if isinstance(value, str) and value in _TYPES:
                return {"type": _TYPES[value]}
            if outermost:
                self.samples[name] = value
            return {}
        if outermost:
            self.values(name, value)
        return self.schema(value, at, depth)

    def values(self, name: str, value: Mapping[str, Any]) -> None:
        if value.get("default") is not None:
            self.defaults[name] = value["default"]
        for key in ("sample", "example"):
            if value.get(key) is not None:
                self.samples[name] = value[key]

    def schema(self, value: Mapping[str, Any], at: JsonPath, depth: int) -> dict[str, Any]:
        kind = value.get("kind", value.get("type"))
        schema: dict[str, Any] = {}
        if kind not in {None, "", "*", "any"}:
            if not isinstance(kind, str) or kind.lower() not in _TYPES:
                self.keys.refuse(at, f"the kind {kind!r:.80} is not supported; there are {', '.join(_TYPES)}")
            schema["type"] = _TYPES[kind.lower()]
        if isinstance(value.get("description"), str):
            schema["description"] = value["description"]
        if values := value.get("enumValues", value.get("enum")):
            schema["enum"] = values
        items = value.get("items")
        if isinstance(items, Mapping):
            schema["items"] = self.schema(items, (*at, "items"), depth + 1)
        if value.get("properties"):
            schema |= self.members(value["properties"], (*at, "properties"), outermost=False, depth=depth + 1)
        if others := sorted(set(value) - _KNOWN):
            self.notes.append(f"{'.'.join(map(str, at))}: {', '.join(others)} has no meaning here")
        return schema
