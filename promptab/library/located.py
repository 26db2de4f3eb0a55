"""JSON values that remember on which line each part was written, so that a refusal can say where."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

from promptab.checks import MAX_JSON_DEPTH
from promptab.errors import PromptFileError

JsonPath = tuple[str | int, ...]

MAX_NODES = 20_000
"""Values and keys in one document; a prompt has some tens. It bounds the time that reading takes."""
MAX_DEPTH = MAX_JSON_DEPTH + 4
"""A document nests its JSON objects in keys of its own (`input.schema`, `promptab.config`)."""

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_WHITE_CONTROL = re.compile("[\t\n\r]")


class LocatedJson(NamedTuple):
    value: Any
    lines: Mapping[JsonPath, int]
    """The line of each key and list item, counted from 1 in the file."""
    text_lines: Mapping[JsonPath, int]
    """For texts that stand in the file line for line (literal blocks): the line where the text begins."""

    def line(self, at: JsonPath) -> int | None:
        """The line of the part at that path, or of the nearest part around it that has one."""
        while at and at not in self.lines:
            at = at[:-1]
        return self.lines.get(at)


class Tally:
    """Counts the nodes of one document while it is read, and refuses those that no version could hold."""

    __slots__ = ("_nodes", "_path")

    def __init__(self, path: str) -> None:
        self._path = path
        self._nodes = 0

    def enter(self, *, depth: int, line: int) -> None:
        """Count one more node, `depth` levels down."""
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self.refuse(f"more than {MAX_NODES} keys and values; a prompt file is not a data file", line)
        if depth > MAX_DEPTH:
            self.refuse(f"nested more than {MAX_DEPTH} levels deep", line)

    def integer(self, digits: str, *, line: int) -> int:
        # The length goes first: CPython refuses to convert very long integers with an error of its own.
        if len(digits) > 20 or abs(number := int(digits)) >= 2**63:
            self.refuse("an integer of more than 63 bits; write it as text", line)
        return number

    def number(self, digits: str, *, line: int) -> float:
        number = float(digits)
        if number - number != 0.0:
            self.refuse(f"{digits[:40]} is not a finite number", line)
        return number

    def text(self, text: str, *, line: int) -> str:
        if found := _CONTROL.search(text):
            self.refuse(f"a control character (U+{ord(found[0]):04X}) in a text", line)
        return text

    def key(self, key: str, seen: Mapping[str, object], *, line: int) -> str:
        """Check a key against those that its object already has."""
        if _WHITE_CONTROL.search(self.text(key, line=line)):
            self.refuse("a line break or tab in a key", line)
        if key in seen:
            self.refuse(f"the key {key[:80]!r} is there twice", line)
        return key

    def refuse(self, message: str, line: int) -> NoReturn:
        raise PromptFileError(self._path, message, line=line)
