"""Patterns on an answer, in a process that can be ended."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from promptab.trying.patterns import unmatched

ENDLESS = "(a+)+$"
VICTIM = "a" * 60 + "b"


def workers() -> set[int]:
    """Return the processes of this one's that look for patterns."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    if not children.exists():
        pytest.skip("this system does not tell which processes there are")
    found = set()
    for child in children.read_text().split():
        line = Path(f"/proc/{child}/cmdline")
        if line.exists() and b"pattern_worker" in line.read_bytes():
            found.add(int(child))
    return found


async def one_works(*, wanted: bool) -> None:
    async with asyncio.timeout(20):
        while bool(workers()) != wanted:  # noqa: ASYNC110 - another process's doing
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("patterns", "answer", "found"),
    [
        ([], "x", []),
        ([r"\d+", "(?i)HELLO", r"\Ah"], "hello 42", []),
        ([r"\d+", "^b"], "a 42\nb", ["does not match '^b'"]),
        ([r"(?m)^b$"], "a 42\nb", []),
        (["é|\\u00e8", "😀"], "\u00e8 😀 \ud800", []),
        (["a", "[", "b"], "ab", ["'[' is no regular expression: unterminated character set at position 0"]),
        (["x" * 50], "y" * 500_000, [f"does not match '{'x' * 50}'"]),
    ],
    ids=["none", "found", "not_found", "flags", "unicode", "no_pattern", "long"],
)  # fmt: skip
async def test_patterns_are_found_or_told(patterns: list[str], answer: str, found: list[str]) -> None:
    assert await unmatched(patterns, answer, seconds=60.0) == found


async def test_a_pattern_without_end_is_ended_and_told() -> None:
    began = time.monotonic()
    found = await unmatched(["a", ENDLESS, "b"], VICTIM, seconds=1.5)
    assert time.monotonic() - began < 15
    assert found == [
        f"looking for {ENDLESS!r} takes more than 1.5 seconds",
        "looking for 'b' takes more than 1.5 seconds",
    ]
    assert workers() == set()


async def test_other_work_goes_on_while_a_pattern_is_looked_for() -> None:
    looking = asyncio.ensure_future(unmatched([ENDLESS], VICTIM, seconds=1.0))
    turns = 0
    while not looking.done():
        await asyncio.sleep(0.01)
        turns += 1
    assert turns > 20
    assert len(await looking) == 1


async def test_a_caller_that_leaves_takes_the_process_along() -> None:
    looking = asyncio.ensure_future(unmatched([ENDLESS], VICTIM, seconds=60.0))
    await one_works(wanted=True)
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking
    await one_works(wanted=False)


async def test_a_process_that_dies_has_found_nothing() -> None:
    looking = asyncio.ensure_future(unmatched([ENDLESS], VICTIM, seconds=60.0))
    await one_works(wanted=True)
    for worker in workers():
        os.kill(worker, signal.SIGKILL)
    async with asyncio.timeout(20):
        (said,) = await looking
    assert "takes more than" in said


async def test_every_process_ends_in_the_sight_of_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    """A process whose exit code somebody else has taken is told of by asyncio, in the middle of a command's output."""
    for _ in range(8):
        assert await asyncio.gather(*(unmatched(["a", "b"], "ab") for _ in range(5))) == [[]] * 5
    assert caplog.messages == []
