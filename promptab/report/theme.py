"""How every chart looks: sizes in pixels, colours that all eyes can tell apart, and the two grounds they stand on.

The colours are those of Okabe and Ito, "Color Universal Design", 2008; their contrast is at least 3 : 1 on white
and on near-black, but for two that are used for variants only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from promptab.analysis.wording import Tone

WIDTH = 420
ROW_HEIGHT = 26
LABEL_WIDTH = 170
"""Longer names are cut in a chart; the table has them whole."""

_BLUE, _VERMILION, _GREY = "#0072b2", "#d55e00", "#808080"
TONES: Mapping[Tone, str] = {"good": _BLUE, "bad": _VERMILION, "open": _GREY}
SHAPES: Mapping[Tone, str] = {"good": "circle", "bad": "square", "open": "diamond"}
"""The same once more for whoever sees no colour at all."""

VARIANTS = (_GREY, _BLUE, "#e69f00", "#009e73", "#cc79a7", _VERMILION, "#56b4e9")
"""The control's first."""

_FONT = "Helvetica, Arial, sans-serif"


def on_paper() -> dict[str, Any]:
    """Return the configuration of a picture: dark on white."""
    return _config("#222222", background="white")


def on_page() -> dict[str, Any]:
    """Return the configuration of a drawing in a page: in the colour of its text, on its ground."""
    return _config("currentColor", background="transparent")


def _config(ink: str, *, background: str) -> dict[str, Any]:
    titles = {"titleFontWeight": "normal", "titleColor": ink, "titleFontSize": 11}
    lines = {"domainColor": _GREY, "tickColor": _GREY, "gridColor": _GREY, "gridOpacity": 0.25}
    labels = {"labelColor": ink, "labelFontSize": 11}
    return {
        "background": background,
        "font": _FONT,
        "view": {"stroke": None},
        "axis": {**labels, **titles, **lines, "labelLimit": LABEL_WIDTH},
        "axisY": {"domain": False, "ticks": False},
        "legend": {**labels, **titles, "labelLimit": LABEL_WIDTH, "orient": "top", "symbolOpacity": 1.0},
        "title": {
            "anchor": "start",
            "color": ink,
            "subtitleColor": ink,
            "fontSize": 13,
            "subtitleFontSize": 11,
        },
        "header": {**labels, "titleColor": ink},
        "text": {"color": ink, "fontSize": 11},
        "rule": {"color": ink},
    }
