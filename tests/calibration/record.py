"""The counts behind the page, as a file: a page can be written again, and a part of it measured again."""

from __future__ import annotations

import json
from typing import Any

from tests.calibration.cells import Found, Key, Pair, Result, Runs, jobs
from tests.calibration.detections import Delay, Detection
from tests.calibration.tally import Tally


def written(found: Found) -> str:
    """Return JSON with one line per cell, in the order of `jobs`."""
    lines = [
        f"  {json.dumps(label(key))}: {json.dumps(_plain(found[key]))}"
        for key in jobs(Runs())
        if key in found
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read(text: str) -> dict[Key, Result]:
    """Return what `written` wrote; cells that there are no longer are left out."""
    lines = json.loads(text)
    return {key: _result(lines[label(key)]) for key in jobs(Runs()) if label(key) in lines}


def label(key: Key) -> str:
    section, row = key
    return f"{section}: {row}"


def _plain(result: Result) -> dict[str, object]:
    if isinstance(result, Pair):
        return {"null": _plain(result.null), "real": _plain(result.real), "effect": result.effect}
    if isinstance(result, Detection):
        return {
            "runs": result.runs,
            "guardrail": result.guardrail._asdict(),
            "seed": result.seed._asdict(),
        }
    return {"runs": result.runs, "counts": dict(sorted(result.counts.items())), "se_sum": result.se_sum}


def _result(plain: dict[str, Any]) -> Result:
    if "null" in plain:
        return Pair(_tally(plain["null"]), _tally(plain["real"]), plain["effect"])
    if "guardrail" in plain:
        return Detection(plain["runs"], Delay(**plain["guardrail"]), Delay(**plain["seed"]))
    return _tally(plain)


def _tally(plain: dict[str, Any]) -> Tally:
    return Tally(plain["runs"], plain["counts"].items(), plain["se_sum"])
