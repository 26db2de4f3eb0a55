"""The contract of a store: what the managers rely on, whichever database is underneath.

A store is opened by `promptab.stores.opening.open_store` and belongs to the event loop that opened it.

- A read sees one state of the database, whatever is committed while it runs.
- `read` and `write` run a piece of work in one transaction. A write sees the newest committed state, is alone
while it
  runs (no other write commits between its first query and its commit), and takes effect whole or not at all:
  when the work raises, and also when the caller is cancelled half-way, in which case the transaction runs to
  its end in the background. Work may be run again from its beginning after a serialization failure, so it
  changes nothing but the store.
- Whatever a `write` changed is in `snapshot()` of the same store at once, and of every other process within a
second.
- `record` returns when the event is committed; many that are waiting at the same time share one transaction.
- Driver errors never come out: `StoreUnavailableError` where trying again later may help, `StoreError` where
not.
- `close` waits for what is under way, writes what is queued, and may be called twice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from promptab.models import Exposure, MetricEvent
from promptab.snapshot import Snapshot

if TYPE_CHECKING:
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


@dataclass(frozen=True, slots=True)
class Transaction:
    """The queries of one open transaction, by noun. Valid until the work that received it returns."""

    versions: VersionQueries
    deployments: DeploymentQueries
    experiments: ExperimentQueries
    exposures: ExposureQueries
    events: EventQueries
    rollup: RollupQueries
    crossing: CrossingQueries
    history: MetricHistoryQueries
    costs: CostQueries


CostKey = Literal["version", "prompt", "model", "variant"]
"""What costs can be added up by."""

Work = Callable[[Transaction], Awaitable[T]]


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
        """Run the work; `shown` is False where it changes nothing that a snapshot shows."""

    async def snapshot(self) -> Snapshot:
        """Return the current snapshot; without I/O when it was checked a moment ago."""

    def snapshot_age(self) -> float:
        """Return the seconds since the store last confirmed the snapshot."""

    async def record(self, event: MetricEvent) -> MetricEvent:
        """Store the event and return it, flagged or not, after the commit.

        An event id that is there already with the same content is one event, and fine; with other content it
        raises `ConflictError` and what was stored first stays. An event that names experiment, variant and
        unit creates the missing exposure (source "reported") in the same transaction, and is stored as
        flagged where the unit's exposure names another variant. A caller that is cancelled while waiting may
        find the event stored.
        """

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

    async def flush(self) -> None:
        """Return when everything enqueued so far is committed."""

    async def close(self) -> None: ...
