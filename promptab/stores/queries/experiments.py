"""Experiments, their epochs of weights, holdouts and aliases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from promptab.lifecycle import LIVE_STATUSES
from promptab.models import Epoch, ExperimentStatus, PromptExperiment, PromptType
from promptab.stores.alert_schema import alert_facts, alert_pulses
from promptab.stores.queries.readable import readable
from promptab.stores.schema import aliases, epochs, experiments, exposures, holdouts

_COLUMNS = {
    "experiment_id",
    "name",
    "prompt_type",
    "prompt_name",
    "status",
    "metadata",
    "created_at",
    "started_at",
    "ended_at",
}


class Holdout(NamedTuple):
    """A share of units that is kept out of every experiment that names it."""

    name: str
    salt: str
    share: float


class ExperimentQueries:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def insert(self, experiment: PromptExperiment) -> None:
        await self._connection.execute(insert(experiments).values(**_row(experiment)))

    async def replace(self, experiment: PromptExperiment) -> None:
        """Write the record over the one with the same id."""
        await self._connection.execute(
            update(experiments)
            .where(experiments.c.experiment_id == experiment.experiment_id)
            .values(**_row(experiment))
        )

    async def by_id(self, experiment_id: str) -> PromptExperiment | None:
        query = select(experiments).where(experiments.c.experiment_id == experiment_id)
        row = (await self._connection.execute(query)).one_or_none()
        return None if row is None else _record(row)

    async def listing(
        self,
        *,
        name: str | None = None,
        statuses: frozenset[ExperimentStatus] | None = None,
        prompt_type: PromptType | None = None,
    ) -> list[PromptExperiment]:
        """Return all that match, newest first."""
        query = select(experiments).order_by(experiments.c.created_at.desc(), experiments.c.experiment_id)
        if name is not None:
            query = query.where(experiments.c.name == name)
        if statuses is not None:
            query = query.where(experiments.c.status.in_(sorted(statuses)))
        if prompt_type is not None:
            query = query.where(experiments.c.prompt_type == prompt_type.value)
        return [_record(row) for row in (await self._connection.execute(query)).all()]

    async def live(self) -> list[PromptExperiment]:
        """Return the running and paused experiments that can be read."""
        query = select(experiments).where(experiments.c.status.in_(sorted(LIVE_STATUSES)))
        return readable((await self._connection.execute(query)).all(), _record, "experiment")

    async def delete(self, experiment_id: str) -> bool:
        """Remove the experiment with its epochs and exposures; its events stay, and so does what was told of it."""
        for table in (exposures, epochs):
            await self._connection.execute(delete(table).where(table.c.experiment_id == experiment_id))
        for known in (alert_facts, alert_pulses):
            await self._connection.execute(delete(known).where(known.c.subject == experiment_id))
        removed = await self._connection.execute(
            delete(experiments).where(experiments.c.experiment_id == experiment_id)
        )
        return removed.rowcount > 0

    async def add_epoch(self, epoch: Epoch) -> None:
        await self._connection.execute(insert(epochs).values(**epoch.model_dump(mode="python")))

    async def drop_epochs_after(self, experiment_id: str, time: datetime) -> None:
        """Remove the epochs that have not begun by then: a later change of weights takes their place."""
        await self._connection.execute(
            delete(epochs).where(epochs.c.experiment_id == experiment_id, epochs.c.starts_at > time)
        )

    async def epochs_by_experiment(self, experiment_ids: Sequence[str]) -> dict[str, list[Epoch]]:
        """Return each experiment's epochs in their order; none of an experiment where one cannot be read."""
        query = select(epochs).where(epochs.c.experiment_id.in_(experiment_ids)).order_by(epochs.c.number)
        found: dict[str, list[Epoch]] = {}
        rows = (await self._connection.execute(query)).all()
        for epoch in readable(rows, lambda row: Epoch(**row._mapping), "epoch"):  # noqa: SLF001 - as below
            found.setdefault(epoch.experiment_id, []).append(epoch)
        counts = Counter(row.experiment_id for row in rows)
        return {key: made for key, made in found.items() if len(made) == counts[key]}

    async def epochs_of(self, experiment_id: str) -> list[Epoch]:
        query = select(epochs).where(epochs.c.experiment_id == experiment_id).order_by(epochs.c.number)
        return [Epoch(**row._mapping) for row in (await self._connection.execute(query)).all()]  # noqa: SLF001 - SQLAlchemy's public name

    async def set_holdout(self, name: str, salt: str, share: float) -> None:
        await self._connection.execute(delete(holdouts).where(holdouts.c.name == name))
        await self._connection.execute(insert(holdouts).values(name=name, salt=salt, share=share))

    async def holdouts(self) -> dict[str, Holdout]:
        rows = (await self._connection.execute(select(holdouts))).all()
        return {row.name: Holdout(row.name, row.salt, row.share) for row in rows}

    async def aliases_since(self, time: datetime) -> dict[str, str]:
        """Return session -> user for the sessions that turned out to be users from then on."""
        query = select(aliases.c.alias, aliases.c.unit).where(aliases.c.at >= time)
        return {row.alias: row.unit for row in (await self._connection.execute(query)).all()}

    async def add_alias(self, alias: str, unit: str, at: datetime) -> None:
        """Remember that a session turned out to be a unit; the first one told holds."""
        await self._connection.execute(insert(aliases).values(alias=alias, unit=unit, at=at))

    async def unit_of_alias(self, alias: str) -> str | None:
        query = select(aliases.c.unit).where(aliases.c.alias == alias)
        found: str | None = (await self._connection.execute(query)).scalar_one_or_none()
        return found


def _row(experiment: PromptExperiment) -> dict[str, Any]:
    dumped = experiment.model_dump(mode="json")
    row: dict[str, Any] = {key: getattr(experiment, key) for key in _COLUMNS}
    row["prompt_type"] = experiment.prompt_type.value
    row["status"] = experiment.status.value
    row["metadata"] = dumped["metadata"]
    row["definition"] = {key: value for key, value in dumped.items() if key not in _COLUMNS}
    return row


def _record(row: Row[Any]) -> PromptExperiment:
    return PromptExperiment(**{key: getattr(row, key) for key in _COLUMNS}, **row.definition)
