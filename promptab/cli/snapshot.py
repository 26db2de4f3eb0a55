"""`promptab snapshot`: the file that a service starts from while its store cannot be reached."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptab.cli.exit_codes import ExitCode
from promptab.cli.options import JsonOption, UrlOption
from promptab.cli.output import emit, facts, run
from promptab.lab import Lab
from promptab.snapshot_file import FiledSnapshot, read_snapshot, uncompilable, write_snapshot

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    no_args_is_help=True, help="Write or check the file that stands in for a store that is away."
)

PathArgument = Annotated[Path, typer.Argument(metavar="PATH", help="The snapshot file.", show_default=False)]


@app.command()
def write(path: PathArgument, *, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Write what is live into a file, which `promptab.open(url, snapshot_file=PATH)` starts from in need.

    The file is replaced as a whole or not at all. It holds prompts, configurations and experiments, with the users
    that these name; it holds no password.

    $ promptab snapshot write snapshot.json
    """

    async def work(lab: Lab) -> None:
        write_snapshot(path, await lab.store.snapshot(), taken_at=datetime.now(UTC))

    run(work, url=url)
    document = _document(path, read_snapshot(path))
    emit(document, as_json=as_json, human=lambda to: _print(to, document))


@app.command()
def check(path: PathArgument, *, as_json: JsonOption = False) -> None:
    """Check that a service could start from the file: whole, of this format, and every template compiles.

    Exit code 5 where it cannot be used at all, 8 where some of it would be left out.

    $ promptab snapshot check snapshot.json
    """
    filed = read_snapshot(path)
    faults = [*filed.faults, *uncompilable(filed.snapshot)]
    document = {**_document(path, filed), "sound": not faults, "faults": faults}
    emit(document, as_json=as_json, human=lambda to: _print(to, document))
    if faults:
        raise typer.Exit(ExitCode.CHECK_FAILED)


def _document(path: Path, filed: FiledSnapshot) -> dict[str, Any]:
    snapshot = filed.snapshot
    return {
        "path": str(path),
        "store_id": snapshot.store_id,
        "revision": snapshot.revision,
        "taken_at": filed.taken_at,
        "age_seconds": round(filed.age(datetime.now(UTC)), 3),
        "prompts": len({(version.prompt_type, version.name) for version in snapshot.versions.values()}),
        "versions": len(snapshot.versions),
        "experiments": len(snapshot.experiments),
    }


def _print(to: Console, document: dict[str, Any]) -> None:
    shown = {name: value for name, value in document.items() if name not in {"faults", "sound"}}
    to.print(facts((name.replace("_", " "), str(value)) for name, value in shown.items()))
    for fault in document.get("faults", ()):
        to.print(f"left out: {fault}", style="red")
    if document.get("sound"):
        to.print("A service can start from this file.", style="bold")
