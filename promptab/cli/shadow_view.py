"""What ran in the shadow, as `promptab experiment analyze` shows it below the analysis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptab.analysis import wording
from promptab.analysis.shadows import ShadowComparison, ShadowDifference, ShadowOutcome, ShadowReport
from promptab.cli.output import table
from promptab.cli.wording import counted, percent
from promptab.stats.metric import MetricFormat

if TYPE_CHECKING:
    from rich.console import Console

_METRICS: dict[str, tuple[str, MetricFormat]] = {
    "success_rate": ("success", "percent"),
    "response_time": ("response time", "seconds"),
    "tokens": ("tokens", "tokens"),
    "cost": ("cost a call", "dollars"),
}


def print_shadows(to: Console, report: ShadowReport) -> None:
    to.print("\nIn the shadow (served to nobody, in none of the numbers above)", style="bold")
    for outcome in report.shadows:
        _print_outcome(to, outcome, report)
    to.print(report.caution, style="dim")


def _print_outcome(to: Console, outcome: ShadowOutcome, report: ShadowReport) -> None:
    serves = "its configuration" if outcome.version is None else outcome.version
    beside = f"{outcome.variant} ({serves}), {percent(outcome.share)} of the units"
    if not outcome.runs:
        to.print(f"{beside}: no runs so far")
        return
    to.print(
        f"{beside}: {counted(outcome.runs, 'run')} for {counted(outcome.units, 'unit')}, "
        f"${outcome.cost:.6f} in all"
    )
    if outcome.failures:
        kinds = (f"{kind or 'of no known kind'} {count:,}" for kind, count in outcome.failures.items())
        to.print(f"failed: {', '.join(kinds)}")
    for comparison in outcome.comparisons:
        _print_comparison(to, outcome, comparison, report)


def _print_comparison(
    to: Console, outcome: ShadowOutcome, comparison: ShadowComparison, report: ShadowReport
) -> None:
    headers = ("units", outcome.variant, comparison.served, "difference")
    rows = table("on the same units", *headers, right=headers)
    for difference in comparison.differences:
        label, unit = _METRICS[difference.metric]
        rows.add_row(
            label,
            f"{difference.units:,}",
            wording.measure(difference.shadow, unit),
            wording.measure(difference.served, unit),
            _change(difference, unit, fewest=report.fewest_units),
        )
    to.print(rows)
    lacking = comparison.calls - comparison.runs
    if lacking > 0:
        to.print(f"{counted(lacking, 'call')} of {comparison.calls:,} had no run beside them", style="dim")


def _change(difference: ShadowDifference, unit: MetricFormat, *, fewest: int) -> str:
    low, high = difference.low, difference.high
    told = wording.change(difference.difference, low, high, unit).told(wording.change_unit(unit))
    if low is not None:
        return told
    why = "too few units" if difference.units < fewest else "no unit varies"
    return f"{told} ({why})"
