r"""Putting Handlebars source together, so that handlebars.js prints every text exactly as it is here.

Three things are in the way: braces (`\{{` is a text), backslashes before a tag, and block tags alone on their line,
which take the line with them: they are given a line of their own to take, or a comment that keeps them company.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

_BRACES = re.compile(r"(\\*)\{\{")
_COMMENT = "{{!}}"


class Plain(NamedTuple):
    text: str


class Tag(NamedTuple):
    inner: str
    """What stands between the braces."""
    is_block: bool = False
    """Whether it opens, divides or closes a block: those take their line."""
    spread: bool = False
    """Whether a block is to have its tags on lines of their own, for the reader's sake."""
    is_role: bool = False
    """Whether it begins a message: it may stand on a line of its own for the reader's sake."""


def joined(pieces: Iterable[Plain | Tag]) -> str:
    """Source of the pieces in a row, safe from being trimmed as a whole."""
    row = _merged(pieces)
    written: list[str] = []
    left: str | None = (
        ""  # the blanks before the next piece on its line; None where anything else stands there
    )
    for index, piece in enumerate(row):
        following = row[index + 1] if index + 1 < len(row) else None
        if isinstance(piece, Plain):
            written.append(_text(piece.text, before_tag=following is not None))
            left = _end_of_line(piece.text, left)
            continue
        source, left = _tag(piece, row[index - 1] if index else None, following, left)
        written.append(source)
    return _untrimmable("".join(written), row)


def _tag(
    piece: Tag, before: Plain | Tag | None, following: Plain | Tag | None, left: str | None
) -> tuple[str, str | None]:
    """A tag with what keeps the text around it as it is, and what then stands on the line before the next tag."""
    after = following.text if isinstance(following, Plain) else None
    opening = "{{~" if isinstance(before, Plain) and before.text.endswith("{") else "{{"
    if piece.is_role:
        return _role(piece, opening, before, after)
    source = f"{opening}{piece.inner}}}}}"
    takes_line = following is None or (after is not None and _takes_line(after))
    if piece.is_block and left == "" and (piece.spread or takes_line):
        return (source if following is None else f"{source}\n"), ""
    if after is not None and after.startswith("}"):
        source = f"{opening}{piece.inner}~}}}} "  # `}}}` would close a tag of another kind
    if not piece.is_block:
        return source, None
    if left is not None and takes_line:
        return f"{_COMMENT}{source}", None
    return source, None


def _role(piece: Tag, opening: str, before: Plain | Tag | None, after: str | None) -> tuple[str, str | None]:
    source = f"{opening}{piece.inner}"
    if isinstance(before, Plain) and not before.text[-1].isspace() and before.text[-1] not in "{\\":
        source = f"\n\n{{{{~{piece.inner}"
    if after and not after[0].isspace():
        return f"{source}~}}}}\n", None  # for the reader, and so that no brace follows the tag
    return f"{source}}}}}", None


def _text(text: str, *, before_tag: bool) -> str:
    escaped = _BRACES.sub(lambda found: _braces(found[1]), text)
    if not before_tag:
        return escaped
    if escaped.endswith("{"):
        return f"{escaped} "  # the tag takes the blank away by its `~`; `{{{` would be a tag of another kind
    return f"{escaped}\\" if escaped.endswith("\\") else escaped


def _braces(backslashes: str) -> str:
    # backslashes before escaped braces would escape the escape: a comment ends the text between the two
    return f"{backslashes}\\{_COMMENT}\\{{{{" if backslashes else "\\{{"


def _takes_line(after: str) -> bool:
    blank = after[: len(after) - len(after.lstrip())]
    return "\n" in blank or blank == after


def _end_of_line(text: str, left: str | None) -> str | None:
    """The blanks between the last line break and the end of a text; None where anything else stands there."""
    start, _, line = text.rpartition("\n")
    if not start and "\n" not in text:
        if left is None:
            return None
        line = left + text
    return None if line.strip() else line


def _untrimmable(source: str, row: list[Plain | Tag]) -> str:
    """Dotprompt trims a body: comments at its ends keep the blanks that belong to the text. Two, as one alone on a
    line would take the line.
    """
    first, last = (row[0], row[-1]) if row else (None, None)
    if isinstance(first, Plain) and first.text[:1].isspace():
        source = f"{_COMMENT}{_COMMENT}{source}"
    if isinstance(last, Plain) and last.text[-1:].isspace():
        source = f"{source}{_COMMENT}{_COMMENT}"
    return source


def _merged(pieces: Iterable[Plain | Tag]) -> list[Plain | Tag]:
    row: list[Plain | Tag] = []
    for piece in pieces:
        if isinstance(piece, Plain) and row and isinstance(row[-1], Plain):
            row[-1] = Plain(row[-1].text + piece.text)
        elif not isinstance(piece, Plain) or piece.text:
            row.append(piece)
    return row
