"""How it is shown what a pruning dropped, and what it kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptab.cli.output import table

if TYPE_CHECKING:
    from rich.console import Console

    from promptab.retention import PruneReport


def print_pruning(to: Console, report: PruneReport, what: str) -> None:
    """Print it; `what` was pruned, in the plural."""
    to.print(f"{what.capitalize()} before {report.before:%Y-%m-%d %H:%M} UTC:")
    rows = table("what", what, right=(what,))
    rows.add_row("dropped" if report.applied else "to be dropped", f"{report.dropped:,}")
    for why, count in sorted(report.kept.items()):
        rows.add_row(f"kept: {why}", f"{count:,}")
    to.print(rows)
