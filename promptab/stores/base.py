"""The contract of a store: what the managers rely on, whichever database is underneath.

A store is opened by `promptab.stores.opening.open_store` and belongs to the event loop that opened it.

- A read sees one state of the database, whatever is committed while it runs.
- `read` and `write` run a piece of work in one transaction. A write sees the newest committed state and takes
  effect whole or not at all: when the work raises, and also when the caller is cancelled half-way, in which case
  the transaction runs to its end in the background. A write that is `shown` is alone among writes while it runs:
  no other commits between its first query and its commit. Those that are not may run beside one another; of two
  that change the same one begins anew. Work may be run again from its beginning, so it changes nothing but the
  store. Events, with the exposures that they bring, may be committed beside any write.
- Whatever a `write` changed is in `snapshot()` of the same store at once, and of every other process within a
second.
- `record` returns when the event is committed; many that are waiting at the same time share one transaction.
- Driver errors never come out: `StoreUnavailableError` where trying again later may help, `StoreError` where
not.
- `close` waits for what is under way, writes what is queued, and may be called twice. It raises
  `StoreUnavailableError` where the store was away for all of the patience of the queue's settings, and says how much
  could not be written; everything is closed then too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from promptab.models import Exposure, MetricEvent
from promptab.queueing import QueueStats
from promptab.snapshot import Snapshot

if TYPE_CHECKING:
    from promptab.stores.event_rows import BatchOutcome
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

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Transaction:
    """The queries of one open transaction, by noun. Valid until the work that received it returns."""

    versions: VersionQueries
    deployments: DeploymentQueries
    experiments: ExperimentQueries
    exposures: ExposureQueries
    events: EventQueries
    rollup: RollupQueries
    rolled_up: RolledUpQueries
    crossing: CrossingQueries
    history: MetricHistoryQueries
    totals: TotalRollupQueries
    version_totals: VersionTotalQueries
    retention: RetentionQueries
    exports: ExportQueries
    costs: CostQueries
    cases: CaseQueries
    alerts: AlertQueries
    alert_deliveries: AlertDeliveryQueries
    alert_retention: AlertRetentionQueries
    leases: LeaseQueries
    guards: GuardQueries
    guard_tallies: GuardTallyQueries
    decisions: DecisionQueries
    rollouts: RolloutQueries
    shadows: ShadowQueries


CostKey = Literal["version", "prompt", "model", "variant"]
"""What costs can be added up by."""

Work = Callable[[Transaction], Awaitable[T]]


class Leadership(Protocol):
    """A claim to lead in something: of all claims to one name, in whichever process, one is granted at a time."""

    async def claim(self) -> int | None:
        """Begin to lead, or go on leading; return the number of the term, or None while another one leads.

        A term ends when it has not been claimed again for the seconds of the leadership, counted where the store is:
        no two machines' clocks are compared. Where the store can tell that its holder is dead it ends at once. Whoever
        leads next has a higher number, so `tx.leases.check(name, term)` inside a write that is shown refuses the change
        of a leader that was away for too long, whatever it believes. Raises `StoreUnavailableError` where the store
        does not answer: until the next claim is granted nobody may take this one for the leader.
        """

    async def release(self) -> None:
        """Stop leading, so that another one can begin at once; nothing where this one does not lead.

        Raises `StoreUnavailableError` where the store is away; the term ends by itself then.
        """


class Store(Protocol):
    @property
    def url(self) -> str:
        """Where it is, without a password."""

    @property
    def store_id(self) -> str:
        """The UUID that this database was given when it was made; a copy of the file has the same one."""

    @property
    def shared(self) -> bool:
        """Whether other processes may be using the same database."""

    async def read(self, work: Work[T]) -> T: ...

    async def write(self, work: Work[T], *, shown: bool = True) -> T:
        """Run the work; `shown` is False where it changes nothing that a snapshot shows.

        Such a write may fold every event whose recording had returned before it was called, unless somebody has been
        holding a number before it for long; a shown one may find fewer.
        """

    async def write_once(self, key: Hashable, work: Work[None]) -> None:
        """Run the work as `write` does; whoever asks under the same key meanwhile shares the one transaction.

        For work that many are about to do at the same moment and that is done when one of them has.
        """

    async def snapshot(self) -> Snapshot:
        """Return the current snapshot; without I/O when it was checked a moment ago."""

    def fresh_snapshot(self) -> Snapshot | None:
        """Return what `snapshot` would return without I/O, or None where it would have to wait.

        A check that is due goes on in the background. What may be remembered beside a snapshot is good for that
        object alone: an equal one in its place means that it has to be worked out again.
        """

    def latest_snapshot(self) -> Snapshot | None:
        """Return the snapshot at hand, however old; None before there is one, and after `close`."""

    def snapshot_age(self) -> float:
        """Return the seconds since the store last confirmed the snapshot; infinite before there is one."""

    @property
    def away(self) -> bool:
        """Whether the last attempt to look for something new failed: then `held`, `keep` and `serve_instead` raise
        `StoreUnavailableError` at once.
        """

    def prepare_snapshots(self, prepare: Callable[[Snapshot], Awaitable[None]]) -> None:
        """Await this with each new snapshot before it is given out; a bound method for as long as its object
        lives.
        """

    def record(self, event: MetricEvent) -> Awaitable[MetricEvent]:
        """Queue the event; what is returned becomes the event, flagged or not, after the commit.

        An event id that is there already with the same content is one event, and fine; with other content it
        raises `ConflictError` and what was stored first stays. An event that names experiment, variant and
        unit creates the missing exposure (source "reported") in the same transaction, and is stored as
        flagged where the unit's exposure names another variant. A caller that is cancelled while waiting may
        find the event stored.

        While the store is away the event waits in the queue; a caller whose patience ends gets
        `StoreUnavailableError`, and the event goes on waiting. A full queue makes the caller wait, or raises.
        """

    def record_nowait(self, event: MetricEvent) -> bool:
        """Store the event soon. Return False where the queue was full and the event was dropped.

        What is in the queue is lost where the process is killed. Raises `StoreUnavailableError` where the queue
        is full and its settings are not to drop. A refusal by the store is logged and counted.
        """

    async def record_many(self, events: Sequence[MetricEvent]) -> BatchOutcome:
        """Store the events in one transaction, after what waits in the queue; return what became of them, by
        position.
        """

    def queue_stats(self) -> QueueStats:
        """Return what waits in the queue and what has come of all the rest, without I/O."""

    def enqueue(self, exposure: Exposure) -> None:
        """Write the exposure soon, unless the unit has one already. `flush` waits for it."""

    async def held(self, experiment_id: str, unit: str) -> Exposure | None:
        """Return the unit's exposure, if it has one; remembered, as what was written once does not change.

        What is remembered is forgotten with every new snapshot: overrides and evictions come with one.
        """

    async def keep(self, exposure: Exposure) -> Exposure:
        """Write the exposure unless the unit has one, and return the one that holds: the first writer's."""

    async def serve_instead(self, held: Exposure, variant: str) -> Exposure:
        """Deal a unit another variant than the one it holds, which was evicted; return what holds afterwards.

        Where another writer was faster its variant holds. The first exposure stays what the analysis goes by.
        """

    async def flush(self, timeout: float | None = None) -> None:
        """Return when everything queued so far is committed or refused.

        Raises `StoreUnavailableError` after `timeout` seconds, by default the patience of the queue's settings.
        """

    def leadership(self, name: str, *, seconds: float) -> Leadership:
        """Return a claim to lead in what `name` says; each claims for itself, two of one process too."""

    async def close(self) -> None: ...
