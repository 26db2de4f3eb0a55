"""An analysis in words and in a notebook's table: every number is there, and values stay text."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptab.analysis import wording
from promptab.analysis.result import METHODS, AnalysisResult
from tests.html_page import Page
from tests.sample_analysis import HOSTILE, four_variants, hostile, two_variants

amounts = st.floats(-1e6, 1e6, allow_nan=False)


def test_notebook_shows_the_table_and_needs_no_chart_library() -> None:
    code = (
        "import sys\nfrom tests.sample_analysis import two_variants\n"
        "print(two_variants()._repr_html_())\nassert 'altair' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        encoding="utf-8",
        check=True,
        timeout=60,
    )
    page = Page(done.stdout)
    for part in (
        "Winner: 1.1.0.",
        "+16.4 points (+8.3 to +24.5)",
        "+27 %",
        "safe",
        "adjusted for history: 37 % less",
    ):
        assert part in page.text
    assert page.count("svg") == 4
    assert page.count("circle") == 4


def test_values_stay_text_in_a_notebook() -> None:
    page = Page(hostile()._repr_html_())
    assert page.count("script") == 0
    assert HOSTILE in page.text


@pytest.mark.parametrize("sample", [two_variants, four_variants])
@pytest.mark.parametrize("method", METHODS)
def test_every_row_of_a_table_has_every_column(sample: Callable[..., AnalysisResult], method: str) -> None:
    source = sample(method=method)._repr_html_()
    for table in re.findall(r"<table>.*?</table>", source, re.DOTALL):
        head, *rows = re.findall(r"<tr[^>]*>(.*?)</tr>", table, re.DOTALL)
        columns = head.count("<th")
        for row in rows:
            spanned = sum(int(span) - 1 for span in re.findall(r'colspan="(\d+)"', row))
            assert len(re.findall(r"<t[dh]", row)) + spanned == columns


@given(value=amounts, half=st.floats(1e-9, 1e6))
def test_change_of_the_mirrored_metric_reads_mirrored(value: float, half: float) -> None:
    told = wording.change(value, value - half, value + half, "number")
    mirrored = wording.change(-value, -value - half, -value + half, "number")
    turned = {"+": "-", "-": "+"}

    def turn(text: str) -> str:
        return turned[text[0]] + text[1:] if text[0] in turned else text

    assert mirrored.value == turn(told.value)
    assert mirrored.interval.split(" to ") == [turn(end) for end in reversed(told.interval.split(" to "))]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (0.0, "<0.001"),
        (0.0123, "0.012"),
        (0.21, "0.21"),
        (0.9513, "0.951"),
        (0.9999, ">0.999"),
        (1.0, ">0.999"),
    ],
)
def test_probability_claims_no_more_than_is_known(value: float | None, shown: str) -> None:
    assert wording.probability(value) == shown


def test_improvement_that_is_too_small_says_so() -> None:
    difference = two_variants().metrics["success_rate"].differences["1.1.0"]
    assert wording.verdict(difference) == "better"
    assert wording.verdict(difference.model_copy(update={"size": "too small"})) == "better, but too little"
    assert wording.verdict(difference.model_copy(update={"size": "unclear"})) == "better, perhaps too little"
