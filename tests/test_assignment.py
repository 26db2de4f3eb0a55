"""Which variant a unit gets, and that it keeps it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import promptab
from promptab import ABTestManager, Assignment, Lab, PromptExperiment, PromptVariant, StateError
from promptab.allocation import allocate, enrolled, point
from promptab.models import Exposure
from promptab.stores.base import Transaction
from tests.clock import SettableClock

A, B = "1.0.0", "1.1.0"
AB = [PromptVariant(A), PromptVariant(B)]
UNITS = [f"u{number}" for number in range(60)]


@pytest.fixture
def store_url() -> str:
    return "sqlite:///:memory:"


async def create(experiments: ABTestManager, name: str = "greeting", **fields: Any) -> PromptExperiment:
    return await experiments.create_experiment(name, "system", fields.pop("variants", AB), **fields)


async def deal(experiments: ABTestManager, experiment: str = "greeting") -> dict[str, Assignment]:
    return {unit: await experiments.assign(experiment, unit) for unit in UNITS}


def variants_of(dealt: dict[str, Assignment]) -> dict[str, str | None]:
    return {unit: assignment.variant for unit, assignment in dealt.items()}


async def test_a_variant_is_the_owner_of_the_units_point(experiments: ABTestManager) -> None:
    created = await create(experiments, salt="winter")
    owners = allocate(created.traffic_split)
    expected = {unit: owners.key_at(point("winter", unit)) for unit in UNITS}
    assert variants_of(await deal(experiments)) == expected
    assert set(expected.values()) == {A, B}


async def test_a_user_keeps_the_variant_from_call_to_call(experiments: ABTestManager) -> None:
    await create(experiments)
    assert variants_of(await deal(experiments)) == variants_of(await deal(experiments))
    assert await experiments.get_variant_for_user("greeting", 7) == await experiments.get_variant_for_user(
        "greeting", "7"
    )


async def test_two_experiments_deal_independently(experiments: ABTestManager) -> None:
    await create(experiments, salt="one")
    await create(experiments, "other", salt="two")
    first, second = variants_of(await deal(experiments)), variants_of(await deal(experiments, "other"))
    assert Counter((first[unit], second[unit]) for unit in UNITS).keys() == {(A, A), (A, B), (B, A), (B, B)}


async def test_assign_says_version_config_and_reason(experiments: ABTestManager) -> None:
    warm = PromptVariant(A, key="warm", config={"temperature": 0.9})
    created = await create(experiments, variants=[warm, PromptVariant(A, key="cold")], salt="s")
    dealt = await deal(experiments)
    served = next(assignment for assignment in dealt.values() if assignment.variant == "warm")
    assert (served.experiment_id, served.version, served.config) == (
        created.experiment_id,
        A,
        {"temperature": 0.9},
    )
    assert (served.reason, served.epoch) == ("allocated", 1)


async def test_a_variant_of_a_configuration_alone_is_known_by_its_key(experiments: ABTestManager) -> None:
    models = [PromptVariant(key=key, config={"model": key}) for key in ("small", "large")]
    await experiments.create_experiment("answers", "config", models)
    for unit in UNITS[:10]:
        assignment = await experiments.assign("answers", unit)
        assert (assignment.version, assignment.config) == (None, {"model": assignment.variant})
        assert await experiments.get_variant_for_user("answers", unit) == assignment.variant


async def test_units_keep_their_variant_when_weights_change(experiments: ABTestManager) -> None:
    await create(experiments, salt="s")
    before = await deal(experiments)
    await experiments.update_weights("greeting", {A: 0.1, B: 0.9})
    after = await deal(experiments)
    assert variants_of(after) == variants_of(before)
    moved = [unit for unit in UNITS if after[unit].reason == "kept"]
    assert moved
    assert all(before[unit].variant == A for unit in moved)


async def test_new_units_are_dealt_by_the_new_weights(experiments: ABTestManager) -> None:
    await create(experiments, salt="s")
    changed = await experiments.update_weights("greeting", {A: 0.1, B: 0.9})
    dealt = variants_of(await deal(experiments))
    assert Counter(dealt.values())[A] < len(UNITS) // 4
    assert changed.traffic_split == {A: 0.1, B: 0.9}


async def test_weight_zero_stops_new_units_only(experiments: ABTestManager) -> None:
    await create(experiments, salt="s")
    known = {unit: await experiments.get_variant_for_user("greeting", unit) for unit in UNITS[:30]}
    await experiments.update_weights("greeting", {A: 0, B: 1})
    after = variants_of(await deal(experiments))
    assert {unit: after[unit] for unit in known} == known
    assert {after[unit] for unit in UNITS[30:]} == {B}


async def test_evict_deals_the_units_of_a_variant_without_weight_anew(experiments: ABTestManager) -> None:
    await create(experiments, salt="s")
    assert set(variants_of(await deal(experiments)).values()) == {A, B}
    await experiments.update_weights("greeting", {A: 0, B: 1}, evict=True)
    assert set(variants_of(await deal(experiments)).values()) == {B}


async def test_a_weight_change_takes_effect_after_its_lead(
    experiments: ABTestManager, clock: SettableClock
) -> None:
    await create(experiments)
    await experiments.update_weights("greeting", {A: 0, B: 1}, lead_seconds=2)
    clock.advance(seconds=1.999)
    early = {await experiments.get_variant_for_user("greeting", unit) for unit in UNITS[:30]}
    clock.advance(seconds=0.001)
    late = {await experiments.get_variant_for_user("greeting", unit) for unit in UNITS[30:]}
    assert (early, late) == ({A, B}, {B})


async def test_units_come_back_to_their_variant_after_weights_have_wandered(
    experiments: ABTestManager,
) -> None:
    await create(experiments, salt="s")
    before = variants_of(await deal(experiments))
    for weights in ({A: 0.9, B: 0.1}, {A: 0.0, B: 1.0}, {A: 0.3, B: 0.7}):
        await experiments.update_weights("greeting", weights)
        assert variants_of(await deal(experiments)) == before


async def test_without_stickiness_every_unit_follows_the_weights(experiments: ABTestManager) -> None:
    await create(experiments, sticky=False, salt="s")
    assert set(variants_of(await deal(experiments)).values()) == {A, B}
    await experiments.update_weights("greeting", {A: 0, B: 1})
    assert set(variants_of(await deal(experiments)).values()) == {B}


async def test_enrolment_admits_the_share_of_units_under_a_salt_of_its_own(
    experiments: ABTestManager,
) -> None:
    created = await create(experiments, traffic=0.5)
    dealt = await deal(experiments)
    assert {unit for unit in UNITS if dealt[unit].variant is not None} == {
        unit for unit in UNITS if enrolled(point(created.enrolment_salt, unit), 0.5)
    }
    left_out = next(assignment for assignment in dealt.values() if assignment.variant is None)
    assert (left_out.reason, left_out.version) == ("not_enrolled", None)


@pytest.mark.parametrize("sticky", [True, False])
async def test_more_enrolment_deals_nobody_anew(experiments: ABTestManager, *, sticky: bool) -> None:
    await create(experiments, traffic=0.3, sticky=sticky)
    before = {unit: key for unit, key in variants_of(await deal(experiments)).items() if key is not None}
    await experiments.update_traffic("greeting", 1.0)
    after = variants_of(await deal(experiments))
    assert None not in after.values()
    assert {unit: after[unit] for unit in before} == before


async def test_less_enrolment_keeps_the_units_that_have_met_the_experiment(
    experiments: ABTestManager,
) -> None:
    await create(experiments)
    met = {unit: await experiments.get_variant_for_user("greeting", unit) for unit in UNITS[:30]}
    await experiments.update_traffic("greeting", 0.0)
    after = await deal(experiments)
    assert {unit: after[unit].variant for unit in met} == met
    assert {(after[unit].variant, after[unit].reason) for unit in UNITS[30:]} == {(None, "not_enrolled")}


@pytest.mark.parametrize("status", ["paused", "completed", "stopped"])
async def test_serving_ends_at_once_when_the_experiment_is(experiments: ABTestManager, status: str) -> None:
    await create(experiments)
    await experiments.assign("greeting", "ada")
    await experiments.update_experiment_status("greeting", status)
    after = await experiments.assign("greeting", "ada")
    assert (after.variant, after.reason) == (None, "not_running")
    assert status in after.detail
    assert await experiments.get_variant_for_user("greeting", "ada") is None


async def test_resume_serves_the_variants_from_before(experiments: ABTestManager) -> None:
    await create(experiments)
    before = variants_of(await deal(experiments))
    await experiments.pause("greeting")
    await experiments.resume("greeting")
    assert variants_of(await deal(experiments)) == before


async def test_an_override_shows_one_unit_its_variant(experiments: ABTestManager) -> None:
    await create(experiments, overrides={"ada": B, "17": A})
    shown = await experiments.assign("greeting", "ada")
    assert (shown.variant, shown.reason) == (B, "override")
    assert (await experiments.assign("greeting", 17)).reason == "override"
    await experiments.set_override("greeting", "bob", A)
    assert await experiments.get_variant_for_user("greeting", "bob") == A
    await experiments.set_override("greeting", "bob", None)
    assert (await experiments.assign("greeting", "bob")).reason != "override"


async def test_an_override_goes_before_targeting_and_enrolment(experiments: ABTestManager) -> None:
    await create(experiments, traffic=0.0, where="plan == 'premium'", overrides={"ada": B})
    assert (await experiments.assign("greeting", "ada")).variant == B
    assert (await experiments.assign("greeting", "bob", attributes={"plan": "premium"})).variant is None


async def test_distribution_counts_exposed_units_and_shows_zeros(experiments: ABTestManager) -> None:
    created = await create(experiments, salt="s")
    assert await experiments.get_variant_distribution("greeting") == {A: 0, B: 0}
    dealt = variants_of(await deal(experiments))
    counts = Counter(dealt.values())
    assert await experiments.get_variant_distribution(created.experiment_id) == {A: counts[A], B: counts[B]}
    assert await experiments.get_experiment_assignments("greeting") == dealt


async def test_user_assignment_is_the_first_exposure(experiments: ABTestManager) -> None:
    await create(experiments)
    assert await experiments.get_user_assignment("greeting", "ada") is None
    served = await experiments.get_variant_for_user("greeting", "ada")
    assert await experiments.get_user_assignment("greeting", "ada") == served
    await experiments.update_weights("greeting", {A: float(served == B), B: float(served == A)}, evict=True)
    assert await experiments.get_variant_for_user("greeting", "ada") != served
    assert await experiments.get_user_assignment("greeting", "ada") == served


async def test_random_variants_follow_the_weights_and_are_remembered_for_nobody(
    experiments: ABTestManager,
) -> None:
    await create(experiments)
    rng = random.Random(5)
    drawn = {await experiments.get_random_variant("greeting", rng) for _ in range(30)}
    assert drawn == {A, B}
    await experiments.update_weights("greeting", {A: 0, B: 1})
    assert {await experiments.get_random_variant("greeting") for _ in range(30)} == {B}
    assert await experiments.get_variant_distribution("greeting") == {A: 0, B: 0}


@pytest.mark.parametrize("status", ["paused", "stopped"])
async def test_random_variants_are_refused_when_nothing_is_served(
    experiments: ABTestManager, status: str
) -> None:
    await create(experiments)
    await experiments.update_experiment_status("greeting", status)
    with pytest.raises(StateError, match=status):
        await experiments.get_random_variant("greeting")


async def test_assign_returns_one_variant_when_many_tasks_race_for_a_unit_whose_range_moved(
    experiments: ABTestManager,
) -> None:
    await create(experiments, salt="s")
    await experiments.update_weights("greeting", {A: 0.1, B: 0.9})
    for unit in UNITS[:10]:
        raced = await asyncio.gather(*(experiments.assign("greeting", unit) for _ in range(5)))
        assert len({assignment.variant for assignment in raced}) == 1
    assert len(await experiments.get_experiment_assignments("greeting")) == 10


async def test_an_exposure_is_written_once_with_its_time_and_attributes(
    lab: Lab, clock: SettableClock
) -> None:
    created = await create(lab.experiments)
    first_met = clock.now
    for plan in ("free", "premium"):
        await lab.experiments.assign("greeting", "ada", attributes={"plan": plan})
        clock.advance(hours=1)
    await lab.store.flush()

    async def listed(tx: Transaction) -> list[Exposure]:
        return await tx.exposures.listing(created.experiment_id)

    (exposure,) = await lab.store.read(listed)
    assert (exposure.unit, exposure.at, exposure.attributes) == ("ada", first_met, {"plan": "free"})
    assert (exposure.epoch, exposure.source) == (1, "assigned")


async def test_an_exposure_that_could_not_be_written_is_written_at_the_next_meeting(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with promptab.open(f"sqlite:///{path}") as lab:
        await create(lab.experiments)
        refuse = (
            "CREATE TRIGGER refuse BEFORE INSERT ON promptab_exposures BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute(refuse)
            served = await lab.experiments.get_variant_for_user("greeting", "ada")
            assert await lab.experiments.get_experiment_assignments("greeting") == {}
            connection.execute("DROP TRIGGER refuse")
        assert await lab.experiments.get_variant_for_user("greeting", "ada") == served
        assert await lab.experiments.get_experiment_assignments("greeting") == {"ada": served}


async def test_two_labs_on_one_store_agree(lab: Lab) -> None:
    await create(lab.experiments, salt="fixed")
    before = variants_of(await deal(lab.experiments))
    again = Lab(lab.store)
    assert variants_of(await deal(again.experiments)) == before
