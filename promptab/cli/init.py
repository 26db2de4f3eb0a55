"""`promptab init`: a folder to begin in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from promptab.cli.options import JsonOption, UrlOption
from promptab.cli.output import emit, run
from promptab.errors import InvalidInputError
from promptab.lab import Lab
from promptab.library.listing import TYPE_FOLDERS
from promptab.stores.opening import sqlite_path

if TYPE_CHECKING:
    from rich.console import Console

_EXAMPLE = """\
---
description: An example to change or to delete.
input:
  schema:
    name: string, whom to greet
  default:
    name: friend
---
Greet {{ name }} in one friendly sentence.
"""

_README = """\
# Prompts

One file is one prompt: `<type>/<name>.md`, where the type is `system`, `user`, `message` (a chat), `model` or
`config` (both `.yaml`). Below the front matter stands the text, a Jinja2 template.

    promptab sync status    # what would change
    promptab sync push      # make a new version of every changed file
    promptab list           # what the store has

Commit this folder, `promptab.lock` included. The store itself (`promptab.db`) is not for the repository.
"""


def init(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where; made if it is not there.", show_default="here")
    ] = Path(),
    *,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a prompts folder with one example, and the store. What is there already is left as it is.

    $ promptab init
    """
    store_url = url or f"sqlite:///{directory / 'promptab.db'}"
    had_store = _is_there(store_url)
    created = _make_files(directory)

    async def opened(lab: Lab) -> str:
        return lab.store.url

    shown = run(opened, url=store_url)
    report = {
        "directory": str(directory),
        "created": [str(path) for path in created],
        "store": shown,
        "store_created": not had_store,
    }
    emit(report, as_json=as_json, human=lambda to: _print(to, directory, created, shown, had_store=had_store))


def _is_there(url: str) -> bool:
    path = sqlite_path(url)
    return path is not None and Path(path).exists()


def _make_files(directory: Path) -> list[Path]:
    """Write what is missing and return it; an example only into a folder without prompts."""
    prompts = directory / "prompts"
    wanted = {prompts / "README.md": _README}
    if not any((prompts / folder).exists() for folder in TYPE_FOLDERS):
        wanted[prompts / "system" / "greeting.md"] = _EXAMPLE
    created = []
    for path, text in wanted.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8", newline="\n") as file:
                file.write(text)
        except FileExistsError as error:
            if not path.is_file():
                raise _unusable(directory, error) from error
            continue
        except OSError as error:
            raise _unusable(directory, error) from error
        created.append(path)
    return created


def _unusable(directory: Path, error: OSError) -> InvalidInputError:
    return InvalidInputError(
        "DIR", str(directory), f"a folder that can be written to ({error.strerror}: {error.filename})"
    )


def _print(to: Console, directory: Path, created: list[Path], store: str, *, had_store: bool) -> None:
    for path in created:
        to.print(f"created {path}", soft_wrap=True)
    if not created:
        to.print(f"{directory / 'prompts'} is there already and was left as it is", soft_wrap=True)
    to.print(f"{'found' if had_store else 'created'} the store {store}", soft_wrap=True)
    to.print("\nNext:", style="bold")
    if directory.resolve() != Path.cwd():
        to.print(f"  cd {directory}", soft_wrap=True)
    for command in ("sync push", "list", "render system/greeting --var name=Ada", "new --help"):
        to.print(f"  promptab {command}", soft_wrap=True)
