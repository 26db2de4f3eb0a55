"""What a version asks of a model, before it takes the shape of a protocol."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from promptab.checks import check_items, check_mapping
from promptab.errors import InvalidInputError
from promptab.models import Message

Turn = Mapping[str, Any]
"""One message as a provider takes it: `role`, and `content` that is a text or a list of parts."""

ROLES = ("system", "developer", "user", "assistant", "tool")

RESERVED = frozenset(
    {
        "extra_body", "extra_headers", "extra_query", "input", "instructions", "messages", "model",
        "stream", "system", "timeout",
    }
)  # fmt: skip
"""What parameters may not set: the prompt and the model have places of their own, and where a request goes and with
which headers is the program's to say (`options`), not the prompt's.
"""


class Output(NamedTuple):
    """The form that the answer is to have: JSON, by a schema where there is one."""

    schema: Mapping[str, Any] | None
    strict: bool | None
    name: str


class Ask(NamedTuple):
    """One request, in no protocol's shape yet."""

    model: str
    turns: tuple[Turn, ...]
    parameters: Mapping[str, Any]
    tools: tuple[Any, ...]
    output: Output | None


class ModelChoice(NamedTuple):
    """One model of a version's configuration, with its parameters."""

    model: str
    vendor: str | None
    """Whose client to ask it with; None for the first one given."""
    parameters: Mapping[str, Any]


def model_chain(
    config: Mapping[str, Any], *, model: str | None, parameters: Mapping[str, Any] | None
) -> tuple[ModelChoice, ...]:
    """Return the models to try, in order: `config.model`, then those of `config.fallbacks`.

    A fallback is a name, or `model` with `provider` and `parameters` of its own that go over the version's. The
    arguments go over the configuration; a model that is named by hand has no fallbacks.
    """
    own = _parameters("config.parameters", config.get("parameters"))
    given = _parameters("parameters", parameters)
    if model is not None:
        return (ModelChoice(_model("model", model), None, {**own, **given}),)
    first = ModelChoice(
        _model("config.model", config.get("model")), _vendor("config", config), {**own, **given}
    )
    chain = [first]
    for index, entry in enumerate(check_items("config.fallbacks", config.get("fallbacks") or ())):
        field = f"config.fallbacks[{index}]"
        named: Mapping[str, Any] = {"model": entry} if isinstance(entry, str) else check_mapping(field, entry)
        over = _parameters(f"{field}.parameters", named.get("parameters"))
        # without a provider of its own it is asked by the same client
        vendor = _vendor(field, named) or first.vendor
        chain.append(
            ModelChoice(_model(f"{field}.model", named.get("model")), vendor, {**own, **over, **given})
        )
    return tuple(chain)


def ask_of(
    choice: ModelChoice,
    rendered: Sequence[Message],
    conversation: Iterable[Turn | Message],
    config: Mapping[str, Any],
    *,
    name: str,
) -> Ask:
    """Return the request: the prompt's messages, then those of the conversation, whose roles are the caller's."""
    turns: list[Turn] = [{"role": message.role, "content": message.content} for message in rendered]
    turns += [_turn(index, turn) for index, turn in enumerate(check_items("messages", conversation))]
    if not turns:
        raise InvalidInputError("messages", (), "one message or more", "this prompt renders none of its own")
    tools = check_items("config.tools", config.get("tools") or ())
    return Ask(choice.model, tuple(turns), choice.parameters, tools, _output(config.get("output"), name))


def merged(body: dict[str, Any], ask: Ask, names: Mapping[str, str]) -> dict[str, Any]:
    """Return the body with the model's parameters, where `names` has the protocol's own names for what every
    protocol calls differently. What configuration says twice is refused.
    """
    parameters = {names.get(name, name): value for name, value in ask.parameters.items()}
    if len(parameters) < len(ask.parameters):
        raise InvalidInputError("config.parameters", sorted(ask.parameters), "one name for each parameter")
    if twice := body.keys() & parameters.keys():
        raise InvalidInputError(
            f"config.parameters.{min(twice)}",
            min(twice),
            "given once",
            "config says it in tools or output too",
        )
    return {**body, **parameters}


class FunctionTool(NamedTuple):
    """A function that the model may call, whichever provider's form it was written in."""

    name: str
    description: str | None
    schema: Any
    strict: bool | None


def function_tool(tool: object) -> FunctionTool | None:
    """Read a tool in the form of Chat Completions, of Responses or of Messages; None for a provider's own tools."""
    if not isinstance(tool, Mapping):
        return None
    inner = tool.get("function", tool) if tool.get("type") == "function" else tool
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        return None
    if (
        tool.get("type") not in {"function", "custom", None}
        or not {"parameters", "input_schema"} & inner.keys()
    ):
        return None
    schema = inner.get("parameters", inner.get("input_schema"))
    return FunctionTool(inner["name"], inner.get("description"), schema, inner.get("strict"))


def given(**fields: Any) -> dict[str, Any]:
    """Return the fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def _turn(index: int, turn: object) -> Turn:
    field = f"messages[{index}]"
    if isinstance(turn, Message):
        return {"role": turn.role, "content": turn.content}
    written = check_mapping(field, turn)
    if written.get("role") not in ROLES:
        raise InvalidInputError(f"{field}.role", written.get("role"), f"one of {', '.join(ROLES)}")
    return written


def _model(field: str, value: object) -> str:
    if isinstance(value, str) and value:
        return value
    raise InvalidInputError(
        field, value, "the name of a model", "put it into the version's config, or pass model="
    )


def _vendor(field: str, source: Mapping[str, Any]) -> str | None:
    vendor = source.get("provider")
    if vendor not in {None, "openai", "anthropic"}:
        raise InvalidInputError(f"{field}.provider", vendor, "openai or anthropic")
    return vendor


def _parameters(field: str, value: Mapping[str, Any] | None) -> Mapping[str, Any]:
    parameters = check_mapping(field, {} if value is None else value)
    if refused := RESERVED & parameters.keys():
        name = min(refused)
        raise InvalidInputError(
            f"{field}.{name}", name, "a parameter of a model", "pass it to the call itself"
        )
    return parameters


def _output(output: object, name: str) -> Output | None:
    if output is None:
        return None
    written = check_mapping("config.output", output)
    schema = written.get("schema")
    if schema is None and written.get("format") != "json":
        return None
    # the protocols take letters, digits, _ and - only, and 64 of them
    label = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64]
    strict = written.get("strict")
    return Output(
        None if schema is None else check_mapping("config.output.schema", schema),
        strict if isinstance(strict, bool) else None,
        label,
    )
