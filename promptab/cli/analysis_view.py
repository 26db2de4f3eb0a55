"""What people see of an analysis: the verdict, the numbers with their intervals drawn, the checks, the caution."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from rich.table import Table
from rich.text import Text

from promptab.analysis import wording
from promptab.analysis.result import AnalysisResult, Check, MetricAnalysis, SegmentAnalysis, SeriesPoint
from promptab.cli.interval_plot import ASCII, UNICODE, Interval, draw_intervals
from promptab.cli.wording import counted, moment

if TYPE_CHECKING:
    from rich.console import Console

_STYLES: Mapping[wording.Tone, str] = {"good": "green", "bad": "red", "open": "yellow"}
_GAP = 2
_NAME_COLUMNS = 24
_SHORT_NAME_COLUMNS = 16
_FEWEST_NAME_COLUMNS = 12
_MOST_PLOT_COLUMNS = 40
_FEWEST_PLOT_COLUMNS = 16
_MOST_POINTS = 30


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


def print_analysis(to: Console, result: AnalysisResult) -> None:
    """Print the verdict first, then what it rests on."""
    _print_verdict(to, result)
    blocks = [(_heading(metric), _lines(result, metric), metric) for metric in result.metrics.values()]
    segments = [
        (_segment_heading(segment), _lines(result, segment.analysis), segment.analysis)
        for segment in result.segments
    ]
    layout = _Layout(to, result, [line for _, lines, _ in (*blocks, *segments) for line in lines])
    to.print()
    for number, (heading, lines, metric) in enumerate(blocks):
        _print_block(to, layout, heading, lines, headed=number == 0)
        if metric.role == "primary":
            _print_sentences(to, result, metric)
    if wording.has_adjusted_p(result):
        to.print(wording.ADJUSTED_NOTE, style="dim")
    _print_checks(to, result.checks)
    if segments:
        to.print("\nSegments (exploratory)", style="bold")
        for number, (heading, lines, _) in enumerate(segments):
            _print_block(to, layout, heading, lines, headed=number == 0)
        to.print(wording.EXPLORATORY, style="dim")
    if result.series:
        _print_series(to, result)
    to.print()
    to.print(result.caution, style="dim")


def _print_verdict(to: Console, result: AnalysisResult) -> None:
    to.print(f"{wording.headline(result)}.", style="bold" if result.winner is None else "bold green")
    to.print(result.reason)
    since = "" if result.since is None else f", units first exposed since {moment(result.since)}"
    units = counted(sum(result.units.values()), "unit")
    to.print(
        f"{result.experiment}, {result.method} analysis of {units} as of {moment(result.at)} UTC{since}; "
        f"{100 * result.confidence:g} % intervals of differences to {result.control} (control)",
        style="dim",
    )


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

    def __init__(self, to: Console, result: AnalysisResult, lines: Sequence[_Line]) -> None:
        self.strokes = ASCII if to.options.ascii_only else UNICODE
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
            return to.width - sum(others) - _GAP * len(others) - self.verdict

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


def _print_block(
    to: Console, layout: _Layout, heading: Text, lines: Sequence[_Line], *, headed: bool
) -> None:
    plots = draw_intervals(
        [line.interval for line in lines], width=layout.plot, mark=0.0, strokes=layout.strokes
    )
    rows = layout.table(headed=headed)
    for line, plot in zip(lines, plots, strict=True):
        rows.add_row(*layout.cells(line, plot if line.interval.value is not None else ""))
    to.print(heading)
    to.print(rows)


def _print_sentences(to: Console, result: AnalysisResult, metric: MetricAnalysis) -> None:
    for difference in metric.differences.values():
        if difference.sentence not in result.reason:
            to.print(difference.sentence)


def _print_checks(to: Console, checks: Sequence[Check]) -> None:
    if not checks:
        return
    to.print("\nChecks", style="bold")
    rows = Table.grid(padding=(0, _GAP, 0, 0))
    rows.add_column(no_wrap=True)
    rows.add_column(no_wrap=True)
    rows.add_column(overflow="fold")
    for check in checks:
        state = Text("ok", style="green") if check.passed else Text("FAILED", style="bold red")
        rows.add_row(state, wording.check_title(check.name), check.detail)
    to.print(rows)


def _print_series(to: Console, result: AnalysisResult) -> None:
    metric = result.metrics[result.primary_metric]
    strokes = ASCII if to.options.ascii_only else UNICODE
    for key in metric.differences:
        points = [point for point in result.series if point.variant == key]
        shown = points[-_MOST_POINTS:]
        if not shown:
            continue
        more = f", the last {len(shown)} of {len(points)} looks" if len(points) > len(shown) else ""
        unit = wording.change_unit(metric.format)
        counts = f"units of both, difference in {unit}" if unit else "units of both, difference"
        to.print(f"\n{metric.label}: {key} over time ({counts}{more})", style="bold")
        intervals = [Interval(point.low, point.value, point.high) for point in shown]
        told = [wording.change(point.value, point.low, point.high, metric.format).told("") for point in shown]
        room = to.width - 10 - 6 - max(map(len, told)) - max(len(f"{point.units:,}") for point in shown)
        plots = draw_intervals(
            intervals,
            width=min(_MOST_PLOT_COLUMNS, max(_FEWEST_PLOT_COLUMNS, room)),
            mark=0.0,
            strokes=strokes,
        )
        rows = Table.grid(padding=(0, _GAP, 0, 0))
        for justify in ("left", "right", "left", "left"):
            rows.add_column(justify=justify, no_wrap=True)
        for when, point, plot, change in zip(_moments(shown), shown, plots, told, strict=True):
            rows.add_row(when, f"{point.units:,}", plot, change)
        to.print(rows)


def _moments(points: Sequence[SeriesPoint]) -> Iterator[str]:
    """Yield the days, or the hours of looks that are less than a day apart."""
    days = {point.at.date() for point in points}
    for point in points:
        yield moment(point.at)[: 10 if len(days) == len(points) else 16]
