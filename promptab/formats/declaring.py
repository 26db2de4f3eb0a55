"""The parts of a prompt as foreign files take them: messages, model and parameters, metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from promptab.content import sources
from promptab.errors import InvalidInputError
from promptab.formats.exchange import Format
from promptab.library import PromptSource
from promptab.models import MessageTemplate, PromptType


class ConfigParts(NamedTuple):
    """The configuration of a prompt, as far as it has the usual form."""

    model: str | None
    parameters: Mapping[str, Any]
    tools: list[Any]
    output: Mapping[str, Any]

    @property
    def output_schema(self) -> Mapping[str, Any] | None:
        schema = self.output.get("schema")
        return schema if isinstance(schema, Mapping) else None


def messages_of(source: PromptSource) -> tuple[MessageTemplate, ...]:
    """The messages of a prompt; of a model none."""
    return sources(source.prompt_type, source.template, source.messages)


def refuse_config(source: PromptSource, language: str) -> None:
    if source.prompt_type is PromptType.CONFIG:
        raise InvalidInputError(
            "prompt", source.label, f"a text or a model: {language} has no plain configurations"
        )


def config_parts(source: PromptSource, lost: list[str], language: str) -> ConfigParts:
    """Take the configuration apart; what has another form than usual is added to `lost`."""
    config = source.config
    model, parameters = config.get("model"), config.get("parameters")
    tools, output = config.get("tools"), config.get("output")
    usual = {
        "model": isinstance(model, str),
        "parameters": isinstance(parameters, Mapping),
        "tools": isinstance(tools, list | tuple),
        "output": isinstance(output, Mapping),
    }
    lost += [f"config.{key}: {language} has no place for it" for key in sorted(config) if not usual.get(key)]
    return ConfigParts(
        model if isinstance(model, str) else None,
        parameters if isinstance(parameters, Mapping) else {},
        list(tools) if isinstance(tools, list | tuple) else [],
        output if isinstance(output, Mapping) else {},
    )


def lose_cases(source: PromptSource, lost: list[str], language: str) -> None:
    if source.tests:
        lost.append(f"tests: {language} has no place for cases")


def described(source: PromptSource) -> str | None:
    description = source.metadata.get("description")
    return description if isinstance(description, str) else None


def plain_metadata(source: PromptSource, form: Format) -> dict[str, Any]:
    """The metadata without the description, and without what is kept for the format itself."""
    left_out = {form.value} | ({"description"} if described(source) is not None else set())
    return {key: value for key, value in source.metadata.items() if key not in left_out}


def kept_for(source: PromptSource, form: Format) -> dict[str, Any]:
    """What an import from that format has kept for an export to it."""
    kept = source.metadata.get(form.value)
    return dict(kept) if isinstance(kept, Mapping) else {}


def filled(keys: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that have a value."""
    return {key: value for key, value in keys.items() if value is not None and value not in ("", {}, [])}
