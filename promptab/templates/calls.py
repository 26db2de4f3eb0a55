"""What templates may call: macros, `caller()`, `loop(...)`, `range`, `namespace`, and a list of methods of
plain values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jinja2.runtime import LoopContext, Macro
from jinja2.utils import Namespace

from promptab.templates import sequence_filters, text_filters
from promptab.templates.budget import Budget, NotAllowedError, TooCostlyError, each, refuse

# A call takes about as long as evaluating twenty nodes
_CALL_COST = 20
_COMPARISONS_PER_STEP = 4096


class MeteredMacro:
    """A macro with what one call of it costs."""

    __slots__ = ("cost", "macro")

    def __init__(self, cost: int, macro: Macro) -> None:
        self.cost = cost
        self.macro = macro


class GlobalFunction:
    """A function that every template knows."""

    __slots__ = ("run",)

    def __init__(self, run: Callable[..., Any]) -> None:
        self.run = run


def call(budget: Budget, callee: Any, /, *args: Any, **kwargs: Any) -> Any:
    kind = type(callee)
    if kind is GlobalFunction:
        return callee.run(budget, *args, **kwargs)
    if kind is not MeteredMacro:
        refuse("call", callee)
    budget.spend(_CALL_COST + callee.cost + len(args) + len(kwargs))
    budget.enter()
    try:
        return callee.macro(*args, **kwargs)
    finally:
        budget.depth += 1


def recurse(budget: Budget, cost: int, loop: Any, /, *args: Any) -> Any:
    """`loop(items)` in a recursive loop, whose body has `cost` nodes."""
    if type(loop) is not LoopContext:
        refuse("call", loop)
    if len(args) != 1:
        raise NotAllowedError("loop(...) takes the items to go on with, and nothing else")
    items = each(budget, args[0], cost)
    budget.enter()
    try:
        return loop(items)
    finally:
        budget.depth += 1


def call_method(budget: Budget, value: Any, name: str, /, *args: Any, **kwargs: Any) -> Any:
    """`value.name(...)`, from a list of methods for each kind of value."""
    method = METHODS.get(type(value), {}).get(name)
    if method is None:
        refuse(f"call {name}() of", value)
    return method(budget, value, *args, **kwargs)


def _range(budget: Budget, /, *bounds: int) -> list[int]:
    if not all(type(bound) is int for bound in bounds):
        refuse("count with", *bounds)
    numbers = range(*bounds)
    try:
        size = len(numbers)
    except OverflowError:
        raise TooCostlyError(f"needs more than {budget.limits.steps} steps (limit `steps`)") from None
    budget.spend(1 + size)
    return list(numbers)


def _namespace(budget: Budget, values: Any = None, /, **members: Any) -> Namespace:
    if values is None:
        return Namespace(**members)
    if type(values) is not dict or not all(type(name) is str for name in values):
        refuse("make a namespace of", values)
    budget.spend(1 + len(values))
    return Namespace(values, **members)


def _cycle(budget: Budget, loop: LoopContext, /, *values: Any) -> Any:
    budget.spend(1 + len(values))
    return loop.cycle(*values)


def _changed(budget: Budget, loop: LoopContext, /, *values: Any) -> bool:
    for value in values:
        budget.comparable(value)
    return loop.changed(*values)


def _member(budget: Budget, value: dict[str, Any], name: Any, default: Any = None, /) -> Any:
    budget.comparable(name)
    return value[name] if type(name) is str and name in value else default


def _keys(budget: Budget, value: dict[str, Any], /) -> list[Any]:
    return budget.items(value)


def _values(budget: Budget, value: dict[str, Any], /) -> list[Any]:
    budget.spend(1 + len(value))
    return list(value.values())


def _split(budget: Budget, value: str, separator: str | None = None, maxsplit: int = -1, /) -> list[str]:
    _check_texts("split", separator or "")
    # one object per piece: a step for each character bounds the pieces whatever the separator
    budget.spend(1 + len(value))
    return value.split(separator, maxsplit)


def _splitlines(budget: Budget, value: str, /) -> list[str]:
    budget.spend(1 + len(value))
    return value.splitlines()


def _join(budget: Budget, value: str, items: Any, /) -> str:
    return sequence_filters.join(budget, items, value)


def _replace(budget: Budget, value: str, old: Any, new: Any, count: int = -1, /) -> str:
    return text_filters.replace(budget, value, old, new, None if count < 0 else count)


def _reader(name: str) -> Callable[..., Any]:
    """Return the method of that name as one that looks at the text and builds nothing larger than it."""

    def read(budget: Budget, value: str, /, *args: Any) -> Any:
        _check_texts(name, *(argument for argument in args if type(argument) is not int))
        budget.build(len(value))
        for argument in args:
            if type(argument) is str:
                # strip and rfind compare every character with every character at worst
                budget.spend(1 + len(value) * len(argument) // _COMPARISONS_PER_STEP)
        return getattr(value, name)(*args)

    return read


def _check_texts(name: str, *values: Any) -> None:
    for value in values:
        if type(value) is not str:
            refuse(f"call {name}() with", value)


# Written out, and read with `getattr` here only: never by a name out of a template
_TEXT_READERS = (
    "strip", "lstrip", "rstrip", "removeprefix", "removesuffix", "startswith", "endswith", "find", "rfind",
    "count",     "isalpha", "isalnum", "isdigit", "isdecimal", "isnumeric", "isspace", "islower", "isupper", "istitle",
)  # fmt: skip

METHODS: Mapping[type, Mapping[str, Callable[..., Any]]] = {
    str: {
        **{name: _reader(name) for name in _TEXT_READERS},
        "upper": text_filters.upper,
        "lower": text_filters.lower,
        "title": text_filters.title,
        "capitalize": text_filters.capitalize,
        "center": text_filters.center,
        "ljust": text_filters.left_justify,
        "rjust": text_filters.right_justify,
        "zfill": text_filters.zero_fill,
        "replace": _replace,
        "join": _join,
        "split": _split,
        "splitlines": _splitlines,
    },
    dict: {"items": sequence_filters.items, "keys": _keys, "values": _values, "get": _member},
    LoopContext: {"cycle": _cycle, "changed": _changed},
}

GLOBALS: Mapping[str, GlobalFunction] = {
    "range": GlobalFunction(_range),
    "namespace": GlobalFunction(_namespace),
}
