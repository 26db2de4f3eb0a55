"""Metrics that are asked about and that nothing carries: under another name perhaps, or never recorded."""

from __future__ import annotations

from promptab.analysis.result import AnalysisResult

TOLD_AFTER = 200
"""Units of all variants together (of a guarded version: its events) without a metric before that is told. What one of
fifty carries is then missed, and told, with a probability of 2 %.
"""


def uncarried_metrics(analysis: AnalysisResult) -> tuple[str, ...]:
    """Return the metrics that no event of enough units carries, in the order of the analysis.

    Those that are of every exposed unit, as a total per unit is, are never among them: nothing recorded is zero there.
    """
    if sum(analysis.units.values()) < TOLD_AFTER:
        return ()
    return tuple(
        name
        for name, metric in analysis.metrics.items()
        # of a ratio `events` is the total of its denominator, which may be next to nothing
        if not any(found.events or found.value is not None for found in metric.estimates.values())
    )


def uncarried_clause(metric: str, counted: str) -> str:
    """Say it, of so many units or events."""
    return f"none of {counted} carries {metric}: is it recorded, and under that name?"
