"""An analysis as HTML: the table with its intervals drawn, without any library. What a notebook shows of a
result, and what the HTML report is built around.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

from promptab.analysis import wording
from promptab.analysis.result import AnalysisResult, Check, MetricAnalysis

STYLE = """
.promptab { --good: #0072b2; --bad: #d55e00; --open: #808080; font-variant-numeric: tabular-nums; }
.promptab table { border-collapse: collapse; margin: 0.5em 0; }
.promptab th, .promptab td { padding: 0.25em 0.75em 0.25em 0; text-align: left; vertical-align: middle;
  border-bottom: 1px solid rgba(128, 128, 128, 0.3); background: none; }
.promptab th.metric { padding-top: 0.75em; }
.promptab td.number, .promptab th.number { text-align: right; white-space: nowrap; }
.promptab td.variant { overflow-wrap: anywhere; min-width: 9em; max-width: 22em; }
.promptab td.good, .promptab strong.good { color: var(--good); font-weight: 600; }
.promptab td.bad, .promptab strong.bad { color: var(--bad); font-weight: 600; }
.promptab .quiet { opacity: 0.75; font-weight: normal; }
.promptab svg.interval { display: block; overflow: visible; }
.promptab tr.good .mark { stroke: var(--good); fill: var(--good); }
.promptab tr.bad .mark { stroke: var(--bad); fill: var(--bad); }
""".strip()
"""Colours that can be told apart by all eyes and read on light and on dark; words say the same beside them."""

_COLOURS: Mapping[wording.Tone, str] = {"good": "#0072b2", "bad": "#d55e00", "open": "#808080"}
_DRAWN_WIDTH = 180
_DRAWN_HEIGHT = 14


def result_html(result: AnalysisResult) -> str:
    """Return a fragment that stands alone: verdict, checks that failed, the table, segments, caution."""
    failed = checks_list(result.failed_checks()) if result.failed_checks() else ""
    return (
        f'<div class="promptab"><style>{STYLE}</style>'
        f'<p><strong>{_text(result.experiment)}</strong> <span class="quiet">{_text(wording.circumstances(result))}'
        f"</span></p>{verdict_paragraph(result)}{failed}"
        f"{metrics_table(result)}{segments_table(result)}"
        f'<p class="quiet">{_text(result.caution)}</p></div>'
    )


def verdict_paragraph(result: AnalysisResult) -> str:
    colour = "quiet" if result.winner is None else "good"
    return (
        f'<p><strong class="{colour}">{_text(wording.headline(result))}.</strong> {_text(result.reason)}</p>'
    )


def checks_list(checks: Iterable[Check]) -> str:
    items = "".join(
        f'<li><strong class="{"good" if check.passed else "bad"}">{wording.check_title(check.name)}: '
        f"{'ok' if check.passed else 'failed'}.</strong> {_text(check.detail)}</li>"
        for check in checks
    )
    return f"<ul>{items}</ul>"


def metrics_table(result: AnalysisResult) -> str:
    """Return the table of all metrics: a row per variant, and a second one where it is adjusted for history."""
    blocks = [(metric.label, wording.metric_note(metric), metric) for metric in result.metrics.values()]
    note = f'<p class="quiet">{wording.ADJUSTED_NOTE}</p>' if wording.has_adjusted_p(result) else ""
    best = wording.best_of_all(result.metrics[result.primary_metric])
    chances = "" if best is None else f'<p class="quiet">{_text(best)}</p>'
    return f"{_table(result, blocks)}{chances}{note}"


def segments_table(result: AnalysisResult) -> str:
    """Return the segments with the primary metric in each; nothing where none were asked for."""
    if not result.segments:
        return ""
    blocks = [
        (wording.segment_title(segment), wording.segment_note(segment), segment.analysis)
        for segment in result.segments
    ]
    return f'<p class="quiet">{_text(wording.EXPLORATORY)}</p>{_table(result, blocks)}'


def _table(result: AnalysisResult, blocks: Iterable[tuple[str, str, MetricAnalysis]]) -> str:
    """Return a table of blocks: title, note, and the metric below them."""
    numbers = ("lift", *wording.evidence_headers(result.method))
    interval = f"difference ({100 * result.confidence:g} % interval)"
    counted = ("units", "estimate", interval, "", *numbers)
    head = "".join(f'<th class="number">{header}</th>' for header in counted)
    columns = 6 + len(numbers)
    rows = "".join(
        f'<tr><th class="metric" colspan="{columns}">{_text(title)} <span class="quiet">{_text(note)}</span></th></tr>'
        f"{_metric_rows(result, metric, columns)}"
        for title, note, metric in blocks
    )
    return (
        f"<table><thead><tr><th>variant</th>{head}<th>verdict</th></tr></thead><tbody>{rows}</tbody></table>"
    )


def _metric_rows(result: AnalysisResult, metric: MetricAnalysis, columns: int) -> str:
    rows = []
    for key, estimate in metric.estimates.items():
        low, high = estimate.low, estimate.high
        width = None if low is None or high is None else (high - low) / 2
        name = _text(wording.variant_name(key, result.control))
        cells = (
            f'<td class="variant">{name}</td><td class="number">{estimate.units:,}</td>'
            f'<td class="number">{wording.measure(estimate.value, metric.format, width=width)}</td>'
        )
        difference = metric.differences.get(key)
        if difference is None:
            rows.append(f"<tr>{cells}{'<td></td>' * (columns - 3)}</tr>")
            continue
        for row in wording.comparison_rows(difference, metric.format, result.method):
            if row.note:
                cells = f'<td class="quiet" colspan="3">{_text(row.note)}</td>'
            rows.append(_row(row, cells, metric, difference.sentence))
    return "".join(rows)


def _row(row: wording.ComparisonRow, cells: str, metric: MetricAnalysis, sentence: str) -> str:
    numbers = "".join(f'<td class="number">{_text(number)}</td>' for number in (row.lift, *row.evidence))
    return (
        f'<tr class="{row.tone}" title="{_text(sentence)}">{cells}{_change_cells(row, metric)}{numbers}'
        f'<td class="{row.tone}">{_text(row.verdict)}</td></tr>'
    )


def _change_cells(row: wording.ComparisonRow, metric: MetricAnalysis) -> str:
    low, value, high = row.ends
    told = wording.change(value, low, high, metric.format).told(wording.change_unit(metric.format))
    return f'<td class="number">{_text(told)}</td><td>{_drawn(row, _scale(metric))}</td>'


def _scale(metric: MetricAnalysis) -> tuple[float, float]:
    """Return the least and the largest number that a drawing of this metric has to hold, zero among them."""
    every = [0.0]
    for difference in metric.differences.values():
        for shown in (difference, difference.adjusted):
            if shown is not None:
                every.extend(end for end in (shown.low, shown.value, shown.high) if end is not None)
    return min(every), max(every)


def _drawn(row: wording.ComparisonRow, scale: tuple[float, float]) -> str:
    """Return the interval as a picture, with zero marked; empty where there is nothing to draw."""
    low, value, high = row.ends
    if value is None or scale[0] == scale[1]:
        return ""

    def x(number: float) -> str:
        # halved before it is subtracted: the difference of two large numbers may overflow
        share = (number / 2 - scale[0] / 2) / (scale[1] / 2 - scale[0] / 2)
        return f"{4 + share * (_DRAWN_WIDTH - 8):.1f}"

    # as attributes, which hold where a viewer drops the style
    paint = f'class="mark" stroke="{_COLOURS[row.tone]}" fill="{_COLOURS[row.tone]}"'
    middle = _DRAWN_HEIGHT // 2
    line = ""
    if low is not None and high is not None:
        line = f'<line {paint} x1="{x(low)}" x2="{x(high)}" y1="{middle}" y2="{middle}" stroke-width="2"/>'
    zero = f'<line x1="{x(0.0)}" x2="{x(0.0)}" y1="0" y2="{_DRAWN_HEIGHT}" stroke="#808080" stroke-dasharray="2 2"/>'
    return (
        f'<svg class="interval" width="{_DRAWN_WIDTH}" height="{_DRAWN_HEIGHT}" aria-hidden="true" '
        f'viewBox="0 0 {_DRAWN_WIDTH} {_DRAWN_HEIGHT}">'
        f'{zero}{line}<circle {paint} cx="{x(value)}" cy="{middle}" r="3.5"/></svg>'
    )


def _text(value: str) -> str:
    return escape(value, quote=True)
