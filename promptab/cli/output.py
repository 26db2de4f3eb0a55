"""Running a command's work on an open lab, and showing what came of it: results on standard output, errors and
notes on standard error.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
import warnings
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import typer

import promptab
from promptab.cli.exit_codes import kind_of
from promptab.errors import GateError, InvalidInputError, NotFoundError, PromptabError
from promptab.lab import Lab
from promptab.versions import UnderstatedVersionWarning

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

T = TypeVar("T")

TRACEBACK_VARIABLE = "PROMPTAB_TRACEBACK"


def run(work: Callable[[Lab], Awaitable[T]], *, url: str | None) -> T:
    """Open the lab, do the work, close the lab, and return the result.

    Errors come out as they are: the command line turns them into a message and an exit code in one place,
    `report`. Warnings of the library become notes.
    """

    async def opened() -> T:
        # a migration takes the time that it takes, and whoever waits for it can interrupt it
        async with promptab.open(url, timeout=3600.0) as lab:
            return await work(lab)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UnderstatedVersionWarning)
        warnings.showwarning = lambda message, *_args, **_more: note(f"warning: {message}")
        return asyncio.run(opened())


def emit(result_json: Any, *, as_json: bool, human: Callable[[Console], None]) -> None:
    """Print a result: as one JSON document, or for people by `human`, which is given the console.

    `result_json` may hold records, dataclasses, enums and datetimes (which become ISO 8601 in UTC).
    """
    if as_json:
        print_json(result_json)
    else:
        human(console())


def print_json(value: Any) -> None:
    from pydantic_core import to_json  # noqa: PLC0415 - not needed by most runs of a command

    # bytes: JSON is UTF-8, whatever the terminal's encoding is
    typer.echo(to_json(value, indent=2, inf_nan_mode="null"))


def console(*, stderr: bool = False) -> Console:
    """Return a console that takes texts literally: square brackets in a prompt are no markup."""
    from rich.console import Console  # noqa: PLC0415 - as long to import as a small command takes to run

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def table(*headers: str, right: Iterable[str] = ()) -> Table:
    """Return an empty table; `right` names the columns that are aligned to the right.

    Cells that are too wide are folded, never cut off: in 80 columns every fact is still there.
    """
    from rich import box  # noqa: PLC0415 - as in `console`
    from rich.table import Table  # noqa: PLC0415

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    numbers = frozenset(right)
    for header in headers:
        made.add_column(header, justify="right" if header in numbers else "left", overflow="fold")
    return made


def facts(pairs: Iterable[tuple[str, RenderableType]]) -> Table:
    """Return a list of names and values, one a line."""
    from rich.table import Table  # noqa: PLC0415 - as in `console`

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(name, value)
    return grid


def visible(text: str) -> str:
    """Show control characters by their pictures, so that a stored text cannot steer the terminal."""
    return "".join(
        chr(0x2400 + ord(letter))
        if letter < " " and letter not in "\n\t"
        else "\ufffd"
        if "\x7f" <= letter <= "\x9f"
        else letter
        for letter in text
    )


def note(text: str) -> None:
    """Print a line for people on standard error."""
    typer.echo(visible(text), err=True)


def report(error: Exception, *, as_json: bool, with_traceback: bool = False) -> int:
    """Print an error on standard error and return the exit code of its kind.

    The traceback is shown on demand only, and only of errors that nobody foresaw.
    """
    kind = kind_of(error)
    foreseen = isinstance(error, PromptabError)
    message = str(error) if foreseen else f"{type(error).__name__}: {error}"
    if not foreseen and (with_traceback or os.environ.get(TRACEBACK_VARIABLE) == "1"):
        traceback.print_exception(error)
    elif not foreseen and not as_json:
        message += f" (unexpected; run it again with {TRACEBACK_VARIABLE}=1 to see where it comes from)"
    if as_json:
        report_json(kind.name, message, **_details(error))
    else:
        console(stderr=True).print(_error_line(message), soft_wrap=True)
    return int(kind.code)


def report_json(kind: str, message: str, **details: Any) -> None:
    document = {"error": {"kind": kind, "message": message, **details}}
    print(json.dumps(document, indent=2, default=repr), file=sys.stderr)


def _error_line(message: str) -> RenderableType:
    from rich.text import Text  # noqa: PLC0415 - as in `console`

    return Text.assemble(("error: ", "bold red"), visible(message))


def _details(error: Exception) -> dict[str, Any]:
    """Return what a program can use of an error beside its message."""
    match error:
        case NotFoundError():
            return {"what": error.kind, "key": error.key}
        case InvalidInputError():
            return {"field": error.field, "value": error.value, "bound": error.bound, "remedy": error.remedy}
        case GateError():
            return {"cases": error.cases}
        case _:
            return {}
