"""An event loop that counts its steps, so that a task can be cancelled in each of them in turn."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

T = TypeVar("T")


class StepCounter(selectors.DefaultSelector):
    """A loop asks its selector exactly once per step; here the armed task is cancelled at the chosen one."""

    def __init__(self) -> None:
        super().__init__()
        self._task: asyncio.Task[Any] | None = None
        self._left = 0

    def arm(self, task: asyncio.Task[Any], steps: int) -> None:
        self._task, self._left = task, steps

    def disarm(self) -> None:
        self._task = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self._task is not None:
            self._left -= 1
            if self._left <= 0:
                self._task.cancel()
                self._task = None
                # the cancellation has to run in this very step: the loop has counted its work already
                timeout = 0
        return super().select(timeout)


class SteppingRunner:
    """Runs coroutines in one loop; use it as a context."""

    def __init__(self) -> None:
        self._counter = StepCounter()
        self._runner = asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(self._counter))

    def __enter__(self) -> Self:
        self._runner.__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        self._runner.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    async def cancelled_at(self, step: int, call: Coroutine[Any, Any, T]) -> tuple[bool, T | None]:
        """Cancel the call in that step of the loop, counted from 1; return whether it was, and else its result."""
        task = asyncio.ensure_future(call)
        self._counter.arm(task, step)
        await asyncio.wait({task})
        self._counter.disarm()
        return (True, None) if task.cancelled() else (False, task.result())
