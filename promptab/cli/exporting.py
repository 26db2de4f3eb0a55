"""`promptab export`: a version as a file for another tool."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from promptab.cli.options import JsonOption, ReferenceArgument, TypeOption, UrlOption
from promptab.cli.output import emit, note, run, visible
from promptab.cli.references import find_version, parse_reference
from promptab.errors import InvalidInputError
from promptab.formats import Exported, Format, whole_source, write_foreign
from promptab.lab import Lab
from promptab.library.disk import replace_file
from promptab.stores.base import Transaction

if TYPE_CHECKING:
    from rich.console import Console


def export(
    reference: ReferenceArgument,
    *,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="dotprompt, prompty, github, dataknobs or llm.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Write the file there.", show_default="standard output"
        ),
    ] = None,
    prompt_type: TypeOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write one version as a file for another tool; without @VERSION the latest.

    Included prompts are put in as they are pinned. What the format has no place for is listed, on standard error; a
    template that it cannot say is refused with its line. An existing file is replaced.

    $ promptab export system/greeting --format dotprompt
    $ promptab export system/greeting --format prompty --output out
    """
    wanted = Format.parse(form, "format")

    async def work(lab: Lab) -> tuple[str, Exported]:
        version = await find_version(lab, parse_reference(reference, prompt_type))

        async def included(tx: Transaction) -> Exported:
            cases = await tx.cases.of(version.prompt_type, version.name)
            return write_foreign(
                whole_source(version, await tx.versions.with_includes(version), cases), wanted
            )

        return version.label, await lab.store.read(included)

    label, exported = run(work, url=url)
    written = None if output is None else _write(output, exported)
    document = {
        "prompt": label,
        "format": wanted,
        "path": exported.path,
        "written": None if written is None else str(written),
        "text": exported.text,
        "lost": exported.lost,
    }
    emit(document, as_json=as_json, human=lambda to: _print(to, label, exported, written))


def _write(folder: Path, exported: Exported) -> Path:
    target = folder / exported.path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        bound = f"a folder that can be written to ({error.strerror})"
        raise InvalidInputError("--output", str(target.parent), bound) from None
    replace_file(target, exported.text.encode(), shown=str(target))
    return target


def _print(to: Console, label: str, exported: Exported, written: Path | None) -> None:
    if written is None:
        # as it is, for a redirection into a file
        typer.echo(exported.text, nl=False)
    else:
        to.print(visible(f"{label} is in {written}"), soft_wrap=True)
    for lost in exported.lost:
        note(f"left out: {lost}")
