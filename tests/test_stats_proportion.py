"""Proportions of units: published intervals, statsmodels, scipy, and sums over every table there is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from statsmodels.stats.proportion import (  # type: ignore[import-untyped]
    confint_proportions_2indep,
    proportion_confint,
)
from statsmodels.stats.proportion import proportions_ztest as statsmodels_ztest

from promptab.errors import InvalidInputError
from promptab.stats.interval import Interval
from promptab.stats.proportion import (
    EXACT_BELOW,
    ProportionDifference,
    ZTest,
    barnard_p,
    newcombe_interval,
    proportion_difference,
    proportions_z_test,
    wilson_interval,
)
from tests.oracles import oracle

Arm = tuple[int, int]


def arms(most: int) -> st.SearchStrategy[Arm]:
    """(successes, trials), with at least one trial."""
    return st.integers(1, most).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


levels = st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.999])


@pytest.mark.parametrize("row_id", ["wilson-81-263", "wilson-15-148"])
def test_wilson_gives_the_published_interval(row_id: str) -> None:
    row = oracle(row_id)
    inputs = row["inputs"]
    interval = wilson_interval(inputs["x"], inputs["n"], confidence=inputs["level"])
    assert interval == pytest.approx(row["expected"], abs=row["tol"])


@pytest.mark.parametrize("row_id", ["ci-diff-newcombe-score", "newcombe-9-10-3-10", "newcombe-5-56-0-29"])
def test_newcombe_gives_the_published_interval(row_id: str) -> None:
    row = oracle(row_id)
    inputs = row["inputs"]
    counts = inputs["x1"], inputs["n1"], inputs["x2"], inputs["n2"]
    interval = newcombe_interval(*counts, confidence=inputs["level"])
    assert interval == pytest.approx(row["expected"], abs=row["tol"])


def test_the_pooled_z_test_gives_the_published_p_value() -> None:
    row = oracle("ztest-statsmodels-doc")
    (x1, x2), (n1, n2) = row["inputs"]["successes"], row["inputs"]["trials"]
    test = proportions_z_test(x1, n1, x2, n2)
    assert test is not None
    assert test.p_value == pytest.approx(row["expected"], abs=row["tol"])


@settings(max_examples=60, deadline=None)
@given(arms(3000), levels)
def test_wilson_agrees_with_statsmodels(arm: Arm, confidence: float) -> None:
    expected = proportion_confint(*arm, alpha=1 - confidence, method="wilson")
    assert wilson_interval(*arm, confidence=confidence) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(arms(3000), arms(3000), levels)
def test_newcombe_agrees_with_statsmodels(arm1: Arm, arm2: Arm, confidence: float) -> None:
    expected = confint_proportions_2indep(
        *arm1, *arm2, method="newcomb", compare="diff", alpha=1 - confidence
    )
    # statsmodels takes roots of differences, which lose half of the digits where they meet zero
    assert newcombe_interval(*arm1, *arm2, confidence=confidence) == pytest.approx(expected, abs=1e-7)


@settings(max_examples=60, deadline=None)
@given(arms(3000), arms(3000))
def test_the_pooled_z_test_agrees_with_statsmodels(arm1: Arm, arm2: Arm) -> None:
    (x1, n1), (x2, n2) = arm1, arm2
    assume(0 < x1 + x2 < n1 + n2)
    for ours, theirs in (("two-sided", "two-sided"), ("greater", "larger"), ("less", "smaller")):
        expected = statsmodels_ztest([x1, x2], [n1, n2], alternative=theirs)
        assert proportions_z_test(x1, n1, x2, n2, alternative=ours) == pytest.approx(  # type: ignore[arg-type]
            expected, rel=1e-9, abs=1e-12
        )


def barnard_by_summing(arm1: Arm, arm2: Arm) -> float:
    """Sum every table with z within 1e-9 of the tail, at 2,000 rates of the exact interval of the common one."""
    (x1, n1), (x2, n2) = arm1, arm2
    first, second = np.meshgrid(np.arange(n1 + 1), np.arange(n2 + 1), indexing="ij")
    pooled = (first + second) / (n1 + n2)
    spread = pooled * (1 - pooled) * (1 / n1 + 1 / n2)
    z = np.abs(first / n1 - second / n2) / np.sqrt(np.where(spread > 0, spread, 1.0))
    tail = z >= z[x1, x2] - 1e-9
    possible = scipy.stats.binomtest(x1 + x2, n1 + n2).proportion_ci(1 - 1e-6, method="exact")
    tables = [
        np.outer(
            scipy.stats.binom.pmf(np.arange(n1 + 1), n1, rate),
            scipy.stats.binom.pmf(np.arange(n2 + 1), n2, rate),
        )
        for rate in np.linspace(possible.low, possible.high, 2000)
    ]
    return min(1.0, max(float(table[tail].sum()) for table in tables) + 1e-6)


@settings(max_examples=15, deadline=None)
@given(arms(40), arms(40))
def test_barnard_finds_the_largest_tail_that_summing_every_table_finds(arm1: Arm, arm2: Arm) -> None:
    (x1, n1), (x2, n2) = arm1, arm2
    assume(x1 * n2 != x2 * n1)
    p = barnard_p(*arm1, *arm2)
    expected = barnard_by_summing(arm1, arm2)
    assert p is not None
    # a maximum between two of the 2,000 rates may be a little higher, never lower
    assert expected * (1 - 1e-9) <= p <= expected * (1 + 1e-4)


@pytest.mark.parametrize(
    ("arm1", "arm2"),
    [((3, 15), (9, 15)), ((0, 8), (3, 9)), ((2, 3), (0, 4)), ((250, 499), (220, 500)), ((0, 900), (3, 99))],
    ids=str,
)
def test_barnard_agrees_with_scipy(arm1: Arm, arm2: Arm) -> None:
    (x1, n1), (x2, n2) = arm1, arm2
    expected = scipy.stats.barnard_exact([[x1, x2], [n1 - x1, n2 - x2]], n=32).pvalue
    # scipy's looks at every rate from 0 to 1; in these tables the largest tail is at one that the data allow
    assert barnard_p(x1, n1, x2, n2) == pytest.approx(expected + 1e-6, rel=1e-6)


def test_a_rate_that_the_data_rule_out_decides_no_p_value() -> None:
    """At a common rate near 0 one success among the 20 is as far apart as 13; at 41 % it is not to be had."""
    everywhere = scipy.stats.barnard_exact(np.array([[13, 410], [7, 569]]), n=256).pvalue
    p, approximate = barnard_p(13, 20, 410, 979), proportions_z_test(13, 20, 410, 979)
    assert approximate is not None
    assert everywhere > 0.08
    assert p == pytest.approx(approximate.p_value, abs=0.001)


@pytest.mark.parametrize(("n1", "n2"), [(10, 10), (20, 20), (8, 31)])
@pytest.mark.parametrize("rate", [0.05, 0.3, 0.5])
def test_barnard_rejects_no_more_than_alpha_when_there_is_no_difference(
    n1: int, n2: int, rate: float
) -> None:
    """Exactly, by summing the probability of every table that is rejected; it uses more of alpha than Fisher."""
    chance = np.outer(*(scipy.stats.binom.pmf(np.arange(n + 1), n, rate) for n in (n1, n2)))

    def false_alarms(test: Callable[[int, int], float | None]) -> float:
        p_values = np.array([[test(x1, x2) for x2 in range(n2 + 1)] for x1 in range(n1 + 1)], dtype=float)
        return float(chance[p_values <= 0.05].sum())

    def fisher(x1: int, x2: int) -> float:
        return float(scipy.stats.fisher_exact(np.array([[x1, x2], [n1 - x1, n2 - x2]])).pvalue)

    assert false_alarms(fisher) <= false_alarms(lambda x1, x2: barnard_p(x1, n1, x2, n2)) <= 0.05


def newcombe_coverage(n1: int, n2: int, p1: float, p2: float) -> float:
    chance = np.outer(
        scipy.stats.binom.pmf(np.arange(n1 + 1), n1, p1), scipy.stats.binom.pmf(np.arange(n2 + 1), n2, p2)
    )
    covered = 0.0
    for x1 in range(n1 + 1):
        for x2 in range(n2 + 1):
            interval = newcombe_interval(x1, n1, x2, n2)
            assert interval is not None
            covered += chance[x1, x2] * (not interval.excludes(p1 - p2))
    return covered


@pytest.mark.parametrize(
    ("n1", "n2", "p1", "p2"),
    [(10, 10, 0.5, 0.5), (10, 10, 0.9, 0.3), (30, 30, 0.05, 0.1), (15, 60, 0.8, 0.7), (40, 40, 0.02, 0.02)],
)
def test_newcombe_covers_the_difference_nearly_as_often_as_it_says(
    n1: int, n2: int, p1: float, p2: float
) -> None:
    """Summed over every table. Newcombe 1998 reports 95.2 % on average and 88 % at the worst point for 95 %."""
    assert newcombe_coverage(n1, n2, p1, p2) > 0.92


@settings(max_examples=30, deadline=None)
@given(arms(300), arms(300), levels)
def test_swapping_the_arms_mirrors_everything_exactly(arm1: Arm, arm2: Arm, confidence: float) -> None:
    forth = proportion_difference(*arm1, *arm2, confidence=confidence)
    back = proportion_difference(*arm2, *arm1, confidence=confidence)
    assert forth is not None
    assert back is not None
    assert (back.value, back.low, back.high) == (-forth.value, -forth.high, -forth.low)
    assert back.p_value == pytest.approx(forth.p_value, rel=1e-6)
    one_sided = [
        test.p_value
        for test in (
            proportions_z_test(*arm1, *arm2, alternative="greater"),
            proportions_z_test(*arm2, *arm1, alternative="less"),
        )
        if test is not None
    ]
    assert one_sided[0] == one_sided[1]


@settings(max_examples=30, deadline=None)
@given(arms(800), arms(800))
def test_counting_failures_instead_of_successes_mirrors_everything(arm1: Arm, arm2: Arm) -> None:
    (x1, n1), (x2, n2) = arm1, arm2
    successes = proportion_difference(x1, n1, x2, n2)
    failures = proportion_difference(n1 - x1, n1, n2 - x2, n2)
    assert successes is not None
    assert failures is not None
    assert (failures.value, failures.low, failures.high) == pytest.approx(
        (-successes.value, -successes.high, -successes.low), abs=1e-12
    )
    # the two searches climb the same curve from its two ends
    assert failures.p_value == pytest.approx(successes.p_value, rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(arms(10**9), arms(10**9), levels)
def test_intervals_hold_the_estimate_and_stay_within_what_is_possible(
    arm1: Arm, arm2: Arm, confidence: float
) -> None:
    (x1, n1), (x2, n2) = arm1, arm2
    single, difference = wilson_interval(x1, n1, confidence=confidence), newcombe_interval(*arm1, *arm2)
    assert single is not None
    assert difference is not None
    assert 0.0 <= single.low <= x1 / n1 <= single.high <= 1.0
    assert -1.0 - 1e-15 <= difference.low <= x1 / n1 - x2 / n2 <= difference.high <= 1.0 + 1e-15


@settings(max_examples=60, deadline=None)
@given(arms(500), arms(500))
def test_a_higher_level_makes_a_wider_interval(arm1: Arm, arm2: Arm) -> None:
    narrow, wide = (newcombe_interval(*arm1, *arm2, confidence=level) for level in (0.8, 0.95))
    assert narrow is not None
    assert wide is not None
    assert wide.low <= narrow.low < narrow.high <= wide.high
    assert wide.high - wide.low > narrow.high - narrow.low


def test_no_trials_give_no_answer() -> None:
    assert wilson_interval(0, 0) is None
    for counts in ((0, 0, 3, 10), (3, 10, 0, 0), (0, 0, 0, 0)):
        assert newcombe_interval(*counts) is None
        assert proportions_z_test(*counts) is None
        assert barnard_p(*counts) is None
        assert proportion_difference(*counts) is None


def test_no_successes_and_nothing_but_successes_end_exactly_at_the_bounds() -> None:
    none, all_of_them = wilson_interval(0, 20), wilson_interval(20, 20)
    assert none is not None
    assert all_of_them is not None
    assert none.low == 0.0
    assert 0.0 < none.high < 0.2
    assert all_of_them == Interval(1.0 - none.high, 1.0)


@pytest.mark.parametrize("successes", [0, 5])
def test_arms_where_nothing_varies_are_no_evidence_and_have_an_interval(successes: int) -> None:
    assert proportions_z_test(successes, 5, successes, 5) == ZTest(None, 1.0)
    assert proportions_z_test(successes, 5, successes, 5, alternative="greater") == ZTest(None, 1.0)
    difference = proportion_difference(successes, 5, successes, 5)
    assert difference is not None
    assert difference.p_value == 1.0
    assert difference.low == pytest.approx(-difference.high)
    assert 0.3 < difference.high < 0.6


def test_one_unit_an_arm_is_never_evidence() -> None:
    difference = proportion_difference(1, 1, 0, 1)
    assert difference is not None
    # of the four tables (1, 0) and (0, 1) are as far apart: 2 p q, at most 1/2
    assert difference.p_value == pytest.approx(0.5, abs=2e-6)
    assert difference.low < 0.0 < difference.high


def test_the_p_value_is_exact_below_the_threshold_and_approximate_from_it() -> None:
    below = proportion_difference(60, 499, 40, EXACT_BELOW - 500)
    at = proportion_difference(60, 500, 40, EXACT_BELOW - 500)
    assert isinstance(below, ProportionDifference)
    assert isinstance(at, ProportionDifference)
    assert (below.method, at.method) == ("barnard exact", "pooled z")
    assert below.p_value == pytest.approx(at.p_value, abs=0.01)
    exact, approximate = barnard_p(60, 499, 40, 500), proportions_z_test(60, 500, 40, 500)
    assert approximate is not None
    assert (below.p_value, at.p_value) == (exact, approximate.p_value)


def test_the_farthest_tables_have_the_smallest_p_value_there_is() -> None:
    assert barnard_p(499, 499, 0, 500) == pytest.approx(1e-6)


@pytest.mark.parametrize(
    ("counts", "field"),
    [
        ((11, 10, 1, 10), "x1"),
        ((1, 10, -1, 10), "x2"),
        ((1.5, 10, 1, 10), "x1"),
        ((float("nan"), 10, 1, 10), "x1"),
        ((1, 10, 1, float("inf")), "trials of x2"),
        ((0, -1, 1, 10), "trials of x1"),
        ((0, 10.5, 1, 10), "trials of x1"),
    ],
)
def test_impossible_counts_are_refused(counts: tuple[float, float, float, float], field: str) -> None:
    for function in (newcombe_interval, proportions_z_test, barnard_p, proportion_difference):
        with pytest.raises(InvalidInputError) as refused:
            function(*counts)
        assert refused.value.field == field


def test_wilson_refuses_more_successes_than_trials() -> None:
    with pytest.raises(InvalidInputError, match="successes"):
        wilson_interval(3, 2)


def test_barnard_refuses_tables_that_are_too_large() -> None:
    with pytest.raises(InvalidInputError, match="proportions_z_test"):
        barnard_p(1, 500, 2, 500)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, float("nan")])
def test_impossible_levels_are_refused(confidence: float) -> None:
    with pytest.raises(InvalidInputError, match="confidence"):
        wilson_interval(1, 2, confidence=confidence)
    with pytest.raises(InvalidInputError, match="confidence"):
        proportion_difference(1, 2, 1, 2, confidence=confidence)
