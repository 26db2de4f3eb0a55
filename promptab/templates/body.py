"""Compiled templates with what they include: a tree of bodies that renders to text.

There is no loader: a body includes what its own partial was pinned to, so one reference may mean two bodies
in two partials.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple

from jinja2.exceptions import TemplateError as JinjaError
from jinja2.utils import missing

from promptab.errors import PromptabError, TemplateError, TemplateLimitError, VariableError
from promptab.templates.budget import Budget, NotAllowedError, TooCostlyError, UndefinedVariableError
from promptab.templates.calls import GLOBALS
from promptab.templates.compiler import Code, Names, Scope, compile_syntax
from promptab.templates.limits import Limits
from promptab.templates.syntax import Syntax, parse

# All that evaluating a template on plain values can raise; anything else would be a mistake of ours and stays
# visible
_EVALUATION_ERRORS = (
    NotAllowedError, JinjaError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError,
    ValueError,
)  # fmt: skip


class Partial(NamedTuple):
    """The body of an included prompt, already pinned."""

    source: str
    defaults: Mapping[str, Any] = {}
    includes: Mapping[str, Partial] = {}
    """Include reference as written in `source` -> the body that it is pinned to."""


class Body:
    """One compiled template and the bodies that its include tags stand for, in their order."""

    __slots__ = ("code", "includes", "label", "reads", "tolerated")

    reads: frozenset[str]
    """Variables that it needs from outside, includes counted."""
    tolerated: frozenset[str]
    """Those among them that it can do without."""

    def __init__(self, code: Code, label: str, includes: tuple[Body, ...]) -> None:
        self.code = code
        self.label = label
        self.includes = includes
        reads, tolerated = set(code.reads), set(code.tolerated)
        for site, body in zip(code.includes, includes, strict=True):
            reads |= body.reads - site.assigned
            tolerated |= body.tolerated
        self.reads = frozenset(reads - GLOBALS.keys())
        self.tolerated = frozenset(tolerated)

    def include(self, index: int, scope: Scope, assigned: Mapping[str, Any], /) -> list[str]:
        """Render an include tag; compiled code calls this with its own scope and local names."""
        body = self.includes[index]
        budget = scope.budget
        budget.spend(body.code.cost + len(scope.vars) + len(assigned))
        names = Names(scope.vars)
        names.update((name, value) for name, value in assigned.items() if value is not missing)
        budget.enter()
        try:
            return list(body.code.run(Scope(names, budget, body)))
        finally:
            budget.depth += 1

    def render(self, names: Names, budget: Budget) -> list[str]:
        """Return the pieces of the text; every failure is one of promptab's errors and names the line."""
        try:
            return list(self.code.run(Scope(names, budget, self)))
        except UndefinedVariableError as error:
            label, line = self._position(error.__traceback__)
            raise VariableError(str(error), f"{label}, line {line}: {error} is undefined") from error
        except (TooCostlyError, RecursionError, MemoryError) as error:
            label, line = self._position(error.__traceback__)
            message = (
                str(error)
                if isinstance(error, TooCostlyError)
                else "nests too deeply or needs too much memory"
            )
            raise TemplateLimitError(f"line {line}: {message}", template=label) from error
        except PromptabError:
            raise
        except _EVALUATION_ERRORS as error:
            label, line = self._position(error.__traceback__)
            message = "the result is too large a number" if isinstance(error, OverflowError) else str(error)
            raise TemplateError(message, template=label, line=line) from error

    def _position(self, traceback: TracebackType | None) -> tuple[str, int | None]:
        """Return label and line of the innermost template that was running."""
        bodies = {body.code.filename: body for body in self._all()}
        label, line = self.label, None
        while traceback is not None:
            body = bodies.get(traceback.tb_frame.f_code.co_filename)
            if body is not None:
                label, line = body.label, body.code.line_of(traceback.tb_lineno)
            traceback = traceback.tb_next
        return label, line

    def _all(self) -> Iterator[Body]:
        seen: set[int] = set()
        waiting = [self]
        while waiting:
            body = waiting.pop()
            if id(body) not in seen:
                seen.add(id(body))
                yield body
                waiting += body.includes


class Assembly:
    """Compiles the templates of one prompt, each included body once, and counts them."""

    def __init__(self, name: str, limits: Limits) -> None:
        self.name = name
        self.limits = limits
        self._partials: dict[int, Body] = {}
        self._count = 0

    def body(self, source: str, label: str, includes: Mapping[str, Partial]) -> Body:
        return self._compiled(
            parse(source, name=label, limits=self.limits), label, includes, self.limits.depth
        )

    def _compiled(self, syntax: Syntax, label: str, includes: Mapping[str, Partial], depth: int) -> Body:
        self._count += 1
        code = compile_syntax(syntax, name=label, filename=f"<prompt template {self._count}>")
        return Body(
            code,
            label,
            tuple(self._included(site.reference, label, includes, depth) for site in code.includes),
        )

    def _included(self, reference: str, parent: str, includes: Mapping[str, Partial], depth: int) -> Body:
        partial = includes.get(reference)
        if partial is None:
            raise TemplateError(
                f"includes {reference!r}, which is not pinned to any version", template=parent
            )
        # the caller's tree keeps each partial alive, so its id stays its own while we compile
        if id(partial) not in self._partials:
            if depth <= 0:
                raise TemplateLimitError(
                    f"includes nest more than {self.limits.depth} deep (limit `depth`)", template=self.name
                )
            if len(self._partials) >= self.limits.includes:
                raise TemplateLimitError(
                    f"includes more than {self.limits.includes} bodies (limit `includes`)", template=self.name
                )
            syntax = parse(partial.source, name=reference, limits=self.limits)
            self._partials[id(partial)] = self._compiled(syntax, reference, partial.includes, depth - 1)
        return self._partials[id(partial)]
