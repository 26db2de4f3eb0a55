"""A store on a database that SQLAlchemy speaks to: transactions, the snapshot, group commit.

What a database does its own way (how to write a batch of events, and whether its connections may be used side
by side) is in the subclasses.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Hashable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from promptab.errors import StoreUnavailableError
from promptab.models import Exposure, MetricEvent
from promptab.queueing import DEFAULT_QUEUE, QueueSettings, QueueStats
from promptab.recent import Recent
from promptab.snapshot import Snapshot
from promptab.stores import schema
from promptab.stores.backlog import report_lost
from promptab.stores.base import Leadership, Transaction, Work
from promptab.stores.driver_errors import translated
from promptab.stores.event_rows import Batch, BatchOutcome, Encode, event_row
from promptab.stores.forking import watch
from promptab.stores.group_commit import GroupCommit
from promptab.stores.leading import LeaseLeadership
from promptab.stores.picture import take_snapshot
from promptab.stores.queries.alert_deliveries import AlertDeliveryQueries
from promptab.stores.queries.alert_retention import AlertRetentionQueries
from promptab.stores.queries.alerts import AlertQueries
from promptab.stores.queries.cases import CaseQueries
from promptab.stores.queries.costs import CostQueries
from promptab.stores.queries.crossing import CrossingQueries
from promptab.stores.queries.decisions import DecisionQueries
from promptab.stores.queries.deployments import DeploymentQueries
from promptab.stores.queries.events import EventQueries
from promptab.stores.queries.experiments import ExperimentQueries
from promptab.stores.queries.exports import ExportQueries
from promptab.stores.queries.exposures import ExposureQueries
from promptab.stores.queries.guard_tallies import GuardTallyQueries
from promptab.stores.queries.guards import GuardQueries
from promptab.stores.queries.leases import LeaseQueries
from promptab.stores.queries.metric_history import MetricHistoryQueries
from promptab.stores.queries.retention import RetentionQueries
from promptab.stores.queries.rolled_up import RolledUpQueries
from promptab.stores.queries.rollouts import RolloutQueries
from promptab.stores.queries.rollup import RollupQueries
from promptab.stores.queries.shadows import ShadowQueries
from promptab.stores.queries.total_rollup import TotalRollupQueries
from promptab.stores.queries.version_totals import VersionTotalQueries
from promptab.stores.queries.versions import VersionQueries
from promptab.stores.served import Prepare, Revisions, ServedSnapshot

T = TypeVar("T")
Arrive = Callable[[], Awaitable[str]]
"""Reaches a database, making or migrating it where that is needed, and returns its store_id."""

logger = logging.getLogger("promptab")

UNKNOWN_STORE = ""
"""The id of a store that has not been reached yet."""

HELD_EXPOSURES = 100_000
"""Exposures remembered from look-ups."""

TOLD_EXPOSURES = 100_000
"""Units remembered as exposed, so that a unit that comes again is not written again."""


class SqlStore(ABC):
    """The parts of `promptab.stores.base.Store` that every database shares."""

    shared = True

    _encode: Encode = staticmethod(event_row)
    """How an event becomes the values that `_commit_batch` takes."""

    def __init__(
        self, engine: AsyncEngine, *, url: str, store_id: str, queue: QueueSettings = DEFAULT_QUEUE
    ) -> None:
        self._engine = engine
        self._url = url
        self._store_id = store_id
        self._told: Recent[tuple[str, str], str] = Recent(TOLD_EXPOSURES)
        self._held: Recent[tuple[str, str], tuple[Exposure | None]] = Recent(HELD_EXPOSURES)
        self._queue = GroupCommit(
            self._commit, encode=self._encode, settings=queue, on_refusal=self._tell_again
        )
        self._served = ServedSnapshot(self._take_snapshot, self._revisions, url=url)
        self._held_beside: Snapshot | None = None
        """The snapshot that the remembered exposures belong to."""
        self._arrive: Arrive | None = None
        """What is still to be done before the database is used, where it could not be reached on opening."""
        self._arriving = asyncio.Lock()
        self._running: set[asyncio.Task[Any]] = set()
        self._writing_once: dict[Hashable, asyncio.Task[None]] = {}
        self._closing: asyncio.Task[None] | None = None
        self._at_end: weakref.finalize[..., Any] = weakref.finalize(
            self, report_lost, self._queue.backlog, url
        )
        """What is done for a store that nobody closed, when it is collected or the program ends."""
        self._parents: list[object] = []
        """What a fork left to the parent: held, so that nothing of it is closed here."""
        watch(self)

    @property
    def url(self) -> str:
        return self._url

    @property
    def store_id(self) -> str:
        return self._store_id

    def begin_away(
        self, snapshot: Snapshot | None, failure: StoreUnavailableError, *, age: float, arrive: Arrive
    ) -> None:
        """Serve from a snapshot of `age` seconds ago, if there is one, until the database can be reached, which
        `arrive` tries and `failure` says why it cannot.
        """
        self._arrive = arrive
        if snapshot is None:
            self._served.begin_without(failure)
        else:
            self._served.begin_with(snapshot, age=age)

    async def read(self, work: Work[T]) -> T:
        return await self._to_its_end(self._transact(work, writes=False))

    async def write(self, work: Work[T], *, shown: bool = True) -> T:
        return await self._to_its_end(self._transact(work, writes=True, shown=shown))

    async def write_once(self, key: Hashable, work: Work[None]) -> None:
        writing = self._writing_once.get(key)
        if writing is None:
            writing = self._begin_transaction(self._transact(work, writes=True))
            self._writing_once[key] = writing
            writing.add_done_callback(lambda _: self._writing_once.pop(key, None))
        await asyncio.shield(writing)

    async def snapshot(self) -> Snapshot:
        return await self._served.get()

    def fresh_snapshot(self) -> Snapshot | None:
        return self._served.fresh()

    def latest_snapshot(self) -> Snapshot | None:
        return self._served.latest()

    def snapshot_age(self) -> float:
        return self._served.age()

    @property
    def away(self) -> bool:
        return self._served.away

    def prepare_snapshots(self, prepare: Prepare) -> None:
        self._served.prepare_with(prepare)

    def record(self, event: MetricEvent) -> asyncio.Future[MetricEvent]:
        return self._queue.submit(event)

    def record_nowait(self, event: MetricEvent) -> bool:
        return self._queue.offer(event)

    async def record_many(self, events: Sequence[MetricEvent]) -> BatchOutcome:
        batch = Batch((), [self._encode(event) for event in events])
        # an exposure that waits knows more of its unit than what the events would report in its place
        try:
            await self._queue.flush()
        except StoreUnavailableError as error:
            message = f"these {len(events)} events are not stored; before them, {error}"
            raise StoreUnavailableError(message) from error
        return await self._to_its_end(self._commit(batch))

    def queue_stats(self) -> QueueStats:
        return self._queue.stats()

    def enqueue(self, exposure: Exposure) -> None:
        if self._told.add((exposure.experiment_id, exposure.unit), exposure.variant):
            self._queue.enqueue(exposure)

    async def held(self, experiment_id: str, unit: str) -> Exposure | None:
        key = (experiment_id, unit)
        snapshot = self._served.latest()
        if snapshot is not self._held_beside:
            self._held_beside = snapshot
            self._held.clear()
        known = self._held.get(key)
        if known is None:
            self._served.require()
            await self._queue.flush()

            async def work(tx: Transaction) -> Exposure | None:
                return await tx.exposures.get(experiment_id, unit)

            known = (await self.read(work),)
            if snapshot is self._held_beside:
                self._held.put(key, known)
        return known[0]

    async def keep(self, exposure: Exposure) -> Exposure:
        async def work(tx: Transaction) -> Exposure:
            return await tx.exposures.keep(exposure)

        return await self._changed_exposure(work)

    async def serve_instead(self, held: Exposure, variant: str) -> Exposure:
        async def work(tx: Transaction) -> Exposure:
            return await tx.exposures.serve_instead(held, variant)

        return await self._changed_exposure(work)

    async def flush(self, timeout: float | None = None) -> None:
        await self._queue.flush(timeout)

    def leadership(self, name: str, *, seconds: float) -> Leadership:
        return LeaseLeadership(self, name, seconds=seconds)

    async def close(self) -> None:
        if self._closing is None or self._closing.cancelled():
            self._closing = asyncio.get_running_loop().create_task(self._close())
        # whoever closes may be cancelled; what is queued is written all the same
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await self._served.close()
        try:
            await self._queue.close()
        finally:
            if self._running:
                await asyncio.gather(*self._running, return_exceptions=True)
            await self._release()
            await self._engine.dispose()
            self._at_end.detach()

    def before_fork(self) -> None:  # noqa: B027 - most databases have nothing to make ready
        """Make ready for a fork, in the parent."""

    def after_fork_in_child(self) -> None:
        """Begin anew in the child: transactions, rows in the queue and connections are the parent's."""
        self._parents += [self._engine.sync_engine.pool, self._closing, *self._running]
        self._engine.sync_engine.dispose(close=False)
        self._queue.after_fork_in_child()
        self._served.after_fork_in_child()
        self._arriving = asyncio.Lock()
        self._running = set()
        self._writing_once = {}
        self._closing = None

    async def _changed_exposure(self, work: Work[Exposure]) -> Exposure:
        self._served.require()
        await self._queue.flush()
        held = await self._to_its_end(self._transact(work, writes=True, shown=False))
        self._held.put((held.experiment_id, held.unit), (held,))
        return held

    async def _commit(self, batch: Batch) -> BatchOutcome:
        await self._reach()
        return await self._commit_batch(batch)

    @abstractmethod
    async def _commit_batch(self, batch: Batch) -> BatchOutcome:
        """Write the batch in one transaction.

        `StoreUnavailableError` means that it is worth offering again, which may write what is there already.
        """

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
                    await connection.execution_options(**self._options(writes=writes))
                    async with connection.begin():
                        yield connection

    async def _transact(self, work: Work[T], *, writes: bool, shown: bool = True) -> T:
        try:
            async with self._connection(writes=writes) as connection:
                if writes:
                    await self._begin_write(connection, shown=shown)
                return await work(_transaction(connection))
        finally:
            # here and not in the caller, who may have been cancelled before the commit
            if writes and shown:
                self._served.changed()

    def _options(self, *, writes: bool) -> dict[str, Any]:
        """Return the execution options of a transaction."""
        return {"promptab_writes": writes}

    async def _begin_write(self, connection: AsyncConnection, *, shown: bool) -> None:
        """Do what comes before the work of a write: by the revision others see that there is something new."""
        if shown:
            await connection.execute(update(schema.store).values(revision=schema.store.c.revision + 1))

    async def _reach(self) -> None:
        """See to it that the database has been reached once, and is the one that was expected."""
        if self._arrive is None:
            return
        async with self._arriving:
            if self._arrive is not None:
                store_id = await self._arrive()
                if self._store_id not in {UNKNOWN_STORE, store_id}:
                    logger.error("%s: the snapshot file was another store's; what it said is void", self._url)
                    self._served.forget()
                self._store_id = store_id
                self._arrive = None

    async def _take_snapshot(self, current: Snapshot | None) -> Snapshot:
        await self._reach()
        async with self._connection(writes=False) as connection:
            revision = (await connection.execute(select(schema.store.c.revision))).scalar_one()
            known = None if current is None else (current.store_id, current.revision)
            if current is not None and known == (self._store_id, revision):
                return current
            return await take_snapshot(_transaction(connection), store_id=self._store_id, revision=revision)

    def _revisions(self) -> Revisions | None:
        """Return where the revision is read between transactions; None where no other process can write."""
        return None

    def _tell_again(self) -> None:
        """Forget who was exposed: some of it could not be written, and is told again when the units come again."""
        self._told.clear()
        self._served.renew()

    async def _to_its_end(self, transaction: Coroutine[Any, Any, T]) -> T:
        """Await it so that a cancelled caller leaves at once, and the transaction still commits or rolls
        back.
        """
        return await asyncio.shield(self._begin_transaction(transaction))

    def _begin_transaction(self, transaction: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        if self._closing is not None:
            transaction.close()
            raise self._served.closed_error()
        task = asyncio.get_running_loop().create_task(
            transaction if self._arrive is None else self._after_arrival(transaction)
        )
        self._running.add(task)
        task.add_done_callback(self._finished)
        return task

    async def _after_arrival(self, transaction: Coroutine[Any, Any, T]) -> T:
        try:
            await self._reach()
        except BaseException:
            transaction.close()
            raise
        return await transaction

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
        rolled_up=RolledUpQueries(connection),
        crossing=CrossingQueries(connection),
        history=MetricHistoryQueries(connection),
        totals=TotalRollupQueries(connection),
        version_totals=VersionTotalQueries(connection),
        retention=RetentionQueries(connection),
        exports=ExportQueries(connection),
        costs=CostQueries(connection),
        cases=CaseQueries(connection),
        alerts=AlertQueries(connection),
        alert_deliveries=AlertDeliveryQueries(connection),
        alert_retention=AlertRetentionQueries(connection),
        leases=LeaseQueries(connection),
        guards=GuardQueries(connection),
        guard_tallies=GuardTallyQueries(connection),
        decisions=DecisionQueries(connection),
        rollouts=RolloutQueries(connection),
        shadows=ShadowQueries(connection),
    )
