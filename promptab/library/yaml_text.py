"""YAML documents with line numbers, kept to what JSON can say.

Read from parser events, so nothing is ever constructed from a tag, and the limits hold while parsing. Refused
are tags, anchors and aliases, merge keys, repeated keys, keys that are not text, numbers that are not finite,
and a second document. Plain scalars follow the core schema of YAML 1.2: dates stay text, and so does `yes`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from promptab.errors import PromptFileError
from promptab.library.located import JsonPath, LocatedJson, Tally

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", re.ASCII)
_FOREIGN_BREAK = re.compile("[\u2028\u2029]")


def parse_yaml(text: str, *, path: str, first_line: int = 1) -> LocatedJson:
    """Parse one YAML document that begins at `first_line` of its file; an empty one gives None.

    Raises:
        PromptFileError: with the line, for anything that is not YAML or not allowed.
    """
    if found := _FOREIGN_BREAK.search(text):
        # YAML 1.1 parsers fold it like a line break and 1.2 parsers keep it: two readings of one file.
        line = first_line + text.count("\n", 0, found.start())
        raise PromptFileError(path, f"write U+{ord(found[0]):04X} as an escape in double quotes", line=line)
    # Without its last line break, a file that ends in a block would hold another text than the author sees.
    return _Builder(text if text.endswith("\n") else f"{text}\n", path, first_line).document()


def yaml_text(value: Any) -> str:
    """Write a JSON value so that readers of YAML 1.1 and 1.2 see the same; longer texts become blocks."""
    return yaml.dump(
        value, Dumper=_Writer, sort_keys=False, allow_unicode=True, default_flow_style=False, width=10**9
    )


class _Builder:
    def __init__(self, text: str, path: str, first_line: int) -> None:
        self.path = path
        self.first_line = first_line
        self.events = self.located_events(text)
        self.tally = Tally(path)
        self.lines: dict[JsonPath, int] = {}
        self.text_lines: dict[JsonPath, int] = {}

    def located_events(self, text: str) -> Iterator[yaml.Event]:
        """The parser's events; whatever the parser raises, with its line."""
        line = self.first_line
        try:
            for event in yaml.parse(text, Loader=yaml.SafeLoader):
                line = self.line(event)
                yield event
        except yaml.reader.ReaderError as error:
            line = self.first_line + text.count("\n", 0, error.position)
            raise PromptFileError(self.path, f"not valid YAML: {error.reason}", line=line) from None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = line if mark is None else mark.line + self.first_line
            raise PromptFileError(self.path, f"not valid YAML: {error.problem}", line=line) from None
        except (ValueError, OverflowError):  # an escape beyond Unicode, a directive with a huge number
            raise PromptFileError(self.path, "not valid YAML: a number is out of range", line=line) from None

    def document(self) -> LocatedJson:
        next(self.events)  # the start of the stream
        value = None
        if not isinstance(next(self.events), yaml.StreamEndEvent):
            value = self.value(next(self.events), (), depth=0)
            next(self.events)  # the end of the document
            after = next(self.events)
            if not isinstance(after, yaml.StreamEndEvent):
                self.tally.refuse("a second YAML document; one file holds one prompt", self.line(after))
        return LocatedJson(value, self.lines, self.text_lines)

    def value(self, event: yaml.Event, at: JsonPath, *, depth: int) -> Any:
        line = self.line(event)
        self.lines.setdefault(at, line)
        self.tally.enter(depth=depth, line=line)
        self.refuse_references(event, line)
        if isinstance(event, yaml.MappingStartEvent):
            return self.mapping(at, depth=depth)
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(at, depth=depth)
        assert isinstance(event, yaml.ScalarEvent)  # noqa: S101 - narrows the type: nothing else is left
        if event.style == "|":
            self.text_lines[at] = line + 1
        return self.scalar(event, line)

    def mapping(self, at: JsonPath, *, depth: int) -> dict[str, Any]:
        members: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            line = self.line(event)
            self.tally.enter(depth=depth + 1, line=line)
            key = self.tally.key(self.key(event, line), members, line=line)
            self.lines[(*at, key)] = line
            members[key] = self.value(next(self.events), (*at, key), depth=depth + 1)
        return members

    def sequence(self, at: JsonPath, *, depth: int) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self.value(event, (*at, len(items)), depth=depth + 1))
        return items

    def key(self, event: yaml.Event, line: int) -> str:
        self.refuse_references(event, line)
        if not isinstance(event, yaml.ScalarEvent):
            self.tally.refuse("a key that is not text; put a text that begins with { or [ in quotes", line)
        key = self.scalar(event, line)
        if not isinstance(key, str):
            self.tally.refuse(f"the key {event.value[:80]} is not text; put it in quotes", line)
        if key == "<<" and event.style is None:
            self.tally.refuse("merge keys (<<) are not allowed; write the keys out", line)
        return key

    def scalar(self, event: yaml.ScalarEvent, line: int) -> Any:
        text = event.value
        if event.style is not None:
            return self.tally.text(text, line=line)
        if text in _NULL:
            return None
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        if _INTEGER.fullmatch(text):
            return self.tally.integer(text, line=line)
        if _FLOAT.fullmatch(text):
            return self.tally.number(text, line=line)
        if _NOT_FINITE.fullmatch(text):
            self.tally.refuse(f"{text} is not a finite number", line)
        return self.tally.text(text, line=line)

    def refuse_references(self, event: yaml.Event, line: int) -> None:
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            self.tally.refuse("anchors and aliases (& and *) are not allowed; write the value out", line)
        if getattr(event, "tag", None) is not None:
            self.tally.refuse("tags (!) are not allowed; put a text that begins with ! in quotes", line)

    def line(self, event: yaml.Event) -> int:
        return self.first_line + (event.start_mark.line if event.start_mark else 0)


class _Writer(yaml.SafeDumper):
    """Quotes every text that a reader of either YAML version would take for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: FBT001, FBT002
        super().increase_indent(flow, indentless=False)


def _represent_text(writer: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Blocks that begin with a blank need an indentation hint, which parsers read differently.
    block = "\n" in text and text[0] not in " \n"
    return writer.represent_scalar("tag:yaml.org,2002:str", text, style="|" if block else None)


_Writer.add_representer(str, _represent_text)
_Writer.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(rf"^(?:{_FLOAT.pattern})$", re.ASCII), list("-+.0123456789")
)
_Writer.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^0o[0-7]+$"), ["0"])
