"""Filters on lists and objects. Names and parameters are those of Jinja2; every filter returns a whole list,
not a generator.
"""

# ruff: noqa: FBT001, FBT002 - the parameters of Jinja2's filters, which templates give by position

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from promptab.templates.budget import CONTAINERS, NUMBERS, Budget, Group, Missing, NotAllowedError, refuse
from promptab.templates.operators import add, lookup
from promptab.templates.predicates import PREDICATES
from promptab.templates.text_filters import TEXT_FILTERS

_MAX_PRECISION = 100

Key = Callable[[Any], Any]


def default(_budget: Budget, value: Any, /, default_value: Any = "", boolean: bool = False) -> Any:
    """`default_value` where the value is undefined, or, with `boolean`, where it is empty, zero, false or
    none.
    """
    if type(value) is Missing or (boolean and not value):
        return default_value
    return value


def length(_budget: Budget, value: Any, /) -> int:
    if type(value) is not str and type(value) not in CONTAINERS:
        refuse("count the items of", value)
    return len(value)


def first(budget: Budget, value: Any, /) -> Any:
    return _at(budget, value, 0, "first")


def last(budget: Budget, value: Any, /) -> Any:
    return _at(budget, value, -1, "last")


def join(budget: Budget, value: Any, /, d: Any = "", attribute: str | int | None = None) -> str:
    items = _attributes(budget, value, attribute)
    separator = budget.text(d)
    texts = [budget.text(item) for item in items]
    budget.build(sum(map(len, texts)) + len(separator) * max(len(texts) - 1, 0))
    return separator.join(texts)


def to_list(budget: Budget, value: Any, /) -> list[Any]:
    return budget.items(value, "make a list of")


def reverse(budget: Budget, value: Any, /) -> Any:
    if type(value) is str:
        budget.build(len(value))
        return value[::-1]
    return budget.items(value, "reverse")[::-1]


def sort(
    budget: Budget,
    value: Any,
    /,
    reverse: bool = False,
    case_sensitive: bool = False,
    attribute: str | int | None = None,
) -> list[Any]:
    """Sort by the items, or by one or more attributes: `"last_name,first_name"`. Equal items keep their
    order.
    """
    items = budget.items(value, "sort")
    paths = attribute.split(",") if type(attribute) is str else [attribute]
    budget.spend(len(paths) * len(items))
    keys = [
        tuple(
            _folded(item if path is None else lookup(budget, item, path), case_sensitive=case_sensitive)
            for path in paths
        )
        for item in items
    ]
    return [items[position] for position in _order(budget, keys, descending=bool(reverse))]


def dictsort(
    budget: Budget,
    value: Any,
    /,
    case_sensitive: bool = False,
    by: str = "key",
    reverse: bool = False,
) -> list[tuple[Any, Any]]:
    if by not in {"key", "value"}:
        raise NotAllowedError("dictsort sorts by 'key' or 'value'")
    pairs = items(budget, value)
    keys = [_folded(pair[by == "value"], case_sensitive=case_sensitive) for pair in pairs]
    return [pairs[position] for position in _order(budget, keys, descending=bool(reverse))]


def items(budget: Budget, value: Any, /) -> list[tuple[Any, Any]]:
    if type(value) is not dict:
        refuse("list the members of", value)
    budget.spend(1 + len(value))
    return list(value.items())


def unique(
    budget: Budget,
    value: Any,
    /,
    case_sensitive: bool = False,
    attribute: str | int | None = None,
) -> list[Any]:
    """The items without repetitions, each where it stood first."""
    found: dict[Any, Any] = {}
    for item in budget.items(value, "look for repetitions in"):
        key = item if attribute is None else lookup(budget, item, attribute)
        budget.comparable(key)
        if type(key) in CONTAINERS:
            refuse("look for repetitions of", key)
        found.setdefault(_folded(key, case_sensitive=case_sensitive), item)
    return list(found.values())


def minimum(
    budget: Budget,
    value: Any,
    /,
    case_sensitive: bool = False,
    attribute: str | int | None = None,
) -> Any:
    return _extreme(budget, value, min, attribute, case_sensitive=case_sensitive)


def maximum(
    budget: Budget,
    value: Any,
    /,
    case_sensitive: bool = False,
    attribute: str | int | None = None,
) -> Any:
    return _extreme(budget, value, max, attribute, case_sensitive=case_sensitive)


def total(budget: Budget, value: Any, /, attribute: str | int | None = None, start: Any = 0) -> Any:
    for item in _attributes(budget, value, attribute):
        start = add(budget, start, item)
    return start


def batch(budget: Budget, value: Any, /, linecount: int, fill_with: Any = None) -> list[list[Any]]:
    """Rows of `linecount` items; the last row is filled up where `fill_with` is given."""
    size = _count("linecount", linecount)
    items = budget.items(value, "batch")
    rows = [items[start : start + size] for start in range(0, len(items), size)]
    if rows and fill_with is not None:
        budget.spend(size)
        rows[-1] += [fill_with] * (size - len(rows[-1]))
    return rows


def slices(budget: Budget, value: Any, /, slices: int, fill_with: Any = None) -> list[list[Any]]:
    """That many lists of nearly equal length; the shorter ones are filled up where `fill_with` is given."""
    count = _count("slices", slices)
    items = budget.items(value, "slice")
    budget.spend(2 * count)
    size, longer = divmod(len(items), count)
    parts = []
    start = 0
    for number in range(count):
        stop = start + size + (number < longer)
        part = items[start:stop]
        if fill_with is not None and number >= longer:
            part.append(fill_with)
        parts.append(part)
        start = stop
    return parts


def groupby(
    budget: Budget,
    value: Any,
    /,
    attribute: str | int,
    default: Any = None,
    case_sensitive: bool = False,
) -> list[Group]:
    """Pairs of key and items, sorted by key."""
    items = budget.items(value, "group")
    found = [_or_default(lookup(budget, item, attribute), default) for item in items]
    keys = [_folded(key, case_sensitive=case_sensitive) for key in found]
    groups: list[Group] = []
    before: Any = None
    for position in _order(budget, keys, descending=False):
        if not groups or keys[position] != before:
            groups.append(Group((found[position], [])))
            before = keys[position]
        groups[-1][1].append(items[position])
    return groups


def map_items(budget: Budget, value: Any, /, *args: Any, **kwargs: Any) -> list[Any]:
    """Apply a filter to each item, or take an attribute of each: `map("upper")`, `map(attribute="name",
    default="")`.
    """
    items = budget.items(value, "map")
    if not args and "attribute" in kwargs:
        path, fallback = kwargs.pop("attribute"), kwargs.pop("default", None)
        if kwargs:
            raise NotAllowedError(f"map has no parameter {next(iter(kwargs))!r}")
        return [_or_default(lookup(budget, item, path), fallback) for item in items]
    if not args or type(args[0]) is not str or args[0] not in FILTERS:
        raise NotAllowedError("map needs the name of a filter that templates have, or attribute=...")
    apply = FILTERS[args[0]]
    budget.enter()
    try:
        return [apply(budget, item, *args[1:], **kwargs) for item in items]
    finally:
        budget.depth += 1


def select(budget: Budget, value: Any, /, *args: Any) -> list[Any]:
    return _selected(budget, value, None, args, wanted=True)


def reject(budget: Budget, value: Any, /, *args: Any) -> list[Any]:
    return _selected(budget, value, None, args, wanted=False)


def selectattr(budget: Budget, value: Any, attribute: str | int, /, *args: Any) -> list[Any]:
    return _selected(budget, value, attribute, args, wanted=True)


def rejectattr(budget: Budget, value: Any, attribute: str | int, /, *args: Any) -> list[Any]:
    return _selected(budget, value, attribute, args, wanted=False)


def absolute(_budget: Budget, value: Any, /) -> Any:
    if type(value) not in NUMBERS:
        refuse("take the absolute value of", value)
    return abs(value)


def round_number(budget: Budget, value: Any, /, precision: int = 0, method: str = "common") -> Any:
    """Round to `precision` places, halves to even, or with `method` "ceil" and "floor"; the result has a
    fraction: 43.0.
    """
    if type(value) not in NUMBERS or type(precision) is not int:
        refuse("round", value)
    if abs(precision) > _MAX_PRECISION:
        raise NotAllowedError(f"round takes a precision from -{_MAX_PRECISION} to {_MAX_PRECISION}")
    if method == "common":
        return budget.number(round(value, precision))
    if method not in {"ceil", "floor"}:
        raise NotAllowedError("round takes the methods 'common', 'ceil' and 'floor'")
    scale = 10**precision
    return budget.number((math.ceil if method == "ceil" else math.floor)(value * scale) / scale)


def _at(budget: Budget, value: Any, position: int, name: str) -> Any:
    if type(value) is dict:
        value = budget.items(value)
    if type(value) is not str and type(value) not in CONTAINERS:
        refuse(f"take the {name} item of", value)
    return value[position] if value else Missing(name=f"the {name} item of an empty list")


def _attributes(budget: Budget, value: Any, path: str | int | None) -> list[Any]:
    items = budget.items(value)
    return items if path is None else [lookup(budget, item, path) for item in items]


def _or_default(value: Any, fallback: Any) -> Any:
    return fallback if type(value) is Missing and fallback is not None else value


def _folded(value: Any, *, case_sensitive: bool) -> Any:
    return value.lower() if type(value) is str and not case_sensitive else value


def _order(budget: Budget, keys: list[Any], *, descending: bool) -> list[int]:
    """Return the positions of the keys in sorted order; each key may be compared log2(n) times, and is paid
    for as often.
    """
    rounds = len(keys).bit_length()
    budget.spend((len(keys) + budget.measure(keys, "sort") // 64) * rounds)
    return sorted(range(len(keys)), key=keys.__getitem__, reverse=descending)


def _extreme(
    budget: Budget, value: Any, choose: Callable[..., Any], path: str | int | None, *, case_sensitive: bool
) -> Any:
    items = budget.items(value, "compare the items of")
    if not items:
        return Missing(name="the extreme of an empty list")
    keys = [
        _folded(item if path is None else lookup(budget, item, path), case_sensitive=case_sensitive)
        for item in items
    ]
    budget.comparable(keys)
    return items[choose(range(len(keys)), key=keys.__getitem__)]


def _selected(
    budget: Budget, value: Any, path: str | int | None, test: tuple[Any, ...], *, wanted: bool
) -> list[Any]:
    items = budget.items(value, "select from")
    if test and (type(test[0]) is not str or test[0] not in PREDICATES):
        raise NotAllowedError(
            "the first argument of select, reject, selectattr and rejectattr is the name of a test"
        )
    holds = PREDICATES[test[0]] if test else _is_true

    def tested() -> Iterator[Any]:
        for item in items:
            subject = item if path is None else lookup(budget, item, path)
            if bool(holds(budget, subject, *test[1:])) is wanted:
                yield item

    return list(tested())


def _is_true(_budget: Budget, value: Any) -> bool:
    return bool(value)


def _count(name: str, value: Any) -> int:
    if type(value) is not int or value < 1:
        raise NotAllowedError(f"{name} is a whole number of at least 1")
    return value


FILTERS: Mapping[str, Callable[..., Any]] = {
    **TEXT_FILTERS,
    "abs": absolute,
    "batch": batch,
    "count": length,
    "d": default,
    "default": default,
    "dictsort": dictsort,
    "first": first,
    "groupby": groupby,
    "items": items,
    "join": join,
    "last": last,
    "length": length,
    "list": to_list,
    "map": map_items,
    "max": maximum,
    "min": minimum,
    "reject": reject,
    "rejectattr": rejectattr,
    "reverse": reverse,
    "round": round_number,
    "select": select,
    "selectattr": selectattr,
    "slice": slices,
    "sort": sort,
    "sum": total,
    "unique": unique,
}
