"""Environments: the pointer that says what is live, and the append-only history of its moves."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from promptab.models import Deployment, Environment, PromptType
from promptab.stores.queries.guards import GuardQueries
from promptab.stores.schema import deployments, pointers


class DeploymentQueries:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def pointer(self, prompt_type: PromptType, name: str, environment: Environment) -> str | None:
        """Return the version_id that is live there, if any."""
        query = select(pointers.c.version_id).where(*_key(pointers, prompt_type, name, environment))
        found: str | None = (await self._connection.execute(query)).scalar_one_or_none()
        return found

    async def pointers(self) -> dict[tuple[PromptType, str, str], str]:
        """Return every pointer: (prompt_type, name, environment) -> version_id."""
        rows = (await self._connection.execute(select(pointers))).all()
        return {(PromptType(row.prompt_type), row.name, row.environment): row.version_id for row in rows}

    async def environments_of(self, version_id: str) -> list[str]:
        query = select(pointers.c.environment).where(pointers.c.version_id == version_id)
        return sorted((await self._connection.execute(query)).scalars())

    async def move(self, move: Deployment) -> Deployment:
        """Point the environment at `move.version_id` (None: at nothing), and append the move to the history.

        The pointer is moved from `move.previous_version_id`, which the caller has read in the same
        transaction. What guarded that version there ends. Returns the entry with its sequence.
        """
        whose = "" if move.actor is None else f" by {move.actor}"
        await GuardQueries(self._connection).end_of(
            move.prompt_type,
            move.name,
            move.environment,
            at=move.at,
            detail=f"{move.environment} was moved to {move.version or 'nothing'}{whose}",
        )
        await self.point(move.prompt_type, move.name, move.environment, move.version_id)
        return await self.append(move)

    async def point(
        self, prompt_type: PromptType, name: str, environment: Environment, version_id: str | None
    ) -> None:
        """Set what is live (None: nothing) without a word in the history, as a copy from another store does."""
        await self._connection.execute(
            delete(pointers).where(*_key(pointers, prompt_type, name, environment))
        )
        if version_id is not None:
            await self._connection.execute(
                insert(pointers).values(
                    prompt_type=prompt_type.value, name=name, environment=environment, version_id=version_id
                )
            )

    async def append(self, move: Deployment) -> Deployment:
        """Append to the history alone, as a copy from another store does."""
        values = move.model_dump(exclude={"sequence"})
        result = await self._connection.execute(
            insert(deployments).values(**values).returning(deployments.c.sequence)
        )
        return move.model_copy(update={"sequence": result.scalar_one()})

    async def history(
        self, prompt_type: PromptType, name: str, environment: Environment | None
    ) -> list[Deployment]:
        """Return the moves in the order they were made; of all environments for None."""
        query: Select[Any] = (
            select(deployments)
            .where(deployments.c.prompt_type == prompt_type.value, deployments.c.name == name)
            .order_by(deployments.c.sequence)
        )
        if environment is not None:
            query = query.where(deployments.c.environment == environment)
        return [Deployment(**row._mapping) for row in (await self._connection.execute(query)).all()]  # noqa: SLF001 - SQLAlchemy's public name


def _key(table: Any, prompt_type: PromptType, name: str, environment: Environment) -> tuple[Any, Any, Any]:
    return (
        table.c.prompt_type == prompt_type.value,
        table.c.name == name,
        table.c.environment == environment,
    )
