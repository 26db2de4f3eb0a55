"""Cases of prompts, and results on versions."""

from __future__ import annotations

import asyncio

from promptab import CaseResult
from promptab.cases import Case, check_cases
from promptab.models import PromptType
from promptab.stores.base import Store, Transaction
from tests.contract.records import NOON, a_version, new_id

CASES = check_cases(
    "tests",
    [
        {"name": "Ü", "variables": {"b": 1, "a": [None, True, 1.5]}, "expect": {"regex": r"\d"}},
        {"name": "two"},
    ],
)


def a_result(**fields: object) -> CaseResult:
    return CaseResult.model_validate({"name": "two", "digest": "0" * 64, "status": "passed", **fields})


async def put(store: Store, kind: PromptType, name: str, cases: tuple[Case, ...]) -> None:
    async def work(tx: Transaction) -> None:
        await tx.cases.put(kind, name, cases, at=NOON)

    await store.write(work, shown=False)


async def listing(store: Store) -> dict[tuple[PromptType, str], tuple[Case, ...]]:
    async def work(tx: Transaction) -> dict[tuple[PromptType, str], tuple[Case, ...]]:
        found = await tx.cases.listing()
        assert found == {key: await tx.cases.of(*key) for key in found}
        return found

    return await store.read(work)


async def test_cases_come_back_as_they_were_put_in_their_order(store: Store) -> None:
    await put(store, PromptType.SYSTEM, "tone", CASES)
    await put(store, PromptType.USER, "tone", CASES[1:])
    assert await listing(store) == {
        (PromptType.SYSTEM, "tone"): CASES,
        (PromptType.USER, "tone"): CASES[1:],
    }
    (first, _) = (await listing(store))[PromptType.SYSTEM, "tone"]
    assert list(first.variables) == ["b", "a"]


async def test_cases_that_are_put_replace_all_that_were_there(store: Store) -> None:
    await put(store, PromptType.SYSTEM, "tone", CASES)
    await put(store, PromptType.SYSTEM, "tone", CASES[:1])
    assert await listing(store) == {(PromptType.SYSTEM, "tone"): CASES[:1]}
    await put(store, PromptType.SYSTEM, "tone", ())
    await put(store, PromptType.SYSTEM, "tone", ())
    assert await listing(store) == {}


async def test_many_writers_at_once_leave_the_result_of_one_of_them(store: Store) -> None:
    version = a_version(version_id=new_id())

    async def insert(tx: Transaction) -> None:
        await tx.versions.insert(version)

    await store.write(insert)

    async def keep(number: int) -> None:
        result = a_result(answer=f"answer {number}", reasons=("a", "b"), at=NOON, cost=0.1 * number)

        async def work(tx: Transaction) -> None:
            await tx.cases.keep(version.version_id, result)

        await store.write(work, shown=False)

    await asyncio.gather(*(keep(number) for number in range(12)))

    async def look(tx: Transaction) -> dict[str, CaseResult]:
        return await tx.cases.results(version.version_id)

    (result,) = (await store.read(look)).values()
    number = int((result.answer or "").removeprefix("answer "))
    assert result == a_result(answer=f"answer {number}", reasons=("a", "b"), at=NOON, cost=0.1 * number)
