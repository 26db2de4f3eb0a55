"""Source text to a checked syntax tree: what is not on the list of allowed tags, names, filters and tests
stops here.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from jinja2 import nodes
from jinja2.exceptions import TemplateSyntaxError
from jinja2.lexer import Lexer, Token
from jinja2.parser import Parser

from promptab.errors import TemplateError, TemplateLimitError
from promptab.templates.calls import GLOBALS
from promptab.templates.predicates import PREDICATES
from promptab.templates.sandbox import ENVIRONMENT
from promptab.templates.sequence_filters import FILTERS

if TYPE_CHECKING:
    from promptab.templates.limits import Limits

_ALLOWED = frozenset({
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.For, nodes.If, nodes.Macro, nodes.CallBlock,
    nodes.FilterBlock, nodes.With, nodes.Assign, nodes.AssignBlock, nodes.Include, nodes.Name, nodes.NSRef,
    nodes.Const, nodes.Tuple, nodes.List, nodes.Dict, nodes.Pair, nodes.Keyword, nodes.CondExpr,
    nodes.Filter, nodes.Test, nodes.Call, nodes.Getitem, nodes.Getattr, nodes.Slice, nodes.Concat,
    nodes.Compare, nodes.Operand, nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod,
    nodes.Pow, nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Pos, nodes.Scope,
})  # fmt: skip
_REFUSED_TAGS: dict[type[nodes.Node], str] = {
    nodes.Extends: "{% extends %}",
    nodes.Import: "{% import %}",
    nodes.FromImport: "{% from ... import %}",
    nodes.Block: "{% block %}",
    nodes.ScopedEvalContextModifier: "{% autoescape %}",
}
# Jinja2 gives `self` a meaning of its own, and True, False and None are no names
_RESERVED = frozenset({"self", "super", *GLOBALS})

_MAX_BRACKETS = 20
_MAX_TOKENS = 25_000
_BRACKETS = {"lparen": 1, "lbracket": 1, "lbrace": 1, "rparen": -1, "rbracket": -1, "rbrace": -1}

# Jinja2's lexer turns every line break into \n. To keep \r it is replaced, while lexing, by a space that the
# source does not contain: inside tags it still is a space, and in texts it is put back.
_STAND_INS = "\x1f\x1e\x1d\x1c\x0b\x0c\x85\u1680\u2028\u2029\u205f\u3000\u202f\xa0" + "".join(
    map(chr, range(0x2000, 0x200B))
)


class Syntax(NamedTuple):
    """A checked tree, and what its check found."""

    tree: nodes.Template
    includes: tuple[str, ...]
    """References in the order of their tags, repetitions included."""
    tolerated: frozenset[str]
    """Names that the template asks about by `is defined` or gives a `default`, so that it can do without
    them.
    """
    cost: int
    """Nodes of the tree."""


# Templates cannot write a name that begins with an underscore, so this one is never one of theirs
OUTCOME = "_outcome"


def parse(source: str, *, name: str, limits: Limits) -> Syntax:
    """Parse and check a template."""
    return _checked(_parsed(source, name, limits, expression=False), name, limits)


def parse_condition(expression: str, *, name: str, limits: Limits) -> Syntax:
    """Parse and check an expression; the tree assigns its value to `OUTCOME`."""
    syntax = _checked(_parsed(expression, name, limits, expression=True), name, limits)
    (output,) = syntax.tree.find_all(nodes.Output)
    assign = nodes.Assign(nodes.Name(OUTCOME, "store", lineno=1), output.nodes[0], lineno=1)
    return syntax._replace(tree=nodes.Template([assign], lineno=1))


def _parsed(source: str, name: str, limits: Limits, *, expression: bool) -> nodes.Template:
    if not isinstance(source, str):
        raise TemplateError(f"a template is text, not {type(source).__name__}", template=name)
    if len(source) > limits.source_chars:
        raise TemplateLimitError(
            f"has {len(source)} characters, more than {limits.source_chars} (limit `source_chars`)",
            template=name,
        )
    state = "variable" if expression else None
    parser = Parser(ENVIRONMENT, "", state=state)
    source, lexer = _lexer_for(source, name)
    try:
        parser.stream = lexer.tokenize(source, state=state)
        tree = _condition_tree(parser) if expression else parser.parse()
    except TemplateSyntaxError as error:
        raise TemplateError(str(error.message), template=name, line=error.lineno) from error
    except _TooLargeError as error:
        raise TemplateLimitError(f"line {parser.stream.current.lineno}: {error}", template=name) from error
    except (RecursionError, MemoryError) as error:
        raise TemplateLimitError("tags or expressions nest too deeply", template=name) from error
    except (ValueError, RuntimeError, AssertionError) as error:
        # such as a number of more than 4300 digits
        line = parser.stream.current.lineno
        raise TemplateError(f"cannot be parsed: {error}", template=name, line=line) from error
    tree.set_environment(ENVIRONMENT)
    return tree


def _condition_tree(parser: Parser) -> nodes.Template:
    condition = parser.parse_expression()
    if not parser.stream.eos:
        token = parser.stream.current
        raise TemplateSyntaxError(f"unexpected {str(token.value)!r} after the condition", token.lineno)
    return nodes.Template([nodes.Output([condition], lineno=1)], lineno=1)


def _lexer_for(source: str, name: str) -> tuple[str, Lexer]:
    if "\r" not in source:
        return source, _lexer("\r")
    stand_in = next((character for character in _STAND_INS if character not in source), None)
    if stand_in is None:
        raise TemplateError(
            "uses carriage returns beside every other kind of space; write line breaks as \\n", template=name
        )
    return source.replace("\r", stand_in), _lexer(stand_in)


class _TooLargeError(Exception):
    """Too many tokens, or brackets in one another."""


class _VerbatimLexer(Lexer):
    """A lexer that keeps line breaks as they are; `stand_in` is what stands for a carriage return in the
    source.
    """

    def __init__(self, stand_in: str) -> None:
        super().__init__(ENVIRONMENT)
        self.stand_in = stand_in

    def wrap(
        self, stream: Iterable[tuple[int, str, str]], name: str | None = None, filename: str | None = None
    ) -> Iterator[Token]:
        """Refuse here what would take the parser long, or fifteen Python calls deeper for each bracket."""
        depth = 0
        for count, token in enumerate(super().wrap(stream, name, filename)):
            depth += _BRACKETS.get(token.type, 0)
            if depth > _MAX_BRACKETS:
                raise _TooLargeError(f"brackets nest more than {_MAX_BRACKETS} deep")
            if count > _MAX_TOKENS:
                raise _TooLargeError(f"has more than {_MAX_TOKENS} tokens")
            yield token

    def _normalize_newlines(self, value: str) -> str:
        return value.replace(self.stand_in, "\r")


@functools.lru_cache(maxsize=len(_STAND_INS) + 1)
def _lexer(stand_in: str) -> Lexer:
    return _VerbatimLexer(stand_in)


def _checked(tree: nodes.Template, name: str, limits: Limits) -> Syntax:
    includes: list[str] = []
    tolerated: set[str] = set()
    count = 0
    line = 1
    for node, depth in _walk(tree):
        count += 1
        line = node.lineno or line
        if count > limits.syntax_nodes:
            raise TemplateLimitError(
                f"has more than {limits.syntax_nodes} syntax nodes (limit `syntax_nodes`)", template=name
            )
        if depth > limits.nesting:
            raise TemplateLimitError(
                f"nests more than {limits.nesting} deep at line {line} (limit `nesting`)", template=name
            )
        problem = _problem(node, limits)
        if problem is not None:
            raise TemplateError(problem, template=name, line=line)
        if isinstance(node, nodes.Include):
            includes.append(node.template.value)  # type: ignore[attr-defined] # _problem lets constants pass only
        elif _tolerates_absence(node):
            tolerated.add(node.node.name)  # type: ignore[attr-defined] # a test or a filter, directly on a name
    return Syntax(tree, tuple(includes), frozenset(tolerated), count)


def _walk(tree: nodes.Template) -> Iterator[tuple[nodes.Node, int]]:
    """Yield each node with its depth, in source order; on a stack, as trees may be deeper than Python's."""
    stack: list[tuple[nodes.Node, int]] = [(tree, 0)]
    while stack:
        node, depth = stack.pop()
        yield node, depth
        stack.extend((child, depth + 1) for child in reversed(list(node.iter_child_nodes())))


def _problem(node: nodes.Node, limits: Limits) -> str | None:  # noqa: C901, PLR0911, PLR0912 - one rule a line, in one place
    if type(node) not in _ALLOWED:
        return f"{_REFUSED_TAGS.get(type(node), type(node).__name__)} is not available in prompts"
    match node:
        case nodes.Name(name=name, ctx=ctx):
            return _name_problem(name) or (
                f"{name!r} cannot be assigned to" if ctx != "load" and name in _RESERVED else None
            )
        case nodes.NSRef(name=name, attr=attr):
            return _name_problem(name) or _name_problem(attr)
        case nodes.Macro(name=name):
            return _name_problem(name) or (f"{name!r} cannot be redefined" if name in _RESERVED else None)
        case nodes.Keyword(key=key):
            return _name_problem(key)
        case nodes.Getattr(attr=attr) if attr.startswith("_"):
            return f"the attribute {attr!r} is private; names that begin with an underscore are not available"
        case nodes.Getitem(arg=nodes.Const(value=str(key))) if key.startswith("__"):
            return f"the member {key!r} is private; names that begin with two underscores are not available"
        case nodes.Filter(name=name) if name not in FILTERS:
            return f"there is no filter {name!r}; there are {', '.join(sorted(FILTERS))}"
        case nodes.Test(name=name) if name not in PREDICATES:
            tests = ", ".join(sorted(known for known in PREDICATES if known.isalpha()))
            return f"there is no test {name!r}; there are {tests}"
        case nodes.Call():
            return _call_problem(node)
        case nodes.Filter() | nodes.Test() if node.dyn_args is not None or node.dyn_kwargs is not None:
            return "`*` and `**` arguments are not available; write the arguments out"
        case nodes.Include():
            return _include_problem(node)
        case nodes.Const(value=bool() | None):
            return None
        case nodes.Const(value=int(value)) if value.bit_length() > limits.int_bits:
            return f"a number of more than {limits.int_bits} bits (limit `int_bits`)"
        case nodes.Const(value=float(value)) if value - value != 0:
            return "a number that is too large"
    return None


def _name_problem(name: str) -> str | None:
    if not name.isascii():
        # Python reads such names in normal form NFKC, where two that differ here become one
        return f"the name {name!r} has characters other than A-Z a-z 0-9 _"
    if name.startswith("_") and name != "_":
        return f"the name {name!r} is private; names that begin with an underscore are not available"
    if name in {"self", "super"}:
        return f"{name!r} is not available in prompts"
    return None


def _call_problem(node: nodes.Call) -> str | None:
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        return "`*` and `**` arguments are not available; write the arguments out"
    if not isinstance(node.node, nodes.Name | nodes.Getattr):
        return "only names and methods can be called"
    if isinstance(node.node, nodes.Getattr) and node.node.attr in {"format", "format_map"}:
        return f"the method {node.node.attr}() is not available; use ~, % or the filter `format`"
    return None


def _include_problem(node: nodes.Include) -> str | None:
    if not isinstance(node.template, nodes.Const) or not isinstance(node.template.value, str):
        return 'an include names its prompt directly: {% include "system/tone@^1.0" %}'
    if node.ignore_missing:
        return "`ignore missing` is not available: what a prompt includes is pinned when the version is made"
    if not node.with_context:
        return "`without context` is not available: an included prompt shares the variables"
    return None


def _tolerates_absence(node: nodes.Node) -> bool:
    if isinstance(node, nodes.Test):
        return node.name in {"defined", "undefined"} and isinstance(node.node, nodes.Name)
    return (
        isinstance(node, nodes.Filter) and node.name in {"default", "d"} and isinstance(node.node, nodes.Name)
    )
