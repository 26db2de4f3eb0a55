"""Handlebars, with the helpers of Dotprompt, to Jinja2. What has no meaning there is named with its line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from promptab.checks import check_name
from promptab.errors import InvalidInputError, PromptFileError
from promptab.formats.drafting import Part
from promptab.formats.handlebars import (
    Block,
    Call,
    Constant,
    Expression,
    Node,
    Partial,
    Path,
    Text,
    Value,
    parse,
)
from promptab.formats.handlebars_scope import Reference, Scope, Step
from promptab.formats.jinja_tree import check_size
from promptab.formats.jinja_writing import JinjaTag, Literal, constant, is_name, joined
from promptab.formats.known_values import Doubt, KnownValues, Shape

_ROLES = {"model": "assistant"} | {
    role: role for role in ("system", "user", "tool", "assistant", "developer")
}
_TESTS = frozenset({"if", "unless", "ifEquals", "unlessEquals"})
_SHOWN_PROBLEMS = 8

Pieces = list[Literal | JinjaTag]


class Conversation(NamedTuple):
    """A template in Jinja2, one part for each of its messages."""

    parts: tuple[Part, ...]
    history: int | None
    """How many messages stand before `{{history}}`."""
    partials: tuple[str, ...]
    notes: tuple[str, ...]


def conversation(
    source: str,
    *,
    path: str,
    first_line: int = 1,
    schema: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Conversation:
    """Translate a template that begins at `first_line` of the file `path`.

    Raises:
        PromptFileError: at the first line that has no meaning in Jinja2, naming the others as well.
        TemplateLimitError: for a source larger than a template may be.
    """

    def refuse(line: int, message: str) -> NoReturn:
        raise PromptFileError(path, message, line=line + first_line - 1)

    check_size(len(source), label=path)
    nodes = parse(source, refuse)
    values = KnownValues(schema, defaults or {}, frozenset(_tested(nodes)))
    writer = _Writer(frozenset(_first_steps(nodes)))
    result = writer.messages(nodes, Scope(None, None, values))
    if writer.problems:
        line, _ = writer.problems[0]
        told = [f"line {at + first_line - 1}: {what}" for at, what in writer.problems[:_SHOWN_PROBLEMS]]
        more = len(writer.problems) - len(told)
        refuse(line, "not supported: " + "; ".join(told) + (f"; and {more} more" if more else ""))
    return result


class _Writer:
    """Turns nodes into pieces of Jinja2, and gathers what it cannot turn."""

    def __init__(self, taken: frozenset[str]) -> None:
        self.taken = taken
        """Names that loops must leave to the variables of the template."""
        self.problems: list[tuple[int, str]] = []
        self.partials: dict[str, None] = {}
        self.notes: dict[str, None] = {}
        self.loops = 0

    def messages(self, nodes: Sequence[Node], scope: Scope) -> Conversation:
        parts: list[Part] = []
        role, pieces, history = "user", Pieces(), None

        def end_message() -> None:
            if any(isinstance(piece, JinjaTag) or piece.text.strip() for piece in pieces):
                parts.append(Part(role, joined(pieces)))
            pieces.clear()

        for node in nodes:
            marker = _marker(node)
            if marker is None:
                pieces += self.node(node, scope)
                continue
            end_message()
            if marker.written.split()[0] == "role":
                role = self.role(marker) or role
            elif history is None:
                # what follows is taken for what the model said, unless a role says otherwise
                role, history = "assistant", len(parts)
            else:
                self.refuse(marker, "a second {{history}}")
        end_message()
        return Conversation(tuple(parts), history, tuple(self.partials), tuple(self.notes))

    def role(self, call: Call) -> str | None:
        if call.named:
            self.notes[
                f"the metadata of {{{{{call.written}}}}} is left out: messages have a role and a text"
            ] = None
        name = call.arguments[0] if len(call.arguments) == 1 else None
        if not isinstance(name, Constant) or not isinstance(name.value, str) or name.value not in _ROLES:
            self.refuse(call, f"{{{{{call.written}}}}}: a role is one of {', '.join(_ROLES)}, in quotes")
            return None
        return _ROLES[name.value]

    def nodes(self, nodes: Sequence[Node], scope: Scope) -> Pieces:
        return [piece for node in nodes for piece in self.node(node, scope)]

    def node(self, node: Node, scope: Scope) -> Pieces:
        match node:
            case Text(text):
                return [Literal(text)]
            case Value(call):
                return self.value(call, scope)
            case Partial(call, indent):
                return self.partial(call, indent, scope)
            case Block():
                return self.block(node, scope)

    def value(self, call: Call, scope: Scope) -> Pieces:
        if _marker(Value(call)) is not None:
            self.refuse(
                call,
                f"{{{{{call.written}}}}} inside of a block or a partial; messages are not made by conditions",
            )
            return []
        if call.written.split()[0] == "json" and call.arguments:
            return self.json(call, scope)
        if call.arguments or call.named:
            self.refuse(call, f"the helper {{{{{call.written:.80}}}}}")
            return []
        found = self.find(call, call.name, scope)
        return [] if found is None else [JinjaTag(f"{{{{ {_printed(found, scope)} }}}}")]

    def json(self, call: Call, scope: Scope) -> Pieces:
        indent = call.named.get("indent", Constant(None, ""))
        spaces = indent.value if isinstance(indent, Constant) else ""
        if len(call.arguments) != 1 or set(call.named) - {"indent"} or not isinstance(spaces, int | None):
            self.refuse(call, f"{{{{{call.written:.80}}}}}: json takes one value, and a number as indent")
            return []
        source = self.operand(call, call.arguments[0], scope)
        self.notes["{{json}} writes a blank after each comma and colon here"] = None
        return [JinjaTag(f"{{{{ {source} | tojson{'' if spaces is None else f'(indent={spaces})'} }}}}")]

    def partial(self, call: Call, indent: str, scope: Scope) -> Pieces:
        name = call.name.written
        if indent:
            self.refuse(call, f"the partial {name:.80} is indented")
        if call.arguments:
            self.refuse(call, f"the partial {name:.80} is given a context; give it named values")
        if scope.around is not None:
            self.refuse(call, f"the partial {name:.80} stands where `this` is no longer the whole input")
        try:
            self.partials[check_name("partial", name)] = None
        except InvalidInputError as error:
            self.refuse(call, str(error))
            return []
        tag = JinjaTag(f'{{% include "user/{name}" %}}')
        if not call.named:
            return [tag]
        for key in call.named:
            if not is_name(key):
                self.refuse(call, f"{key!r:.80} is no name that a Jinja2 variable can have")
        given = ", ".join(f"{key} = {self.operand(call, value, scope)}" for key, value in call.named.items())
        return [JinjaTag(f"{{% with {given} %}}"), tag, JinjaTag("{% endwith %}")]

    def block(self, block: Block, scope: Scope) -> Pieces:
        name = block.call.name.written
        if name in _TESTS:
            return self.condition(block, scope, "if")
        if name in {"each", "with"} and len(block.call.arguments) == 1 and not block.call.named:
            found = self.find(block.call, block.call.arguments[0], scope)
            if found is None:
                return []
            return self.loop(block, found, scope) if name == "each" else self.within(block, found, scope)
        self.refuse(block.call, f"the block {{{{#{block.call.written:.80}}}}}")
        return []

    def condition(self, block: Block, scope: Scope, word: str) -> Pieces:
        test, holding = self.test(block.call, scope)
        pieces: Pieces = [JinjaTag(f"{{% {word} {test} %}}", alone=block.alone)]
        pieces += self.nodes(block.body, scope.knowing(*holding.get(True, ())))
        otherwise = scope.knowing(*holding.get(False, ()))
        inner = block.inverse[0] if block.inverse and block.chained else None
        if isinstance(inner, Block) and inner.call.name.written in _TESTS:
            return [*pieces, *self.condition(inner, otherwise, "elif")]
        if block.inverse is not None:
            pieces.append(JinjaTag("{% else %}", alone=block.else_alone))
            pieces += self.nodes(block.inverse, otherwise)
        return [*pieces, JinjaTag("{% endif %}", alone=block.end_alone)]

    def test(self, call: Call, scope: Scope) -> tuple[str, dict[bool, tuple[str, ...]]]:
        """The condition of a block, and what is known to be true where it holds and where it does not."""
        name = call.name.written
        wanted = 1 if name in {"if", "unless"} else 2
        if len(call.arguments) != wanted or call.named:
            self.refuse(call, f"{{{{#{call.written:.80}}}}}: {name} takes {wanted} value(s) and nothing else")
            return "false", {}
        if wanted == 2:
            left, right = (self.operand(call, argument, scope) for argument in call.arguments)
            present = [guard for each in call.arguments for guard in self.guards(call, each, scope)]
            equal = " and ".join([*present, f"{left} == {right}"])
            return (equal if name == "ifEquals" else _negated(equal)), {}
        found = self.find(call, call.arguments[0], scope)
        if found is None:
            return "false", {}
        truth, holds = found.truth(scope.known), tuple(step.source for step in found.way)
        return (truth, {True: holds}) if name == "if" else (_negated(truth), {False: holds})

    def within(self, block: Block, found: Reference, scope: Scope) -> Pieces:
        pieces: Pieces = [JinjaTag(f"{{% if {found.truth(scope.known)} %}}", alone=block.alone)]
        pieces += self.nodes(block.body, scope.knowing(*(step.source for step in found.way)).inside(found))
        if block.inverse is not None:
            pieces.append(JinjaTag("{% else %}", alone=block.else_alone))
            pieces += self.nodes(block.inverse, scope)
        return [*pieces, JinjaTag("{% endif %}", alone=block.end_alone)]

    def loop(self, block: Block, found: Reference, scope: Scope) -> Pieces:
        self.loops += 1
        item, key = self.free_name("item"), self.free_name("key")
        over_members = found.shape.kinds == {"object"} or (not found.shape.kinds and _reads_key(block.body))
        shape = Shape(Doubt.UNKNOWN) if over_members else found.shape.item
        element = Reference((Step(item, shape),))
        source = _iterable(found, scope, "{}" if over_members else "[]")
        names = f"{key}, {item}" if over_members else item
        if over_members:
            source += " | items"
        inner = scope.inside(element, key=key if over_members else None, in_loop=True)
        pieces: Pieces = [JinjaTag(f"{{% for {names} in {source} %}}", alone=block.alone)]
        pieces += self.nodes(block.body, inner)
        self.loops -= 1
        if block.inverse is not None:
            pieces.append(JinjaTag("{% else %}", alone=block.else_alone))
            pieces += self.nodes(block.inverse, scope)
        return [*pieces, JinjaTag("{% endfor %}", alone=block.end_alone)]

    def operand(self, call: Call, value: Expression, scope: Scope) -> str:
        if isinstance(value, Constant):
            return constant(value.value)
        found = self.find(call, value, scope)
        return "none" if found is None else found.source

    def guards(self, call: Call, value: Expression, scope: Scope) -> list[str]:
        found = None if isinstance(value, Constant) else self.find(call, value, scope)
        return [] if found is None else found.presence(scope.known)

    def find(self, call: Call, value: Expression, scope: Scope) -> Reference | None:
        if isinstance(value, Constant):
            self.refuse(call, f"{{{{{call.written:.80}}}}}: a constant where a variable is expected")
            return None
        found = scope.find(value)
        if isinstance(found, Reference):
            return found
        self.refuse(call, f"{value.written:.80} {found}")
        return None

    def free_name(self, wanted: str) -> str:
        name = wanted if self.loops == 1 else f"{wanted}{self.loops}"
        while name in self.taken:
            name += "_"
        return name

    def refuse(self, call: Call, what: str) -> None:
        if (call.line, what) not in self.problems:
            self.problems.append((call.line, what))


def _marker(node: Node) -> Call | None:
    """The call of a `{{role}}` or `{{history}}`; other values may be called `this.role`."""
    if not isinstance(node, Value) or not isinstance(node.call.name, Path):
        return None
    name = node.call.name
    is_helper = not name.scoped and name.steps in {("role",), ("history",)}
    return node.call if is_helper else None


def _printed(found: Reference, scope: Scope) -> str:
    """The expression that prints a value as Handlebars does: true as `true`, nothing for what is absent."""
    shape, source = found.shape, found.source
    if shape.kinds == {"boolean"}:
        source += " | tojson"
    elif shape.kinds == {"array"}:
        source += " | join(',')"
    if shape.doubt is not Doubt.OPTIONAL or found.source in scope.known:
        return source
    if len(found.way) == 1 and shape.kinds <= {"string"}:
        # of a text, `true` lets null count as absent; of what nobody declared it would swallow 0
        return f"{source} | default('', true)" if shape.kinds else f"{source} | default('')"
    present = " and ".join([*found.presence(scope.known), f"{found.source} is not none"])
    return f"{source} if {present} else ''"


def _iterable(found: Reference, scope: Scope, empty: str) -> str:
    present = found.presence(scope.known)
    if not present:
        return found.source
    if len(found.way) == 1:
        return f"{found.source} | default({empty}, true)"
    return f"({' and '.join([*present, found.source])} or {empty})"


def _negated(condition: str) -> str:
    return f"not ({condition})" if " " in condition else f"not {condition}"


def _children(node: Node) -> Sequence[Node]:
    return [*node.body, *(node.inverse or [])] if isinstance(node, Block) else []


def _calls(nodes: Sequence[Node]) -> Iterator[Call]:
    for node in nodes:
        if not isinstance(node, Text):
            yield node.call
        yield from _calls(_children(node))


def _first_steps(nodes: Sequence[Node]) -> Iterator[str]:
    for call in _calls(nodes):
        for value in (call.name, *call.arguments, *call.named.values()):
            if isinstance(value, Path):
                # of data there is only @root that leads to a variable
                steps = value.steps[1:] if value.is_data else value.steps
                yield from steps[:1]


def _tested(nodes: Sequence[Node], depth: int = 0) -> Iterator[str]:
    """Names of variables that a block asks about; `depth` counts the blocks around that change `this`."""
    for node in nodes:
        if not isinstance(node, Block):
            continue
        for value in node.call.arguments:
            if isinstance(value, Path) and value.steps:
                if value.is_data and value.steps[0] == "root":
                    yield from value.steps[1:2]
                elif not value.is_data and value.up == depth:
                    yield value.steps[0]
        changes = node.call.name.written in {"each", "with"}
        yield from _tested(node.body, depth + changes)
        yield from _tested(node.inverse or [], depth)


def _reads_key(nodes: Sequence[Node]) -> bool:
    """Whether a loop's body asks for `@key`, leaving out the loops inside of it."""
    for node in nodes:
        if isinstance(node, Text):
            continue
        values = (node.call.name, *node.call.arguments, *node.call.named.values())
        if any(isinstance(value, Path) and value.is_data and value.steps == ("key",) for value in values):
            return True
        if isinstance(node, Block) and node.call.name.written != "each" and _reads_key(_children(node)):
            return True
    return False
