"""What every record is made of: frozen pydantic models, aware times in UTC, JSON objects."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from promptab.checks import check_time
from promptab.errors import InvalidInputError

Json = Mapping[str, Any]
Utc = Annotated[datetime, AfterValidator(lambda value: check_time("time", value))]

Number = Annotated[float, Field(strict=True)]
"""A number that people declare: True is none."""


class Record(BaseModel):
    """Frozen: a change is a new record. Its class is built at first use, which keeps the import light."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    @classmethod
    def of_checked(cls, fields: dict[str, Any]) -> Self:
        """Return the record of values that the door has checked: every field, in their order. Keeps the dict.

        What `model_construct` does, for records that are made by the ten thousand in a second: it takes five times
        as long, and so does validation.
        """
        record = object.__new__(cls)
        _set_fields(record, fields)
        _set_given(record, _all_fields(cls))
        _set_extra(record, None)
        _set_private(record, None)
        return record


# what a frozen model keeps its state in; by the slots themselves, as looking them up by name takes as long again
_set_fields = BaseModel.__dict__["__dict__"].__set__
_set_given = BaseModel.__dict__["__pydantic_fields_set__"].__set__
_set_extra = BaseModel.__dict__["__pydantic_extra__"].__set__
_set_private = BaseModel.__dict__["__pydantic_private__"].__set__


@cache
def _all_fields(record: type[Record]) -> set[str]:
    return set(record.model_fields)


class Declared(Record):
    """A record that people write by hand: what does not fit raises `InvalidInputError` like any other argument."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise refusal(type(self).__name__, error, type(self)) from None

    @classmethod
    def model_validate(cls, obj: Any, **how: Any) -> Self:
        try:
            return super().model_validate(obj, **how)
        except ValidationError as error:
            raise refusal(cls.__name__, error, cls) from None


def refusal(what: str, error: ValidationError, record: type[BaseModel] | None = None) -> InvalidInputError:
    """Return the first fault that pydantic found, as the error that the rest of promptab raises; `record` is what was
    to be made, where its fields can be named.
    """
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InvalidInputError):
        return cause
    if record is not None and first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
        bound = f"known: {what} has {', '.join(record.model_fields)}"
        return InvalidInputError(f"{what}.{first['loc'][0]}", first["input"], bound)
    where = ".".join(map(str, first["loc"]))
    bound = first["msg"][:1].lower() + first["msg"][1:]
    return InvalidInputError(f"{what}.{where}" if where else what, first["input"], f"as declared: {bound}")
