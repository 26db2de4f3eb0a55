"""`promptab events`: writing what was recorded to files, and dropping what the totals have."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from promptab.cli.arguments import read_time
from promptab.cli.options import JsonOption, UrlOption
from promptab.cli.output import emit, run, table
from promptab.cli.pruning import BeforeOption, DropOption, note_what_was_kept_back, print_pruning

if TYPE_CHECKING:
    from rich.console import Console

    from promptab.exporting import ExportReport

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Write single events to files, and drop those that the totals have.",
)

_TIME = "2025-06-30T14:00, or 7d for the last 7 days."


@app.command()
def export(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Made if it is not there.", show_default=False)
    ],
    *,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help=f"From that day on: {_TIME}", show_default=False),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="TIME", help="Up to that day.", show_default=False),
    ] = None,
    experiment: Annotated[
        str | None,
        typer.Option(
            "--experiment", metavar="EXPERIMENT", help="Only what was part of it.", show_default=False
        ),
    ] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write events, exposures and aliases to Parquet files, one for each day (UTC).

    A file is there whole or not at all. Run it again, and the same files are written anew; of days whose events have
    been pruned since, a file keeps those that it has. Needs the extra `warehouse`.

    $ promptab events export exported
    $ promptab events export exported --since 30d --json
    """
    now = datetime.now(UTC)
    start = None if since is None else read_time("--since", since, now=now)
    end = None if until is None else read_time("--until", until, now=now)
    report = run(
        lambda lab: lab.metrics.export_events(folder, since=start, until=end, experiment=experiment), url=url
    )
    emit(report, as_json=as_json, human=lambda to: _print_export(to, report))


@app.command()
def prune(
    *,
    before: BeforeOption,
    yes: DropOption = False,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Drop the single events that happened before a time, where every total has them.

    Totals answer afterwards: metrics by the hour, analyses, and what units did before. Quantiles, series and single
    events of that time cannot be told any more: export them first. What has to stay is counted, with the reason.

    $ promptab events prune --before 90d
    $ promptab events prune --before 90d --yes
    """
    limit = read_time("--before", before, now=datetime.now(UTC))
    report = run(lambda lab: lab.metrics.prune_events(limit, apply=yes), url=url)
    emit(report, as_json=as_json, human=lambda to: print_pruning(to, report, "events"))
    note_what_was_kept_back(report)


def _print_export(to: Console, report: ExportReport) -> None:
    to.print(f"Written to {report.folder}:", soft_wrap=True)
    rows = table("what", "rows", right=("rows",))
    rows.add_row("events", f"{report.events:,}")
    if report.kept:
        rows.add_row("events of an earlier export, pruned since", f"{report.kept:,}")
    rows.add_row("exposures", f"{report.exposures:,}")
    rows.add_row("aliases", f"{report.aliases:,}")
    to.print(rows)
