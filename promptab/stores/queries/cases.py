"""Cases of prompts, and the latest result of each on each version."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Table, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from promptab.cases import Case, CaseResult
from promptab.models import PromptType
from promptab.stores.schema import case_results, cases


class CaseQueries:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def of(self, prompt_type: PromptType, name: str) -> tuple[Case, ...]:
        """Return the cases of a prompt in their order; none where nothing was ever said."""
        query = select(cases.c.cases).where(*_prompt(prompt_type, name))
        found = (await self._connection.execute(query)).scalar_one_or_none()
        return _cases(found or [])

    async def listing(self) -> dict[tuple[PromptType, str], tuple[Case, ...]]:
        """Return the cases of every prompt that has some."""
        rows = (await self._connection.execute(select(cases))).all()
        return {(PromptType(row.prompt_type), row.name): _cases(row.cases) for row in rows}

    async def put(self, prompt_type: PromptType, name: str, given: Sequence[Case], *, at: datetime) -> None:
        """Put these in the place of all cases that the prompt has."""
        values = {"cases": [case.model_dump(mode="json") for case in given], "changed_at": at}
        key = _prompt(prompt_type, name)
        if given:
            await self._replace(cases, key, {"prompt_type": prompt_type.value, "name": name}, values)
        else:
            await self._connection.execute(delete(cases).where(*key))

    async def results(self, version_id: str) -> dict[str, CaseResult]:
        """Return what is known of cases on a version, by their digest: also of cases that are no more."""
        query = select(case_results).where(case_results.c.version_id == version_id)
        rows = (await self._connection.execute(query)).mappings().all()
        return {
            row["digest"]: CaseResult.model_validate({k: v for k, v in row.items() if k != "version_id"})
            for row in rows
        }

    async def keep(self, version_id: str, result: CaseResult) -> None:
        """Put the result in the place of an earlier one of the same case on this version, which is in the store."""
        values = result.model_dump()
        digest = values.pop("digest")
        key = (case_results.c.version_id == version_id, case_results.c.digest == digest)
        await self._replace(
            case_results,
            key,
            {"version_id": version_id, "digest": digest},
            {**values, "reasons": list(result.reasons)},
        )

    async def _replace(
        self,
        table: Table,
        key: Sequence[ColumnElement[bool]],
        identity: dict[str, Any],
        values: dict[str, Any],
    ) -> None:
        change = update(table).where(*key).values(**values)
        if (await self._connection.execute(change)).rowcount:
            return
        try:
            async with self._connection.begin_nested():
                await self._connection.execute(insert(table).values(**identity, **values))
        except IntegrityError:
            # another writer was faster, or what it belongs to is gone: then it changes nothing
            await self._connection.execute(change)


def _prompt(prompt_type: PromptType, name: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return cases.c.prompt_type == prompt_type.value, cases.c.name == name


def _cases(documents: Sequence[Any]) -> tuple[Case, ...]:
    return tuple(Case.model_validate(document) for document in documents)
