"""JSON documents with line numbers. Stricter than `json.loads`: no repeated keys, no NaN, no deep nesting.

The standard parser does not tell where a key stands; this one asks it for the scalars only.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from typing import Any, NoReturn

from promptab.library.located import JsonPath, LocatedJson, Tally

_BLANK = re.compile(r"[ \t\n\r]*")
_SCALAR_START = '"-0123456789tfn'


def parse_json(text: str, *, path: str) -> LocatedJson:
    """Parse one JSON document; `path` names the file in a refusal, which is a `PromptFileError`."""
    return _Parser(text, path).document()


def json_text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


class _Parser:
    def __init__(self, text: str, path: str) -> None:
        self.text = text
        self.tally = Tally(path)
        self.lines: dict[JsonPath, int] = {}
        self.breaks = [found.start() for found in re.finditer("\n", text)]
        self.position = 0
        self.scalars = json.JSONDecoder(
            parse_int=lambda digits: self.tally.integer(digits, line=self.line()),
            parse_float=lambda digits: self.tally.number(digits, line=self.line()),
            parse_constant=lambda constant: self.refuse(f"{constant} is not a finite number"),
        )

    def document(self) -> LocatedJson:
        value = self.value((), depth=0)
        if self.peek():
            self.refuse("text after the end of the document")
        return LocatedJson(value, self.lines, {})

    def value(self, at: JsonPath, *, depth: int) -> Any:
        start = self.peek()
        line = self.line()
        self.lines.setdefault(at, line)
        self.tally.enter(depth=depth, line=line)
        if start == "{":
            return self.object(at, depth=depth)
        if start == "[":
            return self.list(at, depth=depth)
        value = self.scalar()
        return self.tally.text(value, line=line) if isinstance(value, str) else value

    def object(self, at: JsonPath, *, depth: int) -> dict[str, Any]:
        members: dict[str, Any] = {}
        self.position += 1
        if self.peek() == "}":
            self.position += 1
            return members
        while True:
            if self.peek() != '"':
                self.refuse("expected a key in double quotes")
            line = self.line()
            key = self.tally.key(self.scalar(), members, line=line)
            self.lines[(*at, key)] = line
            if self.peek() != ":":
                self.refuse(f"expected ':' after the key {key[:80]!r}")
            self.position += 1
            members[key] = self.value((*at, key), depth=depth + 1)
            if self.ends("}"):
                return members

    def list(self, at: JsonPath, *, depth: int) -> list[Any]:
        items: list[Any] = []
        self.position += 1
        if self.peek() == "]":
            self.position += 1
            return items
        while True:
            items.append(self.value((*at, len(items)), depth=depth + 1))
            if self.ends("]"):
                return items

    def ends(self, closing: str) -> bool:
        """Step over a comma, or over the closing bracket; return whether it was the bracket."""
        found = self.peek()
        if found not in {",", closing}:
            self.refuse(f"expected ',' or '{closing}'")
        self.position += 1
        return found == closing

    def scalar(self) -> Any:
        if (start := self.peek()) not in _SCALAR_START or not start:
            self.refuse(f"expected a JSON value, not {start!r}" if start else "the document ends too early")
        try:
            value, self.position = self.scalars.raw_decode(self.text, self.position)
        except json.JSONDecodeError as error:
            self.position = error.pos
            self.refuse(error.msg)
        return value

    def peek(self) -> str:
        """Step over blanks and return the next character, or nothing at the end."""
        found = _BLANK.match(self.text, self.position)
        self.position = found.end() if found else self.position
        return self.text[self.position : self.position + 1]

    def line(self) -> int:
        return bisect_right(self.breaks, self.position - 1) + 1

    def refuse(self, message: str) -> NoReturn:
        self.tally.refuse(f"not valid JSON: {message}", self.line())
