"""Pieces that several charts are put together from."""

from __future__ import annotations

from typing import Any, NamedTuple

import altair as alt

from promptab.analysis import wording
from promptab.analysis.result import MetricAnalysis
from promptab.report.theme import WIDTH


class Scaled(NamedTuple):
    """What a difference is drawn on."""

    title: str
    factor: float
    unit: str


def difference_scale(metric: MetricAnalysis, control: str) -> Scaled:
    factor = 100.0 if metric.format == "percent" else 1.0
    return Scaled(f"difference to {control}", factor, wording.change_unit(metric.format))


def chart(rows: list[dict[str, Any]]) -> alt.Chart:
    return alt.Chart(alt.InlineData(values=rows))


def title(text: str, below: str) -> alt.TitleParams:
    return alt.TitleParams(text=text, subtitle=below, frame="group")


def row_axis(field: str, names: list[str]) -> alt.Y:
    """Return the axis on which every row has its name, in the order given."""
    return alt.Y(f"{field}:N", title=None, sort=names, axis=alt.Axis(grid=False, minExtent=60))


def beside(base: alt.Chart, y: alt.Y) -> alt.Chart:
    """Return the texts in `told`, to the right of their rows."""
    drawn: alt.Chart = base.mark_text(align="left", baseline="middle").encode(
        x=alt.value(WIDTH + 12), y=y, text="told:N"
    )
    return drawn


def zero_line() -> alt.Chart:
    drawn: alt.Chart = chart([{}]).mark_rule(strokeDash=[2, 2]).encode(x=alt.datum(0.0))
    return drawn


def domain(numbers: list[float]) -> list[float]:
    """Return the ends of an axis that holds all these numbers with a little room on both sides."""
    low, high = min(numbers), max(numbers)
    room = 0.05 * (high - low) or 1.0
    return [low - room if low < 0.0 else low, high + room]
