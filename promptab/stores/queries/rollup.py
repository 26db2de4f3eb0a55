"""The roll-up: events become totals per unit, and units become sums, each exactly once.

`promptab_unit_totals` holds the sums of all events up to the watermark, and `promptab_moments` the sums over all
units that are marked as rolled up, of their totals as they are. Every transaction leaves both true: what changes a
unit's totals takes its share out of the moments first, and puts it back afterwards. A unit goes in once every event is
in the totals and, where there is one, its measurement window has closed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import ColumnElement, Row, delete, exists, func, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from promptab.errors import InvalidInputError, StateError
from promptab.models import PromptExperiment
from promptab.records import Json
from promptab.stats.covariate_sums import CovariateSums
from promptab.stats.metric import MetricDefinition
from promptab.stores.queries.event_values import event_values
from promptab.stores.queries.events import MetricSums
from promptab.stores.queries.experiments import ExperimentQueries
from promptab.stores.queries.moments import (
    ArmsByEpoch,
    Sums,
    add_moments,
    kept_centers,
    kept_moments,
    rolled_up_metrics,
    summed,
)
from promptab.stores.queries.sums_over_time import SumsAt, sums_over_time
from promptab.stores.queries.unit_facts import Series, UnitFacts, attribute_text, series_of, unit_metric
from promptab.stores.queries.unit_history import covariate_sums
from promptab.stores.queries.unit_totals import (
    Step,
    add_events,
    capped_series,
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
from promptab.stores.totals_schema import prunings

if TYPE_CHECKING:
    from promptab.stores.queries.event_values import EventValues

UNITS_PER_STEP = 200_000
"""The units that go into the moments in one transaction."""

SKIPPED_EVENTS = 50_000
"""So many events of others behind the watermark, and it is moved, or every look would read them all again."""


UnitValues = dict[str, dict[int, list[tuple[float, float]]]]
"""variant -> epoch -> (n, s) of each unit."""


class Summaries(NamedTuple):
    """What the database has summed up over units."""

    sums: MetricSums
    """metric -> variant -> epoch -> sums."""
    arms: ArmsByEpoch
    """variant -> epoch -> counts of units."""
    late: int
    """Events that belonged into the measurement window of a unit that had been counted before they came."""
    watermark: int
    """The last event that is in it."""


class RollupQueries:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def is_behind(self, experiment: PromptExperiment, *, now: datetime) -> bool:
        """Return whether there is something to fold: new events, or units to be counted. Changes nothing."""
        rollup = await self._rollup(experiment.experiment_id)
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
        """Take one bounded step inside a write transaction; return whether there is more to fold.

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

    async def summaries(self, experiment: PromptExperiment) -> Summaries:
        """Return what has been summed up so far, whatever the number of events and units; see `fold` for when that
        is everything. Empty where nothing has been folded.
        """
        sums = await kept_moments(self._connection, experiment.experiment_id)
        return self._summaries(sums, await self._rollup(experiment.experiment_id))

    async def recomputed(self, experiment: PromptExperiment) -> Summaries:
        """Return what `summaries` should be, from the units' totals."""
        named = await named_measures(self._connection, experiment.experiment_id)
        found = await self.sums_where(experiment, rolled_up_metrics(experiment, named))
        return found.get("") or self._summaries(Sums({}, {}), await self._rollup(experiment.experiment_id))

    async def sums_where(
        self,
        experiment: PromptExperiment,
        metrics: Sequence[MetricDefinition],
        *,
        segment: str | None = None,
        since: datetime | None = None,
    ) -> dict[str, Summaries]:
        """Return the sums of these metrics over the units that are rolled up, computed from their totals.

        Under each value as text of the attribute `segment` of the units' exposures, "" where a unit has none; or
        under "" alone. With `since`, over the units that were first exposed from then on. Values without units are
        not there.

        Raises `InvalidInputError` for a quantile, and for a capped metric that the experiment's plan does not have:
        single events cannot be capped afterwards.
        """
        _check_caps(experiment, metrics)
        columns = (
            () if segment is None else (attribute_text(self._connection.dialect, segment).label("segment"),)
        )

        def facts_of(some: Sequence[MetricDefinition]) -> UnitFacts:
            return UnitFacts(experiment, _series(some), *_rolled_up(since), columns=columns)

        centers = await kept_centers(self._connection, experiment.experiment_id)
        by = None if segment is None else "segment"
        found = await summed(self._connection, facts_of, metrics, centers, by=by)
        rollup = await self._rollup(experiment.experiment_id)
        return {value: self._summaries(sums, rollup) for value, sums in found.items()}

    async def unit_values(
        self,
        experiment: PromptExperiment,
        metric: MetricDefinition,
        *,
        since: datetime | None = None,
        limit: int | None = None,
    ) -> UnitValues:
        """Return (n, s) of every unit that counts in the metric, in the order of exposure, then of the unit's name.

        With a `limit`, of so many units that were exposed first. Raises as `sums_where` does.
        """
        _check_caps(experiment, [metric])
        facts = UnitFacts(experiment, series_of(metric), *_rolled_up(since), limit=limit)
        pair = unit_metric(metric, facts.carried)
        query = (
            select(facts.c.variant, facts.c.epoch, pair.n.label("n"), pair.s.label("s"))
            .where(pair.counts)
            .order_by(facts.c.at, facts.c.unit)
        )
        values: UnitValues = {}
        for row in (await self._connection.execute(query)).all():
            values.setdefault(row.variant, {}).setdefault(row.epoch, []).append((float(row.n), float(row.s)))
        return values

    async def covariate_sums(
        self,
        experiment: PromptExperiment,
        metric: MetricDefinition,
        *,
        days: float,
        since: datetime | None = None,
    ) -> dict[str, dict[int, CovariateSums]]:
        """Return, by variant and epoch, the sums with what the same units did before their exposure.

        In so many full days (UTC; a part of a day counts as one) before the day of the exposure, as far as the totals
        of units have been folded. What a unit did counts whichever experiment it was part of, or none; the events of
        its sessions too. Raises as `sums_where` does, and `StateError` where pruned events would have to be capped.
        """
        _check_caps(experiment, [metric])
        if any(series.cap is not None for series in series_of(metric)):
            await self._check_past(experiment, metric, days)
        return await covariate_sums(self._connection, experiment, metric, days, *_rolled_up(since))

    async def daily_sums(
        self, experiment: PromptExperiment, metric: MetricDefinition, *, seconds: int = 86_400
    ) -> list[SumsAt]:
        """Return what the sums had been at the end of each stretch of `seconds` in which they changed, oldest first.

        Stretches are counted from 1970-01-01 00:00 UTC. The last one is what `summaries` has. Raises as `sums_where`
        does, and `StateError` where events have been pruned, unless there is a measurement window.
        """
        _check_caps(experiment, [metric])
        if window_of(experiment) is None:
            await self._check_present(experiment, "the series", None)
        return await sums_over_time(self._connection, experiment, metric, seconds, *_rolled_up(None))

    async def event_values(
        self, experiment: PromptExperiment, measure: str, *, since: datetime | None = None
    ) -> EventValues:
        """Return, by variant and epoch, the values of the single events that carried a measure, and whose each is.

        Two arrays of the same length: the values (float64), and numbers (int32) that are equal where the unit is.
        Raises `StateError` where events have been pruned, unless of units exposed since then.
        """
        await self._check_present(experiment, f"what single events carried of {measure!r}", since)
        return await event_values(self._connection, experiment, measure, *_rolled_up(since))

    async def cached_quantile(self, experiment_id: str, metric: str, watermark: int) -> Json | None:
        """Return what was kept under this name at this watermark, unless something has been rolled up since."""
        query = select(quantiles.c.document).where(
            quantiles.c.experiment_id == experiment_id,
            quantiles.c.metric == metric,
            quantiles.c.watermark == watermark,
        )
        found: Json | None = (await self._connection.execute(query)).scalar_one_or_none()
        return found

    async def keep_quantile(self, experiment_id: str, metric: str, watermark: int, document: Json) -> None:
        """Keep a document in place of the one of that name; not if something has been rolled up meanwhile."""
        rollup = await self._rollup(experiment_id)
        if rollup is None or rollup.watermark != watermark:
            return
        key = {"experiment_id": experiment_id, "metric": metric}
        await self._connection.execute(
            delete(quantiles).where(*(quantiles.c[name] == value for name, value in key.items()))
        )
        await self._connection.execute(
            insert(quantiles).values(**key, watermark=watermark, document=dict(document))
        )

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
                await self._rollup(affected, locked=True)
                await self._take_out(experiment, exposures.c.unit.in_(sorted(units)))

    async def recount(self, experiment_id: str) -> None:
        """Take all units out of the moments; the next fold puts them in as they count then, by their totals.

        To be called before what changes how all of them count, in the same transaction.
        """
        await self._rollup(experiment_id, locked=True)
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

    async def _check_present(self, experiment: PromptExperiment, what: str, since: datetime | None) -> None:
        """Refuse what single events are needed for, where some have been dropped of the units that are meant."""
        rollup = await self._rollup(experiment.experiment_id)
        before = None if rollup is None else rollup.pruned_before
        if before is not None and (since is None or since < before):
            raise StateError(
                f"{what} of experiment {experiment.name!r} cannot be told: events before {before:%Y-%m-%dT%H:%M} (UTC) "
                "have been pruned; ask for units exposed since then (since), or look in an export"
            )

    async def _check_past(self, experiment: PromptExperiment, metric: MetricDefinition, days: float) -> None:
        """Refuse a past in which single events have to be capped, where some of these have been dropped."""
        first = select(func.min(exposures.c.at)).where(exposures.c.experiment_id == experiment.experiment_id)
        exposed = (await self._connection.execute(first)).scalar_one()
        dropped = (await self._connection.execute(select(func.max(prunings.c.before)))).scalar_one()
        if exposed is not None and dropped is not None and dropped > exposed - timedelta(days=days + 1):
            raise StateError(
                f"what units did before the experiment {experiment.name!r} cannot be capped for the metric "
                f"{metric.name!r}: events before {dropped:%Y-%m-%dT%H:%M} (UTC) have been pruned; ask for it without "
                "history_days, or without a cap"
            )

    async def _rollup(self, experiment_id: str, *, locked: bool = False) -> Row[Any] | None:
        """Return its row; `locked` until the transaction ends, where others could write at the same time."""
        query = select(rollups).where(rollups.c.experiment_id == experiment_id)
        return (await self._connection.execute(query.with_for_update() if locked else query)).one_or_none()

    async def _begun(self, experiment: PromptExperiment) -> Row[Any]:
        """Return the locked row of the roll-up, which begins anew where it rests on another plan."""
        basis = _basis(experiment)
        rollup = await self._rollup(experiment.experiment_id, locked=True)
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
        def facts_of(some: Sequence[MetricDefinition]) -> UnitFacts:
            return UnitFacts(experiment, _series(some), *which)

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

    def _summaries(self, sums: Sums, rollup: Row[Any] | None) -> Summaries:
        if rollup is None:
            return Summaries(sums.metrics, sums.arms, 0, 0)
        return Summaries(sums.metrics, sums.arms, rollup.late, rollup.watermark)


def _waiting(experiment: PromptExperiment, now: datetime) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions under which a unit is to be put into the moments: with a window, once it has closed."""
    waiting = (exposures.c.experiment_id == experiment.experiment_id, exposures.c.rolled_up.is_(None))
    window = window_of(experiment)
    return waiting if window is None else (*waiting, exposures.c.at <= now - window)


def _rolled_up(since: datetime | None) -> tuple[ColumnElement[bool], ...]:
    rolled_up = exposures.c.rolled_up.is_not(None)
    return (rolled_up,) if since is None else (rolled_up, exposures.c.at >= since)


def _series(metrics: Sequence[MetricDefinition]) -> list[Series]:
    return [series for metric in metrics for series in series_of(metric)]


def _basis(experiment: PromptExperiment) -> str:
    """Return as text what the totals and moments depend on beside events and exposures."""
    metrics = [
        (metric.name, metric.kind, metric.source, metric.denominator, metric.cap)
        for metric in experiment.plan.metrics
        if metric.kind != "quantile"
    ]
    return json.dumps({"window_hours": experiment.plan.window_hours, "metrics": metrics})


def _check_caps(experiment: PromptExperiment, metrics: Sequence[MetricDefinition]) -> None:
    kept = capped_series(experiment)
    for metric in metrics:
        for series in series_of(metric):
            if series.cap is not None and series not in kept:
                raise InvalidInputError(
                    f"metrics[{metric.name}].cap",
                    metric.cap,
                    "a cap that the experiment's plan declares for this measure",
                    "declare it before the start: single events cannot be capped afterwards",
                )
