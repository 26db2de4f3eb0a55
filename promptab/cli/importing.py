"""`promptab import`: prompt files of others become versions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from promptab.cli.arguments import actor_or_user
from promptab.cli.options import ActorOption, JsonOption, UrlOption
from promptab.cli.output import emit, run, visible
from promptab.formats import Format, Imported, Wish, read_path
from promptab.lab import Lab
from promptab.models import PromptType

if TYPE_CHECKING:
    from rich.console import Console


class _Made(NamedTuple):
    version: str
    is_new: bool


def import_(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A file, or a folder of them.", show_default=False)
    ],
    *,
    name: Annotated[
        str | None,
        typer.Option(
            "--name", metavar="NAME", help="What to call the prompt.", show_default="as the file says"
        ),
    ] = None,
    prompt_type: Annotated[
        str | None,
        typer.Option(
            "--type", metavar="TYPE", help="system, user or message.", show_default="by its messages"
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="dotprompt, prompty, github, dataknobs or llm.",
            show_default="by its content",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be made, and make nothing.")
    ] = False,
    actor: ActorOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make versions of prompt files that another tool wrote; templates are translated to Jinja2.

    Read are Dotprompt (.prompt, with its partials), Prompty 1 and 2, GitHub's .prompt.yml, the folders of dataknobs and
    templates of llm. What a file has and a prompt here has not is told. A prompt whose latest version has this content
    already is left as it is, so a second run makes nothing. If one file cannot be read, nothing is made.

    $ promptab import greeting.prompt --dry-run
    $ promptab import greeting.prompt
    """
    wish = Wish(name, None if prompt_type is None else PromptType.parse(prompt_type, "type"))
    found = read_path(path, form=None if form is None else Format.parse(form, "format"), wish=wish)

    async def work(lab: Lab) -> list[_Made]:
        return [await _make(lab, imported, actor_or_user(actor)) for imported in found]

    made = None if dry_run else run(work, url=url)
    document = [_document(imported, made[index] if made else None) for index, imported in enumerate(found)]
    emit({"dry_run": dry_run, "prompts": document}, as_json=as_json, human=lambda to: _print(to, found, made))


async def _make(lab: Lab, imported: Imported, actor: str | None) -> _Made:
    source = imported.source
    before = await lab.versions.get_version(source.name, source.prompt_type, "latest")
    version = await lab.versions.create_version(
        source.name,
        source.prompt_type,
        source.messages or source.template,
        defaults=source.defaults,
        validation=source.validation,
        config=source.config,
        metadata=source.metadata,
        created_by=actor,
        bump="auto",
        if_changed=True,
    )
    if source.tests is not None:
        await lab.versions.set_cases(source.name, source.prompt_type, source.tests)
    return _Made(version.version, before is None or before.version_id != version.version_id)


def _document(imported: Imported, made: _Made | None) -> dict[str, Any]:
    return {
        "path": imported.path,
        "format": imported.format,
        "prompt": imported.source.label,
        "version": None if made is None else made.version,
        "created": made is not None and made.is_new,
        "source": imported.source.model_dump(mode="json", exclude={"version", "bump", "status", "tags"}),
        "notes": imported.notes,
    }


def _print(to: Console, found: tuple[Imported, ...], made: list[_Made] | None) -> None:
    for index, imported in enumerate(found):
        source, outcome = imported.source, made[index] if made else None
        if outcome is None:
            told = f"would be {source.label}"
        elif outcome.is_new:
            told = f"is {source.label}@{outcome.version}"
        else:
            told = f"is {source.label}@{outcome.version} already"
        to.print(visible(f"{imported.path} ({imported.format}) {told}"), soft_wrap=True)
        for note in imported.notes:
            to.print(visible(f"  {note}"), soft_wrap=True)
        if outcome is None:
            _print_texts(to, imported)


def _print_texts(to: Console, imported: Imported) -> None:
    for message in imported.source.messages:
        to.print(visible(f"[{message.role}]\n{message.content}\n"), soft_wrap=True)
    if imported.source.template:
        to.print(visible(f"{imported.source.template}\n"), soft_wrap=True)
