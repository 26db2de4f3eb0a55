"""Markdown prompt files: optional YAML between two `---` lines, then the template as the body.

Blank lines around the body are no part of the template: an editor that trims or adds them changes nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from promptab.errors import PromptFileError

_FENCE = "---"


class Markdown(NamedTuple):
    front: str
    """The YAML text; empty where there is none."""
    front_line: int
    """Line of the file where the YAML begins."""
    body: str
    body_line: int


def split_markdown(text: str, *, path: str) -> Markdown:
    """Cut a file into front matter and body; lines end in LF.

    Raises:
        PromptFileError: for front matter that is opened and never closed.
    """
    lines = text.split("\n")
    if not _is_fence(lines[0]):
        return _with_body("", 1, lines, 0)
    for index in range(1, len(lines)):
        if _is_fence(lines[index]):
            return _with_body("\n".join(lines[1:index]), 2, lines, index + 1)
    raise PromptFileError(path, "the front matter that begins here is never closed; add a line '---'", line=1)


def join_markdown(front: str, body: str) -> str:
    """Put a file together; `body` has to be one that `is_body` accepts, or empty."""
    if not front and not _is_fence(body.split("\n", 1)[0]) and not body.startswith("\ufeff"):
        return f"{body}\n"
    return f"{_FENCE}\n{front}{_FENCE}\n" + (f"{body}\n" if body else "")


def is_body(template: str) -> bool:
    """Whether a template comes back unchanged from a body: no blank outer lines, and no line ends but LF."""
    return "\r" not in template and _with_body("", 1, template.split("\n"), 0).body == template


def _is_fence(line: str) -> bool:
    return line.rstrip(" \t") == _FENCE


def _with_body(front: str, front_line: int, lines: list[str], start: int) -> Markdown:
    end = len(lines)
    while start < end and not lines[start].strip(" \t"):
        start += 1
    while end > start and not lines[end - 1].strip(" \t"):
        end -= 1
    return Markdown(front, front_line, "\n".join(lines[start:end]), start + 1)
