"""Evidence that a rate is beyond a bound."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import beta

from promptab.errors import InvalidInputError
from promptab.stats.interval import Side
from promptab.stats.rate_bound import rate_log_e_value

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
