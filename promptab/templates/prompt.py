"""Prompts, compiled once and rendered many times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from promptab.errors import InvalidInputError, StateError, TemplateLimitError
from promptab.models import Message, MessageTemplate
from promptab.records import Json
from promptab.templates.body import Assembly, Body, Partial
from promptab.templates.budget import Budget
from promptab.templates.calls import GLOBALS
from promptab.templates.compiler import Names, compile_syntax
from promptab.templates.limits import Limits
from promptab.templates.schema import Schema, check_schema
from promptab.templates.syntax import parse
from promptab.templates.variables import Interface, merged_defaults

_DEFAULT_LIMITS = Limits()
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class TemplateFacts(NamedTuple):
    """What a template says about itself, before its includes are known."""

    variables: frozenset[str]
    """Names that it reads and does not assign itself; what its includes read is not counted."""
    includes: tuple[str, ...]
    """References of its include tags, in their order, each once."""


def inspect_template(
    source: str, *, name: str = "template", limits: Limits = _DEFAULT_LIMITS
) -> TemplateFacts:
    """Compile a template for what it tells.

    `TemplateError` has the line of whatever templates may not do; `TemplateLimitError` says that it is too
    large.
    """
    syntax = parse(source, name=name, limits=limits)
    code = compile_syntax(syntax, name=name, filename="<prompt template>")
    return TemplateFacts(frozenset(code.reads - GLOBALS.keys()), tuple(dict.fromkeys(syntax.includes)))


class CompiledPrompt:
    """A prompt ready to render. Immutable: any number of threads and tasks may share it."""

    __slots__ = ("_interface", "_limits", "_messages", "_name")

    def __init__(
        self,
        messages: tuple[tuple[MessageTemplate, Body], ...],
        interface: Interface,
        *,
        name: str,
        limits: Limits,
    ) -> None:
        self._messages = messages
        self._interface = interface
        self._name = name
        self._limits = limits

    @property
    def variables(self) -> frozenset[str]:
        """Every name that it takes: read by a template, declared by `validation`, or with a default."""
        return self._interface.known

    @property
    def required(self) -> frozenset[str]:
        """The names that a render has to be given.

        Not among them: names with a default, and names that a template asks about by `is defined` or gives a
        `default`.
        """
        return self._interface.required

    @property
    def optional(self) -> frozenset[str]:
        return self._interface.known - self._interface.required

    def render(self, variables: Mapping[str, Any]) -> tuple[Message, ...]:
        """Render all messages; roles are those of the templates, whatever the variables hold.

        `VariableError` names a variable that is missing, unknown or not as declared; `TemplateLimitError` the
        limit that was reached; `TemplateError` the line that could not be evaluated.
        """
        texts = self._texts(variables)
        return tuple(
            Message(role=template.role, content=text)
            for (template, _), text in zip(self._messages, texts, strict=True)
        )

    def text(self, variables: Mapping[str, Any]) -> str:
        """Render a prompt of one message to its text; errors as for `render`."""
        if len(self._messages) != 1:
            raise StateError(f"{self._name} has {len(self._messages)} messages; use render()")
        return self._texts(variables)[0]

    def _texts(self, variables: Mapping[str, Any]) -> list[str]:
        names = self._interface.values(variables)
        budget = Budget(self._limits)
        room = self._limits.output_chars
        texts = []
        for _, body in self._messages:
            # each message has names of its own: what one assigns, the next does not see
            pieces = body.render(Names(GLOBALS, **names), budget)
            room -= sum(map(len, pieces))
            if room < 0:
                limit = self._limits.output_chars
                raise TemplateLimitError(
                    f"renders more than {limit} characters (limit `output_chars`)", template=self._name
                )
            texts.append("".join(pieces))
        return texts


def compile_prompt(
    *,
    messages: Sequence[MessageTemplate],
    includes: Mapping[str, Partial] = _NOTHING,
    defaults: Json = _NOTHING,
    validation: Json | None = None,
    name: str = "template",
    limits: Limits = _DEFAULT_LIMITS,
) -> CompiledPrompt:
    """Compile a prompt with everything that it includes.

    A text prompt is one message. The prompt's own `defaults` go before those of included prompts, and both
    before the `default` of a property in `validation`. Raises as `inspect_template`, for included bodies too;
    `InvalidInputError` for `validation` that is no JSON Schema; `VariableError` for a default that is not
    plain data.
    """
    if not messages:
        raise InvalidInputError("messages", messages, "one message or more")
    assembly = Assembly(name, limits)
    compiled = []
    for number, message in enumerate(messages, start=1):
        label = name if len(messages) == 1 else f"{name}, message {number}"
        compiled.append((message, assembly.body(message.content, label, includes)))
    schema = None if validation is None else Schema(check_schema(validation), name)
    merged = merged_defaults(defaults, includes)
    interface = Interface([body for _, body in compiled], merged, schema, limits)
    return CompiledPrompt(tuple(compiled), interface, name=name, limits=limits)
