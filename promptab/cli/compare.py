"""`promptab compare`: is a variant really better?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from promptab.analysis import Comparison, MetricComparison
from promptab.cli.interval_chart import metric_charts
from promptab.cli.interval_plot import ASCII, UNICODE
from promptab.cli.options import ExperimentArgument, JsonOption, UrlOption
from promptab.cli.output import emit, run, table
from promptab.cli.wording import measure

if TYPE_CHECKING:
    from rich.console import Console


def compare(
    experiment: ExperimentArgument,
    *,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", metavar="METRIC", help="Only this one; repeat for more.", show_default="all"
        ),
    ] = None,
    confidence: Annotated[
        float, typer.Option("--confidence", metavar="SHARE", help="Of the intervals, between 0 and 1.")
    ] = 0.95,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare every variant of an experiment with the control, metric by metric, with intervals.

    A leader is named only where the interval of the primary metric leaves no doubt; else it says why not.

    $ promptab compare greeting
    $ promptab compare greeting --metric success_rate --json
    """
    comparison = run(lambda lab: lab.metrics.compare(experiment, confidence=confidence), url=url)
    chosen = comparison
    if metric:
        for name in metric:
            comparison.better(name)  # refuses a metric that was not compared
        chosen = comparison.model_copy(
            update={"metrics": {name: comparison.metrics[name] for name in dict.fromkeys(metric)}}
        )
    emit(chosen, as_json=as_json, human=lambda to: print_comparison(to, chosen))


def print_comparison(to: Console, comparison: Comparison) -> None:
    """Print the tables with their intervals, the sentence of every difference, and what may be made of it."""
    to.print(f"Experiment {comparison.experiment}: against {comparison.control} (control)", style="bold")
    for metric in comparison.metrics.values():
        _print_metric(to, comparison, metric)
    to.print()
    if comparison.leader is None:
        to.print("No leader.", style="bold")
    else:
        to.print(f"Leader: {comparison.leader}", style="bold green")
    to.print(comparison.reason)
    to.print(comparison.caution, style="dim")


def _print_metric(to: Console, comparison: Comparison, metric: MetricComparison) -> None:
    better = "higher is better" if metric.direction == "increase" else "lower is better"
    primary = "primary, " if metric.metric == comparison.primary_metric else ""
    interval_title = f"{100 * comparison.confidence:g} % interval"
    to.print()
    to.print(f"{metric.label} ({primary}{better})", style="bold")
    rows = table("variant", "units", "events", "mean", interval_title, right=["units", "events", "mean"])
    for key, estimate in metric.estimates.items():
        low, high = estimate.low, estimate.high
        width = None if low is None or high is None else high - low
        ends = [measure(end, metric.format, width=width) for end in (low, high)]
        rows.add_row(
            f"{key} (control)" if key == comparison.control else key,
            f"{estimate.units:,}",
            f"{estimate.events:,}",
            measure(estimate.value, metric.format, width=width),
            "-" if width is None else " to ".join(ends),
        )
    to.print(rows)
    strokes = ASCII if to.options.ascii_only else UNICODE
    for line in metric_charts(metric, control=comparison.control, strokes=strokes):
        to.print(line, no_wrap=True)
    for difference in metric.differences.values():
        to.print(difference.sentence)
