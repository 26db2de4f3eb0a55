"""The register of published numbers: every row is tested somewhere, or stands here with the reason why it is not."""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping
from pathlib import Path

from tests.oracles import all_oracles

BASELINE_ONLY = (
    "takes the baseline's variance for that of both arms; promptab's sample sizes follow R's power.prop.test"
)
ARCSINE = "works on the arcsine scale (Cohen's h); promptab's sample sizes follow R's power.prop.test"
NAIVE_LOOKS = (
    "tells how often repeated tests at a nominal level mislead; promptab's looks are anytime-valid, and how "
    "often those mislead is simulated in the calibration"
)
PLANNED_LOOKS = (
    "bounds looks whose number was planned; promptab's looks are anytime-valid instead, and need no plan"
)
OTHER_BOUNDARY = (
    "a boundary for sums with tails heavier than the normal; promptab's confidence sequences are the normal "
    "mixture for means, and betting for bounded scores"
)

OUT_OF_SCOPE = {
    "n-prop-arcsine-0.15-0.165": ARCSINE,
    "n-pwr2p-blog": ARCSINE,
    "pwr-2p": ARCSINE,
    "n-evanmiller-0.05-0.01": BASELINE_ONLY,
    "n-evanmiller-0.05-0.03": BASELINE_ONLY,
    "n-posthog-rule16": BASELINE_ONLY,
    "srm-tea-tasting-half": (
        "a normal approximation with continuity correction for two arms; promptab has the chi-square test for "
        "any number of arms, and the exact one where units are few"
    ),
    "ci-diff-wald": "Wald's interval covers too little where counts are small; promptab's is Newcombe's",
    "cs-gamma-exponential": OTHER_BOUNDARY,
    "cs-poly-stitching": OTHER_BOUNDARY,
    "cs-empbern-50": (
        "an empirical Bernstein sequence for bounded scores; promptab bets on these, which is narrower "
        "(Waudby-Smith & Ramdas 2024)"
    ),
    "statsig-z": "a critical value that is the same for any number of units is not anytime-valid in the limit",
    "peeking-2": NAIVE_LOOKS,
    "peeking-3": NAIVE_LOOKS,
    "peeking-5": NAIVE_LOOKS,
    "peeking-10": NAIVE_LOOKS,
    "peeking-50": NAIVE_LOOKS,
    "pocock-2": PLANNED_LOOKS,
    "pocock-3": PLANNED_LOOKS,
    "pocock-5": PLANNED_LOOKS,
    "pocock-10": PLANNED_LOOKS,
    "obf-2": PLANNED_LOOKS,
    "obf-3": PLANNED_LOOKS,
    "obf-5": PLANNED_LOOKS,
    "obf-10": PLANNED_LOOKS,
    "ldm-obf-5": PLANNED_LOOKS,
    "power-spend-2-spotify": PLANNED_LOOKS,
}
"""Row id -> why promptab is not compared with it."""


def row_ids() -> list[str]:
    return [str(row["id"]) for row in all_oracles()]


@functools.cache
def readers() -> Mapping[str, ast.Module]:
    """Return the syntax of each file of tests that reads published numbers.

    The syntax and not the text: a row that is only mentioned in a comment is tested by nobody.
    """
    found = {}
    for path in sorted(Path(__file__).parent.rglob("test_*.py")):
        syntax = ast.parse(path.read_text(encoding="utf-8"))
        imported = {node.module for node in ast.walk(syntax) if isinstance(node, ast.ImportFrom)}
        if path != Path(__file__) and "tests.oracles" in imported:
            found[path.name] = syntax
    return found


def claims() -> dict[str, list[str]]:
    """Row id -> the files whose tests have it as a literal: as argument of `oracle` or as a parameter."""
    found: dict[str, list[str]] = {row_id: [] for row_id in row_ids()}
    for name, syntax in readers().items():
        literals = {node.value for node in ast.walk(syntax) if isinstance(node, ast.Constant)}
        for row_id, files in found.items():
            if row_id in literals:
                files.append(name)
    return found


def test_every_row_is_tested_or_out_of_scope_for_a_reason() -> None:
    unaccounted = [row for row, files in claims().items() if not files and row not in OUT_OF_SCOPE]
    assert not unaccounted, "neither a test nor a reason"


def test_no_row_that_is_tested_is_called_out_of_scope() -> None:
    both = {row: files for row, files in claims().items() if files and row in OUT_OF_SCOPE}
    assert not both, "a test and a reason against it"


def test_every_row_out_of_scope_exists_and_has_a_reason() -> None:
    assert set(OUT_OF_SCOPE) <= set(row_ids())
    assert all(len(reason.split()) > 5 for reason in OUT_OF_SCOPE.values())


def test_every_row_that_a_test_asks_for_exists() -> None:
    asked = {
        argument.value
        for syntax in readers().values()
        for call in ast.walk(syntax)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "oracle"
        for argument in call.args
        if isinstance(argument, ast.Constant)
    }
    assert asked, "there are files to be read"
    assert asked <= set(row_ids())


def test_no_row_is_there_twice() -> None:
    rows = row_ids()
    assert len(rows) == len(set(rows))
