"""What people see of an analysis: the verdict, the numbers with their intervals drawn, the checks, the caution."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from rich.table import Table
from rich.text import Text

from promptab.analysis import wording
from promptab.analysis.result import (
    AnalysisResult,
    Check,
    MetricAnalysis,
    Safety,
    SegmentAnalysis,
    SeriesPoint,
)
from promptab.cli.interval_plot import ASCII, UNICODE, Interval, Strokes, draw_intervals
from promptab.cli.wording import moment

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

_STYLES: Mapping[wording.Tone, str] = {"good": "green", "bad": "red", "open": "yellow"}
_SAFETY: Mapping[Safety, tuple[str, str]] = {
    "pass": ("ok", "green"),
    "fail": ("FAILED", "bold red"),
    "undecided": ("open", "yellow"),
}
_GAP = 2
_NAME_COLUMNS = 24
_SHORT_NAME_COLUMNS = 16
_FEWEST_NAME_COLUMNS = 12
_MOST_PLOT_COLUMNS = 40
_FEWEST_PLOT_COLUMNS = 16
_MOST_POINTS = 30
_INSTANT = timedelta(microseconds=1)
"""Midnight is the end of the day before."""


class _Line(NamedTuple):
    """One row: the texts of its cells, and the interval to be drawn below its difference."""

    name: str
    units: str
    estimate: str
    change: wording.Change | None
    unit: str
    interval: Interval
    numbers: tuple[str, ...]
    """Lift, then what the verdict rests on."""
    verdict: str
    tone: wording.Tone | None

    @property
    def shortest(self) -> str:
        """The difference without its interval."""
        return "" if self.change is None else self.change._replace(interval="").told(self.unit)

    @property
    def ends(self) -> tuple[str, ...]:
        """The interval, cut where it may be folded."""
        low, to, high = ("" if self.change is None else self.change.interval).partition(" to ")
        return low + to.rstrip(), high


class AnalysisView:
    """An analysis on a console, as wide as there is room: the verdict first, then what it rests on."""

    def __init__(self, result: AnalysisResult) -> None:
        self._result = result

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        result = self._result
        yield from _verdict(result)
        blocks = [(_heading(metric), _lines(result, metric), metric) for metric in result.metrics.values()]
        segments = [
            (_segment_heading(segment), _lines(result, segment.analysis)) for segment in result.segments
        ]
        every = [line for _, lines, _ in blocks for line in lines]
        every += [line for _, lines in segments for line in lines]
        layout = _Layout(options, result, every)
        yield Text()
        for number, (heading, lines, metric) in enumerate(blocks):
            yield from _block(layout, heading, lines, headed=number == 0)
            if metric.role == "primary":
                yield from _sentences(result, metric)
        if wording.has_adjusted_p(result):
            yield Text(wording.ADJUSTED_NOTE, style="dim")
        yield from _guards(result)
        yield from _checks(result.checks)
        if segments:
            yield Text("\nSegments (exploratory)", style="bold")
            for number, (heading, lines) in enumerate(segments):
                yield from _block(layout, heading, lines, headed=number == 0)
            yield Text(wording.EXPLORATORY, style="dim")
        if result.series:
            yield from _series(options, result)
        yield Text(f"\n{result.caution}", style="dim")


def _verdict(result: AnalysisResult) -> Iterator[Text]:
    yield Text(f"{wording.headline(result)}.", style="bold" if result.winner is None else "bold green")
    yield Text(result.reason)
    yield Text(f"{result.experiment}, {wording.circumstances(result)}", style="dim")


def _heading(metric: MetricAnalysis) -> Text:
    return Text.assemble((metric.label, "bold"), (f" ({wording.metric_note(metric)})", "dim"))


def _segment_heading(segment: SegmentAnalysis) -> Text:
    title, note = wording.segment_title(segment), wording.segment_note(segment)
    return Text.assemble((title, "bold"), (f" ({note})", "dim"))


def _lines(result: AnalysisResult, metric: MetricAnalysis) -> list[_Line]:
    lines = []
    unit = wording.change_unit(metric.format)
    for key, estimate in metric.estimates.items():
        low, high = estimate.low, estimate.high
        width = None if low is None or high is None else (high - low) / 2
        name = wording.variant_name(key, result.control)
        units, value = f"{estimate.units:,}", wording.measure(estimate.value, metric.format, width=width)
        difference = metric.differences.get(key)
        if difference is None:
            lines.append(_Line(name, units, value, None, "", Interval(None, None, None), (), "", None))
            continue
        for row in wording.comparison_rows(difference, metric.format, result.method):
            if row.note:
                name, units, value = row.note, "", ""
            low, middle, high = row.ends
            change = wording.change(middle, low, high, metric.format)
            numbers = (row.lift, *row.evidence)
            lines.append(
                _Line(
                    name,
                    units,
                    value,
                    change,
                    unit,
                    Interval(low, middle, high),
                    numbers,
                    row.verdict,
                    row.tone,
                )
            )
    return lines


class _Layout:
    """The columns of every block: as wide as all of them need, so that they stand below one another.

    Where there is not room for all, the units go first, then names are folded, and then the lift goes.
    """

    def __init__(self, options: ConsoleOptions, result: AnalysisResult, lines: Sequence[_Line]) -> None:
        self.strokes = _strokes(options)
        headers = ("lift", *wording.evidence_headers(result.method))
        widths = [
            max(len(header), *(len(line.numbers[at]) for line in lines if line.numbers))
            for at, header in enumerate(headers)
        ]
        name = min(_NAME_COLUMNS, max(7, *(len(line.name) for line in lines if line.units)))
        words = [word for line in lines for word in line.verdict.split()]
        self.estimate = max(8, *(len(line.estimate) for line in lines))
        self.verdict = max(7, *map(len, words), 0)
        units = max(5, *(len(line.units) for line in lines))
        # an interval may be folded after its "to", but no number is
        pieces = [piece for line in lines for piece in (line.shortest, *line.ends)]
        needed = max(_FEWEST_PLOT_COLUMNS, *map(len, pieces))

        def left(*others: int) -> int:
            return options.max_width - sum(others) - _GAP * len(others) - self.verdict

        fixed = (name, self.estimate)
        self.has_units = left(units, *fixed, *widths) - _GAP >= needed
        self.has_lift = left(min(name, _SHORT_NAME_COLUMNS), self.estimate, *widths) - _GAP >= needed
        self.numbers = dict(zip(headers, widths, strict=True))
        if not self.has_lift:
            del self.numbers["lift"]
        self.units = units
        others = [self.estimate, *self.numbers.values(), *([units] if self.has_units else [])]
        self.name = max(_FEWEST_NAME_COLUMNS, min(name, left(*others, needed) - _GAP))
        self.plot = min(_MOST_PLOT_COLUMNS, max(_FEWEST_PLOT_COLUMNS, left(self.name, *others) - _GAP))

    def table(self, *, headed: bool) -> Table:
        made = Table(
            box=None, show_header=headed, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="dim"
        )
        made.add_column("variant", width=self.name, overflow="fold")
        if self.has_units:
            made.add_column("units", width=self.units, justify="right")
        made.add_column("estimate", width=self.estimate, justify="right")
        made.add_column("difference", width=self.plot, overflow="fold")
        for header, width in self.numbers.items():
            made.add_column(header, width=width, justify="right", no_wrap=True)
        made.add_column("verdict", width=self.verdict, overflow="fold")
        return made

    def cells(self, line: _Line, plot: str) -> list[Text]:
        style = "" if line.tone is None else _STYLES[line.tone]
        numbers = line.numbers[0 if self.has_lift else 1 :] or ("",) * len(self.numbers)
        return [
            Text(line.name, style="dim" if line.tone is not None and not line.units else ""),
            *([Text(line.units)] if self.has_units else []),
            Text(line.estimate),
            self._change(line, plot, style),
            *map(Text, numbers),
            Text(line.verdict, style=style),
        ]

    def _change(self, line: _Line, plot: str, style: str) -> Text:
        """Return the difference, on one line or two as there is room, and its drawing."""
        if line.change is None:
            return Text("")
        told = line.change.told(line.unit)
        if len(told) > self.plot:
            told = f"{line.shortest}\n{line.change.interval}"
        return Text.assemble(told, ("\n" + plot if plot else "", style))


def _strokes(options: ConsoleOptions) -> Strokes:
    return ASCII if options.ascii_only else UNICODE


def _block(
    layout: _Layout, heading: Text, lines: Sequence[_Line], *, headed: bool
) -> Iterator[RenderableType]:
    plots = draw_intervals(
        [line.interval for line in lines], width=layout.plot, mark=0.0, strokes=layout.strokes
    )
    rows = layout.table(headed=headed)
    for line, plot in zip(lines, plots, strict=True):
        rows.add_row(*layout.cells(line, plot if line.interval.value is not None else ""))
    yield heading
    yield rows


def _sentences(result: AnalysisResult, metric: MetricAnalysis) -> Iterator[Text]:
    """Yield what the reason has not said yet."""
    for difference in metric.differences.values():
        if difference.sentence not in result.reason:
            yield Text(difference.sentence)
    if (best := wording.best_of_all(metric)) is not None:
        yield Text(best)


def _checks(checks: Sequence[Check]) -> Iterator[RenderableType]:
    if not checks:
        return
    yield Text("\nChecks", style="bold")
    rows = Table.grid(padding=(0, _GAP, 0, 0))
    rows.add_column(no_wrap=True)
    rows.add_column(no_wrap=True)
    rows.add_column(overflow="fold")
    for check in checks:
        state = Text("ok", style="green") if check.passed else Text("FAILED", style="bold red")
        rows.add_row(state, wording.check_title(check.name), check.detail)
    yield rows


def _guards(result: AnalysisResult) -> Iterator[RenderableType]:
    """Yield where each guardrail of the policy stands, for each variant."""
    if not result.guards:
        return
    yield Text("\nGuardrails", style="bold")
    rows = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="dim")
    rows.add_column("", no_wrap=True)
    rows.add_column("guardrail", overflow="fold")
    rows.add_column("variant", overflow="fold", max_width=_SHORT_NAME_COLUMNS)
    for header in ("units", "value", "control", "p", "fails at"):
        rows.add_column(header, justify="right", no_wrap=True)
    for guard in result.guards:
        told, style = _SAFETY[guard.verdict]
        unit = result.metrics[guard.metric].format
        rows.add_row(
            Text(told, style=style),
            guard.guardrail,
            guard.variant,
            f"{guard.units:,}",
            wording.measure(guard.value, unit),
            "" if guard.control is None else wording.measure(guard.control, unit),
            wording.probability(guard.p_value),
            f"{guard.alpha:.2g}",
        )
    yield rows


def _series(options: ConsoleOptions, result: AnalysisResult) -> Iterator[RenderableType]:
    metric = result.metrics[result.primary_metric]
    for key in metric.differences:
        points = [point for point in result.series if point.variant == key]
        shown = points[-_MOST_POINTS:]
        if not shown:
            continue
        more = f", the last {len(shown)} of {len(points)} looks" if len(points) > len(shown) else ""
        unit = wording.change_unit(metric.format)
        counts = f"units of both, difference in {unit}" if unit else "units of both, difference"
        yield Text(f"\n{metric.label}: {key} over time ({counts}{more})", style="bold")
        intervals = [Interval(point.low, point.value, point.high) for point in shown]
        told = [wording.change(point.value, point.low, point.high, metric.format).told("") for point in shown]
        columns = list(_moments(shown)), [f"{point.units:,}" for point in shown], told
        room = options.max_width - 3 * _GAP - sum(max(map(len, column)) for column in columns)
        plots = draw_intervals(
            intervals,
            width=min(_MOST_PLOT_COLUMNS, max(_FEWEST_PLOT_COLUMNS, room)),
            mark=0.0,
            strokes=_strokes(options),
        )
        rows = Table.grid(padding=(0, _GAP, 0, 0))
        for justify in ("left", "right", "left", "left"):
            rows.add_column(justify=justify, no_wrap=True)
        for when, units, plot, change in zip(*columns[:2], plots, told, strict=True):
            rows.add_row(when, units, plot, change)
        yield rows


def _moments(points: Sequence[SeriesPoint]) -> Iterator[str]:
    """Yield the days that the looks were at the end of, or the hours where there are several looks a day."""
    days = [(point.at - _INSTANT).date() for point in points]
    if len(set(days)) == len(days):
        yield from map(str, days)
    else:
        yield from (moment(point.at)[:16] for point in points)
