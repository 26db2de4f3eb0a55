"""What every record is made of: frozen pydantic models, aware times in UTC, JSON objects."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
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


class Declared(Record):
    """A record that people write by hand: what does not fit raises `InvalidInputError` like any other argument."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise refusal(type(self).__name__, error) from None

    @classmethod
    def model_validate(cls, obj: Any, **how: Any) -> Self:
        try:
            return super().model_validate(obj, **how)
        except ValidationError as error:
            raise refusal(cls.__name__, error) from None


def refusal(what: str, error: ValidationError) -> InvalidInputError:
    """Return the first fault that pydantic found, as the error that the rest of promptab raises."""
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InvalidInputError):
        return cause
    where = ".".join(map(str, first["loc"]))
    bound = first["msg"][:1].lower() + first["msg"][1:]
    return InvalidInputError(f"{what}.{where}" if where else what, first["input"], f"as declared: {bound}")
