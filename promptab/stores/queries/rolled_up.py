"""Reading what the roll-up has made: sums over units from the moments, or from the units' totals where these are asked
for in another way, and single units and events only where they are needed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import ColumnElement, Row, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from promptab.errors import InvalidInputError, StateError
from promptab.models import PromptExperiment
from promptab.records import Json
from promptab.stats.covariate_sums import CovariateSums
from promptab.stats.metric import MetricDefinition
from promptab.stores.queries.event_values import event_values
from promptab.stores.queries.events import MetricSums
from promptab.stores.queries.moments import (
    ArmsByEpoch,
    Sums,
    kept_centers,
    kept_moments,
    rolled_up_metrics,
    summed,
)
from promptab.stores.queries.sums_over_time import SumsAt, sums_over_time, units_over_time
from promptab.stores.queries.unit_facts import UnitFacts, all_series, attribute_text, series_of
from promptab.stores.queries.unit_history import covariate_sums
from promptab.stores.queries.unit_totals import capped_series, named_measures, window_of
from promptab.stores.queries.unit_values import UnitValues, segment_unit_values, unit_values
from promptab.stores.schema import exposures, quantiles, rollups
from promptab.stores.totals_schema import prunings

if TYPE_CHECKING:
    from promptab.stores.queries.event_values import EventValues


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


class RolledUpQueries:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def summaries(self, experiment: PromptExperiment) -> Summaries:
        """Return what has been summed up so far, whatever the number of events and units; see `fold` for when that
        is everything. Empty where nothing has been folded.
        """
        sums = await kept_moments(self._connection, experiment.experiment_id)
        return self._summaries(sums, await kept_rollup(self._connection, experiment.experiment_id))

    async def recomputed(self, experiment: PromptExperiment) -> Summaries:
        """Return what `summaries` should be, from the units' totals."""
        named = await named_measures(self._connection, experiment.experiment_id)
        found = await self.sums_where(experiment, rolled_up_metrics(experiment, named))
        return found.get("") or self._summaries(
            Sums({}, {}), await kept_rollup(self._connection, experiment.experiment_id)
        )

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

        async def facts_of(some: Sequence[MetricDefinition]) -> UnitFacts:
            series, members = all_series(some), _rolled_up(since)
            return await UnitFacts.of(
                self._connection, experiment, series, *members, columns=columns, with_arms=True
            )

        centers = await kept_centers(self._connection, experiment.experiment_id)
        by = None if segment is None else "segment"
        found = await summed(self._connection, facts_of, metrics, centers, by=by)
        rollup = await kept_rollup(self._connection, experiment.experiment_id)
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
        return await unit_values(self._connection, experiment, metric, *_rolled_up(since), limit=limit)

    async def segment_unit_values(
        self,
        experiment: PromptExperiment,
        metric: MetricDefinition,
        segment: str,
        values: Collection[str],
        *,
        since: datetime | None = None,
    ) -> dict[str, UnitValues]:
        """Return the same of the units of which the attribute `segment` has one of these values, under each value as
        `sums_where` has them. Raises as `sums_where` does.
        """
        _check_caps(experiment, [metric])
        return await segment_unit_values(
            self._connection, experiment, metric, segment, values, *_rolled_up(since)
        )

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
        self,
        experiment: PromptExperiment,
        metric: MetricDefinition,
        *,
        seconds: int = 86_400,
        since: datetime | None = None,
    ) -> list[SumsAt]:
        """Return what the sums had been at the end of each stretch of `seconds` in which they changed, oldest first.

        Stretches are counted from 1970-01-01 00:00 UTC. The last one is what `summaries` has, or with `since` what
        `sums_where` has. Raises as `sums_where` does, and `StateError` where events have been pruned, unless there is
        a measurement window or `since` is later.
        """
        _check_caps(experiment, [metric])
        if window_of(experiment) is None:
            await self._check_present(experiment, "the series", since)
        return await sums_over_time(self._connection, experiment, metric, seconds, *_rolled_up(since))

    async def daily_unit_values(
        self,
        experiment: PromptExperiment,
        metric: MetricDefinition,
        moments: Collection[datetime],
        *,
        seconds: int = 86_400,
        since: datetime | None = None,
    ) -> dict[datetime, UnitValues]:
        """Return the single units that `daily_sums` sums up at some of its moments, and not at others; in the order of
        `unit_values`.

        Reads a row for every unit and stretch in which it changed, up to the last of them. Raises as `sums_where` does.
        """
        _check_caps(experiment, [metric])
        return await units_over_time(
            self._connection, experiment, metric, seconds, moments, *_rolled_up(since)
        )

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
        rollup = await kept_rollup(self._connection, experiment_id)
        if rollup is None or rollup.watermark != watermark:
            return
        key = {"experiment_id": experiment_id, "metric": metric}
        await self._connection.execute(
            delete(quantiles).where(*(quantiles.c[name] == value for name, value in key.items()))
        )
        await self._connection.execute(
            insert(quantiles).values(**key, watermark=watermark, document=dict(document))
        )

    async def _check_present(self, experiment: PromptExperiment, what: str, since: datetime | None) -> None:
        """Refuse what single events are needed for, where some have been dropped of the units that are meant."""
        rollup = await kept_rollup(self._connection, experiment.experiment_id)
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

    def _summaries(self, sums: Sums, rollup: Row[Any] | None) -> Summaries:
        if rollup is None:
            return Summaries(sums.metrics, sums.arms, 0, 0)
        return Summaries(sums.metrics, sums.arms, rollup.late, rollup.watermark)


async def kept_rollup(connection: AsyncConnection, experiment_id: str) -> Row[Any] | None:
    """Return how far the roll-up of an experiment has come, if it has begun."""
    return (
        await connection.execute(select(rollups).where(rollups.c.experiment_id == experiment_id))
    ).one_or_none()


def _rolled_up(since: datetime | None) -> tuple[ColumnElement[bool], ...]:
    rolled_up = exposures.c.rolled_up.is_not(None)
    return (rolled_up,) if since is None else (rolled_up, exposures.c.at >= since)


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
