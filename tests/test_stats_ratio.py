"""The delta method against other roads: cluster-robust regression and scipy's Welch test."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from promptab.stats import Difference, UnitSums, ratio_difference, ratio_estimate

Floats = npt.NDArray[np.float64]
Totals = list[tuple[float, float]]

random_arms = st.integers(min_value=0, max_value=2**32 - 1).map(
    lambda seed: tuple(clustered_totals(np.random.default_rng([seed, arm])) for arm in (0, 1))
)


def clustered_totals(generator: np.random.Generator) -> Totals:
    """Units with 1 to 9 events each, whose mean differs from unit to unit."""
    units = int(generator.integers(3, 40))
    counts = generator.integers(1, 10, units).astype(float)
    means = generator.normal(3.0, 1.0, units)
    return [(float(n), float(n * mean)) for n, mean in zip(counts, means, strict=True)]


def one_event_each(values: list[float] | Floats) -> UnitSums:
    return UnitSums.of([(1.0, float(value)) for value in values])


def cluster_robust_variance(arms: tuple[Totals, Totals]) -> tuple[float, float]:
    """Regress every single event on the arm; return the slope and its sandwich variance with K/(K-1) per arm.

    Each unit's events are spread around its mean: only cluster totals may matter.
    """
    generator = np.random.default_rng(1)
    outcomes: list[Floats] = []
    design: list[Floats] = []
    clusters: list[Floats] = []
    for arm, totals in enumerate(arms):
        for unit, (n, s) in enumerate(totals):
            noise = generator.normal(size=int(n))
            outcomes.append(s / n + noise - noise.mean())
            design.append(np.column_stack([np.ones(int(n)), np.full(int(n), float(arm))]))
            clusters.append(np.full(int(n), float(arm * 1000 + unit)))
    y, x, cluster = np.concatenate(outcomes), np.vstack(design), np.concatenate(clusters)
    bread = np.linalg.inv(x.T @ x)
    beta = bread @ x.T @ y
    variance = 0.0
    for arm, totals in enumerate(arms):
        members = [np.flatnonzero(cluster == arm * 1000 + unit) for unit in range(len(totals))]
        scores = [x[rows].T @ (y[rows] - x[rows] @ beta) for rows in members]
        meat = sum((np.outer(score, score) for score in scores), start=np.zeros((2, 2)))
        variance += len(totals) / (len(totals) - 1) * float((bread @ meat @ bread)[1, 1])
    return float(beta[1]), variance


def known(difference: Difference) -> tuple[float, float, float, float, float, float]:
    """The six numbers of a difference that is known to have them."""
    value, se, low, high, df, p_value = difference[:6]
    assert None not in (value, se, low, high, df, p_value), difference
    assert value is not None
    assert se is not None
    assert low is not None
    assert high is not None
    assert df is not None
    assert p_value is not None
    return value, se, low, high, df, p_value


@settings(max_examples=30, deadline=None)
@given(arms=random_arms)
def test_difference_equals_cluster_robust_regression_over_events(arms: tuple[Totals, Totals]) -> None:
    control, treatment = arms
    slope, variance = cluster_robust_variance((control, treatment))
    value, se, *_ = known(ratio_difference({0: UnitSums.of(treatment)}, {0: UnitSums.of(control)}))
    assert value == pytest.approx(slope, rel=1e-10, abs=1e-10)
    assert se**2 == pytest.approx(variance, rel=1e-10)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(min_value=0, max_value=2**32 - 1),
    units=st.tuples(st.integers(2, 60), st.integers(2, 60)),
    confidence=st.sampled_from([0.8, 0.95, 0.999]),
)
def test_difference_is_the_welch_test_when_every_unit_has_one_event(
    seed: int, units: tuple[int, int], confidence: float
) -> None:
    generator = np.random.default_rng(seed)
    treatment, control = generator.normal(1.0, 2.0, units[0]), generator.normal(0.5, 0.3, units[1])
    welch = scipy.stats.ttest_ind(treatment, control, equal_var=False)
    interval = welch.confidence_interval(confidence)
    _, _, low, high, df, p_value = known(
        ratio_difference({0: one_event_each(treatment)}, {0: one_event_each(control)}, confidence=confidence)
    )
    assert df == pytest.approx(float(welch.df), rel=1e-10)
    assert p_value == pytest.approx(float(welch.pvalue), rel=1e-9)
    assert (low, high) == pytest.approx((float(interval.low), float(interval.high)), rel=1e-9, abs=1e-9)


def test_estimate_is_the_t_interval_of_the_mean_when_every_unit_has_one_event() -> None:
    values = np.random.default_rng(8).normal(5.0, 2.0, 40)
    expected = scipy.stats.t.interval(0.9, 39, loc=values.mean(), scale=scipy.stats.sem(values))
    estimate = ratio_estimate(one_event_each(values), confidence=0.9)
    assert (estimate.low, estimate.high) == pytest.approx((float(expected[0]), float(expected[1])), rel=1e-12)
    assert (estimate.units, estimate.events, estimate.df) == (40, 40.0, 39)


def test_epochs_combine_by_their_units_with_satterthwaite_over_all_arms() -> None:
    generator = np.random.default_rng(4)
    sizes = {0: (30, 12), 5: (8, 50)}
    values = {
        epoch: tuple(generator.normal(1.0, 1.0 + arm, size) for arm, size in enumerate(pair))
        for epoch, pair in sizes.items()
    }
    weights = {0: 42 / 100, 5: 58 / 100}
    expected = sum(weights[epoch] * (t.mean() - c.mean()) for epoch, (t, c) in values.items())
    parts = [
        (weights[epoch] ** 2 * arm.var(ddof=1) / len(arm), len(arm) - 1)
        for epoch, pair in values.items()
        for arm in pair
    ]
    variance = sum(part for part, _ in parts)
    expected_df = variance**2 / sum(part**2 / df for part, df in parts)
    expected_baseline = sum(weights[epoch] * c.mean() for epoch, (_, c) in values.items())
    difference = ratio_difference(
        {epoch: one_event_each(t) for epoch, (t, _) in values.items()},
        {epoch: one_event_each(c) for epoch, (_, c) in values.items()},
    )
    value, se, _, _, df, _ = known(difference)
    assert (value, se, df) == pytest.approx(
        (float(expected), math.sqrt(variance), float(expected_df)), rel=1e-12
    )
    assert difference.baseline == pytest.approx(float(expected_baseline), rel=1e-12)
    assert (difference.units, difference.epochs, difference.left_out) == (100, (0, 5), ())


def test_an_epoch_with_less_than_two_units_in_an_arm_is_left_out_and_said() -> None:
    arm = UnitSums.of([(1, 1), (2, 1), (1, 0)])
    single = UnitSums.of([(5, 5)])
    whole = ratio_difference({1: arm}, {1: arm})
    difference = ratio_difference({1: arm, 2: single, 3: arm}, {0: UnitSums(), 1: arm, 2: arm})
    assert difference == whole._replace(left_out=(2, 3))


def test_difference_of_no_usable_epoch_is_unknown() -> None:
    difference = ratio_difference({0: UnitSums.of([(1, 1)])}, {})
    assert difference == Difference(None, None, None, None, None, None, None, 0, (), (0,))


def test_estimate_of_no_units_has_no_value() -> None:
    assert ratio_estimate(UnitSums()) == (None, None, None, None, 0, 0.0, None)


def test_estimate_of_one_unit_has_a_value_and_no_error() -> None:
    assert ratio_estimate(UnitSums.of([(4, 3)])) == (0.75, None, None, None, 1, 4, None)


@pytest.mark.parametrize("center", [0.0, 0.7, 1.0], ids="center {}".format)
def test_estimate_without_variation_has_no_interval(center: float) -> None:
    estimate = ratio_estimate(UnitSums.of([(n, float(n)) for n in (1, 2, 3, 7)], center=center))
    assert estimate == (1.0, 0.0, None, None, 4, 13, None)


def test_an_arm_without_variation_takes_the_unit_variance_of_the_other() -> None:
    constant, varied = [1.0] * 3, [1.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    difference = ratio_difference({0: one_event_each(constant)}, {0: one_event_each(varied)})
    value, se, low, high, df, _ = known(difference)
    assert value == 0.5
    assert se**2 == pytest.approx(np.var(varied, ddof=1) * (1 / 3 + 1 / 6), rel=1e-12)
    assert df == pytest.approx(5.0)
    assert low < 0.0 < high, "three successes in three units prove nothing"
    mirrored = ratio_difference({0: one_event_each(varied)}, {0: one_event_each(constant)})
    assert known(mirrored)[1:2] == (se,)
    assert (mirrored.low, mirrored.high) == pytest.approx((-high, -low))


@pytest.mark.parametrize(("treated", "untreated"), [(2, 2), (4, 4), (3, 9)])
def test_two_arms_without_variation_are_judged_by_permutation(treated: int, untreated: int) -> None:
    difference = ratio_difference(
        {0: one_event_each([1.0] * treated)}, {0: one_event_each([0.0] * untreated)}
    )
    assert difference[:5] == (1.0, 0.0, None, None, None)
    assert difference.p_value == pytest.approx(2 / math.comb(treated + untreated, treated), rel=1e-12)


def test_permutation_multiplies_over_epochs_that_agree_and_gives_up_where_they_do_not() -> None:
    ones, zeros = one_event_each([1.0] * 3), one_event_each([0.0] * 3)
    agreeing = ratio_difference({0: ones, 1: ones, 2: ones}, {0: zeros, 1: zeros, 2: ones})
    assert agreeing.p_value == pytest.approx(2 / math.comb(6, 3) ** 2, rel=1e-12)
    opposed = ratio_difference({0: ones, 1: zeros}, {0: zeros, 1: ones})
    assert opposed.p_value == 1.0


def test_equal_arms_without_variation_do_not_differ() -> None:
    # 0.1 is no exact double: sums of different lengths leave rounding dust, which is no difference
    arms = []
    for units in (1_000, 10_000):
        one = UnitSums.of([(1, 0.1)], center=0.3)
        total = one
        for _ in range(units - 1):
            total += one
        arms.append(total)
    difference = ratio_difference({0: arms[0]}, {0: arms[1]})
    assert difference.value != 0.0, "there is no dust to be overlooked"
    assert difference.value == pytest.approx(0.0, abs=1e-12)
    assert difference.p_value == 1.0


def test_spread_lost_to_a_far_center_is_not_taken_for_certainty() -> None:
    generator = np.random.default_rng(6)
    values = [generator.normal(1e9, 1.0, 200) for _ in range(2)]
    lost, kept = (
        ratio_difference(*({0: UnitSums.of([(1, float(v)) for v in arm], center=center)} for arm in values))
        for center in (0.0, 1e9)
    )
    assert kept.p_value is not None
    assert kept.p_value < 1.0
    assert (lost.p_value, lost.low, lost.high) == (1.0, None, None)


def test_a_huge_mean_hides_no_spread() -> None:
    generator = np.random.default_rng(5)
    offsets = [generator.normal(0.0, 0.01, 400), generator.normal(0.002, 0.01, 300)]
    # what doubles near 1e9 can hold of the offsets is what the plain computation gets as well
    shifted = [1e9 + offset for offset in offsets]
    kept = [values - 1e9 for values in shifted]
    near, far = (
        ratio_difference(
            {0: UnitSums.of([(1, float(v)) for v in treatment], center=center)},
            {0: UnitSums.of([(1, float(v)) for v in control], center=center)},
        )
        for (control, treatment), center in ((kept, 0.0), (shifted, 1e9))
    )
    value, se, low, high, df, p_value = known(far)
    # the ratio itself is a double near 1e9, so it is known to about 1e-7; the spread to far better than that
    assert (value, low, high) == pytest.approx(known(near)[:1] + known(near)[2:4], abs=5e-7)
    assert (se, df) == pytest.approx((known(near)[1], known(near)[4]), rel=1e-6)
    assert p_value == pytest.approx(known(near)[5], rel=1e-2)


@settings(max_examples=30, deadline=None)
@given(arms=random_arms, shift=st.floats(-1e3, 1e3))
def test_adding_a_constant_to_every_event_changes_no_difference(
    arms: tuple[Totals, Totals], shift: float
) -> None:
    control, treatment = arms
    plain = known(ratio_difference({0: UnitSums.of(treatment)}, {0: UnitSums.of(control)}))
    moved = known(
        ratio_difference(
            {0: UnitSums.of([(n, s + shift * n) for n, s in treatment])},
            {0: UnitSums.of([(n, s + shift * n) for n, s in control])},
        )
    )
    assert moved == pytest.approx(plain, rel=1e-6, abs=1e-8)


@settings(max_examples=30, deadline=None)
@given(arms=random_arms, scale=st.sampled_from([1e-150, 1e-9, -1.0, 3.0, 1e6, 1e140]))
def test_another_unit_of_measurement_scales_the_interval_and_keeps_p(
    arms: tuple[Totals, Totals], scale: float
) -> None:
    control, treatment = arms
    value, se, low, high, df, p_value = known(
        ratio_difference({0: UnitSums.of(treatment)}, {0: UnitSums.of(control)})
    )
    scaled = known(
        ratio_difference(
            {0: UnitSums.of([(n, s * scale) for n, s in treatment])},
            {0: UnitSums.of([(n, s * scale) for n, s in control])},
        )
    )
    ends = sorted((low * scale, high * scale))
    assert scaled[:4] == pytest.approx(
        (value * scale, se * abs(scale), *ends), rel=1e-8, abs=1e-11 * abs(scale)
    )
    assert scaled[4:] == pytest.approx((df, p_value), rel=1e-8)


@settings(max_examples=30, deadline=None)
@given(arms=random_arms)
def test_swapping_the_arms_mirrors_the_difference(arms: tuple[Totals, Totals]) -> None:
    a, b = (UnitSums.of(arm) for arm in arms)
    value, se, low, high, df, p_value = known(ratio_difference({0: a}, {0: b}))
    assert known(ratio_difference({0: b}, {0: a})) == pytest.approx(
        (-value, se, -high, -low, df, p_value), rel=1e-12
    )


@settings(max_examples=30, deadline=None)
@given(arms=random_arms, center=st.floats(-100.0, 100.0))
def test_the_center_of_the_sums_changes_no_result(arms: tuple[Totals, Totals], center: float) -> None:
    control, treatment = arms
    plain = known(ratio_difference({0: UnitSums.of(treatment)}, {0: UnitSums.of(control)}))
    centered = known(
        ratio_difference({0: UnitSums.of(treatment, center=center)}, {0: UnitSums.of(control, center=center)})
    )
    assert centered == pytest.approx(plain, rel=1e-6, abs=1e-9)


def test_sums_that_overflow_give_a_value_and_no_error() -> None:
    huge = UnitSums.of([(1, 1e200), (1, 2e200), (1, 3e200)])
    assert math.isinf(huge.rr)
    assert ratio_estimate(huge) == (2e200, None, None, None, 3, 3, None)
    difference = ratio_difference({0: huge}, {0: one_event_each([1.0, 2.0, 4.0])})
    assert difference[:6] == (2e200, None, None, None, None, None)
