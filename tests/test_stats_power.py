"""Sample size, power and detectable effect against statsmodels, simulation and each other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from statsmodels.stats.power import TTestIndPower  # type: ignore[import-untyped]
from statsmodels.stats.proportion import (  # type: ignore[import-untyped]
    power_proportions_2indep,
    samplesize_proportions_2indep_onetail,
)

from promptab.errors import InvalidInputError
from promptab.stats.power import (
    Design,
    Mean,
    Measured,
    Proportion,
    Ratio,
    SampleSize,
    achieved_power,
    cuped_factor,
    days_needed,
    detectable_effect,
    guardrail_power,
    sample_size,
)
from promptab.stats.sequential import half_width

rates = st.floats(min_value=0.01, max_value=0.99)
powers = st.floats(min_value=0.5, max_value=0.99)
designs = st.builds(
    Design,
    alpha=st.floats(min_value=0.001, max_value=0.2),
    sides=st.sampled_from([1, 2]),
    direction=st.sampled_from(["increase", "decrease"]),
    allocation=st.floats(min_value=0.1, max_value=10.0),
    sequential=st.booleans(),
    variance_factor=st.floats(min_value=0.1, max_value=10.0),
    margin=st.none(),
    tuning_units=st.none(),
)
measures = st.one_of(
    st.builds(Proportion, rates),
    st.builds(Mean, st.floats(min_value=0.01, max_value=100.0)),
    st.builds(Ratio, st.floats(min_value=0.01, max_value=100.0)),
)


def improvement(measured: Measured, share: float, design: Design) -> float:
    """An effect for the better, of a size that suits what is measured."""
    sign = 1.0 if design.direction == "increase" else -1.0
    if isinstance(measured, Proportion):
        room = 1.0 - measured.baseline if design.direction == "increase" else measured.baseline
        return sign * share * room
    return sign * share * measured.sd


def mirrored(measured: Measured) -> Measured:
    return Proportion(1.0 - measured.baseline) if isinstance(measured, Proportion) else measured


@given(rates, st.floats(0.05, 0.9), powers, st.floats(0.001, 0.2), st.floats(0.2, 5.0))
@settings(deadline=None)
def test_sample_size_of_proportions_matches_statsmodels(
    baseline: float, share: float, power: float, alpha: float, allocation: float
) -> None:
    effect = share * (1.0 - baseline)
    size = sample_size(
        Proportion(baseline), effect, power=power, design=Design(alpha=alpha, sides=1, allocation=allocation)
    )
    assume(min(size.exact, size.exact * allocation) > 2.0)
    # theirs is of the first sample, with ratio units of the second for each; the first has the effect
    expected = samplesize_proportions_2indep_onetail(
        effect, baseline, power, ratio=1.0 / allocation, alpha=alpha, value=0, alternative="larger"
    )
    assert size.exact * allocation == pytest.approx(float(expected), rel=1e-9)


@given(rates, st.floats(-0.9, 0.9), st.integers(5, 100_000), st.floats(0.001, 0.2), st.floats(0.5, 5.0))
@settings(deadline=None)
def test_power_of_proportions_matches_statsmodels(
    baseline: float, share: float, units: int, alpha: float, allocation: float
) -> None:
    effect = share * (1.0 - baseline if share > 0.0 else baseline)
    design = Design(alpha=alpha, sides=1, allocation=allocation)
    power = achieved_power(Proportion(baseline), effect, control_units=units, design=design)
    expected = power_proportions_2indep(
        effect,
        baseline,
        nobs1=units * allocation,
        ratio=1.0 / allocation,
        alpha=alpha,
        alternative="larger",
        return_results=False,
    )
    assert power == pytest.approx(float(expected), abs=1e-9)


@given(
    st.floats(0.02, 2.0),
    st.integers(3, 2_000),
    st.floats(0.001, 0.2),
    st.floats(1.0, 4.0),
    st.sampled_from([1, 2]),
)
@settings(deadline=None)
def test_power_of_means_matches_statsmodels(
    effect: float, units: int, alpha: float, allocation: float, sides: Any
) -> None:
    design = Design(alpha=alpha, sides=sides, allocation=allocation)
    power = achieved_power(Mean(3.0), 3.0 * effect, control_units=units, design=design)
    theirs = TTestIndPower()
    expected = theirs.power(
        effect, units, alpha, ratio=allocation, alternative="two-sided" if sides == 2 else "larger"
    )
    if math.isnan(expected):
        # scipy's noncentral t gives up on the wrong side's tail, which is nothing there
        expected = theirs.power(effect, units, alpha / sides, ratio=allocation, alternative="larger")
    if math.isnan(expected):  # there too, where almost nothing is left to miss
        expected = 1.0
    assert power == pytest.approx(float(expected), abs=1e-9)


@given(measures, st.floats(0.05, 0.9), powers, designs)
@settings(deadline=None)
def test_sample_size_gives_the_power_asked_for_and_its_effect_is_the_detectable_one(
    measured: Measured, share: float, power: float, design: Design
) -> None:
    effect = improvement(measured, share, design)
    size = sample_size(measured, effect, power=power, design=design)
    assert size.power >= power - 1e-9
    assert size.control - 1 < size.exact <= size.control + 1e-6
    assume(min(size.exact, size.exact * design.allocation) > 2.0)
    achieved = achieved_power(measured, effect, control_units=size.exact, design=design)
    assert achieved == pytest.approx(power, abs=1e-9)
    found = detectable_effect(measured, control_units=size.exact, power=power, design=design)
    assert found == pytest.approx(effect, rel=1e-6)


@given(measures, st.floats(0.05, 0.9), st.floats(20.0, 10_000.0), designs)
@settings(deadline=None)
def test_decrease_on_the_mirror_image_has_the_power_of_increase(
    measured: Measured, share: float, units: float, design: Design
) -> None:
    up, down = design._replace(direction="increase"), design._replace(direction="decrease")
    effect = improvement(measured, share, up)
    power = achieved_power(measured, effect, control_units=units, design=up)
    assert achieved_power(mirrored(measured), -effect, control_units=units, design=down) == pytest.approx(
        power, abs=1e-9
    )
    found = detectable_effect(measured, control_units=units, design=up)
    found_down = detectable_effect(mirrored(measured), control_units=units, design=down)
    assert found_down == (None if found is None else pytest.approx(-found, rel=1e-6))
    with_margin = design._replace(sides=1, margin=abs(effect) / 2.0)
    up, down = with_margin._replace(direction="increase"), with_margin._replace(direction="decrease")
    power = achieved_power(measured, effect, control_units=units, design=up)
    assert achieved_power(mirrored(measured), -effect, control_units=units, design=down) == pytest.approx(
        power, abs=1e-9
    )


@given(measures, st.floats(0.05, 0.5), designs)
@settings(deadline=None)
def test_more_units_and_larger_effects_never_lower_the_power(
    measured: Measured, share: float, design: Design
) -> None:
    effects = [improvement(measured, share * factor, design) for factor in (1.0, 1.5)]
    fewer, more = (
        achieved_power(measured, effects[0], control_units=units, design=design) for units in (50.0, 200.0)
    )
    larger = achieved_power(measured, effects[1], control_units=50.0, design=design)
    assert fewer <= more + 1e-12
    # near alpha the variance that is pooled under the null grows faster than a rare event's effect
    assert fewer <= larger + 1e-12 or fewer < 0.5


@given(st.floats(0.01, 10.0), st.floats(0.01, 100.0), st.floats(0.1, 10.0), powers)
@settings(deadline=None)
def test_units_in_proportion_to_the_variance_of_a_unit(
    effect: float, sd: float, factor: float, power: float
) -> None:
    plain = sample_size(Ratio(sd), effect, power=power)
    scaled = sample_size(Ratio(sd), effect, power=power, design=Design(variance_factor=factor))
    assume(min(plain.exact, scaled.exact) > 2.0)
    assert scaled.exact == pytest.approx(plain.exact * factor, rel=1e-9)
    with_sd = sample_size(Ratio(sd * math.sqrt(factor)), effect, power=power)
    assert with_sd.exact == pytest.approx(scaled.exact, rel=1e-9)


def test_many_units_make_student_s_t_the_normal() -> None:
    design = Design(alpha=0.01, allocation=2.0)
    by_t, by_z = (sample_size(kind(1.0), 0.001, design=design).exact for kind in (Mean, Ratio))
    assert by_t == pytest.approx(by_z, rel=1e-6)


def test_power_without_an_effect_is_the_error_that_is_allowed() -> None:
    assert achieved_power(Mean(2.0), 0.0, control_units=7) == pytest.approx(0.05)
    one_side = Design(sides=1)
    for measured in (Mean(2.0), Ratio(2.0), Proportion(0.3)):
        assert achieved_power(measured, 0.0, control_units=40, design=one_side) == pytest.approx(0.05)


def test_an_effect_on_the_wrong_side_of_one_side_is_hardly_ever_found() -> None:
    design = Design(sides=1)
    for measured in (Mean(1.0), Ratio(1.0), Proportion(0.5)):
        assert achieved_power(measured, -0.2, control_units=200, design=design) < 1e-3
    assert achieved_power(Mean(1e-6), -1.0, control_units=200, design=design) == 0.0


def test_non_inferiority_of_means_is_found_as_often_as_simulated() -> None:
    design = Design(alpha=0.05, sides=1, margin=0.5, direction="decrease")
    size = sample_size(Mean(1.0), 0.1, power=0.8, design=design)
    generator = np.random.default_rng(5)
    treatment = generator.normal(0.1, 1.0, (4_000, size.treatment))
    control = generator.normal(0.0, 1.0, (4_000, size.control))
    pooled = (treatment.var(axis=1, ddof=1) + control.var(axis=1, ddof=1)) / 2.0
    upper = treatment.mean(axis=1) - control.mean(axis=1) + 1.6548 * np.sqrt(2.0 * pooled / size.control)
    # 1.6548 is t at 0.95 with 154 degrees of freedom
    assert size.total - 2 == 154
    assert np.mean(upper < 0.5) == pytest.approx(size.power, abs=0.02)


def test_pooled_proportions_are_found_as_often_as_simulated() -> None:
    size = sample_size(Proportion(0.2), 0.1, power=0.8, design=Design(allocation=2.0))
    assert size.treatment == pytest.approx(2 * size.control, abs=1)
    generator = np.random.default_rng(6)
    control = generator.binomial(size.control, 0.2, 40_000) / size.control
    treatment = generator.binomial(size.treatment, 0.3, 40_000) / size.treatment
    pooled = (control * size.control + treatment * size.treatment) / size.total
    se = np.sqrt(pooled * (1.0 - pooled) * (1.0 / size.control + 1.0 / size.treatment))
    assert np.mean(treatment - control > 1.959964 * se) == pytest.approx(0.8, abs=0.01)


def test_sequential_power_is_the_chance_that_the_sequence_clears_the_null_at_that_look() -> None:
    design = Design(sequential=True, sides=1, tuning_units=3_000.0, margin=0.02, direction="decrease")
    power = achieved_power(Ratio(1.0), 0.01, control_units=8_000, design=design)
    se = math.sqrt(2.0 / 8_000)
    half = half_width(se, 16_000, tuning_units=3_000.0, alpha=0.05, one_sided=True)
    effects = np.random.default_rng(7).normal(0.01, se, 200_000)
    assert power == pytest.approx(float(np.mean(effects + half < 0.02)), abs=0.005)


def test_guardrails_that_share_the_missed_power_pass_together() -> None:
    assert guardrail_power(0.8, 1) == pytest.approx(0.8)
    assert guardrail_power(0.8, 4) == pytest.approx(0.95)
    assert 4 * (1 - guardrail_power(0.8, 4)) == pytest.approx(0.2)


def test_cuped_saves_the_square_of_the_correlation() -> None:
    assert cuped_factor(0.0) == 1.0
    assert cuped_factor(0.5) == cuped_factor(-0.5) == 0.75
    plain = sample_size(Proportion(0.15), 0.015)
    saved = sample_size(Proportion(0.15), 0.015, design=Design(variance_factor=cuped_factor(0.5)))
    assert saved.exact == pytest.approx(0.75 * plain.exact)


@pytest.mark.parametrize(
    ("arguments", "days"),
    [
        ({"units_per_day": 200}, 10),
        ({"units_per_day": 199}, 11),
        ({"units_per_day": 200, "traffic": 0.1}, 100),
        ({"units_per_day": 200, "control_share": 0.9, "treatment_share": 0.1}, 50),
        ({"units_per_day": 200, "control_share": 0.2, "treatment_share": 0.2}, 25),
        ({"units_per_day": 1e9}, 1),
    ],
)
def test_days_are_those_of_the_slower_arm(arguments: dict[str, float], days: int) -> None:
    size = SampleSize(exact=1_000.0, control=1_000, treatment=1_000, effect=0.1, power=0.8)
    assert days_needed(size, **arguments) == days


def test_a_tiny_number_of_units_finds_no_change_of_a_high_rate() -> None:
    assert detectable_effect(Proportion(0.9), control_units=5) is None
    assert (
        detectable_effect(Proportion(0.9), control_units=5, design=Design(direction="decrease")) is not None
    )


def test_detectable_effect_with_a_margin_is_the_largest_loss_still_shown_to_be_small() -> None:
    design = Design(sides=1, margin=0.05)
    effect = detectable_effect(Proportion(0.8), control_units=20_000, design=design)
    assert effect is not None
    assert -0.05 < effect < 0.0
    again = sample_size(Proportion(0.8), effect, design=design)
    assert again.exact == pytest.approx(20_000, rel=1e-6)


def test_a_rate_below_its_own_margin_is_non_inferior_whatever_it_does() -> None:
    effect = detectable_effect(
        Proportion(0.05), control_units=10_000, design=Design(sides=1, margin=0.2, alpha=0.05)
    )
    assert effect == pytest.approx(-0.05)


def test_huge_effects_take_two_units_in_each_arm() -> None:
    for measured in (Mean(1.0), Ratio(1.0)):
        assert sample_size(measured, 1e9)[:3] == (2.0, 2, 2)
    lopsided = sample_size(Ratio(1.0), 1e9, design=Design(allocation=0.01))
    assert (lopsided.control, lopsided.treatment) == (200, 2)


@pytest.mark.parametrize("alpha", [1e-9, 0.05, 0.499])
@pytest.mark.parametrize("effect", [1e18, 1e-5])
@pytest.mark.parametrize("sides", [1, 2])
def test_extreme_designs_give_finite_numbers(alpha: float, effect: float, sides: Any) -> None:
    for measured in (Mean(1.0), Ratio(1.0)):
        for sequential in (False, True):
            design = Design(alpha=alpha, sides=sides, sequential=sequential)
            size = sample_size(measured, effect, power=0.9, design=design)
            assert math.isfinite(size.exact)
            assert size.power >= 0.9 - 1e-9


def refusals() -> list[tuple[str, Any]]:
    size = SampleSize(10.0, 10, 10, 0.1, 0.8)
    rate = Proportion(0.15)
    return [
        ("effect", lambda: sample_size(rate, 0.0)),
        ("effect", lambda: sample_size(rate, 0.9)),
        ("effect", lambda: sample_size(rate, -0.15)),
        ("effect", lambda: sample_size(rate, math.nan)),
        ("effect", lambda: sample_size(rate, -0.01, design=Design(sides=1))),
        ("effect", lambda: sample_size(rate, 0.01, design=Design(sides=1, direction="decrease"))),
        ("effect", lambda: sample_size(rate, -0.02, design=Design(sides=1, margin=0.01))),
        ("effect", lambda: sample_size(Mean(1.0), 1e-9)),
        ("effect", lambda: achieved_power(rate, 0.85, control_units=10)),
        ("baseline", lambda: sample_size(Proportion(0.0), 0.1)),
        ("baseline", lambda: detectable_effect(Proportion(1.0), control_units=10)),
        ("baseline", lambda: sample_size(Proportion(15.0), 0.1)),
        ("sd", lambda: sample_size(Mean(0.0), 0.1)),
        ("sd", lambda: sample_size(Ratio(math.inf), 0.1)),
        ("power", lambda: sample_size(rate, 0.1, power=1.0)),
        ("power", lambda: sample_size(rate, 0.1, power=0.04)),
        ("power", lambda: guardrail_power(0.0, 2)),
        ("guardrails", lambda: guardrail_power(0.8, 0)),
        ("alpha", lambda: sample_size(rate, 0.1, design=Design(alpha=0.0))),
        ("alpha", lambda: sample_size(rate, 0.1, design=Design(alpha=0.5))),
        ("sides", lambda: sample_size(rate, 0.1, design=Design(margin=0.01))),
        ("sides", lambda: sample_size(rate, 0.1, design=Design(sides=3))),  # type: ignore[arg-type]
        ("margin", lambda: sample_size(rate, 0.1, design=Design(sides=1, margin=-0.1))),
        ("allocation", lambda: sample_size(rate, 0.1, design=Design(allocation=0.0))),
        ("variance_factor", lambda: sample_size(rate, 0.1, design=Design(variance_factor=0.0))),
        ("tuning_units", lambda: sample_size(rate, 0.1, design=Design(sequential=True, tuning_units=0.0))),
        ("control_units", lambda: achieved_power(rate, 0.1, control_units=1)),
        ("control_units", lambda: detectable_effect(rate, control_units=19, design=Design(allocation=0.1))),
        ("correlation", lambda: cuped_factor(1.0)),
        ("units_per_day", lambda: days_needed(size, units_per_day=0.0)),
        ("traffic", lambda: days_needed(size, units_per_day=10, traffic=1.5)),
        ("control_share", lambda: days_needed(size, units_per_day=10, control_share=0.0)),
        ("treatment_share", lambda: days_needed(size, units_per_day=10, treatment_share=0.6)),
    ]


@pytest.mark.parametrize(("field", "call"), refusals())
def test_impossible_plans_are_refused_by_name(field: str, call: Any) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        call()
    assert refusal.value.field == field


def test_a_relative_effect_is_named_as_the_likely_mistake() -> None:
    with pytest.raises(InvalidInputError, match="multiplied by the baseline"):
        sample_size(Proportion(0.95), 0.1)
