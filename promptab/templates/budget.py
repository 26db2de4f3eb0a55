"""What a render may still spend. Compiled templates pay here before each step that could be large.

One `Budget` belongs to one render and is passed along in it, so that renders in other threads and tasks share
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from jinja2.exceptions import UndefinedError
from jinja2.runtime import LoopContext, StrictUndefined, Undefined
from jinja2.utils import Namespace, missing

if TYPE_CHECKING:
    from promptab.templates.limits import Limits

CHARS_PER_STEP = 256
NUMBERS = frozenset({int, float, bool})
SCALARS = NUMBERS | {str, type(None)}

# A printed character takes at most ten: repr writes \U0010ffff
_REPR_GROWTH = 10


class NotAllowedError(Exception):
    """The template asks for something that templates may not do, or that makes no sense for the value."""


class TooCostlyError(Exception):
    """The next step would exceed a limit."""


class UndefinedVariableError(UndefinedError):
    """Something undefined was used; `str` of it is the path as the template wrote it."""


class Missing(StrictUndefined):
    """What an absent variable, member or item evaluates to: any use but `is defined` and `default` is an
    error.
    """

    __slots__ = ()

    def __init__(self, hint: str | None = None, obj: Any = missing, name: str | None = None) -> None:
        super().__init__(hint, obj, name, UndefinedVariableError)

    @property
    def _undefined_message(self) -> str:
        return str(self._undefined_name or self._undefined_hint)


class Group(tuple[Any, list[Any]]):
    """One group that `groupby` made: unpacks into key and items, which are also `.grouper` and `.list`."""

    __slots__ = ()


CONTAINERS = frozenset({list, tuple, Group, dict})

_KINDS: tuple[tuple[type, str], ...] = (
    (str, "a text"),
    (bool, "true or false"),
    (int, "a number"),
    (float, "a number"),
    (type(None), "none"),
    (dict, "an object"),
    (list, "a list"),
    (tuple, "a list"),
    (LoopContext, "the loop"),
    (Namespace, "a namespace"),
)


def kind_of(value: object) -> str:
    """Name the kind of a value for a message; classes and addresses stay inside."""
    return next((kind for type_, kind in _KINDS if isinstance(value, type_)), "a macro or function")


def refuse(action: str, *values: object) -> NoReturn:
    """Raise for a value that cannot be printed, compared, added and so on; an undefined one raises as
    undefined.
    """
    for value in values:
        if isinstance(value, Undefined):
            value._fail_with_undefined_error()  # noqa: SLF001 - jinja2 has no public way to raise it
    raise NotAllowedError(f"cannot {action} {' and '.join(map(kind_of, values))}")


class Budget:
    """Steps, characters and call depth that are left to one render."""

    __slots__ = ("chars", "depth", "limits", "steps")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.steps = limits.steps
        self.chars = limits.built_chars
        self.depth = limits.depth

    def spend(self, steps: int) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise TooCostlyError(f"needs more than {self.limits.steps} steps (limit `steps`)")

    def read(self, chars: int) -> None:
        """Pay for looking at that much text."""
        self.spend(1 + chars // CHARS_PER_STEP)

    def build(self, chars: int) -> None:
        """Pay for a new text of that length."""
        self.chars -= chars
        if self.chars < 0:
            raise TooCostlyError(
                f"builds more than {self.limits.built_chars} characters (limit `built_chars`)"
            )
        self.spend(1 + chars // CHARS_PER_STEP)

    def enter(self) -> None:
        """Go one call deeper: a macro, a recursive loop or an include. The caller gives the level back to
        `depth`.
        """
        if self.depth <= 0:
            raise TooCostlyError(f"calls nest more than {self.limits.depth} deep (limit `depth`)")
        self.depth -= 1

    def number(self, value: Any) -> Any:
        """Return the result of an operation on numbers, unless it is too long an integer or not a real
        number.
        """
        if type(value) is int and value.bit_length() > self.limits.int_bits:
            raise TooCostlyError(
                f"makes an integer of more than {self.limits.int_bits} bits (limit `int_bits`)"
            )
        if type(value) is complex:
            raise NotAllowedError("the result is not a real number")
        return value

    def measure(self, value: Any, action: str = "use") -> int:
        """Walk the value, paying a step for each item; return its size in characters, quotes and commas
        included.

        A list that holds one list twice is walked twice, as whoever prints or compares it will do.
        """
        return self._measure(value, action, self.limits.value_depth)

    def _measure(self, value: Any, action: str, depth: int) -> int:
        kind = type(value)
        if kind is str:
            return len(value) + 4
        if kind is int:
            return int(value.bit_length()) // 3 + 4
        if kind in SCALARS:
            return 28
        if kind not in CONTAINERS:
            refuse(action, value)
        if depth <= 0:
            raise TooCostlyError(
                f"a value nests more than {self.limits.value_depth} deep (limit `value_depth`)"
            )
        self.spend(1 + len(value))
        size = 4
        for item in value:
            size += self._measure(item, action, depth - 1)
        if kind is dict:
            for item in value.values():
                size += self._measure(item, action, depth - 1)
        return size

    def comparable(self, value: Any) -> Any:
        """Return a plain value, after paying for a walk over it."""
        kind = type(value)
        if kind is str:
            if len(value) >= CHARS_PER_STEP:
                self.read(len(value))
        elif kind not in SCALARS:
            self.read(self.measure(value, "compare"))
        return value

    def text(self, value: Any) -> str:
        """Print a plain value; a macro, a loop or anything else that is not data is refused."""
        if type(value) in SCALARS:
            return str(value)
        bound = self.measure(value, "print") * _REPR_GROWTH
        if bound > self.chars:
            self.build(bound)
        text = repr(value)
        self.build(len(text))
        return text

    def concat(self, pieces: Sequence[str]) -> str:
        """Join texts; compiled code calls it for macros, blocks and everything else that is captured."""
        self.build(sum(map(len, pieces)))
        return "".join(pieces)

    def joined(self, values: Iterable[Any]) -> str:
        """The operator `~`."""
        return self.concat([self.text(value) for value in values])

    def items(self, value: Any, action: str = "loop over") -> list[Any]:
        """Return a new list: the items of a list, the names in an object, the characters of a text."""
        if type(value) not in CONTAINERS and type(value) is not str:
            refuse(action, value)
        self.spend(1 + len(value))
        return list(value)


def each(budget: Budget, value: Any, cost: int, /) -> Any:
    """Pay for all rounds of a loop at once; there is no way to leave a loop early."""
    if type(value) not in CONTAINERS and type(value) is not str:
        refuse("loop over", value)
    budget.spend(len(value) * cost)
    return value
