"""A move of production in one process is served by all others: how soon is printed, that it is served is tried."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import time

import pytest

import promptab
from tests.processes import start

MOVES = int(os.environ.get("PROMPTAB_TEST_MOVES", "4"))
"""The full length is 100."""
PAUSES = {"without a break": -1.0, "every 10 ms": 0.01, "every 300 ms": 0.3, "every 700 ms": 0.7}
BETWEEN_SECONDS = 1.2


def said(watcher: subprocess.Popen[str]) -> dict[str, float]:
    """Return when each version was served first."""
    output, errors = watcher.communicate(timeout=60)
    assert watcher.returncode == 0, errors
    return {number: float(moment) for number, moment in map(str.split, output.splitlines())}


async def test_every_process_serves_every_move(lasting_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    moved: dict[str, float] = {}
    async with promptab.open(lasting_url) as lab:
        versions = [
            await lab.versions.create_version("tone", "system", str(number)) for number in range(MOVES + 1)
        ]
        await lab.versions.promote(versions[0].version_id)
        watchers = [start("watching.py", lasting_url, str(pause), str(MOVES)) for pause in PAUSES.values()]
        try:
            for watcher in watchers:
                assert watcher.stdout is not None
                assert await asyncio.to_thread(watcher.stdout.readline) == "ready\n"
            for version in versions[1:]:
                await asyncio.sleep(BETWEEN_SECONDS)
                await lab.versions.promote(version.version_id)
                moved[version.template] = time.monotonic()
            served = [await asyncio.to_thread(said, watcher) for watcher in watchers]
        finally:
            for watcher in watchers:
                watcher.kill()
                watcher.communicate()
    for rhythm, seen in zip(PAUSES, served, strict=True):
        # one that asks seldom may miss a move that is overtaken by the next; none goes back
        assert str(MOVES) in seen
        assert list(seen) == sorted(seen, key=int)
        with capsys.disabled():
            print(f"\n{rhythm:16} {distribution([seen[n] - moved[n] for n in moved if n in seen])}")


def distribution(delays: list[float]) -> str:
    late = sorted(1_000 * delay for delay in delays)
    return (
        f"{len(late)} of {MOVES} moves seen after {statistics.median(late):.0f} ms (median),"
        f" {late[int(0.95 * (len(late) - 1))]:.0f} ms (95 %), {late[-1]:.0f} ms (longest)"
    )
