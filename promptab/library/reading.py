"""From the keys of a prompt document to the `PromptSource` that it declares."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NoReturn, get_args

from promptab.cases import Case, check_cases
from promptab.errors import InvalidInputError, PromptFileError, TemplateError
from promptab.library.document import CONFIG_KEYS, MESSAGE_KEYS, OWN, Document, dotted
from promptab.library.front_matter import Markdown
from promptab.library.located import JsonPath
from promptab.library.picoschema import to_json_schema
from promptab.library.source import PromptSource, check_source
from promptab.models import MessageTemplate, PromptType, VersionStatus
from promptab.templates import check_schema, inspect_template

_ROLES: tuple[str, ...] = get_args(MessageTemplate.model_fields["role"].annotation)

_PLACES: dict[str, tuple[tuple[str, ...], ...]] = {
    "defaults": (("defaults",), ("input", "default")),
    "validation": (("validation",), ("input", "schema")),
    "config": (("config",), (OWN, "config"), ("output",), ("tools",), ("model",)),
    "version": ((OWN, "version"),),
    "bump": ((OWN, "bump"),),
    "status": ((OWN, "status"),),
    "tags": ((OWN, "tags"),),
}
"""Field of the source -> where a document declares it; every other field has a key of its own name."""


def read_source(document: Document, *, name: str, markdown: Markdown | None = None) -> PromptSource:
    """Read what a document declares, with the body of its Markdown file where it stands in one.

    Raises:
        PromptFileError: naming the line of the key at fault, or the line in the template's text.
    """
    declared = document.text("name")
    if declared not in {None, name}:
        document.refuse(("name",), f"the name {declared!r} is not the file's name {name!r}; leave it out")
    try:
        source = check_source(
            PromptSource(
                name=name,
                prompt_type=document.prompt_type,
                template=_template(document, markdown),
                messages=_messages(document),
                defaults=_defaults(document),
                validation=_validation(document),
                config=_config(document),
                metadata=_metadata(document),
                version=document.text(OWN, "version"),
                bump=document.text(OWN, "bump"),
                status=_status(document),
                tags=_tags(document),
                tests=_tests(document),
            )
        )
    except PromptFileError:
        raise
    except InvalidInputError as error:
        line = document.line(_place_of(document, error.field))
        if error.field == "template" and markdown is not None and markdown.body:
            line = markdown.body_line
        raise PromptFileError(document.path, str(error), line=line) from None
    _check_templates(document, source, markdown)
    return source


def _template(document: Document, markdown: Markdown | None) -> str:
    kind = document.prompt_type
    template = document.text("template") if kind.has_template else None
    if markdown is None or not markdown.body:
        if template is None and kind in {PromptType.SYSTEM, PromptType.USER}:
            # Said outright, a text may be empty; a file that lost its text must not become one.
            document.refuse((), f"a {kind} prompt needs a template, and there is none")
        return template or ""
    for key in ("template", "messages"):
        if document.value(key) is not None:
            document.refuse((key,), f"the text is under {key} and below the front matter; keep one")
    if not kind.has_template:
        message = f"a {kind} prompt has no text below its front matter; remove it"
        raise PromptFileError(document.path, message, line=markdown.body_line)
    return markdown.body


def _messages(document: Document) -> tuple[MessageTemplate, ...]:
    messages: list[MessageTemplate] = []
    for index, item in enumerate(document.list("messages") or []):
        at: JsonPath = ("messages", index)
        if not isinstance(item, dict):
            document.refuse(at, "expected a message with role and content")
        document.only(MESSAGE_KEYS, at, item)
        role, content = item.get("role"), item.get("content")
        if role not in _ROLES:
            document.refuse((*at, "role"), f"the role {role!r:.80} is not one of {', '.join(_ROLES)}")
        if not isinstance(content, str):
            document.refuse((*at, "content"), "the content of a message has to be text; put it in quotes")
        messages.append(MessageTemplate(role=role, content=content))
    return tuple(messages)


def _defaults(document: Document) -> dict[str, Any]:
    defaults, other = document.object("defaults"), document.object("input", "default")
    if defaults is not None and other is not None:
        document.refuse(("defaults",), "defaults and input.default mean the same; keep one")
    return defaults or other or {}


def _validation(document: Document) -> dict[str, Any] | None:
    schema, short = document.object("validation"), document.value("input", "schema")
    if schema is not None and short is not None:
        document.refuse(("validation",), "validation and input.schema mean the same; keep one")
    if short is not None:
        schema = _schema(document, ("input", "schema"), closed=False)
    if schema is not None:
        at = ("validation",) if short is None else ("input", "schema")
        schema = _checked_schema(document, schema, at)
    if document.flag(OWN, "extras"):
        schema = {"type": "object"} if schema is None else schema
        if schema.get("additionalProperties", True) is not True:
            document.refuse(
                (OWN, "extras"), "the schema of the inputs restricts additionalProperties; drop one"
            )
        schema = schema | {"additionalProperties": True}
    return schema


def _config(document: Document) -> dict[str, Any]:
    if document.prompt_type is PromptType.CONFIG:
        config = document.object("config")
        if config is None:
            document.refuse((), "a config prompt needs the key 'config' with its values")
        return config
    whole = document.object(OWN, "config")
    if whole is not None:
        if beside := [key for key in CONFIG_KEYS if document.value(key) is not None]:
            message = f"{OWN}.config is the whole configuration; remove {', '.join(beside)}, or move it there"
            document.refuse((OWN, "config"), message)
        return whole
    parts = {
        "model": document.text("model"),
        "parameters": document.object("config"),
        "tools": document.list("tools"),
        "output": _output(document),
    }
    declared = {part: value for part, value in parts.items() if value is not None}
    if document.prompt_type is PromptType.MODEL and not declared:
        document.refuse((), "a model prompt needs the key 'model' or 'config'")
    return declared


def _output(document: Document) -> dict[str, Any] | None:
    if document.object("output") is None:
        return None
    output: dict[str, Any] = {}
    if (form := document.text("output", "format")) is not None:
        output["format"] = form
    if document.value("output", "schema") is not None:
        at = ("output", "schema")
        output["schema"] = schema = _schema(document, at, closed=True)
        # `check_schema` is for variables, which are an object; an output may be of any type, so that goes apart.
        _checked_schema(document, {key: part for key, part in schema.items() if key != "type"}, at)
        if "type" in schema:
            _checked_schema(document, {"properties": {"output": {"type": schema["type"]}}}, at)
    return output


def _metadata(document: Document) -> dict[str, Any]:
    metadata = document.object("metadata") or {}
    description = document.text("description")
    if description is None:
        return metadata
    if "description" in metadata:
        document.refuse(("description",), "the description is here and in metadata; keep one")
    return {"description": description} | metadata


def _status(document: Document) -> VersionStatus | None:
    status = document.text(OWN, "status")
    return None if status is None else VersionStatus.parse(status)


def _tags(document: Document) -> tuple[str, ...]:
    tags = document.list(OWN, "tags") or []
    for index, tag in enumerate(tags):
        if not isinstance(tag, str):
            document.refuse((OWN, "tags", index), f"{tag!r:.80} is not text; put it in quotes")
    return tuple(tags)


def _tests(document: Document) -> tuple[Case, ...] | None:
    tests = document.list("tests")
    try:
        return None if tests is None else check_cases("tests", tests)
    except InvalidInputError as error:
        steps = re.findall(r"[^.\[\]]+", error.field)
        document.refuse(tuple(int(step) if step.isdecimal() else step for step in steps), str(error))


def _schema(document: Document, at: tuple[str, str], *, closed: bool) -> dict[str, Any]:
    def refuse(inner: JsonPath, message: str) -> NoReturn:
        document.refuse((*at, *inner), f"{dotted(at)}: {message}")

    return to_json_schema(document.value(*at), refuse=refuse, closed=closed)


def _checked_schema(document: Document, schema: Mapping[str, Any], at: JsonPath) -> dict[str, Any]:
    try:
        return check_schema(schema)
    except InvalidInputError as error:
        document.refuse(at, f"{dotted(at)} is no usable schema: {error}")


def _check_templates(document: Document, source: PromptSource, markdown: Markdown | None) -> None:
    if source.template:
        in_body = markdown is not None and markdown.body
        line = markdown.body_line if markdown is not None and in_body else document.text_line(("template",))
        _check_template(document, source.template, ("template",), line)
    for index, message in enumerate(source.messages):
        at: JsonPath = ("messages", index, "content")
        _check_template(document, message.content, at, document.text_line(at))


def _check_template(document: Document, template: str, at: JsonPath, first_line: int | None) -> None:
    """Refuse a template at its own line where its text stands in the file line for line, else at its key."""
    name = dotted(at)
    try:
        inspect_template(template, name=name)
    except TemplateError as error:
        if first_line is None or error.line is None:
            document.refuse(at, str(error))
        message = str(error).removeprefix(f"{name}, line {error.line}: ")
        raise PromptFileError(document.path, message, line=first_line + error.line - 1) from None
    except InvalidInputError as error:
        raise PromptFileError(document.path, str(error), line=first_line or document.line(at)) from None


def _place_of(document: Document, field: str) -> JsonPath:
    """Where a document declares what the checks of the source refuse, such as "metadata.owner" or "tags"."""
    part = field.split(".", 1)[0].split("[", 1)[0]
    places = _PLACES.get(part, ((part,),))
    return next((at for at in places if document.value(*at) is not None), ())
