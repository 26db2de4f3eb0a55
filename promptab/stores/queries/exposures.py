"""Exposures: the first time a unit met an experiment."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, exists, false, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from promptab.models import EVERY_UNIT, Exposure, PromptExperiment
from promptab.stores.schema import aliases, exposures

ANALYSED_SOURCES = ("assigned", "reported", "alias")
"""Units that were shown a variant by hand (source "override") are left out of every analysis."""

_RECORDED = [column.name for column in exposures.columns if column.name != "rolled_up"]
"""What is the exposure itself, and not how far the roll-up has come with it."""


class ExposureQueries:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def keep(self, exposure: Exposure) -> Exposure:
        """Write it unless the unit has one; return the one that holds."""
        present = await self.get(exposure.experiment_id, exposure.unit)
        if present is not None:
            return present
        try:
            async with self._connection.begin_nested():
                values = {**exposure._asdict(), "attributes": dict(exposure.attributes)}
                await self._connection.execute(insert(exposures).values(**values))
        except IntegrityError:
            present = await self.get(exposure.experiment_id, exposure.unit)
            if present is None:
                raise
            return present
        return exposure

    async def get(self, experiment_id: str, unit: str) -> Exposure | None:
        query = select(exposures).where(exposures.c.experiment_id == experiment_id, exposures.c.unit == unit)
        row = (await self._connection.execute(query)).one_or_none()
        return None if row is None else _record(row)

    async def serve_instead(self, held: Exposure, variant: str) -> Exposure:
        """Set the variant that the unit is served from now on, unless it is another than `held` says by now."""
        key = (exposures.c.experiment_id == held.experiment_id, exposures.c.unit == held.unit)
        current = func.coalesce(exposures.c.served, exposures.c.variant)
        await self._connection.execute(
            update(exposures).where(*key, current == held.current).values(served=variant)
        )
        return await self.get(held.experiment_id, held.unit) or held

    async def of_unit(self, unit: str, experiment_ids: Sequence[str]) -> list[Exposure]:
        """Return the unit's exposures to these experiments."""
        query = select(exposures).where(
            exposures.c.experiment_id.in_(experiment_ids), exposures.c.unit == unit
        )
        return [_record(row) for row in (await self._connection.execute(query)).all()]

    async def listing(self, experiment_id: str, *, limit: int | None = None) -> list[Exposure]:
        """Return an experiment's exposures in the order of time, then unit; without sessions that became users."""
        query = (
            select(exposures)
            .where(exposures.c.experiment_id == experiment_id, _nobody_else())
            .order_by(exposures.c.at, exposures.c.unit)
            .limit(limit)
        )
        return [_record(row) for row in (await self._connection.execute(query)).all()]

    async def brought(self, experiment_ids: Sequence[str]) -> list[Exposure]:
        """Return the exposures that users brought with them from anonymous sessions."""
        query = select(exposures).where(
            exposures.c.experiment_id.in_(experiment_ids), exposures.c.source == "alias"
        )
        return [_record(row) for row in (await self._connection.execute(query)).all()]

    async def counts(self, experiment_id: str) -> dict[str, int]:
        """Return how many units were exposed to each variant, overridden units included.

        A session that became a user is one unit with that user, here and in everything that follows.
        """
        return await self._counts(exposures.c.experiment_id == experiment_id, _nobody_else())

    async def analysed_counts(
        self, experiment: PromptExperiment, *, since: datetime | None = None
    ) -> dict[str, int]:
        """Return how many units count in an analysis, per variant; with `since`, of those exposed from then on."""
        later = () if since is None else (exposures.c.at >= since,)
        return await self._counts(
            exposures.c.experiment_id == experiment.experiment_id, *later, *analysed_units(experiment)
        )

    async def undealt(self, experiment: PromptExperiment) -> int:
        """Return how many units of a bandit were reported, and so have no probability to be weighed by."""
        counts = await self._counts(
            exposures.c.experiment_id == experiment.experiment_id,
            exposures.c.propensity.is_(None),
            *analysed(experiment.overrides),
        )
        return sum(counts.values())

    async def newest_waiting(self, experiment_id: str) -> datetime | None:
        """Return when the newest unit was exposed of those that no analysis counts yet; None without one."""
        query = select(func.max(exposures.c.at)).where(
            exposures.c.experiment_id == experiment_id, exposures.c.rolled_up.is_(None)
        )
        found: datetime | None = (await self._connection.execute(query)).scalar_one()
        return found

    async def leave_out(self, experiment_id: str, unit: str | None) -> None:
        """Leave a unit (None: all) that was exposed before out of every analysis from now on."""
        query = update(exposures).where(exposures.c.experiment_id == experiment_id).values(source="override")
        await self._connection.execute(query if unit is None else query.where(exposures.c.unit == unit))

    async def _counts(self, *conditions: ColumnElement[bool]) -> dict[str, int]:
        query = (
            select(exposures.c.variant, func.count().label("units"))
            .where(*conditions)
            .group_by(exposures.c.variant)
        )
        return {row.variant: row.units for row in (await self._connection.execute(query)).all()}


def analysed(without: Collection[str] = ()) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions under which an exposure counts in an analysis; `without` names units, `*` all."""
    if EVERY_UNIT in without:
        return (false(),)
    named = [exposures.c.unit.not_in(sorted(without))] if without else []
    return (exposures.c.source.in_(ANALYSED_SOURCES), *named, _nobody_else())


def analysed_units(experiment: PromptExperiment) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions under which an exposure to an experiment counts in its analysis.

    A bandit is analysed by the probability of what each unit got, so units without one, as those that were reported,
    are left out.
    """
    dealt = [] if experiment.bandit is None else [exposures.c.propensity.is_not(None)]
    return (*analysed(experiment.overrides), *dealt)


async def any_alias(connection: AsyncConnection) -> bool:
    """Return whether any session turned out to be a user, so that units have events under several names."""
    return bool((await connection.execute(select(exists().select_from(aliases)))).scalar_one())


def _nobody_else() -> ColumnElement[bool]:
    """A session that became a user is not a unit beside that user."""
    return exposures.c.unit.not_in(select(aliases.c.alias))


def _record(row: Row[Any]) -> Exposure:
    return Exposure(**{name: getattr(row, name) for name in _RECORDED})
