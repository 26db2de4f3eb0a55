"""Staying the leader: claiming again and again, and knowing at every moment whether one still is."""

from __future__ import annotations

import asyncio
from time import monotonic
from types import TracebackType
from typing import Self

from promptab.errors import StoreError
from promptab.stores.base import Leadership

CLAIMS_PER_TERM = 3
"""How often a claim is made in the time that it lasts: two may fail before the leadership is lost."""


class Leading:
    """A leadership that is claimed in the background for as long as the context lasts, and released at its end."""

    def __init__(self, leadership: Leadership, *, seconds: float) -> None:
        """`seconds` are those of the leadership: what each claim lasts."""
        self._leadership = leadership
        self._seconds = seconds
        self._term: int | None = None
        self._until = 0.0
        self._began = asyncio.Event()
        self._claiming: asyncio.Task[None] | None = None
        self.failure: StoreError | None = None
        """Why the last claim could not be made; None where it was granted or refused."""

    @property
    def term(self) -> int | None:
        """The number of the term; None where another one leads, and where nobody can tell any more."""
        return self._term if monotonic() < self._until else None

    async def wait(self, seconds: float) -> None:
        """Return after so many seconds, or as soon as this one begins to lead."""
        assert self._claiming is not None  # noqa: S101 - the context has been entered
        waiting = asyncio.ensure_future(self._began.wait())
        try:
            await asyncio.wait({waiting, self._claiming}, timeout=seconds, return_when="FIRST_COMPLETED")
        finally:
            waiting.cancel()
        if self._claiming.done():
            self._claiming.result()
        self._began.clear()

    async def __aenter__(self) -> Self:
        try:
            await self._claim()
        except BaseException:
            # a claim whose caller was cancelled may be granted all the same
            await self._release()
            raise
        self._claiming = asyncio.create_task(self._go_on_claiming())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._claiming is not None  # noqa: S101 - the context has been entered
        self._claiming.cancel()
        try:
            await asyncio.gather(self._claiming, return_exceptions=True)
        finally:
            await self._release()

    async def _release(self) -> None:
        self._term = None
        try:
            await self._leadership.release()
        except StoreError as failure:
            # the term ends by itself
            self.failure = failure

    async def _go_on_claiming(self) -> None:
        while True:
            await asyncio.sleep(self._seconds / CLAIMS_PER_TERM)
            await self._claim()

    async def _claim(self) -> None:
        # from before the claim, so that this one believes no longer than the store does
        began = monotonic()
        try:
            term = await self._leadership.claim()
        except StoreError as failure:
            self.failure = failure
            return
        self.failure = None
        if term is not None and term != self._term:
            self._began.set()
        self._term, self._until = term, began + self._seconds
