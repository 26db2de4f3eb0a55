"""A report as a file: a page that needs no network, or a picture."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from promptab.analysis import wording
from promptab.analysis.histogram import Histogram
from promptab.analysis.result import AnalysisResult
from promptab.errors import InvalidInputError
from promptab.report import charts
from promptab.report.drawing import chart
from promptab.report.page import page
from promptab.report.theme import on_paper

_PIXELS_PER_PIXEL = 2.0
"""Pictures are looked at on screens with small pixels."""
_LINE = 100
_SUFFIXES = (".html", ".png", ".svg")

Figures = Mapping[str, alt.LayerChart | alt.VConcatChart]


def check_report_path(path: Path | str) -> Path:
    """Return the path, if `write_report` knows what to write there.

    Raises `InvalidInputError` for a suffix other than .html, .png and .svg, and where there is no such folder.
    """
    target = Path(path)
    if target.suffix.lower() not in _SUFFIXES:
        raise InvalidInputError("output", str(path), f"a file that ends in {', '.join(_SUFFIXES)}")
    if not target.parent.is_dir():
        raise InvalidInputError(
            "output", str(path), "in a folder that is there", f"make {target.parent} first"
        )
    return target


def write_report(
    result: AnalysisResult,
    path: Path | str,
    *,
    histograms: Sequence[Histogram] = (),
) -> None:
    """Write the analysis to `path`, as what its suffix says; an existing file is replaced.

    - .html: verdict, checks, numbers, charts and caution in one page that loads nothing from anywhere
    - .png, .svg: verdict, charts and caution in one picture

    `histograms` are of the response times, by variant. Raises `InvalidInputError` for another suffix, and for a
    file that cannot be written.
    """
    target = check_report_path(path)
    figures = _figures(result, histograms)
    written = _WRITERS[target.suffix.lower()](result, figures)
    try:
        target.write_bytes(written)
    except OSError as error:
        raise InvalidInputError(
            "output", str(path), f"a file that can be written ({error.strerror})"
        ) from None


def _figures(result: AnalysisResult, histograms: Sequence[Histogram]) -> Figures:
    """Return the charts that there is something for, by name."""
    made = {
        "intervals": charts.intervals(result),
        "series": charts.series(result),
        "units": charts.units(result),
        "response-times": charts.response_times(histograms),
    }
    return {name: figure for name, figure in made.items() if figure is not None}


def _picture(result: AnalysisResult, figures: Figures) -> dict[str, Any]:
    """Return everything in one drawing, with the verdict and what it is of above it and the caution below."""
    title = alt.TitleParams(
        text=f"{result.experiment}: {wording.headline(result)}",
        subtitle=[*_lines(result.reason), *_lines(wording.circumstances(result))],
        fontSize=17,
        subtitleFontSize=12,
        offset=18,
    )
    caution = (
        chart([{"said": line, "at": at} for at, line in enumerate(_lines(result.caution))])
        .mark_text(align="left", fontSize=12)
        .encode(x=alt.value(0), y=alt.Y("at:O", axis=None), text="said:N")
    )
    whole = alt.vconcat(*figures.values(), caution, spacing=28, title=title)
    # each figure has colours of its own: verdicts here, variants there
    document: dict[str, Any] = whole.resolve_scale(color="independent", shape="independent").to_dict()
    return document


def _lines(text: str) -> list[str]:
    return textwrap.wrap(text, _LINE)


def _html(result: AnalysisResult, figures: Figures) -> bytes:
    return page(result, {name: figure.to_dict() for name, figure in figures.items()}).encode()


def _png(result: AnalysisResult, figures: Figures) -> bytes:
    picture = _picture(result, figures)
    return vl_convert.vegalite_to_png(
        picture, scale=_PIXELS_PER_PIXEL, config=on_paper(), allowed_base_urls=[]
    )


def _svg(result: AnalysisResult, figures: Figures) -> bytes:
    return vl_convert.vegalite_to_svg(
        _picture(result, figures), config=on_paper(), allowed_base_urls=[]
    ).encode()


_WRITERS: Mapping[str, Callable[[AnalysisResult, Figures], bytes]] = {
    ".html": _html,
    ".png": _png,
    ".svg": _svg,
}
