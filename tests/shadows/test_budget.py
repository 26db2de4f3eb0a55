"""What runs in the shadow may cost: set aside before they are sent, and exceeded by no more than is said."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import promptab
from promptab import ShadowSettings
from promptab.shadow_budget import ShadowBudget
from tests.shadows.conftest import LONGEST, TwoFacedServer, experiment_with_shadow, shadow_events

costs = st.one_of(st.none(), st.floats(0.0, 1.0))


@given(
    dollars=st.floats(0.0, 3.0),
    steps=st.lists(st.tuples(st.sampled_from("ab"), costs, st.booleans(), st.integers(0, 9)), max_size=60),
)
def test_a_limit_is_exceeded_by_first_runs_and_by_what_is_dearer_than_any_before_alone(
    dollars: float, steps: list[tuple[str, float | None, bool, int]]
) -> None:
    budget = ShadowBudget(dollars)
    out: list[tuple[str, float]] = []
    beyond = 0.0
    for shadow, cost, answered, which in steps:
        share = budget.share_of(shadow)
        if share is not None:
            budget.set_aside(shadow, share)
            out.append((shadow, share))
        if out and which:
            ended, aside = out.pop(which % len(out))
            budget.spend(ended, aside, cost, answered=answered)
            beyond += max(0.0, (cost or 0.0) - aside)
        assert budget.spent + sum(aside for _, aside in out) <= dollars + beyond + 1e-9


def test_first_runs_are_sent_one_at_a_time_until_one_was_answered() -> None:
    budget = ShadowBudget(1.0)
    budget.set_aside("a", 0.0)
    assert budget.share_of("a") is None
    assert budget.share_of("b") == 0.0
    budget.spend("a", 0.0, None, answered=False)
    assert budget.share_of("a") == 0.0
    budget.set_aside("a", 0.0)
    budget.spend("a", 0.0, 0.3, answered=True)
    for _ in range(2):
        assert budget.share_of("a") == 0.3
        budget.set_aside("a", 0.3)
    # 0.3 is spent and 0.6 is out
    assert budget.share_of("a") is None
    assert budget.share_of("b") == 0.0


def test_without_a_limit_nothing_is_left_out() -> None:
    budget = ShadowBudget(None)
    for _ in range(3):
        assert budget.share_of("a") == 0.0
        budget.set_aside("a", 0.0)
    budget.spend("a", 0.0, 1e9, answered=True)
    assert budget.share_of("a") is not None


async def ask(lab: promptab.Lab, client: Any, user: str) -> None:
    async with asyncio.timeout(LONGEST):
        await lab.complete("reply", client=client, variables={"customer": "Ada"}, user_id=user)


async def test_what_is_out_does_not_go_past_the_limit_together(server: TwoFacedServer, client: Any) -> None:
    async with promptab.open("sqlite:///:memory:") as lab:
        await experiment_with_shadow(lab)
        await ask(lab, client, "u")
        await lab.shadows.settle()
        price = lab.shadows.stats().cost
    settings = ShadowSettings(max_cost=3.5 * price, most_at_once=100)
    async with promptab.open("sqlite:///:memory:", shadows=settings) as lab:
        await experiment_with_shadow(lab)
        await ask(lab, client, "first")
        await lab.shadows.settle()
        server.gate.clear()
        for number in range(10):
            await ask(lab, client, f"u{number}")
        server.gate.set()
        events = await shadow_events(lab)
        stats = lab.shadows.stats()
    assert Counter(event.success for event in events) == {True: 3}
    assert stats.cost == pytest.approx(3 * price)
    assert (stats.answered, stats.over_cost) == (3, 8)
