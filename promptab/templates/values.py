"""Variables as templates see them: plain data, copied, so that no template ever touches an object of the
caller's.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, time
from typing import Any, NoReturn

from pydantic import BaseModel

from promptab.errors import VariableError
from promptab.templates.limits import Limits


def plain(name: str, value: Any, limits: Limits) -> Any:
    """Return a copy made of None, bool, int, float, str, list and dict with text keys.

    Tuples become lists, dates and times their ISO 8601 text, pydantic models what their JSON holds, and
    subclasses (a `StrEnum`, an `OrderedDict`) what they are built on. Anything else, a number that is not
    finite, an integer of more than `int_bits`, deeper nesting or more items than `limits` allow:
    `VariableError`.
    """
    return _Copy(name, limits).of(value)


class _Copy:
    """One walk over one variable: `path` is where it stands, and `items` counts what it has met."""

    def __init__(self, name: str, limits: Limits) -> None:
        self.name = name
        self.limits = limits
        self.path: list[str | int] = []
        self.items = 0

    def of(self, value: Any) -> Any:  # noqa: PLR0911 - one kind of value a line
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, int):
            if value.bit_length() > self.limits.int_bits:
                self._refuse(f"is an integer of more than {self.limits.int_bits} bits; pass it as text")
            return int.__int__(value)
        if isinstance(value, float):
            if value - value != 0:
                self._refuse("is not a finite number; pass None or a text")
            return float.__float__(value)
        if isinstance(value, date | time):
            return value.isoformat()
        if isinstance(value, BaseModel):
            return self.of(self._dumped(value))
        if not isinstance(value, Mapping | list | tuple):
            kind = type(value).__name__
            self._refuse(f"is of type {kind}; pass JSON-like data, a date or a pydantic model")
        return self._container(value)

    def _container(self, value: Mapping[Any, Any] | list[Any] | tuple[Any, ...]) -> Any:
        self.items += len(value)
        if self.items > self.limits.value_items:
            self._refuse(f"brings the items and members to more than {self.limits.value_items}")
        if len(self.path) >= self.limits.value_depth:
            self._refuse(f"nests more than {self.limits.value_depth} deep")
        if isinstance(value, Mapping):
            return {self._key(key): self._member(key, item) for key, item in value.items()}
        return [self._member(index, item) for index, item in enumerate(value)]

    def _member(self, key: str | int, value: Any) -> Any:
        self.path.append(key)
        copied = self.of(value)
        self.path.pop()
        return copied

    def _key(self, key: Any) -> str:
        if not isinstance(key, str):
            self._refuse(f"has a key of type {type(key).__name__}; the keys of an object are texts")
        return str.__str__(key)

    def _dumped(self, model: BaseModel) -> Any:
        try:
            return model.model_dump(mode="json")
        except (ValueError, TypeError) as error:
            raise VariableError(
                self.name, f"variable {self._place()} cannot be written as JSON: {error}"
            ) from error

    def _refuse(self, problem: str) -> NoReturn:
        raise VariableError(self.name, f"variable {self._place()} {problem}")

    def _place(self) -> str:
        steps = (f"[{step}]" if isinstance(step, int) else f".{step[:80]}" for step in self.path)
        return self.name + "".join(steps)
