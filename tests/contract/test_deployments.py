"""The pointer of an environment and the history of its moves."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import insert

from promptab import Deployment, PromptVersion, StoreError
from promptab.models import Environment, PromptType
from promptab.stores.base import Store, Transaction
from promptab.stores.schema import pointers
from tests.contract.records import NOON, a_move, a_version, new_id


@pytest.fixture
async def two(store: Store) -> tuple[PromptVersion, PromptVersion]:
    """Two versions of one prompt, in the store."""
    first, second = a_version(version="1.0.0"), a_version(version="2.0.0")

    async def work(tx: Transaction) -> None:
        await tx.versions.insert(first)
        await tx.versions.insert(second)

    await store.write(work)
    return first, second


async def moved(store: Store, *moves: Deployment) -> list[Deployment]:
    async def work(tx: Transaction) -> list[Deployment]:
        return [await tx.deployments.move(move) for move in moves]

    return await store.write(work)


async def pointer(store: Store, environment: Environment = "production") -> str | None:
    async def work(tx: Transaction) -> str | None:
        return await tx.deployments.pointer(PromptType.SYSTEM, "tone", environment)

    return await store.read(work)


async def history(store: Store, environment: Environment | None = "production") -> list[Deployment]:
    async def work(tx: Transaction) -> list[Deployment]:
        return await tx.deployments.history(PromptType.SYSTEM, "tone", environment)

    return await store.read(work)


async def test_move_points_the_environment_and_appends_to_the_history(
    store: Store, two: tuple[PromptVersion, PromptVersion]
) -> None:
    first, second = two
    entries = await moved(
        store,
        a_move(first, actor="Ada", reason="first\nlight", evidence={"p": 0.01}),
        a_move(second, first, action="rollback"),
    )
    assert await pointer(store) == second.version_id
    assert await history(store) == entries
    assert [entry.model_copy(update={"sequence": 0}) for entry in entries] == [
        a_move(first, actor="Ada", reason="first\nlight", evidence={"p": 0.01}),
        a_move(second, first, action="rollback"),
    ]


async def test_move_to_nothing_takes_the_pointer_away(
    store: Store, two: tuple[PromptVersion, PromptVersion]
) -> None:
    first, second = two
    await moved(store, a_move(first), a_move(None, first))
    assert await pointer(store) is None
    assert [entry.action for entry in await history(store)] == ["promote", "withdraw"]
    await moved(store, a_move(second))
    assert await pointer(store) == second.version_id


async def test_sequence_grows_with_every_entry_of_the_store(
    store: Store, two: tuple[PromptVersion, PromptVersion]
) -> None:
    first, second = two
    moves = [
        a_move(first),
        a_move(second, first),
        a_move(first, environment="staging"),
        a_move(first, second),
    ]
    sequences = [(await moved(store, move))[0].sequence for move in moves]
    assert sequences == sorted(set(sequences))
    assert [entry.sequence for entry in await history(store, None)] == sequences


async def test_history_is_in_the_order_of_moves_not_of_their_clocks(
    store: Store, two: tuple[PromptVersion, PromptVersion]
) -> None:
    first, second = two
    await moved(store, a_move(first, at=NOON), a_move(second, first, at=NOON.replace(year=2020)))
    assert [entry.version for entry in await history(store)] == ["1.0.0", "2.0.0"]


async def test_environments_and_prompts_are_apart(
    store: Store, two: tuple[PromptVersion, PromptVersion]
) -> None:
    first, second = two
    other = a_version("other")

    async def add(tx: Transaction) -> None:
        await tx.versions.insert(other)

    await store.write(add)
    await moved(store, a_move(first), a_move(second, environment="staging"), a_move(other))

    async def look(tx: Transaction) -> tuple[dict[tuple[PromptType, str, str], str], list[list[str]]]:
        bears = [await tx.deployments.environments_of(version.version_id) for version in (first, second)]
        return await tx.deployments.pointers(), bears

    live, bears = await store.read(look)
    assert live == {
        (PromptType.SYSTEM, "tone", "production"): first.version_id,
        (PromptType.SYSTEM, "tone", "staging"): second.version_id,
        (PromptType.SYSTEM, "other", "production"): other.version_id,
    }
    assert bears == [["production"], ["staging"]]
    assert [entry.environment for entry in await history(store, "staging")] == ["staging"]
    assert len(await history(store, None)) == 2


async def test_one_version_can_be_in_both_environments(
    store: Store, two: tuple[PromptVersion, PromptVersion]
) -> None:
    first, _ = two
    await moved(store, a_move(first), a_move(first, environment="staging"))

    async def look(tx: Transaction) -> tuple[list[str], PromptVersion | None]:
        return await tx.deployments.environments_of(first.version_id), await tx.versions.by_id(
            first.version_id
        )

    environments, found = await store.read(look)
    assert environments == ["production", "staging"]
    assert found is not None
    assert found.tags == ("production", "staging")


async def test_two_versions_cannot_both_be_pointed_at(
    store: Store, two: tuple[PromptVersion, PromptVersion]
) -> None:
    first, second = two
    await moved(store, a_move(first))

    async def add_a_pointer(tx: Transaction) -> None:
        beside = {"prompt_type": "system", "name": "tone", "environment": "production"}
        await tx.deployments._connection.execute(
            insert(pointers).values(version_id=second.version_id, **beside)
        )

    # past every query of ours: the database itself refuses it
    with pytest.raises(StoreError):
        await store.write(add_a_pointer)
    assert await pointer(store) == first.version_id


async def test_point_sets_what_is_live_without_a_word_in_the_history(
    store: Store, two: tuple[PromptVersion, PromptVersion]
) -> None:
    first, second = two
    await moved(store, a_move(first))

    async def point(tx: Transaction, version_id: str | None) -> None:
        await tx.deployments.point(PromptType.SYSTEM, "tone", "production", version_id)
        await tx.deployments.point(PromptType.SYSTEM, "tone", "staging", first.version_id)

    await store.write(lambda tx: point(tx, second.version_id))
    assert (await pointer(store), await pointer(store, "staging")) == (second.version_id, first.version_id)
    await store.write(lambda tx: point(tx, None))
    assert (await pointer(store), await pointer(store, "staging")) == (None, first.version_id)
    assert [entry.version for entry in await history(store, None)] == ["1.0.0"]


async def test_a_pointer_to_a_version_that_is_not_there_is_refused(store: Store) -> None:
    with pytest.raises(StoreError):
        await moved(store, a_move(a_version()))
    assert await pointer(store) is None
    assert await history(store) == []


async def test_a_version_that_is_live_cannot_be_deleted_underneath(
    store: Store, two: tuple[PromptVersion, PromptVersion]
) -> None:
    first, _ = two
    await moved(store, a_move(first))

    async def delete(tx: Transaction) -> None:
        await tx.versions.delete(first.version_id)

    with pytest.raises(StoreError):
        await store.write(delete)
    assert await pointer(store) == first.version_id


async def test_append_writes_history_alone(store: Store) -> None:
    gone = a_move(a_version(), previous_version_id=new_id(), previous_version="0.9.0")

    async def work(tx: Transaction) -> Deployment:
        return await tx.deployments.append(gone)

    entry = await store.write(work)
    assert await history(store) == [entry]
    assert await pointer(store) is None


async def test_moves_at_the_same_time_form_one_chain(
    store: Store, two: tuple[PromptVersion, PromptVersion]
) -> None:
    async def work(tx: Transaction) -> None:
        live_id = await tx.deployments.pointer(PromptType.SYSTEM, "tone", "production")
        live = None if live_id is None else await tx.versions.by_id(live_id)
        await tx.deployments.move(a_move(two[1] if live == two[0] else two[0], live))

    await asyncio.gather(*(store.write(work) for _ in range(12)))
    entries = await history(store)
    assert len(entries) == 12
    assert [entry.previous_version_id for entry in entries] == [
        None,
        *(entry.version_id for entry in entries[:-1]),
    ]
    assert await pointer(store) == entries[-1].version_id
