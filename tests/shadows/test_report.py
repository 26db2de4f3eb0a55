"""What is said of shadows: paired differences against a computation by itself, and what they are worth."""

from __future__ import annotations

import asyncio
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import promptab
from promptab import Lab, NotFoundError
from promptab.analysis.shadows import ShadowDifference, ShadowReport
from promptab.stats.paired import UnitPair, paired_difference
from promptab.stats.sequential import half_width
from tests.clock import SettableClock
from tests.shadows.conftest import experiment_with_shadow, in_shadow

UNIT = st.tuples(
    st.integers(0, 4), st.floats(-100.0, 100.0), st.integers(0, 4), st.floats(-100.0, 100.0)
).map(lambda unit: UnitPair(*map(float, unit)))


@given(st.lists(UNIT, min_size=0, max_size=30))
def test_a_paired_difference_is_what_leaving_out_each_unit_says(units: list[UnitPair]) -> None:
    """The delta method against the linearisation by numerical derivatives of the two ratios."""
    found = paired_difference(units)
    kept = np.array([unit for unit in units if unit.n > 0 and unit.other_n > 0], dtype=float).reshape(-1, 4)
    if len(kept) < 2:
        assert found is None
        return
    assert found is not None
    n, s, other_n, other_s = kept.sum(axis=0)
    gradient = np.array([-s / n**2, 1 / n, other_s / other_n**2, -1 / other_n])
    covariance = np.cov(kept.T, ddof=1) * len(kept)
    expected = float(np.sqrt(max(0.0, gradient @ covariance @ gradient)))
    assert found.units == len(kept)
    assert found.value == pytest.approx(s / n - other_s / other_n, abs=1e-9)
    assert found.se == pytest.approx(expected, rel=1e-6, abs=1e-5)


def test_what_units_share_drops_out_of_their_difference() -> None:
    chance = random.Random(1)
    shared = [chance.gauss(0.0, 10.0) for _ in range(200)]
    pairs = [UnitPair(1.0, each + 1.0 + chance.gauss(0.0, 0.1), 1.0, each) for each in shared]
    found = paired_difference(pairs)
    assert found is not None
    assert found.value == pytest.approx(1.0, abs=0.05)
    assert found.se < 0.01


def test_units_that_do_not_vary_have_no_error_and_one_unit_has_no_difference() -> None:
    same = paired_difference([UnitPair(2.0, 0.2 * 2, 3.0, 0.1 * 3)] * 50)
    assert same is not None
    assert same.se == 0.0
    assert paired_difference([UnitPair(1.0, 1.0, 1.0, 0.0)]) is None


def only(report: ShadowReport, metric: str, served: str = "1.0.0") -> ShadowDifference:
    (shadow,) = report.shadows
    comparison = next(each for each in shadow.comparisons if each.served == served)
    return next(each for each in comparison.differences if each.metric == metric)


async def test_each_served_variant_is_compared_on_its_own_units(lab: Lab) -> None:
    await experiment_with_shadow(lab, share=0.5, served=2)
    chance = random.Random(2)
    pairs: dict[str, list[UnitPair]] = {"1.0.0": [], "1.1.0": []}
    for choice, beside in await in_shadow(lab, 500):
        mood = chance.gauss(1.0, 0.3)
        times = [mood + chance.random() for _ in range(chance.randrange(1, 4))]
        for time in times:
            assert choice.record_nowait(True, time)
            for run in beside:
                assert run.record_nowait(chance.random() < 0.9, time / 2, cost=0.5)
        if beside:
            n = float(len(times))
            pairs[choice.variant or ""].append(UnitPair(n, sum(times) / 2, n, sum(times)))
    report = await lab.shadow_report("reply")
    (shadow,) = report.shadows
    assert shadow.units == sum(map(len, pairs.values()))
    assert shadow.runs == sum(int(pair.n) for each in pairs.values() for pair in each)
    assert shadow.cost == shadow.runs * 0.5
    assert sum(shadow.failures.values()) == round((1.0 - (shadow.success_rate or 0.0)) * shadow.runs)
    for key, units in pairs.items():
        found, expected = only(report, "response_time", key), paired_difference(units)
        assert expected is not None
        assert found.units == len(units)
        assert found.difference == pytest.approx(expected.value)
        half = half_width(expected.se, expected.units, tuning_units=5_000, alpha=0.05)
        assert (found.low, found.high) == pytest.approx((expected.value - half, expected.value + half))


async def test_below_a_hundred_units_there_is_a_difference_without_an_interval(lab: Lab) -> None:
    await experiment_with_shadow(lab)
    chance = random.Random(3)
    for number, (choice, (run,)) in enumerate(await in_shadow(lab, 130)):
        assert choice.record_nowait(True, chance.random())
        assert run.record_nowait(True, chance.random())
        if number == 98:
            assert only(await lab.shadow_report("reply"), "response_time").low is None
    assert only(await lab.shadow_report("reply"), "response_time").low is not None
    assert only(await lab.shadow_report("reply"), "success_rate").low is None


async def test_only_what_was_served_while_a_unit_was_in_the_shadow_is_compared(
    lab: Lab, clock: SettableClock
) -> None:
    await experiment_with_shadow(lab, share=0.2)

    async def call(time: float) -> None:
        for choice, beside in await in_shadow(lab, 200):
            assert choice.record_nowait(True, time)
            for run in beside:
                assert run.record_nowait(True, time)
        clock.advance(hours=1)

    await call(100.0)
    await lab.experiments.update_shadow("reply", "candidate", 0.6)
    await call(1.0)
    await lab.experiments.update_shadow("reply", "candidate", 0.1)
    await call(1_000.0)
    (shadow,) = (await lab.shadow_report("reply")).shadows
    (comparison,) = shadow.comparisons
    assert comparison.calls == comparison.runs == shadow.runs
    assert only(await lab.shadow_report("reply"), "response_time").difference == 0.0


async def test_a_session_that_became_a_user_is_one_unit(lab: Lab) -> None:
    experiment = await experiment_with_shadow(lab)
    for session, user in ((f"s{number}", f"u{number}") for number in range(3)):
        choice = await lab.choose("reply", session_id=session)
        await choice.record(True, 1.0)
        await choice.shadows[0].record(True, 2.0)
        await lab.experiments.alias(session, user)
        choice = await lab.choose("reply", user_id=user)
        await choice.record(True, 1.0)
        await choice.shadows[0].record(True, 2.0)
    (shadow,) = (await lab.shadow_report(experiment.experiment_id)).shadows
    (comparison,) = shadow.comparisons
    assert (shadow.units, comparison.units, comparison.runs, comparison.calls) == (3, 3, 6, 6)


async def test_units_that_are_shown_a_variant_by_hand_later_are_compared_no_more(lab: Lab) -> None:
    await experiment_with_shadow(lab)
    for choice, (run,) in await in_shadow(lab, 4):
        await choice.record(True, 1.0)
        await run.record(True, 2.0)
    await lab.experiments.set_override("reply", "u1", "1.0.0")
    (shadow,) = (await lab.shadow_report("reply")).shadows
    assert (shadow.units, shadow.comparisons[0].units) == (4, 3)


async def test_runs_beside_which_nothing_was_recorded_are_compared_with_nothing(lab: Lab) -> None:
    await experiment_with_shadow(lab)
    for _, (run,) in await in_shadow(lab, 4):
        await run.record(False, 2.0)
    (shadow,) = (await lab.shadow_report("reply")).shadows
    assert (shadow.runs, shadow.success_rate, shadow.comparisons) == (4, 0.0, ())
    assert shadow.failures == {"": 4}
    with pytest.raises(NotFoundError):
        await lab.shadow_report("nobody")


async def test_two_shadows_are_told_apart() -> None:
    async with promptab.open("sqlite:///:memory:") as lab:
        for number in ("1.0.0", "2.0.0", "3.0.0"):
            await lab.versions.create_version("reply", "system", "Hi.", version=number)
        await lab.experiments.create_experiment(
            "reply",
            "system",
            [{"version": "1.0.0"}, {"version": "2.0.0", "shadow": 0.5}, {"version": "3.0.0", "shadow": 0.5}],
        )
        both = 0
        for choice, beside in await in_shadow(lab, 200):
            await choice.record(True)
            both += len(beside) == 2
            await asyncio.gather(*(run.record(run.variant == "2.0.0") for run in beside))
        two, three = (await lab.shadow_report("reply")).shadows
        assert (two.variant, two.success_rate) == ("2.0.0", 1.0)
        assert (three.variant, three.success_rate) == ("3.0.0", 0.0)
        # of two halves that have nothing to do with one another, a quarter is in both
        assert 25 < both < 75
