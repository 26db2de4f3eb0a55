"""Lifts: against tea-tasting's logarithms and a quadratic of Fieller's own; and where there is none to show."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tea_tasting as tt  # type: ignore[import-untyped]
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from promptab.stats.contrast import Contrast
from promptab.stats.fixed import t_critical
from promptab.stats.lift import Lift, delta_lift, lift_interval
from promptab.stats.ratio import ratio_contrast
from promptab.stats.summary import UnitSums
from tests.arms import seeds, tea_aggregates, two_arms

means = st.floats(0.01, 100.0)
certain = st.floats(0.001, 0.09)
"""A coefficient of variation at which logarithms are near enough to normal."""
uncertain = st.floats(0.11, 0.4)
reaches = st.floats(0.5, 2.4)


def contrast_of(treatment: float, control: float, *, sd_t: float, sd_c: float) -> Contrast:
    """One epoch of 200 units; the standard errors of the means are given."""
    return Contrast(treatment, control, sd_t**2, sd_c**2, 150.0, None, 200, (0,), ())


def shown(lift: Lift | None) -> Lift:
    assert lift is not None
    assert lift.low <= lift.value <= lift.high
    return lift


@settings(max_examples=50, deadline=None)
@given(seeds, st.sampled_from([0.8, 0.95, 0.99]))
def test_the_log_scale_agrees_with_tea_tasting(seed: int, confidence: float) -> None:
    treatment, control = two_arms(seed, fewest=100, most=400)
    theirs = tt.RatioOfMeans("s", "n", use_t=False, confidence_level=confidence).analyze_aggregates(
        tea_aggregates(control), tea_aggregates(treatment)
    )
    contrast = ratio_contrast({0: UnitSums.of(treatment)}, {0: UnitSums.of(control)})
    lift = shown(lift_interval(contrast, t_critical(math.inf, confidence)))
    assert lift == pytest.approx(
        (theirs.rel_effect_size, theirs.rel_effect_size_ci_lower, theirs.rel_effect_size_ci_upper),
        rel=1e-8,
        abs=1e-9,
    )


def fieller_ends(contrast: Contrast, critical: float) -> tuple[float, float]:
    """Solve for the ratios θ at which R_t - θ R_c is exactly `critical` standard errors from zero."""
    t, c, v_t, v_c = contrast[:4]
    assert t is not None
    assert c is not None
    assert v_t is not None
    assert v_c is not None
    low, high = np.sort(np.roots([c * c - critical**2 * v_c, -2 * t * c, t * t - critical**2 * v_t]).real)
    return float(low), float(high)


@settings(max_examples=50, deadline=None)
@given(means, means, uncertain | certain, uncertain, reaches)
def test_with_an_uncertain_control_the_ends_solve_fiellers_quadratic(
    treatment: float, control: float, cv_t: float, cv_c: float, critical: float
) -> None:
    assume(critical * cv_c < 0.95)
    contrast = contrast_of(treatment, control, sd_t=cv_t * treatment, sd_c=cv_c * control)
    lift = shown(lift_interval(contrast, critical))
    low, high = fieller_ends(contrast, critical)
    assert (1 + lift.low, 1 + lift.high) == pytest.approx((low, high), rel=1e-6, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.floats(-3.0, 3.0), means, st.floats(0.05, 1.0), certain, reaches)
def test_a_treatment_near_or_below_zero_has_fiellers_interval_too(
    in_controls: float, control: float, sd_in_controls: float, cv_c: float, critical: float
) -> None:
    assume(sd_in_controls > 0.11 * abs(in_controls))
    contrast = contrast_of(in_controls * control, control, sd_t=sd_in_controls * control, sd_c=cv_c * control)
    lift = shown(lift_interval(contrast, critical))
    low, high = fieller_ends(contrast, critical)
    assert (1 + lift.low, 1 + lift.high) == pytest.approx((low, high), rel=1e-6, abs=1e-7)


@settings(max_examples=50, deadline=None)
@given(means, means, st.floats(0.001, 0.3), st.floats(0.001, 0.3), reaches)
def test_a_lift_is_the_same_in_any_unit_of_measurement(
    treatment: float, control: float, cv_t: float, cv_c: float, critical: float
) -> None:
    # at the border of two methods rounding would decide which of them is taken
    assume(min(abs(cv - 0.1) for cv in (cv_t, cv_c)) > 1e-6)
    plain = contrast_of(treatment, control, sd_t=cv_t * treatment, sd_c=cv_c * control)
    for scale in (1e-140, 1e-7, 3.0, 1e140):
        scaled = plain._replace(
            treatment=treatment * scale,
            control=control * scale,
            treatment_variance=(cv_t * treatment * scale) ** 2,
            control_variance=(cv_c * control * scale) ** 2,
        )
        assert shown(lift_interval(scaled, critical)) == pytest.approx(
            shown(lift_interval(plain, critical)), rel=1e-9, abs=1e-9
        )
        assert delta_lift(scaled) == pytest.approx(delta_lift(plain), rel=1e-9, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(means, means, certain, certain, reaches)
def test_swapping_the_arms_inverts_the_ratio_on_the_log_scale(
    treatment: float, control: float, cv_t: float, cv_c: float, critical: float
) -> None:
    there = contrast_of(treatment, control, sd_t=cv_t * treatment, sd_c=cv_c * control)
    back = contrast_of(control, treatment, sd_t=cv_c * control, sd_c=cv_t * treatment)
    lift, inverse = shown(lift_interval(there, critical)), shown(lift_interval(back, critical))
    ratios = 1 / (1 + inverse.value), 1 / (1 + inverse.high), 1 / (1 + inverse.low)
    assert (1 + lift.value, 1 + lift.low, 1 + lift.high) == pytest.approx(ratios, rel=1e-9)


@settings(max_examples=50, deadline=None)
@given(means, means, st.floats(0.001, 0.3), st.floats(0.001, 0.3))
def test_reaching_further_never_narrows_the_interval(
    treatment: float, control: float, cv_t: float, cv_c: float
) -> None:
    contrast = contrast_of(treatment, control, sd_t=cv_t * treatment, sd_c=cv_c * control)
    near, far = shown(lift_interval(contrast, 1.0)), shown(lift_interval(contrast, 2.0))
    assert far.low < near.low < near.high < far.high


def test_both_methods_come_to_about_the_same_where_one_takes_over_from_the_other() -> None:
    log_scale, fieller = (
        shown(lift_interval(contrast_of(1.2, 1.0, sd_t=0.05, sd_c=sd_c), 1.0)) for sd_c in (0.0999, 0.1001)
    )
    assert fieller == pytest.approx(log_scale, abs=0.01)


@pytest.mark.parametrize("control", [0.0, -2.0])
def test_a_control_that_is_not_positive_has_no_lift(control: float) -> None:
    assert lift_interval(contrast_of(1.0, control, sd_t=0.1, sd_c=0.1), 1.96) is None


def test_a_control_whose_own_interval_reaches_zero_has_no_lift() -> None:
    assert lift_interval(contrast_of(1.0, 1.0, sd_t=0.1, sd_c=0.51), 1.96) is not None
    assert lift_interval(contrast_of(1.0, 1.0, sd_t=0.1, sd_c=0.52), 1.96) is None


def test_arms_without_variation_have_no_interval_of_a_lift() -> None:
    assert lift_interval(contrast_of(1.0, 2.0, sd_t=0.0, sd_c=0.0), 1.96) is None


def test_an_unknown_contrast_has_no_lift() -> None:
    unknown = Contrast(None, None, None, None, None, None, 0, (), (0,))
    overflown = Contrast(2e200, 7 / 3, None, None, None, None, 6, (0,), ())
    for contrast in (unknown, overflown):
        assert lift_interval(contrast, 1.96) is None
        assert delta_lift(contrast) is None


@pytest.mark.parametrize(
    ("contrast", "critical"),
    [
        (contrast_of(1e-4, 1.0, sd_t=0.1, sd_c=0.01), 1.96),
        (contrast_of(-1e-4, 1.0, sd_t=0.1, sd_c=0.01), 1.96),
        (contrast_of(1.0, 1.0, sd_t=0.0995, sd_c=1e-6), 63_662.0),
        (contrast_of(1.0, 1.0, sd_t=0.0, sd_c=0.01), 99.999999),
    ],
    ids=["hardly above zero", "hardly below zero", "two units at 99.999 %", "a control hardly clear of zero"],
)
def test_an_interval_far_wider_than_the_lift_stays_finite(contrast: Contrast, critical: float) -> None:
    assert all(map(math.isfinite, shown(lift_interval(contrast, critical))))


@pytest.mark.parametrize(
    "contrast",
    [contrast_of(1.0, 1e-320, sd_t=0.1, sd_c=0.0), contrast_of(1e300, 1e-200, sd_t=1.0, sd_c=0.0)],
    ids=["a control below all doubles' ratios", "arms too far apart"],
)
def test_a_ratio_beyond_all_doubles_is_no_lift(contrast: Contrast) -> None:
    assert lift_interval(contrast, 1.96) is None
    assert delta_lift(contrast) is None


@settings(max_examples=50, deadline=None)
@given(means, means, certain, certain)
def test_the_delta_method_is_the_derivative_of_the_lift(
    treatment: float, control: float, cv_t: float, cv_c: float
) -> None:
    found = delta_lift(contrast_of(treatment, control, sd_t=cv_t * treatment, sd_c=cv_c * control))
    assert found is not None

    def lift(t: float, c: float) -> float:
        return (t - c) / c

    step = 1e-6
    along_t = (lift(treatment * (1 + step), control) - lift(treatment * (1 - step), control)) / (2 * step)
    along_c = (lift(treatment, control * (1 + step)) - lift(treatment, control * (1 - step))) / (2 * step)
    assert found.value == pytest.approx(lift(treatment, control), rel=1e-12, abs=1e-12)
    assert found.se == pytest.approx(math.hypot(along_t * cv_t, along_c * cv_c), rel=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.floats(-10.0, 10.0), st.floats(0.1, 10.0), certain, certain)
def test_a_mirrored_metric_has_the_mirrored_lift_by_the_delta_method(
    treatment: float, control: float, sd_t: float, sd_c: float
) -> None:
    plain = delta_lift(contrast_of(treatment, control, sd_t=sd_t, sd_c=sd_c))
    mirrored = delta_lift(contrast_of(-treatment, -control, sd_t=sd_t, sd_c=sd_c))
    assert plain is not None
    assert mirrored is not None
    assert (-mirrored.value, mirrored.se) == pytest.approx(plain, rel=1e-12)


def test_a_control_of_zero_has_no_lift_by_the_delta_method() -> None:
    assert delta_lift(contrast_of(1.0, 0.0, sd_t=0.1, sd_c=0.1)) is None


def test_arms_without_variation_have_an_exact_lift_by_the_delta_method() -> None:
    assert delta_lift(contrast_of(3.0, 2.0, sd_t=0.0, sd_c=0.0)) == (0.5, 0.0)
