"""Looks for a new snapshot while a provider is in use, and tells what has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from openfeature.event import ProviderEvent, ProviderEventDetails
from openfeature.exception import ErrorCode

from promptab.errors import StoreError
from promptab.integrations.openfeature.flags import changed_prompts
from promptab.stores.base import Store

LOOK_SECONDS: Final = 0.5
"""How long a change of another process may go unseen, beside the time that the store takes."""

Emit = Callable[[ProviderEvent, ProviderEventDetails], None]


class Watch:
    """What a provider has told of its store so far. Belongs to the event loop of the store."""

    def __init__(self, store: Store, emit: Emit) -> None:
        self._store = store
        self._emit = emit
        self._seen = store.latest_snapshot()
        self._told = ProviderEvent.PROVIDER_ERROR if self._seen is None else ProviderEvent.PROVIDER_READY

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        try:
            snapshot = await self._store.snapshot()
        except StoreError as error:
            self._tell(ProviderEvent.PROVIDER_ERROR, str(error), ErrorCode.PROVIDER_NOT_READY)
            return
        if self._store.away:
            age = self._store.snapshot_age()
            self._tell(ProviderEvent.PROVIDER_STALE, f"the store is away; served as of {age:.1f} s ago")
        else:
            self._tell(ProviderEvent.PROVIDER_READY, "the store can be reached")
        before, self._seen = self._seen, snapshot
        if before is None or before is snapshot:
            return
        if changed := [prompt.key for prompt in changed_prompts(before, snapshot)]:
            details = ProviderEventDetails(flags_changed=changed, message=f"changed: {', '.join(changed)}")
            self._emit(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, details)

    def _tell(self, event: ProviderEvent, message: str, error: ErrorCode | None = None) -> None:
        if event is not self._told:
            self._told = event
            self._emit(event, ProviderEventDetails(message=message, error_code=error))
