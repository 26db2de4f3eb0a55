"""`promptab new`: create a version."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptab.cli.arguments import actor_or_user, read_file, read_json, read_json_object, read_values
from promptab.cli.options import ActorOption, JsonOption, PromptArgument, TypeOption, UrlOption
from promptab.cli.output import emit, note, run
from promptab.cli.references import find_prompt, parse_prompt
from promptab.cli.wording import free_tags
from promptab.errors import InvalidInputError, NotFoundError
from promptab.lab import Lab
from promptab.models import PromptType, PromptVersion

if TYPE_CHECKING:
    from rich.console import Console

_BUMPS = ("patch", "minor", "major", "auto")


def new(
    prompt: PromptArgument,
    *,
    prompt_type: TypeOption = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", "-f", metavar="FILE", help="Read the template from a file.", show_default=False
        ),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            "--template",
            "-t",
            metavar="TEXT",
            help="The template; - reads standard input.",
            show_default=False,
        ),
    ] = None,
    version: Annotated[
        str | None, typer.Option("--version", metavar="NUMBER", help="This very number.", show_default=False)
    ] = None,
    bump: Annotated[
        str, typer.Option("--bump", help="The next number: patch, minor, major, or auto to grade the change.")
    ] = "auto",
    status: Annotated[str, typer.Option("--status", help="draft, active or production.")] = "active",
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="TAG", help="Repeat for more.", show_default=False)
    ] = None,
    default: Annotated[
        list[str] | None,
        typer.Option(
            "--default",
            metavar="KEY=VALUE",
            help="A variable's default; KEY:=JSON for numbers.",
            show_default=False,
        ),
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(
            "--validation", metavar="JSON", help="A JSON Schema of the variables.", show_default=False
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            "--config", metavar="JSON", help="Model, parameters, tools, output.", show_default=False
        ),
    ] = None,
    message: Annotated[
        str | None,
        typer.Option(
            "--message", "-m", metavar="TEXT", help="What changed; shown by log.", show_default=False
        ),
    ] = None,
    if_changed: Annotated[
        bool, typer.Option("--if-changed", help="Make nothing where the latest has this content.")
    ] = False,
    actor: ActorOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create the next version of a prompt, or its first.

    The template comes from --template, --file or standard input. For a prompt of type message it is a JSON
    list of objects with role and content. A model or config has no template, only --config.

    $ promptab new system/greeting --template "Hello {{ name }}!" --message "first try"
    $ promptab new model/chat --config '{"model": "gpt-4.1-mini", "parameters": {"temperature": 0.2}}'
    """
    if bump not in _BUMPS:
        raise InvalidInputError("bump", bump, f"one of {', '.join(_BUMPS)}")
    source = _source(template, file)
    settings: dict[str, Any] = {
        "version": version,
        "bump": bump,
        "status": status,
        "tags": tag or (),
        "defaults": read_values("--default", default or ()),
        "validation": None if validation is None else read_json_object("--validation", validation),
        "config": None if config is None else read_json_object("--config", config),
        "metadata": {} if message is None else {"message": message},
        "created_by": actor_or_user(actor),
        "if_changed": if_changed,
    }

    async def work(lab: Lab) -> tuple[PromptVersion, PromptVersion | None]:
        kind, name = await _target(lab, prompt, prompt_type)
        text = source if source is not None or not kind.has_template else _from_stdin(kind)
        content = read_json("template", text) if kind == PromptType.MESSAGE and text else text
        made = await lab.versions.create_version(name, kind, content, **settings)
        before = made.parent_version
        return made, None if before is None else await lab.versions.get_version_by_id(before)

    created, parent = run(work, url=url)
    if parent is not None and (dropped := _dropped(created, parent)):
        note(
            f"unlike {parent.label} it has no {' and no '.join(dropped)}; give them to `new`, or edit the file"
        )
    emit(created, as_json=as_json, human=lambda to: _print(to, created))


def _source(template: str | None, file: Path | None) -> str | None:
    if template is not None and file is not None:
        raise InvalidInputError("--file", str(file), "given together with --template", "give one of the two")
    if file is not None:
        return read_file("--file", file)
    return sys.stdin.read() if template == "-" else template


def _from_stdin(kind: PromptType) -> str:
    if sys.stdin.isatty():
        raise InvalidInputError(
            "template", None, f"the text of a {kind} prompt", "give --template TEXT or --file FILE"
        )
    text = sys.stdin.read()
    if not text.strip():
        # a script that forgot --template must not put an empty prompt into service
        raise InvalidInputError(
            "template",
            text,
            f"the text of a {kind} prompt",
            "standard input was empty: give --template or --file",
        )
    return text


def _dropped(created: PromptVersion, parent: PromptVersion | None) -> list[str]:
    """Return the parts that the version before has and this one has not."""
    parts = ("config", "defaults", "validation")
    return [part for part in parts if getattr(parent, part, None) and not getattr(created, part)]


async def _target(lab: Lab, prompt: str, prompt_type: str | None) -> tuple[PromptType, str]:
    """Return which prompt is meant; a bare name is one that exists already."""
    written = parse_prompt(prompt, prompt_type)
    if written.prompt_type is not None:
        return written.prompt_type, written.name
    try:
        return await find_prompt(lab, written)
    except NotFoundError:
        raise InvalidInputError(
            "prompt", prompt, "a prompt that exists", f"to make it, say its type: system/{prompt}"
        ) from None


def _print(to: Console, created: PromptVersion) -> None:
    tags = free_tags(created)
    to.print(f"{created.label} is {created.status}" + (f", tagged {tags}" if tags else ""))
