"""Templates between engines that take the line break after a block tag away (`trim_blocks`, `lstrip_blocks`) and
promptab's, which never does.
"""

from __future__ import annotations

from collections.abc import Iterator

from jinja2 import Environment
from jinja2.exceptions import TemplateSyntaxError

from promptab.errors import TemplateError
from promptab.formats.jinja_tree import check_size
from promptab.formats.jinja_writing import literal

# only their lexers are used: nothing is ever compiled or rendered by these
_TRIMMING = Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False)  # noqa: S701
_PLAIN = Environment(keep_trailing_newline=True, autoescape=False)  # noqa: S701
_BEGIN = frozenset({"block_begin", "comment_begin"})
_END = frozenset({"block_end", "comment_end", "raw_end"})

Token = tuple[str, str]
"""Kind, as Jinja2's lexer has it, and source."""


def settled(source: str, *, label: str, trims: bool = False) -> Iterator[Token]:
    """The tokens of a template whose blanks are settled: no sign at a tag takes any away, and none is needed.

    Comments are left out, and what stands in `{% raw %}` is a text like others. In a row they are a template of the
    same meaning, which another template can take in.

    Args:
        source: the template.
        label: what to call it in refusals.
        trims: whether its engine trims blocks.

    Raises:
        TemplateError: with the line of what is no Jinja2.
    """
    for kind, value in _tokens(_TRIMMING if trims else _PLAIN, source, label):
        if kind.startswith(("comment", "raw")):
            continue
        if kind == "data":
            yield kind, literal(value)
        elif kind.endswith("_begin"):
            yield kind, value[:2]
        elif kind.endswith("_end"):
            yield kind, value.strip()[-2:]
        else:
            yield kind, value


def from_trimming(source: str, *, label: str) -> str:
    """Return a template that renders here as `source` does where blocks are trimmed. Raises as `settled`."""
    return "".join(value for _, value in settled(source, label=label, trims=True))


def for_trimming(source: str, *, label: str) -> str:
    """Return a template that renders where blocks are trimmed as `source` does here. Raises as `settled`."""
    tokens = list(_tokens(_PLAIN, source, label))
    written = [""]
    for index, (kind, value) in enumerate(tokens):
        following = tokens[index + 1][1] if index + 1 < len(tokens) else ""
        before = written[-1][-1:] or "\n"
        if kind in _BEGIN and value in {"{%", "{#"} and before.isspace():
            written.append(f"{value}+")
        elif kind in _END and value[-3:-2] != "-" and following[:1] in {"\n", "\r"}:
            written.append(f"{value[:-2]}+{value[-2:]}")
        else:
            written.append(value)
    return "".join(written)


def _tokens(environment: Environment, source: str, label: str) -> Iterator[Token]:
    check_size(len(source), label=label)
    try:
        for _, kind, value in environment.lex(source):
            yield kind, value
    except TemplateSyntaxError as error:
        raise TemplateError(str(error.message), template=label, line=error.lineno) from None
