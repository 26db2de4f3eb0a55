"""Files of a dataknobs prompt library: `system/`, `user/`, `messages/` and `rag/`, each file YAML or JSON.

https://github.com/KBS-Labs/dataknobs (the package dataknobs-llm, filesystem_library.py)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from promptab.errors import InvalidInputError, PromptFileError, TemplateError
from promptab.formats.dataknobs_template import of_jinja, to_jinja
from promptab.formats.declaring import described, filled, kept_for, lose_cases, messages_of, plain_metadata
from promptab.formats.drafting import Part, drafted, drafted_config, left_over
from promptab.formats.exchange import Exported, Format, Imported, Wish
from promptab.formats.foreign import ForeignFile, ForeignKeys
from promptab.library import PromptSource
from promptab.library.located import JsonPath
from promptab.library.yaml_text import yaml_text
from promptab.models import MessageTemplate, PromptType
from promptab.templates import inspect_template

FOLDERS = {
    "system": PromptType.SYSTEM, "user": PromptType.USER, "messages": PromptType.MESSAGE, "rag": PromptType.CONFIG,
}  # fmt: skip
KEYS = frozenset({
    "template", "defaults", "validation", "metadata", "sections", "extends", "rag_config_refs", "rag_configs",
    "template_mode", "messages",
})  # fmt: skip
RAG_KEYS = frozenset({"adapter_name", "query"})
_COMPOSED = ("extends", "sections")
_KNOWN = frozenset(
    {"template", "defaults", "validation", "metadata", "template_mode", "messages", *_COMPOSED}
)
_PLACES: dict[JsonPath, JsonPath] = {
    ("template",): ("template",), ("messages",): ("messages",), ("defaults",): ("defaults",),
    ("validation",): ("validation",), ("metadata",): ("metadata",),
}  # fmt: skip
_MODES = ("mixed", "jinja2")
_LANGUAGE = "dataknobs"


def read(file: ForeignFile, wish: Wish) -> Imported:
    """Read one file of a library; its folder says what it is, unless the wish does.

    Raises:
        PromptFileError: with the line of what promptab cannot hold.
    """
    kind = wish.prompt_type or FOLDERS.get(file.folder)
    if file.document is not None and isinstance(file.document.value, str):
        return _read_text(file, file.document.value, wish, kind)
    keys = file.keys
    if keys.value.keys() >= RAG_KEYS:
        return Imported(file.path, Format.DATAKNOBS, drafted_config(file, wish, keys.value))
    for key in _COMPOSED:
        if keys.value.get(key):
            keys.refuse((key,), f"{key} is not supported: put the composed text in, or use {{% include %}}")
    mode = keys.text("template_mode") or "mixed"
    if mode not in _MODES:
        keys.refuse(("template_mode",), f"{mode!r:.80} is not one of {', '.join(_MODES)}")
    notes: list[str] = []
    others = keys.others(_KNOWN)
    if others:
        notes.append(f"{', '.join(sorted(others))}: kept in the metadata, and without effect here")
    declared = {
        "defaults": keys.object("defaults") or None,
        "validation": _validation(keys, notes),
        "metadata": left_over(Format.DATAKNOBS, others, keys.object("metadata")),
    }
    parts = [_part(keys, kind, part, at, mode) for part, at in _parts(keys, kind)]
    source = drafted(file, _with_kind(wish, kind), parts, declared, _PLACES)
    return Imported(file.path, Format.DATAKNOBS, source, tuple(notes))


def write(source: PromptSource) -> Exported:
    """Write one file of a library, in the folder of its kind.

    Raises:
        InvalidInputError: a model, or a configuration that is none of a retrieval.
    """
    kind = source.prompt_type
    if kind is PromptType.CONFIG and source.config.keys() >= RAG_KEYS:
        return Exported(f"rag/{source.name}.yaml", yaml_text(source.config), ())
    if not kind.has_template:
        bound = "a prompt with a text, or a configuration with adapter_name and query"
        raise InvalidInputError("prompt", source.label, f"{bound}, which is all that dataknobs has")
    lost = [f"config.{key}: dataknobs has no place for it" for key in sorted(source.config)]
    lose_cases(source, lost, "dataknobs")
    metadata = plain_metadata(source, Format.DATAKNOBS)
    if (description := described(source)) is not None:
        metadata = {"description": description, **metadata}
    document = _chat(source, lost) if kind is PromptType.MESSAGE else _text(source, lost)
    document |= {"metadata": metadata, **kept_for(source, Format.DATAKNOBS)}
    folder = next(name for name, of_folder in FOLDERS.items() if of_folder is kind)
    return Exported(f"{folder}/{source.name}.yaml", yaml_text(filled(document)), tuple(lost))


def _read_text(file: ForeignFile, text: str, wish: Wish, kind: PromptType | None) -> Imported:
    """A document that is nothing but a text is the template."""
    part = _part(file.keys, kind, MessageTemplate(role="user", content=text), (), "mixed")
    source = drafted(file._replace(document=None), _with_kind(wish, kind), [part], {}, {})
    return Imported(file.path, Format.DATAKNOBS, source)


def _with_kind(wish: Wish, kind: PromptType | None) -> Wish:
    if kind is None:
        remedy = f"put it into a folder {', '.join(FOLDERS)}, or give --type"
        raise InvalidInputError("type", None, "known, as dataknobs tells it by the folder alone", remedy)
    return wish._replace(prompt_type=kind)


def _parts(keys: ForeignKeys, kind: PromptType | None) -> list[tuple[MessageTemplate, JsonPath]]:
    if "messages" not in keys.value:
        text = keys.text("template") or ""
        return [
            (
                MessageTemplate(role="system" if kind is PromptType.SYSTEM else "user", content=text),
                ("template",),
            )
        ]
    found = []
    for index, message in enumerate(keys.list("messages")):
        at: JsonPath = ("messages", index)
        try:
            found.append((MessageTemplate.model_validate(message), (*at, "content")))
        except ValueError:
            keys.refuse(at, "expected a message with a role and a content, both text")
    return found


def _part(
    keys: ForeignKeys, kind: PromptType | None, message: MessageTemplate, at: JsonPath, mode: str
) -> Part:
    label = f"{kind or 'a'} template"
    try:
        content = to_jinja(message.content, mode=mode, label=label)
        inspect_template(message.content, name=label)  # before the lines are changed, for those of its faults
    except TemplateError as error:
        first = keys.located.text_lines.get(at)
        line = keys.line(at) if first is None or error.line is None else first + error.line - 1
        raise PromptFileError(keys.path, str(error), line=line) from None
    unchanged = content == message.content
    return Part(message.role, content, keys.located.text_lines.get(at) if unchanged else None)


def _validation(keys: ForeignKeys, notes: list[str]) -> dict[str, Any] | None:
    told = keys.object("validation")
    required = told.get("required_params") or []
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        keys.refuse(("validation", "required_params"), "required_params: expected a list of names")
    if told.get("level", "warn") != "error" and required:
        notes.append(f"validation.level {told.get('level', 'warn')}: a missing variable is an error here")
    if told.get("optional_params"):
        notes.append(
            "validation.optional_params: left out; the template says which variables it can do without"
        )
    return {"level": "error", "required_params": required} if required else None


def _text(source: PromptSource, lost: list[str]) -> dict[str, Any]:
    return {
        "template": of_jinja(source.template, mode="jinja2", label=source.label),
        "template_mode": "jinja2",
        "defaults": source.defaults,
        "validation": _written_validation(source.validation, lost),
    }


def _chat(source: PromptSource, lost: list[str]) -> dict[str, Any]:
    lost += [
        f"{what}: dataknobs has no place for it beside messages"
        for what, value in (("defaults", source.defaults), ("validation", source.validation))
        if value
    ]
    return {
        "messages": [
            {
                "role": message.role,
                "content": of_jinja(message.content, mode="mixed", label=f"{source.label}, message {number}"),
            }
            for number, message in enumerate(messages_of(source), start=1)
        ]
    }


def _written_validation(schema: Mapping[str, Any] | None, lost: list[str]) -> dict[str, Any] | None:
    if not schema:
        return None
    required = [name for name in schema.get("required", ()) if isinstance(name, str)]
    properties = schema.get("properties")
    declared = properties.items() if isinstance(properties, Mapping) else ()
    lost += [
        f"validation.{name}: dataknobs knows only which variables are required"
        for name, part in declared
        if part
    ]
    lost += [f"validation: {word}" for word in sorted(set(schema) - {"type", "properties", "required"})]
    return {"level": "error", "required_params": required} if required else None
