"""Decisions, and what became of each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from promptab.decisions.decision import Decision
from promptab.decisions.stored import OPEN_STATUSES, Standing, StoredDecision
from promptab.stores.decision_schema import decisions
from promptab.stores.queries.time_spans import HOUR, start_of_stretch


class DecisionQueries:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def append(self, stored: StoredDecision) -> StoredDecision:
        """Append it, and return it with its sequence."""
        decision = stored.decision
        values = {
            "decision_id": stored.decision_id,
            "experiment_id": decision.experiment_id,
            "experiment": decision.experiment,
            "action": decision.action,
            "at": decision.at,
            "decision": decision.model_dump(mode="json"),
            "standing": None if stored.standing is None else stored.standing.model_dump(mode="json"),
            "seen": stored.seen,
            "seen_at": stored.seen_at,
            **_became(stored),
        }
        result = await self._connection.execute(
            insert(decisions).values(**values).returning(decisions.c.sequence)
        )
        return stored.model_copy(update={"sequence": result.scalar_one()})

    async def by_id(self, decision_id: str) -> StoredDecision | None:
        query = select(decisions).where(decisions.c.decision_id == decision_id)
        row = (await self._connection.execute(query)).one_or_none()
        return None if row is None else _record(row)

    async def latest(self, experiment_id: str) -> StoredDecision | None:
        found = await self.of(experiment_id, limit=1)
        return found[0] if found else None

    async def of(self, experiment_id: str, *, limit: int | None = None) -> list[StoredDecision]:
        """Return the decisions about an experiment, newest first."""
        return await self._listing(decisions.c.experiment_id == experiment_id, limit)

    async def of_name(self, name: str, *, limit: int | None = None) -> list[StoredDecision]:
        """Return the decisions about all experiments that had this name, newest first."""
        return await self._listing(decisions.c.experiment == name, limit)

    async def beginning(self, experiment_id: str, beginning: str) -> list[StoredDecision]:
        """Return the decisions about an experiment whose id begins like this, newest first, at most two."""
        of_experiment = decisions.c.experiment_id == experiment_id
        named = decisions.c.decision_id.startswith(beginning, autoescape=True)
        return await self._listing(of_experiment & named, 2)

    async def open(self, experiment_id: str) -> list[StoredDecision]:
        """Return those of which something may still come, newest first."""
        of_experiment = decisions.c.experiment_id == experiment_id
        return await self._listing(of_experiment & decisions.c.status.in_(sorted(OPEN_STATUSES)))

    async def seen_again(self, sequence: int, at: datetime) -> None:
        """Count another look that decided the same from the same inputs."""
        await self._connection.execute(
            update(decisions)
            .where(decisions.c.sequence == sequence)
            .values(seen=decisions.c.seen + 1, seen_at=at)
        )

    async def settle(self, settled: Sequence[StoredDecision]) -> None:
        """Write what has become of these."""
        for stored in settled:
            await self._connection.execute(
                update(decisions).where(decisions.c.sequence == stored.sequence).values(**_became(stored))
            )

    async def thin_out(self, experiment_id: str, *, before: datetime) -> None:
        """Drop those decided before then that changed nothing, but for the first of each hour, status and action."""
        idle = (
            (decisions.c.experiment_id == experiment_id)
            & decisions.c.status.in_(["noted", "superseded"])
            & (decisions.c.at < before)
        )
        kept = (
            select(func.min(decisions.c.sequence))
            .where(idle)
            .group_by(start_of_stretch(decisions.c.at, HOUR), decisions.c.status, decisions.c.action)
        )
        await self._connection.execute(delete(decisions).where(idle & decisions.c.sequence.not_in(kept)))

    async def _listing(self, which: ColumnElement[bool], limit: int | None = None) -> list[StoredDecision]:
        query = select(decisions).where(which).order_by(decisions.c.sequence.desc()).limit(limit)
        return [_record(row) for row in (await self._connection.execute(query)).all()]


def _became(stored: StoredDecision) -> dict[str, Any]:
    return {
        "status": stored.status,
        "settled_at": stored.settled_at,
        "actor": stored.actor,
        "detail": stored.detail,
        "effects": dict(stored.effects),
    }


def _record(row: Row[Any]) -> StoredDecision:
    return StoredDecision(
        sequence=row.sequence,
        decision_id=row.decision_id,
        decision=Decision.model_validate(row.decision),
        standing=None if row.standing is None else Standing.model_validate(row.standing),
        status=row.status,
        settled_at=row.settled_at,
        actor=row.actor,
        detail=row.detail,
        effects=row.effects,
        seen=row.seen,
        seen_at=row.seen_at,
    )
