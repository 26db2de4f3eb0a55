"""`promptab experiment analyze`: what an experiment shows by now, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from promptab.analysis.histogram import Histogram
from promptab.analysis.result import AnalysisResult, Method
from promptab.analysis.shadows import ShadowReport
from promptab.cli.arguments import read_time
from promptab.cli.options import ExperimentArgument, JsonOption, UrlOption
from promptab.cli.output import emit, note, run
from promptab.lab import Lab

if TYPE_CHECKING:
    from rich.console import Console

MetricOption = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        metavar="METRIC",
        help="Beside the primary, only this; repeat for more.",
        show_default="all",
    ),
]


class _Analysed(NamedTuple):
    result: AnalysisResult
    shadows: ShadowReport | None
    """None where the experiment has none."""
    histograms: Sequence[Histogram] = ()
    """Of the response time, for a report."""


def analyze(
    experiment: ExperimentArgument,
    *,
    method: Annotated[
        Method,
        typer.Option(
            "--method", help="sequential may be read at any time; fixed and bayesian once, as planned."
        ),
    ] = "sequential",
    metric: MetricOption = None,
    segment: Annotated[
        list[str] | None,
        typer.Option(
            "--segment",
            metavar="ATTRIBUTE",
            help="Look at the values of this attribute apart; repeat for more.",
            show_default=False,
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="TIME",
            help="Only units first exposed since: 2025-06-30T14:00, or 7d for the last 7 days.",
            show_default=False,
        ),
    ] = None,
    series: Annotated[
        Literal["day", "hour"] | None,
        typer.Option("--series", help="What a look at the end of each would have shown.", show_default=False),
    ] = None,
    uniform: Annotated[
        bool, typer.Option("--uniform", help="Of a bandit: only the units that are dealt alike throughout.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write a report with charts: .html (works offline), .png or .svg.",
            show_default=False,
        ),
    ] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether a variant has won, what that rests on, and what is lacking if none has.

    $ promptab experiment analyze greeting
    $ promptab experiment analyze greeting --metric success_rate --series day --json
    $ promptab experiment analyze greeting --output report.html
    """
    if output is not None:
        # before the work: a report that cannot be written is refused at once
        from promptab.report import check_report_path  # noqa: PLC0415 - an extra, and slow to import

        check_report_path(output)
    start = None if since is None else read_time("--since", since, now=datetime.now(UTC))

    async def work(lab: Lab) -> _Analysed:
        found = await lab.experiments.get_experiment(experiment)
        period = series
        pruned_before = None if found is None else await lab.metrics.pruned_before(found.experiment_id)
        if output is not None and found is not None and series is None and pruned_before is None:
            # a report shows how the estimate came about, where the primary metric has a course to show
            primary = found.plan.definition(found.primary_metric)
            period = None if primary.kind == "quantile" else "day"
        result = await lab.analyze(
            experiment,
            method=method,
            metrics=metric,
            segments=segment or (),
            since=start,
            series=period,
            uniform=uniform,
        )
        has_shadows = found is not None and found.shadows
        shadows = await lab.shadow_report(result.experiment_id) if has_shadows else None
        if output is None or found is None:
            return _Analysed(result, shadows)
        if pruned_before is not None:
            day = f"{pruned_before:%Y-%m-%d}"
            note(f"events before {day} have been pruned: the report has no course and no response times")
            return _Analysed(result, shadows)
        return _Analysed(result, shadows, await lab.metrics.distribution(result.experiment_id, since=start))

    analysed = run(work, url=url)
    if output is not None:
        from promptab.report import write_report  # noqa: PLC0415 - as above

        write_report(analysed.result, output, histograms=analysed.histograms)
        note(f"report written to {output}")
    show(analysed.result, as_json=as_json, shadows=analysed.shadows)


def show(result: AnalysisResult, *, as_json: bool, shadows: ShadowReport | None = None) -> None:
    """Print an analysis for people, or as one JSON document; shadows that there are stand below it, under `shadows`."""
    from promptab.cli.analysis_view import AnalysisView  # noqa: PLC0415 - as long to import as a command takes

    if shadows is None:
        emit(result, as_json=as_json, human=lambda to: to.print(AnalysisView(result)))
        return

    def human(to: Console) -> None:
        from promptab.cli.shadow_view import print_shadows  # noqa: PLC0415 - as above

        to.print(AnalysisView(result))
        print_shadows(to, shadows)

    emit({**dict(result), "shadows": shadows}, as_json=as_json, human=human)
