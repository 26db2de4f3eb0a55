"""The bytes of a prompt file, in each of its formats, to a `PromptSource` and back."""

from __future__ import annotations

import re

from promptab.errors import InvalidInputError, PromptFileError
from promptab.library.document import Document
from promptab.library.front_matter import is_body, join_markdown, split_markdown
from promptab.library.json_text import json_text, parse_json
from promptab.library.reading import read_source
from promptab.library.source import PromptSource
from promptab.library.writing import document_of
from promptab.library.yaml_text import parse_yaml, yaml_text
from promptab.models import PromptType

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def read_prompt(data: bytes, *, path: str, suffix: str, prompt_type: PromptType, name: str) -> PromptSource:
    """Read one prompt file: UTF-8, with or without a byte order mark; CRLF and CR count as LF.

    Raises:
        PromptFileError: under the name `path`, with the line where there is one.
    """
    text = decoded(data, path)
    markdown = None
    if suffix == ".md":
        markdown = split_markdown(text, path=path)
        located = parse_yaml(markdown.front, path=path, first_line=markdown.front_line)
    elif suffix == ".json":
        located = parse_json(text, path=path)
    else:
        located = parse_yaml(text, path=path)
    return read_source(Document(located, path=path, prompt_type=prompt_type), name=name, markdown=markdown)


def prompt_bytes(source: PromptSource, *, path: str, suffix: str) -> bytes:
    """Return a file of that format which reads back as exactly this source, which `check_source` has passed.

    Raises:
        InvalidInputError: if there is none, because of the syntax of a template or the form of a schema.
    """
    document = document_of(source)
    if suffix == ".json":
        text = json_text(document)
    elif suffix == ".md":
        body = document.pop("template") if source.template and is_body(source.template) else ""
        text = join_markdown(yaml_text(document) if document else "", body)
    else:
        text = yaml_text(document)
    data = text.encode()
    again = read_prompt(data, path=path, suffix=suffix, prompt_type=source.prompt_type, name=source.name)
    if again.fingerprint != source.fingerprint:
        raise InvalidInputError(
            "source",
            source.label,
            "in the form that files are read into",
            "write its validation as JSON Schema",
        )
    return data


def default_suffix(source: PromptSource) -> str:
    """Texts go into Markdown where a body can hold them exactly, everything else into YAML."""
    return ".md" if source.template and is_body(source.template) else ".yaml"


def decoded(data: bytes, path: str) -> str:
    """The text of a file, every line of it ended by LF. Raises `PromptFileError` for what no prompt may hold."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PromptFileError(
            path, f"is not UTF-8 (byte 0x{data[error.start]:02X}); save it as UTF-8", line=line
        ) from None
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if found := _CONTROL.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise PromptFileError(path, f"a control character (U+{ord(found[0]):04X}) in the file", line=line)
    return text
