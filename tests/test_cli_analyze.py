"""`promptab experiment analyze` and `promptab compare`: what is printed, for people and for programs."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from rich.console import Console

from promptab.analysis import wording
from promptab.analysis.result import AnalysisResult
from promptab.cli.analysis_view import AnalysisView
from promptab.cli.output import run
from promptab.lab import Lab
from tests.command_line import Shell
from tests.html_page import Page
from tests.sample_analysis import LONG_NAMES, NOON, four_variants, two_variants
from tests.test_analysis import compared, successes

SAMPLES = {
    "two": two_variants,
    "four": four_variants,
    "bayesian": lambda: two_variants(method="bayesian"),
    "four bayesian": lambda: four_variants(method="bayesian"),
}


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    made = Shell(tmp_path, monkeypatch)
    made.make_greeting()
    made.ok("experiment", "create", "system/greeting", "--variant", "1.0.0=1", "--variant", "1.1.0=1")
    return made


def record_uses(count: int) -> None:
    """Give users an outcome each: with 1.1.0 nine in ten succeed, with 1.0.0 one in seven."""

    async def work(lab: Lab) -> None:
        for number in range(count):
            plan = "pro" if number % 3 else "free"
            choice = await lab.choose("greeting", user_id=f"u{number}", attributes={"plan": plan})
            success = number % 7 == 0 if choice.variant == "1.0.0" else number % 10 != 0
            await choice.record(success=success, response_time=0.5 + number % 5 / 10)

    run(work, url=None)


def printed(result: AnalysisResult, *, width: int = 80) -> str:
    to = Console(file=io.StringIO(), width=width, markup=False, emoji=False, highlight=False)
    to.print(AnalysisView(result))
    assert isinstance(to.file, io.StringIO)
    return to.file.getvalue()


def flowing(text: str) -> str:
    return " ".join(text.split())


def test_analyze_names_the_winner_first_with_its_reason(shell: Shell) -> None:
    record_uses(400)
    document = shell.json("experiment", "analyze", "greeting")
    assert (document["winner"], document["method"]) == ("1.1.0", "sequential")
    shown = shell.ok("experiment", "analyze", "greeting")
    assert shown.startswith("Winner: 1.1.0.\n")
    assert document["reason"] in flowing(shown)
    assert flowing(shown).endswith(document["caution"])
    assert all(
        part in shown for part in ("├", "┤", "●", "Success rate (primary, higher is better)", "Sample ratio")
    )
    assert max(map(len, shown.splitlines())) <= 80


def test_analyze_without_outcomes_says_why_there_is_no_winner(shell: Shell) -> None:
    shown = shell.ok("experiment", "analyze", "greeting")
    assert shown.startswith("No winner.\n")
    assert "FAILED  Minimum units" in shown


def test_analyze_asks_for_method_segments_series_and_metrics(shell: Shell) -> None:
    record_uses(60)
    words = ("--method", "bayesian", "--segment", "plan", "--series", "day", "--metric", "response_time")
    document = shell.json("experiment", "analyze", "greeting", *words)
    assert document["method"] == "bayesian"
    assert set(document["metrics"]) == {"success_rate", "response_time"}
    assert {segment["value"] for segment in document["segments"]} == {"free", "pro"}
    shown = shell.ok("experiment", "analyze", "greeting", *words)
    assert "plan = free (" in shown
    assert wording.EXPLORATORY in flowing(shown)
    assert "P(better)" in shown


def test_analyze_since_leaves_earlier_units_out(shell: Shell) -> None:
    record_uses(20)
    assert sum(shell.json("experiment", "analyze", "greeting", "--since", "7d")["units"].values()) == 20
    none = shell.json("experiment", "analyze", "greeting", "--since", "2190-01-01")
    assert sum(none["units"].values()) == 0


@pytest.mark.parametrize("suffix", [".html", ".svg", ".png"])
def test_analyze_writes_the_report_beside_what_it_prints(shell: Shell, suffix: str) -> None:
    record_uses(40)
    said = shell.run("experiment", "analyze", "greeting", "--output", f"report{suffix}", "--json")
    assert said.code == 0
    assert f"report written to report{suffix}" in said.err
    assert (shell.folder / f"report{suffix}").stat().st_size > 1_000


def test_report_of_an_experiment_has_the_spread_of_its_response_times_and_its_course(shell: Shell) -> None:
    record_uses(40)
    shell.ok("experiment", "analyze", "greeting", "--output", "report.html")
    page = Page((shell.folder / "report.html").read_text(encoding="utf-8"))
    figures = {attributes.get("id") for tag, attributes in page.elements if tag == "figure"}
    assert figures == {"intervals", "series", "units", "response-times"}
    assert "how the single events are spread" in page.text
    assert "Success rate: 1.1.0 over time" in page.text


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("nobody",), 3),
        (("greeting", "--method", "guess"), 2),
        (("greeting", "--series", "minute"), 2),
        (("greeting", "--since", "yesterday"), 5),
        (("greeting", "--metric", "respnse_time"), 3),
        (("nobody", "--output", "report.pdf"), 5),
        (("nobody", "--output", "no/such/folder/report.html"), 5),
    ],
)
def test_analyze_refuses_what_it_cannot_do_before_it_looks(
    shell: Shell, words: tuple[str, ...], code: int
) -> None:
    assert shell.run("experiment", "analyze", *words).code == code


def test_compare_shows_the_same_by_the_fixed_method(shell: Shell) -> None:
    record_uses(400)
    document = shell.json("compare", "greeting", "--metric", "response_time", "--confidence", "0.9")
    assert (document["method"], document["winner"], document["confidence"]) == ("fixed", "1.1.0", 0.9)
    assert shell.ok("compare", "greeting").startswith("Winner: 1.1.0.\n")
    assert shell.run("compare", "greeting", "--confidence", "2").code == 5


@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_nothing_is_cut_off_at_any_width(sample: Callable[[], AnalysisResult], width: int) -> None:
    result = sample()
    shown = printed(result, width=width)
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown
    for metric in result.metrics.values():
        for difference in metric.differences.values():
            for row in wording.comparison_rows(difference, metric.format, result.method):
                low, value, high = row.ends
                change = wording.change(value, low, high, metric.format)
                assert change.value in shown
                # where there is no room it goes on in the next line
                assert all(end in shown for end in change.interval.split(" to "))
                assert all(number in shown for number in row.evidence)


@pytest.mark.parametrize("width", [80, 100])
def test_no_word_of_a_verdict_is_broken(width: int) -> None:
    shown = printed(four_variants(), width=width)
    assert {"better", "worse", "undecided", "safe", "harmed", "shown"} <= set(shown.split())


def test_verdict_comes_first_and_failed_checks_are_loud() -> None:
    shown = printed(four_variants())
    assert shown.startswith("No winner.\nThe dealing is not what the weights say")
    assert "FAILED  Sample ratio" in shown
    assert "Segments (exploratory)" in shown
    assert "plan = (not given)" in shown


def test_adjusted_difference_stands_below_the_raw_one_and_bears_the_verdict() -> None:
    lines = printed(two_variants(), width=100).splitlines()
    raw = next(number for number, line in enumerate(lines) if "-0.000010 $" in line)
    below = next(number for number, line in enumerate(lines) if "-0.000020 $" in line)
    assert raw < below
    assert "undecided" not in lines[raw]
    assert "undecided" in lines[below]
    assert "adjusted for" in lines[below]


def test_corrected_p_value_bears_its_mark_and_the_note() -> None:
    shown = printed(two_variants())
    assert f"<0.001{wording.ADJUSTED_MARK}" in shown
    assert wording.ADJUSTED_NOTE in shown
    assert wording.ADJUSTED_NOTE not in printed(two_variants(method="bayesian"))


def test_series_is_drawn_look_by_look_for_every_variant() -> None:
    result = four_variants()
    shown = printed(result)
    for key in LONG_NAMES[1:]:
        assert f"Success rate: {key} over time" in flowing(shown)
    assert shown.count("2026-03-14  ") == 3
    many = result.model_copy(update={"series": result.series * 2})
    assert "the last 30 of 56 looks" in flowing(printed(many))


def test_look_at_the_end_of_a_day_bears_the_name_of_that_day() -> None:
    result = two_variants()
    midnights = [
        point.model_copy(update={"at": point.at.replace(hour=0) + timedelta(days=1)})
        for point in result.series
    ]
    *_, last = [
        line
        for line in printed(result.model_copy(update={"series": midnights})).splitlines()
        if "2026-" in line
    ]
    assert last.startswith("2026-03-14  ")


def test_looks_of_one_day_are_told_apart_by_their_hours_and_fit() -> None:
    result = two_variants()
    hours = [
        point.model_copy(update={"at": NOON - timedelta(hours=28 - at)})
        for at, point in enumerate(result.series)
    ]
    shown = printed(result.model_copy(update={"series": hours}))
    assert "2026-03-14 11:00  " in shown
    assert "…" not in shown
    assert wording.change(hours[-1].value, hours[-1].low, hours[-1].high, "percent").told("") in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_chances_of_being_best_stand_below_the_primary_metric() -> None:
    arms = {"a": successes(50, 100), "b": successes(40, 100), "c": successes(80, 100)}
    shown = printed(compared(arms, method="bayesian"))
    assert "P(best of all): a <0.001, b <0.001, c >0.999" in shown


def test_view_keeps_to_ascii_where_the_terminal_knows_no_more() -> None:
    to = Console(file=io.TextIOWrapper(io.BytesIO(), encoding="ascii"), width=80, markup=False)
    to.print(AnalysisView(two_variants()))
    to.file.seek(0)
    assert "[" in to.file.read()
