"""Regular expressions on an answer, with a limit of time that holds for every pattern.

Python's matcher may take time exponential in the length of a text, holds the interpreter's lock while it does, and
cannot be stopped from another thread. So it works in a process of its own, which can be ended.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

MATCHING_SECONDS = 5.0
"""For all patterns of one case together, the start of the process included."""

_WORKER = Path(__file__).with_name("pattern_worker.py")


async def unmatched(patterns: Sequence[str], answer: str, *, seconds: float = MATCHING_SECONDS) -> list[str]:
    """Return a sentence for each pattern that is not found in the answer, or took too long to look for."""
    if not patterns:
        return []
    worker = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        str(_WORKER),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    found: list[bool | str] = []
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await _ask(worker, patterns, answer, found)
    finally:
        await asyncio.shield(asyncio.ensure_future(_end(worker)))
    return [
        _sentence(pattern, found[index] if index < len(found) else None, seconds)
        for index, pattern in enumerate(patterns)
        if index >= len(found) or found[index] is not True
    ]


async def _ask(
    worker: asyncio.subprocess.Process, patterns: Sequence[str], answer: str, found: list[bool | str]
) -> None:
    assert worker.stdin is not None and worker.stdout is not None  # noqa: S101, PT018 - both are pipes
    # escapes only, so that half a surrogate pair in an answer is no reason to fail
    worker.stdin.write(json.dumps({"patterns": list(patterns), "text": answer}).encode())
    worker.stdin.close()
    while line := await worker.stdout.readline():
        found.append(json.loads(line))
    await worker.wait()


async def _end(worker: asyncio.subprocess.Process) -> None:
    # killing one that has ended, and that the loop has not heard of, takes its exit code away from the loop
    if worker.returncode is None:
        with suppress(ProcessLookupError):
            worker.kill()
    # not `wait` alone: that leaves the pipes open
    await worker.communicate()


def _sentence(pattern: str, found: bool | str | None, seconds: float) -> str:  # noqa: FBT001 - what the worker said
    if found is None:
        return f"looking for {pattern!r} takes more than {seconds:g} seconds"
    if isinstance(found, str):
        return f"{pattern!r} is no regular expression: {found}"
    return f"does not match {pattern!r}"
