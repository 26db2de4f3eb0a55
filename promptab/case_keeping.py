"""The cases of prompts and what came of them, as a store keeps them; and the gate that they make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from promptab.cases import Case, CaseResult, Tried, check_cases, check_gate, digest_of
from promptab.checks import known_id, required_id
from promptab.content import check_prompt
from promptab.errors import InvalidInputError, NotFoundError
from promptab.managed import Managed
from promptab.models import PromptType, PromptVersion
from promptab.stores.base import Transaction


class CaseKeeping(Managed):
    """The part of `VersionManager` that concerns cases."""

    async def set_cases(
        self, name: str, prompt_type: str, cases: Iterable[Case | Mapping[str, Any]]
    ) -> tuple[Case, ...]:
        """Put these in the place of all cases that the prompt has; an empty list leaves it without.

        A case is what a file has under `tests:`; see `promptab.cases.case`. Every version of the prompt is tried on
        them, and no version changes. Raises `InvalidInputError` with the path of what is wrong, and `NotFoundError`
        for a prompt without versions.
        """
        kind, name = check_prompt(name, prompt_type)
        if kind is PromptType.CONFIG:
            raise InvalidInputError("prompt_type", kind.value, "a prompt that asks a model something")
        checked = check_cases("tests", cases)

        async def work(tx: Transaction) -> None:
            if not await tx.versions.numbers(kind, name):
                raise NotFoundError("prompt", f"{kind}/{name}", "create a version of it first")
            await tx.cases.put(kind, name, checked, at=self._clock())

        await (await self._store()).write(work, shown=False)
        return checked

    async def get_cases(self, name: str, prompt_type: str) -> tuple[Case, ...]:
        """Return the cases of a prompt in their order; empty where it has none."""
        kind, name = check_prompt(name, prompt_type)

        async def work(tx: Transaction) -> tuple[Case, ...]:
            return await tx.cases.of(kind, name)

        return await (await self._store()).read(work)

    async def case_results(self, version_id: str) -> dict[str, CaseResult]:
        """Return the latest result of each case of the prompt that was tried on this version, by the case's name."""
        known = known_id(version_id)

        async def work(tx: Transaction) -> dict[str, CaseResult]:
            version = None if known is None else await tx.versions.by_id(known)
            if version is None:
                return {}
            results = await tx.cases.results(version.version_id)
            cases = await tx.cases.of(version.prompt_type, version.name)
            return {case.name: results[digest] for case in cases if (digest := digest_of(case)) in results}

        return await (await self._store()).read(work)

    async def keep_result(self, version_id: str, result: CaseResult) -> None:
        """Keep a result, in the place of an earlier one of the same case on this version.

        Raises `InvalidInputError` for one that says nothing of the version, `NotFoundError` where there is none.
        """
        known = required_id("version", version_id)
        if not result.is_verdict:
            raise InvalidInputError("result.status", result.status, "passed or failed")

        async def work(tx: Transaction) -> None:
            if await tx.versions.by_id(known) is None:
                raise NotFoundError("version", known)
            await tx.cases.keep(known, result)

        await (await self._store()).write(work, shown=False)

    async def _pass_gate(
        self, tx: Transaction, version: PromptVersion, live: PromptVersion | None
    ) -> dict[str, Any]:
        """Return what the gate says for the version, inside an open write. Raises `GateError`."""
        cases = await tx.cases.of(version.prompt_type, version.name)
        candidate = Tried(version.label, await tx.cases.results(version.version_id))
        before = None if live is None else Tried(live.label, await tx.cases.results(live.version_id))
        return check_gate(cases, candidate, before)
