"""The fixed horizon against scipy's t distribution; intervals and p-values must tell the same story."""

from __future__ import annotations

import math

import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from promptab.stats.fixed import t_critical, t_interval, t_p_value
from promptab.stats.interval import Alternative, Interval

effects = st.floats(-1e6, 1e6, allow_subnormal=False)
errors = st.floats(1e-6, 1e6)
dfs = st.floats(1.0, 1e6) | st.just(math.inf)
levels = st.floats(0.5, 0.9999)
alternatives = st.sampled_from(["two-sided", "greater", "less"])
mirror: dict[Alternative, Alternative] = {"two-sided": "two-sided", "greater": "less", "less": "greater"}


@settings(max_examples=50, deadline=None)
@given(dfs, levels)
def test_the_critical_value_is_the_quantile_of_scipys_t(df: float, confidence: float) -> None:
    two_sided = float(scipy.stats.t.ppf((1 + confidence) / 2, df))
    assert t_critical(df, confidence) == pytest.approx(two_sided, rel=1e-9)
    one_sided = float(scipy.stats.t.ppf(confidence, df))
    assert t_critical(df, confidence, "greater") == pytest.approx(one_sided, rel=1e-9, abs=1e-12)
    assert t_critical(df, confidence, "less") == t_critical(df, confidence, "greater")


def test_the_critical_value_of_infinite_degrees_of_freedom_is_the_normals() -> None:
    assert t_critical(math.inf, 0.95) == pytest.approx(1.959963984540054, rel=1e-15)
    assert t_critical(math.inf, 0.95, "greater") == pytest.approx(1.6448536269514722, rel=1e-15)
    assert t_critical(1e12, 0.95) == pytest.approx(t_critical(math.inf, 0.95), rel=1e-9)


@settings(max_examples=50, deadline=None)
@given(effects, errors, dfs, levels)
def test_the_interval_is_scipys(value: float, se: float, df: float, confidence: float) -> None:
    expected = scipy.stats.t.interval(confidence, df, loc=value, scale=se)
    found = t_interval(value, se, df, confidence=confidence)
    assert found == pytest.approx((float(expected[0]), float(expected[1])), rel=1e-9, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(effects, errors, dfs, levels)
def test_a_one_sided_interval_has_one_finite_end(
    value: float, se: float, df: float, confidence: float
) -> None:
    greater = t_interval(value, se, df, confidence=confidence, alternative="greater")
    less = t_interval(value, se, df, confidence=confidence, alternative="less")
    assert (greater.high, less.low) == (math.inf, -math.inf)
    assert math.isfinite(greater.low)
    assert math.isfinite(less.high)
    # both bounds together leave out twice what one of them does
    assume(confidence > 0.75)
    both = t_interval(value, se, df, confidence=2 * confidence - 1)
    assert (greater.low, less.high) == pytest.approx(both, rel=1e-9, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(effects, errors, dfs, effects)
def test_the_p_value_is_scipys(value: float, se: float, df: float, null: float) -> None:
    t = (value - null) / se
    distribution = scipy.stats.t(df)
    found = {side: t_p_value(value, se, df, null=null, alternative=side) for side in mirror}
    assert found["two-sided"] == pytest.approx(2 * float(distribution.sf(abs(t))), rel=1e-9, abs=1e-300)
    assert found["greater"] == pytest.approx(float(distribution.sf(t)), rel=1e-9, abs=1e-300)
    assert found["less"] == pytest.approx(float(distribution.cdf(t)), rel=1e-9, abs=1e-300)
    assert found["two-sided"] == pytest.approx(
        2 * min(found["greater"], found["less"]), rel=1e-12, abs=1e-300
    )


@settings(max_examples=50, deadline=None)
@given(effects, errors, dfs, effects, alternatives, levels)
def test_what_holds_of_x_holds_mirrored_of_minus_x(
    value: float, se: float, df: float, null: float, alternative: Alternative, confidence: float
) -> None:
    other = mirror[alternative]
    assert t_p_value(-value, se, df, null=-null, alternative=other) == t_p_value(
        value, se, df, null=null, alternative=alternative
    )
    mirrored = t_interval(-value, se, df, confidence=confidence, alternative=other).mirrored()
    assert mirrored == t_interval(value, se, df, confidence=confidence, alternative=alternative)


@settings(max_examples=50, deadline=None)
@given(st.floats(-8.0, 8.0), st.floats(0.1, 5.0), dfs, alternatives, levels)
def test_p_is_below_alpha_exactly_where_the_interval_excludes_the_null_value(
    value: float, se: float, df: float, alternative: Alternative, confidence: float
) -> None:
    p_value = t_p_value(value, se, df, alternative=alternative)
    assume(abs(p_value - (1 - confidence)) > 1e-9)
    interval = t_interval(value, se, df, confidence=confidence, alternative=alternative)
    assert interval.excludes(0.0) == (p_value < 1 - confidence)


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_without_error_an_effect_is_the_null_value_or_it_is_not(alternative: Alternative) -> None:
    assert t_p_value(0.25, 0.0, 7.0, null=0.25, alternative=alternative) == 1.0
    assert t_p_value(0.25, 0.0, 7.0, null=0.24, alternative="two-sided") == 0.0


def test_without_error_an_effect_on_the_unclaimed_side_of_the_null_value_shows_nothing() -> None:
    assert t_p_value(0.25, 0.0, 7.0, alternative="greater") == 0.0
    assert t_p_value(-0.25, 0.0, 7.0, alternative="less") == 0.0
    assert t_p_value(-0.25, 0.0, 7.0, alternative="greater") == 1.0
    assert t_p_value(0.25, 0.0, 7.0, alternative="less") == 1.0


def test_without_error_an_interval_is_a_point() -> None:
    assert t_interval(0.25, 0.0, 7.0) == (0.25, 0.25)


@settings(max_examples=50, deadline=None)
@given(effects, st.floats(0.0, 1e6), effects)
def test_an_interval_excludes_what_its_mirror_image_excludes_mirrored(
    low: float, width: float, value: float
) -> None:
    interval = Interval(low, low + width)
    assert interval.mirrored().excludes(-value) == interval.excludes(value)
    assert interval.mirrored().mirrored() == interval
    assert not interval.excludes(interval.low)
    assert not interval.excludes(interval.high)


def test_an_interval_is_cut_off_at_the_bounds_of_its_metric() -> None:
    interval = Interval(-0.1, 1.2)
    assert interval.within(0.0, 1.0) == (0.0, 1.0)
    assert interval.within(None, 1.0) == (-0.1, 1.0)
    assert interval.within(0.0, None) == (0.0, 1.2)
    assert interval.within(-5.0, 5.0) == interval.within(None, None) == interval
