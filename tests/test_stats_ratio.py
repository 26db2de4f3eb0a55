"""The delta method against other roads: cluster-robust regression, scipy's Welch test, tea-tasting."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import scipy.stats
import statsmodels.api as sm  # type: ignore[import-untyped]
import tea_tasting as tt  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from promptab.stats.contrast import ArmMean, Contrast
from promptab.stats.fixed import t_interval
from promptab.stats.ratio import rate_variance, ratio_contrast, ratio_mean
from promptab.stats.summary import UnitSums
from tests.arms import Totals, effect, one_event_each, random_arms, seeds, tea_aggregates

Floats = npt.NDArray[np.float64]


def contrast_of(treatment: Totals, control: Totals) -> Contrast:
    return ratio_contrast({0: UnitSums.of(treatment)}, {0: UnitSums.of(control)})


def events_of(arm: Totals, *, first_cluster: int) -> tuple[Floats, Floats]:
    """Return every single event and the number of its unit.

    A unit's events are spread around its mean: only its totals may matter.
    """
    generator = np.random.default_rng(1)
    outcomes, clusters = [], []
    for unit, (n, s) in enumerate(arm):
        noise = generator.normal(size=int(n))
        outcomes.append(s / n + noise - noise.mean())
        clusters.append(np.full(int(n), float(first_cluster + unit)))
    return np.concatenate(outcomes), np.concatenate(clusters)


@settings(max_examples=30, deadline=None)
@given(arms=random_arms)
def test_a_contrast_equals_cluster_robust_regression_over_events(arms: tuple[Totals, Totals]) -> None:
    treatment, control = arms
    y_t, units_t = events_of(treatment, first_cluster=0)
    y_c, units_c = events_of(control, first_cluster=len(treatment))
    design = np.zeros((len(y_t) + len(y_c), 2))
    design[: len(y_t), 0] = design[len(y_t) :, 1] = 1.0
    fit = sm.OLS(np.concatenate([y_t, y_c]), design).fit(
        cov_type="cluster",
        cov_kwds={"groups": np.concatenate([units_t, units_c]), "use_correction": False},
    )
    expected = [fit.cov_params()[i, i] * len(arm) / (len(arm) - 1) for i, arm in enumerate(arms)]
    contrast = contrast_of(treatment, control)
    assert (contrast.treatment, contrast.control) == pytest.approx(tuple(fit.params), rel=1e-10)
    assert (contrast.treatment_variance, contrast.control_variance) == pytest.approx(expected, rel=1e-9)
    found = effect(contrast)
    assert found.value == pytest.approx(float(fit.params[0] - fit.params[1]), rel=1e-9, abs=1e-10)
    assert found.se**2 == pytest.approx(sum(expected), rel=1e-9)


@settings(max_examples=50, deadline=None)
@given(
    seed=seeds,
    units=st.tuples(st.integers(2, 60), st.integers(2, 60)),
    confidence=st.sampled_from([0.8, 0.95, 0.999]),
)
def test_a_contrast_is_the_welch_test_when_every_unit_has_one_event(
    seed: int, units: tuple[int, int], confidence: float
) -> None:
    generator = np.random.default_rng(seed)
    treatment, control = generator.normal(1.0, 2.0, units[0]), generator.normal(0.5, 0.3, units[1])
    welch = scipy.stats.ttest_ind(treatment, control, equal_var=False)
    interval = welch.confidence_interval(confidence)
    found = effect(ratio_contrast({0: one_event_each(treatment)}, {0: one_event_each(control)}))
    assert found.df == pytest.approx(float(welch.df), rel=1e-10)
    assert found.p_value == pytest.approx(float(welch.pvalue), rel=1e-9)
    assert found.interval(confidence) == pytest.approx(
        (float(interval.low), float(interval.high)), rel=1e-9, abs=1e-9
    )


@settings(max_examples=30, deadline=None)
@given(arms=random_arms, confidence=st.sampled_from([0.8, 0.95, 0.999]))
def test_a_contrast_agrees_with_tea_tasting(arms: tuple[Totals, Totals], confidence: float) -> None:
    treatment, control = arms
    theirs = tt.RatioOfMeans("s", "n", confidence_level=confidence).analyze_aggregates(
        tea_aggregates(control), tea_aggregates(treatment)
    )
    found = effect(contrast_of(treatment, control))
    assert found.value == pytest.approx(theirs.effect_size, rel=1e-9, abs=1e-10)
    assert found.value / found.se == pytest.approx(theirs.statistic, rel=1e-8, abs=1e-10)
    assert found.p_value == pytest.approx(theirs.pvalue, rel=1e-8)
    assert found.interval(confidence) == pytest.approx(
        (theirs.effect_size_ci_lower, theirs.effect_size_ci_upper), rel=1e-8, abs=1e-9
    )


def test_a_mean_has_the_t_interval_of_its_units_when_each_has_one_event() -> None:
    values = np.random.default_rng(8).normal(5.0, 2.0, 40)
    expected = scipy.stats.t.interval(0.9, 39, loc=values.mean(), scale=scipy.stats.sem(values))
    mean = ratio_mean(one_event_each(values))
    assert mean is not None
    interval = t_interval(mean.value, math.sqrt(mean.variance), mean.units - 1, confidence=0.9)
    assert interval == pytest.approx((float(expected[0]), float(expected[1])), rel=1e-12)
    assert mean.units == 40


@pytest.mark.parametrize(
    "totals", [[], [(4.0, 3.0)], [(0.0, 0.0), (4.0, 3.0)]], ids=["none", "one", "one with events"]
)
def test_fewer_than_two_units_have_no_mean(totals: Totals) -> None:
    assert ratio_mean(UnitSums.of(totals)) is None


def test_units_whose_denominators_add_up_to_nothing_have_no_ratio() -> None:
    costs_without_success = UnitSums.of([(0.0, 2.0), (0.0, 5.0), (0.0, 1.0)])
    assert costs_without_success.units == 3
    assert ratio_mean(costs_without_success) is None
    contrast = ratio_contrast({0: costs_without_success}, {0: one_event_each([1.0, 2.0])})
    assert (contrast.value, contrast.se, contrast.left_out) == (None, None, (0,))


def test_a_unit_without_denominator_counts_in_a_ratio() -> None:
    totals: Totals = [(2.0, 3.0), (0.0, 4.0), (1.0, 2.0)]
    mean = ratio_mean(UnitSums.of(totals))
    assert mean is not None
    residuals = [s - 3.0 * n for n, s in totals]
    assert (mean.value, mean.units) == (3.0, 3)
    assert mean.variance == pytest.approx(3 / 2 * sum(r * r for r in residuals) / 3.0**2, rel=1e-12)


@pytest.mark.parametrize("center", [0.0, 0.7, 1.0], ids="center {}".format)
def test_the_variance_of_units_that_are_alike_is_exactly_zero(center: float) -> None:
    mean = ratio_mean(UnitSums.of([(n, float(n)) for n in (1, 2, 3, 7)], center=center))
    assert mean is not None
    assert (mean.value, mean.variance, mean.units) == (1.0, 0.0, 4)
    assert 0.0 <= mean.resolution < 1e-5


def test_an_epoch_with_less_than_two_units_in_an_arm_is_left_out_and_said() -> None:
    arm = UnitSums.of([(1, 1), (2, 1), (1, 0)])
    single = UnitSums.of([(5, 5)])
    whole = ratio_contrast({1: arm}, {1: arm})
    contrast = ratio_contrast({1: arm, 2: single, 3: arm}, {0: UnitSums(), 1: arm, 2: arm})
    assert contrast == whole._replace(left_out=(2, 3))


def test_the_contrast_of_no_usable_epoch_is_unknown() -> None:
    contrast = ratio_contrast({0: UnitSums.of([(1, 1)])}, {})
    assert contrast == Contrast(None, None, None, None, None, None, 0, (), (0,))
    assert (contrast.value, contrast.se) == (None, None)


def test_equal_arms_without_variation_do_not_differ() -> None:
    # 0.1 is no exact double: sums of different lengths leave rounding dust, which is no difference
    arms = []
    for units in (1_000, 10_000):
        one = UnitSums.of([(1, 0.1)], center=0.3)
        total = one
        for _ in range(units - 1):
            total += one
        arms.append(total)
    contrast = ratio_contrast({0: arms[0]}, {0: arms[1]})
    assert contrast.value != 0.0, "there is no dust to be overlooked"
    assert contrast.value == pytest.approx(0.0, abs=1e-12)
    assert contrast.exact_p == 1.0


def test_equal_arms_of_negative_denominators_do_not_differ() -> None:
    arm = UnitSums.of([(-1.0, -2.0)] * 5)
    contrast = ratio_contrast({0: arm}, {0: arm})
    assert (contrast.value, contrast.exact_p) == (0.0, 1.0)


def test_spread_lost_to_a_far_center_is_not_taken_for_certainty() -> None:
    generator = np.random.default_rng(6)
    values = [generator.normal(1e9, 1.0, 200) for _ in range(2)]
    lost, kept = (
        ratio_contrast(*({0: UnitSums.of([(1, float(v)) for v in arm], center=center)} for arm in values))
        for center in (0.0, 1e9)
    )
    assert effect(kept).p_value < 1.0
    assert (lost.exact_p, lost.se, lost.df) == (1.0, 0.0, None)


def test_a_huge_mean_hides_no_spread() -> None:
    generator = np.random.default_rng(5)
    offsets = [generator.normal(0.0, 0.01, 400), generator.normal(0.002, 0.01, 300)]
    # what doubles near 1e9 can hold of the offsets is what the plain computation gets as well
    shifted = [1e9 + offset for offset in offsets]
    kept = [values - 1e9 for values in shifted]
    near, far = (
        effect(
            ratio_contrast(
                {0: UnitSums.of([(1, float(v)) for v in treatment], center=center)},
                {0: UnitSums.of([(1, float(v)) for v in control], center=center)},
            )
        )
        for (control, treatment), center in ((kept, 0.0), (shifted, 1e9))
    )
    # the ratio itself is a double near 1e9, so it is known to about 1e-7; the spread to far better than that
    assert (far.value, *far.interval()) == pytest.approx((near.value, *near.interval()), abs=5e-7)
    assert (far.se, far.df) == pytest.approx((near.se, near.df), rel=1e-6)
    assert far.p_value == pytest.approx(near.p_value, rel=1e-2)


@settings(max_examples=30, deadline=None)
@given(arms=random_arms, shift=st.floats(-1e3, 1e3))
def test_adding_a_constant_to_every_event_changes_no_contrast(
    arms: tuple[Totals, Totals], shift: float
) -> None:
    treatment, control = arms
    plain = effect(contrast_of(treatment, control))
    moved = effect(contrast_of(*([(n, s + shift * n) for n, s in arm] for arm in arms)))
    assert (*moved, moved.p_value) == pytest.approx((*plain, plain.p_value), rel=1e-6, abs=1e-8)
    assert moved.interval() == pytest.approx(plain.interval(), rel=1e-6, abs=1e-8)


@settings(max_examples=30, deadline=None)
@given(arms=random_arms, scale=st.sampled_from([1e-150, 1e-9, -1.0, 3.0, 1e6, 1e140]))
def test_another_unit_of_measurement_scales_the_interval_and_keeps_p(
    arms: tuple[Totals, Totals], scale: float
) -> None:
    plain = effect(contrast_of(*arms))
    scaled = effect(contrast_of(*([(n, s * scale) for n, s in arm] for arm in arms)))
    ends = sorted(end * scale for end in plain.interval())
    assert (scaled.value, scaled.se, *scaled.interval()) == pytest.approx(
        (plain.value * scale, plain.se * abs(scale), *ends), rel=1e-8, abs=1e-11 * abs(scale)
    )
    assert (scaled.df, scaled.p_value) == pytest.approx((plain.df, plain.p_value), rel=1e-8)


@settings(max_examples=30, deadline=None)
@given(arms=random_arms)
def test_swapping_the_arms_mirrors_the_contrast(arms: tuple[Totals, Totals]) -> None:
    a, b = arms
    plain, mirrored = effect(contrast_of(a, b)), effect(contrast_of(b, a))
    assert (-mirrored.value, mirrored.se, mirrored.df, mirrored.p_value) == pytest.approx(
        (plain.value, plain.se, plain.df, plain.p_value), rel=1e-12
    )
    assert mirrored.interval().mirrored() == pytest.approx(plain.interval(), rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(arms=random_arms, center=st.floats(-100.0, 100.0))
def test_the_center_of_the_sums_changes_no_result(arms: tuple[Totals, Totals], center: float) -> None:
    plain = effect(contrast_of(*arms))
    centered = effect(ratio_contrast(*({0: UnitSums.of(arm, center=center)} for arm in arms)))
    assert (*centered, centered.p_value) == pytest.approx((*plain, plain.p_value), rel=1e-6, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(arms=random_arms, cut=st.integers(0, 40), seed=seeds)
def test_units_summed_in_parts_and_in_any_order_give_the_same_contrast(
    arms: tuple[Totals, Totals], cut: int, seed: int
) -> None:
    def in_parts(arm: Totals) -> UnitSums:
        order = np.random.default_rng(seed).permutation(len(arm))
        shuffled = [arm[place] for place in order]
        return UnitSums.pooled([UnitSums.of(shuffled[:cut]), UnitSums.of(shuffled[cut:])])

    whole = effect(contrast_of(*arms))
    parts = effect(ratio_contrast(*({0: in_parts(arm)} for arm in arms)))
    assert parts == pytest.approx(whole, rel=1e-9, abs=1e-10)


def test_sums_that_overflow_give_a_value_and_no_error() -> None:
    huge = UnitSums.of([(1, 1e200), (1, 2e200), (1, 3e200)])
    assert math.isinf(huge.rr)
    mean = ratio_mean(huge)
    assert mean is not None
    assert mean.value == 2e200
    assert not math.isfinite(mean.variance)
    contrast = ratio_contrast({0: huge}, {0: one_event_each([1.0, 2.0, 4.0])})
    assert contrast == Contrast(2e200, 7 / 3, None, None, None, None, 6, (0,), ())
    assert (contrast.value, contrast.se) == (2e200, None)


def test_an_arm_mean_says_how_many_units_it_is_of() -> None:
    mean = ratio_mean(UnitSums.of([(3, 3), (1, 0), (4, 1)]))
    assert isinstance(mean, ArmMean)
    assert (mean.value, mean.units) == (0.5, 3)


def test_a_rate_is_tested_with_the_variance_that_it_would_have_there_or_its_own_if_that_is_more() -> None:
    rate = ratio_mean(one_event_each([1.0] * 10 + [0.0] * 190))
    assert rate is not None
    assert rate.variance == pytest.approx(0.05 * 0.95 / 199)
    # of independent events it is that of the score test
    assert rate_variance(rate, at=0.2) == pytest.approx(0.2 * 0.8 / 199)
    assert rate_variance(rate, at=0.8) == pytest.approx(0.2 * 0.8 / 199)
    assert rate_variance(rate, at=0.01) == rate.variance
    assert rate_variance(rate, at=0.0) == rate.variance


def test_the_design_effect_of_alike_units_is_kept_where_a_rate_is_tested() -> None:
    alike = ratio_mean(UnitSums.of([(10, 10)] * 10 + [(10, 0)] * 190))
    single = ratio_mean(one_event_each([1.0] * 10 + [0.0] * 190))
    assert alike is not None
    assert single is not None
    assert rate_variance(alike, at=0.2) == pytest.approx(rate_variance(single, at=0.2))


def test_a_rate_that_never_varied_has_no_variance_anywhere() -> None:
    for outcome in (0.0, 1.0):
        rate = ratio_mean(one_event_each([outcome] * 50))
        assert rate is not None
        assert rate_variance(rate, at=0.5) == 0.0
