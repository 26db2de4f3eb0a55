"""What the managers share: one store, given or found at first use, and a clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from promptab.errors import NeedsStoreError
from promptab.stores.base import Store
from promptab.stores.opening import default_store, default_store_at_hand

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


class Managed:
    """A manager of one store.

    Without a store it uses the default one of the running event loop, opened at first use; the constructor
    does no I/O.
    """

    def __init__(self, store: Store | None = None, *, clock: Clock = utc_now) -> None:
        self._given = store
        self._clock = clock

    async def _store(self) -> Store:
        return self._given if self._given is not None else await default_store()

    def _store_at_hand(self) -> Store:
        """Return the store without waiting. Raises `NeedsStoreError` where the default one is not open yet."""
        store = self._given if self._given is not None else default_store_at_hand()
        if store is None:
            raise NeedsStoreError("no store is open yet in this event loop; await any other call first")
        return store
