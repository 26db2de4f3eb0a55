"""Real processes that wait for one another, so that what they do is done at the same time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

WORKERS = Path(__file__).parent / "workers"
ROOT = Path(__file__).parents[1]


def environment(**settings: str) -> dict[str, str]:
    """Return this process's environment, in which promptab is found without being installed."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **settings}


def start(worker: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(WORKERS / worker), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def race(url: str, actions: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Any]:
    """Run the actions of `workers/racing.py`, each in a process of its own; return their results in order.

    No process acts before all have opened the store.
    """
    racers = [start("racing.py", url, action, json.dumps(arguments)) for action, arguments in actions]
    try:
        for racer in racers:
            assert racer.stdout is not None
            line = racer.stdout.readline()
            assert line == "ready\n", line + racer.communicate(timeout=60)[1]
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        results = []
        for racer in racers:
            output, errors = racer.communicate(timeout=120)
            assert racer.returncode == 0, errors
            results.append(json.loads(output))
        return results
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()
