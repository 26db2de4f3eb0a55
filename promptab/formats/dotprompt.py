"""Dotprompt: YAML front matter and a Handlebars template in which `{{role}}` begins a message.

https://google.github.io/dotprompt/reference/frontmatter/
https://google.github.io/dotprompt/reference/template/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from promptab.errors import InvalidInputError, PromptFileError
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
from promptab.formats.drafting import drafted, left_over, title_of
from promptab.formats.exchange import Exported, Format, Imported, Wish
from promptab.formats.foreign import ForeignFile, ForeignKeys
from promptab.formats.from_handlebars import conversation
from promptab.formats.handlebars_writing import Plain, Tag, joined
from promptab.formats.known_values import KnownValues
from promptab.formats.parameters import our_parameters, their_parameters
from promptab.formats.to_handlebars import handlebars
from promptab.library import PromptSource
from promptab.library.located import JsonPath
from promptab.library.picoschema import to_json_schema
from promptab.library.yaml_text import yaml_text
from promptab.templates import compile_prompt

_KNOWN = ("name", "description", "model", "config", "tools", "input", "output", "metadata")
_PLACES: dict[JsonPath, JsonPath] = {(key,): (key,) for key in _KNOWN}
_THEIR_ROLES = {"assistant": "model", "developer": "system"}
_MARKER = "<<<dotprompt:"


def read(file: ForeignFile, wish: Wish) -> Imported:
    """Read a `.prompt` file; one whose name begins with `_` is a partial, and has no front matter.

    Raises:
        PromptFileError: with the line of what has no meaning here.
    """
    if file.stem.startswith("_"):
        return _read_partial(file, wish)
    file = file._replace(document=None)
    keys = file.keys
    inputs = keys.object("input")
    # Dotprompt trims what stands below front matter, and nothing else.
    body, line = file.body, file.body_line
    if file.front is not None:
        line += body[: len(body) - len(body.lstrip())].count("\n")
        body = body.strip()
    told = conversation(
        body,
        path=file.path,
        first_line=line,
        schema=_schema(keys, inputs),
        defaults=_defaults(keys, inputs),
    )
    kept = {"name": title_of(file), **keys.others(_KNOWN), "history": told.history}
    declared = {
        "description": keys.text("description"),
        "model": keys.text("model"),
        "config": our_parameters(keys.object("config")) or None,
        "tools": keys.list("tools") or None,
        "input": inputs or None,
        "output": keys.object("output") or None,
        "metadata": left_over(Format.DOTPROMPT, kept, keys.object("metadata")),
    }
    source = drafted(file, wish, told.parts, declared, _PLACES)
    notes = [*told.notes, *_notes(keys)]
    if told.history is not None:
        notes.append(
            "{{history}} is kept in the metadata only; a prompt here puts in no conversation by itself"
        )
    return Imported(file.path, Format.DOTPROMPT, source, tuple(notes), told.partials)


def write(source: PromptSource) -> Exported:
    """Write a `.prompt` file.

    Raises:
        TemplateError: with the line of a template that Handlebars cannot say.
        InvalidInputError: a prompt of a kind that Dotprompt does not have.
    """
    refuse_config(source, "Dotprompt")
    lost: list[str] = []
    config = config_parts(source, lost, "Dotprompt")
    lose_cases(source, lost, "Dotprompt")
    kept = kept_for(source, Format.DOTPROMPT)
    body = joined(_pieces(source, kept.pop("history", None), lost))
    front = {
        "name": kept.pop("name", source.name),
        "description": described(source),
        "model": config.model,
        "config": their_parameters(config.parameters),
        "tools": config.tools,
        "input": filled({"schema": _written_schema(source), "default": source.defaults}),
        "output": config.output,
        **kept,
        "metadata": plain_metadata(source, Format.DOTPROMPT),
    }
    text = f"---\n{yaml_text(filled(front))}---\n" + (f"{body}\n" if body else "")
    return Exported(f"{source.name}.prompt", text, tuple(lost))


def _read_partial(file: ForeignFile, wish: Wish) -> Imported:
    told = conversation(file.text, path=file.path)
    if len(told.parts) != 1 or told.parts[0].role != "user" or told.history is not None:
        raise PromptFileError(file.path, "a partial is one text, without messages of its own")
    named = wish._replace(name=wish.name or file.stem.removeprefix("_"))
    source = drafted(file._replace(front=None, document=None), named, told.parts, {}, {})
    return Imported(file.path, Format.DOTPROMPT, source, told.notes, told.partials)


def _schema(keys: ForeignKeys, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
    def refuse(at: JsonPath, message: str) -> NoReturn:
        keys.refuse(("input", "schema", *at), f"input.schema: {message}")

    schema = inputs.get("schema")
    return None if schema is None else to_json_schema(schema, refuse=refuse, closed=False)


def _defaults(keys: ForeignKeys, inputs: Mapping[str, Any]) -> dict[str, Any]:
    defaults = inputs.get("default") or {}
    if not isinstance(defaults, dict):
        keys.refuse(("input", "default"), "input.default: expected variables with values")
    return defaults


def _notes(keys: ForeignKeys) -> list[str]:
    others = sorted(keys.others(_KNOWN))
    return [f"{', '.join(others)}: kept in the metadata, and without effect here"] if others else []


def _written_schema(source: PromptSource) -> dict[str, Any] | None:
    """The schema of the variables, with those that the template can do without.

    In Jinja2 `default('')` says so; in Handlebars nothing does, as every variable may be absent there.
    """
    messages = messages_of(source)
    prompt = (
        compile_prompt(messages=messages, defaults=source.defaults, name=source.label) if messages else None
    )
    schema = {} if source.validation is None else dict(source.validation)
    properties = schema.get("properties") or {}
    optional = sorted(
        (prompt.optional if prompt else frozenset()) - source.defaults.keys() - properties.keys()
    )
    if optional:
        schema["properties"] = {**properties, **{name: {} for name in optional}}
    return {"type": "object", **schema} if schema or source.validation is not None else None


def _pieces(source: PromptSource, history: object, lost: list[str]) -> list[Plain | Tag]:
    messages = messages_of(source)
    values = KnownValues(source.validation, source.defaults, frozenset())
    pieces: list[Plain | Tag] = []
    for index, message in enumerate(messages):
        label = source.label if len(messages) == 1 else f"{source.label}, message {index + 1}"
        if index == history:
            pieces.append(Tag("history", is_role=True))
        content = handlebars(message.content, label=label, values=values)
        _refuse_markers(content, label)
        if not any(isinstance(piece, Tag) or piece.text.strip() for piece in content):
            lost.append(f"message {index + 1} is blank, and Dotprompt leaves blank messages out")
            continue
        if message.role == "developer":
            lost.append(f"message {index + 1} has the role developer, which becomes system")
        if len(messages) > 1 or message.role != "user":
            role = _THEIR_ROLES.get(message.role, message.role)
            pieces.append(Tag(f'role "{role}"', is_role=True))
        pieces += content
    if history == len(messages):
        pieces.append(Tag("history", is_role=True))
    return pieces


def _refuse_markers(content: list[Plain | Tag], label: str) -> None:
    """Dotprompt looks for its markers in the text that a template gives, wherever they come from."""
    if any(isinstance(piece, Plain) and _MARKER in piece.text for piece in content):
        raise InvalidInputError(
            "template", label, f"a text that Dotprompt can hold, without {_MARKER}", "reword it"
        )
