"""Getting at a store in a time that is bounded, or at the snapshot file that stands in for it."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from promptab.checks import check_flag, check_number
from promptab.errors import InvalidInputError, StoreUnavailableError
from promptab.managed import Clock
from promptab.queueing import Durability, QueueSettings
from promptab.stores.base import Store
from promptab.stores.opening import open_away, open_store, resolve_url, shown_location

if TYPE_CHECKING:
    from promptab.snapshot import Snapshot

OPEN_SECONDS = 60.0
"""How long opening may take unless the caller says otherwise."""

logger = logging.getLogger("promptab")


class Access:
    """What `promptab.open` was told about where the store is and how it is used."""

    def __init__(
        self,
        url: str | None,
        timeout: float,
        snapshot_file: str | Path | None,
        may_be_away: bool,  # noqa: FBT001 - as promptab.open was told
        durability: Durability,
        queue: QueueSettings,
    ) -> None:
        self._url = url
        self._timeout = check_number("timeout", timeout, low=0.1, high=3600.0)
        self._path = None if snapshot_file is None else _checked_path(snapshot_file)
        self._may_be_away = check_flag("may_be_away", may_be_away)
        self._durability: Durability = durability
        self._queue = queue

    async def open(self, clock: Clock) -> Store:
        """Return the store, reached or not; raises `StoreUnavailableError` where there is no snapshot to begin with."""
        try:
            store = await self._reached()
        except StoreUnavailableError as error:
            if self._path is None and not self._may_be_away:
                raise
            filed = None if self._path is None else await self._filed(self._path, error, clock)
            store = open_away(error, filed, self._url, durability=self._durability, queue=self._queue)
        if self._path is not None:
            store.prepare_snapshots(_Keeper(self._path, clock))
        return store

    async def _reached(self) -> Store:
        opening = asyncio.ensure_future(open_store(self._url, durability=self._durability, queue=self._queue))
        try:
            await asyncio.wait({opening}, timeout=self._timeout)
        except asyncio.CancelledError:
            _give_up(opening)
            raise
        if opening.done():
            return opening.result()
        _give_up(opening)
        raise StoreUnavailableError(
            f"{shown_location(resolve_url(self._url))}: not open after {self._timeout:g} s; "
            "see whether the database is there, or allow it more time by timeout="
        )

    async def _filed(
        self, path: Path, error: StoreUnavailableError, clock: Clock
    ) -> tuple[Snapshot, float] | None:
        """Return the snapshot in the file and its age in seconds; None where there is none and none is needed."""
        from promptab.snapshot_file import read_snapshot  # noqa: PLC0415 - most programs never need it

        try:
            filed = await asyncio.to_thread(read_snapshot, path)
        except InvalidInputError as fault:
            if self._may_be_away:
                logger.warning("serving fallbacks alone, since there is no snapshot (%s): %s", fault, error)
                return None
            raise StoreUnavailableError(
                f"{error}; and there is no snapshot to begin with: {fault}"
            ) from error
        for left_out in filed.faults:
            logger.error("left out of %s: %s", path, left_out)
        age = filed.age(clock())
        logger.warning("serving from %s, written %.0f s ago: %s", path, age, error)
        return filed.snapshot, age


class _Keeper:
    """Keeps the snapshot file in step with what a store shows. Held by the store that calls it."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._failing = False

    async def __call__(self, snapshot: Snapshot) -> None:
        from promptab.snapshot_file import write_snapshot  # noqa: PLC0415 - as above

        write = partial(write_snapshot, self._path, snapshot, taken_at=self._clock())
        # of its own: behind a program's blocking calls in the loop's threads a snapshot would wait for them; and made
        # for this file, since the child of a fork would wait for its parent's for good
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="promptab-snapshot-file")
        try:
            await asyncio.get_running_loop().run_in_executor(thread, write)
        except InvalidInputError as error:
            if not self._failing:
                logger.warning("the snapshot file is not kept up to date: %s", error)
            self._failing = True
        else:
            self._failing = False
        finally:
            thread.shutdown(wait=False)


def _checked_path(path: object) -> Path:
    if not isinstance(path, str | Path) or not str(path) or "\x00" in str(path):
        raise InvalidInputError("snapshot_file", path, "the path of a file")
    # a relative path means the folder of this moment, also after the program has changed to another one
    return Path(path).absolute()


def _give_up(opening: asyncio.Future[Store]) -> None:
    """Stop an opening that nobody waits for; should it end well all the same, close what it opened."""
    opening.cancel()
    opening.add_done_callback(_close_late)


def _close_late(opening: asyncio.Future[Store]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        closing = asyncio.ensure_future(opening.result().close())
        _closing.add(closing)
        closing.add_done_callback(_closing.discard)


_closing: set[asyncio.Future[None]] = set()
