"""Whose a unit is: which of several experiments claims it, whether it counts, and what reports say of it first."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from promptab import (
    ABTestManager,
    ConflictError,
    ExperimentStatus,
    InvalidInputError,
    Lab,
    MetricsCollector,
    PromptExperiment,
    PromptVariant,
    StateError,
    VersionManager,
)
from promptab.allocation import allocate, enrolled, point
from promptab.event_ids import new_event_id
from promptab.models import EVERY_UNIT
from tests.clock import SettableClock

AB = [PromptVariant(key="a", config={"tone": ["warm"]}), PromptVariant(key="b", config={"tone": ["cool"]})]
UNITS = [f"u{number}" for number in range(100)]


@pytest.fixture
def store_url() -> str:
    return "sqlite:///:memory:"


async def create(experiments: ABTestManager, name: str = "greeting", **fields: Any) -> PromptExperiment:
    return await experiments.create_experiment(name, "system", AB, prompt_name="greeting", **fields)


async def homes(lab: Lab, units: list[str]) -> dict[str, str | None]:
    """Return unit -> the experiment that decides what it is served."""
    return {unit: (await lab.choose("greeting", user_id=unit)).experiment_id for unit in units}


def dealt(experiment: PromptExperiment, variant: str, units: list[str] = UNITS) -> list[str]:
    """Return the units that the hash gives this variant."""
    owners = allocate(experiment.traffic_split)
    return [unit for unit in units if owners.key_at(point(experiment.salt, unit)) == variant]


async def counted(lab: Lab, experiment: str = "greeting") -> int:
    return sum((await lab.compare(experiment)).units.values())


async def test_growing_traffic_takes_no_unit_from_a_later_experiment(lab: Lab, clock: SettableClock) -> None:
    first = await create(lab.experiments, traffic=0.1)
    clock.advance(seconds=1)
    second = await create(lab.experiments, "second")
    before = await homes(lab, UNITS)
    assert set(before.values()) == {first.experiment_id, second.experiment_id}
    clock.advance(seconds=1)
    await lab.experiments.update_traffic("greeting", 1.0)
    assert await homes(lab, UNITS) == before
    in_second = next(unit for unit, home in before.items() if home == second.experiment_id)
    assert (await lab.experiments.assign("greeting", in_second)).reason == "other_experiment"


async def test_nobody_is_exposed_to_two_experiments_on_one_prompt(lab: Lab, clock: SettableClock) -> None:
    await create(lab.experiments, traffic=0.1)
    clock.advance(seconds=1)
    await create(lab.experiments, "second")
    await homes(lab, UNITS[:50])
    clock.advance(seconds=1)
    await lab.experiments.update_traffic("greeting", 1.0)
    await homes(lab, UNITS)
    for unit in UNITS:
        await lab.experiments.assign("greeting", unit)
        await lab.experiments.assign("second", unit)
    in_first = set(await lab.experiments.get_experiment_assignments("greeting"))
    in_second = set(await lab.experiments.get_experiment_assignments("second"))
    assert in_first
    assert in_second
    assert not in_first & in_second
    assert in_first | in_second == set(UNITS)


async def test_a_new_unit_goes_to_the_experiment_that_has_claimed_it_longest(
    lab: Lab, clock: SettableClock
) -> None:
    first = await create(lab.experiments, traffic=0.1)
    clock.advance(seconds=1)
    second = await create(lab.experiments, "second")
    clock.advance(seconds=1)
    await lab.experiments.update_traffic("greeting", 1.0)
    clock.advance(seconds=1)
    at_first = {unit for unit in UNITS if enrolled(point(first.enrolment_salt, unit), 0.1)}
    assert await homes(lab, UNITS) == {
        unit: first.experiment_id if unit in at_first else second.experiment_id for unit in UNITS
    }


async def test_units_stay_where_they_were_exposed_while_traffic_goes_down_and_up_again(
    lab: Lab, clock: SettableClock
) -> None:
    first = await create(lab.experiments)
    known, unknown = UNITS[:50], UNITS[50:]
    await homes(lab, known)
    clock.advance(seconds=1)
    await lab.experiments.update_traffic("greeting", 0.0)
    clock.advance(seconds=1)
    second = await create(lab.experiments, "second")
    expected = dict.fromkeys(known, first.experiment_id) | dict.fromkeys(unknown, second.experiment_id)
    assert await homes(lab, UNITS) == expected
    clock.advance(seconds=1)
    await lab.experiments.update_traffic("greeting", 1.0)
    assert await homes(lab, unknown) == dict.fromkeys(unknown, second.experiment_id)
    assert await homes(lab, known) == dict.fromkeys(known, first.experiment_id)


async def same_for_session_and_user(lab: Lab, session: str, user: str) -> str | None:
    by_session = await lab.choose("greeting", session_id=session)
    by_user = await lab.choose("greeting", user_id=user)
    assert (by_session.unit, by_session.variant) == (by_user.unit, by_user.variant)
    return by_user.variant


async def test_a_session_that_was_exposed_and_its_user_are_served_alike_after_alias(lab: Lab) -> None:
    await create(lab.experiments)
    for number in range(20):
        first = await lab.choose("greeting", session_id=f"s{number}")
        await lab.experiments.alias(f"s{number}", f"u{number}")
        assert await same_for_session_and_user(lab, f"s{number}", f"u{number}") == first.variant


async def test_a_session_and_a_user_that_nobody_has_met_are_served_alike_after_alias(lab: Lab) -> None:
    await create(lab.experiments)
    for number in range(20):
        await lab.experiments.alias(f"s{number}", f"u{number}")
        assert await same_for_session_and_user(lab, f"s{number}", f"u{number}") is not None
    assert await counted(lab) == 20


async def test_a_session_is_served_what_its_user_has_when_both_were_exposed_before_alias(lab: Lab) -> None:
    await create(lab.experiments)
    for number in range(20):
        await lab.choose("greeting", session_id=f"s{number}")
        own = await lab.choose("greeting", user_id=f"u{number}")
        await lab.experiments.alias(f"s{number}", f"u{number}")
        assert await same_for_session_and_user(lab, f"s{number}", f"u{number}") == own.variant


async def test_an_overridden_session_that_becomes_a_user_stays_out_of_the_comparison(lab: Lab) -> None:
    await create(lab.experiments)
    await lab.experiments.set_override("greeting", "session:s1", "b")
    shown = await lab.choose("greeting", session_id="s1")
    assert (shown.variant, shown.source) == ("b", "override")
    await lab.experiments.alias("s1", "ada")
    await (await lab.choose("greeting", user_id="ada")).record(success=True)
    await (await lab.choose("greeting", user_id="bob")).record(success=True)
    assert await counted(lab) == 1


async def test_an_override_of_everybody_leaves_out_the_units_exposed_before(lab: Lab) -> None:
    await create(lab.experiments)
    for unit in UNITS[:10]:
        await (await lab.choose("greeting", user_id=unit)).record(success=True)
    assert await counted(lab) == 10
    await lab.experiments.set_override("greeting", EVERY_UNIT, "b")
    assert await counted(lab) == 0
    await lab.experiments.set_override("greeting", EVERY_UNIT, None)
    assert await counted(lab) == 0


async def test_an_event_reported_for_an_overridden_unit_does_not_count(lab: Lab) -> None:
    await create(lab.experiments, overrides={"ada": "b"})
    for user in ("ada", "bob"):
        await lab.metrics.record_event(
            None, success=True, experiment_id="greeting", variant="b", user_id=user
        )
    assert (await lab.compare("greeting")).units == {"a": 0, "b": 1}
    await lab.experiments.set_override("greeting", "ada", None)
    assert (await lab.compare("greeting")).units == {"a": 0, "b": 1}


@pytest.mark.parametrize("shown", ["unit", EVERY_UNIT])
async def test_a_unit_whose_override_is_taken_back_is_dealt_by_its_hash_and_stays_left_out(
    lab: Lab, shown: str
) -> None:
    experiment = await create(lab.experiments)
    unit = dealt(experiment, "a")[0]
    overridden = unit if shown == "unit" else shown
    await lab.experiments.set_override("greeting", overridden, "b")
    assert (await lab.choose("greeting", user_id=unit)).variant == "b"
    await lab.experiments.set_override("greeting", overridden, None)
    back = await lab.choose("greeting", user_id=unit)
    assert (back.variant, back.source) == ("a", "experiment")
    await back.record(success=True)
    assert await counted(lab) == 0


async def test_a_unit_whose_override_was_taken_back_follows_its_hash_also_in_a_moved_range(lab: Lab) -> None:
    experiment = await create(lab.experiments)
    await lab.experiments.set_override("greeting", EVERY_UNIT, "a")
    await homes(lab, UNITS)
    await lab.experiments.set_override("greeting", EVERY_UNIT, None)
    await lab.experiments.update_weights("greeting", {"a": 0, "b": 1})
    for unit in dealt(experiment, "a")[:5]:
        assert (await lab.choose("greeting", user_id=unit)).variant == "b"
    assert await counted(lab) == 0


@pytest.mark.parametrize("reported", ["a", "b"])
async def test_a_user_keeps_the_variant_that_was_reported_before_any_assignment(
    lab: Lab, reported: str
) -> None:
    experiment = await create(lab.experiments)
    other = "b" if reported == "a" else "a"
    for user in (dealt(experiment, reported)[0], dealt(experiment, other)[0]):
        await lab.metrics.record_event(None, experiment_id="greeting", variant=reported, user_id=user)
        assert (await lab.experiments.assign("greeting", user)).variant == reported
        assert (await lab.choose("greeting", user_id=user)).variant == reported
        assert await lab.experiments.get_user_assignment("greeting", user) == reported


async def test_a_report_changes_nobody_else_and_not_who_was_dealt_before(
    lab: Lab, experiments: ABTestManager
) -> None:
    experiment = await create(experiments)
    met, unmet, reported = dealt(experiment, "a")[:3]
    await lab.choose("greeting", user_id=met)
    for user in (met, reported):
        await lab.metrics.record_event(None, experiment_id="greeting", variant="b", user_id=user)
    served = [(await lab.choose("greeting", user_id=user)).variant for user in (met, unmet, reported)]
    assert served == ["a", "a", "b"]


async def test_the_event_that_record_event_returns_says_whether_it_is_flagged(lab: Lab) -> None:
    experiment = await create(lab.experiments)
    user = dealt(experiment, "a")[0]
    choice = await lab.choose("greeting", user_id=user)
    assert not (await choice.record(success=True)).flagged
    contradicting = await lab.metrics.record_event(
        None, success=True, experiment_id="greeting", variant="b", user_id=user
    )
    assert contradicting.flagged


async def test_a_refused_event_leaves_no_exposure(
    metrics: MetricsCollector, experiments: ABTestManager, clock: SettableClock
) -> None:
    await create(experiments)
    event_id = new_event_id(clock.now)
    await metrics.record_event(None, success=True, event_id=event_id)
    with pytest.raises(ConflictError):
        await metrics.record_event(
            None, success=True, event_id=event_id, experiment_id="greeting", variant="a", user_id="ada"
        )
    assert await experiments.get_user_assignment("greeting", "ada") is None


async def test_an_event_refused_in_the_batch_of_the_first_leaves_no_exposure(
    metrics: MetricsCollector, experiments: ABTestManager, clock: SettableClock
) -> None:
    await create(experiments)
    event_id = new_event_id(clock.now)
    # the hash of each user gives the variant that is reported, so that both calls reach one batch together
    experiment = await experiments.get_experiment("greeting")
    assert experiment is not None
    first, second = dealt(experiment, "a")[:2]
    outcomes = await asyncio.gather(
        *(
            metrics.record_event(None, event_id=event_id, experiment_id="greeting", variant="a", user_id=user)
            for user in (first, second)
        ),
        return_exceptions=True,
    )
    assert [type(outcome).__name__ for outcome in outcomes] == ["MetricEvent", "ConflictError"]
    assert await experiments.get_experiment_assignments("greeting") == {first: "a"}


@pytest.mark.parametrize("age", ["x", None, [19], {}])
async def test_an_attribute_of_another_type_than_the_condition_compares_serves_production(
    lab: Lab, age: object
) -> None:
    live = await lab.versions.create_version("greeting", "system", "Hello.")
    await lab.versions.promote(live.version_id)
    await create(lab.experiments, where="age > 18")
    choice = await lab.choose("greeting", user_id="ada", attributes={"age": age})
    assert choice.version is not None
    assert (choice.version.version_id, choice.source) == (live.version_id, "excluded")


async def test_what_a_choice_hands_out_is_the_callers_to_change(lab: Lab) -> None:
    created = await lab.versions.create_version("greeting", "system", "Hello.", config={"stop": ["."]})
    await lab.versions.promote(created.version_id)
    choice = await lab.choose("greeting")
    assert choice.version is not None
    choice.version.config["stop"].append("!")
    choice.config["stop"].append("?")
    again = await lab.choose("greeting")
    assert again.version is not None
    assert again.version.config == again.config == choice.config == {"stop": ["."]}
    assert choice.version.config == {"stop": ["."]}


async def test_the_configuration_of_an_assignment_is_the_callers_to_change(lab: Lab) -> None:
    experiment = await create(lab.experiments)
    user, other = dealt(experiment, "a")[:2]
    assignment = await lab.experiments.assign("greeting", user)
    assert assignment.config is not None
    assignment.config["tone"].append("spoilt")
    (await lab.choose("greeting", user_id=user)).config["tone"].append("spoilt")
    assert (await lab.experiments.assign("greeting", other)).config == {"tone": ["warm"]}
    assert (await lab.choose("greeting", user_id=user)).config == {"tone": ["warm"]}


async def test_an_experiment_that_ended_on_schedule_leaves_its_name_to_the_next(
    experiments: ABTestManager, clock: SettableClock
) -> None:
    await create(experiments, ends_at=clock.now + timedelta(hours=1))
    following = await create(experiments)
    with pytest.raises(StateError, match="name one by its id"):
        await experiments.assign("greeting", "ada")
    clock.advance(hours=1)
    assigned = await experiments.assign("greeting", "ada")
    assert (assigned.experiment_id, assigned.reason) == (following.experiment_id, "allocated")
    found = await experiments.get_experiment("greeting")
    assert found is not None
    assert found.experiment_id == following.experiment_id


async def test_a_draft_whose_end_has_passed_does_not_start(
    experiments: ABTestManager, clock: SettableClock
) -> None:
    draft = await create(experiments, status="draft", ends_at=clock.now + timedelta(hours=1))
    clock.advance(hours=2)
    with pytest.raises(InvalidInputError, match="ends_at"):
        await experiments.start("greeting")
    assert await experiments.get_experiment(draft.experiment_id) == draft


async def test_start_takes_the_draft_beside_a_running_experiment_of_its_name(
    experiments: ABTestManager, clock: SettableClock
) -> None:
    draft = await create(experiments, status="draft")
    clock.advance(seconds=1)
    await create(experiments)
    started = await experiments.start("greeting")
    assert (started.experiment_id, started.status) == (draft.experiment_id, ExperimentStatus.RUNNING)


async def test_start_refuses_to_pick_one_of_two_drafts(experiments: ABTestManager) -> None:
    drafts = [await create(experiments, status="draft") for _ in range(2)]
    with pytest.raises(StateError) as refusal:
        await experiments.start("greeting")
    assert all(draft.experiment_id in str(refusal.value) for draft in drafts)
    assert (await experiments.start(drafts[0].experiment_id)).status == ExperimentStatus.RUNNING


@pytest.mark.parametrize("winner", [None, "a"])
async def test_a_completed_experiment_gets_no_other_winner(
    experiments: ABTestManager, winner: str | None
) -> None:
    await create(experiments)
    completed = await experiments.complete("greeting", winner)
    with pytest.raises(StateError, match="winner"):
        await experiments.complete("greeting", "b")
    assert await experiments.complete("greeting", winner) == completed


async def archived_pair(versions: VersionManager) -> list[PromptVariant]:
    """Return variants of two versions, the first of them archived."""
    made = [await versions.create_version("greeting", "system", text) for text in ("One.", "Two.")]
    await versions.update_status(made[0].version_id, "archived")
    return [PromptVariant(version.version) for version in made]


async def test_an_experiment_is_not_created_running_on_an_archived_version(
    experiments: ABTestManager, versions: VersionManager
) -> None:
    arms = await archived_pair(versions)
    with pytest.raises(StateError, match="archived"):
        await experiments.create_experiment("greeting", "system", arms)
    assert await experiments.list_experiments() == []


async def test_a_draft_does_not_start_on_an_archived_version(
    experiments: ABTestManager, versions: VersionManager
) -> None:
    draft = await experiments.create_experiment(
        "greeting", "system", await archived_pair(versions), status="draft"
    )
    with pytest.raises(StateError, match="archived"):
        await experiments.start("greeting")
    assert await experiments.list_experiments() == [draft]


async def test_a_long_experiment_name_works(lab: Lab) -> None:
    name = "x" * 196
    created = await create(lab.experiments, name)
    assert (await lab.experiments.assign(name, "ada")).variant in {"a", "b"}
    assert (await lab.choose("greeting", user_id="ada")).experiment_id == created.experiment_id
    assert await counted(lab, name) == 1


async def test_choose_takes_a_version_or_an_environment_and_not_both(lab: Lab) -> None:
    created = await lab.versions.create_version("greeting", "system", "Hello.")
    await lab.versions.promote(created.version_id)
    with pytest.raises(InvalidInputError, match="environment"):
        await lab.choose("greeting", version=created.version, environment="production")
