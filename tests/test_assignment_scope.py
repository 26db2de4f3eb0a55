"""What a unit is, and which experiments it is in: targeting, layers, holdouts, sessions, requests and features."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from promptab import ABTestManager, InvalidInputError, Lab, PromptExperiment, PromptVariant, StateError
from tests.clock import SettableClock

A, B = "1.0.0", "1.1.0"
AB = [PromptVariant(A), PromptVariant(B)]
UNITS = [f"u{number}" for number in range(60)]


@pytest.fixture
def store_url() -> str:
    return "sqlite:///:memory:"


async def create(experiments: ABTestManager, name: str = "greeting", **fields: Any) -> PromptExperiment:
    return await experiments.create_experiment(name, "system", AB, **fields)


async def members(experiments: ABTestManager, experiment: str) -> set[str]:
    return {unit for unit in UNITS if (await experiments.assign(experiment, unit)).variant is not None}


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"plan": "premium", "age": 30}, "allocated"),
        ({"plan": "premium", "age": 30, "unasked": [1]}, "allocated"),
        ({"plan": "free", "age": 30}, "not_targeted"),
        ({"plan": "premium"}, "not_targeted"),
        ({}, "not_targeted"),
    ],
)
async def test_targeting_looks_at_the_attributes(
    experiments: ABTestManager, attributes: dict[str, Any], reason: str
) -> None:
    await create(experiments, where="plan == 'premium' and age >= 18")
    assignment = await experiments.assign("greeting", "ada", attributes=attributes)
    assert assignment.reason == reason
    assert await experiments.get_variant_for_user("greeting", "ada", attributes) == assignment.version


async def test_a_missing_attribute_is_named(experiments: ABTestManager) -> None:
    await create(experiments, where="plan == 'premium'")
    left_out = await experiments.assign("greeting", "ada", attributes={"age": 3})
    assert "'plan'" in left_out.detail


async def test_a_condition_may_ask_whether_an_attribute_is_there(experiments: ABTestManager) -> None:
    await create(experiments, where="plan is not defined or plan == 'free'")
    assert (await experiments.assign("greeting", "ada")).reason == "allocated"
    assert (await experiments.assign("greeting", "ada", attributes={"plan": "pro"})).reason == "not_targeted"


async def test_attributes_that_json_cannot_hold_are_refused(experiments: ABTestManager) -> None:
    await create(experiments)
    with pytest.raises(InvalidInputError, match=r"attributes\.since"):
        await experiments.assign("greeting", "ada", attributes={"since": object()})
    assert await experiments.get_variant_distribution("greeting") == {A: 0, B: 0}


async def test_experiments_on_one_prompt_never_share_a_unit_and_the_first_started_wins(
    lab: Lab, clock: SettableClock
) -> None:
    second = await create(lab.experiments, "later", prompt_name="greeting", status="draft")
    first = await create(lab.experiments, "sooner", prompt_name="greeting", traffic=0.5)
    clock.advance(seconds=1)
    await lab.experiments.start(second.experiment_id)
    in_first = await members(lab.experiments, "sooner")
    in_second = await members(lab.experiments, "later")
    assert in_first
    assert in_second == set(UNITS) - in_first
    shared = await lab.experiments.assign("later", min(in_first))
    assert shared.reason == "other_experiment"
    assert first.experiment_id in shared.detail


async def test_a_layer_keeps_experiments_on_different_prompts_apart(
    experiments: ABTestManager, clock: SettableClock
) -> None:
    await create(experiments, "one", layer="tone", traffic=0.5)
    clock.advance(seconds=1)
    await create(experiments, "two", layer="tone")
    await create(experiments, "three")
    in_one = await members(experiments, "one")
    assert await members(experiments, "two") == set(UNITS) - in_one
    assert await members(experiments, "three") == set(UNITS)


async def test_a_paused_experiment_keeps_its_units_and_an_ended_one_gives_them_back(
    experiments: ABTestManager, clock: SettableClock
) -> None:
    await create(experiments, "one", layer="tone", traffic=0.5)
    clock.advance(seconds=1)
    await create(experiments, "two", layer="tone")
    in_one = await members(experiments, "one")
    await experiments.pause("one")
    assert await members(experiments, "two") == set(UNITS) - in_one
    await experiments.stop("one")
    assert await members(experiments, "two") == set(UNITS)


async def test_an_experiment_claims_units_only_between_its_scheduled_start_and_end(
    experiments: ABTestManager, clock: SettableClock
) -> None:
    february = clock.now + timedelta(days=27)
    await create(experiments, "january", layer="tone", ends_at=february)
    clock.advance(seconds=1)
    await create(experiments, "february", layer="tone", starts_at=february)
    clock.advance(seconds=1)
    await create(experiments, "march", layer="tone", starts_at=february + timedelta(days=28))
    assert len(await members(experiments, "january")) == len(UNITS)
    clock.now = february
    assert len(await members(experiments, "february")) == len(UNITS)
    assert await members(experiments, "march") == set()


async def test_an_experiment_scheduled_for_later_does_not_hold_up_one_that_runs(
    experiments: ABTestManager, clock: SettableClock
) -> None:
    await create(experiments, "next-year", layer="tone", starts_at=clock.now + timedelta(days=360))
    clock.advance(seconds=1)
    await create(experiments, "now", layer="tone")
    assert await members(experiments, "now") == set(UNITS)


async def test_an_experiment_that_begins_on_schedule_takes_no_unit_from_one_that_runs(
    experiments: ABTestManager, clock: SettableClock
) -> None:
    await create(experiments, "tomorrow", layer="tone", starts_at=clock.now + timedelta(days=1))
    clock.advance(seconds=1)
    await create(experiments, "today", layer="tone", traffic=0.5)
    before = await members(experiments, "today")
    clock.advance(days=2)
    assert await members(experiments, "today") == before
    assert await members(experiments, "tomorrow") == set(UNITS) - before


async def test_a_holdout_keeps_its_share_out_of_every_experiment_that_names_it(
    experiments: ABTestManager,
) -> None:
    await experiments.set_holdout("global", 0.5)
    for name in ("one", "two"):
        await create(experiments, name, holdout="global")
    await create(experiments, "three")
    in_one = await members(experiments, "one")
    assert in_one not in (set(), set(UNITS))
    assert await members(experiments, "two") == in_one
    assert await members(experiments, "three") == set(UNITS)
    held = await experiments.assign("one", min(set(UNITS) - in_one))
    assert (held.variant, held.reason) == (None, "holdout")


async def test_a_larger_holdout_only_adds_units(experiments: ABTestManager) -> None:
    await experiments.set_holdout("global", 0.3)
    await create(experiments, holdout="global")
    before = await members(experiments, "greeting")
    await experiments.set_holdout("global", 0.6)
    after = await members(experiments, "greeting")
    assert after < before


async def test_feature_units_do_not_depend_on_the_order_of_the_features(experiments: ABTestManager) -> None:
    await create(experiments, unit="features")
    first = await experiments.assign("greeting", features={"country": "AT", "tier": {"a": 1, "b": 2}})
    again = await experiments.assign("greeting", features={"tier": {"b": 2, "a": 1}, "country": "AT"})
    assert first == again
    assert first.variant is not None
    assert len(await experiments.get_experiment_assignments("greeting")) == 1
    other = await experiments.assign("greeting", features={"country": "DE", "tier": {"a": 1, "b": 2}})
    assert other.unit != first.unit


async def test_request_units_are_dealt_at_every_call(experiments: ABTestManager) -> None:
    await create(experiments, unit="request")
    dealt = [await experiments.assign("greeting", "ada") for _ in range(30)]
    assert {assignment.variant for assignment in dealt} == {A, B}
    assert len({assignment.unit for assignment in dealt}) == 30


async def test_a_session_stands_in_for_a_user_and_is_another_unit(experiments: ABTestManager) -> None:
    await create(experiments)
    anonymous = await experiments.assign("greeting", session_id="ada")
    known = await experiments.assign("greeting", "ada", session_id="ignored")
    assert (anonymous.unit, known.unit) == ("session:ada", "ada")


async def test_session_experiments_deal_by_session_whoever_the_user_is(experiments: ABTestManager) -> None:
    await create(experiments, unit="session")
    first = await experiments.assign("greeting", "ada", session_id="s1")
    second = await experiments.assign("greeting", "bob", session_id="s1")
    assert (first.unit, first.variant) == (second.unit, second.variant) == ("session:s1", first.variant)
    assert (await experiments.assign("greeting", "ada")).reason == "no_unit"


@pytest.mark.parametrize("unit", ["user", "session", "features"])
async def test_nobody_to_assign_is_an_answer(experiments: ABTestManager, unit: str) -> None:
    await create(experiments, unit=unit)
    nobody = await experiments.assign("greeting")
    assert (nobody.unit, nobody.variant, nobody.reason) == (None, None, "no_unit")


async def test_a_session_that_becomes_a_user_keeps_its_first_variant(experiments: ABTestManager) -> None:
    await create(experiments, salt="s")
    kept = 0
    for number in range(20):
        session, user = f"s{number}", f"u{number}"
        first = await experiments.assign("greeting", session_id=session)
        await experiments.alias(session, user)
        after = await experiments.assign("greeting", user)
        assert after.variant == first.variant
        assert await experiments.get_user_assignment("greeting", user) == first.variant
        kept += after.reason == "kept"
    assert kept > 0


async def test_a_session_that_was_enrolled_stays_so_as_a_user(experiments: ABTestManager) -> None:
    await create(experiments, traffic=0.5)
    for number in range(20):
        first = await experiments.assign("greeting", session_id=f"s{number}")
        if first.variant is None:
            continue
        await experiments.alias(f"s{number}", f"u{number}")
        assert (await experiments.assign("greeting", f"u{number}")).variant == first.variant


async def test_a_session_and_its_user_are_counted_as_one_unit(experiments: ABTestManager) -> None:
    await create(experiments)
    first = await experiments.assign("greeting", session_id="s1")
    await experiments.alias("s1", "ada")
    await experiments.assign("greeting", "ada")
    assert sum((await experiments.get_variant_distribution("greeting")).values()) == 1
    assert await experiments.get_experiment_assignments("greeting") == {"ada": first.variant}


async def test_a_user_who_was_exposed_before_keeps_the_users_own_variant(experiments: ABTestManager) -> None:
    await create(experiments)
    for number in range(10):
        own = await experiments.assign("greeting", f"u{number}")
        await experiments.assign("greeting", session_id=f"s{number}")
        await experiments.alias(f"s{number}", f"u{number}")
        assert (await experiments.assign("greeting", f"u{number}")).variant == own.variant


async def test_a_session_is_one_users_and_told_twice_changes_nothing(experiments: ABTestManager) -> None:
    await create(experiments)
    await experiments.alias("s1", "ada")
    await experiments.alias("s1", "ada")
    with pytest.raises(StateError, match="'ada' already"):
        await experiments.alias("s1", "bob")
