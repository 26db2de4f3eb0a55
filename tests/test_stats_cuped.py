"""CUPED against published numbers and tea-tasting; and what adjusting must never change."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import tea_tasting as tt  # type: ignore[import-untyped]
import tea_tasting.aggr  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from promptab.errors import InvalidInputError
from promptab.stats.contrast import Contrast
from promptab.stats.covariate_sums import CovariateSums
from promptab.stats.cuped import Adjustment, cuped_contrast
from promptab.stats.fixed import t_p_value
from promptab.stats.ratio import ratio_contrast
from promptab.stats.summary import UnitSums
from tests.oracles import oracle

Totals = list[tuple[float, float, float, float]]

seeds = st.integers(min_value=0, max_value=2**32 - 1)
values = st.floats(min_value=-1e4, max_value=1e4, allow_subnormal=False)
unit_totals = st.tuples(
    st.integers(min_value=1, max_value=30).map(float),
    values,
    st.integers(min_value=0, max_value=30).map(float),
    values,
).map(lambda row: row if row[2] else (row[0], row[1], 0.0, 0.0))
groups = st.lists(unit_totals, max_size=12)
centers = st.floats(min_value=-1e3, max_value=1e3, allow_subnormal=False)


def correlated_totals(generator: np.random.Generator, *, units: int, newcomers: float = 0.2) -> Totals:
    """Units with a level of their own that shows before and after; some have nothing before."""
    level = generator.normal(3.0, 1.0, units)
    n = generator.integers(1, 10, units)
    m = np.where(generator.random(units) < newcomers, 0, generator.integers(1, 10, units))
    s = n * level + generator.normal(0.0, np.sqrt(n))
    x = m * level + generator.normal(0.0, np.sqrt(m))
    return [(float(a), float(b), float(c), float(d)) for a, b, c, d in zip(n, s, m, x, strict=True)]


def two_arms(seed: int, *, units: int = 60) -> tuple[Totals, Totals]:
    generator = np.random.default_rng(seed)
    return correlated_totals(generator, units=units), correlated_totals(generator, units=units // 2)


def adjusted(treatment: Totals, control: Totals) -> Adjustment:
    return cuped_contrast({0: CovariateSums.of(treatment)}, {0: CovariateSums.of(control)})


def unadjusted(treatment: Totals, control: Totals) -> Contrast:
    return ratio_contrast(
        *({0: UnitSums.of([(n, s) for n, s, _, _ in totals])} for totals in (treatment, control))
    )


def effect(contrast: Contrast) -> tuple[float, float, float]:
    value, se, df = contrast.value, contrast.se, contrast.df
    assert value is not None
    assert se is not None
    assert df is not None
    return value, se, df


def sums_from_covariances(arm: dict[str, Any], columns: list[str], names: tuple[str, ...]) -> CovariateSums:
    """Rebuild the sums of (n, s, m, x), whose columns are named, from published means and covariances."""
    where = [columns.index(name) for name in names]
    units, mean = arm["n"], np.array(arm["mean"])[where]
    cross = (units - 1) * np.array(arm["cov"])[np.ix_(where, where)] + units * np.outer(mean, mean)
    raw = CovariateSums(
        units=units,
        with_history=units,
        n=units * mean[0],
        s=units * mean[1],
        m=units * mean[2],
        x=units * mean[3],
        rr=cross[1, 1],
        nn=cross[0, 0],
        rn=cross[1, 0],
        zz=cross[3, 3],
        mm=cross[2, 2],
        zm=cross[3, 2],
        rz=cross[1, 3],
        rm=cross[1, 2],
        nz=cross[0, 3],
        nm=cross[0, 2],
    )
    return raw.recentered(raw.s / raw.n, raw.x / raw.m)


def test_theta_and_the_adjusted_difference_match_the_worked_example() -> None:
    row = oracle("cuped-small")
    inputs, expected, tolerance = row["inputs"], row["expected"], row["tol"]
    arms: tuple[Totals, Totals] = ([], [])
    for pre, post, treat in zip(inputs["pre"], inputs["post"], inputs["treat"], strict=True):
        arms[treat].append((1.0, post, 1.0, pre))
    result = adjusted(arms[1], arms[0])
    assert result.theta == pytest.approx(expected["theta"], abs=tolerance)
    assert result.contrast.value == pytest.approx(expected["diff"], abs=tolerance)
    assert unadjusted(arms[1], arms[0]).value == pytest.approx(expected["raw_diff"], abs=tolerance)
    assert result.units_with_history == 8


def test_adjusted_ratios_match_the_published_comparison() -> None:
    row = oracle("tt-ratio-cuped")
    inputs, expected, tolerance = row["inputs"], row["expected"], row["tol"]
    names = tuple(inputs[key] for key in ("denominator", "value", "covariate_denominator", "covariate"))
    control, treatment = (
        sums_from_covariances(inputs[arm], inputs["columns"], names) for arm in ("control", "treatment")
    )
    contrast = cuped_contrast({0: treatment}, {0: control}).contrast
    value, se, df = effect(contrast)
    assert contrast.control == pytest.approx(expected["control"], abs=tolerance)
    assert contrast.treatment == pytest.approx(expected["treatment"], abs=tolerance)
    assert value / se == pytest.approx(expected["statistic"], abs=tolerance)
    assert t_p_value(value, se, df) == pytest.approx(expected["pvalue"], abs=tolerance)


def tea_aggregates(totals: Totals) -> tea_tasting.aggr.Aggregates:
    names = ("n", "s", "m", "x")
    covariance = np.cov(np.array(totals), rowvar=False)
    return tea_tasting.aggr.Aggregates(
        count_=len(totals),
        mean_=dict(zip(names, np.array(totals).mean(axis=0).tolist(), strict=True)),
        var_=dict(zip(names, np.diag(covariance).tolist(), strict=True)),
        cov_={
            (left, right): float(covariance[i, j])
            for i, left in enumerate(names)
            for j, right in enumerate(names)
            if left < right
        },
    )


@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_adjusted_ratios_match_tea_tasting_on_random_units(seed: int) -> None:
    treatment, control = two_arms(seed)
    theirs = tt.RatioOfMeans("s", "n", "x", "m").analyze_aggregates(
        tea_aggregates(control), tea_aggregates(treatment)
    )
    contrast = adjusted(treatment, control).contrast
    value, se, df = effect(contrast)
    assert contrast.control == pytest.approx(theirs.control, rel=1e-9)
    assert contrast.treatment == pytest.approx(theirs.treatment, rel=1e-9)
    assert value / se == pytest.approx(theirs.statistic, rel=1e-8)
    assert t_p_value(value, se, df) == pytest.approx(theirs.pvalue, rel=1e-7)


@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_adjusted_means_match_tea_tasting_on_random_units(seed: int) -> None:
    arms = [[(1.0, s, 1.0, x) for _, s, _, x in totals] for totals in two_arms(seed)]
    theirs = tt.Mean("s", "x").analyze_aggregates(tea_aggregates(arms[1]), tea_aggregates(arms[0]))
    result = adjusted(arms[0], arms[1])
    value, se, df = effect(result.contrast)
    assert value == pytest.approx(theirs.effect_size, rel=1e-9, abs=1e-12)
    assert t_p_value(value, se, df) == pytest.approx(theirs.pvalue, rel=1e-7)
    pooled = np.array(arms[0] + arms[1])
    assert result.correlation == pytest.approx(np.corrcoef(pooled[:, 1], pooled[:, 3])[0, 1], rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, constant=st.floats(min_value=-1e3, max_value=1e3))
def test_a_constant_added_to_every_covariate_changes_nothing(seed: int, constant: float) -> None:
    arms = two_arms(seed)
    moved = [[(n, s, m, x + constant * m) for n, s, m, x in totals] for totals in arms]
    before, after = adjusted(*arms), adjusted(moved[0], moved[1])
    assert after.theta == pytest.approx(before.theta, rel=1e-7, abs=1e-9)
    assert effect(after.contrast) == pytest.approx(effect(before.contrast), rel=1e-7, abs=1e-9)
    assert after.variance_reduction == pytest.approx(before.variance_reduction, rel=1e-6, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, scale=st.floats(min_value=1e-6, max_value=1e6))
def test_the_scale_of_the_covariate_changes_nothing_but_theta(seed: int, scale: float) -> None:
    arms = two_arms(seed)
    scaled = [[(n, s, m, scale * x) for n, s, m, x in totals] for totals in arms]
    before, after = adjusted(*arms), adjusted(scaled[0], scaled[1])
    assert after.theta * scale == pytest.approx(before.theta, rel=1e-9)
    assert effect(after.contrast) == pytest.approx(effect(before.contrast), rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_the_mirrored_metric_and_swapped_arms_give_the_opposite_difference(seed: int) -> None:
    arms = two_arms(seed)
    mirrored = [[(n, -s, m, -x) for n, s, m, x in totals] for totals in arms]
    here, there = adjusted(*arms), adjusted(mirrored[0], mirrored[1])
    value, se, df = effect(here.contrast)
    assert effect(there.contrast) == pytest.approx((-value, se, df), rel=1e-12)
    assert there.theta == pytest.approx(here.theta, rel=1e-12)
    assert there.correlation == pytest.approx(here.correlation, rel=1e-12)

    assert effect(adjusted(arms[1], arms[0]).contrast) == pytest.approx((-value, se, df), rel=1e-9)


def test_a_telling_past_cuts_the_variance_by_the_squared_correlation() -> None:
    generator = np.random.default_rng(5)
    arms = [correlated_totals(generator, units=4_000, newcomers=0.0) for _ in range(2)]
    result = adjusted(arms[0], arms[1])
    assert result.correlation is not None
    assert result.correlation > 0.6
    assert result.variance_reduction == pytest.approx(result.correlation**2, abs=0.01)


def test_adjusting_keeps_a_real_effect_and_steadies_its_estimate() -> None:
    """300 experiments of 200 units an arm with an effect of 0.3: right on average, steadier than raw."""
    generator = np.random.default_rng(7)
    estimates, raws, ses = [], [], []
    for _ in range(300):
        arms = [correlated_totals(generator, units=200) for _ in range(2)]
        treated = [(n, s + 0.3 * n, m, x) for n, s, m, x in arms[0]]
        value, se, _ = effect(adjusted(treated, arms[1]).contrast)
        estimates.append(value)
        ses.append(se)
        raws.append(effect(unadjusted(treated, arms[1]))[0])
    assert np.mean(estimates) == pytest.approx(0.3, abs=4 * float(np.std(estimates)) / math.sqrt(300))
    assert np.std(estimates) < 0.85 * np.std(raws)
    assert np.mean(ses) == pytest.approx(np.std(estimates), rel=0.15)


def test_a_past_that_never_varies_leaves_the_raw_contrast() -> None:
    arms = [[(n, s, m, sum([0.1] * int(m))) for n, s, m, _ in totals] for totals in two_arms(3)]
    result = adjusted(arms[0], arms[1])
    assert result.theta == 0.0
    assert result.correlation is None
    assert result.variance_reduction == 0.0
    assert result.contrast == unadjusted(arms[0], arms[1])


def test_outcomes_that_never_vary_leave_the_exact_comparison() -> None:
    arms = [[(n, level * n, m, x) for n, _, m, x in totals] for level, totals in enumerate(two_arms(3), 1)]
    constant = [(n, n, m, x) for n, _, m, x in arms[1]]
    result = adjusted(arms[0], constant)
    assert result.theta == 0.0
    assert result.contrast.se == 0.0
    assert result.contrast.exact_p == 1.0
    assert result.variance_reduction is None


def test_a_past_that_tells_all_leaves_no_variance_and_an_exact_comparison() -> None:
    arms = [[(1.0, 3.0 * x, 1.0, x) for _, _, _, x in totals] for totals in two_arms(4)]
    result = adjusted(arms[0], arms[1])
    assert result.correlation == pytest.approx(1.0)
    assert result.variance_reduction == 1.0
    assert result.contrast.value == pytest.approx(0.0, abs=1e-9)
    assert result.contrast.exact_p == 1.0


def test_an_arm_without_any_history_leaves_its_epoch_unadjusted() -> None:
    treatment, control = two_arms(8)
    strangers = [(n, s, 0.0, 0.0) for n, s, _, _ in control]
    result = adjusted(treatment, strangers)
    assert result.theta == 0.0
    assert result.correlation is None
    assert result.contrast == unadjusted(treatment, strangers)
    later = two_arms(9)
    both = cuped_contrast(
        {0: CovariateSums.of(treatment), 1: CovariateSums.of(later[0])},
        {0: CovariateSums.of(strangers), 1: CovariateSums.of(later[1])},
    )
    assert both.theta == pytest.approx(adjusted(*later).theta, rel=1e-12)
    assert both.contrast.epochs == (0, 1)


@pytest.mark.parametrize("units", [0, 1], ids=["no units", "one unit"])
def test_an_epoch_with_fewer_than_two_units_in_an_arm_is_left_out(units: int) -> None:
    treatment, control = two_arms(10)
    lone = cuped_contrast({3: CovariateSums.of(treatment)}, {3: CovariateSums.of(control[:units])})
    assert lone.contrast.value is None
    assert lone.contrast.left_out == (3,)
    assert lone[1:] == (0.0, None, None, 0)
    others = adjusted(treatment, control)
    both = cuped_contrast(
        {0: CovariateSums.of(treatment), 3: CovariateSums.of(treatment)},
        {0: CovariateSums.of(control), 3: CovariateSums.of(control[:units])},
    )
    assert both.contrast.epochs == (0,)
    assert both.theta == others.theta
    assert effect(both.contrast) == pytest.approx(effect(others.contrast), rel=1e-12)


def test_two_arms_without_units_compare_to_nothing() -> None:
    result = cuped_contrast({}, {})
    assert result == Adjustment(ratio_contrast({}, {}), 0.0, None, None, 0)


def test_theta_is_the_slope_of_deviations_within_epochs() -> None:
    generator = np.random.default_rng(14)
    arms: tuple[dict[int, CovariateSums], dict[int, CovariateSums]] = ({}, {})
    deviations = []
    for epoch, (units, slope) in enumerate([(300, 2.0), (40, -1.0)]):
        x = generator.normal(5.0 * epoch, 1.0, units)
        s = slope * x + generator.normal(0.0, 1.0, units)
        deviations.append(np.column_stack([s - s.mean(), x - x.mean()]))
        for arm, part in zip(arms, (slice(None, 20), slice(20, None)), strict=True):
            arm[epoch] = CovariateSums.of([(1.0, a, 1.0, b) for a, b in zip(s[part], x[part], strict=True)])
    s, x = np.concatenate(deviations).T
    result = cuped_contrast(*arms)
    assert result.theta == pytest.approx((s @ x) / (x @ x), rel=1e-9)
    assert result.correlation == pytest.approx(np.corrcoef(s, x)[0, 1], rel=1e-9)


def test_sums_too_large_for_a_double_leave_no_variance_and_no_nan() -> None:
    huge = [(1.0, 1e200, 1.0, 1e200), (1.0, -1e200, 1.0, 2e200), (1.0, 3e200, 1.0, -1e200)]
    result = adjusted(huge, [(n, -s, m, x) for n, s, m, x in huge])
    assert result.theta == 0.0
    assert result.correlation is None
    assert result.variance_reduction is None
    assert result.contrast.se is None


def assert_same_sums(actual: CovariateSums, expected: CovariateSums) -> None:
    """Agree to rounding, which is relative to what was added up, not to what remains."""
    assert (actual.units, actual.with_history) == (expected.units, expected.with_history)
    assert (actual.center, actual.pre_center) == (expected.center, expected.pre_center)
    r = math.sqrt(expected.rr) + (1.0 + abs(expected.center)) * math.sqrt(expected.nn)
    z = math.sqrt(expected.zz) + (1.0 + abs(expected.pre_center)) * math.sqrt(expected.mm)
    n, m = math.sqrt(expected.nn), math.sqrt(expected.mm)
    sizes = {"rr": r * r, "rn": r * n, "zz": z * z, "zm": z * m, "rz": r * z, "rm": r * m, "nz": n * z}
    for field in ("n", "s", "m", "x", "nn", "mm", "nm"):
        assert getattr(actual, field) == pytest.approx(getattr(expected, field), rel=1e-9, abs=1e-6), field
    for field, size in sizes.items():
        assert getattr(actual, field) == pytest.approx(getattr(expected, field), rel=1e-9, abs=1e-9 * size), (
            field
        )


@given(left=groups, right=groups, c=centers, d=centers)
def test_adding_equals_computing_on_the_union(left: Totals, right: Totals, c: float, d: float) -> None:
    merged = CovariateSums.of(left, center=c, pre_center=d) + CovariateSums.of(right, center=c, pre_center=d)
    assert_same_sums(merged, CovariateSums.of(left + right, center=c, pre_center=d))


@given(first=groups, second=groups, third=groups, c=centers, d=centers)
def test_adding_is_associative_and_commutative(
    first: Totals, second: Totals, third: Totals, c: float, d: float
) -> None:
    a, b, e = (CovariateSums.of(rows, center=c, pre_center=d) for rows in (first, second, third))
    assert_same_sums((a + b) + e, a + (b + e))
    assert_same_sums(a + b, b + a)


@given(rows=groups, c=centers, d=centers, c2=centers, d2=centers)
def test_recentering_equals_computing_with_that_center(
    rows: Totals, c: float, d: float, c2: float, d2: float
) -> None:
    moved = CovariateSums.of(rows, center=c, pre_center=d).recentered(c2, d2)
    expected = CovariateSums.of(rows, center=c2, pre_center=d2)
    farthest = CovariateSums.of(rows, center=abs(c) + abs(c2), pre_center=abs(d) + abs(d2))
    assert (moved.center, moved.pre_center) == (c2, d2)
    for field in ("rr", "rn", "zz", "zm", "rz", "rm", "nz"):
        size = 1.0 + max(abs(value) for value in (*farthest, *expected))
        assert getattr(moved, field) == pytest.approx(getattr(expected, field), rel=1e-9, abs=1e-9 * size), (
            field
        )


@given(rows=st.lists(unit_totals, min_size=1, max_size=12), cut=st.integers(0, 12))
def test_pooling_merges_parts_of_any_centers(rows: Totals, cut: int) -> None:
    parts = CovariateSums.of(rows[:cut]), CovariateSums(), CovariateSums.of(rows[cut:])
    first = parts[0] if rows[:cut] else parts[2]
    expected = CovariateSums.of(rows, center=first.center, pre_center=first.pre_center)
    assert_same_sums(CovariateSums.pooled(parts), expected)


@given(rows=groups)
def test_the_outcomes_are_the_sums_without_the_past(rows: Totals) -> None:
    sums = CovariateSums.of(rows)
    assert sums.outcomes == UnitSums.of([(n, s) for n, s, _, _ in rows])
    assert sums.with_history == sum(1 for _, _, m, x in rows if m or x)


def test_a_cost_without_a_success_counts_although_there_is_nothing_to_divide_by() -> None:
    sums = CovariateSums.of([(0.0, 2.0, 0.0, 1.0)])
    assert (sums.units, sums.with_history, sums.center, sums.pre_center) == (1, 1, 0.0, 0.0)
    assert (sums.rr, sums.zz, sums.rz) == (4.0, 1.0, 2.0)


def test_units_without_an_event_since_their_exposure_are_not_counted() -> None:
    assert CovariateSums.of([(0.0, 0.0, 3.0, 5.0)]) == CovariateSums()
    sums = CovariateSums.of([(0.0, 0.0, 3.0, 5.0), (2.0, 4.0, 0.0, 0.0)])
    assert (sums.units, sums.with_history, sums.m, sums.pre_center) == (1, 0, 0.0, 0.0)


@pytest.mark.parametrize(("field", "moved"), [("center", (1.5, 0.0)), ("pre_center", (0.0, 1.5))])
def test_adding_refuses_two_centers(field: str, moved: tuple[float, float]) -> None:
    here = CovariateSums.of([(1.0, 2.0, 1.0, 3.0)], center=0.0, pre_center=0.0)
    with pytest.raises(InvalidInputError) as refused:
        _ = here + here.recentered(*moved)
    assert (refused.value.field, refused.value.value) == (field, 1.5)
    assert "recentered" in str(refused.value)
