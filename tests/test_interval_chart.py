"""The drawing of a metric: every estimate on the axis, and an axis with round numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptab.analysis.result import MetricAnalysis, VariantDifference, VariantEstimate
from promptab.cli.interval_chart import PLOT_COLUMNS, Row, chart, metric_charts, ticks
from promptab.cli.interval_plot import ASCII, Interval

finite = st.floats(-1e9, 1e9, allow_nan=False)


@st.composite
def intervals(draw: st.DrawFn) -> Interval:
    return Interval(*sorted(draw(st.tuples(finite, finite, finite))))


@given(low=finite, spread=st.floats(1e-3, 1e9))
def test_ticks_are_a_few_round_numbers_inside(low: float, spread: float) -> None:
    high = low + spread
    marks = ticks(low, high)
    assert 2 <= len(marks) <= 9
    margin = 1e-9 * max(abs(low), abs(high))
    assert all(low - margin <= mark <= high + margin for mark in marks)
    step = marks[1] - marks[0]
    leading = step / 10.0 ** math.floor(math.log10(step) + 1e-6)
    assert min(abs(leading - digit) for digit in (1, 2, 5, 10)) < 1e-3 * max(1.0, margin / step * 1e6)


@given(drawn=st.lists(intervals(), min_size=1, max_size=5), around_zero=st.booleans())
def test_every_line_fits_and_every_row_has_its_point(drawn: list[Interval], *, around_zero: bool) -> None:
    rows = [Row(f"v{number}", interval) for number, interval in enumerate(drawn)]
    lines = [line.plain for line in chart(rows, label_width=4, unit=" s", around_zero=around_zero)]
    assert all(len(line) <= 6 + PLOT_COLUMNS for line in lines[: len(rows)])
    assert all(line.count("●") == 1 for line in lines[: len(rows)])
    assert len(lines) in {len(rows), len(rows) + 2}


def test_points_stand_above_their_numbers() -> None:
    rows = [Row("a", Interval(0.0, 2.0, 4.0)), Row("b", Interval(6.0, 8.0, 10.2))]
    first, second, axis, numbers = (line.plain for line in chart(rows, label_width=1))
    assert first.index("●") - 3 == 10
    assert second.index("●") - 3 == 40
    for value in (2, 4, 6, 8):
        assert axis[numbers.index(str(value))] == "┬"
        assert numbers.index(str(value)) == 3 + value * 5


def comparison(low: float | None = 0.06, high: float | None = 0.16) -> MetricAnalysis:
    def estimate(key: str, value: float | None) -> VariantEstimate:
        known = low is not None and value is not None
        ends = (value - 0.02, value + 0.02) if known and value is not None else (None, None)
        return VariantEstimate(
            variant=key, value=value, se=0.01, low=ends[0], high=ends[1], units=50, events=60
        )

    difference = VariantDifference(
        variant="B",
        value=0.11,
        se=0.02,
        low=low,
        high=high,
        df=90.0,
        p_value=0.001,
        lift=0.2,
        left_out=(),
        verdict="better",
        technique="t",
        lift_low=None,
        lift_high=None,
        adjusted=None,
        probability_better=None,
        expected_loss=None,
        size=None,
        safety=None,
        sentence="B is better",
    )
    return MetricAnalysis(
        metric="success_rate",
        label="Success rate",
        direction="increase",
        format="percent",
        role="primary",
        estimates={"A": estimate("A", 0.6), "B": estimate("B", 0.71)},
        differences={"B": difference},
    )


def test_metric_is_drawn_in_percent_and_its_difference_in_points() -> None:
    lines = [line.plain for line in metric_charts(comparison(), control="A")]
    assert [line.split("  ")[0].rstrip() for line in lines if "●" in line] == [
        "A (control)",
        "B",
        "B minus A",
    ]
    assert lines[3].endswith("72 %")
    assert lines[6].endswith("+16 points")
    assert "┆" in lines[4]


def test_metric_without_intervals_is_drawn_as_points() -> None:
    lines = [line.plain for line in metric_charts(comparison(None, None), control="A")]
    assert sum(line.count("●") for line in lines) == 3
    assert not any("├" in line for line in lines)


def test_drawing_keeps_to_ascii_where_the_terminal_knows_no_more() -> None:
    lines = [line.plain for line in metric_charts(comparison(), control="A", strokes=ASCII)]
    assert all(line.isascii() for line in lines)
    assert sum("o" in line.partition("  ")[2] for line in lines[:2]) == 2


def test_metric_without_any_estimate_is_not_drawn() -> None:
    empty = comparison().model_copy(
        update={
            "estimates": {
                "A": VariantEstimate(variant="A", value=None, se=None, low=None, high=None, units=0, events=0)
            },
            "differences": {},
        }
    )
    assert metric_charts(empty, control="A") == []


@pytest.mark.parametrize("value", [0.0, 0.4, -3.0])
def test_rows_of_one_value_are_drawn_without_an_axis(value: float) -> None:
    lines = chart([Row("a", Interval(None, value, None))], label_width=1)
    assert len(lines) == 1
    assert "●" in lines[0].plain
