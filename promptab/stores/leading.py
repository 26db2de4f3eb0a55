"""Leading where one machine's processes share a database, or one process has it alone: by a lease row."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING

from promptab.stores.base import Transaction

if TYPE_CHECKING:
    from promptab.stores.base import Store


class LeaseLeadership:
    """A `Leadership` by a row that has to be claimed again before its time is over."""

    def __init__(self, store: Store, name: str, *, seconds: float) -> None:
        self._store = store
        self._name = name
        self._seconds = seconds
        self._holder = _new_holder()

    async def claim(self) -> int | None:
        self._holder = _own(self._holder)
        holder = self._holder

        async def work(tx: Transaction) -> int | None:
            return await tx.leases.claim(self._name, holder, seconds=self._seconds)

        return await self._store.write(work, shown=False)

    async def release(self) -> None:
        holder = _own(self._holder)

        async def work(tx: Transaction) -> None:
            await tx.leases.release(self._name, holder)

        await self._store.write(work, shown=False)


def _new_holder() -> str:
    # the number of the process tells the child of a fork that the name is its parent's
    return f"{os.getpid():x}-{uuid.uuid4().hex[:24]}"


def _own(holder: str) -> str:
    return holder if holder.startswith(f"{os.getpid():x}-") else _new_holder()
