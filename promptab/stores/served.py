"""The snapshot that a store serves from: built off the hot path, swapped whole, kept fresh while it is in use.

Nothing runs while nobody asks. Whoever asks for a snapshot that has not been confirmed for `CHECK_SECONDS` starts
a check in the background and is answered at once from the one at hand; past `LATEST_SECONDS`, and where this
process has written something that is not shown yet, the caller waits for the check. So what is served is never
older than that while the store can be reached; and when it cannot, the last snapshot is served on.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import logging
import math
import weakref
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Protocol

from promptab.errors import StoreError, StoreUnavailableError
from promptab.snapshot import Snapshot

CHECK_SECONDS = 0.25
"""How old a snapshot may be before the store is asked whether another process has changed something; also how
long a store that could not be asked is left alone.
"""

LATEST_SECONDS = 0.5
"""How old a snapshot may be before a caller waits for the check, where the store can be reached."""

PATIENCE_SECONDS = 1.0
"""How long a caller who has a snapshot at hand waits for a check, before the store counts as away."""

logger = logging.getLogger("promptab")

Take = Callable[[Snapshot | None], Awaitable[Snapshot]]
"""Reads the snapshot in one transaction; returns the one it is given where that is what the store shows."""


Prepare = Callable[[Snapshot], Awaitable[None]]


class Revisions(Protocol):
    """Where the revision number of a store is read, beside its transactions."""

    async def current(self) -> int:
        """Return the revision as it is committed now.

        Asked up to four times a second while snapshots are in use, and never by two at once. Raises
        `StoreUnavailableError` where it cannot be read in a time that is bounded.
        """

    async def close(self) -> None: ...


class ServedSnapshot:
    """One store's snapshot. Belongs to the event loop of its store."""

    def __init__(self, take: Take, revisions: Callable[[], Revisions | None], *, url: str) -> None:
        """`revisions` makes the source at the first check; it gives None where no other process can write."""
        self._take = take
        self._make_source = revisions
        self._source: Revisions | None = None
        self._source_made = False
        self._url = url
        self._current: Snapshot | None = None
        self._changes = 0
        """Writes of this process that have ended, and (below) how many of them the snapshot is known to show."""
        self._shown_changes = -1
        self._confirmed_at = -math.inf
        self._due_at = -math.inf
        self._away = False
        self._borrowed = False
        """Whether the snapshot is not this store's own, but one to begin with."""
        self._failure: StoreError | None = None
        self._check: asyncio.Task[None] | None = None
        self._closed = False
        self._preparations: list[Callable[[], Prepare | None]] = []

    def prepare_with(self, prepare: Prepare) -> None:
        """Await this with each new snapshot before it is served; a bound method for as long as its object lives."""
        self._preparations = [known for known in self._preparations if known() is not None]
        bound = inspect.ismethod(prepare)
        self._preparations.append(weakref.WeakMethod(prepare) if bound else lambda: prepare)

    def fresh(self) -> Snapshot | None:
        """Return the snapshot to serve from without waiting, or None where `get` has to be awaited.

        Starts the check that is due, if there is a snapshot. While the store is away, the last one counts as fresh.
        """
        return self._current if monotonic() < self._due_at else self._when_due()

    def latest(self) -> Snapshot | None:
        """Return whatever snapshot is at hand, however old, and start a check where one is due."""
        if self.fresh() is None and self._current is None and not self._closed:
            self._begin()
        return None if self._closed else self._current

    async def get(self) -> Snapshot:
        """Return a snapshot that shows all that this process has written.

        Raises `StoreUnavailableError` where there has not been one yet and the store is away.
        """
        fresh = self.fresh()
        wanted = self._changes
        while fresh is None:
            if self._closed:
                raise self.closed_error()
            if self._current is None and self._away and monotonic() < self._due_at:
                raise self._failure or self.closed_error()
            check = self._begin()
            # a caller who is cancelled leaves; the check goes on for the others
            await asyncio.wait({check}, timeout=self._patience())
            if check.done():
                check.result()
            elif self._current is not None or self._away:
                self._lost(StoreUnavailableError(f"{self._url}: no answer for {PATIENCE_SECONDS:g} s"))
            if self._current is None:
                raise self._failure or self.closed_error()
            if self._away or self._shown_changes >= wanted:
                return self._current
        return fresh

    @property
    def away(self) -> bool:
        """Whether the store could not be asked at the last attempt."""
        return self._away

    def require(self) -> None:
        """Raise `StoreUnavailableError` at once where the store is away, for those who would rather not wait."""
        if self._away and not self._closed:
            raise StoreUnavailableError(f"{self._url}: the store is away") from self._failure

    def age(self) -> float:
        """Return the seconds since the store last confirmed the snapshot; 0 where nobody else can change it."""
        if self._due_at == math.inf:
            return 0.0
        return monotonic() - self._confirmed_at

    def changed(self) -> None:
        """Say that this process has written something: the next snapshot that is given out shows it."""
        self._changes += 1
        self._due_at = -math.inf

    def hint(self) -> None:
        """Say that another process has: the next who asks starts a check, and is answered from what is at hand."""
        self._due_at = -math.inf

    def renew(self) -> None:
        """Replace the snapshot by an equal one, so that what was remembered beside it is forgotten."""
        if self._current is not None:
            self._current = dataclasses.replace(self._current)

    def begin_with(self, snapshot: Snapshot, *, age: float) -> None:
        """Serve a snapshot of `age` seconds ago from somewhere else until the store can be asked."""
        self._current = snapshot
        self._confirmed_at = monotonic() - age
        self._shown_changes = self._changes
        self._away = self._borrowed = True
        self._due_at = -math.inf

    def begin_without(self, failure: StoreUnavailableError) -> None:
        """Serve nothing until the store can be asked, which it could not just now."""
        self._lost(failure)

    def forget(self) -> None:
        """Serve nothing until the store has been asked: what is at hand is another store's."""
        self._current = None
        self._due_at = -math.inf

    def after_fork_in_child(self) -> None:
        """Go on in the child: a check under way is the parent's."""
        self._check = None
        self._due_at = -math.inf

    async def close(self) -> None:
        """Give out nothing any more, and let go of the source."""
        self._closed = True
        self._due_at = -math.inf
        if self._check is not None:
            await asyncio.wait({self._check})
        if self._source is not None:
            await self._source.close()

    def closed_error(self) -> StoreUnavailableError:
        return StoreUnavailableError(f"{self._url}: the store is closed; open it again")

    def _when_due(self) -> Snapshot | None:
        if self._closed or self._current is None:
            return None
        self._begin()
        unshown = self._shown_changes != self._changes
        late = not self._away and self.age() > LATEST_SECONDS
        return None if unshown or late else self._current

    def _patience(self) -> float | None:
        """Return how long to wait for a check; one that gives the first snapshot, or shows a write, is waited for."""
        unshown = self._shown_changes != self._changes
        return None if not self._away and (self._current is None or unshown) else PATIENCE_SECONDS

    def _begin(self) -> asyncio.Task[None]:
        """Return the check under way, beginning one where none is."""
        if self._check is None or self._check.done():
            self._check = asyncio.get_running_loop().create_task(self._refresh())
        return self._check

    async def _refresh(self) -> None:
        began, changes = monotonic(), self._changes
        try:
            snapshot = await self._look(changes)
            if snapshot is not self._current:
                for preparation in self._preparations:
                    if (prepare := preparation()) is not None:
                        await prepare(snapshot)
        except StoreError as error:
            self._lost(error)
            return
        self._current = snapshot
        self._confirmed_at = began
        self._shown_changes = changes
        self._away = self._borrowed = False
        self._failure = None
        alone = self._source is None
        if changes == self._changes:
            self._due_at = math.inf if alone else began + CHECK_SECONDS

    async def _look(self, changes: int) -> Snapshot:
        current, source = self._current, self._source
        if current is None or source is None or self._borrowed or changes != self._shown_changes:
            snapshot = await self._take(current)
            if not self._source_made:
                # only now is it known which store this is
                self._source, self._source_made = self._make_source(), True
            return snapshot
        if await source.current() == current.revision:
            return current
        return await self._take(current)

    def _lost(self, error: StoreError) -> None:
        if self._current is not None and not self._away and not self._closed:
            logger.warning("serving from a snapshot of %.1f s ago: %s", self.age(), error)
        self._away = True
        self._failure = error
        self._due_at = monotonic() + CHECK_SECONDS
