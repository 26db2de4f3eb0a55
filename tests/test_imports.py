"""What `import promptab` costs, and what it offers."""

from __future__ import annotations

import ast
import importlib
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

import promptab

HEAVY = (
    "aiosqlite",
    "alembic",
    "altair",
    "anthropic",
    "fastapi",
    "genai_prices",
    "httpx2",
    "jsonschema",
    "numpy",
    "openai",
    "openfeature",
    "opentelemetry",
    "pandas",
    "prometheus_client",
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


def loaded_after(code: str) -> list[str]:
    """Return the modules that a fresh interpreter has loaded after running the code."""
    loaded: list[str] = json.loads(
        run_python(f"import json, sys\n{code}\nprint(json.dumps(list(sys.modules)))")
    )
    return loaded


EVERY_NAME = "import promptab\nfor name in promptab.__all__: getattr(promptab, name)"


@pytest.mark.parametrize("code", ["import promptab", EVERY_NAME], ids=["package", "every name"])
def test_import_promptab_loads_nothing_heavy(code: str) -> None:
    loaded = loaded_after(code)
    assert "promptab" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_every_name_loads_the_managers() -> None:
    """What the test above would not notice: that its code loads nothing at all."""
    assert {"promptab.versions", "promptab.experiments", "promptab.metrics"} <= set(loaded_after(EVERY_NAME))


def test_import_promptab_says_how_long_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    """Times vary with the machine, so they are shown here and asserted nowhere."""

    def seconds(code: str) -> float:
        started = time.perf_counter()
        run_python(code)
        return time.perf_counter() - started

    for what, code in (("import promptab", "import promptab"), ("every public name", EVERY_NAME)):
        beyond = statistics.median(seconds(code) - seconds("") for _ in range(7))
        with capsys.disabled():
            print(f"\n{what}: {beyond * 1000:.0f} ms beyond the bare interpreter (median of 7)")


def test_all_is_sorted_without_repetition() -> None:
    assert promptab.__all__ == sorted(set(promptab.__all__))


def test_all_is_exactly_what_the_stub_declares() -> None:
    stub = ast.parse(Path(promptab.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    declared = [
        alias.asname or alias.name
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert sorted(declared) == promptab.__all__
    assert dir(promptab) == promptab.__all__


def test_the_stub_declares_the_version() -> None:
    """It is no name that a star should import, but one that a type checker must know."""
    stub = ast.parse(Path(promptab.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    assigned = [ast.unparse(node.target) for node in stub.body if isinstance(node, ast.AnnAssign)]
    assert "__version__" in assigned
    assert promptab.__version__


@pytest.mark.parametrize("name", promptab.__all__)
def test_every_name_in_all_can_be_imported(name: str) -> None:
    assert getattr(importlib.import_module("promptab"), name) is not None


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="VersionManger"):
        _ = promptab.VersionManger  # type: ignore[attr-defined]
