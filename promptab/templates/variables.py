"""What a prompt takes: which variables it knows, needs and has defaults for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from promptab.errors import InvalidInputError, VariableError
from promptab.templates.values import plain

if TYPE_CHECKING:
    from promptab.templates.body import Body, Partial
    from promptab.templates.limits import Limits
    from promptab.templates.schema import Schema

_UNCHECKED = frozenset({str, bool, type(None)})


class Interface:
    """The variables of one prompt, and the check of what a render was given."""

    __slots__ = ("_limits", "_schema", "defaults", "known", "required")

    def __init__(
        self, bodies: Iterable[Body], defaults: Mapping[str, Any], schema: Schema | None, limits: Limits
    ) -> None:
        reads: set[str] = set()
        tolerated: set[str] = set()
        for body in bodies:
            reads |= body.reads
            tolerated |= body.tolerated
        needed = reads - tolerated
        if schema is not None:
            reads |= schema.properties | schema.required
            needed |= schema.required
            defaults = {**schema.defaults, **defaults}
        self._limits = limits
        self._schema = schema
        self.defaults = {name: plain(name, value, limits) for name, value in defaults.items()}
        self.known = frozenset(reads | defaults.keys())
        self.required = frozenset(needed - defaults.keys())

    def values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the variables of a render, defaults filled in, as plain copies; or raise `VariableError`."""
        if not isinstance(given, Mapping):
            raise InvalidInputError("variables", given, "a mapping from names to values")
        names = self.defaults.copy()
        for name, value in given.items():
            names[name] = value if type(value) in _UNCHECKED else plain(name, value, self._limits)
        if not names.keys() <= self.known:
            self._refuse_unknown(names)
        if not self.required <= names.keys():
            self._refuse_missing(names)
        if self._schema is not None:
            self._schema.check(names)
        return names

    def _refuse_unknown(self, names: Mapping[Any, Any]) -> None:
        for unknown in names.keys() - self.known:
            if not isinstance(unknown, str):
                kind = type(unknown).__name__
                raise VariableError(
                    kind, f"a variable has a name of type {kind}; names of variables are texts"
                )
        if self._schema is None or not self._schema.open:
            unknown = min(names.keys() - self.known)
            known = ", ".join(sorted(self.known)) or "none"
            raise VariableError(unknown, f"unknown variable {unknown[:80]!r}; the prompt takes {known}")

    def _refuse_missing(self, names: Mapping[str, Any]) -> None:
        missing = sorted(self.required - names.keys())
        others = f" (and {', '.join(missing[1:])})" if missing[1:] else ""
        raise VariableError(
            missing[0], f"missing variable {missing[0]!r}{others}; pass it, or give it a default"
        )


def merged_defaults(own: Mapping[str, Any], includes: Mapping[str, Partial]) -> dict[str, Any]:
    """Defaults of a prompt and of all that it includes: outer before inner, earlier before later."""
    merged = dict(own)
    seen: set[int] = set()
    waiting = list(includes.values())[::-1]
    while waiting:
        partial = waiting.pop()
        if id(partial) not in seen:
            seen.add(id(partial))
            merged = {**partial.defaults, **merged}
            waiting.extend(list(partial.includes.values())[::-1])
    return merged
