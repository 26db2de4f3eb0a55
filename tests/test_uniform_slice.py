"""A bandit's uniform slice when other variants take new units than at the start."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from promptab import Lab, PromptExperiment
from promptab.allocation import enrolled, point
from promptab.models import UNIFORM_EPOCH
from promptab.snapshot_file import read_snapshot, write_snapshot
from promptab.stores.opening import open_store
from tests.clock import SettableClock
from tests.test_bandit import ABC, EAGER, create, epochs, exposures, serve

HALVED = EAGER.model_copy(update={"uniform": 0.5})
NEXT = UNIFORM_EPOCH - 1
ALIKE = {"a": 0.5, "b": 0.5, "c": 0.5}


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


async def test_the_slice_is_compared_within_its_epochs(lab: Lab, clock: SettableClock) -> None:
    made = await withdrawn(lab, clock)
    counts = Counter(e.variant for e in await exposures(lab, made) if e.epoch <= UNIFORM_EPOCH)
    alone = await lab.analyze("tone", uniform=True)
    assert dict(alone.units) == dict(counts)
    assert next(check for check in alone.checks if check.name == "sample_ratio").passed
    differences = alone.metrics["success_rate"].differences
    assert differences["b"].value == pytest.approx(0.5, abs=0.2)
    assert differences["c"].value == pytest.approx(-0.2, abs=0.2)
    whole = await lab.analyze("tone")
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
