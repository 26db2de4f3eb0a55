"""`promptab doctor`: is the store sound?"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import typer

import promptab
from promptab.cli.exit_codes import ExitCode
from promptab.cli.options import JsonOption, UrlOption
from promptab.cli.output import emit, facts
from promptab.doctor import Diagnosis, diagnose

if TYPE_CHECKING:
    from rich.console import Console

_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red"}


def doctor(*, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Check that a store is sound: the file, the schema, what is live, its history, contents and events.

    Nothing is changed. Exit code 8 where something is wrong; warnings are worth knowing, and leave it at 0.

    $ promptab doctor
    """
    diagnosis = asyncio.run(diagnose(url))
    document = {
        "sound": diagnosis.sound,
        "promptab": promptab.__version__,
        **diagnosis.model_dump(mode="json"),
    }
    emit(document, as_json=as_json, human=lambda to: _print(to, diagnosis))
    if not diagnosis.sound:
        raise typer.Exit(ExitCode.CHECK_FAILED)


def _print(to: Console, diagnosis: Diagnosis) -> None:
    from rich.text import Text  # noqa: PLC0415 - as in `promptab.cli.output`

    to.print(diagnosis.url, style="bold", soft_wrap=True)
    to.print(f"promptab {promptab.__version__}, Python {diagnosis.python}, SQLite {diagnosis.sqlite}")
    to.print()
    to.print(
        facts(
            (check.name, Text.assemble((check.status, _STYLES[check.status]), f"  {check.detail}"))
            for check in diagnosis.checks
        )
    )
    to.print()
    to.print(
        "The store is sound." if diagnosis.sound else "Something is wrong with this store.", style="bold"
    )
