"""Non-inferiority: a published case, the two-sided mirror, and how often a harmful treatment passes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW  # type: ignore[import-untyped]

from promptab.errors import InvalidInputError
from promptab.stats.guardrail import (
    NonInferiority,
    guardrail_verdict,
    non_inferiority,
    non_inferiority_test,
    relative_margin_effect,
)
from promptab.stats.interval import Interval
from promptab.stats.metric import Direction
from tests.oracles import oracle

effects = st.floats(-100.0, 100.0)
errors = st.floats(1e-3, 50.0)
margins = st.floats(0.0, 50.0)
confidences = st.floats(0.51, 0.999)


def judged(found: NonInferiority) -> tuple[Interval, float]:
    """The interval and p-value of a test that is known to have them."""
    assert found.interval is not None
    assert found.p_value is not None
    return found.interval, found.p_value


def test_published_success_rates_are_not_shown_to_be_non_inferior() -> None:
    row = oracle("noninferiority-wald")
    x_t, n_t, x_c, n_c = (row["inputs"][key] for key in ("xT", "nT", "xC", "nC"))
    p_t, p_c = x_t / n_t, x_c / n_c
    se = math.sqrt(p_t * (1 - p_t) / n_t + p_c * (1 - p_c) / n_c)
    found = non_inferiority(p_t - p_c, se, margin=row["inputs"]["margin"], direction="increase")
    interval, p_value = judged(found)
    assert p_value == pytest.approx(row["expected"]["p"], abs=row["tol"])
    assert interval.low == pytest.approx(row["expected"]["lower90"], abs=row["tol"])
    assert (found.verdict == "pass") is row["expected"]["noninferior"]
    assert found.verdict == "undecided"


@pytest.mark.parametrize(
    ("direction", "alternative", "null"), [("increase", "larger", -0.2), ("decrease", "smaller", 0.2)]
)
def test_p_value_is_welchs_one_sided_test_of_the_margin(
    direction: Direction, alternative: str, null: float
) -> None:
    generator = np.random.default_rng(3)
    treatment, control = generator.normal(1.0, 2.0, 90), generator.normal(1.1, 1.0, 60)
    compared = CompareMeans(DescrStatsW(treatment), DescrStatsW(control))
    _, expected, df = compared.ttest_ind(alternative=alternative, usevar="unequal", value=null)
    value = float(treatment.mean() - control.mean())
    se = math.sqrt(treatment.var(ddof=1) / 90 + control.var(ddof=1) / 60)
    found = non_inferiority(value, se, margin=0.2, direction=direction, df=float(df))
    interval, p_value = judged(found)
    assert p_value == pytest.approx(float(expected), rel=1e-9)
    low, high = compared.tconfint_diff(alpha=0.1, usevar="unequal")
    assert interval == pytest.approx((float(low), float(high)), rel=1e-9)


@pytest.mark.parametrize(
    ("interval", "increase", "decrease"),
    [
        (Interval(-0.9, 5.0), "pass", "undecided"),
        (Interval(-0.9, 0.9), "pass", "pass"),
        (Interval(-5.0, 0.9), "undecided", "pass"),
        (Interval(-5.0, -1.1), "fail", "pass"),
        (Interval(1.1, 5.0), "pass", "fail"),
        (Interval(-5.0, 5.0), "undecided", "undecided"),
        (Interval(-1.0, 1.0), "undecided", "undecided"),
        (Interval(-math.inf, -1.0), "undecided", "pass"),
        (Interval(-math.inf, math.inf), "undecided", "undecided"),
        (None, "undecided", "undecided"),
    ],
)
def test_verdict_takes_the_worst_and_the_best_that_the_effect_may_be(
    interval: Interval | None, increase: str, decrease: str
) -> None:
    assert guardrail_verdict(interval, margin=1.0, direction="increase") == increase
    assert guardrail_verdict(interval, margin=1.0, direction="decrease") == decrease


def test_no_difference_found_in_few_units_is_not_safe() -> None:
    found = non_inferiority(0.0, 1.0, margin=0.1, direction="increase", df=8.0)
    assert found.verdict == "undecided"


def test_a_margin_of_zero_asks_for_an_improvement() -> None:
    assert non_inferiority(0.1, 0.01, margin=0.0, direction="increase").verdict == "pass"
    assert non_inferiority(-0.1, 0.01, margin=0.0, direction="increase").verdict == "fail"
    assert non_inferiority(0.0, 0.01, margin=0.0, direction="increase").verdict == "undecided"


@given(
    value=effects, se=errors, margin=margins, confidence=confidences, df=st.none() | st.floats(1.0, 1_000.0)
)
def test_decrease_judges_the_mirrored_effect_as_increase_does(
    value: float, se: float, margin: float, confidence: float, df: float | None
) -> None:
    found = non_inferiority(value, se, margin=margin, direction="increase", df=df, confidence=confidence)
    mirror = non_inferiority(-value, se, margin=margin, direction="decrease", df=df, confidence=confidence)
    interval, p_value = judged(found)
    assert mirror == (found.verdict, interval.mirrored(), p_value)


@given(value=effects, se=errors, margin=margins, confidence=confidences)
def test_it_passes_exactly_where_the_p_value_is_small(
    value: float, se: float, margin: float, confidence: float
) -> None:
    found = non_inferiority(value, se, margin=margin, direction="decrease", confidence=confidence)
    _, p_value = judged(found)
    assume(abs(p_value - (1 - confidence)) > 1e-9)
    assert (found.verdict == "pass") == (p_value < 1 - confidence)


@given(value=effects, se=errors, margin=margins, wider=st.floats(0.0, 10.0))
def test_a_wider_margin_never_takes_a_pass_away(value: float, se: float, margin: float, wider: float) -> None:
    order = ("fail", "undecided", "pass")
    narrow = non_inferiority(value, se, margin=margin, direction="increase").verdict
    wide = non_inferiority(value, se, margin=margin + wider, direction="increase").verdict
    assert order.index(wide) >= order.index(narrow)


@pytest.mark.parametrize(
    ("value", "se"),
    [(None, 1.0), (1.0, None), (None, None), (1.0, 0.0), (math.inf, 1.0), (math.nan, 1.0), (1.0, math.inf)],
)
def test_an_effect_that_is_unknown_or_never_varies_is_undecided(
    value: float | None, se: float | None
) -> None:
    found = non_inferiority(value, se, margin=0.5, direction="increase")
    assert found == ("undecided", None, None)


@pytest.mark.parametrize("margin", [-0.1, math.inf, math.nan])
def test_a_margin_with_a_sign_or_without_end_is_refused(margin: float) -> None:
    message = "margin: .* is not a finite number of at least 0; give the largest regression that is tolerated"
    with pytest.raises(InvalidInputError, match=message):
        non_inferiority(0.0, 1.0, margin=margin, direction="increase")
    with pytest.raises(InvalidInputError, match=message):
        guardrail_verdict(None, margin=margin, direction="decrease")
    with pytest.raises(InvalidInputError, match=message):
        relative_margin_effect(1.0, 0.1, 1.0, 0.1, margin=margin, direction="decrease")


@pytest.mark.parametrize("confidence", [0.5, 1.0, math.nan])
def test_a_confidence_that_turns_the_interval_round_is_refused(confidence: float) -> None:
    with pytest.raises(InvalidInputError, match="confidence"):
        non_inferiority(0.0, 1.0, margin=0.1, direction="increase", confidence=confidence)


def test_what_is_tested_lies_at_the_margin_on_the_side_of_harm() -> None:
    assert non_inferiority_test(0.3, "increase") == (-0.3, "greater")
    assert non_inferiority_test(0.3, "decrease") == (0.3, "less")


def test_relative_margin_tests_the_treatment_against_a_share_of_the_control() -> None:
    lower = relative_margin_effect(0.80, 0.0004, 0.90, 0.0003, margin=0.02, direction="increase")
    assert lower == pytest.approx((0.80 - 0.98 * 0.90, math.sqrt(0.0004 + 0.98**2 * 0.0003)))
    upper = relative_margin_effect(0.80, 0.0004, 0.90, 0.0003, margin=0.02, direction="decrease")
    assert upper == pytest.approx((0.80 - 1.02 * 0.90, math.sqrt(0.0004 + 1.02**2 * 0.0003)))


def test_relative_margin_is_of_the_size_of_a_negative_control_mean() -> None:
    effect = relative_margin_effect(-11.0, 0.1, -10.0, 0.1, margin=0.2, direction="increase")
    assert effect.value == pytest.approx(1.0)
    assert relative_margin_effect(-3.0, 0.1, 0.0, 0.1, margin=0.2, direction="decrease").value == -3.0


means = st.floats(-1_000.0, 1_000.0)
variances = st.floats(0.0, 100.0)
shares = st.floats(0.0, 2.0)


@given(
    treatment=means,
    control=means,
    spread=st.tuples(variances, variances),
    margin=shares,
    scale=st.sampled_from([2.0**-20, 0.5, 8.0]),
)
def test_relative_margin_mirrors_directions_and_knows_no_unit(
    treatment: float, control: float, spread: tuple[float, float], margin: float, scale: float
) -> None:
    effect = relative_margin_effect(
        treatment, spread[0], control, spread[1], margin=margin, direction="increase"
    )
    mirror = relative_margin_effect(
        -treatment, spread[0], -control, spread[1], margin=margin, direction="decrease"
    )
    assert mirror == (-effect.value, effect.se)
    scaled = relative_margin_effect(
        scale * treatment,
        scale**2 * spread[0],
        scale * control,
        scale**2 * spread[1],
        margin=margin,
        direction="increase",
    )
    assert scaled == pytest.approx((scale * effect.value, scale * effect.se), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("direction", ["increase", "decrease"])
def test_a_treatment_at_the_relative_margin_passes_in_at_most_five_percent(direction: Direction) -> None:
    generator = np.random.default_rng(21)
    sign, runs, units = (1.0 if direction == "increase" else -1.0), 2_000, 200
    control = generator.gamma(2.0, 5.0, size=(runs, units))
    treatment = generator.gamma(2.0, 5.0, size=(runs, units)) * (1.0 - sign * 0.1)
    passed = 0
    for t, c in zip(treatment, control, strict=True):
        effect = relative_margin_effect(
            float(t.mean()),
            float(t.var(ddof=1)) / units,
            float(c.mean()),
            float(c.var(ddof=1)) / units,
            margin=0.1,
            direction=direction,
        )
        found = non_inferiority(*effect, margin=0.0, direction=direction)
        passed += found.verdict == "pass"
    assert passed / runs == pytest.approx(0.05, abs=0.015)
