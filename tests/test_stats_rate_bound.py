"""Evidence that a rate is beyond a bound."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import beta

from promptab.errors import InvalidInputError
from promptab.stats.interval import Side
from promptab.stats.rate_bound import rate_log_e_value, unit_rate_log_e_value

counts = st.tuples(st.integers(0, 60), st.integers(0, 60))
bounds = st.floats(0.02, 0.98)


def mixed_by_quadrature(successes: int, failures: int, bound: float) -> float:
    """Return the mixture for "less" as its definition says, by adaptive quadrature."""
    prior = beta(max(0.5, 10.0 * bound), max(0.5, 10.0 * (1.0 - bound)))

    def capital(rate: float) -> float:
        return float(
            (rate / bound) ** successes * ((1.0 - rate) / (1.0 - bound)) ** failures * prior.pdf(rate)
        )

    return float(quad(capital, 0.0, bound, limit=200)[0] / prior.cdf(bound))


def expected_capital(rate: float, bound: float, trials: int, claim: Side) -> float:
    return sum(
        math.comb(trials, k)
        * rate**k
        * (1.0 - rate) ** (trials - k)
        * math.exp(rate_log_e_value(k, trials, bound=bound, claim=claim))
        for k in range(trials + 1)
    )


def detection_times(rate: float, bound: float, *, runs: int, most: int, seed: int) -> np.ndarray:
    """Return the units before the alarm at alpha 0.05, looking after every five; inf without one."""
    generator = np.random.default_rng(seed)
    found = np.full(runs, np.inf)
    for run in range(runs):
        successes = np.cumsum(generator.random(most) < rate)
        for units in range(5, most + 1, 5):
            evidence = rate_log_e_value(int(successes[units - 1]), units, bound=bound, claim="less")
            if evidence >= math.log(20.0):
                found[run] = units
                break
    return found


@given(counts, bounds)
@settings(max_examples=40, deadline=None)
def test_the_evidence_is_the_mixture_that_its_definition_names(seen: tuple[int, int], bound: float) -> None:
    successes, failures = seen
    found = rate_log_e_value(successes, successes + failures, bound=bound, claim="less")
    assert math.exp(found) == pytest.approx(mixed_by_quadrature(successes, failures, bound), rel=1e-5)


@pytest.mark.parametrize("claim", ["less", "greater"])
@pytest.mark.parametrize("bound", [0.1, 0.5, 0.9, 0.99])
def test_nobody_gets_rich_on_average_while_the_bound_holds(bound: float, claim: Side) -> None:
    inward = 0.3 * (1.0 - bound) if claim == "less" else -0.3 * bound
    assert expected_capital(bound, bound, 12, claim) == pytest.approx(1.0, rel=1e-9)
    assert expected_capital(bound + inward, bound, 12, claim) < 1.0
    assert expected_capital(bound - inward, bound, 12, claim) > 1.0


@given(counts, bounds)
def test_failures_say_against_their_bound_what_successes_say(seen: tuple[int, int], bound: float) -> None:
    successes, failures = seen
    trials = successes + failures
    low = rate_log_e_value(successes, trials, bound=bound, claim="less")
    high = rate_log_e_value(failures, trials, bound=1.0 - bound, claim="greater")
    assert low == pytest.approx(high, rel=1e-7, abs=1e-7)


def test_a_bound_that_allows_nothing_is_broken_by_one_outcome() -> None:
    assert rate_log_e_value(99, 100, bound=1.0, claim="less") == math.inf
    assert rate_log_e_value(1, 100, bound=0.0, claim="greater") == math.inf
    assert rate_log_e_value(100, 100, bound=1.0, claim="less") == 0.0
    assert rate_log_e_value(0, 100, bound=0.0, claim="greater") == 0.0


def test_no_rate_is_below_nought_or_above_one() -> None:
    assert rate_log_e_value(0, 100, bound=0.0, claim="less") == 0.0
    assert rate_log_e_value(100, 100, bound=1.0, claim="greater") == 0.0


def test_without_trials_there_is_no_evidence() -> None:
    assert rate_log_e_value(0, 0, bound=0.8, claim="less") == 0.0


def test_evidence_too_small_for_a_float_is_none_at_all() -> None:
    assert rate_log_e_value(999_000, 1_000_000, bound=0.5, claim="less") == -math.inf


def test_millions_of_trials_are_weighed_without_overflow() -> None:
    found = rate_log_e_value(7_000_000, 10_000_000, bound=0.9, claim="less")
    divergence = 0.7 * math.log(0.7 / 0.9) + 0.3 * math.log(0.3 / 0.1)
    assert found == pytest.approx(10_000_000 * divergence, rel=1e-4)


@pytest.mark.parametrize(
    ("successes", "trials", "bound", "field"),
    [(5, 4, 0.5, "successes"), (-1, 4, 0.5, "successes"), (1, -4, 0.5, "trials"), (1, 4, 1.5, "bound")],
)
def test_what_is_no_rate_is_refused(successes: int, trials: int, bound: float, field: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        rate_log_e_value(successes, trials, bound=bound, claim="less")
    assert refused.value.field == field


def test_a_rate_at_its_bound_is_rarely_called_broken_however_often_one_looks() -> None:
    times = detection_times(0.9, 0.9, runs=200, most=400, seed=3)
    # alpha is 0.05: 20 of 200 has a chance below 1 in 400 where the promise holds
    assert np.isfinite(times).sum() < 20


@pytest.mark.parametrize("rate", [0.8, 0.7])
def test_a_fallen_rate_is_found_near_the_bound_of_information(rate: float) -> None:
    divergence = rate * math.log(rate / 0.9) + (1.0 - rate) * math.log((1.0 - rate) / 0.1)
    fewest = math.log(20.0) / divergence
    times = detection_times(rate, 0.9, runs=120, most=round(5 * fewest), seed=4)
    assert np.median(times) <= 1.6 * fewest


Law = list[tuple[float, float, float]]
"""(probability, n, s) of one unit."""


def law(bound: float, few: int, many: int, share: float, *, few_fail: float) -> Law:
    """Return units of `few` outcomes or, with the chance `share`, of `many`: all of a unit's fail together, of the few
    with the chance `few_fail`, and of the many as often as keeps the rate at the bound.
    """
    failing = (1.0 - bound) * ((1.0 - share) * few + share * many)
    many_fail = (failing - (1.0 - share) * few * few_fail) / (share * many)
    assert 0.0 <= many_fail <= 1.0
    return [
        ((1.0 - share) * few_fail, few, 0.0),
        ((1.0 - share) * (1.0 - few_fail), few, few),
        (share * many_fail, many, 0.0),
        (share * (1.0 - many_fail), many, many),
    ]


def expected(of_unit: Law, bound: float, units: int, claim: Side) -> float:
    """Return the expected capital after so many units, by enumeration."""
    total = 0.0
    for drawn in itertools.product(of_unit, repeat=units):
        seen = [(n, s if claim == "less" else n - s) for _, n, s in drawn]
        at = bound if claim == "less" else 1.0 - bound
        total += math.prod(chance for chance, _, _ in drawn) * math.exp(
            unit_rate_log_e_value(seen, bound=at, claim=claim)
        )
    return total


@pytest.mark.parametrize("claim", ["less", "greater"])
@pytest.mark.parametrize("bound", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("few_fail", [0.0, 0.5, 1.0])
def test_units_whose_outcomes_are_alike_make_nobody_rich(few_fail: float, bound: float, claim: Side) -> None:
    """Whatever the number of a unit's outcomes has to do with how they turn out."""
    chance = min(few_fail, (1.0 - bound) * 2.0)
    assert expected(law(bound, 2, 4, 0.5, few_fail=chance), bound, 4, claim) == pytest.approx(1.0, rel=1e-9)
    # 8 outcomes are more than the smallest bet allows, and not more than twice as many
    assert expected(law(bound, 2, 8, 0.3, few_fail=chance), bound, 4, claim) <= 1.0 + 1e-9
    better = [(0.5 * (1.0 - bound), 3.0, 0.0), (1.0 - 0.5 * (1.0 - bound), 3.0, 3.0)]
    assert expected(better, bound, 4, claim) < 1.0
    worse = [(min(1.0, 1.5 * (1.0 - bound)), 3.0, 0.0), (1.0 - min(1.0, 1.5 * (1.0 - bound)), 3.0, 3.0)]
    assert expected(worse, bound, 4, claim) > 1.0


def test_rare_units_of_far_more_outcomes_than_a_bet_allows_are_what_it_assumes_away() -> None:
    """Of those with more than 4 outcomes each has 64, and they succeed where the others fail."""
    skewed = law(0.9, 1, 64, 0.02, few_fail=0.15)
    assert 1.0 < expected(skewed, 0.9, 3, "less") < 1.02


unit_totals = st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(float(n)), st.integers(0, n).map(float)))


@given(st.lists(unit_totals, min_size=1, max_size=12), bounds)
def test_the_capital_of_units_is_the_mean_of_the_bets_that_are_left(
    units: list[tuple[float, float]], bound: float
) -> None:
    capital = 0.0
    for power in range(9):
        most = 4.0 * 2.0**power
        if all(n <= most for n, _ in units):
            stakes = 1.0 / (2.0 * most * (1.0 - bound))
            capital += math.prod(1.0 + stakes * (bound * n - s) for n, s in units) / 9.0
    found = unit_rate_log_e_value(units, bound=bound, claim="less")
    assert found == pytest.approx(math.log(capital), rel=1e-9, abs=1e-9)
    assert unit_rate_log_e_value(units[::-1], bound=bound, claim="less") == pytest.approx(found, abs=1e-12)


@given(st.lists(unit_totals, min_size=1, max_size=12), st.sampled_from([0.125, 0.25, 0.5, 0.75]))
def test_failures_of_units_say_bit_for_bit_what_successes_say(
    units: list[tuple[float, float]], bound: float
) -> None:
    failures = [(n, n - s) for n, s in units]
    low = unit_rate_log_e_value(units, bound=bound, claim="less")
    assert unit_rate_log_e_value(failures, bound=1.0 - bound, claim="greater") == low


def test_a_unit_of_more_outcomes_than_any_bet_allows_leaves_nothing() -> None:
    assert unit_rate_log_e_value([(1025.0, 0.0)], bound=0.9, claim="less") == -math.inf
    assert unit_rate_log_e_value([(1024.0, 0.0)] * 2, bound=0.9, claim="less") > 0.0
    assert unit_rate_log_e_value([], bound=0.9, claim="less") == 0.0


def test_units_behind_a_bound_at_an_end_are_as_trials_are() -> None:
    assert unit_rate_log_e_value([(3.0, 0.0)], bound=0.0, claim="less") == 0.0
    assert unit_rate_log_e_value([(3.0, 2.0)], bound=1.0, claim="less") == math.inf
    assert unit_rate_log_e_value([(3.0, 3.0)], bound=1.0, claim="less") == 0.0
    assert unit_rate_log_e_value([(3.0, 1.0)], bound=0.0, claim="greater") == math.inf


@pytest.mark.parametrize("unit", [(2.0, 3.0), (2.0, -1.0), (math.nan, 0.0), (math.inf, 1.0), (2.0, math.nan)])
def test_a_unit_with_other_outcomes_than_successes_and_failures_is_refused(unit: tuple[float, float]) -> None:
    with pytest.raises(InvalidInputError, match=r"units\[1\].*0 <= s <= n"):
        unit_rate_log_e_value([(1.0, 1.0), unit], bound=0.9, claim="less")


def test_units_of_many_alike_outcomes_alarm_wrongly_less_often_than_alpha() -> None:
    """With looks after every unit, all outcomes of a unit alike, and short units that fail while long ones succeed."""
    generator, runs, alarms = np.random.default_rng(5), 400, 0
    for _ in range(runs):
        n = generator.geometric(0.1, 60).astype(np.float64)
        # 10 % of all outcomes are failures: whole units of up to 8 outcomes with the chance c, no others
        short = n <= 8.0
        share_of_short = sum(k * 0.9 ** (k - 1) * 0.1 for k in range(1, 9)) / 10.0
        fails = short & (generator.random(60) < 0.1 / share_of_short)
        units = list(zip(n, np.where(fails, 0.0, n), strict=True))
        seen = (
            unit_rate_log_e_value(units[:count], bound=0.9, claim="less") for count in range(2, len(units))
        )
        alarms += any(log_e >= math.log(20.0) for log_e in seen)
    assert alarms <= 0.05 * runs
