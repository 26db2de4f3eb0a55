"""The tests of templates (`x is odd`): names are those of Jinja2. Only `defined` and `undefined` accept an
undefined value.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from promptab.templates.budget import CONTAINERS, NUMBERS, Budget, Missing, refuse


def is_defined(_budget: Budget, value: Any, /) -> bool:
    return type(value) is not Missing


def is_undefined(_budget: Budget, value: Any, /) -> bool:
    return type(value) is Missing


def divisible_by(_budget: Budget, value: Any, num: Any, /) -> bool:
    if type(value) not in NUMBERS or type(num) not in NUMBERS:
        refuse("divide", value, num)
    return bool(value % num == 0)


def is_even(budget: Budget, value: Any, /) -> bool:
    return divisible_by(budget, value, 2)


def is_odd(budget: Budget, value: Any, /) -> bool:
    return not divisible_by(budget, value, 2)


def is_lower(budget: Budget, value: Any, /) -> bool:
    return budget.text(budget.comparable(value)).islower()


def is_upper(budget: Budget, value: Any, /) -> bool:
    return budget.text(budget.comparable(value)).isupper()


def contains(budget: Budget, value: Any, seq: Any, /) -> bool:
    """`value is in seq`, the test that `select` takes."""
    budget.comparable(value)
    return value in budget.comparable(seq)


def _of_kind(*kinds: type) -> Callable[..., bool]:
    def check(_budget: Budget, value: Any, /) -> bool:
        if type(value) is Missing:
            refuse("test", value)
        return type(value) in kinds

    return check


def _equal_to(expected: object) -> Callable[..., bool]:
    def check(_budget: Budget, value: Any, /) -> bool:
        if type(value) is Missing:
            refuse("test", value)
        return value is expected

    return check


def _compared(compare: Callable[[Any, Any], Any]) -> Callable[..., bool]:
    def check(budget: Budget, value: Any, other: Any, /) -> bool:
        return bool(compare(budget.comparable(value), budget.comparable(other)))

    return check


_EQUAL, _UNEQUAL = _compared(operator.eq), _compared(operator.ne)
_LESS, _AT_MOST = _compared(operator.lt), _compared(operator.le)
_GREATER, _AT_LEAST = _compared(operator.gt), _compared(operator.ge)

PREDICATES: Mapping[str, Callable[..., bool]] = {
    "boolean": _of_kind(bool),
    "defined": is_defined,
    "divisibleby": divisible_by,
    "even": is_even,
    "false": _equal_to(False),  # noqa: FBT003 - the value that the test is about
    "float": _of_kind(float),
    "in": contains,
    "integer": _of_kind(int),
    "iterable": _of_kind(str, *CONTAINERS),
    "lower": is_lower,
    "mapping": _of_kind(dict),
    "none": _equal_to(None),
    "number": _of_kind(*NUMBERS),
    "odd": is_odd,
    "sequence": _of_kind(str, *CONTAINERS),
    "string": _of_kind(str),
    "true": _equal_to(True),  # noqa: FBT003 - the value that the test is about
    "undefined": is_undefined,
    "upper": is_upper,
    **dict.fromkeys(("==", "eq", "equalto"), _EQUAL),
    **dict.fromkeys(("!=", "ne"), _UNEQUAL),
    **dict.fromkeys(("<", "lt", "lessthan"), _LESS),
    **dict.fromkeys(("<=", "le"), _AT_MOST),
    **dict.fromkeys((">", "gt", "greaterthan"), _GREATER),
    **dict.fromkeys((">=", "ge"), _AT_LEAST),
}
