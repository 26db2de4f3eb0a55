"""Changes of weights over time: announced, replaced and evicting, and what each leaves of the variants before."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

import promptab
from promptab import ABTestManager, Lab, PromptExperiment, PromptVariant
from promptab.models import Exposure
from promptab.stores.base import Store, Work
from tests.clock import SettableClock

ABC = [PromptVariant(key=key, config={"variant": key}) for key in "abc"]
UNITS = [f"u{number}" for number in range(60)]
BACK = {"a": 0.8, "b": 0.1, "c": 0.1}
"""Weights that give the evicted variant `a` most units again."""


@pytest.fixture
def store_url() -> str:
    return "sqlite:///:memory:"


async def create(experiments: ABTestManager, **fields: Any) -> PromptExperiment:
    return await experiments.create_experiment("greeting", "system", ABC, **fields)


async def served(lab: Lab, units: list[str] = UNITS) -> dict[str, str | None]:
    return {unit: (await lab.choose("greeting", user_id=unit)).variant for unit in units}


def holders(dealt: dict[str, str | None], variant: str) -> list[str]:
    return [unit for unit, held in dealt.items() if held == variant]


async def evict_a(lab: Lab) -> None:
    await lab.experiments.update_weights("greeting", {"a": 0, "b": 0.5, "c": 0.5}, evict=True)


async def test_evict_takes_effect_at_once_though_another_change_is_pending(
    lasting_url: str, clock: SettableClock
) -> None:
    # a file, since a change there is otherwise announced a moment ahead
    async with promptab.open(lasting_url, clock=clock) as lab:
        await create(lab.experiments, salt="s")
        assert holders(await served(lab, UNITS[:30]), "a")
        await lab.experiments.update_weights("greeting", BACK, lead_seconds=3600)
        await evict_a(lab)
        assert not holders(await served(lab), "a")
        clock.advance(hours=2)
        later = [f"later{number}" for number in range(60)]
        assert not holders(await served(lab, UNITS + later), "a")


async def test_a_second_change_replaces_one_that_is_pending(lab: Lab, clock: SettableClock) -> None:
    await create(lab.experiments, salt="s")
    await lab.experiments.update_weights("greeting", {"a": 0, "b": 0, "c": 1}, lead_seconds=10)
    await lab.experiments.update_weights("greeting", {"a": 1, "b": 0, "c": 0}, lead_seconds=3600)
    assert set((await served(lab, UNITS[:20])).values()) == {"a", "b", "c"}
    clock.advance(seconds=10)
    assert set((await served(lab, UNITS[20:40])).values()) == {"a", "b", "c"}
    clock.advance(hours=1)
    assert set((await served(lab, UNITS[40:])).values()) == {"a"}


async def test_evicted_units_keep_what_they_are_dealt_instead_when_weights_change_again(lab: Lab) -> None:
    await create(lab.experiments, salt="s")
    evicted = holders(await served(lab), "a")
    await evict_a(lab)
    instead = await served(lab, evicted)
    assert set(instead.values()) == {"b", "c"}
    for weights in ({"a": 0, "b": 0.05, "c": 0.95}, {"a": 0, "b": 0.95, "c": 0.05}):
        await lab.experiments.update_weights("greeting", weights)
        assert await served(lab, evicted) == instead


async def test_evicted_units_do_not_come_back_when_their_variant_gets_weight_again(lab: Lab) -> None:
    await create(lab.experiments, salt="s")
    evicted = holders(await served(lab), "a")
    await evict_a(lab)
    instead = await served(lab, evicted)
    await lab.experiments.update_weights("greeting", BACK)
    assert await served(lab, evicted) == instead
    newcomers = Counter((await served(lab, [f"new{number}" for number in range(40)])).values())
    assert newcomers["a"] > 20, "the variant deals again to those who come now"


async def test_evicted_users_who_were_anonymous_sessions_keep_what_they_are_dealt_instead(lab: Lab) -> None:
    await create(lab.experiments, salt="s")
    for number in range(30):
        await lab.choose("greeting", session_id=f"s{number}")
        await lab.experiments.alias(f"s{number}", f"u{number}")
    evicted = holders(await served(lab, UNITS[:30]), "a")
    await evict_a(lab)
    instead = await served(lab, evicted)
    assert set(instead.values()) == {"b", "c"}
    for weights in ({"a": 0, "b": 0.05, "c": 0.95}, {"a": 0, "b": 0.95, "c": 0.05}, BACK):
        await lab.experiments.update_weights("greeting", weights)
        assert await served(lab, evicted) == instead


async def test_the_assignment_of_an_evicted_unit_is_still_its_first_variant(lab: Lab) -> None:
    await create(lab.experiments, salt="s")
    evicted = holders(await served(lab), "a")[0]
    await evict_a(lab)
    assert (await lab.choose("greeting", user_id=evicted)).variant != "a"
    assert await lab.experiments.get_user_assignment("greeting", evicted) == "a"


async def test_what_an_evicted_unit_does_afterwards_is_compared_nowhere(lab: Lab) -> None:
    await create(lab.experiments, salt="s")
    evicted = holders(await served(lab), "a")[:3]
    for unit in evicted:
        assert not (await (await lab.choose("greeting", user_id=unit)).record(success=True)).flagged
    before = (await lab.compare("greeting")).metrics["success_rate"].estimates
    await evict_a(lab)
    for unit in evicted:
        assert (await (await lab.choose("greeting", user_id=unit)).record(success=False)).flagged
    after = (await lab.compare("greeting")).metrics["success_rate"].estimates
    assert after == before
    assert before["a"].units == len(evicted)


class Counting:
    """Counts how often a store is asked and told about units."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        read, keep = store.read, store.keep

        async def counted_read(work: Work[Any]) -> Any:
            self.calls += 1
            return await read(work)

        async def counted_keep(exposure: Exposure) -> Exposure:
            self.calls += 1
            return await keep(exposure)

        monkeypatch.setattr(store, "read", counted_read)
        monkeypatch.setattr(store, "keep", counted_keep)


@pytest.mark.parametrize("met", ["before the change", "after it"])
async def test_a_unit_of_a_moved_range_is_looked_up_only_once(
    lab: Lab, store: Store, monkeypatch: pytest.MonkeyPatch, met: str
) -> None:
    await create(lab.experiments, salt="s")
    if met == "before the change":
        await served(lab)
    await lab.experiments.update_weights("greeting", {"a": 0.01, "b": 0.01, "c": 0.98})
    counting = Counting(store, monkeypatch)
    first = await served(lab)
    asked = counting.calls
    assert asked > 0
    assert await served(lab) == first
    assert counting.calls == asked


async def test_two_processes_agree_on_everybody_around_a_change_of_weights(lasting_url: str) -> None:
    early, late = SettableClock(), SettableClock()
    async with promptab.open(lasting_url, clock=late) as one:
        await create(one.experiments, salt="s")
        units = [f"u{number}" for number in range(200)]
        known = await served(one, units[::2])
        await one.experiments.update_weights("greeting", {"a": 0.1, "b": 0.1, "c": 0.8}, lead_seconds=2)
        moment = late.now + timedelta(seconds=2)
        async with promptab.open(lasting_url, clock=early) as other:
            early.now, late.now = moment - timedelta(seconds=1), moment - timedelta(milliseconds=1)
            in_window = await served(other, units[:100])
            assert await served(one, units[:100]) == in_window
            early.now, late.now = moment - timedelta(milliseconds=1), moment + timedelta(milliseconds=1)
            # by turns, so that each of the two is the first to meet some of the remaining users
            for asked_first, asked_second, some in (
                (one, other, units[100:150]),
                (other, one, units[150:]),
            ):
                assert await served(asked_first, some) == await served(asked_second, some)
            after = await served(one, units)
            assert await served(other, units) == after
            assert {unit: after[unit] for unit in units[:100]} == in_window
            assert {unit: after[unit] for unit in known} == known
