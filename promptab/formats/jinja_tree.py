"""Templates as trees, for the formats that promptab's Jinja2 is turned into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jinja2 import nodes

from promptab.errors import TemplateError, TemplateLimitError
from promptab.templates import Limits
from promptab.templates.syntax import parse


class Origin(NamedTuple):
    """Which template is turned into what, for refusals."""

    label: str
    language: str
    """What cannot say it, such as "Handlebars"."""

    def refusal(self, node: nodes.Node, what: str) -> TemplateError:
        return TemplateError(f"{self.language} cannot say {what}", template=self.label, line=node.lineno)


def check_size(chars: int, *, label: str) -> None:
    """Refuse a template that is too large to be one, before any work is spent on it. Raises `TemplateLimitError`."""
    limit = Limits().source_chars
    if chars > limit:
        message = f"has {chars} characters, more than {limit} (limit `source_chars`)"
        raise TemplateLimitError(message, template=label)


def tree(source: str, origin: Origin) -> Sequence[nodes.Node]:
    """The statements of a template, which promptab has accepted. Raises as `inspect_template`."""
    return parse(source, name=origin.label, limits=Limits()).tree.body


def described(node: nodes.Node) -> str:
    """A node as its author would call it."""
    match node:
        case nodes.Filter(name=name):
            return f"the filter `{name}`"
        case nodes.Test(name=name):
            return f"the test `is {name}`"
        case nodes.Name(name=name):
            return f"the variable {name!r}"
    return _KINDS.get(type(node), f"{type(node).__name__.lower()} expressions")


_KINDS: dict[type[nodes.Node], str] = {
    nodes.Assign: "{% set %}",
    nodes.AssignBlock: "{% set %}",
    nodes.CallBlock: "{% call %}",
    nodes.FilterBlock: "{% filter %}",
    nodes.For: "{% for %}",
    nodes.If: "{% if %}",
    nodes.Include: "{% include %}",
    nodes.Macro: "{% macro %}",
    nodes.With: "{% with %}",
    nodes.CondExpr: "`… if … else …`",
    nodes.Concat: "`~`",
    nodes.Call: "calls",
    nodes.And: "this `and`",
    nodes.Or: "`or`",
    nodes.Compare: "this comparison",
}


class Variable(NamedTuple):
    """A variable printed as it is."""

    name: str


def plain_parts(source: str, origin: Origin) -> list[str | Variable]:
    """A template of texts and variables only, texts merged.

    Raises:
        TemplateError: with the line of anything else.
    """
    parts: list[str | Variable] = []
    for statement in tree(source, origin):
        if not isinstance(statement, nodes.Output):
            raise origin.refusal(statement, described(statement))
        for value in statement.nodes:
            match value:
                case nodes.TemplateData(data=text) | nodes.Const(value=str(text)):
                    before = parts.pop() if parts and isinstance(parts[-1], str) else ""
                    parts.append(f"{before}{text}")
                case nodes.Name(name=name):
                    parts.append(Variable(name))
                case _:
                    raise origin.refusal(value, described(value))
    return parts
