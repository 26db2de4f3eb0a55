"""GitHub's `.prompt.yml`: a list of messages with plain placeholders, test data and evaluators.

https://docs.github.com/en/github-models/use-github-models/storing-prompts-in-github-repositories
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from promptab.errors import InvalidInputError, PromptFileError
from promptab.formats.declaring import (
    config_parts,
    described,
    filled,
    kept_for,
    messages_of,
    plain_metadata,
    refuse_config,
)
from promptab.formats.drafting import Part, drafted, left_over, title_of
from promptab.formats.exchange import Exported, Format, Imported, Wish
from promptab.formats.foreign import ForeignFile, ForeignKeys
from promptab.formats.github_cases import read_cases, write_cases
from promptab.formats.parameters import our_parameters, their_parameters
from promptab.formats.placeholders import BRACES, braces_to_jinja, jinja_to_braces
from promptab.library import PromptSource
from promptab.library.json_text import parse_json
from promptab.library.located import JsonPath
from promptab.library.yaml_text import yaml_text

_KNOWN = frozenset({
    "name", "description", "model", "modelParameters", "messages", "responseFormat", "jsonSchema",
})  # fmt: skip
_PLACES: dict[JsonPath, JsonPath] = {
    ("description",): ("description",), ("model",): ("model",), ("modelParameters",): ("config",),
    ("responseFormat",): ("output",), ("jsonSchema",): ("output",), ("messages",): ("messages",),
    ("testData",): ("tests",),
}  # fmt: skip
_TESTING = frozenset({"testData", "evaluators"})
_FORMATS = {"json_object": "json", "json_schema": "json", "text": "text"}
_LANGUAGE = "GitHub's format"
_ROLES = ("system", "developer", "user", "assistant")


def read(file: ForeignFile, wish: Wish) -> Imported:
    """Read a `.prompt.yml` file.

    Raises:
        PromptFileError: with the line of what promptab cannot hold.
    """
    keys = file.keys
    schema = _named_schema(keys)
    others = keys.others(_KNOWN)
    messages = keys.list("messages")
    parts = [_part(keys, index, message) for index, message in enumerate(messages)]
    cases = read_cases(keys, _placeholders(message["content"] for message in messages))
    kept = {
        "name": title_of(file),
        "jsonSchema": {key: value for key, value in schema.items() if key != "schema"},
        **others,
    }
    unknown = sorted(others.keys() - _TESTING)
    notes = [*([f"{', '.join(unknown)}: kept in the metadata"] if unknown else []), *cases.notes]
    declared = {
        "description": keys.text("description"),
        "model": keys.text("model"),
        "config": our_parameters(keys.object("modelParameters")) or None,
        "output": _output(keys, schema) or None,
        "metadata": left_over(Format.GITHUB, kept, {}),
        "tests": cases.documents or None,
    }
    return Imported(file.path, Format.GITHUB, drafted(file, wish, parts, declared, _PLACES), tuple(notes))


def write(source: PromptSource) -> Exported:
    """Write a `.prompt.yml` file.

    Raises:
        TemplateError: with the line of a template that is more than texts and variables.
        InvalidInputError: a prompt without messages, or a role that GitHub does not have.
    """
    refuse_config(source, _LANGUAGE)
    lost: list[str] = []
    config = config_parts(source, lost, _LANGUAGE)
    kept = kept_for(source, Format.GITHUB)
    named = kept.pop("jsonSchema", {})
    messages = _messages(source)
    if config.tools:
        lost.append(f"config.tools: {_LANGUAGE} has no place for it")
    lost += [
        f"{what}: {_LANGUAGE} has no place for it"
        for what, value in (("validation", source.validation), ("defaults", source.defaults))
        if value
    ]
    names = _placeholders(message["content"] for message in messages)
    cases = write_cases(source.tests, {key: kept.pop(key, None) for key in _TESTING}, names)
    lost += cases.lost
    metadata = plain_metadata(source, Format.GITHUB)
    lost += [f"metadata.{key}: {_LANGUAGE} has no place for it" for key in metadata]
    document = {
        "name": kept.pop("name", source.name),
        "description": described(source),
        "model": config.model,
        "modelParameters": their_parameters(config.parameters),
        "responseFormat": _response_format(config.output, lost),
        "jsonSchema": _json_schema(config.output_schema, named, source.name),
        "messages": messages,
        "testData": cases.test_data,
        "evaluators": cases.evaluators,
        **kept,
    }
    return Exported(f"{source.name}.prompt.yml", yaml_text(filled(document)), tuple(lost))


def _placeholders(contents: Iterable[str]) -> frozenset[str]:
    return frozenset(found["name"] for content in contents for found in BRACES.finditer(content))


def _part(keys: ForeignKeys, index: int, message: object) -> Part:
    at: JsonPath = ("messages", index)
    role = message.get("role") if isinstance(message, Mapping) else None
    content = message.get("content") if isinstance(message, Mapping) else None
    if not isinstance(role, str) or not isinstance(content, str):
        keys.refuse(at, "expected a message with role and content, both text")
    line = keys.located.text_lines.get((*at, "content"))
    at_least = line or keys.line((*at, "content")) or 1
    return Part(role, braces_to_jinja(content, path=keys.path, line=at_least), line)


def _named_schema(keys: ForeignKeys) -> dict[str, Any]:
    """`jsonSchema` is JSON as a text (or YAML): the schema itself, or a name and `schema`."""
    told = keys.value.get("jsonSchema")
    if isinstance(told, str):
        try:
            told = parse_json(told, path=keys.path).value
        except PromptFileError as error:
            keys.refuse(("jsonSchema",), f"jsonSchema: {error}")
    if told is None:
        return {}
    if not isinstance(told, dict):
        keys.refuse(("jsonSchema",), "jsonSchema: expected a JSON object, as a text")
    return told if isinstance(told.get("schema"), dict) else {"schema": told}


def _output(keys: ForeignKeys, schema: Mapping[str, Any]) -> dict[str, Any]:
    told = keys.text("responseFormat")
    if told is not None and told not in _FORMATS:
        keys.refuse(("responseFormat",), f"{told!r:.80} is not one of {', '.join(_FORMATS)}")
    output: dict[str, Any] = {} if told is None else {"format": _FORMATS[told]}
    return {**output, "schema": schema["schema"]} if schema else output


def _messages(source: PromptSource) -> list[dict[str, str]]:
    messages = messages_of(source)
    if not messages:
        raise InvalidInputError("prompt", source.label, f"a prompt with messages, which {_LANGUAGE} requires")
    written = []
    for number, message in enumerate(messages, start=1):
        label = source.label if len(messages) == 1 else f"{source.label}, message {number}"
        if message.role not in _ROLES:
            raise InvalidInputError("role", message.role, f"one of {', '.join(_ROLES)} ({label})")
        content = jinja_to_braces(message.content, label=label, language=_LANGUAGE)
        written.append({"role": message.role, "content": content})
    return written


def _response_format(output: Mapping[str, Any], lost: list[str]) -> str | None:
    if isinstance(output.get("schema"), Mapping):
        return "json_schema"
    told = output.get("format")
    names = {"json": "json_object", "text": "text"}
    if told is not None and told not in names:
        lost.append(f"config.output.format: {_LANGUAGE} has no {told!r}")
    return names.get(str(told))


def _json_schema(schema: Mapping[str, Any] | None, named: object, name: str) -> str | None:
    if schema is None:
        return None
    told = {"name": name, "strict": True, **(named if isinstance(named, Mapping) else {}), "schema": schema}
    return json.dumps(told, ensure_ascii=False, indent=2, default=dict)
