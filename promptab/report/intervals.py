"""The chart of an analysis: every difference to the control with its interval, metric by metric."""

from __future__ import annotations

from typing import Any

import altair as alt

from promptab.analysis import wording
from promptab.analysis.result import AnalysisResult, MetricAnalysis, VariantDifference
from promptab.report.drawing import (
    Scaled,
    beside,
    chart,
    difference_scale,
    domain,
    row_axis,
    title,
    zero_line,
)
from promptab.report.theme import ROW_HEIGHT, SHAPES, TONES, WIDTH


def intervals(result: AnalysisResult) -> alt.VConcatChart | None:
    """Draw every difference to the control with its interval, metric by metric, around zero.

    A metric is drawn by its relative lift where every variant has one with an interval, else by its difference;
    the largest tolerated regression of a guardrail is marked. None without any difference to draw.
    """
    panels = [
        panel for metric in result.metrics.values() if (panel := _interval_panel(result, metric)) is not None
    ]
    return alt.vconcat(*panels, spacing=18) if panels else None


def _interval_panel(result: AnalysisResult, metric: MetricAnalysis) -> alt.LayerChart | None:
    by_lift = _has_lifts(metric)
    scale = (
        Scaled(f"lift over {result.control}", 100.0, "%")
        if by_lift
        else difference_scale(metric, result.control)
    )
    rows = [
        row
        for difference in metric.differences.values()
        for row in (_lift_rows if by_lift else _difference_rows)(result, metric, difference)
    ]
    if not rows:
        return None
    margin = _margin(result, metric, by_lift=by_lift)
    y = row_axis("row", [row["row"] for row in rows])
    base = chart(rows)
    ends = [end for row in rows for end in (row["low"], row["value"], row["high"]) if end is not None]
    held = alt.Scale(domain=domain([0.0, *ends, *([] if margin is None else [margin])]), nice=False)
    x = alt.X("low:Q", title=None, scale=held, axis=alt.Axis(tickCount=6))
    colour = alt.Color("tone:N", legend=None, scale=alt.Scale(domain=list(TONES), range=list(TONES.values())))
    shape = alt.Shape(
        "tone:N", legend=None, scale=alt.Scale(domain=list(SHAPES), range=list(SHAPES.values()))
    )
    tooltip = [alt.Tooltip("row:N", title="variant"), alt.Tooltip("told:N", title=scale.title)]
    layers: list[alt.Chart] = [
        zero_line(),
        base.mark_rule(strokeWidth=3, strokeCap="round").encode(x=x, x2="high:Q", y=y, color=colour),
        base.mark_point(filled=True, size=80, opacity=1.0).encode(
            x="value:Q", y=y, color=colour, shape=shape, tooltip=tooltip
        ),
        beside(base, y),
    ]
    note = wording.metric_note(metric)
    if margin is not None:
        line = chart([{"tolerated": margin}]).mark_rule(strokeDash=[6, 3], color=TONES["bad"])
        layers.append(line.encode(x="tolerated:Q"))
        note += f"; dashed: {margin:+.3g} {scale.unit}".rstrip() + " is the most that is tolerated"
    return alt.LayerChart(
        layer=layers,
        width=WIDTH,
        height=alt.Step(ROW_HEIGHT),
        title=title(f"{metric.label}: {scale.title}" + (f" ({scale.unit})" if scale.unit else ""), note),
    )


def _has_lifts(metric: MetricAnalysis) -> bool:
    """Whether every difference has a lift with an interval that means the same as its verdict."""
    known = [difference for difference in metric.differences.values() if difference.value is not None]
    return bool(known) and all(
        None not in {difference.lift, difference.lift_low, difference.lift_high}
        and difference.adjusted is None
        for difference in known
    )


def _lift_rows(
    result: AnalysisResult, metric: MetricAnalysis, difference: VariantDifference
) -> list[dict[str, Any]]:
    if difference.lift is None:
        return []
    shown = wording.lift_change(difference)
    (row,) = wording.comparison_rows(difference, metric.format, result.method)
    return [
        _row(
            difference.variant,
            (difference.lift_low, difference.lift, difference.lift_high),
            100.0,
            told=shown.told("%"),
            verdict=row.verdict,
            tone=row.tone,
        )
    ]


def _difference_rows(
    result: AnalysisResult, metric: MetricAnalysis, difference: VariantDifference
) -> list[dict[str, Any]]:
    scale = difference_scale(metric, result.control)
    return [
        _row(
            f"{difference.variant}, adjusted" if row.note else difference.variant,
            row.ends,
            scale.factor,
            told=wording.change(row.ends[1], row.ends[0], row.ends[2], metric.format).told(scale.unit),
            verdict=row.verdict,
            tone=row.tone,
        )
        for row in wording.comparison_rows(difference, metric.format, result.method)
        if row.ends[1] is not None
    ]


def _row(
    name: str,
    ends: tuple[float | None, float | None, float | None],
    factor: float,
    *,
    told: str,
    verdict: str,
    tone: wording.Tone,
) -> dict[str, Any]:
    low, value, high = (None if end is None else factor * end for end in ends)
    shown = f"{told}, {verdict}" if verdict else told
    return {"row": name, "low": low, "value": value, "high": high, "told": shown, "tone": tone}


def _margin(result: AnalysisResult, metric: MetricAnalysis, *, by_lift: bool) -> float | None:
    """Return where the largest tolerated regression of a guardrail is on the axis; None where there is none."""
    if metric.largest_regression is None:
        return None
    worse = -metric.largest_regression if metric.direction == "increase" else metric.largest_regression
    control = metric.estimates[result.control].value
    if by_lift == metric.relative:
        return worse * (100.0 if by_lift else difference_scale(metric, result.control).factor)
    if not control:
        return None
    if by_lift:
        return 100.0 * worse / abs(control)
    return worse * abs(control) * difference_scale(metric, result.control).factor
