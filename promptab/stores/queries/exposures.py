"""Exposures: the first time a unit met an experiment."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Row, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from promptab.models import Exposure
from promptab.stores.schema import aliases, exposures

ANALYSED_SOURCES = ("assigned", "reported", "alias")
"""Units that were shown a variant by hand (source "override") are left out of every analysis."""


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
                await self._connection.execute(insert(exposures).values(**exposure.model_dump()))
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

    async def of_unit(self, unit: str) -> list[Exposure]:
        """Return the unit's exposures to every experiment, in the order of time."""
        query = select(exposures).where(exposures.c.unit == unit).order_by(exposures.c.at)
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

    async def with_source(self, source: str) -> list[Exposure]:
        query = select(exposures).where(exposures.c.source == source)
        return [_record(row) for row in (await self._connection.execute(query)).all()]

    async def counts(self, experiment_id: str) -> dict[str, int]:
        """Return how many units were exposed to each variant, overridden units included.

        A session that became a user is one unit with that user, here and in everything that follows.
        """
        return await self._counts(exposures.c.experiment_id == experiment_id, _nobody_else())

    async def analysed_counts(self, experiment_id: str) -> dict[str, int]:
        """Return how many units count in an analysis, per variant."""
        return await self._counts(exposures.c.experiment_id == experiment_id, *analysed())

    async def leave_out(self, experiment_id: str, unit: str) -> None:
        """Leave a unit that was exposed before out of every analysis from now on."""
        await self._connection.execute(
            update(exposures)
            .where(exposures.c.experiment_id == experiment_id, exposures.c.unit == unit)
            .values(source="override")
        )

    async def _counts(self, *conditions: ColumnElement[bool]) -> dict[str, int]:
        query = (
            select(exposures.c.variant, func.count().label("units"))
            .where(*conditions)
            .group_by(exposures.c.variant)
        )
        return {row.variant: row.units for row in (await self._connection.execute(query)).all()}


def analysed() -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Return the conditions under which an exposure counts in an analysis."""
    return (exposures.c.source.in_(ANALYSED_SOURCES), _nobody_else())


def _nobody_else() -> ColumnElement[bool]:
    """A session that became a user is not a unit beside that user."""
    return exposures.c.unit.not_in(select(aliases.c.alias))


def _record(row: Row[Any]) -> Exposure:
    return Exposure(**row._mapping)  # noqa: SLF001 - SQLAlchemy's public name
