"""A metric drawn with characters: the interval of each variant, and of each difference, over an axis with numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rich.text import Text

from promptab.analysis.result import MetricAnalysis
from promptab.cli.interval_plot import UNICODE, Interval, Strokes, draw_intervals
from promptab.stats.metric import MetricFormat

PLOT_COLUMNS = 52
_MOST_STEPS = 8
_RESOLUTION = 1e-9
"""What lies closer together, relative to its size, gets no axis: its numbers could not be told apart."""


class Row(NamedTuple):
    """One line of the drawing. All numbers are finite."""

    label: str
    interval: Interval
    style: str = ""


_SCALES: dict[MetricFormat, tuple[float, str]] = {
    "percent": (100.0, " %"),
    "seconds": (1.0, " s"),
    "dollars": (1.0, " $"),
    "tokens": (1.0, ""),
    "number": (1.0, ""),
}


def metric_charts(metric: MetricAnalysis, *, control: str, strokes: Strokes = UNICODE) -> list[Text]:
    """Draw a metric: the estimate of every variant, then the difference of each to the control around zero.

    Empty where no variant has an estimate.
    """
    scale, unit = _SCALES[metric.format]
    colours = {"better": "green", "worse": "red", "undecided": "yellow"}
    styles = {key: colours[difference.verdict] for key, difference in metric.differences.items()}
    estimates = [
        _row(
            f"{key} (control)" if key == control else key,
            (estimate.low, estimate.value, estimate.high),
            scale,
            styles.get(key, ""),
        )
        for key, estimate in metric.estimates.items()
    ]
    differences = [
        _row(
            f"{key} minus {control}", (difference.low, difference.value, difference.high), scale, styles[key]
        )
        for key, difference in metric.differences.items()
    ]
    drawn = [row for row in estimates if row is not None]
    compared = [row for row in differences if row is not None]
    if not drawn:
        return []
    width = max(len(row.label) for row in (*drawn, *compared))
    lines = chart(drawn, label_width=width, unit=unit, strokes=strokes)
    if compared:
        points = " points" if metric.format == "percent" else unit
        lines += chart(compared, label_width=width, unit=points, around_zero=True, strokes=strokes)
    return lines


def chart(
    rows: Sequence[Row],
    *,
    label_width: int,
    unit: str = "",
    around_zero: bool = False,
    strokes: Strokes = UNICODE,
) -> list[Text]:
    """Draw the rows over an axis with its numbers; `around_zero` takes zero in and marks it. Rows are finite."""
    zero = 0.0 if around_zero else None
    plots = draw_intervals([row.interval for row in rows], width=PLOT_COLUMNS, mark=zero, strokes=strokes)
    lines = [
        Text.assemble(f"{row.label:<{label_width}}  ", (plot, row.style))
        for row, plot in zip(rows, plots, strict=True)
    ]
    ends = [end for row in rows for end in (*row.interval, zero) if end is not None]
    low, high = min(ends), max(ends)
    if high - low > _RESOLUTION * max(abs(low), abs(high)):
        marks = {round((mark - low) / (high - low) * (PLOT_COLUMNS - 1)): mark for mark in ticks(low, high)}
        tick = "┬" if strokes == UNICODE else "+"
        axis = "".join(tick if at in marks else strokes.line for at in range(PLOT_COLUMNS))
        below = (axis, _numbers(marks, unit, signed=around_zero))
        lines.extend(Text(" " * (label_width + 2) + line, style="dim") for line in below)
    return lines


def ticks(low: float, high: float) -> list[float]:
    """Return two to nine round numbers in [low, high], in steps of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10((high - low) / _MOST_STEPS))
    step = next(power * factor for factor in (1, 2, 5, 10) if (high - low) / (power * factor) <= _MOST_STEPS)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _row(label: str, ends: tuple[float | None, ...], scale: float, style: str) -> Row | None:
    low, value, high = (None if end is None else scale * end for end in ends)
    return None if value is None else Row(label, Interval(low, value, high), style)


def _numbers(marks: Mapping[int, float], unit: str, *, signed: bool) -> str:
    """Return the numbers below their columns; the last one bears the unit."""
    values = list(marks.values())
    decimals = max(0, -math.floor(math.log10(values[1] - values[0]) + 1e-9))
    line = ""
    for at, value in marks.items():
        shown = f"{value + 0.0:{'+' if signed and value else ''}.{decimals}f}"  # + 0.0: no "-0"
        start = max(0, at - len(shown) // 2)
        if start > len(line) or not line:  # a number without room is left out
            line = f"{line:<{start}}{shown}"
    return line + unit
