"""Values as they are typed, and intervals as they are drawn."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptab.cli.arguments import actor_or_user, read_file, read_json, read_numbers, read_time, read_values
from promptab.cli.interval_plot import ASCII, UNICODE, Interval, draw_intervals
from promptab.errors import InvalidInputError

NOW = datetime(2025, 6, 30, 12, tzinfo=UTC)


def test_values_are_texts_unless_the_key_says_json() -> None:
    pairs = ["a=1", "b:=1", "c:=[1, null]", "d=", "e=x=y", 'f:="1"']
    assert read_values("--var", pairs) == {"a": "1", "b": 1, "c": [1, None], "d": "", "e": "x=y", "f": "1"}


@pytest.mark.parametrize("pair", ["novalue", "=1", ""])
def test_a_pair_without_key_or_value_is_refused(pair: str) -> None:
    with pytest.raises(InvalidInputError, match="KEY=VALUE"):
        read_values("--var", [pair])


def test_numbers_are_numbers() -> None:
    assert read_numbers("--metric", ["a=1", "b=-2.5e3"]) == {"a": 1.0, "b": -2500.0}
    with pytest.raises(InvalidInputError, match=r"--metric a: 'many' is not a number"):
        read_numbers("--metric", ["a=many"])


def test_json_that_is_nested_without_end_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="JSON"):
        read_json("--config", "[" * 200_000)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc\xff")
    with pytest.raises(InvalidInputError, match="UTF-8 text \\(byte 3\\)"):
        read_file("--file", tmp_path / "a")
    with pytest.raises(InvalidInputError, match="No such file"):
        read_file("--file", tmp_path / "b")


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2025-06-30T14:00", datetime(2025, 6, 30, 14, tzinfo=UTC)),
        ("2025-06-30", datetime(2025, 6, 30, tzinfo=UTC)),
        ("2025-06-30T14:00Z", datetime(2025, 6, 30, 14, tzinfo=UTC)),
        ("2025-06-30T14:00+02:00", datetime(2025, 6, 30, 14, tzinfo=timezone(timedelta(hours=2)))),
        ("30m", NOW - timedelta(minutes=30)),
        ("12h", NOW - timedelta(hours=12)),
        ("7d", NOW - timedelta(days=7)),
        ("2w", NOW - timedelta(weeks=2)),
    ],
)
def test_a_time_is_iso_8601_or_a_span_before_now(text: str, time: datetime) -> None:
    assert read_time("--at", text, now=NOW) == time


@pytest.mark.parametrize("text", ["", "soon", "7", "-1h", "2025-13-01", "1y"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="--at"):
        read_time("--at", text, now=NOW)


def test_a_span_beyond_the_calendar_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="2000 years"):
        read_time("--at", "999999w", now=NOW)


def test_the_actor_is_the_user_of_the_machine_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ada")
    assert (actor_or_user(None), actor_or_user("Grace")) == ("ada", "Grace")


def test_the_actor_may_be_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    # nature has no user without a name on a machine where tests run
    monkeypatch.setattr(getpass, "getuser", nobody)
    assert actor_or_user(None) is None


def test_intervals_are_drawn_on_one_scale() -> None:
    drawn = draw_intervals([Interval(0.0, 5.0, 10.0), Interval(5.0, 7.5, 10.0)], width=21)
    assert drawn == ["├─────────●─────────┤", "          ├────●────┤"]


def test_a_mark_is_drawn_behind_and_is_on_the_scale() -> None:
    drawn = draw_intervals(
        [Interval(1.0, 1.5, 2.0), Interval(None, None, None)], width=5, mark=0.0, strokes=ASCII
    )
    assert drawn == [": [o]", ":"]


def test_an_estimate_without_interval_is_a_point() -> None:
    assert draw_intervals([Interval(None, 1.0, None), Interval(0.0, 0.0, 0.0)], width=3) == ["  ●", "●"]
    assert draw_intervals([Interval(None, 1.0, None)], width=5) == ["  ●"]
    assert draw_intervals([Interval(None, None, None)], width=5) == [""]


bounds = st.one_of(st.none(), st.floats(allow_nan=False))


@given(
    st.lists(
        st.builds(Interval, bounds, st.floats(allow_nan=False, allow_infinity=False), bounds), max_size=5
    ),
    st.integers(0, 60),
    st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)),
)
def test_every_drawing_fits_its_width(intervals: list[Interval], width: int, mark: float | None) -> None:
    drawn = draw_intervals(intervals, width=width, mark=mark)
    assert len(drawn) == len(intervals)
    assert all(len(line) <= width for line in drawn)
    if width:
        assert all(line.count(UNICODE.point) == 1 for line in drawn)
