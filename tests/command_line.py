"""The command line as tests use it: a folder of its own, commands as lists of words, and what they said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from promptab.cli import app

ENVIRONMENT = {"COLUMNS": "80", "LOGNAME": "ada", "PYTHONUTF8": "1"}
_FOREIGN = ("PROMPTAB_URL", "PROMPTAB_TRACEBACK", "FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS")


class Said(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


class Shell:
    """Runs commands in a folder, in this process."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        monkeypatch.chdir(folder)
        for name in _FOREIGN:
            monkeypatch.delenv(name, raising=False)
        for name, value in ENVIRONMENT.items():
            monkeypatch.setenv(name, value)

    def run(self, *words: str, given: str | None = None) -> Said:
        result = CliRunner().invoke(app, list(words), input=given)
        return Said(result.exit_code, result.stdout, result.stderr)

    def ok(self, *words: str, given: str | None = None) -> str:
        """Run a command that has to succeed, and return its standard output."""
        said = self.run(*words, given=given)
        assert said.code == 0, f"promptab {' '.join(words)}: exit {said.code}\n{said.out}\n{said.err}"
        return said.out

    def json(self, *words: str) -> Any:
        """Run a command that has to succeed with --json, and return the document."""
        return json.loads(self.ok(*words, "--json"))

    def make_greeting(self) -> None:
        """Make system/greeting 1.0.0 and 1.1.0, both active."""
        self.ok("new", "system/greeting", "-t", "Hello {{ name }}!", "-m", "first")
        self.ok("new", "system/greeting", "-t", "Good day, {{ name }}!", "--version", "1.1.0")


def in_new_process(folder: Path, *words: str, environment: Mapping[str, str] | None = None) -> Said:
    """Run a command as the installed `promptab` does."""
    finished = subprocess.run(
        [sys.executable, "-c", "from promptab.cli import main; main()", *words],
        cwd=folder,
        env={
            **{name: value for name, value in os.environ.items() if name not in _FOREIGN},
            **ENVIRONMENT,
            "PYTHONPATH": str(Path(__file__).parents[1]),
            **(environment or {}),
        },
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    return Said(finished.returncode, finished.stdout, finished.stderr)


def broken() -> None:
    """Fail in a way that nobody foresaw."""
    raise RuntimeError("the roof is on fire")
