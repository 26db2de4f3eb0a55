"""`promptab copy`: versions with their history, from one store to another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import promptab
from promptab.cli.exit_codes import ExitCode
from promptab.cli.options import JsonOption, TypeOption
from promptab.cli.output import emit, run, table, visible
from promptab.copying import CopiedPrompt, CopyReport, copy_versions
from promptab.errors import NotFoundError
from promptab.lab import Lab
from promptab.stores.opening import sqlite_path

if TYPE_CHECKING:
    from rich.console import Console


def copy(
    source: Annotated[
        str, typer.Argument(metavar="FROM", help="The URL of the store to copy from.", show_default=False)
    ],
    target: Annotated[
        str,
        typer.Argument(
            metavar="TO", help="The URL of the store to copy to; made if it is not there.", show_default=False
        ),
    ],
    *,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Only prompts of this name.", show_default=False),
    ] = None,
    prompt_type: TypeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy versions, their status, tags and authors, and the history of what was live, to another store.

    A second run copies what is new since. A number that means another content in the target is a conflict: nothing
    of that prompt is copied, and the exit code is 4. Experiments and events stay where they are.

    $ promptab copy sqlite:///promptab.db sqlite:///copied.db
    $ promptab copy sqlite:///promptab.db sqlite:///copied.db --name greeting --type system
    """
    _refuse_missing(source)

    async def work(lab: Lab) -> CopyReport:
        async with promptab.open(target) as other:
            return await copy_versions(lab, other, name=name, prompt_type=prompt_type)

    report = run(work, url=source)
    emit(report, as_json=as_json, human=lambda to: _print(to, report))
    if report.conflicts:
        raise typer.Exit(ExitCode.CONFLICT)


def _refuse_missing(url: str) -> None:
    """Opening a store makes it where it is missing, which is no help to somebody who mistyped its name."""
    path = sqlite_path(url)
    if path is not None and not Path(path).exists():
        raise NotFoundError("store", url, "write the URL of a store that exists")


def _print(to: Console, report: CopyReport) -> None:
    if not report.prompts:
        to.print(f"{report.source} has no versions.", soft_wrap=True)
        return
    listing = table("prompt", "copied", "had already", "moves", right=("had already", "moves"))
    for prompt in report.prompts:
        listing.add_row(
            f"{prompt.prompt_type}/{prompt.name}",
            _copied(prompt),
            str(prompt.present),
            str(prompt.deployments),
        )
    to.print(listing)
    for prompt in report.prompts:
        for line in (prompt.conflict, *prompt.notes):
            if line is not None:
                to.print(f"{prompt.prompt_type}/{prompt.name}: {visible(line)}", soft_wrap=True)


def _copied(prompt: CopiedPrompt) -> str:
    if prompt.conflict is not None:
        return "conflict"
    return ", ".join((*prompt.versions, *prompt.included)) or "nothing"
