"""`promptab render`: the text that a prompt gives."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from promptab.choice import Choice
from promptab.cli.arguments import read_file, read_json_object, read_values
from promptab.cli.options import JsonOption, ReferenceArgument, TypeOption, UrlOption
from promptab.cli.output import print_json, run
from promptab.cli.references import find_prompt, find_version, parse_reference
from promptab.lab import Lab
from promptab.models import Message


def render(
    reference: ReferenceArgument,
    *,
    var: Annotated[
        list[str] | None,
        typer.Option(
            "--var",
            "-v",
            metavar="KEY=VALUE",
            help="A variable; KEY:=JSON for numbers and lists.",
            show_default=False,
        ),
    ] = None,
    vars_file: Annotated[
        Path | None,
        typer.Option("--vars", metavar="FILE", help="A JSON object of variables.", show_default=False),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(
            "--user",
            metavar="ID",
            help="As this user gets it; counts as shown to the user.",
            show_default=False,
        ),
    ] = None,
    attribute: Annotated[
        list[str] | None,
        typer.Option("--attribute", metavar="KEY=VALUE", help="What targeting looks at.", show_default=False),
    ] = None,
    prompt_type: TypeOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print exactly the text that a prompt gives; of a chat prompt, every message below its role.

    Without @VERSION it is what a request would be served: by the running experiment for --user, else what is
    live in production, else the latest.

    $ promptab render system/greeting --var name=Ada
    $ promptab render system/greeting@1.0.0 --var name=Ada --json
    """
    variables = _variables(var or (), vars_file)
    attributes = read_values("--attribute", attribute or ())

    async def work(lab: Lab) -> tuple[Choice, tuple[Message, ...]]:
        written = parse_reference(reference, prompt_type)
        found = await find_prompt(lab, written)
        if written.version is not None:
            await find_version(lab, written)
        choice = await lab.choose(
            found.name, found.prompt_type, user_id=user, attributes=attributes, version=written.version
        )
        return choice, choice.messages(**variables)

    choice, messages = run(work, url=url)
    if as_json:
        print_json(_document(choice, messages))
    else:
        _write(choice, messages)


def _variables(pairs: list[str] | tuple[()], file: Path | None) -> dict[str, Any]:
    given = {} if file is None else read_json_object("--vars", read_file("--vars", file))
    return {**given, **read_values("--var", pairs)}


def _is_chat(choice: Choice) -> bool:
    return choice.version is not None and bool(choice.version.messages)


def _document(choice: Choice, messages: tuple[Message, ...]) -> Mapping[str, Any]:
    version = choice.version
    return {
        "prompt": f"{choice.prompt_type}/{choice.name}",
        "version": None if version is None else version.version,
        "version_id": None if version is None else version.version_id,
        "source": choice.source,
        "reason": choice.reason,
        "experiment_id": choice.experiment_id,
        "variant": choice.variant,
        "config": choice.config,
        "text": None if _is_chat(choice) else messages[0].content,
        "messages": messages,
    }


def _write(choice: Choice, messages: tuple[Message, ...]) -> None:
    if _is_chat(choice):
        text = "\n".join(f"[{message.role}]\n{message.content}\n" for message in messages)
    else:
        text = messages[0].content
        if sys.stdout.isatty():
            text += "\n"
    typer.echo(text, nl=False)
