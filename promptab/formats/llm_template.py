"""Templates of the command line tool llm: `system`, `prompt`, `$variables`, defaults, a model with options.

https://llm.datasette.io/en/stable/templates.html
"""

from __future__ import annotations

from typing import Any

from promptab.errors import InvalidInputError
from promptab.formats.declaring import (
    config_parts,
    described,
    filled,
    kept_for,
    lose_cases,
    messages_of,
    plain_metadata,
    refuse_config,
)
from promptab.formats.drafting import Part, drafted, left_over
from promptab.formats.exchange import Exported, Format, Imported, Wish
from promptab.formats.foreign import ForeignFile, ForeignKeys
from promptab.formats.placeholders import dollars_to_jinja, jinja_to_dollars
from promptab.library import PromptSource
from promptab.library.located import JsonPath
from promptab.library.yaml_text import yaml_text
from promptab.models import PromptType

KEYS = frozenset({
    "name", "prompt", "system", "model", "defaults", "options", "schema_object", "tools", "attachments",
    "attachment_types", "extract", "extract_last", "fragments", "system_fragments", "functions",
})  # fmt: skip
"""All that a template may have; llm refuses others."""
_KNOWN = frozenset({"name", "prompt", "system", "model", "defaults", "options", "schema_object", "tools"})
_PLACES: dict[JsonPath, JsonPath] = {
    ("model",): ("model",), ("options",): ("config",), ("defaults",): ("defaults",), ("tools",): ("tools",),
    ("schema_object",): ("output", "schema"), ("prompt",): ("template",),
}  # fmt: skip
_LANGUAGE = "An llm template"
_INPUT = "{{ input }}"


def read(file: ForeignFile, wish: Wish) -> Imported:
    """Read a template. With `system` alone, the user's message is the variable `input`, as llm has it.

    Raises:
        PromptFileError: with the line of what promptab cannot hold.
    """
    keys = file.keys
    if unknown := sorted(set(keys.value) - KEYS):
        keys.refuse((unknown[0],), f"unknown key {unknown[0]!r:.80}; llm knows {', '.join(sorted(KEYS))}")
    others = keys.others(_KNOWN)
    notes = [f"{', '.join(sorted(others))}: kept in the metadata, and never run"] if others else []
    schema = keys.object("schema_object")
    declared = {
        "model": keys.text("model"),
        "config": keys.object("options") or None,
        "defaults": keys.object("defaults") or None,
        "tools": keys.list("tools") or None,
        "output": {"format": "json", "schema": schema} if schema else None,
        "metadata": left_over(Format.LLM, others, {}),
    }
    parts = [part for key in ("system", "prompt") if (part := _part(keys, key)) is not None]
    if [part.role for part in parts] == ["system"] and wish.prompt_type is not PromptType.SYSTEM:
        parts.append(Part("user", _INPUT))
    return Imported(file.path, Format.LLM, drafted(file, wish, parts, declared, _PLACES), tuple(notes))


def write(source: PromptSource) -> Exported:
    """Write a template.

    Raises:
        TemplateError: with the line of a template that is more than texts and variables.
        InvalidInputError: messages that are no system text followed by one of the user.
    """
    refuse_config(source, _LANGUAGE)
    lost: list[str] = []
    config = config_parts(source, lost, _LANGUAGE)
    lose_cases(source, lost, _LANGUAGE)
    texts = _texts(source, lost)
    lost += [f"metadata.{key}: {_LANGUAGE} has no place for it" for key in plain_metadata(source, Format.LLM)]
    if described(source) is not None:
        lost.append(f"metadata.description: {_LANGUAGE} has no place for it")
    if source.validation:
        lost.append(f"validation: {_LANGUAGE} has no place for it")
    if extra := sorted(set(config.output) - {"schema"} - ({"format"} if config.output_schema else set())):
        lost.append(f"config.output: {_LANGUAGE} has no place for {', '.join(extra)}")
    tools, options = _tools(config.tools, lost), _options(dict(config.parameters), lost)
    document = {
        "model": config.model,
        "options": options,
        "schema_object": config.output_schema,
        "tools": tools,
        "defaults": source.defaults,
        **kept_for(source, Format.LLM),
        **texts,
    }
    return Exported(f"{source.name}.yaml", yaml_text(filled(document)), tuple(lost))


def _part(keys: ForeignKeys, key: str) -> Part | None:
    text = keys.text(key)
    if not text:
        return None
    line = keys.located.text_lines.get((key,))
    content = dollars_to_jinja(text, path=keys.path, line=line or keys.line((key,)) or 1)
    return Part("system" if key == "system" else "user", content, line)


def _texts(source: PromptSource, lost: list[str]) -> dict[str, str]:
    messages = messages_of(source)
    roles = [message.role for message in messages]
    if roles not in ([], ["system"], ["user"], ["system", "user"]):
        raise InvalidInputError(
            "messages", roles, "one system text, one text of the user, or both in this order"
        )
    keys = {"system": "system", "user": "prompt"}
    texts = {}
    for message in messages:
        label = source.label if len(messages) == 1 else f"{source.label}, {message.role} message"
        texts[keys[message.role]] = jinja_to_dollars(message.content, label=label, language=_LANGUAGE)
    if roles == ["system", "user"] and texts["prompt"] == "$input":
        del texts["prompt"]  # what llm sends anyway
    elif roles == ["system"]:
        lost.append("that nothing follows the system text: llm sends its input as the prompt")
    return texts


def _tools(tools: list[Any], lost: list[str]) -> list[str]:
    """The tools that have nothing but a name, which is all that llm knows of one."""
    named = [tool for tool in tools if isinstance(tool, str)]
    if len(named) < len(tools):
        lost.append(f"config.tools: {_LANGUAGE} has names of tools only")
    return named


def _options(parameters: dict[str, Any], lost: list[str]) -> dict[str, Any]:
    plain = {key: value for key, value in parameters.items() if isinstance(value, str | int | float | bool)}
    lost += [
        f"config.parameters.{key}: {_LANGUAGE} has plain options only"
        for key in sorted(set(parameters) - set(plain))
    ]
    return plain
