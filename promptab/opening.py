"""`promptab.open()`: a lab on the store of a URL, closed at the end of `async with`, or of the program."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import Any

from promptab.access import OPEN_SECONDS, Access
from promptab.lab import Lab
from promptab.managed import Clock, utc_now
from promptab.queueing import DEFAULT_QUEUE, Durability, QueueSettings
from promptab.shadowing import DEFAULT_SHADOWS, ShadowSettings, check_shadow_settings
from promptab.stores.base import Store
from promptab.stores.opening import open_until_the_loop_ends


class Opening:
    """What `promptab.open` returns: for `async with`, or to be awaited where nothing closes the lab but the
    program's end.
    """

    def __init__(self, clock: Clock, access: Access, shadows: ShadowSettings) -> None:
        self._clock = clock
        self._access = access
        self._shadows = shadows
        self._lab: Lab | None = None

    def __await__(self) -> Generator[Any, None, Lab]:
        return self._open_for_good().__await__()

    async def __aenter__(self) -> Lab:
        self._lab = Lab(await self._open(), clock=self._clock, shadows=self._shadows)
        return self._lab

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lab is not None:
            await self._lab.close()

    async def _open_for_good(self) -> Lab:
        store = await open_until_the_loop_ends(self._open)
        return Lab(store, clock=self._clock, shadows=self._shadows)

    async def _open(self) -> Store:
        return await self._access.open(self._clock)


def open(  # noqa: A001 - `promptab.open` is the name users write
    url: str | None = None,
    *,
    clock: Clock = utc_now,
    timeout: float = OPEN_SECONDS,
    snapshot_file: str | Path | None = None,
    may_be_away: bool = False,
    durability: Durability = "normal",
    queue: QueueSettings = DEFAULT_QUEUE,
    shadows: ShadowSettings = DEFAULT_SHADOWS,
) -> Opening:
    """Open a store and its managers: `async with promptab.open() as lab`.

    The URL is the argument, else `PROMPTAB_URL`, else `sqlite:///promptab.db`; `sqlite:///:memory:` is gone
    when closed. `clock` tells the time everywhere. With `durability="full"` what was written survives a loss of
    power too, and not only the end of the process; `queue` bounds what waits to be written, and `shadows` what
    runs in the shadow.

    Opening takes `timeout` seconds at most, 0.1 to 3600; a long migration may need more than the default of 60. Where
    the store cannot be reached in that time and `snapshot_file` holds a snapshot, `choose` serves from that, says so
    by its age, and goes over to the store when that is back; the file is written anew with every change that is seen.
    With `may_be_away` there is a lab also without a snapshot: `choose` and `complete` serve their `fallback` until
    the store is there, and raise `StoreUnavailableError` where they have none. Otherwise opening raises that error
    after the time; and what `open_store` raises in any case.
    """
    access = Access(url, timeout, snapshot_file, may_be_away, durability, queue)
    return Opening(clock, access, check_shadow_settings(shadows))
