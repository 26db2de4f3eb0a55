"""Targeting: a condition over a unit's attributes, such as `plan == 'premium' and age > 18`, in the sandbox
of templates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from promptab.errors import InvalidInputError, TemplateError, VariableError
from promptab.templates.body import Body
from promptab.templates.budget import Budget, NotAllowedError, UndefinedVariableError
from promptab.templates.calls import GLOBALS
from promptab.templates.compiler import Names, compile_syntax
from promptab.templates.limits import Limits
from promptab.templates.syntax import OUTCOME, parse_condition
from promptab.templates.values import plain

_LIMITS = Limits(source_chars=4_000, steps=100_000, built_chars=1_000_000)
_NAME = "condition"


class Condition:
    """A compiled condition. Immutable: any number of threads and tasks may share it."""

    __slots__ = ("_body", "attributes", "expression")

    def __init__(self, expression: str, body: Body) -> None:
        self._body = body
        self.expression = expression
        self.attributes = body.reads
        """The attributes that it asks for."""

    def holds(self, attributes: Mapping[str, Any]) -> bool:
        """Tell whether it holds; attributes that it does not ask for are not looked at.

        `VariableError` names a missing attribute, unless the condition asks by `is defined` or gives a
        `default`.
        """
        if not isinstance(attributes, Mapping):
            raise InvalidInputError("attributes", attributes, "a mapping from names to values")
        names = Names(GLOBALS)
        for name in self.attributes:
            if name in attributes:
                names[name] = plain(name, attributes[name], _LIMITS)
            elif name not in self._body.tolerated:
                raise VariableError(name, f"missing attribute {name!r} of the condition {self.expression!r}")
        self._body.render(names, Budget(_LIMITS))
        outcome = names[OUTCOME]
        try:
            return bool(Budget(_LIMITS).comparable(outcome))
        except UndefinedVariableError as error:
            message = f"the condition {self.expression!r} asks for {error}, which is undefined"
            raise VariableError(str(error), message) from error
        except NotAllowedError as error:
            raise TemplateError("is not true or false", template=_NAME, line=1) from error


def compile_condition(expression: str) -> Condition:
    """Compile an expression of at most 4000 characters.

    `TemplateError` for what does not parse or is not allowed, `TemplateLimitError` for what is too large.
    """
    syntax = parse_condition(expression, name=_NAME, limits=_LIMITS)
    return Condition(expression, Body(compile_syntax(syntax, name=_NAME, filename="<condition>"), _NAME, ()))
