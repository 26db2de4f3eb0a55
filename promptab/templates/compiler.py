"""A checked syntax tree to Python code in which every operator, call, filter and loop goes through the
budget.

The code that Jinja2 would generate uses Python's own operators and attributes. This generator replaces all of
them: what is left of Jinja2's is control flow and the scoping of names.
"""

# ruff: noqa: N802, N815 - the names that Jinja2's generator calls

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame, MacroRef, operators
from jinja2.environment import Template
from jinja2.exceptions import TemplateSyntaxError
from jinja2.nodes import EvalContext
from jinja2.utils import missing

from promptab.errors import TemplateError, TemplateLimitError
from promptab.templates.budget import Budget
from promptab.templates.sandbox import EACH, ENVIRONMENT
from promptab.templates.syntax import Syntax

if TYPE_CHECKING:
    from promptab.templates.body import Body


class IncludeSite(NamedTuple):
    """One include tag."""

    reference: str
    assigned: frozenset[str]
    """Names that the including template has assigned at that point, and so provides itself."""


class Code(NamedTuple):
    """A compiled template, before its includes are known."""

    run: Callable[[Scope], Iterator[str]]
    line_of: Callable[[int], int]
    """Line of the generated code -> line of the template."""
    filename: str
    cost: int
    """Steps of one run without loops, macros and includes."""
    reads: frozenset[str]
    """Names that it reads and does not assign itself; global functions included."""
    tolerated: frozenset[str]
    includes: tuple[IncludeSite, ...]


class _Exports:
    """Jinja2 keeps a record of assigned names for imports, which there are none of here."""

    def add(self, name: str) -> None:
        """Nobody asks."""

    def update(self, names: tuple[str, ...]) -> None:
        """Nobody asks."""


class Names(dict[str, Any]):
    """The names that a template sees: variables, global functions, and what it assigns at its top level."""

    __slots__ = ()

    def __missing__(self, key: str) -> Any:
        return missing


class Scope:
    """What the code of one template is run with: the `context` of Jinja2's generated code, and no more than
    that.
    """

    __slots__ = ("body", "budget", "resolve_or_missing", "vars")

    eval_ctx = EvalContext(ENVIRONMENT)
    exported_vars = _Exports()

    def __init__(self, names: Names, budget: Budget, body: Body) -> None:
        self.vars = names
        self.budget = budget
        self.body = body
        self.resolve_or_missing = names.__getitem__


def compile_syntax(syntax: Syntax, *, name: str, filename: str) -> Code:
    """Compile a checked tree; `filename` is what tracebacks show and must be ours, as Python code is made
    with it.
    """
    generator = _Generator(syntax.cost)
    try:
        _meter_loops(syntax.tree)
        generator.visit(syntax.tree)
        code = compile(generator.stream.getvalue(), filename, "exec")  # type: ignore[attr-defined] # a StringIO by default
    except TemplateSyntaxError as error:
        raise TemplateError(str(error.message), template=name, line=error.lineno) from error
    except (RecursionError, MemoryError) as error:
        raise TemplateLimitError("tags or expressions nest too deeply", template=name) from error
    except SyntaxError as error:
        # such as two macro parameters of one name, or more than 20 loops in one another
        raise TemplateError(f"cannot be compiled: {error.msg}", template=name) from error
    template = Template.from_code(ENVIRONMENT, code, {})
    return Code(
        run=template.root_render_func,  # type: ignore[arg-type] # Jinja2 declares its own context class
        line_of=template.get_corresponding_lineno,
        filename=filename,
        cost=syntax.cost,
        reads=frozenset(generator.reads),
        tolerated=syntax.tolerated,
        includes=tuple(generator.includes),
    )


def _meter_loops(tree: nodes.Template) -> None:
    for loop in list(tree.find_all(nodes.For)):
        cost = nodes.Const(_size(loop))
        loop.iter = nodes.Filter(loop.iter, EACH, [cost], [], None, None, lineno=loop.lineno)


def _size(tree: nodes.Node) -> int:
    return 1 + sum(1 for _ in tree.find_all(nodes.Node))


class _Generator(CodeGenerator):
    def __init__(self, cost: int) -> None:
        # the template's own name never gets into generated code (CVE-2024-56201)
        super().__init__(ENVIRONMENT, None, None, optimized=False)
        self.cost = cost
        self.reads: set[str] = set()
        self.includes: list[IncludeSite] = []

    def write_commons(self) -> None:
        self.writeline("resolve = context.resolve_or_missing")
        self.writeline("undefined = environment.undefined")
        self.writeline("budget = context.budget")
        self.writeline("guards = environment.guards")
        # what macros and blocks capture is joined by this name
        self.writeline("concat = budget.concat")
        self.writeline("if 0: yield None")

    def enter_frame(self, frame: Frame) -> None:
        super().enter_frame(frame)
        self.reads.update(name for action, name in frame.symbols.loads.values() if action == "resolve")

    def visit_Output(self, node: nodes.Output, frame: Frame) -> None:
        for child in node.nodes:
            self.start_write(frame, child)
            if isinstance(child, nodes.TemplateData):
                self.write(repr(child.data))
            else:
                self.write("(o if type(o := ")
                self.visit(child, frame)
                self.write(") is str else budget.text(o))")
            self.end_write(frame)

    def visit_Include(self, node: nodes.Include, frame: Frame) -> None:
        assigned = frame.symbols.dump_stores()
        reference: str = node.template.value  # type: ignore[attr-defined] # the check let constants pass only
        self.writeline(f"for event in context.body.include({len(self.includes)}, context, ", node)
        self.write(self.dump_local_context(frame) + "):")
        self.includes.append(IncludeSite(reference, frozenset(assigned)))
        self.indent()
        self.simple_write("event", frame)
        self.outdent()

    def visit_FilterBlock(self, node: nodes.FilterBlock, frame: Frame) -> None:
        filter_frame = frame.inner()
        filter_frame.symbols.analyze_node(node)
        self.enter_frame(filter_frame)
        self.buffer(filter_frame)
        self.blockvisit(node.body, filter_frame)
        # a filter may make anything of the text
        self.start_write(frame, node)
        self.write("budget.text(")
        self.visit_Filter(node.filter, filter_frame)
        self.write(")")
        self.end_write(frame)
        self.leave_frame(filter_frame)

    def visit_CallBlock(self, node: nodes.CallBlock, frame: Frame) -> None:
        call_frame, macro_ref = self.macro_body(node, frame)
        self.writeline("caller = ")
        self.macro_def(macro_ref, call_frame)
        self.start_write(frame, node)
        self.write("budget.text(")
        self.visit_Call(node.call, frame, forward_caller=True)
        self.write(")")
        self.end_write(frame)

    def macro_def(self, macro_ref: MacroRef, frame: Frame) -> None:
        self.write(f"guards['macro']({_size(macro_ref.node)}, ")
        super().macro_def(macro_ref, frame)
        self.write(")")

    def visit_Const(self, node: nodes.Const, frame: Frame) -> None:
        self.write(repr(node.value))

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
        self.write("{")
        for pair in node.items:
            self._guard("key", frame, pair.key)
            self.write(": ")
            self.visit(pair.value, frame)
            self.write(", ")
        self.write("}")

    def visit_Add(self, node: nodes.BinExpr, frame: Frame) -> None:
        self._guard(node.operator, frame, node.left, node.right, budget=True)

    visit_Sub = visit_Mul = visit_Div = visit_FloorDiv = visit_Mod = visit_Pow = visit_Add

    def visit_Neg(self, node: nodes.UnaryExpr, frame: Frame) -> None:
        self._guard("negative", frame, node.node, budget=True)

    def visit_Pos(self, node: nodes.UnaryExpr, frame: Frame) -> None:
        self._guard("positive", frame, node.node, budget=True)

    def visit_And(self, node: nodes.BinExpr, frame: Frame) -> None:
        self._native(frame, node.left, " and ", node.right)

    def visit_Or(self, node: nodes.BinExpr, frame: Frame) -> None:
        self._native(frame, node.left, " or ", node.right)

    def visit_Not(self, node: nodes.UnaryExpr, frame: Frame) -> None:
        self._native(frame, "not ", node.node)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("budget.joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:
        self.write("(")
        self._comparable(node.expr, frame)
        for operand in node.ops:
            self.visit(operand, frame)
        self.write(")")

    def visit_Operand(self, node: nodes.Operand, frame: Frame) -> None:
        self.write(f" {operators[node.op]} ")
        self._comparable(node.expr, frame)

    def visit_Getattr(self, node: nodes.Getattr, frame: Frame) -> None:
        self._guard("attribute", frame, node.node, node.attr, _path(node), budget=True)

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        if isinstance(node.arg, nodes.Slice):
            self._guard(
                "section", frame, node.node, node.arg.start, node.arg.stop, node.arg.step, budget=True
            )
        else:
            self._guard("item", frame, node.node, node.arg, _path(node), budget=True)

    def visit_Call(self, node: nodes.Call, frame: Frame, forward_caller: bool = False) -> None:  # noqa: FBT001, FBT002 - Jinja2's signature
        callee = node.node
        if isinstance(callee, nodes.Getattr):
            self.write("guards['method'](budget, ")
            self.visit(callee.node, frame)
            self.write(f", {callee.attr!r}")
        elif isinstance(callee, nodes.Name) and callee.name == "loop":
            self.write(f"guards['recurse'](budget, {self.cost}, ")
            self.visit(callee, frame)
        else:
            self.write("guards['call'](budget, ")
            self.visit(callee, frame)
        self.signature(node, frame, {"caller": "caller"} if forward_caller else None)
        self.write(")")

    def visit_Filter(self, node: nodes.Filter, frame: Frame) -> None:
        self.write(f"{self.filters[node.name]}(budget, ")
        if node.node is None:
            self.write(f"concat({frame.buffer})")
        else:
            self.visit(node.node, frame)
        self.signature(node, frame)
        self.write(")")

    def visit_Test(self, node: nodes.Test, frame: Frame) -> None:
        self.write(f"{self.tests[node.name]}(budget, ")
        self.visit(node.node, frame)
        self.signature(node, frame)
        self.write(")")

    def visit_CondExpr(self, node: nodes.CondExpr, frame: Frame) -> None:
        # an absent else is an empty text, as in Jinja2
        self._native(
            frame, node.expr1, " if ", node.test, " else ", "''" if node.expr2 is None else node.expr2
        )

    def _guard(self, name: str, frame: Frame, *parts: nodes.Node | str | None, budget: bool = False) -> None:
        """Write a call of the guard with these arguments; a text or None is an argument as it is."""
        self.write(f"guards[{name!r}](" + ("budget, " if budget else ""))
        for part in parts:
            if isinstance(part, nodes.Node):
                self.visit(part, frame)
            else:
                self.write(repr(part))
            self.write(", ")
        self.write(")")

    def _native(self, frame: Frame, *parts: nodes.Node | str) -> None:
        """Write Python code between nodes; only for what costs nothing: truth, `and`, `or`, `not`, `if`."""
        self.write("(")
        for part in parts:
            if isinstance(part, nodes.Node):
                self.visit(part, frame)
            else:
                self.write(part)
        self.write(")")

    def _comparable(self, node: nodes.Expr, frame: Frame) -> None:
        if isinstance(node, nodes.Const):
            self.visit(node, frame)
            return
        self.write("budget.comparable(")
        self.visit(node, frame)
        self.write(")")


def _path(node: nodes.Node) -> str:
    """Return how the template wrote it, for messages: `user.address.city`, `items[0]`."""
    match node:
        case nodes.Name(name=name):
            return str(name)
        case nodes.Getattr(node=inner, attr=attr):
            return f"{_path(inner)}.{attr}"
        case nodes.Getitem(node=inner, arg=nodes.Const(value=value)):
            return f"{_path(inner)}[{value!r}]"
        case nodes.Getitem(node=inner):
            return f"{_path(inner)}[...]"
    return "(...)"
