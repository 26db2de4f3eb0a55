"""What `import promptab` costs, and what it offers."""

from __future__ import annotations

import importlib
import json
import statistics
import subprocess
import sys
import time

import pytest

import promptab

HEAVY = (
    "aiosqlite",
    "alembic",
    "altair",
    "anthropic",
    "fastapi",
    "jsonschema",
    "numpy",
    "openai",
    "pandas",
    "rich",
    "scipy",
    "sqlalchemy",
    "typer",
    "yaml",
)
"""What only some calls need, and so only those import."""


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def test_import_promptab_loads_nothing_heavy() -> None:
    loaded = json.loads(run_python("import json, sys, promptab; print(json.dumps(sorted(sys.modules)))"))
    assert "promptab.versions" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_import_promptab_says_how_long_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    """Times vary with the machine, so they are shown here and asserted nowhere."""

    def seconds(code: str) -> float:
        started = time.perf_counter()
        run_python(code)
        return time.perf_counter() - started

    beyond = statistics.median(seconds("import promptab") - seconds("") for _ in range(7))
    with capsys.disabled():
        print(f"\nimport promptab: {beyond * 1000:.0f} ms beyond the bare interpreter (median of 7)")


def test_all_is_sorted_without_repetition() -> None:
    assert promptab.__all__ == sorted(set(promptab.__all__))


def test_all_is_exactly_the_public_names_of_the_package() -> None:
    modules = {name for name in sys.modules if name.startswith("promptab.")}
    public = {
        name
        for name in vars(promptab)
        if f"promptab.{name}" not in modules and (name == "__version__" or not name.startswith("_"))
    }
    assert public == set(promptab.__all__)


@pytest.mark.parametrize("name", promptab.__all__)
def test_every_name_in_all_can_be_imported(name: str) -> None:
    assert getattr(importlib.import_module("promptab"), name) is not None
