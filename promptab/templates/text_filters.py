"""Filters on texts. Names and parameters are those of Jinja2; sizes are paid for before a text is built."""

# ruff: noqa: FBT001, FBT002 - the parameters of Jinja2's filters, which templates give by position

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import markupsafe

from promptab.templates.budget import SCALARS, Budget, NotAllowedError, TooCostlyError, refuse
from promptab.templates.operators import percent_format

# Changing case makes at most three characters of one ("ΐ".upper())
_CASE_GROWTH = 3
# Escaping makes at most five ("&#34;"), JSON at most six ("\u001f")
_ESCAPE_GROWTH = 5
_JSON_GROWTH = 6
_MAX_JSON_INDENT = 16
_MAX_DIGITS = 400
_WORD_BEGINNING = re.compile(r"([-\s({\[<]+)")


def upper(budget: Budget, value: Any, /) -> str:
    return _for_case(budget, value).upper()


def lower(budget: Budget, value: Any, /) -> str:
    return _for_case(budget, value).lower()


def capitalize(budget: Budget, value: Any, /) -> str:
    return _for_case(budget, value).capitalize()


def title(budget: Budget, value: Any, /) -> str:
    """Capitalise each word; unlike `str.title`, an apostrophe does not begin one."""
    parts = _WORD_BEGINNING.split(_for_case(budget, value))
    budget.spend(len(parts))
    return "".join([part[0].upper() + part[1:].lower() for part in parts if part])


def trim(budget: Budget, value: Any, /, chars: str | None = None) -> str:
    text = budget.text(value)
    budget.build(len(text))
    if chars is not None:
        chars = budget.text(chars)
        # strip() looks every character up in `chars`
        budget.spend(len(chars) * (1 + len(text) // 16))
    return text.strip(chars)


def replace(budget: Budget, value: Any, /, old: Any, new: Any, count: int | None = None) -> str:
    text, old, new = budget.text(value), budget.text(old), budget.text(new)
    budget.read(len(text) + len(old))
    found = text.count(old) if old else len(text) + 1
    if count is not None:
        found = min(found, max(_whole("count", count), 0))
    budget.build(max(len(text), len(text) + found * (len(new) - len(old))))
    return text.replace(old, new, found)


def center(budget: Budget, value: Any, /, width: int = 80, fill: str = " ") -> str:
    return _padded(budget, value, width).center(width, fill)


def left_justify(budget: Budget, value: Any, width: int, fill: str = " ", /) -> str:
    return _padded(budget, value, width).ljust(width, fill)


def right_justify(budget: Budget, value: Any, width: int, fill: str = " ", /) -> str:
    return _padded(budget, value, width).rjust(width, fill)


def zero_fill(budget: Budget, value: Any, width: int, /) -> str:
    return _padded(budget, value, width).zfill(width)


def indent(
    budget: Budget, value: Any, /, width: int | str = 4, first: bool = False, blank: bool = False
) -> str:
    """Indent every line but the first by `width` spaces or by the text `width`; empty lines only with
    `blank`.
    """
    text = budget.text(value)
    if type(width) is str:
        prefix = width
    else:
        size = max(_whole("width", width), 0)
        budget.build(size)
        prefix = " " * size
    lines = text.split("\n")
    budget.spend(len(lines))
    budget.build(len(text) + len(lines) * len(prefix))
    return "\n".join(
        prefix + line if (line.strip() or blank) and (number or first) else line
        for number, line in enumerate(lines)
    )


def truncate(
    budget: Budget,
    value: Any,
    /,
    length: int = 255,
    killwords: bool = False,
    end: str = "...",
    leeway: int = 5,
) -> str:
    """Cut a text that is longer than `length + leeway` to `length` characters, `end` included, at the end of
    a word.
    """
    text, end = budget.text(value), budget.text(end)
    length, leeway = _whole("length", length), _whole("leeway", leeway)
    if length < len(end) or leeway < 0:
        raise NotAllowedError(
            f"truncate needs a length of at least {len(end)} for {end!r}, and a leeway of at least 0"
        )
    budget.build(len(text))
    if len(text) <= length + leeway:
        return text
    cut = text[: length - len(end)]
    return (cut if killwords else cut.rsplit(" ", 1)[0]) + end


def wordwrap(
    budget: Budget,
    value: Any,
    /,
    width: int = 79,
    break_long_words: bool = True,
    wrapstring: str = "\n",
) -> str:
    """Break lines before they exceed `width`; line breaks in the text stay."""
    text, wrapstring, width = budget.text(value), budget.text(wrapstring), _whole("width", width)
    if width < 1:
        raise NotAllowedError("wordwrap needs a width of at least 1")
    budget.spend(len(text))
    lines = [
        wrapped
        for line in text.splitlines()
        for wrapped in _wrapped(line, width, break_long_words=break_long_words)
    ]
    budget.build(len(text) + len(lines) * len(wrapstring))
    return wrapstring.join(lines)


def wordcount(budget: Budget, value: Any, /) -> int:
    text = budget.text(value)
    budget.spend(1 + len(text))
    return len(text.split())


def string(budget: Budget, value: Any, /) -> str:
    return budget.text(value)


def escape(budget: Budget, value: Any, /) -> str:
    """Escape `& < > " '` for XML and HTML. Nothing is escaped unless a template says so."""
    text = budget.text(value)
    budget.build(_ESCAPE_GROWTH * len(text))
    return str.__str__(markupsafe.escape(text))


def tojson(budget: Budget, value: Any, /, indent: int | None = None) -> str:
    """JSON as a reader expects it in a prompt: the order of members kept, characters beyond ASCII and `<` as
    they are.
    """
    size = budget.measure(value, "write as JSON") * _JSON_GROWTH
    if indent is not None:
        if not 0 <= _whole("indent", indent) <= _MAX_JSON_INDENT:
            raise NotAllowedError(f"tojson indents by 0 to {_MAX_JSON_INDENT} spaces")
        size += size * indent * budget.limits.value_depth
    if size > budget.chars:
        budget.build(size)
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    budget.build(len(text))
    return text


def format_percent(budget: Budget, value: Any, /, *args: Any, **kwargs: Any) -> str:
    """`"%s of %d"|format(a, b)`: the operator `%` with arguments."""
    if args and kwargs:
        raise NotAllowedError("format takes values either by position or by name")
    return percent_format(budget, budget.text(value), kwargs or args)


def to_int(budget: Budget, value: Any, /, default: int = 0, base: int = 10) -> Any:
    """A whole number, or `default` where the value is none."""
    if type(value) not in SCALARS:
        refuse("make a number of", value)
    if type(value) is str and len(value) > _MAX_DIGITS:
        return default
    try:
        return budget.number(int(value, base) if type(value) is str else int(value))
    except (TypeError, ValueError, OverflowError):
        pass
    try:
        return budget.number(int(float(value)))
    except (TypeError, ValueError, OverflowError):
        return default


def to_float(_budget: Budget, value: Any, /, default: float = 0.0) -> Any:
    """A number with a fraction, or `default` where the value is none."""
    if type(value) not in SCALARS:
        refuse("make a number of", value)
    if type(value) is str and len(value) > _MAX_DIGITS:
        return default
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return default


def _for_case(budget: Budget, value: Any) -> str:
    text = budget.text(value)
    budget.build(_CASE_GROWTH * len(text))
    return text


def _padded(budget: Budget, value: Any, width: int) -> str:
    text = budget.text(value)
    budget.build(max(len(text), _whole("width", width)))
    return text


def _wrapped(line: str, width: int, *, break_long_words: bool) -> list[str]:
    lines: list[list[str]] = [[]]
    room = width
    for word in line.split(" "):
        pieces = [word]
        if break_long_words and len(word) > width:
            pieces = [word[start : start + width] for start in range(0, len(word), width)]
        for piece in pieces:
            # a space goes before every word but the first of a line
            if lines[-1] and len(piece) + 1 > room:
                lines.append([])
                room = width
            room -= len(piece) + bool(lines[-1])
            lines[-1].append(piece)
    return [" ".join(words) for words in lines]


def _whole(name: str, value: Any) -> int:
    if type(value) is not int:
        refuse(f"use as {name}", value)
    if value.bit_length() > 63:
        raise TooCostlyError(f"{name} is too large a number")
    return value


TEXT_FILTERS: Mapping[str, Callable[..., Any]] = {
    "capitalize": capitalize,
    "center": center,
    "e": escape,
    "escape": escape,
    "float": to_float,
    "format": format_percent,
    "indent": indent,
    "int": to_int,
    "lower": lower,
    "replace": replace,
    "string": string,
    "title": title,
    "tojson": tojson,
    "trim": trim,
    "truncate": truncate,
    "upper": upper,
    "wordcount": wordcount,
    "wordwrap": wordwrap,
}
