"""Templates that know nothing but placeholders: `{{name}}` (GitHub, the plain part of Mustache) and `$name` (llm)."""

from __future__ import annotations

import re

from promptab.errors import PromptFileError, TemplateError
from promptab.formats.jinja_tree import Origin, Variable, plain_parts
from promptab.formats.jinja_writing import JinjaTag, Literal, is_name, joined

BRACES = re.compile(r"\{\{[ \t]*(?P<name>[A-Za-z_][A-Za-z0-9_-]*)[ \t]*\}\}", re.ASCII)
# the pattern of string.Template, which llm renders with
_DOLLARS = re.compile(
    r"\$(?:(?P<dollar>\$)|(?P<name>[_a-z][_a-z0-9]*)|\{(?P<braced>[_a-z][_a-z0-9]*)\}|(?P<stray>))",
    re.ASCII | re.IGNORECASE,
)
_NAME_LETTER = re.compile(r"[A-Za-z0-9_]", re.ASCII)


def braces_to_jinja(text: str, *, path: str, line: int) -> str:
    """Turn `{{name}}` into variables; all other braces are text, as they are where the template comes from.

    `path` and `line`: where the text begins, for refusals, which are `PromptFileError`.
    """
    pieces: list[Literal | JinjaTag] = []
    position = 0
    for found in BRACES.finditer(text):
        pieces += [Literal(text[position : found.start()]), _variable(found["name"], text, found, path, line)]
        position = found.end()
    return joined([*pieces, Literal(text[position:])])


def jinja_to_braces(source: str, *, label: str, language: str) -> str:
    """The other way. Raises `TemplateError` for what is more than texts and variables, or a text like a placeholder."""
    written = ""
    for part in plain_parts(source, Origin(label, language)):
        if isinstance(part, Variable):
            if written.endswith("{"):
                raise TemplateError(f"{language} cannot say a brace right before a variable", template=label)
            written += f"{{{{{part.name}}}}}"
        elif found := BRACES.search(part):
            raise TemplateError(f"{language} cannot say {found[0]!r}, which is no variable", template=label)
        else:
            written += part
    return written


def dollars_to_jinja(text: str, *, path: str, line: int) -> str:
    """Turn `$name` and `${name}` into variables, `$$` into `$`; a `$` of any other kind is a `PromptFileError`."""
    pieces: list[Literal | JinjaTag] = []
    position = 0
    for found in _DOLLARS.finditer(text):
        pieces.append(Literal(text[position : found.start()]))
        position = found.end()
        name = found["name"] or found["braced"]
        if name is not None:
            pieces.append(_variable(name, text, found, path, line))
        elif found["dollar"] is not None:
            pieces.append(Literal("$"))
        else:
            message = "a $ that begins no variable; write $$ for the character"
            raise PromptFileError(path, message, line=_line(text, found, line))
    return joined([*pieces, Literal(text[position:])])


def jinja_to_dollars(source: str, *, label: str, language: str) -> str:
    """The other way. Raises `TemplateError` for what is more than texts and variables."""
    parts = plain_parts(source, Origin(label, language))
    written: list[str] = []
    for part, following in zip(parts, [*parts, ""][1:], strict=True):
        if not isinstance(part, Variable):
            written.append(part.replace("$", "$$"))
        elif isinstance(following, str) and _NAME_LETTER.match(following):
            written.append(f"${{{part.name}}}")
        else:
            written.append(f"${part.name}")
    return "".join(written)


def _variable(name: str, text: str, found: re.Match[str], path: str, line: int) -> JinjaTag:
    if not is_name(name):
        message = f"{name:.80} is no name that a Jinja2 variable can have"
        raise PromptFileError(path, message, line=_line(text, found, line))
    return JinjaTag(f"{{{{ {name} }}}}")


def _line(text: str, found: re.Match[str], first: int) -> int:
    return first + text.count("\n", 0, found.start())
