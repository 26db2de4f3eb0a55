"""`promptab experiment interaction`: whether two experiments on the same units disturb each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from promptab.analysis import wording
from promptab.analysis.planned import InteractionResult
from promptab.cli.options import ExperimentArgument, JsonOption, OneMetricOption, UrlOption
from promptab.cli.output import emit, facts, run
from promptab.cli.wording import counted

if TYPE_CHECKING:
    from rich.console import Console


def interaction(
    experiment: ExperimentArgument,
    other: Annotated[
        str,
        typer.Argument(metavar="OTHER", help="Another experiment, by name or id.", show_default=False),
    ],
    *,
    metric: OneMetricOption = None,
    confidence: Annotated[
        float | None,
        typer.Option("--confidence", help="Of the intervals.", show_default="the plan's"),
    ] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether the effect of an experiment depends on what its units got in another one.

    The outcomes are those of EXPERIMENT, of the units that are in both. Right for one look.

    $ promptab experiment interaction greeting top-k
    """
    found = run(lambda lab: lab.interaction(experiment, other, metric=metric, confidence=confidence), url=url)
    emit(found, as_json=as_json, human=lambda to: _print(to, found))


def _print(to: Console, found: InteractionResult) -> None:
    to.print(found.sentence)
    for contrast in found.contrasts:
        to.print(f"- {contrast.sentence}.")
    to.print(
        facts(
            [
                ("units in both", counted(found.units, "unit")),
                ("p, no interaction", wording.probability(found.p_value)),
                ("p, dealt independently", wording.probability(found.independence_p)),
            ]
        )
    )
