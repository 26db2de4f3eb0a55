"""The template language of dataknobs: Jinja2 with trimmed blocks and, in the mode `mixed`, `((optional parts))`.

An optional part is there if one of its variables has a value. Outside and inside of it, blanks within the braces of a
plain variable are printed: `{{ name }}` gives ` Ada `.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from promptab.errors import TemplateError
from promptab.formats.jinja_trimming import for_trimming, from_trimming
from promptab.formats.jinja_writing import is_name

_VARIABLE = re.compile(r"\{\{(?P<left>\s*)(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<right>\s*)\}\}", re.ASCII)
_OTHER_TAG = re.compile(r"\{[{%#]")
_MAX_DEPTH = 20


def to_jinja(source: str, *, mode: str, label: str) -> str:
    """Return a template of dataknobs as promptab has it; `mode` is `mixed` or `jinja2`.

    Raises:
        TemplateError: with the line of what dataknobs refuses itself.
    """
    return from_trimming(_mixed(source, label, _spaced, 1) if mode == "mixed" else source, label=label)


def of_jinja(source: str, *, mode: str, label: str) -> str:
    """The other way. In the mode `mixed` a text with `((` is refused with a `TemplateError`."""
    if mode == "mixed":
        if "((" in source:
            raise TemplateError(
                "dataknobs takes (( in a message for an optional part; reword it", template=label
            )
        source = _VARIABLE.sub(lambda found: f"{{{{{found['name']}}}}}", source)
    return for_trimming(source, label=label)


def _mixed(text: str, label: str, plain: Callable[[str], str], depth: int) -> str:
    """Turn the optional parts into conditions, and what stands between them by `plain`."""
    if depth > _MAX_DEPTH:
        raise TemplateError(f"optional parts nest more than {_MAX_DEPTH} deep", template=label)
    written: list[str] = []
    position = 0
    while (start := text.find("((", position)) >= 0:
        end = _closing(text, start + 2)
        if end is None:
            raise TemplateError("(( without its ))", template=label, line=text.count("\n", 0, start) + 1)
        written += [plain(text[position:start]), _optional(text[start + 2 : end], label, depth)]
        position = end + 2
    return "".join([*written, plain(text[position:])])


def _closing(text: str, position: int) -> int | None:
    """Where the `))` of an optional part stands, single parentheses and inner parts left out."""
    depth, single = 1, 0
    while position < len(text):
        if text.startswith("((", position):
            depth, position = depth + 1, position + 2
        elif text.startswith("))", position) and single == 0:
            depth, position = depth - 1, position + 2
            if depth == 0:
                return position - 2
        else:
            single += {"(": 1, ")": -1}.get(text[position], 0)
            position += 1
    return None


def _optional(content: str, label: str, depth: int) -> str:
    names = list(dict.fromkeys(found["name"] for found in _VARIABLE.finditer(content)))
    for name in names:
        if not is_name(name):
            raise TemplateError(f"{name:.80} is no name that a Jinja2 variable can have", template=label)
    if _OTHER_TAG.search(_VARIABLE.sub("", content)):
        raise TemplateError("only plain variables can stand in an optional part (( … ))", template=label)

    def plain(text: str) -> str:
        return _VARIABLE.sub(lambda found: _printed(found, is_alone=len(names) == 1), text)

    inner = _mixed(content, label, plain, depth + 1)
    if not names:
        return inner
    tests = [f"{name} is defined and {name}" for name in names]
    test = tests[0] if len(tests) == 1 else " or ".join(f"({each})" for each in tests)
    # the signs keep the line breaks inside of the part, which dataknobs keeps as well
    return f"{{%+ if {test} +%}}{inner}{{%+ endif +%}}"


def _printed(found: re.Match[str], *, is_alone: bool) -> str:
    name = found["name"]
    value = name if is_alone else f"{name} if {name} is defined and {name} is not none else ''"
    return f"{found['left']}{{{{ {value} }}}}{found['right']}"


def _spaced(text: str) -> str:
    return _VARIABLE.sub(lambda found: f"{found['left']}{{{{ {found['name']} }}}}{found['right']}", text)
