"""Leading: one at a time, terms that only grow, and changes of a former leader that are refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from promptab import NotLeadingError
from promptab.stores.base import Leadership, Store, Transaction
from promptab.stores.opening import open_store

SECONDS = 0.6


@pytest.fixture
async def second(store: Store, store_url: str) -> AsyncIterator[Store]:
    """Another process's store, as far as that is possible."""
    if not store.shared:
        yield store
        return
    opened = await open_store(store_url)
    yield opened
    await opened.close()


async def check(store: Store, term: int) -> None:
    async def work(tx: Transaction) -> None:
        await tx.leases.check("watch", term)

    await store.write(work)


async def granted(leadership: Leadership) -> int:
    """Claim until it is granted."""
    for _ in range(1_000):
        if (term := await leadership.claim()) is not None:
            return term
        await asyncio.sleep(0.02)
    raise AssertionError("never granted")


async def test_one_leads_at_a_time_and_goes_on_in_its_term(store: Store, second: Store) -> None:
    one, other = (each.leadership("watch", seconds=30.0) for each in (store, second))
    assert await one.claim() == 1
    assert await other.claim() is None
    assert await one.claim() == 1
    await one.release()
    assert await other.claim() == 2
    assert await one.claim() is None
    await one.release()
    await other.release()


async def test_of_many_that_claim_at_once_one_is_granted(store: Store, second: Store) -> None:
    claims = [each.leadership("watch", seconds=30.0) for each in (store, second, store, second)]
    terms = await asyncio.gather(*(claim.claim() for claim in claims))
    assert sorted(terms, key=str) == [1, None, None, None]
    for claim in claims:
        await claim.release()
    assert await claims[0].claim() == 2
    await claims[0].release()


async def test_different_things_are_led_side_by_side(store: Store, second: Store) -> None:
    one, other = store.leadership("watch", seconds=30.0), second.leadership("deliver", seconds=30.0)
    assert (await one.claim(), await other.claim()) == (1, 1)
    await one.release()
    await other.release()


async def test_a_leader_that_is_silent_for_too_long_is_followed_by_another(
    store: Store, second: Store
) -> None:
    one, other = (each.leadership("watch", seconds=SECONDS) for each in (store, second))
    term = await granted(one)
    assert await granted(other) == term + 1
    assert await one.claim() is None
    await one.release()
    await other.release()


async def test_a_leader_that_claims_again_in_time_goes_on(store: Store, second: Store) -> None:
    one, other = (each.leadership("watch", seconds=1.5) for each in (store, second))
    assert await one.claim() == 1
    for _ in range(9):
        await asyncio.sleep(0.2)
        assert (await one.claim(), await other.claim()) == (1, None)
    await one.release()
    await other.release()


async def test_a_change_of_a_former_leader_is_refused(store: Store, second: Store) -> None:
    one, other = (each.leadership("watch", seconds=30.0) for each in (store, second))
    term = await one.claim()
    assert term is not None
    await check(store, term)
    await one.release()
    await check(store, term)
    newer = await other.claim()
    assert newer is not None
    with pytest.raises(NotLeadingError, match=r"another one leads by now \(term 2, and this one's was 1\)"):
        await check(store, term)
    await check(second, newer)
    await other.release()


async def test_a_term_that_nobody_ever_had_is_refused(store: Store) -> None:
    with pytest.raises(NotLeadingError):
        await check(store, 1)


async def test_releasing_twice_or_without_leading_changes_nothing(store: Store, second: Store) -> None:
    one, other = (each.leadership("watch", seconds=30.0) for each in (store, second))
    await other.release()
    assert await one.claim() == 1
    await other.release()
    assert await one.claim() == 1
    await one.release()
    await one.release()
    assert await other.claim() == 2
    await one.release()
    await other.release()


async def test_a_cancelled_claim_leaves_nothing_that_lasts(store: Store, second: Store) -> None:
    one, other = (each.leadership("watch", seconds=SECONDS) for each in (store, second))
    for step in range(6):
        task = asyncio.ensure_future(one.claim())
        for _ in range(step):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    term = await granted(other)
    await check(second, term)
    await one.release()
    await other.release()
