"""Exit codes by kind of error: the one table between promptab's errors and the shell."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from promptab.errors import (
    ConflictError,
    GateError,
    InvalidInputError,
    MissingExtraError,
    NotFoundError,
    StateError,
    StoreError,
    StoreUnavailableError,
    StoreVersionError,
)


class ExitCode(IntEnum):
    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    """An unknown command or option, or a missing argument."""
    NOT_FOUND = 3
    CONFLICT = 4
    """Somebody else was faster, or both sides changed: look again, then try again."""
    INVALID_INPUT = 5
    WRONG_STATE = 6
    STORE = 7
    CHECK_FAILED = 8
    """The command ran, and what it checks is not in order (`sync check`, `doctor`, `test`)."""

    INTERRUPTED = 130
    """By Ctrl-C or SIGTERM, as the shell has it."""


class Kind(NamedTuple):
    name: str
    code: ExitCode


KINDS: dict[type[Exception], Kind] = {
    NotFoundError: Kind("not_found", ExitCode.NOT_FOUND),
    ConflictError: Kind("conflict", ExitCode.CONFLICT),
    InvalidInputError: Kind("invalid_input", ExitCode.INVALID_INPUT),
    GateError: Kind("gate", ExitCode.CHECK_FAILED),
    StateError: Kind("wrong_state", ExitCode.WRONG_STATE),
    StoreUnavailableError: Kind("store_unavailable", ExitCode.STORE),
    StoreVersionError: Kind("store_version", ExitCode.STORE),
    StoreError: Kind("store", ExitCode.STORE),
    MissingExtraError: Kind("missing_extra", ExitCode.UNEXPECTED),
}
"""By class; the nearest class in an error's ancestry counts."""

UNEXPECTED = Kind("unexpected", ExitCode.UNEXPECTED)


def kind_of(error: BaseException) -> Kind:
    return next((KINDS[ancestor] for ancestor in type(error).__mro__ if ancestor in KINDS), UNEXPECTED)
