"""The operators of templates on plain values. Each pays for what it is about to make.

No operator asks a Python object for an attribute whose name comes from a template: `.` and `[]` look into
objects and lists only, and into the few documented members of `loop`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from jinja2.runtime import LoopContext
from jinja2.utils import Namespace

from promptab.templates.budget import (
    CONTAINERS,
    NUMBERS,
    SCALARS,
    Budget,
    Group,
    Missing,
    NotAllowedError,
    TooCostlyError,
    refuse,
)

_MAX_FIELD_WIDTH = 1_000
# %f writes 309 digits of the largest float
_MAX_NUMBER_CHARS = 400
_CONVERSION_TYPES = frozenset("sdifFeEgGxXorc%")
_LOOP_MEMBERS = frozenset({
    "index", "index0", "revindex", "revindex0", "first", "last", "length", "depth", "depth0", "previtem",
    "nextitem",
})  # fmt: skip
_CONVERSION = re.compile(
    r"%(?:\((?P<key>[^()]*)\))?(?P<flags>[#0\- +]*)(?P<width>\d*)(?:\.(?P<precision>\d*))?(?P<type>.?)",
    re.DOTALL,
)


def add(budget: Budget, left: Any, right: Any, /) -> Any:
    kind = type(left)
    if kind in NUMBERS and type(right) in NUMBERS:
        return budget.number(left + right)
    if kind is str and type(right) is str:
        budget.build(len(left) + len(right))
        return left + right
    if kind not in {list, tuple} or type(right) is not kind:
        refuse("add", left, right)
    budget.spend(1 + len(left) + len(right))
    return left + right


def subtract(budget: Budget, left: Any, right: Any, /) -> Any:
    _check_numbers("subtract", left, right)
    return budget.number(left - right)


def multiply(budget: Budget, left: Any, right: Any, /) -> Any:
    if type(left) in NUMBERS and type(right) in NUMBERS:
        return budget.number(left * right)
    sequence, count = (right, left) if type(left) is int else (left, right)
    if type(count) is not int or type(sequence) not in {str, list, tuple}:
        refuse("multiply", left, right)
    size = len(sequence) * max(count, 0)
    if type(sequence) is str:
        budget.build(size)
    else:
        budget.spend(1 + size)
    return sequence * count


def divide(budget: Budget, left: Any, right: Any, /) -> Any:
    _check_numbers("divide", left, right)
    return budget.number(left / right)


def floor_divide(budget: Budget, left: Any, right: Any, /) -> Any:
    _check_numbers("divide", left, right)
    return budget.number(left // right)


def remainder(budget: Budget, left: Any, right: Any, /) -> Any:
    if type(left) is str:
        return percent_format(budget, left, right)
    _check_numbers("divide", left, right)
    return budget.number(left % right)


def power(budget: Budget, left: Any, right: Any, /) -> Any:
    _check_numbers("raise to a power", left, right)
    bits = budget.limits.int_bits
    # |base| >= 2 has at least (bit_length - 1) * exponent bits; 0, 1 and -1 stay small whatever the exponent
    if type(left) is not float and type(right) is not float and (left.bit_length() - 1) * right > bits:
        raise TooCostlyError(f"makes an integer of more than {bits} bits (limit `int_bits`)")
    return budget.number(left**right)


def negative(budget: Budget, value: Any, /) -> Any:
    _check_numbers("negate", value)
    return budget.number(-value)


def positive(budget: Budget, value: Any, /) -> Any:
    _check_numbers("use as a number", value)
    return budget.number(+value)


def percent_format(budget: Budget, pattern: str, values: Any, /) -> str:
    """`pattern % values` with plain values, and with width and precision of at most 1000."""
    budget.read(len(pattern))
    size = len(pattern)
    for match in _CONVERSION.finditer(pattern):
        budget.spend(4)
        if match["type"] not in _CONVERSION_TYPES:
            raise NotAllowedError(
                f"{match[0]!r} is not a format; use %s, %d, %f, %e, %g, %x, %o, %r, %c or %%"
            )
        if max(_width(match["width"]), _width(match["precision"])) > _MAX_FIELD_WIDTH:
            raise TooCostlyError(f"a format is at most {_MAX_FIELD_WIDTH} characters wide and precise")
        size += 2 * _MAX_FIELD_WIDTH if match["width"] or match["precision"] else _MAX_NUMBER_CHARS
        key = match["key"]
        if key is not None:
            if type(values) is not dict or key not in values:
                raise NotAllowedError(f"the format asks for {key!r}, which is not given")
            size += _printed_size(budget, values[key])
    if type(values) is tuple:
        size += sum(_printed_size(budget, value) for value in values)
    else:
        size += _printed_size(budget, values)
    budget.build(size)
    return str(pattern % values)


def attribute(budget: Budget, value: Any, name: str, path: str, /) -> Any:
    """`value.name`: a member of an object, of a namespace, of a group or of `loop`."""
    kind = type(value)
    if kind is dict:
        if name in value:
            return value[name]
    elif kind is Namespace:
        # jinja2's namespace answers a few internal names as well
        if not name.startswith("_") and hasattr(value, name):
            return getattr(value, name)
    elif kind is LoopContext:
        if name in _LOOP_MEMBERS:
            return getattr(value, name)
    elif kind is Group and name in {"grouper", "list"}:
        return value[name == "list"]
    elif isinstance(value, Missing):
        refuse("use", value)
    budget.spend(1)
    return Missing(name=path)


def item(budget: Budget, value: Any, key: Any, path: str, /) -> Any:
    """`value[key]`: a member of an object by name, an item of a list or a text by position."""
    kind = type(value)
    if type(key) not in SCALARS or isinstance(value, Missing):
        refuse("look up in", value, key)
    if kind is dict:
        if key in value:
            return value[key]
    elif kind in CONTAINERS or kind is str:
        if type(key) is int and -len(value) <= key < len(value):
            return value[key]
    elif kind is Namespace and type(key) is str:
        return attribute(budget, value, key, path)
    budget.spend(1)
    return Missing(name=path)


def section(budget: Budget, value: Any, start: Any, stop: Any, step: Any, /) -> Any:
    """`value[start:stop:step]` of a list or a text."""
    kind = type(value)
    if kind is not str and (kind not in CONTAINERS or kind is dict):
        refuse("slice", value)
    if any(type(bound) not in {int, type(None)} for bound in (start, stop, step)):
        refuse("slice with", start, stop, step)
    bounds = slice(start, stop, step)
    size = len(range(*bounds.indices(len(value))))
    if kind is str:
        budget.build(size)
    else:
        budget.spend(1 + size)
    return value[bounds]


def lookup(budget: Budget, value: Any, path: str | int, /) -> Any:
    """Follow a path such as `author.name` or `tags.0`, as `map(attribute=...)` and its like take it."""
    if type(path) is int:
        return item(budget, value, path, str(path))
    if type(path) is not str:
        refuse("look up by", path)
    for part in path.split("."):
        budget.spend(1)
        value = (
            item(budget, value, int(part), path)
            if part.isdecimal() and len(part) < 10
            else attribute(budget, value, part, path)
        )
    return value


def member_key(key: Any, /) -> Any:
    """The name of a member in an object literal: a scalar, so that hashing it is cheap."""
    if type(key) not in {str, int, float, bool}:
        refuse("name a member with", key)
    return key


def _check_numbers(action: str, *values: Any) -> None:
    for value in values:
        if type(value) not in NUMBERS:
            refuse(action, *values)


def _width(digits: str | None) -> int:
    if not digits:
        return 0
    return int(digits) if len(digits) < 6 else _MAX_FIELD_WIDTH + 1


def _printed_size(budget: Budget, value: Any) -> int:
    # %r and lists go through repr, which writes up to ten characters for one
    return budget.measure(value, "print") * 10


OPERATORS: Mapping[str, Callable[..., Any]] = {
    "+": add,
    "-": subtract,
    "*": multiply,
    "/": divide,
    "//": floor_divide,
    "%": remainder,
    "**": power,
    "negative": negative,
    "positive": positive,
    "attribute": attribute,
    "item": item,
    "section": section,
}
