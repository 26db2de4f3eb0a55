"""Options that every command has, and others that several share."""

from __future__ import annotations

from typing import Annotated

import typer

UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="PROMPTAB_URL",
        metavar="URL",
        show_default="sqlite:///promptab.db",
        help="The store to use.",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document, on standard output.", show_default=False)
]
ReferenceArgument = Annotated[
    str,
    typer.Argument(
        metavar="TYPE/NAME[@VERSION]",
        help="A prompt, and which version of it: a number, a range such as ^1.2, a tag, or latest.",
        show_default=False,
    ),
]
PromptArgument = Annotated[
    str, typer.Argument(metavar="TYPE/NAME", help="A prompt, such as system/greeting.", show_default=False)
]
TypeOption = Annotated[
    str | None,
    typer.Option(
        "--type",
        metavar="TYPE",
        help="The type, where the name is given without it: system, user, message, model or config.",
        show_default=False,
    ),
]
EnvironmentOption = Annotated[
    str, typer.Option("--environment", "-e", metavar="ENVIRONMENT", help="production or staging.")
]
ReasonOption = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the history.", show_default=False)
]
ActorOption = Annotated[
    str | None,
    typer.Option(
        "--actor", metavar="NAME", help="Who does it.", show_default="the name you are logged in by"
    ),
]
ExperimentArgument = Annotated[
    str, typer.Argument(metavar="EXPERIMENT", help="The name or id of an experiment.", show_default=False)
]
OneMetricOption = Annotated[
    str | None,
    typer.Option("--metric", metavar="METRIC", help="Of the experiment.", show_default="the primary"),
]
