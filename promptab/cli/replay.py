"""`promptab experiment replay`: how often the analysis finds a difference where there is none."""

from __future__ import annotations

from typing import Annotated

import typer

from promptab.analysis.result import Method
from promptab.cli.options import ExperimentArgument, JsonOption, OneMetricOption, UrlOption
from promptab.cli.output import emit, run


def replay(
    experiment: ExperimentArgument,
    *,
    metric: OneMetricOption = None,
    method: Annotated[
        Method, typer.Option("--method", help="Whose false positives are counted, at one look.")
    ] = "fixed",
    runs: Annotated[int, typer.Option("--runs", metavar="N", help="How often the units are dealt.")] = 1_000,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="The same seed deals the same.")] = 0,
    confidence: Annotated[
        float | None,
        typer.Option("--confidence", help="1 less what is allowed.", show_default="the plan's"),
    ] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Deal the control's recorded units anew, many times, to two halves that were served the same (an A/A test), and
    count how often the analysis calls them different.

    $ promptab experiment replay greeting
    $ promptab experiment replay greeting --metric response_time --runs 200 --json
    """
    found = run(
        lambda lab: lab.replay(
            experiment, metric=metric, runs=runs, seed=seed, method=method, confidence=confidence
        ),
        url=url,
    )
    emit(found, as_json=as_json, human=lambda to: to.print(found.sentence))
