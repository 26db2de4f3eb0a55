"""Sessions that became users, while a version is guarded: one unit, whenever it was said and whenever it was looked."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from promptab import Lab
from promptab.assigning import session_unit
from promptab.decisions.guard import Guard
from promptab.guarding import look_at_guard
from promptab.stats.summary import UnitSums
from promptab.stores.base import Transaction
from tests.clock import SettableClock
from tests.conftest import url_of

GUARD: dict[str, Any] = {"guardrails": ["success_rate >= 0.5", "response_time <= 2"]}


@pytest.fixture(params=["file", "memory", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return url_of(request, tmp_path)


@pytest.fixture
async def guarded(lab: Lab, clock: SettableClock) -> str:
    """A version that is guarded; its id."""
    first, second = [
        await lab.versions.create_version("greeting", "system", text) for text in ("Kind.", "Kinder.")
    ]
    await lab.versions.promote(first.version_id)
    clock.advance(hours=2)
    await lab.versions.promote(second.version_id, guard=GUARD)
    return second.version_id


async def looked(lab: Lab, clock: SettableClock) -> Guard:
    async def work(tx: Transaction) -> Guard:
        [found] = await tx.guards.listing(watching=True)
        known = await tx.guards.by_id(found.guard_id)
        assert known is not None
        return known

    await look_at_guard(lab.store, await lab.store.read(work), clock)
    return await lab.store.read(work)


async def record(lab: Lab, version_id: str, success: bool, user_id: str) -> None:
    await lab.metrics.record_event(version_id, success=success, response_time=1.0 + success, user_id=user_id)


@pytest.mark.parametrize("said", ["before", "between", "after"])
async def test_a_session_that_became_a_user_is_one_unit_whenever_it_was_said(
    lab: Lab, clock: SettableClock, guarded: str, said: str
) -> None:
    if said == "before":
        await lab.experiments.alias("s1", "ada")
    await record(lab, guarded, success=True, user_id=session_unit("s1"))
    await record(lab, guarded, success=False, user_id="grace")
    if said == "between":
        await lab.experiments.alias("s1", "ada")
    assert (await looked(lab, clock)).tallies[0].sums.units == 2
    await record(lab, guarded, success=False, user_id="ada")
    assert (await looked(lab, clock)).tallies[0].sums.units == (3 if said == "after" else 2)
    if said == "after":
        await lab.experiments.alias("s1", "ada")
    rates, times = (tally.sums for tally in (await looked(lab, clock)).tallies)
    assert rates == UnitSums.of([(2.0, 1.0), (1.0, 0.0)], center=0.5)
    assert times == UnitSums.of([(2.0, 3.0), (1.0, 1.0)], center=2.0)
    # it is said once, and what comes later under either name is the user's
    await record(lab, guarded, success=True, user_id=session_unit("s1"))
    assert (await looked(lab, clock)).tallies[0].sums == UnitSums.of([(3.0, 2.0), (1.0, 0.0)], center=0.5)


async def test_any_order_of_outcomes_looks_and_sayings_adds_up_to_the_same(
    lab: Lab, clock: SettableClock, guarded: str
) -> None:
    draw = random.Random(20)
    people: dict[str, list[bool]] = {}
    owners = {f"s{number}": f"u{number % 4}" for number in range(8)}
    sayings = [*owners]
    for _ in range(60):
        named = draw.choice([*owners, *owners.values()])
        success = draw.random() < 0.7
        people.setdefault(owners.get(named, named), []).append(success)
        unit = session_unit(named) if named in owners else named
        await record(lab, guarded, success=success, user_id=unit)
        if draw.random() < 0.3:
            await looked(lab, clock)
        if sayings and draw.random() < 0.2:
            session = sayings.pop()
            await lab.experiments.alias(session, owners[session])
    for session in sayings:
        await lab.experiments.alias(session, owners[session])
    rates = (await looked(lab, clock)).tallies[0].sums
    expected = UnitSums.of([(len(done), sum(done)) for done in people.values()], center=0.5)
    assert rates == pytest.approx(expected, abs=1e-9)


async def test_the_record_of_the_version_before_counts_sessions_as_their_users(
    lab: Lab, clock: SettableClock
) -> None:
    first, second = [
        await lab.versions.create_version("greeting", "system", text) for text in ("Kind.", "Kinder.")
    ]
    await lab.versions.promote(first.version_id)
    for number in range(6):
        await record(lab, first.version_id, success=True, user_id=session_unit(f"s{number}"))
        await lab.experiments.alias(f"s{number}", f"u{number % 2}")
    clock.advance(hours=2)
    await lab.versions.promote(second.version_id, guard={"guardrails": ["success_rate >= control - 5%"]})
    [bound] = (await looked(lab, clock)).bounds or ()
    assert (bound.previous, bound.previous_units) == (1.0, 2)
