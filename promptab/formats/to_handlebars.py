"""Jinja2 to Handlebars with the helpers of Dotprompt. What Handlebars has no words for is refused with its line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jinja2 import nodes

from promptab.formats.handlebars_writing import Plain, Tag
from promptab.formats.jinja_tree import Origin, described, tree
from promptab.formats.known_values import Doubt, KnownValues, Shape

_HELPERS = frozenset({
    "each", "else", "false", "history", "if", "ifEquals", "json", "log", "lookup", "media", "null", "role", "section",
    "this", "true", "undefined", "unless", "unlessEquals", "with",
})  # fmt: skip
_LOOP = {"index0": "@index", "first": "@first", "last": "@last"}

Pieces = list[Plain | Tag]


class Loop(NamedTuple):
    """One `{% for %}` around a place."""

    item: str
    key: str | None


class Test(NamedTuple):
    """A condition as Handlebars can say it."""

    helper: str
    """`if`, `unless`, `ifEquals` or `unlessEquals`."""
    operands: str

    @property
    def inner(self) -> str:
        return f"{self.helper} {self.operands}"


_OPPOSITE = {"if": "unless", "unless": "if", "ifEquals": "unlessEquals", "unlessEquals": "ifEquals"}


def handlebars(source: str, *, label: str, values: KnownValues) -> Pieces:
    """Return what a template says, in Handlebars. `values`: what is declared of its variables.

    Raises:
        TemplateError: with the line of what Handlebars cannot say.
    """
    origin = Origin(label, "Handlebars")
    return _Translation(origin, values).statements(tree(source, origin), ())


class _Translation:
    def __init__(self, origin: Origin, values: KnownValues) -> None:
        self.origin = origin
        self.values = values

    def statements(self, statements: Sequence[nodes.Node], loops: tuple[Loop, ...]) -> Pieces:
        return [piece for statement in statements for piece in self.statement(statement, loops)]

    def statement(self, node: nodes.Node, loops: tuple[Loop, ...]) -> Pieces:
        match node:
            case nodes.Output():
                return [piece for value in node.nodes for piece in self.printed(value, loops)]
            case nodes.If():
                return self.condition(node, loops)
            case nodes.For():
                return self.loop(node, loops)
        raise self.origin.refusal(node, described(node))

    def printed(self, node: nodes.Node, loops: tuple[Loop, ...]) -> Pieces:  # noqa: PLR0911 - one kind of value a line
        match node:
            case nodes.TemplateData(data=text):
                return [Plain(text)]
            case nodes.Const(value=str(text)):
                return [Plain(text)]
            case nodes.Concat():
                return [piece for part in node.nodes for piece in self.printed(part, loops)]
            case nodes.Filter(name="default" | "d"):
                return self.defaulted(node, loops)
            case nodes.Filter(name="join", node=nodes.Node() as inner, args=[nodes.Const(value=",")]):
                return [Tag(self.path(inner, loops))]
            case nodes.Filter(name="tojson", node=nodes.Node() as inner):
                if self.shape(inner, loops).kinds == {"boolean"}:
                    return [
                        Tag(self.path(inner, loops))
                    ]  # `true` and `false` are what Handlebars prints anyway
                return [Tag(f"json {self.path(_operand(node), loops)}{self.indent(node)}")]
            case nodes.CondExpr():
                return self.conditional(node, loops)
        return [Tag(self.path(node, loops))]

    def defaulted(self, node: nodes.Filter, loops: tuple[Loop, ...]) -> Pieces:
        """`| default('')` is what Handlebars does anyway; another text needs `true`, as an empty value counts there."""
        path = self.path(_operand(node), loops)
        fallback, also_empty = _default_arguments(node)
        if fallback == "":
            return [Tag(path)]
        if not isinstance(fallback, str) or not also_empty:
            raise self.origin.refusal(
                node, "a default for a missing value only; write default('…', true), or declare the default"
            )
        return _block([f"if {path}"], [Tag(path)], [Plain(fallback)])

    def indent(self, node: nodes.Filter) -> str:
        given = [*node.args, *(keyword.value for keyword in node.kwargs)]
        if not given:
            return ""
        if len(given) > 1 or not isinstance(given[0], nodes.Const):
            raise self.origin.refusal(node, "an indent that is no number")
        return f" indent={given[0].value}"

    def conditional(self, node: nodes.CondExpr, loops: tuple[Loop, ...]) -> Pieces:
        empty = node.expr2 is None or (isinstance(node.expr2, nodes.Const) and node.expr2.value == "")
        # `x if x is defined and x is not none else ''`: Handlebars prints nothing for both without being told
        if (
            empty
            and (subject := _presence_of(node.test)) is not None
            and _source(_stripped(node.expr1)) == subject
        ):
            return self.printed(node.expr1, loops)
        tests = self.tests(node.test, loops)
        if len(tests) > 1 and not empty:
            raise self.origin.refusal(node, described(node.test))
        otherwise = None if node.expr2 is None or empty else self.printed(node.expr2, loops)
        return _block([test.inner for test in tests], self.printed(node.expr1, loops), otherwise)

    def condition(self, node: nodes.If, loops: tuple[Loop, ...]) -> Pieces:
        tests = self.tests(node.test, loops)
        if len(tests) > 1 and (node.elif_ or node.else_):
            raise self.origin.refusal(
                node, "`and` in a condition with another branch; nest two {% if %} instead"
            )
        otherwise = self.statements(node.else_, loops) if node.else_ else None
        if node.elif_:
            # not `{{else if}}`: engines differ in whether the closing tag of such a chain takes its line
            first, *others = node.elif_
            rest = nodes.If(first.test, first.body, others, node.else_, lineno=first.lineno)
            otherwise = self.condition(rest, loops)
        return _block([test.inner for test in tests], self.statements(node.body, loops), otherwise)

    def tests(self, node: nodes.Node, loops: tuple[Loop, ...]) -> list[Test]:
        """The conditions that have to hold together."""
        found: list[Test] = []
        parts = _conjuncts(node)
        for index, part in enumerate(parts):
            # Handlebars takes what is absent for false, so asking whether it is there says nothing of its own
            asked = _source(part.node) if isinstance(part, nodes.Test) and part.name == "defined" else None
            if asked is None or not any(_reads(later, asked) for later in parts[index + 1 :]):
                found.append(self.test(part, loops))
        return found

    def test(self, node: nodes.Node, loops: tuple[Loop, ...]) -> Test:
        match node:
            case nodes.Not():
                inner = self.tests(node.node, loops)
                if len(inner) > 1:
                    raise self.origin.refusal(node, "`not` of an `and`")
                return Test(_OPPOSITE[inner[0].helper], inner[0].operands)
            case nodes.Compare(ops=[nodes.Operand(op="eq" | "ne") as other]):
                helper = "ifEquals" if other.op == "eq" else "unlessEquals"
                return Test(helper, f"{self.operand(node.expr, loops)} {self.operand(other.expr, loops)}")
            case nodes.Filter(name="default" | "d") if not _default_arguments(node)[0]:
                return Test("if", self.path(_operand(node), loops))
        return Test("if", self.path(node, loops))

    def operand(self, node: nodes.Node, loops: tuple[Loop, ...]) -> str:
        if not isinstance(node, nodes.Const):
            return self.path(node, loops)
        if isinstance(node.value, str):
            quote = next((mark for mark in "\"'" if mark not in node.value and "\\" not in node.value), None)
            if quote is None:
                raise self.origin.refusal(
                    node, "a text with both kinds of quotes, or a backslash, in a comparison"
                )
            return f"{quote}{node.value}{quote}"
        words = {True: "true", False: "false", None: "null"}
        is_word = node.value is None or isinstance(node.value, bool)
        return words[node.value] if is_word else str(node.value)

    def loop(self, node: nodes.For, loops: tuple[Loop, ...]) -> Pieces:
        if node.recursive or node.test is not None:
            raise self.origin.refusal(node, "a recursive or filtered {% for %}")
        iterable, has_members = _members(node.iter)
        over = self.path(_stripped(iterable), loops)
        inner = self.loop_names(node, has_members=has_members)
        otherwise = self.statements(node.else_, loops) if node.else_ else None
        return _block([f"each {over}"], self.statements(node.body, (*loops, inner)), otherwise)

    def loop_names(self, node: nodes.For, *, has_members: bool) -> Loop:
        match node.target:
            case nodes.Name(name=item) if not has_members:
                return Loop(item, None)
            case nodes.Tuple(items=[nodes.Name(name=key), nodes.Name(name=item)]) if has_members:
                return Loop(item, key)
        raise self.origin.refusal(node, "a {% for %} that takes its items apart")

    def shape(self, node: nodes.Node, loops: tuple[Loop, ...]) -> Shape:
        """What is declared of a value; of the items of a loop nothing is known here."""
        match node:
            case nodes.Name(name=name) if not any(name in loop for loop in loops):
                return self.values.variable(name)
            case nodes.Getattr(node=inner, attr=attr):
                return self.shape(inner, loops).member(attr)
        return Shape(Doubt.UNKNOWN)

    def path(self, node: nodes.Node, loops: tuple[Loop, ...]) -> str:
        match node:
            case nodes.Name(name=name):
                return self.name(node, name, loops)
            case nodes.Getattr(node=nodes.Name(name="loop"), attr=attr) if loops:
                if attr not in _LOOP:
                    raise self.origin.refusal(node, f"loop.{attr}")
                return _LOOP[attr]
            case nodes.Getattr(node=inner, attr=attr):
                return _joined(self.path(inner, loops), attr)
            case nodes.Getitem(node=inner, arg=nodes.Const(value=str() | int() as key)) if not isinstance(
                key, bool
            ):
                if "]" in str(key) or str(key).startswith("-"):
                    raise self.origin.refusal(node, f"the member {key!r}")
                return _joined(self.path(inner, loops), f"[{key}]")
            case nodes.Filter(name="length" | "count", node=nodes.Node() as inner):
                return _joined(self.path(inner, loops), "length")
        raise self.origin.refusal(node, described(node))

    def name(self, node: nodes.Name, name: str, loops: tuple[Loop, ...]) -> str:
        for distance, loop in enumerate(reversed(loops)):
            if name == loop.item:
                return "/".join([".."] * distance) or "this"
            if name == loop.key:
                if distance:
                    raise self.origin.refusal(node, f"the key {name!r} of an outer loop")
                return "@key"
        if loops:
            return f"@root.{name}"
        return f"this.{name}" if name in _HELPERS else name


def _block(heads: list[str], body: Pieces, otherwise: Pieces | None) -> Pieces:
    """Blocks in one another around a body, such as "if a" and "each b"; over several lines where the body is."""
    content = [*body, *(otherwise or [])]
    spread = any(isinstance(piece, Plain) and "\n" in piece.text for piece in content)
    pieces: Pieces = [*(Tag(f"#{head}", is_block=True, spread=spread) for head in heads), *body]
    if otherwise is not None:
        pieces += [Tag("else", is_block=True, spread=spread), *otherwise]
    return [*pieces, *(Tag(f"/{head.split()[0]}", is_block=True, spread=spread) for head in reversed(heads))]


def _joined(path: str, step: str) -> str:
    step = "[this]" if step == "this" else step
    return f"{path}/{step}" if path.endswith("..") else f"{path}.{step}"


def _operand(node: nodes.Filter) -> nodes.Node:
    assert node.node is not None  # noqa: S101 - only {% filter %} has filters without an operand
    return node.node


def _default_arguments(node: nodes.Filter) -> tuple[object, bool]:
    """The fallback of a `default` filter where it is a constant or empty, and whether empty values get it too."""
    given: dict[str, object] = {"default_value": "", "boolean": False}
    given |= zip(given, map(_value, node.args), strict=False)
    given |= {str(word.key): _value(word.value) for word in node.kwargs}
    return given["default_value"], bool(given["boolean"])


def _value(node: nodes.Node) -> object:
    match node:
        case nodes.Const(value=value):
            return value
        case nodes.List(items=[]) | nodes.Dict(items=[]):
            return ""
    return node


def _members(node: nodes.Node) -> tuple[nodes.Node, bool]:
    """What a loop is over, and whether over the members of an object: `x | items` or `x.items()`."""
    match node:
        case nodes.Filter(name="items", node=nodes.Node() as inner):
            return inner, True
        case nodes.Call(node=nodes.Getattr(node=inner, attr="items"), args=[], kwargs=[]):
            return inner, True
    return node, False


def _stripped(node: nodes.Node) -> nodes.Node:
    """A value without what keeps Jinja2 from complaining that it is absent, and without how it is printed."""
    match node:
        case nodes.Filter(name="default" | "d") if not _default_arguments(node)[0]:
            return _operand(node)
        case nodes.Filter(name="tojson" | "join"):
            return _operand(node)
        case nodes.Or(left=nodes.And() as left, right=nodes.List(items=[]) | nodes.Dict(items=[])):
            *guards, last = _conjuncts(left)
            if all(isinstance(guard, nodes.Test) and guard.name == "defined" for guard in guards):
                return last
    return node


def _conjuncts(node: nodes.Node) -> list[nodes.Node]:
    if isinstance(node, nodes.And):
        return [*_conjuncts(node.left), *_conjuncts(node.right)]
    return [node]


def _presence_of(node: nodes.Node) -> str | None:
    """The value that a condition asks nothing about but whether it is there; None for other conditions."""
    *guards, last = _conjuncts(node)
    match last:
        case nodes.Not(node=nodes.Test(name="none", node=subject)):
            pass
        case _:
            return None
    told = _source(subject)
    only = all(isinstance(guard, nodes.Test) and guard.name == "defined" for guard in guards)
    return told if only else None


def _source(node: nodes.Node) -> str | None:
    """A path as one text, to compare paths by; None for anything else."""
    match node:
        case nodes.Name(name=name):
            return name
        case nodes.Getattr(node=inner, attr=attr):
            around = _source(inner)
            return None if around is None else f"{around}.{attr}"
        case nodes.Getitem(node=inner, arg=nodes.Const(value=key)):
            around = _source(inner)
            return None if around is None else f"{around}[{key!r}]"
    return None


def _reads(node: nodes.Node, path: str) -> bool:
    return _source(node) == path or any(_reads(child, path) for child in node.iter_child_nodes())
