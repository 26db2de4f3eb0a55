"""Charts, and the report in one file: the numbers are there, and nothing else gets in."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import struct
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import vl_convert
from hypothesis import given
from hypothesis import strategies as st

from promptab.analysis import wording
from promptab.analysis.histogram import Histogram
from promptab.analysis.result import AnalysisResult
from promptab.errors import InvalidInputError, MissingExtraError
from promptab.report import charts, write_report
from promptab.report.theme import on_page, on_paper
from tests.html_page import Page
from tests.sample_analysis import (
    HOSTILE,
    LONG_NAMES,
    four_variants,
    histograms,
    hostile,
    two_variants,
)

SVG = "{http://www.w3.org/2000/svg}"


def parsed(drawing: str) -> ET.Element:
    return ET.fromstring(drawing)  # noqa: S314 - we have drawn it


def texts(chart: Any) -> str:
    """Return every text of a chart as it is drawn."""
    drawn = vl_convert.vegalite_to_svg(chart.to_dict(), config=on_paper(), allowed_base_urls=[])
    return "\n".join(node.text or "" for node in parsed(drawn).iter(f"{SVG}text"))


def picture(tmp_path: Path, result: AnalysisResult, **more: Any) -> ET.Element:
    write_report(result, tmp_path / "report.svg", **more)
    return parsed((tmp_path / "report.svg").read_text(encoding="utf-8"))


def with_times(changes: dict[str, Any]) -> AnalysisResult:
    """Return an analysis whose guardrail, the response time, is another one."""
    result = two_variants()
    changed = result.metrics["response_time"].model_copy(update=changes)
    return result.model_copy(update={"metrics": {**result.metrics, "response_time": changed}})


def report_page(tmp_path: Path, result: AnalysisResult, **more: Any) -> Page:
    write_report(result, tmp_path / "report.html", **more)
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


def test_intervals_are_drawn_with_their_numbers_and_verdicts() -> None:
    drawn = charts.intervals(four_variants())
    assert drawn is not None
    told = texts(drawn)
    assert f"Success rate: lift over {LONG_NAMES[0]} (%)" in told
    for part in (
        "+8.2 % (+1.6 to +14.7), better",
        "-14.7 % (-21.2 to -8.2), worse",
        "not shown safe",
        "harmed",
    ):
        assert part in told


def test_interval_of_an_adjusted_metric_stands_beside_the_raw_one() -> None:
    told = texts(charts.intervals(two_variants()))
    assert "1.1.0, adjusted" in told
    assert "Cost: difference to 1.0.0 ($)" in told
    assert "-0.000020 $ (-0.000050 to +0.000010), undecided" in told


def test_metric_without_a_difference_has_no_panel() -> None:
    result = two_variants()
    assert "Rating" not in texts(charts.intervals(result))
    alone = result.model_copy(update={"metrics": {"rating": result.metrics["rating"]}})
    assert charts.intervals(alone) is None


def test_difference_without_an_interval_is_drawn_as_a_point() -> None:
    result = two_variants()
    success = result.metrics["success_rate"]
    bare = success.differences["1.1.0"].model_copy(
        update={"low": None, "high": None, "lift_low": None, "lift_high": None}
    )
    drawn = charts.intervals(
        result.model_copy(
            update={
                "metrics": {"success_rate": success.model_copy(update={"differences": {"1.1.0": bare}})},
            }
        )
    )
    assert drawn is not None
    assert "+16.4 points, better" in texts(drawn)
    svg = vl_convert.vegalite_to_svg(drawn.to_dict(), config=on_paper(), allowed_base_urls=[])
    thick = [node for node in parsed(svg).iter(f"{SVG}line") if node.attrib.get("stroke-width") == "3"]
    assert thick == []


@pytest.mark.parametrize(
    ("relative", "tolerated", "shown"),
    [(True, 0.05, "+5 %"), (False, 0.0812, "+10 %")],
    ids=["share", "seconds"],
)
def test_guardrail_margin_is_drawn(relative: bool, tolerated: float, shown: str) -> None:
    drawn = charts.intervals(with_times({"relative": relative, "largest_regression": tolerated}))
    assert f"dashed: {shown} is the most that is tolerated" in texts(drawn)
    assert "dashed" not in texts(charts.intervals(with_times({"largest_regression": None})))


def test_guardrail_margin_of_a_metric_to_be_increased_is_below_zero() -> None:
    drawn = charts.intervals(with_times({"direction": "increase"}))
    assert "dashed: -5 %" in texts(drawn)


def test_series_is_drawn_apart_for_every_variant() -> None:
    drawn = charts.series(four_variants())
    assert drawn is not None
    assert len(drawn.vconcat) == 3
    told = texts(drawn)
    assert all(f"Success rate: {key} over time" in told for key in LONG_NAMES[1:])
    assert "difference (points)" in told


def test_series_of_thousands_of_looks_is_drawn() -> None:
    result = two_variants()
    drawn = charts.series(result.model_copy(update={"series": result.series * 180}))
    assert drawn is not None
    assert len(json.dumps(drawn.to_dict())) > 5_040 * 50


def test_band_of_a_single_look_is_seen() -> None:
    result = two_variants()
    drawn = charts.series(result.model_copy(update={"series": result.series[-1:]}))
    assert drawn is not None
    svg = vl_convert.vegalite_to_svg(drawn.to_dict(), config=on_paper(), allowed_base_urls=[])
    lengths = [abs(float(node.attrib.get("y2", 0))) for node in parsed(svg).iter(f"{SVG}line")]
    assert any(20.0 < length < 100.0 for length in lengths)


def test_first_looks_do_not_dwarf_the_last_ones() -> None:
    result = two_variants()
    wild = result.series[0].model_copy(update={"low": -1e6, "high": 1e6})
    drawn = charts.series(result.model_copy(update={"series": (wild, *result.series[1:])}))
    assert drawn is not None
    data = next(rows for rows in drawn.to_dict()["datasets"].values() if len(rows) > 1)
    assert max(row["high"] for row in data) < 200.0
    assert "+100,000,000" in data[0]["told"]


def test_units_are_drawn_with_their_shares_and_the_plan() -> None:
    told = texts(charts.units(four_variants()))
    assert "402 (6.8 %, planned 10.0 %)" in told
    nobody = four_variants().model_copy(update={"units": dict.fromkeys(LONG_NAMES, 0)})
    assert "0 (0.0 %, planned 10.0 %)" in texts(charts.units(nobody))


def test_response_times_are_drawn_by_variant() -> None:
    drawn = charts.response_times(histograms("1.0.0", "1.1.0"))
    assert drawn is not None
    assert {"1.0.0", "1.1.0", "share of events per second"} <= set(texts(drawn).splitlines())
    assert charts.response_times([]) is None
    assert charts.response_times([Histogram("1.0.0", [0.0, 1.0], [0])]) is None


@given(
    widths=st.lists(st.floats(0.01, 10.0), min_size=1, max_size=20),
    counts=st.lists(st.integers(0, 10**6), min_size=20, max_size=20),
)
def test_densities_of_a_histogram_have_the_area_one(widths: list[float], counts: list[int]) -> None:
    edges = [sum(widths[:at]) for at in range(len(widths) + 1)]
    histogram = Histogram("a", edges, counts[: len(widths)])
    area = sum(
        density * (high - low)
        for density, (low, high) in zip(histogram.densities(), pairwise(edges), strict=True)
    )
    assert area == pytest.approx(1.0 if sum(histogram.counts) else 0.0)


@pytest.mark.parametrize(
    ("edges", "counts"),
    [([0.0, 1.0], [1, 2]), ([0.0], []), ([0.0, 0.0], [1]), ([0.0, float("inf")], [1]), ([0.0, 1.0], [-1])],
    ids=["too few edges", "no bin", "no width", "no end", "negative"],
)
def test_histogram_that_does_not_fit_is_refused(edges: list[float], counts: list[int]) -> None:
    with pytest.raises(InvalidInputError, match=r"histograms\[a\]"):
        Histogram("a", edges, counts).densities()


def test_page_has_verdict_checks_numbers_charts_and_caution(tmp_path: Path) -> None:
    result = four_variants()
    page = report_page(tmp_path, result, histograms=histograms(*LONG_NAMES))
    for part in (
        wording.headline(result),
        result.reason,
        result.caution,
        wording.EXPLORATORY,
        "Sample ratio: failed",
    ):
        assert part in page.text
    for metric in result.metrics.values():
        for difference in metric.differences.values():
            shown = wording.change(difference.value, difference.low, difference.high, metric.format)
            assert shown.told(wording.change_unit(metric.format)) in page.text
    figures = [attributes["id"] for tag, attributes in page.elements if tag == "figure"]
    assert figures == ["intervals", "series", "units", "response-times"]


def test_page_leaves_out_charts_that_there_is_nothing_for(tmp_path: Path) -> None:
    page = report_page(tmp_path, two_variants().model_copy(update={"series": ()}))
    figures = [attributes["id"] for tag, attributes in page.elements if tag == "figure"]
    assert figures == ["intervals", "units"]


def test_page_loads_nothing_from_anywhere(tmp_path: Path) -> None:
    page = report_page(tmp_path, two_variants(), histograms=histograms("1.0.0", "1.1.0"))
    assert {"link", "img", "iframe", "object", "embed", "base", "form"}.isdisjoint(
        tag for tag, _ in page.elements
    )
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "data", "action", "srcset"):
            assert not (attributes.get(name) or "").startswith(("http", "//", "data:text")), f"{tag} {name}"
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', source)
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert not re.search(r"@import|url\(\s*['\"]?(?:http|//)", source)
    hosts = set(re.findall(r"https?://([\w.]+)", source))
    # namespaces of XML, names of schemas, and links in messages of the drawing library; the policy forbids them all
    assert hosts <= {"www.w3.org", "vega.github.io", "github.com"}


def test_page_is_readable_in_light_in_dark_and_on_paper(tmp_path: Path) -> None:
    write_report(two_variants(), tmp_path / "report.html")
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in source
    assert "@media print" in source
    # drawings take the colour of the text around them
    assert "currentColor" in json.dumps(on_page())
    assert 'fill="currentColor"' in source


def test_drawings_of_a_page_share_no_names(tmp_path: Path) -> None:
    page = report_page(tmp_path, four_variants(), histograms=histograms(*LONG_NAMES))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_values_stay_text_in_the_page(tmp_path: Path) -> None:
    harmless = report_page(tmp_path, two_variants())
    page = report_page(tmp_path, hostile())
    assert page.count("script") == harmless.count("script")
    assert HOSTILE in page.text
    for source in page.scripts[:-2]:
        json.loads(source)


def test_values_stay_text_in_the_picture(tmp_path: Path) -> None:
    drawn = picture(tmp_path, hostile())
    assert not list(drawn.iter(f"{SVG}script"))
    assert HOSTILE in "".join(drawn.itertext())


@pytest.mark.parametrize("sample", [two_variants, four_variants])
def test_picture_has_verdict_charts_and_caution(tmp_path: Path, sample: Callable[[], AnalysisResult]) -> None:
    result = sample()
    drawn = picture(tmp_path, result, histograms=histograms(*result.units))
    told = " ".join("\n".join(drawn.itertext()).split())
    for part in (
        wording.headline(result),
        result.caution,
        "Units against the plan",
        "over time",
        "Response time",
    ):
        assert part in told


def test_png_is_twice_as_large_as_the_drawing(tmp_path: Path) -> None:
    write_report(two_variants(), tmp_path / "report.PNG")
    written = (tmp_path / "report.PNG").read_bytes()
    assert written.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", written[16:24])
    drawing = picture(tmp_path, two_variants())
    assert width == pytest.approx(2 * float(drawing.attrib["width"]), abs=2)
    assert height == pytest.approx(2 * float(drawing.attrib["height"]), abs=2)


@pytest.mark.parametrize("name", ["report.pdf", "report", ".html", "no/such/folder/report.html"])
def test_other_files_are_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        write_report(two_variants(), tmp_path / name)
    assert refused.value.field == "output"
    assert "/" in name or ".html, .png, .svg" in str(refused.value)


def test_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "report.svg").mkdir()
    with pytest.raises(InvalidInputError, match="can be written"):
        write_report(two_variants(), tmp_path / "report.svg")


@pytest.mark.parametrize("package", ["altair", "vl_convert"])
def test_missing_package_names_the_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else found(name))
    monkeypatch.delitem(sys.modules, "promptab.report")
    with pytest.raises(MissingExtraError, match=r"promptab\[charts\]"):
        importlib.import_module("promptab.report")
