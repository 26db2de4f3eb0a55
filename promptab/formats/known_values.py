"""What a schema and defaults tell of the values that a foreign template looks up.

Handlebars prints a missing value as nothing and takes it for false; here a missing variable is an error. So the
Jinja2 that stands for `{{#if name}}` depends on whether `name` is certain to be there.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from enum import Enum
from typing import Any, NamedTuple


class Doubt(Enum):
    NONE = "always there, and never null"
    UNKNOWN = "nobody said"
    OPTIONAL = "may be absent or null"


class Shape(NamedTuple):
    """What is known of one value."""

    doubt: Doubt
    kinds: frozenset[str] = frozenset()
    """JSON types that it may have, null left out; empty where nobody said."""
    schema: Mapping[str, Any] | None = None

    def member(self, name: str) -> Shape:
        """A member of an object."""
        return _declared(self.schema, name, Shape(Doubt.UNKNOWN))

    @property
    def item(self) -> Shape:
        """Each item of a list."""
        items = self.schema.get("items") if self.schema is not None else None
        return _of_schema(items, is_present=True) if isinstance(items, Mapping) else Shape(Doubt.UNKNOWN)


class KnownValues:
    """The variables of one template."""

    def __init__(
        self, schema: Mapping[str, Any] | None, defaults: Mapping[str, Any], tested: AbstractSet[str]
    ) -> None:
        """`tested`: names that the template asks about, and so can do without."""
        self._schema = schema
        self._defaults = defaults
        self._tested = tested

    def variable(self, name: str) -> Shape:
        unsaid = Shape(Doubt.OPTIONAL if name in self._tested else Doubt.NONE)
        if self._defaults.get(name) is not None:
            unsaid = Shape(Doubt.NONE)
        declared = _declared(self._schema, name, unsaid)
        if declared.doubt is Doubt.OPTIONAL and name in self._defaults and not _takes_null(declared.schema):
            return declared._replace(doubt=Doubt.NONE)
        return declared


def _declared(schema: Mapping[str, Any] | None, name: str, unsaid: Shape) -> Shape:
    properties = schema.get("properties") if schema is not None else None
    declared = properties.get(name) if isinstance(properties, Mapping) else None
    if schema is None or not isinstance(declared, Mapping):
        return unsaid
    return _of_schema(declared, is_present=name in schema.get("required", ()))


def _of_schema(schema: Mapping[str, Any], *, is_present: bool) -> Shape:
    declared = schema.get("type", [])
    kinds = frozenset([declared] if isinstance(declared, str) else declared) - {"null"}
    certain = is_present and not _takes_null(schema)
    return Shape(Doubt.NONE if certain else Doubt.OPTIONAL, kinds, schema)


def _takes_null(schema: Mapping[str, Any] | None) -> bool:
    if schema is None:
        return False
    declared = schema.get("type", [])
    return "null" in ([declared] if isinstance(declared, str) else declared) or None in schema.get("enum", ())
