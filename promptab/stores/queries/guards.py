"""Guards: what is watched, and what has come of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from promptab.decisions.guard import Guard, GuardBound, GuardStatus, GuardTally
from promptab.models import Environment, PromptType
from promptab.policy import Policy
from promptab.stores.queries.guard_tallies import tally_of, with_few_units
from promptab.stores.schema import events
from promptab.stores.watch_schema import guard_units, guards


class GuardQueries:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, guard: Guard) -> Guard:
        """Begin to watch, from the events on that are recorded next; return the guard with its watermark."""
        newest = select(func.coalesce(func.max(events.c.sequence), 0))
        began = guard.model_copy(
            update={"watermark": int((await self._connection.execute(newest)).scalar_one())}
        )
        values = began.model_dump(exclude={"policy", "bounds", "tallies"})
        await self._connection.execute(
            insert(guards).values(**values, policy=guard.policy.model_dump(mode="json"), bounds=None, sums=[])
        )
        return began

    async def by_id(self, guard_id: str) -> Guard | None:
        """Return a guard as it stands, with the single units of those of its tallies that have few."""
        query = select(guards).where(guards.c.guard_id == guard_id)
        row = (await self._connection.execute(query)).one_or_none()
        if row is None:
            return None
        guard = _record(row)
        tallies = [
            await with_few_units(self._connection, guard_id, place, tally, is_rate=is_rate)
            for place, (tally, is_rate) in enumerate(zip(guard.tallies, guard.weigh_rates, strict=True))
        ]
        return guard.model_copy(update={"tallies": tuple(tallies)})

    async def listing(
        self,
        *,
        watching: bool,
        prompt_type: PromptType | None = None,
        name: str | None = None,
    ) -> list[Guard]:
        """Return guards, oldest first: those that are `watching`, or all; of one prompt, or of any."""
        query = select(guards).order_by(guards.c.since, guards.c.guard_id)
        if watching:
            query = query.where(guards.c.status == "watching")
        if prompt_type is not None:
            query = query.where(guards.c.prompt_type == prompt_type.value)
        if name is not None:
            query = query.where(guards.c.name == name)
        return [_record(row) for row in (await self._connection.execute(query)).all()]

    async def settle(self, guard_id: str, bounds: Sequence[GuardBound]) -> None:
        """Write where its guardrails draw their lines, unless another one was faster."""
        nothing = GuardTally()
        await self._connection.execute(
            update(guards)
            .where(guards.c.guard_id == guard_id, guards.c.bounds.is_(None))
            .values(
                bounds=[bound.model_dump(mode="json") for bound in bounds],
                sums=[nothing.model_dump(mode="json") for _ in bounds],
            )
        )

    async def end(self, guard_id: str, status: GuardStatus, *, at: datetime, detail: str) -> bool:
        """Stop watching; return whether it was watching until now."""
        return bool(await self._ended([guards.c.guard_id == guard_id], status, at=at, detail=detail))

    async def end_of(
        self, prompt_type: PromptType, name: str, environment: Environment, *, at: datetime, detail: str
    ) -> None:
        """Stop watching an environment of a prompt, which has been moved."""
        there = [
            guards.c.prompt_type == prompt_type.value,
            guards.c.name == name,
            guards.c.environment == environment,
        ]
        await self._ended(there, "moved", at=at, detail=detail)

    async def forget(self, version_id: str | None) -> None:
        """Forget what the events of a version (None: of all) add up to, which have been deleted."""
        watching = select(guards.c.guard_id).where(guards.c.status == "watching")
        if version_id is not None:
            watching = watching.where(guards.c.version_id == version_id)
        for guard_id in (await self._connection.execute(watching)).scalars().all():
            await self._connection.execute(delete(guard_units).where(guard_units.c.guard_id == guard_id))
            # the lines stay where they are: those of another version's events are drawn already, or never
            await self._connection.execute(
                update(guards).where(guards.c.guard_id == guard_id).values(sums=await self._nothing(guard_id))
            )
        # a database may give the numbers of the newest events again
        newest = select(func.coalesce(func.max(events.c.sequence), 0)).scalar_subquery()
        await self._connection.execute(
            update(guards).where(guards.c.watermark > newest).values(watermark=newest)
        )

    async def _nothing(self, guard_id: str) -> list[Any]:
        query = select(guards.c.bounds).where(guards.c.guard_id == guard_id)
        bounds = (await self._connection.execute(query)).scalar_one() or []
        return [GuardTally().model_dump(mode="json") for _ in bounds]

    async def _ended(self, which: Sequence[Any], status: GuardStatus, *, at: datetime, detail: str) -> int:
        ended = (
            update(guards)
            .where(*which, guards.c.status == "watching")
            .values(status=status, ended_at=at, detail=detail)
            .returning(guards.c.guard_id)
        )
        found = (await self._connection.execute(ended)).scalars().all()
        await self._connection.execute(delete(guard_units).where(guard_units.c.guard_id.in_(found)))
        return len(found)


def _record(row: Row[Any]) -> Guard:
    fields = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name
    bounds, sums = fields.pop("bounds"), fields.pop("sums")
    fields["policy"] = Policy.model_validate(fields["policy"])
    return Guard(
        **fields,
        bounds=None if bounds is None else tuple(GuardBound.model_validate(bound) for bound in bounds),
        tallies=tuple(tally_of(document) for document in sums),
    )
