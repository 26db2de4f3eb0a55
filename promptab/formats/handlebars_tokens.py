r"""Handlebars source to texts and tags, with the whitespace around tags already taken away.

As handlebars.js reads it: `\{{` is a text, `\\{{` a backslash before a tag, `~` inside the braces takes all blanks
on its side, and a block tag, comment or partial alone on its line takes the whole line.
https://handlebarsjs.com/guide/expressions.html
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

Refuse = Callable[[int, str], NoReturn]
"""Called with a line of the source and what is wrong there; has to raise."""

_TAG_END = re.compile(r"(~?)\}\}")
_TRIPLE_END = re.compile(r"\}(~?)\}\}")
_ESCAPED_END = re.compile(r"\\{0,2}\{\{")
_COMMENT_END = re.compile(r"--(~?)\}\}")
_REST_OF_LINE = re.compile(r"[ \t]*\r?\n?")
_QUOTES = frozenset("\"'")
_SIGILS = "#^/>&*!"


@dataclass
class Token:
    """A text (`sigil` is None) or a tag."""

    text: str
    """Of a tag: what stands between the braces, without sigil and `~`."""
    line: int
    sigil: str | None = None
    """One of `# ^ / > & * !`, `else`, or empty for a plain value."""
    strips_left: bool = False
    strips_right: bool = False
    alone: bool = False
    """Whether the tag was the only thing on its line."""
    indent: str = ""
    """The blanks before a partial that stands alone."""


def tokens(source: str, refuse: Refuse) -> list[Token]:
    """Return what is in a template, without empty texts and comments."""
    found = _scanned(source, refuse)
    _strip(found)
    return [token for token in found if token.sigil != "!" and (token.sigil is not None or token.text)]


def _scanned(source: str, refuse: Refuse) -> list[Token]:
    found: list[Token] = []
    position = 0

    def text(until: int, *, without: int = 0) -> None:
        if until - without > position:
            found.append(Token(source[position : until - without], _line(source, position)))

    while (start := source.find("{{", position)) >= 0:
        if source.endswith("\\\\", position, start):
            text(start, without=1)
        elif source.endswith("\\", position, start):
            text(start, without=1)
            following = _ESCAPED_END.search(source, start + 2)
            position, end = start, following.start() if following else len(source)
            text(end)
            position = end
            continue
        else:
            text(start)
        token, position = _tag(source, start, refuse)
        found.append(token)
    text(len(source))
    return found


def _tag(source: str, start: int, refuse: Refuse) -> tuple[Token, int]:
    """The tag that begins at `start`, and where it ends."""
    line = _line(source, start)
    if source.startswith("{{{{", start):
        refuse(line, "raw blocks ({{{{…}}}}) are not supported")
    inside = start + 2
    strips_left = source.startswith("~", inside)
    inside += strips_left
    if source.startswith("!", inside):
        return _comment(source, inside, Token("", line, "!", strips_left), refuse)
    triple = source.startswith("{", inside)
    inside += triple
    end = _end(source, inside, _TRIPLE_END if triple else _TAG_END)
    if end is None:
        refuse(line, "a tag that begins here is never closed")
    if source.startswith("}", end.end()):
        # handlebars.js reads the three braces as one, and finds nothing that they close
        refuse(line, "a tag is closed by one brace more than it was opened by")
    inner = source[inside : end.start()].strip()
    sigil = inner[0] if inner and inner[0] in _SIGILS and not triple else ""
    text = inner[1:].strip() if sigil else inner
    if text.split(maxsplit=1)[:1] == ["else"] and not sigil and not triple:
        sigil, text = "else", text[4:].strip()
    elif sigil == "^" and not text:
        sigil = "else"
    return Token(text, line, sigil, strips_left, bool(end[1])), end.end()


def _comment(source: str, inside: int, token: Token, refuse: Refuse) -> tuple[Token, int]:
    pattern = _COMMENT_END if source.startswith("!--", inside) else _TAG_END
    end = pattern.search(source, inside)
    if end is None:
        refuse(token.line, "a comment that begins here is never closed")
    token.strips_right = bool(end[1])
    return token, end.end()


def _end(source: str, position: int, pattern: re.Pattern[str]) -> re.Match[str] | None:
    """Where a tag ends: braces in quoted texts and in [names] are not its end."""
    while position < len(source):
        if end := pattern.match(source, position):
            return end
        letter = source[position]
        if letter in _QUOTES or letter == "[":
            closing = source.find("]" if letter == "[" else letter, position + 1)
            if closing < 0:
                return None
            position = closing
        position += 1
    return None


def _strip(found: list[Token]) -> None:
    originals = [token.text for token in found]
    for index, token in enumerate(found):
        if token.sigil is None:
            continue
        before = found[index - 1] if index and found[index - 1].sigil is None else None
        after = found[index + 1] if index + 1 < len(found) and found[index + 1].sigil is None else None
        if token.strips_left and before is not None:
            before.text = before.text.rstrip()
        if token.strips_right and after is not None:
            after.text = after.text.lstrip()
        if token.sigil not in {"", "&"} and _is_alone(found, originals, index):
            token.alone = True
            if token.sigil == ">" and before is not None:
                token.indent = originals[index - 1][len(originals[index - 1].rstrip(" \t")) :]
            if before is not None:
                before.text = before.text.rstrip(" \t")
            if after is not None and after.text == originals[index + 1]:
                after.text = _REST_OF_LINE.sub("", after.text, count=1)


def _is_alone(found: list[Token], originals: list[str], index: int) -> bool:
    last = len(found) - 1
    left = index == 0 or (
        found[index - 1].sigil is None and _ends_line(originals[index - 1], is_first=index == 1)
    )
    return left and (
        index == last
        or (found[index + 1].sigil is None and _begins_line(originals[index + 1], is_last=index + 1 == last))
    )


def _ends_line(text: str, *, is_first: bool) -> bool:
    kept = text.rstrip()
    return "\n" in text[len(kept) :] or (is_first and not kept)


def _begins_line(text: str, *, is_last: bool) -> bool:
    kept = text.lstrip()
    return "\n" in text[: len(text) - len(kept)] or (is_last and not kept)


def _line(source: str, position: int) -> int:
    return source.count("\n", 0, position) + 1
