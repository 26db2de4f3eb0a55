"""Prompty 1 and 2: YAML front matter and a Jinja2 template in which a line `system:` begins a message.

https://github.com/microsoft/prompty (the schema of 1: Prompty.yaml; of 2: the package prompty)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from promptab.errors import InvalidInputError, PromptFileError, TemplateError
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
from promptab.formats.drafting import Part, drafted, left_over, title_of
from promptab.formats.exchange import Exported, Format, Imported, Wish
from promptab.formats.foreign import ForeignFile, ForeignKeys
from promptab.formats.parameters import our_parameters, their_parameters
from promptab.formats.placeholders import BRACES, braces_to_jinja
from promptab.formats.prompty_properties import read_properties, written_properties
from promptab.library import PromptSource
from promptab.library.located import JsonPath
from promptab.library.yaml_text import yaml_text
from promptab.templates import inspect_template

# every blank can be matched in one way only, so that a long line of blanks takes no time
ROLE_LINE = re.compile(
    r"[ \t]*(?:#[ \t]*)?(?P<role>system|user|assistant|developer)[ \t]*(?:(?P<attributes>\[[^\]\n]*\])[ \t]*)?:[ \t]*",
    re.IGNORECASE,
)
_KNOWN = frozenset({
    "name", "description", "metadata", "model", "inputs", "outputs", "tools", "template", "sample", "displayName",
})  # fmt: skip
_MODEL_KEYS = frozenset({"id", "options", "parameters"})
_SECRET_KEYS = frozenset({"connection", "configuration"})
"""Where Prompty keeps addresses and keys of a provider."""
_PLACES: dict[JsonPath, JsonPath] = {
    ("inputs",): ("input",), ("outputs",): ("output",), ("model",): ("model",), ("tools",): ("tools",),
    ("description",): ("description",), ("metadata",): ("metadata",),
}  # fmt: skip


def read(file: ForeignFile, wish: Wish) -> Imported:
    """Read a `.prompty` file. Nothing that it refers to (`${env:…}`, `${file:…}`) is looked up.

    Raises:
        PromptFileError: with the line of what promptab cannot hold.
    """
    file = file._replace(document=None)
    keys = file.keys
    notes: list[str] = []
    inputs, outputs = read_properties(keys, "inputs"), read_properties(keys, "outputs")
    model = _model(keys, notes)
    kept = {
        "name": title_of(file),
        "displayName": keys.text("displayName"),
        "model": {key: model[key] for key in sorted(set(model) - _MODEL_KEYS)},
        "sample": _samples(keys, inputs.samples),
        **keys.others(_KNOWN),
    }
    if others := sorted(keys.others(_KNOWN)):
        notes.append(f"{', '.join(others)}: kept in the metadata, and without effect here")
    declared = {
        "description": keys.text("description"),
        "model": model.get("id") or None,
        "config": _parameters(keys, model) or None,
        "tools": _tools(keys) or None,
        "input": filled({"schema": inputs.schema, "default": inputs.defaults}) or None,
        "output": None if outputs.schema is None else {"schema": outputs.schema},
        "metadata": left_over(Format.PROMPTY, kept, keys.object("metadata")),
    }
    parts = _parts(file, notes)
    source = drafted(file, wish, parts, declared, _PLACES)
    return Imported(file.path, Format.PROMPTY, source, (*notes, *inputs.notes, *outputs.notes))


def write(source: PromptSource) -> Exported:
    """Write a `.prompty` file of version 2.

    Raises:
        InvalidInputError: a role that Prompty does not have, or a text in which it would see a message begin.
    """
    refuse_config(source, "Prompty")
    lost: list[str] = []
    config = config_parts(source, lost, "Prompty")
    lose_cases(source, lost, "Prompty")
    kept = kept_for(source, Format.PROMPTY)
    model = kept.pop("model", None)
    sample = kept.pop("sample", None)
    inputs = written_properties(source.validation or {}, source.defaults, lost, "validation")
    outputs = written_properties(config.output_schema or {}, {}, lost, "config.output.schema")
    if config.output_schema is not None and not outputs:
        lost.append("config.output.schema: Prompty has lists of named outputs only")
    if extra := sorted(set(config.output) - {"schema"}):
        lost.append(f"config.output: {', '.join(extra)}")
    _add_samples(inputs, sample)
    front = {
        "name": kept.pop("name", source.name),
        "displayName": kept.pop("displayName", None),
        "description": described(source),
        "model": filled(
            {
                "id": config.model,
                "options": their_parameters(config.parameters),
                **(model if isinstance(model, Mapping) else {}),
            }
        ),
        "inputs": inputs,
        "outputs": outputs,
        "tools": config.tools,
        # strict: a value cannot begin a message in the reader either
        "template": {"format": {"kind": "jinja2", "strict": True}, "parser": {"kind": "prompty"}},
        "metadata": {**plain_metadata(source, Format.PROMPTY), **kept},
    }
    body = "\n\n".join(_written_messages(source, lost))
    return Exported(f"{source.name}.prompty", f"---\n{yaml_text(filled(front))}---\n{body}\n", tuple(lost))


def _parts(file: ForeignFile, notes: list[str]) -> list[Part]:
    engine = _engine(file.keys)
    if engine == "mustache":
        notes.append("Mustache escapes HTML in values; here they are put in as they are")
    parts = [
        Part(role, _template(text, line, file, engine), line)
        for role, text, line in _split(file, notes)
        if text
    ]
    for part in parts:
        _require_whole(part, file)
    return parts


def _split(file: ForeignFile, notes: list[str]) -> Iterator[tuple[str, str, int]]:
    """Role, text and line of each message. The roles are those of the template: values come later."""
    lines = file.body.split("\n")
    role, start = "system", 0
    for index, line in enumerate(lines):
        marker = ROLE_LINE.fullmatch(line)
        if marker is None:
            continue
        yield _message(role, lines, start, index, file)
        role, start = marker["role"].lower(), index + 1
        if marker["attributes"]:
            notes.append(f"line {file.body_line + index}: the attributes of {line.strip():.80} are left out")
    yield _message(role, lines, start, len(lines), file)


def _message(role: str, lines: list[str], start: int, end: int, file: ForeignFile) -> tuple[str, str, int]:
    while start < end and not lines[start]:
        start += 1
    while end > start and not lines[end - 1]:
        end -= 1
    return role, "\n".join(lines[start:end]), file.body_line + start


def _template(text: str, line: int, file: ForeignFile, engine: str) -> str:
    if engine == "jinja2":
        return text
    plain = text.replace("{{{", "{{").replace("}}}", "}}")
    if "{{" in BRACES.sub("", plain):
        message = "of Mustache only variables such as {{name}} are supported"
        raise PromptFileError(file.path, message, line=line)
    return braces_to_jinja(plain, path=file.path, line=line)


def _require_whole(part: Part, file: ForeignFile) -> None:
    """Refuse a message that begins or ends inside of a block, where only values decide whether it is there."""
    try:
        inspect_template(part.content)
    except TemplateError:
        try:
            inspect_template(file.body)
        except InvalidInputError:
            return  # the fault is not in how messages are divided, and is told when the message itself is checked
        message = (
            f"a message of {part.role} begins or ends inside of a {{% … %}} block, which is not supported"
        )
        raise PromptFileError(file.path, message, line=part.line) from None


def _engine(keys: ForeignKeys) -> str:
    """The template language: `template: jinja2`, `template: {type: …}` or `template: {format: {kind: …}}`."""
    told: Any = keys.value.get("template")
    for key in ("format", "kind"):
        if isinstance(told, Mapping):
            told = told.get(key, told.get("type"))
    engine = told or "jinja2"
    if engine == "*":
        engine = "jinja2"
    if engine not in {"jinja2", "mustache"}:
        keys.refuse(
            ("template",),
            f"the template language {engine!r:.80} is not supported; there are jinja2 and mustache",
        )
    return str(engine)


def _model(keys: ForeignKeys, notes: list[str]) -> dict[str, Any]:
    """The model, without what would be a secret, or an address of somebody's own."""
    told = keys.value.get("model")
    if isinstance(told, str):
        return {"id": told}
    model = {("apiType" if key == "api" else key): value for key, value in keys.object("model").items()}
    for key in sorted(_SECRET_KEYS & set(model)):
        taken = model.pop(key)
        name = next(
            (
                taken[word]
                for word in ("name", "azure_deployment")
                if isinstance(taken, Mapping) and taken.get(word)
            ),
            None,
        )
        if name is not None and "id" not in model and "${" not in str(name):
            model["id"] = str(name)
        notes.append(f"model.{key} is left out: a version holds no connections and no keys")
    if not isinstance(model.get("id", ""), str):
        keys.refuse(("model", "id"), "model.id: not text; put it in quotes")
    if model.get("id", "").startswith("${"):
        notes.append(
            f"model.id is left out: {model.pop('id')} is looked up when Prompty runs, and never here"
        )
    return model


def _parameters(keys: ForeignKeys, model: Mapping[str, Any]) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    for key in ("options", "parameters"):
        told = model.get(key) or {}
        if not isinstance(told, Mapping):
            keys.refuse(("model", key), f"model.{key}: expected parameters with values")
        parameters |= our_parameters(told)
    return parameters


def _tools(keys: ForeignKeys) -> list[Any]:
    told = keys.value.get("tools")
    if isinstance(told, Mapping):
        return [
            {"name": name, **tool} if isinstance(tool, Mapping) else {"name": name}
            for name, tool in told.items()
        ]
    return keys.list("tools")


def _samples(keys: ForeignKeys, of_inputs: Mapping[str, Any]) -> dict[str, Any]:
    sample = keys.value.get("sample")
    return {**(sample if isinstance(sample, Mapping) else {}), **of_inputs}


def _add_samples(inputs: list[dict[str, Any]], sample: object) -> None:
    if not isinstance(sample, Mapping):
        return
    named = {told["name"]: told for told in inputs}
    for name, value in sample.items():
        if name in named:
            named[name]["example"] = value
        else:
            inputs.append({"name": name, "example": value})


def _written_messages(source: PromptSource, lost: list[str]) -> Iterator[str]:
    messages = messages_of(source)
    for number, message in enumerate(messages, start=1):
        label = source.label if len(messages) == 1 else f"{source.label}, message {number}"
        if message.role == "tool":
            raise InvalidInputError("role", "tool", f"a role of Prompty ({label})", "leave the message out")
        for at, line in enumerate(message.content.split("\n"), start=1):
            if ROLE_LINE.fullmatch(line):
                message_begins = f"{line.strip()} alone on a line begins a message in Prompty; reword it"
                raise TemplateError(message_begins, template=label, line=at)
        if message.content.strip("\n") != message.content:
            lost.append(f"{label}: the line breaks around its text")
        yield f"{message.role}:\n{message.content.strip(chr(10))}"
