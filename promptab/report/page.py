"""The report as one HTML page. It is read offline: libraries and drawings are inside, and nothing is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from html import escape
from typing import Any

import vl_convert

from promptab.analysis import notebook, wording
from promptab.analysis.result import AnalysisResult
from promptab.report.theme import on_page

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'unsafe-inline'"
"""A browser that reads the page may load nothing from any address."""

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 Helvetica, Arial, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff; }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #1a1a1a; }
  .promptab { --good: #56b4e9; --bad: #f08a4b; --open: #999; } }
@media print { body { color: #000; background: #fff; margin: 0; max-width: none; font-size: 11px; }
  figure, tr, li { break-inside: avoid; } svg.interval { width: 110px; } .wide { overflow: visible; }
  .promptab th, .promptab td { padding-right: 0.4em; } .promptab td.variant { min-width: 6em; } }
h1 { font-size: 1.6rem; margin: 0; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin: 2rem 0 0.5rem; }
figure { margin: 1.5rem 0; overflow-x: auto; } figure svg { max-width: 100%; height: auto; overflow: visible; }
.wide { overflow-x: auto; }
""".strip()

_NAMES = re.compile(r"(?<=[\"#])(?:clip|gradient|pattern)[_\d]+")

_FIGURES: Mapping[str, str] = {
    "intervals": "Differences to the control with their intervals",
    "series": "The difference over time with its confidence band",
    "units": "Units per variant against the plan",
    "response-times": "Distribution of the response time",
}

# The drawings are there already, for who runs no scripts; the script puts such with tooltips in their place.
# `ast`: expressions are interpreted, since the policy lets nothing compile them.
_SCRIPT = """
for (const figure of document.querySelectorAll("figure")) {
  const spec = JSON.parse(figure.querySelector("script").textContent);
  vegaEmbed(figure.querySelector("div"), spec, { config: CONFIG, renderer: "svg", actions: false, ast: true });
}
""".strip()


def page(result: AnalysisResult, figures: Mapping[str, dict[str, Any]]) -> str:
    """Return the page; `figures` are Vega-Lite documents by name: intervals, series, units, response-times."""
    title = f"{result.experiment}: {wording.headline(result)}"
    segments = f"<h2>Segments</h2>{_wide(notebook.segments_table(result))}" if result.segments else ""
    drawn = "".join(_figure(number, name, spec) for number, (name, spec) in enumerate(figures.items()))
    config = json.dumps(on_page())
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{notebook.STYLE}
{_STYLE}</style>
</head>
<body class="promptab">
<h1>{escape(result.experiment)}</h1>
<p class="quiet">{escape(wording.circumstances(result))}</p>
{notebook.verdict_paragraph(result)}
<h2>Checks</h2>
{notebook.checks_list(result.checks)}
<h2>Numbers</h2>
{_wide(notebook.metrics_table(result))}
{segments}
<h2>Charts</h2>
{drawn}
<p class="quiet">{escape(result.caution)}</p>
<script>{_libraries()}</script>
<script>{_SCRIPT.replace("CONFIG", config)}</script>
</body>
</html>
"""


def _wide(table: str) -> str:
    return f'<div class="wide">{table}</div>'


def _figure(number: int, name: str, spec: dict[str, Any]) -> str:
    drawing = vl_convert.vegalite_to_svg(spec, config=on_page(), allowed_base_urls=[])
    # what a drawing refers to by name is looked up in the whole page
    drawing = _NAMES.sub(rf"\g<0>-{number}", drawing)
    document = json.dumps(spec).replace("<", "\\u003c")  # no value can end the script
    return (
        f'<figure id="{name}" aria-label="{_FIGURES[name]}"><div>{drawing}</div>'
        f'<script type="application/json">{document}</script></figure>'
    )


@lru_cache(maxsize=1)
def _libraries() -> str:
    """Return Vega, Vega-Lite and Vega-Embed; putting them together takes seconds."""
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
