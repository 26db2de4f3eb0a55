"""Shares of a bandit: exact probabilities, both directions alike, floors kept."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptab.bandit import ALGORITHMS, Algorithm
from promptab.stats.bandit import bandit_shares, best_probabilities, with_challenger
from promptab.stats.beta import BetaRate, RateDifference, probabilities_highest
from promptab.stats.contrast import ArmMean
from promptab.stats.metric import Direction

RATES = st.lists(
    st.tuples(st.integers(2, 5_000), st.floats(0.0, 1.0)).map(
        lambda pair: (round(pair[0] * pair[1]), pair[0])
    ),
    min_size=2,
    max_size=5,
)
"""(successes, units) of each arm."""
MEANS = st.lists(
    st.tuples(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 10_000)), min_size=2, max_size=5
)
FLOORS = st.floats(0.0, 0.19)
mirrored = pytest.mark.parametrize("algorithm", ALGORITHMS)


def rate(successes: int, units: int) -> ArmMean:
    value = successes / units
    return ArmMean(value, value * (1.0 - value) / (units - 1), units)


def named(arms: list[ArmMean]) -> dict[str, ArmMean]:
    return {chr(ord("a") + index): arm for index, arm in enumerate(arms)}


def keep_their_bounds(weights: Mapping[str, float], floor: float) -> bool:
    return math.isclose(math.fsum(weights.values()), 1.0, abs_tol=1e-12) and min(weights.values()) >= floor


@mirrored
@given(rates=RATES, floor=FLOORS)
def test_weights_of_rates_sum_to_one_and_keep_the_floor(
    algorithm: Algorithm, rates: list[tuple[int, int]], floor: float
) -> None:
    arms = named([rate(*one) for one in rates])
    found = bandit_shares(arms, algorithm=algorithm, floor=floor, are_trials=True)
    assert keep_their_bounds(found.weights, floor)
    assert list(found.weights) == list(arms)


@mirrored
@given(means=MEANS, floor=FLOORS, challenger=st.floats(0.0, 0.5))
def test_weights_of_means_sum_to_one_and_keep_the_floor(
    algorithm: Algorithm, means: list[tuple[float, float, int]], floor: float, challenger: float
) -> None:
    arms = named([ArmMean(*mean) for mean in means])
    found = bandit_shares(
        arms,
        algorithm=algorithm,
        floor=floor,
        challenger=challenger if algorithm == "thompson" else 0.0,
        direction="decrease",
    )
    assert keep_their_bounds(found.weights, floor)


@mirrored
@given(rates=RATES)
def test_rates_to_be_decreased_are_those_of_failures_to_be_increased(
    algorithm: Algorithm, rates: list[tuple[int, int]]
) -> None:
    wins = named([rate(won, units) for won, units in rates])
    losses = named([rate(units - won, units) for won, units in rates])
    for are_trials in (True, False):
        up = bandit_shares(losses, algorithm=algorithm, are_trials=are_trials)
        down = bandit_shares(wins, algorithm=algorithm, are_trials=are_trials, direction="decrease")
        assert list(down.weights.values()) == pytest.approx(list(up.weights.values()), abs=1e-12)


@mirrored
@given(means=MEANS)
def test_means_to_be_decreased_are_their_negatives_to_be_increased_to_the_last_bit(
    algorithm: Algorithm, means: list[tuple[float, float, int]]
) -> None:
    arms = named([ArmMean(*mean) for mean in means])
    negated = {key: arm._replace(value=-arm.value) for key, arm in arms.items()}
    assert bandit_shares(arms, algorithm=algorithm, direction="decrease") == bandit_shares(
        negated, algorithm=algorithm
    )


@pytest.mark.parametrize("direction", ["increase", "decrease"])
def test_of_rates_of_10_12_and_15_percent_the_best_two_are_ranked_by_the_direction(
    direction: Direction,
) -> None:
    """GrowthBook's top-two weights index ranks 2 and 3 for a metric where lower is better, and fail with two arms."""
    arms = named([rate(100, 1_000), rate(120, 1_000), rate(150, 1_000)])
    best = bandit_shares(arms, direction=direction, challenger=0.5, are_trials=True)
    order = ["a", "b", "c"] if direction == "decrease" else ["c", "b", "a"]
    assert sorted(best.weights, key=best.weights.__getitem__, reverse=True) == order
    assert best.best[order[0]] > 0.9
    two = bandit_shares(named([rate(100, 1_000), rate(120, 1_000)]), direction=direction, are_trials=True)
    assert (two.weights["a"] > 0.5) is (direction == "decrease")


@given(st.tuples(*(st.tuples(st.floats(0.5, 1e5), st.floats(0.5, 1e5)) for _ in range(2))))
def test_two_rates_are_compared_as_their_difference_is(shapes: tuple[tuple[float, float], ...]) -> None:
    one, other = (BetaRate(*shape) for shape in shapes)
    found = probabilities_highest([one, other])
    # a weight needs four digits; shapes below 1 have the longest tails, and the largest error that was met is 2.5e-6
    assert found[0] == pytest.approx(RateDifference(one, other).probability_above(), abs=1e-5)


@pytest.mark.parametrize(
    "shapes",
    [
        [(1, 1), (1, 1), (1, 1)],
        [(51, 51), (61, 41), (56, 46)],
        [(2, 300), (3, 300), (1, 5)],
        [(1_000, 9_000), (1_050, 9_000), (1_100, 9_000), (1, 1), (30, 300)],
    ],
    ids=["flat", "middling", "rare", "five"],
)
def test_the_highest_of_several_rates_is_as_often_each_of_them_in_draws(
    shapes: list[tuple[int, int]],
) -> None:
    generator = np.random.default_rng(5)
    draws = np.stack([generator.beta(*shape, size=200_000) for shape in shapes])
    counted = np.bincount(draws.argmax(axis=0), minlength=len(shapes)) / draws.shape[1]
    assert probabilities_highest([BetaRate(*shape) for shape in shapes]) == pytest.approx(counted, abs=0.005)


@pytest.mark.parametrize("challenger", [0.2, 0.5])
def test_the_challenger_is_drawn_until_it_is_another_arm(challenger: float) -> None:
    probabilities = [0.55, 0.3, 0.1, 0.05]
    generator = np.random.default_rng(6)
    first = generator.choice(4, size=200_000, p=probabilities)
    again = first.copy()
    while (same := again == first).any():
        again[same] = generator.choice(4, size=int(same.sum()), p=probabilities)
    drawn = np.where(generator.random(first.size) < challenger, again, first)
    counted = np.bincount(drawn, minlength=4) / drawn.size
    assert with_challenger(probabilities, challenger) == pytest.approx(counted, abs=0.005)


def test_half_of_two_arms_goes_to_the_challenger() -> None:
    assert with_challenger([0.9, 0.1], 0.5) == pytest.approx([0.5, 0.5])
    assert with_challenger([1.0, 0.0, 0.0], 0.5) == [1.0, 0.0, 0.0]
    assert with_challenger([1.0], 0.5) == [1.0]


def test_greedy_gives_all_that_is_free_to_the_best_estimate_and_ties_share() -> None:
    arms = named([rate(50, 100), rate(60, 100), rate(5, 10)])
    shares = bandit_shares(arms, algorithm="epsilon_greedy", floor=0.1).weights
    assert shares == pytest.approx({"a": 0.1, "b": 0.8, "c": 0.1})
    tied = bandit_shares(named([rate(60, 100)] * 2), algorithm="epsilon_greedy", floor=0.1).weights
    assert tied == pytest.approx({"a": 0.5, "b": 0.5})


def test_the_upper_bound_prefers_the_arm_that_little_is_known_of() -> None:
    arms = named([rate(500, 1_000), rate(5, 10)])
    assert bandit_shares(arms, algorithm="ucb", floor=0.05).weights["b"] == pytest.approx(0.95)
    assert bandit_shares(arms, algorithm="ucb", floor=0.05, direction="decrease").weights[
        "b"
    ] == pytest.approx(0.95)


def test_a_rate_is_worth_as_many_trials_as_its_variance_says() -> None:
    """With half as many trials in effect, the better arm is less surely the best."""
    sure = [rate(50, 100), rate(62, 100)]
    less = [arm._replace(variance=2.0 * arm.variance) for arm in sure]
    found = best_probabilities(sure, are_trials=True)
    assert found[1] == pytest.approx(
        RateDifference(BetaRate(63.0, 39.0), BetaRate(51.0, 51.0)).probability_above(), abs=1e-9
    )
    assert 0.5 < best_probabilities(less, are_trials=True)[1] < found[1]


def test_arms_that_never_vary_are_dealt_alike_or_take_the_others_spread() -> None:
    still = ArmMean(1.0, 0.0, 50)
    assert bandit_shares(named([still, still, still])).weights == pytest.approx(
        dict.fromkeys("abc", 1.0 / 3.0)
    )
    lent = bandit_shares(named([still, ArmMean(0.9, 0.01, 50)])).weights
    assert 0.5 < lent["a"] < 0.9


def test_numbers_that_overflow_are_dealt_alike() -> None:
    found = bandit_shares(named([ArmMean(1e300, 1.0, 50), ArmMean(1.0, 1.0, 50)]), floor=0.05)
    assert found.weights == {"a": 0.5, "b": 0.5}
