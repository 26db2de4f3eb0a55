"""Putting Jinja2 source together: texts that stay texts, names that are names, tags with their line breaks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

# What Jinja2 reads as the beginning of a tag; a brace at the end could become one with what follows it.
_OPENING = re.compile(r"\{(?=[{%#]|$)")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)
_RESERVED = frozenset({
    "and", "caller", "elif", "else", "false", "False", "for", "if", "import", "in", "is", "loop", "namespace",
    "none", "None", "not", "or", "range", "recursive", "self", "super", "true", "True",
})  # fmt: skip
_ESCAPES = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_CONSTANTS = {True: "true", False: "false", None: "none"}


class Literal(NamedTuple):
    """Text that comes out as it is."""

    text: str


class JinjaTag(NamedTuple):
    """A tag with its delimiters, such as `{{ name }}`."""

    source: str
    alone: bool = False
    """Whether it stood on a line of its own, which the text around it no longer has."""


def is_name(name: str) -> bool:
    """Whether a template may use the name for a variable of its caller."""
    return _NAME.fullmatch(name) is not None and name not in _RESERVED


def literal(text: str) -> str:
    """Source that renders to exactly this text, whatever stands before and after it."""
    return _OPENING.sub("{{ '{' }}", text)


def constant(value: Any) -> str:
    """A text, number, boolean or none as an expression."""
    if isinstance(value, str):
        return "'" + "".join(_ESCAPES.get(letter, letter) for letter in value) + "'"
    return _CONSTANTS[value] if value is None or isinstance(value, bool) else repr(value)


def joined(pieces: Iterable[Literal | JinjaTag]) -> str:
    """Source of the pieces in a row; a tag that stood alone gets its line back where that changes nothing."""
    row = list(pieces)
    written: list[str] = []
    for index, piece in enumerate(row):
        if isinstance(piece, Literal):
            written.append(literal(piece.text))
            continue
        source = piece.source
        following = row[index + 1] if index + 1 < len(row) else None
        # `-%}` takes all blanks after the tag, so the text that follows must begin with none of its own
        if piece.alone and following is not None and not _begins_blank(following):
            source = f"{source.removesuffix(' %}')} -%}}\n"
        written.append(source)
    return "".join(written)


def _begins_blank(piece: Literal | JinjaTag) -> bool:
    return isinstance(piece, Literal) and piece.text[:1].strip() == ""
