"""A file in somebody else's format, taken apart as far as every format needs it, with line numbers."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple, NoReturn, Self

from promptab.errors import PromptFileError
from promptab.library.formats import decoded
from promptab.library.json_text import parse_json
from promptab.library.located import JsonPath, LocatedJson
from promptab.library.yaml_text import parse_yaml

_FENCE = re.compile(r"---[ \t]*")
_JSON_START = re.compile(r"\s*\{\s*[\"}]")
_SUFFIXES = (".prompt.yml", ".prompt.yaml", ".prompty", ".prompt", ".yaml", ".yml", ".json")


class ForeignFile(NamedTuple):
    """A decoded file: front matter and body, or one document, or neither."""

    path: str
    text: str
    front: LocatedJson | None
    """What stands between the two `---` lines; None where there are none."""
    body: str
    """The text below the front matter, or all of it."""
    body_line: int
    document: LocatedJson | None
    """The file as one YAML or JSON document; None where it has front matter, or is no such document."""
    problem: PromptFileError | None
    """Why it is no document."""

    @classmethod
    def of(cls, data: bytes, *, path: str) -> Self:
        """Take a file apart. Raises `PromptFileError` for what is no text, or has broken front matter."""
        text = decoded(data, path)
        lines = text.split("\n")
        start = _front_matter_start(lines)
        if start is None:
            document, problem = _document(text, path)
            return cls(path, text, None, text, 1, document, problem)
        end = next((at for at in range(start + 1, len(lines)) if _FENCE.fullmatch(lines[at])), None)
        if end is None:
            message = "the front matter that begins here is never closed; add a line '---'"
            raise PromptFileError(path, message, line=start + 1)
        front = parse_yaml("\n".join(lines[start + 1 : end]), path=path, first_line=start + 2)
        return cls(path, text, front, "\n".join(lines[end + 1 :]), end + 2, None, None)

    @property
    def stem(self) -> str:
        """The file's name without the ending of its format."""
        name = PurePosixPath(self.path).name
        return next((name.removesuffix(end) for end in _SUFFIXES if name.endswith(end)), name)

    @property
    def folder(self) -> str:
        """The name of the folder that it stands in; empty where the path has none."""
        return PurePosixPath(self.path).parent.name

    @property
    def keys(self) -> ForeignKeys:
        """The keys of its front matter, or of its document; of a file with neither, none."""
        located = self.front or self.document
        if located is None or (self.front is None and not isinstance(located.value, dict)):
            located = LocatedJson({}, {}, {})
        return ForeignKeys(located, path=self.path)


class ForeignKeys:
    """Typed access to the keys of a document. A key without a value (null) counts as absent."""

    def __init__(self, located: LocatedJson, *, path: str) -> None:
        self.located = located
        self.path = path
        value = {} if located.value is None else located.value
        if not isinstance(value, dict):
            self.refuse((), "expected keys with values, such as 'model: …'")
        self.value: dict[str, Any] = value

    def text(self, key: str) -> str | None:
        value = self.value.get(key)
        if value is not None and not isinstance(value, str):
            self.refuse((key,), f"{key}: {value!r:.80} is not text; put it in quotes")
        return value

    def object(self, key: str) -> dict[str, Any]:
        value = self.value.get(key)
        if value is not None and not isinstance(value, dict):
            self.refuse((key,), f"{key}: {value!r:.80} is not a set of keys with values")
        return value or {}

    def list(self, key: str) -> list[Any]:
        value = self.value.get(key)
        if value is not None and not isinstance(value, list):
            self.refuse((key,), f"{key}: {value!r:.80} is not a list")
        return value or []

    def others(self, known: Collection[str]) -> dict[str, Any]:
        """The keys with values that are not among those known."""
        return {key: value for key, value in self.value.items() if key not in known and value is not None}

    def line(self, at: JsonPath) -> int | None:
        return self.located.line(at)

    def refuse(self, at: JsonPath, message: str) -> NoReturn:
        raise PromptFileError(self.path, message, line=self.line(at))

    def lines_of(self, places: Mapping[JsonPath, JsonPath]) -> dict[JsonPath, int]:
        """The lines of everything below some keys, under the keys that promptab has for them.

        `places`: path in this document -> path in promptab's own.
        """
        return {
            (*own, *at[len(foreign) :]): line
            for foreign, own in places.items()
            for at, line in self.located.lines.items()
            if at[: len(foreign)] == foreign
        }


def _front_matter_start(lines: list[str]) -> int | None:
    """The index of the opening fence: the first line but for blank ones and comments (a licence)."""
    for index, line in enumerate(lines):
        if _FENCE.fullmatch(line):
            return index
        if line.strip() and not line.startswith("#"):
            return None
    return None


def _document(text: str, path: str) -> tuple[LocatedJson | None, PromptFileError | None]:
    parse = parse_json if _JSON_START.match(text) else parse_yaml
    try:
        return parse(text, path=path), None
    except PromptFileError as problem:
        return None, problem
