"""Keeping the store small: writing events out to files, and dropping those that every total has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from promptab.assigning import find_experiment
from promptab.checks import check_time
from promptab.errors import InvalidInputError
from promptab.models import PromptExperiment
from promptab.planning import Planning
from promptab.records import Record, Utc
from promptab.stores.base import Store, Transaction
from promptab.totalling import TAIL_EVENTS, add_up

if TYPE_CHECKING:
    from promptab.exporting import ExportReport
    from promptab.stores.queries.retention import PruneStep


AHEAD = timedelta(days=1)
"""So far the clocks of others, by which events are told, may be ahead."""


class PruneReport(Record):
    """What became of the events, or the alerts, of before a moment."""

    before: Utc
    dropped: int
    kept: Mapping[str, int]
    """Why they were kept -> how many."""
    applied: bool
    """False where it was only looked up what would happen."""


class Retention(Planning):
    """Totals outlive the events: `get_metrics`, analyses and what units did before go on after a pruning."""

    async def prune_events(self, before: datetime, *, apply: bool = True) -> PruneReport:
        """Drop the single events that happened before this time, where all totals that they count in have them.

        Everything is added up first. Kept are events of experiments with a quantile among their metrics, of those with
        a shadow until they have ended, and of units that were not exposed to the experiment before that time; also
        what is recorded meanwhile. Afterwards the totals answer for them; what needs single events (quantiles and a
        series of an experiment, hours cut in two, `get_events`) refuses, or has only what is left. With `apply` False
        nothing is dropped, and the report says what would be. A SQLite file keeps its size, and uses the room again.

        Raises `InvalidInputError`, also for a time that is more than a day ahead.
        """
        limit = check_time("before", before)
        now = self._clock()
        if limit > now + AHEAD:
            # what will be recorded up to then would be taken for pruned as well
            raise InvalidInputError(
                "before", limit.isoformat(), f"at most a day ahead of the clock, which says {now.isoformat()}"
            )
        store = await self._store()
        await store.flush()
        needing = await self._add_up_everything(store)
        dropped, kept = 0, Counter[str]()
        number = None
        if apply:
            number = await store.write(lambda tx: tx.retention.begin(limit, at=now), shown=False)
        after, is_last = 0, False
        while not is_last:
            step = await _pruned(store, limit, after, needing, number)
            dropped += step.dropped
            kept += step.kept
            after, is_last = step.upto, step.is_last
        return PruneReport(before=limit, dropped=dropped, kept=dict(kept), applied=apply)

    async def export_events(
        self,
        folder: Path | str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        experiment: str | None = None,
    ) -> ExportReport:
        """Write events, exposures and aliases to Parquet files in `folder`, one file for each day (UTC).

        Whole days, from that of `since` on and up to that of `until`; of one experiment alone where it is named. The
        memory needed does not grow with the events. Each file is there whole or not at all. Run again, it writes the
        same files anew; of days from which events have been pruned meanwhile a file keeps those that it has.

        Raises `MissingExtraError` without the extra `warehouse`, `NotFoundError` for an unknown experiment, and
        `InvalidInputError`, also where the folder holds an export of another store or experiment.
        """
        from promptab.exporting import export  # noqa: PLC0415 - brings pyarrow, an extra

        start = None if since is None else check_time("since", since)
        end = None if until is None else check_time("until", until)
        store = await self._store()
        await store.flush()
        found = None
        if experiment is not None:
            found = await find_experiment(store, experiment, now=self._clock())
        return await export(store, Path(folder), since=start, until=end, experiment=found)

    async def pruned_before(self, experiment: str | None = None) -> datetime | None:
        """Return the time before which events (of an experiment) may have been dropped; None where all are there.

        Raises `NotFoundError` for an unknown experiment.
        """
        store = await self._store()
        found = None
        if experiment is not None:
            found = (await find_experiment(store, experiment, now=self._clock())).experiment_id
        return await store.read(lambda tx: tx.retention.pruned_before(found))

    async def _totalled(self) -> Store:
        """Return the store, with few events that are not in the totals of versions yet."""
        store = await self._store()
        await add_up(store, "versions", at_least=TAIL_EVENTS)
        return store

    async def _add_up_everything(self, store: Store) -> list[str]:
        """Add all events to all totals that they count in; return the experiments that need every event."""
        needing = []
        for experiment in await store.read(lambda tx: tx.experiments.listing()):
            await self._roll_up(store, experiment)
            if _has_quantile(experiment) or (experiment.shadows and experiment.ended_at is None):
                needing.append(experiment.experiment_id)
        await add_up(store, "versions")
        await add_up(store, "units")
        return needing


def _has_quantile(experiment: PromptExperiment) -> bool:
    primary = experiment.plan.definition(experiment.primary_metric)
    return any(metric.kind == "quantile" for metric in (primary, *experiment.plan.metrics))


async def _pruned(
    store: Store, before: datetime, after: int, needing: list[str], number: int | None
) -> PruneStep:
    async def look(tx: Transaction) -> PruneStep:
        return await tx.retention.look(before, after=after, needing=needing)

    async def prune(tx: Transaction) -> PruneStep:
        assert number is not None  # noqa: S101 - given wherever this is called
        return await tx.retention.prune(number, before, after=after, needing=needing)

    return await (store.read(look) if number is None else store.write(prune, shown=False))
