"""One definition per chart. Shown by a notebook as they are, and by a report in a page or a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from promptab.analysis import wording
from promptab.analysis.histogram import Histogram
from promptab.analysis.result import AnalysisResult, MetricAnalysis
from promptab.report.drawing import Scaled, beside, chart, difference_scale, row_axis, title
from promptab.report.intervals import intervals
from promptab.report.theme import ROW_HEIGHT, TONES, VARIANTS, WIDTH

__all__ = ["intervals", "response_times", "series", "units"]

_SERIES_HEIGHT = 150
_WIDEST = 4.0
"""The first looks know next to nothing: a band wider than this many times the last one is cut off."""


def series(result: AnalysisResult) -> alt.VConcatChart | None:
    """Draw the primary metric's difference to the control as each look would have shown it, with its band.

    None where the analysis has no series.
    """
    if not result.series:
        return None
    metric = result.metrics[result.primary_metric]
    scale = difference_scale(metric, result.control)
    last = {point.variant: point for point in result.series}
    limit = max(_WIDEST * (point.high - point.low) for point in last.values()) * scale.factor
    centre = [scale.factor * point.value for point in last.values()]
    floor, ceiling = min(0.0, *centre) - limit / 2, max(0.0, *centre) + limit / 2
    rows = [
        {
            "at": point.at.isoformat(),
            "when": f"{point.at:%Y-%m-%d %H:%M}",
            "variant": point.variant,
            "value": min(max(scale.factor * point.value, floor), ceiling),
            "low": max(scale.factor * point.low, floor),
            "high": min(scale.factor * point.high, ceiling),
            "told": wording.change(point.value, point.low, point.high, metric.format).told(scale.unit),
            "units": point.units,
        }
        for point in result.series
    ]
    panels = [
        _series_panel([row for row in rows if row["variant"] == key], key, metric, scale, (floor, ceiling))
        for key in last
    ]
    return alt.vconcat(*panels, spacing=18)


def units(result: AnalysisResult) -> alt.LayerChart:
    """Draw the exposed units of every variant, with a stroke where the plan has them."""
    total = sum(result.units.values())
    rows: list[dict[str, Any]] = [
        {
            "variant": wording.variant_name(key, result.control),
            "units": count,
            "planned": total * result.planned_shares.get(key, 0.0),
            "told": _units_told(count, total, result.planned_shares.get(key, 0.0)),
        }
        for key, count in result.units.items()
    ]
    y = row_axis("variant", [row["variant"] for row in rows])
    most = max(1.0, *(max(row["units"], row["planned"]) for row in rows))
    x = alt.X(
        "units:Q",
        title="units",
        axis=alt.Axis(tickCount=5, format=",d"),
        scale=alt.Scale(domain=[0.0, most], nice=True),
    )
    base = chart(rows)
    bars = base.mark_bar(color=TONES["open"], height={"band": 0.6}).encode(
        x=x, y=y, tooltip=["variant:N", "told:N"]
    )
    plan = base.mark_tick(color=TONES["bad"], thickness=3, opacity=1.0, height={"band": 0.9}).encode(
        x="planned:Q", y=y
    )
    return alt.LayerChart(
        layer=[bars, plan, beside(base, y)],
        width=WIDTH,
        height=alt.Step(ROW_HEIGHT),
        title=title("Units against the plan", "bars: exposed units; strokes: what the weights planned"),
    )


def response_times(histograms: Sequence[Histogram]) -> alt.LayerChart | None:
    """Draw how the response times of the variants are spread, one line each, in the order given.

    None without any event. Raises `InvalidInputError` for a histogram whose edges and counts do not fit.
    """
    rows = [row for histogram in histograms for row in _steps(histogram)]
    if not rows:
        return None
    keys = list(dict.fromkeys(row["variant"] for row in rows))
    scale = alt.Scale(domain=keys, range=[VARIANTS[at % len(VARIANTS)] for at in range(len(keys))])
    colour = alt.Color("variant:N", title=None, scale=scale)
    base = chart(rows).encode(x=alt.X("seconds:Q", title="seconds", axis=alt.Axis(grid=False)))
    density = alt.Y("density:Q", title="share of events per second", stack=None)
    areas = base.mark_area(interpolate="step-after", opacity=0.12).encode(y=density, color=colour)
    lines = base.mark_line(interpolate="step-after", strokeWidth=1.5).encode(
        y=density, color=colour, tooltip=["variant:N", "seconds:Q", alt.Tooltip("density:Q", format=".3")]
    )
    return alt.LayerChart(
        layer=[areas, lines],
        width=WIDTH,
        height=_SERIES_HEIGHT,
        title=title("Response time", "how the single events are spread"),
    )


def _units_told(count: int, total: int, planned: float) -> str:
    share = 100 * count / total if total else 0.0
    return f"{count:,} ({share:.1f} %, planned {100 * planned:.1f} %)"


def _series_panel(
    rows: list[dict[str, Any]], key: str, metric: MetricAnalysis, scale: Scaled, ends: tuple[float, float]
) -> alt.LayerChart:
    base = chart(rows).encode(
        x=alt.X(
            "at:T",
            title="UTC",
            scale=alt.Scale(type="utc"),
            axis=alt.Axis(grid=False, tickCount=10, format=_day_or_hour(rows), labelOverlap=True),
        )
    )
    unit = f" ({scale.unit})" if scale.unit else ""
    y = alt.Y("low:Q", title=f"difference{unit}", scale=alt.Scale(domain=ends, nice=False))
    zero = chart([{}]).mark_rule(strokeDash=[2, 2]).encode(y=alt.datum(0.0))
    # an area of one look has no width
    marked = base.mark_area if len(rows) > 1 else base.mark_rule
    band = marked(opacity=0.25, color=VARIANTS[1]).encode(y=y, y2="high:Q")
    line = base.mark_line(color=VARIANTS[1], point={"size": 16, "color": VARIANTS[1]}).encode(
        y="value:Q",
        tooltip=[
            alt.Tooltip("when:N", title="at (UTC)"),
            alt.Tooltip("told:N", title=scale.title),
            alt.Tooltip("units:Q", format=","),
        ],
    )
    note = f"{wording.metric_note(metric)}; what each look would have shown"
    return alt.LayerChart(
        layer=[band, zero, line],
        width=WIDTH,
        height=_SERIES_HEIGHT,
        title=title(f"{metric.label}: {key} over time", note),
    )


def _day_or_hour(rows: list[dict[str, Any]]) -> str:
    days = {row["when"][:10] for row in rows}
    return "%-d %b" if len(days) > 3 else "%-d %b %H:%M"


def _steps(histogram: Histogram) -> list[dict[str, Any]]:
    """Return the outline of a histogram, closed on the right; empty where it has no events."""
    if not sum(histogram.counts):
        return []
    heights = [*histogram.densities(), 0.0]
    return [
        {"variant": histogram.variant, "seconds": edge, "density": height}
        for edge, height in zip(histogram.edges, heights, strict=True)
    ]
