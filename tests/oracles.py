"""The published numbers that the statistics are held against, kept beside the project."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

import pytest

ORACLES = Path(__file__).parents[2] / "shared" / "oracles" / "statistics.json"


def oracle(row_id: str) -> dict[str, Any]:
    """Return one row: inputs, expected, tol, source. Where they are not, skip, or fail if they are required."""
    return next(row for row in all_oracles() if row["id"] == row_id)


def all_oracles() -> list[dict[str, Any]]:
    if not ORACLES.exists():
        if os.environ.get("PROMPTAB_REQUIRE_SHARED") == "1":
            pytest.fail(f"{ORACLES} is required and missing")
        pytest.skip(f"published numbers are not here: {ORACLES}")
    return _rows()


@functools.cache
def _rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(ORACLES.read_text(encoding="utf-8"))
    return rows
