"""Two arms over epochs: how epochs are weighed, what an arm without variation says, and what must not matter."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from promptab.stats.contrast import ArmMean, Contrast, Stratum, combined, over_common_epochs
from promptab.stats.ratio import ratio_contrast
from tests.arms import effect, one_event_each, seeds

values = st.floats(-1e6, 1e6, allow_subnormal=False)
spreads = st.floats(1e-3, 1e6)
units = st.integers(2, 10_000)
varied_arms = st.tuples(values, spreads, units).map(lambda numbers: ArmMean(*numbers))
constant_arms = st.tuples(values, units).map(lambda numbers: ArmMean(numbers[0], 0.0, numbers[1]))
some_arms = varied_arms | constant_arms
pairs = st.lists(st.tuples(some_arms, some_arms), min_size=1, max_size=4)


def strata_of(arms: list[tuple[ArmMean, ArmMean]]) -> list[Stratum]:
    return [Stratum(epoch, treatment, control) for epoch, (treatment, control) in enumerate(arms)]


def numbers(contrast: Contrast) -> tuple[float | None, ...]:
    return contrast.value, contrast.se, contrast.df, contrast.exact_p


def assert_same(actual: float | None, expected: float | None) -> None:
    """Agree to rounding, or be unknown alike."""
    assert (actual is None) == (expected is None)
    if expected is not None:
        assert actual == pytest.approx(expected, rel=1e-9)


def test_epochs_combine_by_their_units_with_satterthwaite_over_all_arms() -> None:
    generator = np.random.default_rng(4)
    sizes = {0: (30, 12), 5: (8, 50)}
    outcomes = {
        epoch: tuple(generator.normal(1.0, 1.0 + arm, size) for arm, size in enumerate(pair))
        for epoch, pair in sizes.items()
    }
    weights = {0: 42 / 100, 5: 58 / 100}
    expected = sum(weights[epoch] * (t.mean() - c.mean()) for epoch, (t, c) in outcomes.items())
    parts = [
        (weights[epoch] ** 2 * arm.var(ddof=1) / len(arm), len(arm) - 1)
        for epoch, pair in outcomes.items()
        for arm in pair
    ]
    variance = sum(part for part, _ in parts)
    expected_df = variance**2 / sum(part**2 / df for part, df in parts)
    expected_control = sum(weights[epoch] * c.mean() for epoch, (_, c) in outcomes.items())
    contrast = ratio_contrast(
        {epoch: one_event_each(t) for epoch, (t, _) in outcomes.items()},
        {epoch: one_event_each(c) for epoch, (_, c) in outcomes.items()},
    )
    assert effect(contrast) == pytest.approx(
        (float(expected), math.sqrt(variance), float(expected_df)), rel=1e-12
    )
    assert contrast.control == pytest.approx(float(expected_control), rel=1e-12)
    assert (contrast.units, contrast.epochs, contrast.left_out) == (100, (0, 5), ())


def test_nothing_to_combine_is_unknown() -> None:
    contrast = combined([], (3,))
    assert contrast == Contrast(None, None, None, None, None, None, 0, (), (3,))
    assert (contrast.value, contrast.se) == (None, None)


def test_what_was_left_out_is_handed_on() -> None:
    stratum = Stratum(2, ArmMean(2.0, 0.5, 10), ArmMean(1.0, 0.25, 20))
    contrast = combined([stratum], (0, 7))
    assert (contrast.epochs, contrast.left_out, contrast.units) == ((2,), (0, 7), 30)


@settings(max_examples=50, deadline=None)
@given(pairs)
def test_swapping_the_arms_negates_the_effect_and_keeps_its_variance(
    arms: list[tuple[ArmMean, ArmMean]],
) -> None:
    plain = combined(strata_of(arms))
    mirrored = combined(strata_of([(control, treatment) for treatment, control in arms]))
    assert (mirrored.treatment, mirrored.control) == (plain.control, plain.treatment)
    assert (mirrored.treatment_variance, mirrored.control_variance) == (
        plain.control_variance,
        plain.treatment_variance,
    )
    assert plain.value is not None
    assert mirrored.value == -plain.value
    assert mirrored.se == plain.se
    assert_same(mirrored.df, plain.df)
    assert_same(mirrored.exact_p, plain.exact_p)


@settings(max_examples=50, deadline=None)
@given(pairs)
def test_a_mirrored_metric_has_the_mirrored_effect(arms: list[tuple[ArmMean, ArmMean]]) -> None:
    plain = combined(strata_of(arms))
    mirrored = combined(
        strata_of([(t._replace(value=-t.value), c._replace(value=-c.value)) for t, c in arms])
    )
    assert plain.value is not None
    assert numbers(mirrored) == (-plain.value, plain.se, plain.df, plain.exact_p)


@settings(max_examples=50, deadline=None)
@given(arms=pairs, seed=seeds)
def test_the_order_of_epochs_changes_nothing(arms: list[tuple[ArmMean, ArmMean]], seed: int) -> None:
    strata = strata_of(arms)
    order = np.random.default_rng(seed).permutation(len(strata))
    plain, shuffled = combined(strata), combined([strata[place] for place in order])
    largest = max(abs(arm.value) for pair in arms for arm in pair)
    assert shuffled.value == pytest.approx(plain.value, rel=1e-12, abs=1e-12 * largest)
    for one, other in zip(numbers(shuffled)[1:], numbers(plain)[1:], strict=True):
        assert_same(one, other)
    assert sorted(shuffled.epochs) == sorted(plain.epochs)


@settings(max_examples=50, deadline=None)
@given(arms=pairs, scale=st.sampled_from([-3.0, 1e-9, 0.5, 1e9]))
def test_another_unit_of_measurement_scales_the_effect_and_nothing_else(
    arms: list[tuple[ArmMean, ArmMean]], scale: float
) -> None:
    def scaled(arm: ArmMean) -> ArmMean:
        return arm._replace(value=arm.value * scale, variance=arm.variance * scale**2)

    plain = combined(strata_of(arms))
    other = combined(strata_of([(scaled(t), scaled(c)) for t, c in arms]))
    assert plain.value is not None
    assert plain.se is not None
    largest = max(abs(arm.value) for pair in arms for arm in pair)
    assert other.value == pytest.approx(plain.value * scale, rel=1e-9, abs=1e-12 * largest * abs(scale))
    assert other.se == pytest.approx(plain.se * abs(scale), rel=1e-9)
    assert_same(other.df, plain.df)
    assert_same(other.exact_p, plain.exact_p)


@settings(max_examples=50, deadline=None)
@given(pairs)
def test_the_effect_lies_between_those_of_the_epochs(arms: list[tuple[ArmMean, ArmMean]]) -> None:
    value = combined(strata_of(arms)).value
    single = [treatment.value - control.value for treatment, control in arms]
    slack = 1e-12 * max(abs(arm.value) for pair in arms for arm in pair)
    assert value is not None
    assert min(single) - slack <= value <= max(single) + slack


@settings(max_examples=50, deadline=None)
@given(pairs)
def test_no_degrees_of_freedom_come_from_units_that_did_not_vary(
    arms: list[tuple[ArmMean, ArmMean]],
) -> None:
    measured = [arm.units - 1 for pair in arms for arm in pair if arm.variance > 0.0]
    df = combined(strata_of(arms)).df
    if not measured:
        assert df is None
        return
    assert df is not None
    assert min(measured) * (1 - 1e-12) <= df <= sum(measured) * (1 + 1e-12)


@settings(max_examples=50, deadline=None)
@given(varied_arms, constant_arms)
def test_a_lent_variance_is_that_of_one_unit_of_the_lender(varied: ArmMean, constant: ArmMean) -> None:
    found = effect(combined([Stratum(0, varied, constant)]))
    of_one_unit = varied.variance * varied.units
    assert found.se**2 == pytest.approx(of_one_unit * (1 / varied.units + 1 / constant.units), rel=1e-12)
    assert found.df == pytest.approx(varied.units - 1, rel=1e-12)


def test_an_arm_without_variation_takes_the_unit_variance_of_the_other() -> None:
    constant, varied = [1.0] * 3, [1.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    contrast = ratio_contrast({0: one_event_each(constant)}, {0: one_event_each(varied)})
    found = effect(contrast)
    assert found.value == 0.5
    assert found.se**2 == pytest.approx(np.var(varied, ddof=1) * (1 / 3 + 1 / 6), rel=1e-12)
    assert found.df == pytest.approx(5.0)
    low, high = found.interval()
    assert low < 0.0 < high, "three successes in three units prove nothing"
    mirrored = effect(ratio_contrast({0: one_event_each(varied)}, {0: one_event_each(constant)}))
    assert mirrored.se == found.se
    assert mirrored.interval() == pytest.approx((-high, -low))


@pytest.mark.parametrize(("treated", "untreated"), [(2, 2), (4, 4), (3, 9), (9, 3)])
def test_two_arms_without_variation_are_judged_by_permutation(treated: int, untreated: int) -> None:
    ones, zeros = [1.0] * treated, [0.0] * untreated
    contrast = ratio_contrast({0: one_event_each(ones)}, {0: one_event_each(zeros)})
    assert numbers(contrast)[:3] == (1.0, 0.0, None)
    assert contrast.exact_p == pytest.approx(2 / math.comb(treated + untreated, treated), rel=1e-12)
    enumerated = scipy.stats.permutation_test(
        (ones, zeros), lambda x, y: np.mean(x) - np.mean(y), n_resamples=10_000
    )
    assert contrast.exact_p == pytest.approx(float(enumerated.pvalue), rel=1e-12)


def test_permutation_multiplies_over_epochs_that_agree_and_gives_up_where_they_do_not() -> None:
    ones, zeros = one_event_each([1.0] * 3), one_event_each([0.0] * 3)
    agreeing = ratio_contrast({0: ones, 1: ones, 2: ones}, {0: zeros, 1: zeros, 2: ones})
    assert agreeing.exact_p == pytest.approx(2 / math.comb(6, 3) ** 2, rel=1e-12)
    opposed = ratio_contrast({0: ones, 1: zeros}, {0: zeros, 1: ones})
    assert opposed.exact_p == 1.0


def test_a_difference_within_the_resolution_of_constant_arms_is_none() -> None:
    arms = ArmMean(1.0, 0.0, 8, 1e-6), ArmMean(1.0 + 1e-5, 0.0, 8, 1e-6)
    assert combined([Stratum(0, *arms)]).exact_p == 1.0
    clear = arms[0], arms[1]._replace(value=1.001)
    assert combined([Stratum(0, *clear)]).exact_p == pytest.approx(2 / math.comb(16, 8), rel=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(constant_arms, constant_arms), min_size=1, max_size=5))
def test_an_exact_p_value_is_a_probability(arms: list[tuple[ArmMean, ArmMean]]) -> None:
    contrast = combined(strata_of(arms))
    assert (contrast.se, contrast.df) == (0.0, None)
    assert contrast.exact_p is not None
    assert 0.0 <= contrast.exact_p <= 1.0


def test_an_epoch_without_variation_adds_no_uncertainty_to_one_that_varies() -> None:
    varied = Stratum(0, ArmMean(2.0, 0.5, 10), ArmMean(1.0, 0.25, 10))
    constant = Stratum(1, ArmMean(1.0, 0.0, 40), ArmMean(0.0, 0.0, 40))
    alone, both = effect(combined([varied])), effect(combined([varied, constant]))
    assert both.value == pytest.approx(1.0)
    assert (both.se, both.df) == pytest.approx((alone.se * 0.2, alone.df), rel=1e-12)


@settings(max_examples=50, deadline=None)
@given(pairs, st.sampled_from([math.inf, math.nan]))
def test_a_variance_that_overflows_leaves_the_effect_and_no_error(
    arms: list[tuple[ArmMean, ArmMean]], beyond: float
) -> None:
    (treatment, control), *others = arms
    plain = combined(strata_of(arms))
    overflown = combined(strata_of([(treatment._replace(variance=beyond), control), *others]))
    assert overflown[:2] == plain[:2]
    assert numbers(overflown) == (plain.value, None, None, None)
    assert (overflown.treatment_variance, overflown.control_variance) == (None, None)


def test_means_too_far_apart_for_a_double_have_no_effect() -> None:
    far = combined([Stratum(0, ArmMean(1.5e308, 1.0, 2), ArmMean(-1.5e308, 1.0, 2))])
    assert far == Contrast(1.5e308, -1.5e308, None, None, None, None, 4, (0,), ())
    assert (far.value, far.se) == (None, None)


@settings(max_examples=50, deadline=None)
@given(pairs)
def test_no_nan_comes_out(arms: list[tuple[ArmMean, ArmMean]]) -> None:
    assume(any(arm.variance > 0.0 for pair in arms for arm in pair))
    contrast = combined(strata_of(arms))
    assert all(math.isfinite(number) for number in effect(contrast))
    assert all(number is not None and math.isfinite(number) for number in contrast[:5])


@given(
    seed=st.integers(0, 2**32 - 1),
    epochs=st.lists(st.integers(0, 9), unique=True, min_size=1, max_size=5),
)
def test_two_arms_over_common_epochs_are_those_of_the_contrast(seed: int, epochs: list[int]) -> None:
    generator = np.random.default_rng(seed)

    def arm() -> dict[int, ArmMean]:
        return {
            epoch: ArmMean(generator.normal(), generator.gamma(2.0), int(generator.integers(2, 99)))
            for epoch in epochs
        }

    arms = {"treatment": arm(), "control": arm()}
    found = over_common_epochs(arms)
    contrast = combined([Stratum(e, arms["treatment"][e], arms["control"][e]) for e in epochs])
    for name, mean in found.items():
        assert mean.value == pytest.approx(getattr(contrast, name))
        assert mean.variance == pytest.approx(getattr(contrast, f"{name}_variance"))
    assert sum(mean.units for mean in found.values()) == contrast.units
    assert over_common_epochs({**arms, "late": {max(epochs) + 1: ArmMean(0.0, 1.0, 2)}}) == {}


def test_three_arms_have_the_same_weights_in_the_epochs_that_all_of_them_have() -> None:
    """A base rate of 0 and then of 1: with weights of their own the arms would differ by when their units came."""
    arms = {
        "a": {0: ArmMean(0.0, 0.01, 90), 1: ArmMean(1.0, 0.01, 10), 2: ArmMean(5.0, 0.01, 50)},
        "b": {0: ArmMean(0.0, 0.01, 5), 1: ArmMean(1.0, 0.01, 45)},
        "c": {0: ArmMean(0.0, 0.01, 5), 1: ArmMean(1.0, 0.01, 45), 3: ArmMean(9.0, 0.01, 50)},
    }
    found = over_common_epochs(arms)
    assert [mean.value for mean in found.values()] == pytest.approx([0.5] * 3)
    assert [mean.units for mean in found.values()] == [100, 50, 50]
    assert over_common_epochs({}) == {}
