"""Real processes that watch a store, and what they say as they say it."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from tests.processes import WORKERS, environment

HANG_SECONDS = 90.0
"""Far beyond what a process on a busy machine takes to say something."""


class Line(NamedTuple):
    at: float
    """By the machine's monotonic clock."""
    told: dict[str, Any]


class Watcher:
    """A process that prints a JSON document a line."""

    def __init__(self, *command: str) -> None:
        # a pipe that nobody reads would hold up whoever has much to say
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed when the process has ended
        self.process = subprocess.Popen(
            [sys.executable, *command],
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment(),
        )
        self._lines: queue.Queue[Line | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @classmethod
    def command(cls, url: str, interval: float) -> Watcher:
        """Run `promptab watch --json` itself."""
        run = "from promptab.cli import main; main()"
        return cls("-c", run, "watch", "--json", "--url", url, "--interval", f"{interval}s")

    @classmethod
    def pausing(cls, url: str, interval: float, pause: float) -> Watcher:
        """Run one that says when it is inside the transaction that applies, and waits there."""
        return cls(str(WORKERS / "watching_leader.py"), url, str(interval), str(pause))

    def until(self, holds: Callable[[dict[str, Any]], bool]) -> Line:
        """Return the first line that is still unread of which this holds."""
        ends_at = time.monotonic() + HANG_SECONDS
        while True:
            line = self._lines.get(timeout=max(0.01, ends_at - time.monotonic()))
            if line is None:
                raise AssertionError(f"it has ended: {self.end().stderr}")
            if holds(line.told):
                return line

    def until_state(self, state: str) -> Line:
        return self.until(lambda told: told.get("state") == state)

    def unread(self) -> list[dict[str, Any]]:
        """Return what it has said and nobody has looked at."""
        found = []
        while not self._lines.empty():
            line = self._lines.get()
            if line is not None:
                found.append(line.told)
        return found

    def kill(self, how: signal.Signals = signal.SIGKILL) -> float:
        """Send the signal; return when."""
        self.process.send_signal(how)
        return time.monotonic()

    def end(self) -> subprocess.CompletedProcess[str]:
        """Wait until it has ended."""
        code = self.process.wait(timeout=HANG_SECONDS)
        self._reader.join(timeout=HANG_SECONDS)
        assert self.process.stdout is not None
        self._errors.seek(0)
        errors = self._errors.read()
        self._errors.close()
        self.process.stdout.close()
        return subprocess.CompletedProcess(self.process.args, code, "", errors)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.endswith("\n"):  # a kill may cut one short
                self._lines.put(Line(time.monotonic(), json.loads(line)))
        self._lines.put(None)


@contextmanager
def watchers() -> Iterator[list[Watcher]]:
    """A list to put watchers in; those that still run are killed at the end."""
    started: list[Watcher] = []
    try:
        yield started
    finally:
        for watcher in started:
            if watcher.process.poll() is None:
                watcher.process.send_signal(signal.SIGCONT)
                watcher.kill()
            if watcher.process.stdout is not None and not watcher.process.stdout.closed:
                watcher.end()
