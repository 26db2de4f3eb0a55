"""Handlebars source to a tree. The tree takes everything that is well formed; what of it can be used, others decide."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from promptab.formats.handlebars_tokens import Refuse, Token, tokens

MAX_NESTING = 40
"""Blocks in one another; Jinja2 templates in promptab nest no deeper than `Limits.nesting`."""

_WORD = re.compile(
    r"""\s*(?:
        (?P<text>"(?:\\"|[^"])*"|'(?:\\'|[^'])*')
      | (?P<key>[^\s"'=()|\[\]./@]+)=
      | (?P<sub>\()
      | (?P<bar>\|)
      | (?P<path>@?(?:\[[^\]]*\]|[^\s"'=()|\[\]])+)
    )""",
    re.VERBOSE,
)
# the letters that handlebars.js takes in a name
_STEP = re.compile(r"\[(?P<quoted>[^\]]*)\]|(?P<plain>[^\s!\"#%-,./;->@\[-\^`{-~]+|\.\.?)")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?", re.ASCII)
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None, "undefined": None}


class Path(NamedTuple):
    """A value to look up: `../user.name` is one level up, then `user`, then `name`."""

    steps: tuple[str, ...]
    up: int
    is_data: bool
    """Whether it begins with `@`."""
    scoped: bool
    """Whether it begins with `this`, `.` or `..`, so that it cannot be the name of a helper."""
    written: str


class Constant(NamedTuple):
    value: str | float | bool | None
    written: str


Expression = Path | Constant


class Call(NamedTuple):
    """What stands in a tag: a path or a helper, with arguments by position and by name."""

    name: Expression
    arguments: tuple[Expression, ...]
    named: dict[str, Expression]
    line: int
    written: str


class Text(NamedTuple):
    text: str


class Value(NamedTuple):
    call: Call


class Partial(NamedTuple):
    call: Call
    indent: str


@dataclass
class Block:
    call: Call
    alone: bool
    body: list[Node] = field(default_factory=list)
    inverse: list[Node] | None = None
    """Below `{{else}}`; for `{{else if}}` that one block."""
    chained: bool = False
    """Whether the inverse is an `{{else if}}`."""
    else_alone: bool = False
    end_alone: bool = False


Node = Text | Value | Partial | Block


def parse(source: str, refuse: Refuse) -> list[Node]:
    """Return the tree. `refuse` is called with the line of what is not Handlebars, or is not supported as syntax."""
    return _Parser(source, refuse).program()


class _Parser:
    def __init__(self, source: str, refuse: Refuse) -> None:
        self.refuse = refuse
        self.tokens: Iterator[Token] = iter(tokens(source, refuse))

    def program(self) -> list[Node]:
        nodes, ending = self.nodes(0)
        if ending is not None:
            self.refuse(ending.line, f"{{{{{ending.sigil}{ending.text}}}}} closes nothing that is open")
        return nodes

    def nodes(self, depth: int) -> tuple[list[Node], Token | None]:
        """The nodes up to an else or a closing tag of the block around them, and that tag."""
        found: list[Node] = []
        for token in self.tokens:
            match token.sigil:
                case None:
                    found.append(Text(token.text))
                case "" | "&":
                    found.append(Value(self.call(token)))
                case ">":
                    found.append(Partial(self.call(token), token.indent))
                case "#":
                    found.append(self.block(token, depth + 1))
                case "/" | "else":
                    return found, token
                case _:
                    self.refuse(token.line, f"{{{{{token.sigil}{token.text}}}}} is not supported")
        return found, None

    def block(self, token: Token, depth: int) -> Block:
        if token.text.startswith((">", "*")):
            self.refuse(token.line, f"{{{{#{token.text:.80}}}}} is not supported")
        if depth > MAX_NESTING:
            self.refuse(token.line, f"blocks nest more than {MAX_NESTING} deep")
        block = Block(self.call(token), token.alone)
        name = block.call.written.split(maxsplit=1)[0]
        innermost = block
        while True:
            nodes, ending = self.nodes(depth)
            if innermost.inverse is None:
                innermost.body = nodes
            else:
                innermost.inverse = nodes
            if ending is None:
                self.refuse(token.line, f"{{{{#{name}}}}} is never closed")
            if ending.sigil == "/":
                if ending.text != name:
                    self.refuse(
                        ending.line, f"{{{{/{ending.text}}}}} closes the {{{{#{name}}}}} of line {token.line}"
                    )
                return _ended(block, alone=ending.alone)
            if innermost.inverse is not None:
                self.refuse(ending.line, f"a second {{{{else}}}} in one {{{{#{name}}}}}")
            innermost.else_alone = ending.alone
            innermost.inverse = []
            if ending.text:
                inner = Block(self.call(ending), ending.alone)
                innermost.inverse, innermost.chained = [inner], True
                innermost = inner

    def call(self, token: Token) -> Call:
        words, named = self.words(token)
        if not words:
            self.refuse(token.line, "an empty tag")
        return Call(words[0], tuple(words[1:]), named, token.line, token.text)

    def words(self, token: Token) -> tuple[list[Expression], dict[str, Expression]]:
        words: list[Expression] = []
        named: dict[str, Expression] = {}
        position, key = 0, None
        while position < len(token.text):
            word = _WORD.match(token.text, position)
            if word is None:
                self.refuse(token.line, f"{{{{{token.text:.80}}}}} is not a tag of Handlebars")
            if word["sub"] or word["bar"]:
                what = "block parameters (as |name|)" if word["bar"] else "subexpressions in parentheses"
                self.refuse(token.line, f"{{{{{token.sigil}{token.text:.80}}}}}: {what} are not supported")
            position = word.end()
            if word["key"]:
                key = word["key"]
                continue
            expression = self.expression(word, token)
            if key is None:
                words.append(expression)
            else:
                named[key] = expression
            key = None
        return words, named

    def expression(self, word: re.Match[str], token: Token) -> Expression:
        if (text := word["text"]) is not None:
            return Constant(text[1:-1].replace(f"\\{text[0]}", text[0]), text)
        written = word["path"]
        if written in _WORDS:
            return Constant(_WORDS[written], written)
        if _NUMBER.fullmatch(written):
            number = float(written)
            return Constant(int(number) if number.is_integer() and "." not in written else number, written)
        path = _path(written)
        if path is None:
            self.refuse(token.line, f"{written:.80} is not a path of Handlebars")
        return path


def _ended(block: Block, *, alone: bool) -> Block:
    """The one closing tag ends a block and all that is chained to it by `{{else if}}`."""
    inner = block
    inner.end_alone = alone
    while inner.chained and inner.inverse and isinstance(inner.inverse[0], Block):
        inner = inner.inverse[0]
        inner.end_alone = alone
    return block


def _path(written: str) -> Path | None:
    rest = written.removeprefix("@")
    steps: list[str] = []
    up, scoped, position = 0, False, 0
    while position < len(rest):
        step = _STEP.match(rest, position)
        if step is None:
            return None
        position = step.end()
        plain = step["plain"]
        if plain in {"..", ".", "this"}:
            if steps:
                return None
            up, scoped = up + (plain == ".."), True
        else:
            steps.append(step["quoted"] if plain is None else plain)
        if position < len(rest):
            if rest[position] not in "./" or position + 1 == len(rest):
                return None
            position += 1
    return Path(tuple(steps), up, rest != written, scoped, written)
