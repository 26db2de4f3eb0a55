"""What ran in the shadow of an experiment, and what was served to the same units: totals of each unit.

Shadows have no roll-ups: their events are read where they stand, as far as they have not been pruned.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Dialect,
    Float,
    Row,
    Select,
    Subquery,
    and_,
    case,
    cast,
    false,
    func,
    literal,
    literal_column,
    or_,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from promptab.analysis.shadow_totals import MEASURED, ShadowTotals, UnitUse, Use
from promptab.models import PromptExperiment
from promptab.shadow_place import SHADOW_KEY
from promptab.stores.schema import aliases, events


class ShadowQueries:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def totals(self, experiment: PromptExperiment, moments: Sequence[datetime] = ()) -> ShadowTotals:
        """Return what an experiment's shadows did, and what their units were served, apart before and after each of
        the moments.
        """
        runs = _runs(experiment.experiment_id, moments)
        served = {}
        for shadow in experiment.shadows:
            # a CTE, as it is asked several things: its documents are taken apart once
            named = select(runs.c.recorded, runs.c.beside, runs.c.is_call)
            its_runs = named.where(runs.c.variant == shadow.key).cte("its_runs")
            beside = _served(experiment.experiment_id, moments, its_runs, self._connection.dialect)
            served[shadow.key] = await self._by_unit(beside)
        return ShadowTotals(
            await self._by_unit(runs),
            served,
            await self._failures(runs),
        )

    async def _by_unit(self, rows: Subquery) -> list[UnitUse]:
        unit = func.coalesce(aliases.c.unit, rows.c.recorded).label("unit")
        keys = (unit, rows.c.recorded, rows.c.variant, rows.c.stretch)
        sums = [
            column
            for measure in MEASURED
            for column in (
                func.count(rows.c[measure]).label(f"n_{measure}"),
                func.coalesce(func.sum(rows.c[measure]), 0.0).label(f"s_{measure}"),
            )
        ]
        query = (
            select(*keys, func.sum(rows.c.is_call).label("calls"), *sums)
            .select_from(rows.outerjoin(aliases, aliases.c.alias == rows.c.recorded))
            .group_by(*keys)
        )
        return [_unit_use(row) for row in (await self._connection.execute(query)).all()]

    async def _failures(self, runs: Subquery) -> dict[str, dict[str, int]]:
        query = (
            select(runs.c.variant, runs.c.failure, func.count().label("runs"))
            .where(runs.c.success_rate == 0.0, runs.c.is_call == 1)
            .group_by(runs.c.variant, runs.c.failure)
            .order_by(runs.c.variant, func.count().desc(), runs.c.failure)
        )
        found: dict[str, dict[str, int]] = {}
        for variant, failure, count in (await self._connection.execute(query)).all():
            found.setdefault(variant, {})[failure or ""] = int(count)
        return found


def of_shadow(field: str) -> ColumnElement[Any]:
    """Return a field of the `ShadowPlace` of an event that has one."""
    found: ColumnElement[Any] = events.c.metadata[(SHADOW_KEY, field)].as_string()
    return found


def is_run() -> ColumnElement[bool]:
    """Return whether an event is a run in the shadow, and not what was said of one later."""
    return and_(events.c.kind == "shadow", of_shadow("feedback_on").is_(None))


def _runs(experiment_id: str, moments: Sequence[datetime]) -> Subquery:
    failure = events.c.metadata[("call", "failure")].as_string()
    columns = (
        of_shadow("unit").label("recorded"),
        of_shadow("variant").label("variant"),
        case((of_shadow("feedback_on").is_(None), 1), else_=0).label("is_call"),
        failure.label("failure"),
        func.replace(of_shadow("beside"), "-", "").label("beside"),
    )
    of_experiment = and_(events.c.kind == "shadow", of_shadow("experiment_id") == experiment_id)
    return _measured(columns, moments).where(of_experiment).subquery("runs")


def _served(experiment_id: str, moments: Sequence[datetime], runs: CTE, dialect: Dialect) -> Subquery:
    """Return what the units of the runs were served. Measured are the calls that have a run beside them: runs may be
    left out when much is asked, and what was served then compares with none of the others. Of units whose runs do not
    say beside which call they were, all are.
    """
    beside = select(runs.c.beside).where(runs.c.beside.is_not(None)).distinct().subquery("beside")
    is_unsaid = and_(runs.c.beside.is_(None), runs.c.is_call == 1)
    unsaid = select(runs.c.recorded).where(is_unsaid).distinct().subquery("unsaid")
    units = select(runs.c.recorded).distinct()
    columns = (
        events.c.unit.label("recorded"),
        events.c.variant.label("variant"),
        case((events.c.kind == "use", 1), else_=0).label("is_call"),
    )
    # joined, as each measure would look it up again otherwise
    found = events.outerjoin(beside, _event_id_text(dialect) == beside.c.beside).outerjoin(
        unsaid, events.c.unit == unsaid.c.recorded
    )
    return (
        _measured(columns, moments, where=or_(beside.c.beside.is_not(None), unsaid.c.recorded.is_not(None)))
        .select_from(found)
        .where(
            events.c.experiment_id == experiment_id,
            events.c.variant.is_not(None),
            events.c.flagged == false(),
            events.c.unit.in_(units),
        )
        .subquery("served")
    )


def _event_id_text(dialect: Dialect) -> ColumnElement[str]:
    """Return the id of an event in 32 lower-case hex digits."""
    if dialect.name == "postgresql":
        return func.encode(events.c.event_id, literal_column("'hex'"))
    return func.lower(func.hex(events.c.event_id))


def _measured(
    columns: Sequence[ColumnElement[Any]],
    moments: Sequence[datetime],
    *,
    where: ColumnElement[bool] | None = None,
) -> Select[Any]:
    """Return a query of events with the columns, what each of them measured, and in which stretch it was; with `where`,
    what those of them measured.
    """
    stretch: ColumnElement[int] = literal(0)
    for moment in moments:
        stretch = stretch + case((events.c.at >= moment, 1), else_=0)
    success = case((events.c.success.is_(True), 1.0), (events.c.success.is_(False), 0.0))
    # sums of whole numbers overflow where those of floats do not
    made = {"success_rate": success, "tokens": cast(events.c.tokens, Float)}
    measured = [made[name] if name in made else events.c[name] for name in MEASURED]
    if where is not None:
        measured = [case((where, measure)) for measure in measured]
    labelled = (measure.label(name) for name, measure in zip(MEASURED, measured, strict=True))
    return select(*columns, stretch.label("stretch"), *labelled)


def _unit_use(row: Row[Any]) -> UnitUse:
    named = row._mapping  # noqa: SLF001 - SQLAlchemy's public name
    totals = {name: (float(named[f"n_{name}"]), float(named[f"s_{name}"])) for name in MEASURED}
    return UnitUse(row.unit, row.recorded, row.variant, int(row.stretch), Use(int(row.calls), totals))
