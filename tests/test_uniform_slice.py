"""A bandit's uniform slice when other variants take new units than at the start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptab import Lab, PromptExperiment
from promptab.allocation import enrolled, normalise, point
from promptab.experiment_rules import first_epoch, next_epoch, next_uniform_epoch, uniform_epoch
from promptab.live_experiment import LiveExperiment, build_live_experiment
from promptab.models import UNIFORM_EPOCH, ExperimentStatus, PromptType
from promptab.snapshot import Dealt, Lookup, Snapshot
from promptab.snapshot_file import read_snapshot, write_snapshot
from promptab.stores.opening import open_store
from tests.clock import SettableClock
from tests.test_bandit import ABC, EAGER, create, epochs, everywhere, exposures, serve

HALVED = EAGER.model_copy(update={"uniform": 0.5})
NEXT = UNIFORM_EPOCH - 1
ALIKE = {"a": 0.5, "b": 0.5, "c": 0.5}
START = datetime(2026, 1, 1, tzinfo=UTC)
EXPERIMENT = PromptExperiment(
    experiment_id="e1",
    name="tone",
    prompt_type=PromptType.CONFIG,
    prompt_name=None,
    variants=tuple(ABC),
    control="a",
    traffic_split=dict.fromkeys("abc", 1 / 3),
    status=ExperimentStatus.RUNNING,
    layer="e1",
    bandit=HALVED,
    salt="s",
    enrolment_salt="e",
    uniform_salt="u",
    created_at=START,
    started_at=START,
    traffic_history=((START, 1.0),),
)
WEIGHTS = st.fixed_dictionaries({key: st.sampled_from([0.0, 1.0, 3.0]) for key in "abc"}).filter(
    lambda weights: sum(weights.values()) > 0.0
)


async def weigh(lab: Lab, clock: SettableClock, *, evict: bool = False, **weights: float) -> None:
    await lab.experiments.update_weights("tone", weights, evict=evict, lead_seconds=0)
    clock.advance(seconds=1)


def in_slice(made: PromptExperiment, number: int) -> bool:
    assert made.uniform_salt is not None
    return enrolled(point(made.uniform_salt, f"u{number}"), HALVED.uniform)


async def withdrawn(lab: Lab, clock: SettableClock) -> PromptExperiment:
    """Serve 150 units, take c away, and serve 150 more."""
    made = await create(lab, HALVED, variants=ABC)
    await serve(lab, range(150), {"a": 0.3, "b": 0.8, "c": 0.1})
    await weigh(lab, clock, a=1, b=4, c=0, evict=True)
    await serve(lab, range(150, 300), {"a": 0.3, "b": 0.8})
    return made


def slice_of(made: PromptExperiment, changes: Sequence[Mapping[str, float]]) -> LiveExperiment:
    """Return the experiment after these weights, one after the other, an hour each."""
    first = uniform_epoch(made, START)
    assert first is not None
    known = [first, first_epoch(made, START)]
    for hour, weights in enumerate(changes, start=1):
        shares, at = normalise(weights, positive=False), START + timedelta(hours=hour)
        alike = next_uniform_epoch(known, shares, starts_at=at)
        known.append(next_epoch(known, shares, evict=False, starts_at=at))
        if alike is not None:
            known.insert(0, alike)
    return build_live_experiment(made, known, None, {})


@given(st.lists(WEIGHTS, max_size=6), st.lists(st.text("xyz0123456789", min_size=1), min_size=1, max_size=30))
def test_who_needs_no_look_up_gets_one_variant_for_ever_and_all_get_what_takes_new_units(
    changes: Sequence[Mapping[str, float]], units: Sequence[str]
) -> None:
    live = slice_of(EXPERIMENT, changes)
    assert live.uniform is not None
    snapshot = Snapshot("store", 1, (live,), {}, {}, {}, {})
    dealt_alike = [set(dealing.weights) for dealing in live.uniform.dealings]
    assert all(dealt_alike.count(keys) == 1 for keys in dealt_alike)
    for unit in filter(live.uniform.holds, units):
        answers = [snapshot.assign(live, unit, {}, dealing.starts_at) for dealing in live.dealings]
        for answer, dealing in zip(answers, live.dealings, strict=True):
            fresh = answer.fresh if isinstance(answer, Lookup) else answer
            assert fresh.key in dealing.weights
            if len(dealing.weights) > 1:
                assert fresh.propensity == pytest.approx(1.0 / len(dealing.weights), abs=1e-15)
                assert fresh.epoch is not None
                assert fresh.epoch <= UNIFORM_EPOCH
        assert len({answer.key for answer in answers if isinstance(answer, Dealt)}) <= 1
        assert len({isinstance(answer, Lookup) for answer in answers}) == 1


@everywhere
async def test_the_slice_goes_on_among_the_variants_that_are_left(lab: Lab, clock: SettableClock) -> None:
    made = await withdrawn(lab, clock)
    known = await epochs(lab, made)
    assert list(known) == [NEXT, UNIFORM_EPOCH, 1, 2]
    assert dict(known[NEXT].weights) == {"a": 0.5, "b": 0.5}
    assert known[NEXT].starts_at == known[2].starts_at
    for each in await exposures(lab, made):
        number = int(each.unit[1:])
        first, later = (UNIFORM_EPOCH, NEXT) if in_slice(made, number) else (1, 2)
        assert each.epoch == (first if number < 150 else later)
        assert each.propensity == pytest.approx(known[each.epoch].weights[each.variant], abs=1e-15)
    late = Counter(each.variant for each in await exposures(lab, made) if each.epoch == NEXT)
    assert set(late) == {"a", "b"}
    assert min(late.values()) > 20


async def test_units_of_the_slice_keep_what_is_left_and_the_others_are_dealt_anew(
    lab: Lab, clock: SettableClock
) -> None:
    made = await withdrawn(lab, clock)
    stored = {each.unit: each for each in await exposures(lab, made)}
    for number in range(300):
        found = await lab.experiments.assign("tone", f"u{number}")
        held = stored[f"u{number}"].variant
        assert found.variant in ({"a", "b"} if held == "c" else {held})
    after = {each.unit: each for each in await exposures(lab, made)}
    assert {unit: (each.variant, each.epoch) for unit, each in after.items()} == {
        unit: (each.variant, each.epoch) for unit, each in stored.items()
    }


@everywhere
async def test_the_slice_is_compared_within_its_epochs(lab: Lab, clock: SettableClock) -> None:
    made = await withdrawn(lab, clock)
    counts = Counter(e.variant for e in await exposures(lab, made) if e.epoch <= UNIFORM_EPOCH)
    alone = await lab.analyze("tone", uniform=True)
    assert dict(alone.units) == dict(counts)
    assert next(check for check in alone.checks if check.name == "sample_ratio").passed
    differences = alone.metrics["success_rate"].differences
    assert differences["b"].value == pytest.approx(0.5, abs=0.2)
    assert differences["c"].value == pytest.approx(-0.2, abs=0.2)
    told = "; without a part of the uniform slice, where a variant has fewer than 2 units"
    assert told in differences["c"].sentence
    assert "without" not in differences["b"].sentence
    whole = await lab.analyze("tone")
    assert "; without epoch 2 and a part of the" in whole.metrics["success_rate"].differences["c"].sentence
    assert next(check for check in whole.checks if check.name == "sample_ratio").passed
    assert sum(whole.units.values()) == 300


async def test_an_epoch_of_the_slice_goes_on_when_its_variants_are_back(
    lab: Lab, clock: SettableClock
) -> None:
    made = await withdrawn(lab, clock)
    await weigh(lab, clock, a=1, b=4, c=1)
    await serve(lab, range(300, 400), ALIKE)
    await weigh(lab, clock, a=1, b=9, c=0)
    await serve(lab, range(400, 500), ALIKE)
    assert list(await epochs(lab, made)) == [NEXT, UNIFORM_EPOCH, 1, 2, 3, 4]
    of_slice = [e for e in await exposures(lab, made) if in_slice(made, int(e.unit[1:]))]
    for each in of_slice:
        number = int(each.unit[1:])
        assert each.epoch == (UNIFORM_EPOCH if number < 150 or 300 <= number < 400 else NEXT)
    held = {each.unit: each.variant for each in of_slice if int(each.unit[1:]) >= 150}
    assert {unit: (await lab.experiments.assign("tone", unit)).variant for unit in held} == held


async def test_one_variant_that_is_left_is_no_slice(lab: Lab, clock: SettableClock) -> None:
    made = await withdrawn(lab, clock)
    await weigh(lab, clock, a=1, b=0, c=0)
    await serve(lab, range(300, 340), ALIKE)
    assert list(await epochs(lab, made)) == [NEXT, UNIFORM_EPOCH, 1, 2, 3]
    late = [each for each in await exposures(lab, made) if int(each.unit[1:]) >= 300]
    assert {(each.variant, each.epoch, each.propensity) for each in late} == {("a", 3, 1.0)}
    # whose variant takes no new units keeps it, in the slice as elsewhere
    held = {each.unit: each.variant for each in await exposures(lab, made) if each.variant == "b"}
    assert {unit: (await lab.experiments.assign("tone", unit)).variant for unit in held} == held


async def test_a_change_that_never_took_effect_leaves_nothing_of_the_slice(
    lab: Lab, clock: SettableClock
) -> None:
    made = await create(lab, HALVED, variants=ABC)
    await serve(lab, range(40), ALIKE)
    await lab.experiments.update_weights("tone", {"a": 1, "b": 1, "c": 0}, lead_seconds=60)
    assert list(await epochs(lab, made)) == [NEXT, UNIFORM_EPOCH, 1, 2]
    clock.advance(seconds=1)
    await weigh(lab, clock, a=1, b=2, c=2)
    assert list(await epochs(lab, made)) == [UNIFORM_EPOCH, 1, 2]
    await serve(lab, range(40, 100), ALIKE)
    late = Counter(e.epoch for e in await exposures(lab, made) if int(e.unit[1:]) >= 40)
    assert set(late) == {UNIFORM_EPOCH, 2}


async def test_a_snapshot_file_and_a_restart_keep_all_of_the_slice(
    lasting_url: str, clock: SettableClock, tmp_path: Any
) -> None:
    one = Lab(await open_store(lasting_url), clock=clock)
    await withdrawn(one, clock)
    dealt = {f"u{n}": (await one.experiments.assign("tone", f"u{n}")).variant for n in range(340)}
    snapshot = await one.store.snapshot()
    await one.close()
    write_snapshot(tmp_path / "snapshot.json", snapshot, taken_at=clock())
    filed = read_snapshot(tmp_path / "snapshot.json")
    assert filed.faults == ()
    (before,), (after,) = snapshot.experiments, filed.snapshot.experiments
    assert before.uniform is not None
    assert [dealing.number for dealing in before.uniform.dealings] == [NEXT, UNIFORM_EPOCH]
    assert after.uniform == before.uniform
    other = Lab(await open_store(lasting_url), clock=clock)
    assert {unit: (await other.experiments.assign("tone", unit)).variant for unit in dealt} == dealt
    await other.close()
