"""How far decisions and people have brought each experiment."""

from __future__ import annotations

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from promptab.decisions.stored import RolloutProgress
from promptab.stores.decision_schema import rollouts


class RolloutQueries:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def of(self, experiment_id: str) -> RolloutProgress:
        """Return how far the experiment is; the beginning where nothing has moved yet."""
        query = select(rollouts).where(rollouts.c.experiment_id == experiment_id)
        row = (await self._connection.execute(query)).mappings().one_or_none()
        if row is None:
            return RolloutProgress()
        return RolloutProgress(**{key: value for key, value in row.items() if key != "experiment_id"})

    async def move(self, experiment_id: str, progress: RolloutProgress) -> RolloutProgress:
        """Write how far the experiment is now, and raise its number, in a write that is shown; return that.

        `progress` has the number that the caller has read in the same transaction.
        """
        moved = progress.model_copy(update={"number": progress.number + 1})
        values = {
            **moved.model_dump(),
            "step_units": dict(moved.step_units),
            "withdrawn": list(moved.withdrawn),
            "paused_for": list(moved.paused_for),
        }
        change = update(rollouts).where(rollouts.c.experiment_id == experiment_id).values(**values)
        if not (await self._connection.execute(change)).rowcount:
            await self._connection.execute(insert(rollouts).values(experiment_id=experiment_id, **values))
        return moved
