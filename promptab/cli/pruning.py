"""What the commands that prune have in common: their options, and how what was dropped and kept is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from promptab.cli.output import note, table

if TYPE_CHECKING:
    from rich.console import Console

    from promptab.retention import PruneReport

BeforeOption = Annotated[
    str, typer.Option("--before", metavar="TIME", help="2025-06-30T14:00, or 90d for 90 days ago.")
]
DropOption = Annotated[
    bool, typer.Option("--yes", help="Drop them; without it, only say what would go.", show_default=False)
]


def print_pruning(to: Console, report: PruneReport, what: str) -> None:
    """Print it; `what` was pruned, in the plural."""
    to.print(f"{what.capitalize()} before {report.before:%Y-%m-%d %H:%M} UTC:")
    rows = table("what", what, right=(what,))
    rows.add_row("dropped" if report.applied else "to be dropped", f"{report.dropped:,}")
    for why, count in sorted(report.kept.items()):
        rows.add_row(f"kept: {why}", f"{count:,}")
    to.print(rows)


def note_what_was_kept_back(report: PruneReport) -> None:
    """Say beside any kind of output that nothing was dropped, where that was not asked for."""
    if not report.applied:
        note("nothing was dropped; add --yes to drop them")
