"""Transactions of PostgreSQL that are in one another's way: run again whole, or given up with a reason."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from promptab import PromptVersion, StoreUnavailableError
from promptab.models import VersionStatus
from promptab.stores import postgres_connecting
from promptab.stores.base import Store, Transaction
from promptab.stores.opening import open_store
from promptab.stores.postgres import ATTEMPTS
from promptab.stores.postgres_connecting import POOL_CONNECTIONS
from tests.contract.records import a_version
from tests.postgres import connected


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[Store]:
    # a deadlock is looked for after a second, unless a server is told otherwise
    opened = await open_store(f"{postgres_url}&deadlock_timeout=20")
    yield opened
    await opened.close()


async def added(store: Store, *versions: str) -> list[PromptVersion]:
    made = [a_version(version=version) for version in versions]

    async def work(tx: Transaction) -> None:
        for version in made:
            await tx.versions.insert(version)

    await store.write(work)
    return made


async def statuses(store: Store) -> list[str]:
    async def look(tx: Transaction) -> list[str]:
        return [version.status.value for version in await tx.versions.listing()]

    return await store.read(look)


async def test_of_two_that_change_what_both_have_read_one_begins_anew_and_sees_the_other(
    store: Store,
) -> None:
    [version] = await added(store, "1.0.0")
    both_have_read = asyncio.Barrier(2)
    seen: list[str] = []

    async def work(tx: Transaction) -> None:
        [found] = await tx.versions.listing()
        seen.append(found.status.value)
        if len(seen) <= 2:
            await both_have_read.wait()
        # what comes next depends on what was read: a lost update would make it deprecated, and not archived
        further = {"active": VersionStatus.DEPRECATED, "deprecated": VersionStatus.ARCHIVED}
        await tx.versions.set_status(version.version_id, further[found.status.value])

    await asyncio.gather(*(store.write(work, shown=False) for _ in range(2)))
    assert seen == ["active", "active", "deprecated"]
    assert await statuses(store) == ["archived"]


async def test_of_two_that_add_the_same_key_one_begins_anew_and_finds_it(store: Store) -> None:
    [version] = await added(store, "1.0.0")
    both_have_read = asyncio.Barrier(2)
    seen: list[tuple[str, ...]] = []

    async def work(tx: Transaction) -> None:
        [found] = await tx.versions.listing()
        seen.append(found.tags)
        if len(seen) <= 2:
            await both_have_read.wait()
        if "best" not in found.tags:
            await tx.versions.add_tag(version.version_id, "best")

    await asyncio.gather(*(store.write(work, shown=False) for _ in range(2)))
    assert seen == [(), (), ("best",)]


async def test_a_deadlock_is_dissolved_and_both_take_effect(store: Store) -> None:
    versions = await added(store, "1.0.0", "2.0.0")
    both_hold_one = asyncio.Barrier(2)
    begun = 0

    def changing(*order: PromptVersion, to: VersionStatus) -> asyncio.Future[None]:
        async def work(tx: Transaction) -> None:
            nonlocal begun
            begun += 1
            first_time = begun <= 2
            for version in order:
                await tx.versions.set_status(version.version_id, to)
                if first_time and version is order[0]:
                    await both_hold_one.wait()

        return asyncio.ensure_future(store.write(work, shown=False))

    await asyncio.gather(
        changing(*versions, to=VersionStatus.DEPRECATED), changing(*versions[::-1], to=VersionStatus.ARCHIVED)
    )
    assert begun >= 3
    # whichever was the last had the last word on both
    assert len(set(await statuses(store))) == 1


async def test_one_whose_way_is_never_free_is_given_up_with_nothing_done(
    store: Store, postgres_url: str
) -> None:
    [version] = await added(store, "1.0.0")
    attempts = 0

    async with connected(postgres_url) as other:

        async def work(tx: Transaction) -> None:
            nonlocal attempts
            attempts += 1
            await tx.versions.add_tag(version.version_id, f"attempt{attempts}")
            await other.execute("UPDATE promptab_versions SET status = 'deprecated'")
            await tx.versions.set_status(version.version_id, VersionStatus.ARCHIVED)

        with pytest.raises(StoreUnavailableError, match="in the way again and again"):
            await store.write(work, shown=False)
    assert attempts == ATTEMPTS
    assert await statuses(store) == ["deprecated"]
    assert (await store.read(lambda tx: tx.versions.listing()))[0].tags == ()


async def test_a_transaction_that_finds_no_connection_in_time_says_so(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_connecting, "ACQUIRE_SECONDS", 0.1)
    store = await open_store(postgres_url)
    all_held, go_on = asyncio.Barrier(POOL_CONNECTIONS + 1), asyncio.Event()

    async def hold(tx: Transaction) -> None:
        await all_held.wait()
        await go_on.wait()

    holding = [asyncio.ensure_future(store.read(hold)) for _ in range(POOL_CONNECTIONS)]
    await all_held.wait()
    with pytest.raises(StoreUnavailableError, match="all connections of this process are in use"):
        await statuses(store)
    go_on.set()
    await asyncio.gather(*holding)
    assert await statuses(store) == []
    await store.close()


async def test_a_server_that_accepts_and_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_connecting, "CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        async with asyncio.timeout(30):
            with pytest.raises(StoreUnavailableError, match="check that the server is there"):
                await open_store(f"postgresql://ada@127.0.0.1:{port}/promptab")
