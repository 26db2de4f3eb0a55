"""The roll-up: events become totals per unit, and units become sums, each exactly once.

`promptab_unit_totals` holds the sums of all events up to the watermark, and `promptab_moments` the sums over all
units that are marked as rolled up, of their totals as they are. Every transaction leaves both true: what changes a
unit's totals takes its share out of the moments first, and puts it back afterwards. A unit goes in once every event is
in the totals and, where there is one, its measurement window has closed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, exists, func, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from promptab.errors import StateError
from promptab.models import PromptExperiment
from promptab.stats.metric import MetricDefinition
from promptab.stores.queries.experiments import ExperimentQueries
from promptab.stores.queries.moments import (
    add_moments,
    kept_centers,
    rolled_up_metrics,
    summed,
)
from promptab.stores.queries.rolled_up import kept_rollup
from promptab.stores.queries.unit_facts import UnitFacts, all_series
from promptab.stores.queries.unit_totals import (
    Step,
    add_events,
    count_late,
    named_measures,
    next_step,
    units_with_events,
    window_of,
)
from promptab.stores.schema import (
    arms,
    events,
    experiments,
    exposures,
    moments,
    quantiles,
    rollups,
    unit_metric_totals,
    unit_totals,
)

UNITS_PER_STEP = 200_000
"""The units that go into the moments in one transaction."""

SKIPPED_EVENTS = 50_000
"""So many events of others behind the watermark, and it is moved, or every look would read them all again."""


class RollupQueries:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def is_behind(self, experiment: PromptExperiment, *, now: datetime) -> bool:
        """Return whether there is something to fold: new events, or units to be counted. Changes nothing."""
        rollup = await kept_rollup(self._connection, experiment.experiment_id)
        if rollup is None or rollup.basis != _basis(experiment):
            return True
        new = events.c.sequence > rollup.watermark
        of_experiment = (events.c.experiment_id == experiment.experiment_id, events.c.unit.is_not(None))
        row = (
            await self._connection.execute(
                select(
                    exists().where(*_waiting(experiment, now)).label("units"),
                    exists().where(new, *of_experiment).label("events"),
                    select(func.max(events.c.sequence)).scalar_subquery().label("newest"),
                )
            )
        ).one()
        skipped = (row.newest or 0) - rollup.watermark
        return bool(row.units or row.events or skipped > SKIPPED_EVENTS)

    async def fold(self, experiment: PromptExperiment, *, now: datetime) -> bool:
        """Take one bounded step inside a write that is not shown; return whether there is more to fold.

        What has been summed up is whole where `is_behind` was False, or this returned False, in the same
        transaction; between two steps of a backlog some units are out of the moments. Nothing is folded for an
        experiment that is gone.
        """
        current = await ExperimentQueries(self._connection).by_id(experiment.experiment_id)
        if current is None:
            return False
        rollup = await self._begun(current)
        step = await next_step(self._connection, current.experiment_id, after=rollup.watermark)
        late = rollup.late
        if step.has_events:
            late += await count_late(self._connection, current, step)
            await self._add_events(current, step)
        changed = {"watermark": step.upto, "late": late}
        await self._connection.execute(
            update(rollups).where(rollups.c.experiment_id == current.experiment_id).values(changed)
        )
        return not step.is_last or await self._put_in(current, step.upto, now)

    async def withdraw(self, units: Collection[str], *, experiment_id: str | None = None) -> None:
        """Take units out of the moments of this experiment, or of all; the next fold puts them in as they count then.

        To be called before what changes how they count, in the same transaction: an alias, or a variant shown by hand.
        """
        among: ColumnElement[bool] = exposures.c.experiment_id.in_(select(rollups.c.experiment_id))
        if experiment_id is not None:
            among = exposures.c.experiment_id == experiment_id
        found = (
            select(exposures.c.experiment_id)
            .where(among, exposures.c.unit.in_(sorted(units)), exposures.c.rolled_up.is_not(None))
            .distinct()
        )
        for affected in (await self._connection.execute(found)).scalars().all():
            experiment = await ExperimentQueries(self._connection).by_id(affected)
            if experiment is not None:
                await self._locked(affected)
                await self._take_out(experiment, exposures.c.unit.in_(sorted(units)))

    async def recount(self, experiment_id: str) -> None:
        """Take all units out of the moments; the next fold puts them in as they count then, by their totals.

        To be called before what changes how all of them count, in the same transaction.
        """
        await self._locked(experiment_id)
        for table in (moments, arms, quantiles):
            await self._connection.execute(delete(table).where(table.c.experiment_id == experiment_id))
        marked = (exposures.c.experiment_id == experiment_id, exposures.c.rolled_up.is_not(None))
        await self._connection.execute(update(exposures).where(*marked).values(rolled_up=None))

    async def reset(self, experiment_ids: Collection[str] | None) -> None:
        """Forget what was rolled up of these experiments (None: of all), so that they are folded from the first event.

        To be called after events were deleted, with the experiments that these were part of: what the others have is
        still right, but a database may give the numbers of the newest events again.
        """
        meant = sorted(experiment_ids) if experiment_ids is not None else select(experiments.c.experiment_id)
        for table in (unit_totals, unit_metric_totals, moments, arms, quantiles, rollups):
            await self._connection.execute(delete(table).where(table.c.experiment_id.in_(meant)))
        await self._connection.execute(
            update(exposures)
            .where(exposures.c.experiment_id.in_(meant), exposures.c.rolled_up.is_not(None))
            .values(rolled_up=None)
        )
        newest = select(func.coalesce(func.max(events.c.sequence), 0)).scalar_subquery()
        for table, column in ((rollups, rollups.c.watermark), (exposures, exposures.c.rolled_up)):
            await self._connection.execute(update(table).where(column > newest).values({column: newest}))

    async def _locked(self, experiment_id: str) -> Row[Any] | None:
        """Return its row, locked until the transaction ends where others could write at the same time."""
        query = select(rollups).where(rollups.c.experiment_id == experiment_id).with_for_update()
        return (await self._connection.execute(query)).one_or_none()

    async def _begun(self, experiment: PromptExperiment) -> Row[Any]:
        """Return the locked row of the roll-up, which begins anew where it rests on another plan."""
        basis = _basis(experiment)
        rollup = await self._locked(experiment.experiment_id)
        if rollup is not None and rollup.basis == basis:
            return rollup
        if rollup is not None and rollup.pruned_before is not None:
            raise StateError(
                f"the plan of experiment {experiment.name!r} is another than its totals were made by, and they cannot "
                f"be made anew: events before {rollup.pruned_before:%Y-%m-%dT%H:%M} (UTC) have been pruned; restore "
                "the plan"
            )
        await self.reset([experiment.experiment_id])
        await self._connection.execute(
            insert(rollups).values(experiment_id=experiment.experiment_id, watermark=0, basis=basis, late=0)
        )
        return (
            await self._connection.execute(
                select(rollups).where(rollups.c.experiment_id == experiment.experiment_id)
            )
        ).one()

    async def _add_events(self, experiment: PromptExperiment, step: Step) -> None:
        """Add events to the totals, and by the difference to the moments of the units that are in them.

        With a measurement window no unit that is in the moments takes any. In a backlog a unit may have events in many
        steps: it stays out of the moments until the last one.
        """
        counted = select(exists().where(arms.c.experiment_id == experiment.experiment_id))
        moved = window_of(experiment) is None and (await self._connection.execute(counted)).scalar_one()
        touched = (
            exposures.c.rolled_up.is_not(None),
            exposures.c.unit.in_(units_with_events(experiment.experiment_id, step)),
        )
        if moved:
            await self._add_moments(experiment, touched, sign=-1)
            if not step.is_last:
                await self._mark(experiment, touched, None)
        await add_events(self._connection, experiment, step)
        if moved and step.is_last:
            await self._add_moments(experiment, touched, sign=1)

    async def _take_out(self, experiment: PromptExperiment, *which: ColumnElement[bool]) -> None:
        rolled_up = (exposures.c.rolled_up.is_not(None), *which)
        await self._add_moments(experiment, rolled_up, sign=-1)
        await self._mark(experiment, rolled_up, None)

    async def _put_in(self, experiment: PromptExperiment, watermark: int, now: datetime) -> bool:
        """Put units that are due into the moments, those exposed first; return whether there are more."""
        waiting = _waiting(experiment, now)
        if not (await self._connection.execute(select(exists().where(*waiting)))).scalar_one():
            return False
        order = (exposures.c.at, exposures.c.unit)
        # the index has the times in their order; names are looked up only where there are too many units
        times = (
            select(exposures.c.at).where(*waiting).order_by(exposures.c.at).offset(UNITS_PER_STEP).limit(1)
        )
        beyond = None
        if (await self._connection.execute(times)).first() is not None:
            rest = select(*order).where(*waiting).order_by(*order).offset(UNITS_PER_STEP).limit(1)
            beyond = (await self._connection.execute(rest)).one()
            waiting = (*waiting, tuple_(*order) < tuple_(*beyond, types=[column.type for column in order]))
        await self._add_moments(experiment, waiting, sign=1)
        await self._mark(experiment, waiting, watermark)
        return beyond is not None

    async def _add_moments(
        self, experiment: PromptExperiment, which: Sequence[ColumnElement[bool]], *, sign: int
    ) -> None:
        async def facts_of(some: Sequence[MetricDefinition]) -> UnitFacts:
            return await UnitFacts.of(self._connection, experiment, all_series(some), *which, with_arms=True)

        named = await named_measures(self._connection, experiment.experiment_id)
        metrics = rolled_up_metrics(experiment, named)
        centers = await kept_centers(self._connection, experiment.experiment_id)
        found = await summed(self._connection, facts_of, metrics, centers)
        for sums in found.values():
            await add_moments(self._connection, experiment.experiment_id, sums, sign=sign)
        await self._connection.execute(
            delete(quantiles).where(quantiles.c.experiment_id == experiment.experiment_id)
        )

    async def _mark(
        self, experiment: PromptExperiment, which: Sequence[ColumnElement[bool]], watermark: int | None
    ) -> None:
        of_experiment = exposures.c.experiment_id == experiment.experiment_id
        await self._connection.execute(
            update(exposures).where(of_experiment, *which).values(rolled_up=watermark)
        )


def _waiting(experiment: PromptExperiment, now: datetime) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions under which a unit is to be put into the moments: with a window, once it has closed."""
    waiting = (exposures.c.experiment_id == experiment.experiment_id, exposures.c.rolled_up.is_(None))
    window = window_of(experiment)
    return waiting if window is None else (*waiting, exposures.c.at <= now - window)


def _basis(experiment: PromptExperiment) -> str:
    """Return as text what the totals and moments depend on beside events and exposures."""
    metrics = [
        (metric.name, metric.kind, metric.source, metric.denominator, metric.cap)
        for metric in experiment.plan.metrics
        if metric.kind != "quantile"
    ]
    return json.dumps({"window_hours": experiment.plan.window_hours, "metrics": metrics})
