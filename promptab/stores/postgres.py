"""PostgreSQL: several processes, on several machines, on one store.

Every transaction sees one state of the database (REPEATABLE READ). A write that a snapshot shows is alone among
writes, as on SQLite: it locks the store's table before it looks at anything. The others run beside one another,
but never beside such a one. Events are written beside all of them.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from time import monotonic
from typing import Any, TypeVar

from sqlalchemy import Text, cast, func, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from promptab.errors import StoreError, StoreUnavailableError
from promptab.queueing import QueueSettings
from promptab.snapshot import Snapshot
from promptab.stores import schema
from promptab.stores.base import Leadership, Transaction, Work
from promptab.stores.driver_errors import SERIALIZATION_FAILURES, sqlstate, translated
from promptab.stores.event_rows import Batch, BatchOutcome
from promptab.stores.postgres_connecting import Server
from promptab.stores.postgres_events import PostgresEvents
from promptab.stores.postgres_leading import PostgresLeadership
from promptab.stores.postgres_revisions import PostgresRevisions, channel_of
from promptab.stores.queries.unit_totals import SETTLED
from promptab.stores.sql import SqlStore

T = TypeVar("T")

WRITERS = 3
"""Writes of one process at a time; the rest of the pool is for those who read."""

ATTEMPTS = 8
"""How often a transaction is run while others are in its way."""

SETTLING_SECONDS = 0.5
"""How long a roll-up waits for the events that are just being written."""

_ALONE = text("LOCK TABLE promptab_store IN SHARE ROW EXCLUSIVE MODE")
_BESIDE_OTHERS = text("LOCK TABLE promptab_store IN SHARE MODE")
"""Neither looks at the data, so that the transaction's one state is the newest when it has the lock."""

_LAST_NUMBER = text("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM promptab_events_sequence_seq")
_WRITING_EVENTS = text(
    "SELECT virtualtransaction FROM pg_locks WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND relation = 'promptab_events'::regclass"
)
"""Every transaction that has inserted an event holds this lock from before it got the event's number to its end."""


class PostgresStore(SqlStore):
    def __init__(
        self, engine: AsyncEngine, *, server: Server, store_id: str, queue: QueueSettings | None = None
    ) -> None:
        super().__init__(engine, url=server.url, store_id=store_id, queue=queue or QueueSettings())
        self._server = server
        self._events = PostgresEvents(server)
        self._writers = asyncio.Semaphore(WRITERS)
        self._settled = 0
        """No event can come any more whose number is not above this one."""

    async def write(self, work: Work[T], *, shown: bool = True) -> T:
        if shown:
            return await super().write(work)
        return await self._to_its_end(self._rolling_up(work))

    def leadership(self, name: str, *, seconds: float) -> Leadership:
        return PostgresLeadership(self, self._server, name, seconds=seconds)

    def after_fork_in_child(self) -> None:
        super().after_fork_in_child()
        # held, as it would be closed otherwise, which is the parent's to do
        self._parents.append(self._events)
        self._events = PostgresEvents(self._server)
        self._writers = asyncio.Semaphore(WRITERS)

    async def _commit_batch(self, batch: Batch) -> BatchOutcome:
        return await self._events.write(batch)

    async def _release(self) -> None:
        await self._events.close()

    def _revisions(self) -> PostgresRevisions:
        return PostgresRevisions(
            self._server, channel=channel_of(self._store_id), on_change=self._served.hint
        )

    def _turn(self, *, writes: bool) -> AbstractAsyncContextManager[Any]:
        # those who would wait for one another in the database wait here, where they hold no connection
        return self._writers if writes else nullcontext()

    def _options(self, *, writes: bool) -> dict[str, Any]:
        return {"postgresql_readonly": not writes, SETTLED: self._settled}

    async def _begin_write(self, connection: AsyncConnection, *, shown: bool) -> None:
        await connection.execute(_ALONE if shown else _BESIDE_OTHERS)
        if shown:
            revision = schema.store.c.revision
            told = func.pg_notify(channel_of(self._store_id), cast(revision, Text))
            await connection.execute(update(schema.store).values(revision=revision + 1).returning(told))

    async def _transact(self, work: Work[T], *, writes: bool, shown: bool = True) -> T:
        worked = False

        async def noted(tx: Transaction) -> T:
            nonlocal worked
            worked = False
            result = await work(tx)
            worked = True
            return result

        async def run() -> T:
            try:
                return await super(PostgresStore, self)._transact(noted, writes=writes, shown=shown)
            except StoreError as error:
                if not (worked and writes and _connection_was_lost(error)):
                    raise
                # asked to commit, and never answered
                raise StoreUnavailableError(
                    f"{error}; whether the change was made is not known: look before you make it again"
                ) from error

        return await _undisturbed(run)

    async def _take_snapshot(self, current: Snapshot | None) -> Snapshot:
        return await _undisturbed(lambda: super(PostgresStore, self)._take_snapshot(current))

    async def _rolling_up(self, work: Work[T]) -> T:
        # what may be rolled up has to be known before the transaction's one state is taken
        await _undisturbed(self._settle)
        return await self._transact(work, writes=True, shown=False)

    async def _settle(self) -> None:
        """Find a number behind which no event can appear: one that is given out may be committed after later ones.

        Whoever holds a number that was given out so far holds the table's lock too. When all who hold it now have
        ended, what they wrote is there to be seen. Where one takes longer the last number found holds.
        """
        ends_at = monotonic() + SETTLING_SECONDS
        known = self._settled
        with translated(self._url):
            async with self._engine.connect() as connection:
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                number = int((await connection.execute(_LAST_NUMBER)).scalar_one())
                if number < known:
                    # a crash or a backup has set it back: numbers that were settled are given out again
                    self._settled = 0
                if number == self._settled:
                    return
                writing = set((await connection.execute(_WRITING_EVENTS)).scalars())
                pause = 0.001
                while writing and monotonic() < ends_at:
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, 0.05)
                    writing &= set((await connection.execute(_WRITING_EVENTS)).scalars())
        if not writing:
            self._settled = max(self._settled, number)


async def _undisturbed(run: Callable[[], Awaitable[T]]) -> T:
    """Run a transaction until others are no longer in its way; once more where its connection had died idle."""
    for attempt in range(1, ATTEMPTS):
        try:
            return await run()
        except StoreError as error:
            died_idle = attempt == 1 and _connection_was_lost(error)
            if not died_idle and sqlstate(error) not in SERIALIZATION_FAILURES:
                raise
        await asyncio.sleep(random.uniform(0, 0.005 * 2**attempt))  # noqa: S311 - jitter
    return await run()


def _connection_was_lost(error: StoreError) -> bool:
    cause = error.__cause__
    return isinstance(cause, DBAPIError) and cause.connection_invalidated
