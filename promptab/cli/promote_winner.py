"""`promptab experiment promote-winner`: from an analysis to production, in one step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from promptab.analysis.result import Method
from promptab.cli.arguments import actor_or_user
from promptab.cli.options import ActorOption, ExperimentArgument, JsonOption, UrlOption
from promptab.cli.output import emit, run
from promptab.models import Deployment

if TYPE_CHECKING:
    from rich.console import Console


def promote_winner(
    experiment: ExperimentArgument,
    *,
    method: Annotated[
        Method,
        typer.Option(
            "--method", metavar="METHOD", help="How to analyse: sequential, or at one look fixed or bayesian."
        ),
    ] = "sequential",
    allow_approximate: Annotated[
        bool,
        typer.Option(
            "--allow-approximate", help="Accept a sequential analysis without a measurement window."
        ),
    ] = False,
    actor: ActorOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Analyse an experiment; if a variant has won, make its version live and complete the experiment.

    The analysis is kept with the deployment. Without a winner nothing changes, and the exit code is 6. Doing it again
    moves nothing twice.

    $ promptab experiment promote-winner greeting --allow-approximate
    """
    moved = run(
        lambda lab: lab.promote_winner(
            experiment, method, allow_approximate=allow_approximate, actor=actor_or_user(actor)
        ),
        url=url,
    )
    emit(moved, as_json=as_json, human=lambda to: _print(to, moved, experiment))


def _print(to: Console, moved: Deployment, experiment: str) -> None:
    before = f", in place of {moved.previous_version}" if moved.previous_version else ""
    to.print(f"{moved.prompt_type}/{moved.name}@{moved.version} is live in {moved.environment}{before}.")
    to.print(f"Experiment {experiment} is completed: {moved.reason}.")
