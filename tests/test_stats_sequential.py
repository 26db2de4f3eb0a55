"""The asymptotic confidence sequence: published numbers, its inversion, its symmetries, and a small A/A."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from promptab.errors import InvalidInputError
from promptab.stats.interval import Alternative
from promptab.stats.sequential import half_width, log_e_value, p_value, tuning
from tests.oracles import oracle

effects = st.floats(-5.0, 5.0)
errors = st.floats(0.01, 10.0)
unit_counts = st.integers(1, 10**7).map(float)
tunings = st.integers(1, 10**6).map(float)
alphas = st.floats(0.0001, 0.49)
alternatives = st.sampled_from(("two-sided", "greater", "less"))


def excludes(
    value: float, se: float, units: float, null: float, tuned: float, alpha: float, side: Alternative
) -> bool:
    """Say whether the confidence sequence at alpha, the bound that the side asks for, leaves the null out."""
    half = half_width(se, units, tuning_units=tuned, alpha=alpha, one_sided=side != "two-sided")
    above, below = value - half > null, value + half < null
    return {"two-sided": above or below, "greater": above, "less": below}[side]


def test_relative_lift_of_proportions_has_the_published_interval() -> None:
    row = oracle("gb-seq-prop")
    control, treatment = row["inputs"]["control"], row["inputs"]["treatment"]
    rates = [arm["x"] / arm["n"] for arm in (control, treatment)]
    variances = [rate * (1 - rate) / arm["n"] for rate, arm in zip(rates, (control, treatment), strict=True)]
    lift = rates[1] / rates[0] - 1
    se = math.sqrt(variances[1] / rates[0] ** 2 + rates[1] ** 2 * variances[0] / rates[0] ** 4)
    units, tuned, alpha = control["n"] + treatment["n"], row["inputs"]["N_star"], row["inputs"]["alpha"]
    half = half_width(se, units, tuning_units=tuned, alpha=alpha)
    assert (lift, se) == pytest.approx((row["expected"]["lift"], row["expected"]["se"]), abs=row["tol"])
    assert [lift - half, lift + half] == pytest.approx(row["expected"]["ci"], abs=row["tol"])
    p = p_value(lift, se, units, tuning_units=tuned, alpha=alpha)
    assert p == pytest.approx(row["expected"]["p"], abs=row["tol"])


def test_tuning_is_the_published_one_of_the_normal_mixture() -> None:
    row = oracle("cs-normal-mixture-rho")
    rho = tuning(row["inputs"]["v_opt"], row["inputs"]["alpha_opt"])
    assert rho**-2 == pytest.approx(row["expected"], abs=row["tol"])


def test_half_width_is_the_published_boundary_of_the_normal_mixture() -> None:
    row = oracle("cs-normal-mixture-two")
    inputs = row["inputs"]
    # of a mean of unit variance: the boundary is on the sum
    half = half_width(
        1 / math.sqrt(inputs["v"]), inputs["v"], tuning_units=inputs["v_opt"], alpha=inputs["alpha"]
    )
    assert inputs["v"] * half == pytest.approx(row["expected"], abs=row["tol"])


def test_evidence_is_the_published_log_mixture() -> None:
    row = oracle("cs-normal-logmix")
    s, v = row["inputs"]["s"], row["inputs"]["v"]
    log_e = log_e_value(
        s / v, 1 / math.sqrt(v), v, tuning_units=row["inputs"]["v_opt"], alpha=row["inputs"]["alpha_opt"]
    )
    assert log_e == pytest.approx(row["expected"], abs=row["tol"])


def test_half_width_is_the_published_one_of_growthbook() -> None:
    row = oracle("cs-growthbook-equals-howard")
    inputs, expected = row["inputs"], row["expected"]
    assert tuning(inputs["N_star"], inputs["alpha"]) == pytest.approx(expected["rho"], abs=row["tol"])
    half = half_width(inputs["se"], inputs["N"], tuning_units=inputs["N_star"], alpha=inputs["alpha"])
    assert half == pytest.approx(expected["halfwidth"], abs=row["tol"])


@given(se=errors, units=unit_counts, tuned=tunings, alpha=alphas)
def test_half_width_is_howards_two_sided_boundary_at_the_units(
    se: float, units: float, tuned: float, alpha: float
) -> None:
    # Howard et al.: √((v + rho) (log((v + rho)/rho) + 2 log(1/alpha))) bounds a sum of unit variance
    rho = tuned / (2 * math.log(1 / alpha) + math.log(1 + 2 * math.log(1 / alpha)))
    boundary = math.sqrt((units + rho) * (math.log((units + rho) / rho) + 2 * math.log(1 / alpha)))
    expected = se * math.sqrt(units) * boundary / units
    assert half_width(se, units, tuning_units=tuned, alpha=alpha) == pytest.approx(expected, rel=1e-9)


def test_half_width_at_its_tuning_is_the_published_multiple_of_the_fixed_one() -> None:
    row = oracle("cs-width-ratio")
    units, alpha = row["inputs"]["N"], row["inputs"]["alpha"]
    half = half_width(1.0, units, tuning_units=row["inputs"]["N_star"], alpha=alpha)
    assert half / float(ndtri(1 - alpha / 2)) == pytest.approx(row["expected"], abs=row["tol"])


def power_at_one_look(delta: float, sd: float, total: float, tuned: float, alpha: float) -> float:
    se = sd * math.sqrt(4 / total)
    return float(ndtr((delta - half_width(se, total, tuning_units=tuned, alpha=alpha)) / se))


def test_power_at_one_look_is_the_published_one() -> None:
    row = oracle("ascs-power-one-look")
    inputs = row["inputs"]
    power = power_at_one_look(
        inputs["delta"], inputs["sd"], inputs["N_total"], inputs["N_star"], inputs["alpha"]
    )
    assert power == pytest.approx(row["expected"], abs=row["tol"])


def test_sample_size_at_one_look_is_the_published_one() -> None:
    row = oracle("ascs-sample-inflation")
    inputs = row["inputs"]
    total = brentq(
        lambda n: power_at_one_look(inputs["delta"], inputs["sd"], n, n, inputs["alpha"]) - inputs["power"],
        1e3,
        1e6,
        xtol=1e-8,
    )
    assert total == pytest.approx(row["expected"]["ascs_total"], abs=row["tol"])
    assert total / row["expected"]["fixed_total"] == pytest.approx(row["expected"]["ratio"], abs=row["tol"])


@given(
    value=effects,
    null=effects,
    se=errors,
    units=unit_counts,
    tuned=tunings,
    alpha=alphas,
    side=alternatives,
)
def test_p_value_is_at_most_alpha_exactly_where_the_interval_excludes_the_null(
    value: float, null: float, se: float, units: float, tuned: float, alpha: float, side: Alternative
) -> None:
    p = p_value(value, se, units, null=null, tuning_units=tuned, alpha=alpha, alternative=side)
    assume(abs(p - alpha) > 1e-9 * alpha)
    assert (p <= alpha) == excludes(value, se, units, null, tuned, alpha, side)


@given(null=effects, se=errors, units=unit_counts, tuned=tunings, alpha=alphas, side=alternatives)
def test_p_value_is_alpha_where_the_interval_ends_at_the_null(
    null: float, se: float, units: float, tuned: float, alpha: float, side: Alternative
) -> None:
    half = half_width(se, units, tuning_units=tuned, alpha=alpha, one_sided=side != "two-sided")
    value = null - half if side == "less" else null + half
    p = p_value(value, se, units, null=null, tuning_units=tuned, alpha=alpha, alternative=side)
    assert p == pytest.approx(alpha, rel=1e-6)


@given(
    value=effects,
    null=effects,
    se=errors,
    units=unit_counts,
    tuned=tunings,
    alpha=alphas,
)
def test_an_effect_and_its_mirror_image_have_the_same_p_value(
    value: float, null: float, se: float, units: float, tuned: float, alpha: float
) -> None:
    mirrors: tuple[tuple[Alternative, Alternative], ...] = (
        ("two-sided", "two-sided"),
        ("greater", "less"),
        ("less", "greater"),
    )
    for side, mirrored in mirrors:
        assert p_value(
            value, se, units, null=null, tuning_units=tuned, alpha=alpha, alternative=side
        ) == p_value(-value, se, units, null=-null, tuning_units=tuned, alpha=alpha, alternative=mirrored)


@given(
    value=effects,
    null=effects,
    se=errors,
    units=unit_counts,
    tuned=tunings,
    alpha=alphas,
    scale=st.floats(1e-6, 1e6),
    side=alternatives,
)
def test_another_unit_of_measurement_scales_the_interval_and_leaves_the_p_value(
    value: float,
    null: float,
    se: float,
    units: float,
    tuned: float,
    alpha: float,
    scale: float,
    side: Alternative,
) -> None:
    one_sided = side != "two-sided"
    half = half_width(se, units, tuning_units=tuned, alpha=alpha, one_sided=one_sided)
    scaled = half_width(se * scale, units, tuning_units=tuned, alpha=alpha, one_sided=one_sided)
    assert scaled == pytest.approx(half * scale, rel=1e-12)
    log_e = log_e_value(value, se, units, null=null, tuning_units=tuned, alpha=alpha, alternative=side)
    assert log_e_value(
        value * scale,
        se * scale,
        units,
        null=null * scale,
        tuning_units=tuned,
        alpha=alpha,
        alternative=side,
    ) == pytest.approx(log_e, rel=1e-9, abs=1e-9)


@given(units=unit_counts, tuned=tunings, alpha=alphas, one_sided=st.booleans())
def test_interval_of_a_mean_shrinks_as_units_arrive(
    units: float, tuned: float, alpha: float, one_sided: bool
) -> None:
    now, later = (
        half_width(1 / math.sqrt(n), n, tuning_units=tuned, alpha=alpha, one_sided=one_sided)
        for n in (units, 1.01 * units)
    )
    assert later < now


@given(units=unit_counts, tuned=tunings, alpha=st.floats(0.0001, 0.9))
def test_two_sided_interval_is_wider_at_a_smaller_alpha(units: float, tuned: float, alpha: float) -> None:
    strict, loose = (
        half_width(1.0, units, tuning_units=tuned, alpha=level) for level in (alpha, 1.01 * alpha)
    )
    assert strict > loose


@given(
    effect=st.floats(0.0, 5.0),
    step=st.floats(0.001, 5.0),
    units=unit_counts,
    tuned=tunings,
    alpha=alphas,
    side=st.sampled_from(("two-sided", "greater")),
)
def test_evidence_grows_with_the_distance_from_the_null(
    effect: float, step: float, units: float, tuned: float, alpha: float, side: Alternative
) -> None:
    nearer, farther = (
        log_e_value(value, 1.0, units, tuning_units=tuned, alpha=alpha, alternative=side)
        for value in (effect, effect + step)
    )
    assert farther > nearer


@given(units=unit_counts, alpha=st.floats(0.001, 0.1))
def test_interval_is_narrowest_at_the_units_that_it_is_tuned_for(units: float, alpha: float) -> None:
    assume(units >= 10)
    best = half_width(1.0, units, tuning_units=units, alpha=alpha)
    # the tuning approximates the optimum: it may be beaten, but by less than 0.1 %
    for factor in (0.1, 0.5, 0.8, 1.25, 2.0, 10.0):
        assert half_width(1.0, units, tuning_units=factor * units, alpha=alpha) > best * 0.999


@pytest.mark.parametrize("units", [10.0, 1e3, 5e3, 1e5, 1e7], ids="{:g} units".format)
@pytest.mark.parametrize("alpha", [0.001, 0.01, 0.05])
def test_one_sided_bound_is_at_most_two_percent_outside_the_exact_mixture(units: float, alpha: float) -> None:
    growth = units * tuning(5000.0, 2 * alpha) ** 2

    def log_exact(exponent: float) -> float:
        # the mixture over a half-normal prior: 2 exp(L) Φ(√(2L)) / √(N rho² + 1)
        below = float(ndtr(math.sqrt(2 * exponent)))
        return math.log(2 * below) + exponent - 0.5 * math.log(growth + 1) + math.log(alpha)

    exponent = brentq(log_exact, 1e-12, 500.0, xtol=1e-14)
    exact = math.sqrt(2 * (growth + 1) / growth * exponent)
    closed = half_width(1.0, units, tuning_units=5000.0, alpha=alpha, one_sided=True)
    assert exact <= closed <= 1.02 * exact


@pytest.mark.parametrize(
    ("value", "side"), [(-0.3, "greater"), (0.0, "greater"), (0.0, "less"), (0.3, "less")]
)
def test_p_value_of_an_effect_on_the_nulls_own_side_is_one(value: float, side: Alternative) -> None:
    assert p_value(value, 0.1, 100, tuning_units=100, alpha=0.05, alternative=side) == 1.0


@pytest.mark.parametrize("side", ["two-sided", "greater"])
@pytest.mark.parametrize(("value", "se"), [(1e6, 1e-6), (1e300, 1e-300)], ids=["far", "out of range"])
def test_p_value_of_an_effect_far_away_is_zero(value: float, se: float, side: Alternative) -> None:
    assert p_value(value, se, 100, tuning_units=100, alpha=0.05, alternative=side) == 0.0


@pytest.mark.parametrize("side", ["two-sided", "greater", "less"])
def test_an_immeasurably_small_effect_is_no_evidence(side: Alternative) -> None:
    assert p_value(1e-300, 1.0, 100, tuning_units=100, alpha=0.05, alternative=side) == 1.0
    assert p_value(-1e-300, 1.0, 100, tuning_units=100, alpha=0.05, alternative=side) == 1.0


@pytest.mark.parametrize("side", ["two-sided", "greater"])
def test_one_unit_and_extremes_of_the_arguments_leave_the_numbers_finite(side: Alternative) -> None:
    for units, tuned, alpha in ((1.0, 1e18, 1e-300), (1e18, 1.0, 0.4999), (1.0, 1.0, 1e-12)):
        half = half_width(1.0, units, tuning_units=tuned, alpha=alpha, one_sided=side != "two-sided")
        assert 0.0 < half < math.inf
        assert 0.0 <= p_value(1.0, 1.0, units, tuning_units=tuned, alpha=alpha, alternative=side) <= 1.0


@pytest.mark.parametrize(
    ("field", "changed"),
    [
        ("se", {"se": 0.0}),
        ("se", {"se": -1.0}),
        ("se", {"se": math.nan}),
        ("units", {"units": 0.0}),
        ("tuning_units", {"tuning_units": 0.5}),
        ("tuning_units", {"tuning_units": math.inf}),
        ("alpha", {"alpha": 0.0}),
        ("alpha", {"alpha": 1.0}),
        ("alpha", {"alpha": math.nan}),
    ],
)
def test_arguments_that_have_no_interval_are_refused(field: str, changed: dict[str, float]) -> None:
    given = {"se": 0.1, "units": 1000.0, "tuning_units": 5000.0, "alpha": 0.05} | changed
    with pytest.raises(InvalidInputError) as refused:
        half_width(given["se"], given["units"], tuning_units=given["tuning_units"], alpha=given["alpha"])
    assert refused.value.field == field
    assert refused.value.bound


def test_alpha_of_half_is_refused_for_one_side_and_taken_for_two() -> None:
    assert half_width(1.0, 100, tuning_units=100, alpha=0.5) > 0.0
    with pytest.raises(InvalidInputError, match=r"less than 0\.5"):
        half_width(1.0, 100, tuning_units=100, alpha=0.5, one_sided=True)


@pytest.mark.parametrize("field", ["value", "null"])
def test_effects_that_are_no_numbers_are_refused(field: str) -> None:
    given = {"value": 0.0, "null": 0.0} | {field: math.nan}
    with pytest.raises(InvalidInputError) as refused:
        p_value(given["value"], 1.0, 100, null=given["null"], tuning_units=100, alpha=0.05)
    assert refused.value.field == field


def test_an_unknown_alternative_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="two-sided, greater, less"):
        p_value(0.1, 0.1, 100, tuning_units=100, alpha=0.05, alternative="larger")  # type: ignore[arg-type]


def test_daily_looks_at_equal_arms_seldom_find_a_difference() -> None:
    days, experiments, a_day, alpha = 28, 400, 200, 0.05
    generator = np.random.default_rng(28)
    values = generator.lognormal(0.0, 0.5, (2, experiments, days, a_day))
    units = a_day * np.arange(1, days + 1)
    means = values.sum(axis=3).cumsum(axis=2) / units
    variances = np.square(values).sum(axis=3).cumsum(axis=2) / units - np.square(means)
    differences, errors_seen = means[1] - means[0], np.sqrt(variances.sum(axis=0) / units)
    naive = (np.abs(differences) > 1.96 * errors_seen).any(axis=1).mean()
    assert naive > 0.2, "these looks are enough to mislead a fixed horizon"

    def alarms(side: Alternative) -> list[list[bool]]:
        return [
            [
                p_value(d, s, 2.0 * n, tuning_units=5000.0, alpha=alpha, alternative=side) <= alpha
                for d, s, n in zip(row, row_errors, units.tolist(), strict=True)
            ]
            for row, row_errors in zip(differences.tolist(), errors_seen.tolist(), strict=True)
        ]

    for side in ("two-sided", "greater", "less"):
        found = np.array(alarms(side))
        assert found[:, 0].mean() <= 0.005
        assert found.any(axis=1).mean() <= 0.035
