"""Assignment as a function of a snapshot and a time: no store, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptab import (
    ExperimentStatus,
    NotFoundError,
    PromptExperiment,
    PromptType,
    PromptVariant,
    PromptVersion,
    StateError,
)
from promptab.allocation import AllocationMap, allocate, enrolled, point, reallocate
from promptab.live_experiment import HeldOut, LiveExperiment, build_live_experiment
from promptab.models import Epoch
from promptab.snapshot import Dealt, Lookup, Snapshot, first_dealt, kept_by

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
UNITS = [f"u{number}" for number in range(200)]


def experiment(experiment_id: str = "e1", **fields: Any) -> PromptExperiment:
    return PromptExperiment.model_validate(
        {
            "experiment_id": experiment_id,
            "name": "greeting",
            "prompt_type": "system",
            "prompt_name": None,
            "variants": (PromptVariant("1.0.0", key="a"), PromptVariant("1.1.0", key="b")),
            "control": "a",
            "traffic_split": {"a": 0.5, "b": 0.5},
            "status": "running",
            "layer": experiment_id,
            "salt": "salt",
            "enrolment_salt": "enrolment",
            "created_at": NOW,
            "started_at": NOW,
            "traffic_history": ((NOW, fields.get("traffic", 1.0)),),
            **fields,
        }
    )


def epochs(*weights: tuple[float, float], evicted: Sequence[str] = ()) -> list[Epoch]:
    """One epoch an hour; `evicted` belongs to the last."""
    made: list[Epoch] = []
    for number, (a, b) in enumerate(weights, start=1):
        shares = {"a": a, "b": b}
        dealt = (
            allocate(shares) if not made else reallocate(AllocationMap.from_json(made[-1].segments), shares)
        )
        made.append(
            Epoch(
                experiment_id="e1",
                number=number,
                starts_at=NOW + (number - 1) * HOUR,
                weights=shares,
                segments=dealt.to_json(),
                evicted=tuple(evicted) if number == len(weights) else (),
            )
        )
    return made


def live(
    *weights: tuple[float, float],
    evicted: Sequence[str] = (),
    held_out: HeldOut | None = None,
    kept: dict[str, str] | None = None,
    **fields: Any,
) -> LiveExperiment:
    return build_live_experiment(
        experiment(**fields), epochs(*(weights or [(0.5, 0.5)]), evicted=evicted), held_out, kept or {}
    )


def snapshot(*experiments: LiveExperiment, versions: Sequence[PromptVersion] = ()) -> Snapshot:
    return Snapshot(
        store_id="store",
        revision=1,
        experiments=experiments,
        live={(v.prompt_type, v.name, tag): v.version_id for v in versions for tag in v.tags},
        latest={(v.prompt_type, v.name): v.version_id for v in versions},
        versions={v.version_id: v for v in versions},
        numbers={(v.prompt_type, v.name, v.version): v.version_id for v in versions},
    )


def assign(tested: LiveExperiment, unit: str, at: datetime = NOW) -> Dealt | Lookup:
    return snapshot(tested).assign(tested, unit, {}, at)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_the_variant_is_the_owner_of_the_units_point(unit: str) -> None:
    tested = live((0.3, 0.7))
    answer = assign(tested, unit)
    assert isinstance(answer, Dealt)
    assert answer.key == allocate({"a": 0.3, "b": 0.7}).key_at(point("salt", unit))
    assert (answer.reason, answer.epoch, answer.unit) == ("allocated", 1, unit)


def test_only_units_of_moved_ranges_ask_the_store() -> None:
    tested = live((0.5, 0.5), (0.4, 0.6))
    announced = {unit for unit in UNITS if isinstance(assign(tested, unit), Lookup)}
    unchanged = live((0.5, 0.5))
    after = {unit: assign(tested, unit, NOW + HOUR) for unit in UNITS}
    asked = {unit for unit, answer in after.items() if isinstance(answer, Lookup)}
    old = allocate({"a": 0.5, "b": 0.5})
    new = reallocate(old, {"a": 0.4, "b": 0.6})
    moved = {u for u in UNITS if old.key_at(point("salt", u)) != new.key_at(point("salt", u))}
    assert moved
    assert asked == moved
    assert announced == moved, "what is about to move is dealt as carefully before it does"
    assert not any(isinstance(assign(unchanged, unit), Lookup) for unit in UNITS)


def test_a_range_that_moved_away_and_back_is_still_asked_about() -> None:
    tested = live((0.5, 0.5), (0.0, 1.0), (0.5, 0.5))
    asked = {unit for unit in UNITS if isinstance(assign(tested, unit, NOW + 2 * HOUR), Lookup)}
    old = allocate({"a": 0.5, "b": 0.5})
    assert asked >= {unit for unit in UNITS if old.key_at(point("salt", unit)) == "a"}


def test_a_weight_change_holds_from_its_moment_on() -> None:
    tested = live((0.5, 0.5), (0.0, 1.0))
    moments = (NOW - HOUR, NOW, NOW + HOUR - timedelta(microseconds=1), NOW + HOUR)
    assert [tested.dealing_at(moment).number for moment in moments] == [1, 1, 1, 2]


def test_a_look_up_ends_with_the_variant_that_is_held() -> None:
    tested = live((1.0, 0.0), (0.0, 1.0))
    lookup = assign(tested, "ada", NOW + HOUR)
    assert isinstance(lookup, Lookup)
    assert lookup.fresh.key == "b"
    kept = kept_by(tested, "ada", "a", NOW + HOUR)
    assert kept is not None
    assert (kept.key, kept.assignment().version, kept.reason) == ("a", "1.0.0", "kept")
    assert first_dealt(lookup, tested, None) == lookup.fresh


def test_an_evicted_variant_is_not_kept() -> None:
    tested = live((1.0, 0.0), (0.0, 1.0), evicted=["a"])
    lookup = assign(tested, "ada", NOW + HOUR)
    assert isinstance(lookup, Lookup)
    assert lookup.fresh.key == "b"
    assert kept_by(tested, "ada", "a", NOW + HOUR) is None


def test_a_unit_beyond_the_present_enrolment_is_asked_about_and_left_out_when_it_is_new() -> None:
    tested = live(traffic=0.2, traffic_history=((NOW - HOUR, 0.6), (NOW, 0.2)))
    for unit in UNITS:
        answer = assign(tested, unit)
        position = point("enrolment", unit)
        if enrolled(position, 0.2):
            assert isinstance(answer, Dealt)
            assert answer.reason == "allocated"
        elif enrolled(position, 0.6):
            assert isinstance(answer, Lookup)
            assert first_dealt(answer, tested, None).reason == "not_enrolled"
            kept = kept_by(tested, unit, "b", NOW)
            assert kept is not None
            assert kept.key == "b"
        else:
            assert isinstance(answer, Dealt)
            assert answer.reason == "not_enrolled"


def test_the_variant_of_an_anonymous_session_goes_before_the_users_own_point() -> None:
    tested = live((0.0, 1.0), kept={"ada": "a"})
    answer = assign(tested, "ada")
    assert isinstance(answer, Dealt)
    assert (answer.key, answer.reason) == ("a", "kept")


def test_a_held_out_unit_is_in_no_variant() -> None:
    held_out = HeldOut("global", 7, 0.5)
    tested = live(held_out=held_out)
    answers = {unit: assign(tested, unit) for unit in UNITS}
    held = {unit for unit, answer in answers.items() if isinstance(answer, Dealt) and not answer.variant}
    assert held == {unit for unit in UNITS if held_out.holds(unit)}
    assert 0 < len(held) < len(UNITS)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"status": "paused"}, "not_running"),
        ({"starts_at": NOW + HOUR}, "not_running"),
        ({"ends_at": NOW}, "not_running"),
        ({"where": "plan == 'premium'"}, "not_targeted"),
        ({"traffic": 0.0}, "not_enrolled"),
    ],
)
def test_a_unit_that_is_left_out_gets_the_reason(fields: dict[str, Any], reason: str) -> None:
    answer = assign(live(**fields), "ada")
    assert isinstance(answer, Dealt)
    told = answer.assignment()
    assert (told.variant, told.version, told.config, told.reason) == (None, None, None, reason)
    assert answer.detail


def test_the_experiment_that_stands_first_holds_the_units_of_a_layer() -> None:
    first = live(experiment_id="e1", layer="tone", traffic=0.5)
    second = live(experiment_id="e2", layer="tone", enrolment_salt="other")
    both = snapshot(first, second)
    for unit in UNITS:
        in_first, in_second = (both.assign(tested, unit, {}, NOW) for tested in (first, second))
        assert isinstance(in_first, Dealt)
        assert isinstance(in_second, Dealt)
        assert (in_first.variant is None) != (in_second.variant is None)


def test_experiments_on_one_prompt_exclude_one_another_whatever_their_layers() -> None:
    first = live(experiment_id="e1", layer="one", prompt_name="greeting")
    second = live(experiment_id="e2", layer="two", prompt_name="greeting")
    answer = snapshot(first, second).assign(second, "ada", {}, NOW)
    assert isinstance(answer, Dealt)
    assert answer.reason == "other_experiment"


def test_a_name_finds_the_running_experiment_and_an_id_finds_any() -> None:
    paused = live(experiment_id="e1", status="paused")
    running = live(experiment_id="e2")
    both = snapshot(paused, running)
    assert both.experiment("greeting", NOW) is running
    assert both.experiment("e1", NOW) is paused
    assert snapshot(paused).experiment("greeting", NOW) is paused
    assert both.experiment("nothing", NOW) is None
    with pytest.raises(StateError, match="e1, e2"):
        snapshot(live(experiment_id="e1"), running).experiment("greeting", NOW)


def test_a_snapshot_finds_versions_by_environment_number_and_prompt() -> None:
    version = PromptVersion(
        version_id="v1",
        name="greeting",
        prompt_type=PromptType.SYSTEM,
        version="1.0.0",
        content_hash="0" * 64,
        tags=("production",),
        created_at=NOW,
    )
    picture = snapshot(versions=[version])
    key = (PromptType.SYSTEM, "greeting")
    assert picture.deployed(*key, "production") is version
    assert picture.deployed(*key, "staging") is None
    assert picture.numbered(*key, "1.0.0") is version
    assert picture.numbered(*key, "1.0.1") is None
    assert picture.latest_active(*key) is version
    assert picture.latest_active(PromptType.USER, "greeting") is None


def test_an_experiment_of_configurations_decides_for_the_prompt_of_its_own_name() -> None:
    tested = live()
    other = live(experiment_id="e2", name="winter", prompt_name="greeting")
    both = snapshot(tested, other)
    assert both.on_prompt(PromptType.SYSTEM, "greeting") == [tested, other]
    assert both.on_prompt(PromptType.SYSTEM, "winter") == []
    assert both.on_prompt(PromptType.USER, "greeting") == []


def test_an_experiment_without_an_epoch_cannot_be_served() -> None:
    with pytest.raises(NotFoundError, match="epoch"):
        build_live_experiment(experiment(status=ExperimentStatus.RUNNING), [], None, {})
