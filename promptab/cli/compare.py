"""`promptab compare`: is a variant really better, at a moment that was planned?"""

from __future__ import annotations

from typing import Annotated

import typer

from promptab.cli.analyze import MetricOption, show
from promptab.cli.options import ExperimentArgument, JsonOption, UrlOption
from promptab.cli.output import run


def compare(
    experiment: ExperimentArgument,
    *,
    metric: MetricOption = None,
    confidence: Annotated[
        float | None,
        typer.Option(
            "--confidence",
            metavar="SHARE",
            help="Of the intervals, between 0 and 1.",
            show_default="the experiment's, mostly 0.95",
        ),
    ] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare every variant of an experiment with the control by fixed-horizon intervals, for one planned look.

    A winner is named only where the primary metric leaves no doubt; else it says why not. To look as often as you
    like, use `promptab experiment analyze`.

    $ promptab compare greeting
    $ promptab compare greeting --metric success_rate --json
    """
    result = run(
        lambda lab: lab.analyze(experiment, "fixed", metric, confidence=confidence),
        url=url,
    )
    show(result, as_json=as_json)
