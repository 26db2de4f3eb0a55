"""A store on a database that SQLAlchemy speaks to: transactions, the snapshot, group commit.

What a database does its own way (how to write a batch of events, and whether its connections may be used side
by side) is in the subclasses.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from promptab.errors import StoreError, StoreUnavailableError
from promptab.models import Exposure, MetricEvent
from promptab.snapshot import Snapshot
from promptab.stores import schema
from promptab.stores.base import Transaction, Work
from promptab.stores.driver_errors import translated
from promptab.stores.group_commit import BatchOutcome, GroupCommit, Row
from promptab.stores.picture import take_snapshot
from promptab.stores.queries.costs import CostQueries
from promptab.stores.queries.crossing import CrossingQueries
from promptab.stores.queries.deployments import DeploymentQueries
from promptab.stores.queries.events import EventQueries
from promptab.stores.queries.experiments import ExperimentQueries
from promptab.stores.queries.exposures import ExposureQueries
from promptab.stores.queries.metric_history import MetricHistoryQueries
from promptab.stores.queries.rollup import RollupQueries
from promptab.stores.queries.versions import VersionQueries

T = TypeVar("T")

CHECK_SECONDS = 0.25
"""How old a snapshot may be before the store is asked whether another process has changed something; also how
long a store that could not be asked is left alone.
"""

HELD_EXPOSURES = 100_000
"""Exposures remembered from look-ups."""

TOLD_EXPOSURES = 100_000
"""Units remembered as exposed, so that a unit that comes again is not written again."""

logger = logging.getLogger("promptab")


class SqlStore(ABC):
    """The parts of `promptab.stores.base.Store` that every database shares."""

    shared = True

    def __init__(self, engine: AsyncEngine, *, url: str, store_id: str) -> None:
        self._engine = engine
        self._url = url
        self._store_id = store_id
        self._told: set[tuple[str, str]] = set()
        self._held: dict[tuple[str, str], Exposure | None] = {}
        self._queue = GroupCommit(self._commit_batch, on_refusal=self._told.clear)
        self._snapshot: Snapshot | None = None
        self._changes = 0
        """Writes that have ended so far, and how many of them the snapshot is known to show."""
        self._shown_changes = -1
        self._confirmed_at = float("-inf")
        self._asked_at = float("-inf")
        self._away = False
        self._refreshing = asyncio.Lock()
        self._running: set[asyncio.Task[Any]] = set()
        self._closing: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return self._url

    @property
    def store_id(self) -> str:
        return self._store_id

    async def read(self, work: Work[T]) -> T:
        return await self._to_its_end(self._transact(work, writes=False))

    async def write(self, work: Work[T], *, shown: bool = True) -> T:
        return await self._to_its_end(self._transact(work, writes=True, shown=shown))

    async def snapshot(self) -> Snapshot:
        if self._closing is not None:
            raise self._closed_error()
        current = self._snapshot
        if current is not None and not self._due():
            return current
        async with self._refreshing:
            if self._snapshot is not None and not self._due():
                return self._snapshot
            return await self._refresh()

    def snapshot_age(self) -> float:
        return time.monotonic() - self._confirmed_at

    async def record(self, event: MetricEvent) -> MetricEvent:
        flagged = await self._queue.submit(event)
        return event.model_copy(update={"flagged": True}) if flagged else event

    def enqueue(self, exposure: Exposure) -> None:
        key = (exposure.experiment_id, exposure.unit)
        if key in self._told:
            return
        if len(self._told) >= TOLD_EXPOSURES:
            self._told.clear()
        self._told.add(key)
        self._queue.enqueue(exposure)

    async def held(self, experiment_id: str, unit: str) -> Exposure | None:
        key = (experiment_id, unit)
        if key not in self._held:
            await self._queue.flush()

            async def work(tx: Transaction) -> Exposure | None:
                return await tx.exposures.get(experiment_id, unit)

            self._remember(key, await self.read(work))
        return self._held[key]

    async def keep(self, exposure: Exposure) -> Exposure:
        async def work(tx: Transaction) -> Exposure:
            return await tx.exposures.keep(exposure)

        return await self._changed_exposure(work)

    async def serve_instead(self, held: Exposure, variant: str) -> Exposure:
        async def work(tx: Transaction) -> Exposure:
            return await tx.exposures.serve_instead(held, variant)

        return await self._changed_exposure(work)

    async def flush(self) -> None:
        await self._queue.flush()

    async def close(self) -> None:
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
        # whoever closes may be cancelled; what is queued is written all the same
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await self._queue.close()
        if self._running:
            await asyncio.gather(*self._running, return_exceptions=True)
        await self._release()
        await self._engine.dispose()

    async def _changed_exposure(self, work: Work[Exposure]) -> Exposure:
        await self._queue.flush()
        held = await self._to_its_end(self._transact(work, writes=True, shown=False))
        self._remember((held.experiment_id, held.unit), held)
        return held

    def _remember(self, key: tuple[str, str], held: Exposure | None) -> None:
        if len(self._held) >= HELD_EXPOSURES:
            self._held.clear()
        self._held[key] = held

    @abstractmethod
    async def _commit_batch(self, rows: Sequence[Row]) -> BatchOutcome:
        """Write the rows in one transaction."""

    async def _release(self) -> None:  # noqa: B027 - most databases have nothing beside the engine to give back
        """Give back what the subclass holds beside the engine."""

    @abstractmethod
    def _turn(self, *, writes: bool) -> AbstractAsyncContextManager[Any]:
        """Return what a transaction of this process holds while it runs, so that others wait for it in order."""

    @asynccontextmanager
    async def _connection(self, *, writes: bool) -> AsyncIterator[AsyncConnection]:
        async with self._turn(writes=writes):
            with translated(self._url):
                async with self._engine.connect() as connection:
                    await connection.execution_options(promptab_writes=writes)
                    async with connection.begin():
                        yield connection

    async def _transact(self, work: Work[T], *, writes: bool, shown: bool = True) -> T:
        try:
            async with self._connection(writes=writes) as connection:
                if writes and shown:
                    # first, so that the writers of a database with finer locks wait for one another here
                    await connection.execute(
                        update(schema.store).values(revision=schema.store.c.revision + 1)
                    )
                return await work(_transaction(connection))
        finally:
            # here and not in the caller, who may have been cancelled before the commit
            self._changes += writes and shown

    def _due(self) -> bool:
        asked_lately = time.monotonic() - self._asked_at <= CHECK_SECONDS
        if self._away:
            return not asked_lately
        return self._shown_changes != self._changes or (self.shared and not asked_lately)

    async def _refresh(self) -> Snapshot:
        asked_at, changes = time.monotonic(), self._changes
        try:
            snapshot = await self._to_its_end(self._take_snapshot())
        except StoreError as error:
            if self._snapshot is None:
                raise
            if not self._away:
                logger.warning("serving from a snapshot of %.1f s ago: %s", self.snapshot_age(), error)
            self._away = True
            self._asked_at = time.monotonic()
            return self._snapshot
        if snapshot is not self._snapshot:
            self._held.clear()
        self._snapshot = snapshot
        self._asked_at = self._confirmed_at = asked_at
        self._shown_changes = changes
        self._away = False
        return snapshot

    async def _take_snapshot(self) -> Snapshot:
        async with self._connection(writes=False) as connection:
            revision = (await connection.execute(select(schema.store.c.revision))).scalar_one()
            if self._snapshot is not None and self._snapshot.revision == revision:
                return self._snapshot
            return await take_snapshot(_transaction(connection), store_id=self._store_id, revision=revision)

    async def _to_its_end(self, transaction: Coroutine[Any, Any, T]) -> T:
        """Await it so that a cancelled caller leaves at once, and the transaction still commits or rolls
        back.
        """
        if self._closing is not None:
            transaction.close()
            raise self._closed_error()
        task = asyncio.get_running_loop().create_task(transaction)
        self._running.add(task)
        task.add_done_callback(self._finished)
        return await asyncio.shield(task)

    def _closed_error(self) -> StoreUnavailableError:
        return StoreUnavailableError(f"{self._url}: the store is closed; open it again")

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # a caller that was cancelled does not collect it


def _transaction(connection: AsyncConnection) -> Transaction:
    return Transaction(
        versions=VersionQueries(connection),
        deployments=DeploymentQueries(connection),
        experiments=ExperimentQueries(connection),
        exposures=ExposureQueries(connection),
        events=EventQueries(connection),
        rollup=RollupQueries(connection),
        crossing=CrossingQueries(connection),
        history=MetricHistoryQueries(connection),
        costs=CostQueries(connection),
    )
