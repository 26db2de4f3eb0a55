"""`promptab assign`: which variant a user gets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from promptab.cli.arguments import read_values
from promptab.cli.options import ExperimentArgument, JsonOption, UrlOption
from promptab.cli.output import emit, run
from promptab.models import Assignment

if TYPE_CHECKING:
    from rich.console import Console


def assign(
    experiment: ExperimentArgument,
    *,
    user: Annotated[
        str | None, typer.Option("--user", metavar="ID", help="The user.", show_default=False)
    ] = None,
    session: Annotated[
        str | None,
        typer.Option(
            "--session", metavar="ID", help="The session, where nobody is logged in.", show_default=False
        ),
    ] = None,
    feature: Annotated[
        list[str] | None,
        typer.Option(
            "--feature",
            metavar="KEY=VALUE",
            help="For experiments whose unit is features.",
            show_default=False,
        ),
    ] = None,
    attribute: Annotated[
        list[str] | None,
        typer.Option(
            "--attribute",
            metavar="KEY=VALUE",
            help="What targeting looks at; KEY:=JSON for numbers.",
            show_default=False,
        ),
    ] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which variant a user gets, and why. The user is part of the experiment from then on.

    $ promptab assign greeting --user u42
    $ promptab assign greeting --user u43 --attribute plan=pro --json
    """
    features = read_values("--feature", feature or ()) or None
    attributes = read_values("--attribute", attribute or ())
    assignment = run(
        lambda lab: lab.experiments.assign(
            experiment, user, session_id=session, features=features, attributes=attributes
        ),
        url=url,
    )
    emit(assignment, as_json=as_json, human=lambda to: _print(to, assignment))


def _print(to: Console, assignment: Assignment) -> None:
    if assignment.variant is None:
        to.print(f"no variant: {assignment.detail}")
        return
    serves = f", version {assignment.version}" if assignment.version not in {None, assignment.variant} else ""
    to.print(f"{assignment.variant}{serves}: {assignment.detail}")
    if assignment.config is not None:
        to.print(json.dumps(assignment.config, default=dict, ensure_ascii=False), soft_wrap=True)
