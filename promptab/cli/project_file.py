"""`promptab.yaml`, which a command reads from the folder that it is run in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from promptab.cli.arguments import read_file

if TYPE_CHECKING:
    from promptab.library.policies import PolicyFile

PROJECT_FILE = Path("promptab.yaml")

ProjectFileOption = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="PATH", help="Where the project declares it.", show_default=str(PROJECT_FILE)
    ),
]


def read_project_file(path: Path | None) -> PolicyFile:
    """Read the file; without a path the one in this folder, or nothing where there is none.

    Raises `PromptFileError` with the line at fault.
    """
    from promptab.library.policies import PolicyFile, read_policy_file  # noqa: PLC0415 - brings YAML

    if path is None and not PROJECT_FILE.exists():
        return PolicyFile()
    chosen = PROJECT_FILE if path is None else path
    return read_policy_file(read_file("--config", chosen), path=str(chosen))
