"""Evidence that bounded scores are beyond a bound, or worse than a control's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptab.errors import InvalidInputError
from promptab.stats.interval import Side
from promptab.stats.metric import Direction
from promptab.stats.score_bound import score_log_e_value, score_regression_log_e_value

ratings = st.lists(st.integers(1, 5).map(float), max_size=40)


def of_ratings(scores: list[float], bound: float, claim: Side) -> float:
    return score_log_e_value(scores, bound=bound, claim=claim, low=1.0, high=5.0, alpha=0.05)


def worse(
    treatment: list[float], control: list[float], direction: Direction = "increase", **how: float
) -> float:
    return score_regression_log_e_value(
        treatment,
        control,
        margin=how.get("margin", 0.0),
        relative=bool(how.get("relative")),
        direction=direction,
        low=1.0,
        high=5.0,
        alpha=0.05,
    )


@given(ratings, st.sampled_from([1.0, 2.5, 4.0, 5.0]))
def test_scores_turned_round_say_the_same_of_the_bound_turned_round(
    scores: list[float], bound: float
) -> None:
    turned = [6.0 - score for score in scores]
    assert of_ratings(scores, bound, "less") == pytest.approx(
        of_ratings(turned, 6.0 - bound, "greater"), abs=1e-9
    )


def test_means_within_the_bound_win_no_bet_and_means_beyond_it_do() -> None:
    generator = np.random.default_rng(8)
    beyond = [float(score) for score in generator.integers(1, 4, 200)]
    assert of_ratings(beyond, 3.5, "less") > math.log(20.0) > of_ratings(beyond, 3.5, "greater")


def test_a_bound_that_no_score_can_pass_is_never_broken() -> None:
    assert of_ratings([1.0] * 50, 0.5, "less") == 0.0
    assert of_ratings([], 3.0, "less") == 0.0


def test_a_score_outside_its_bounds_is_refused() -> None:
    with pytest.raises(InvalidInputError):
        of_ratings([6.0], 3.0, "less")


@given(ratings, ratings, st.sampled_from([0.0, 0.4]))
def test_a_decrease_is_judged_as_an_increase_of_the_scores_turned_round(
    treatment: list[float], control: list[float], margin: float
) -> None:
    turned = [[6.0 - score for score in arm] for arm in (treatment, control)]
    assert worse(treatment, control, margin=margin) == pytest.approx(
        worse(turned[0], turned[1], "decrease", margin=margin), abs=1e-9
    )


def test_units_without_a_partner_are_left_out() -> None:
    assert worse([2.0, 3.0], [4.0, 4.0, 1.0]) == worse([2.0, 3.0], [4.0, 4.0])


@pytest.mark.parametrize("relative", [False, True])
def test_a_margin_is_taken_off_before_the_harm_is_weighed(relative: bool) -> None:
    generator = np.random.default_rng(9)
    control = [float(score) for score in generator.integers(3, 6, 300)]
    treatment = [score - 1.0 for score in reversed(control)]
    amount = 0.25 if relative else 1.0
    assert worse(treatment, control) > math.log(1e6)
    assert worse(treatment, control, margin=amount, relative=relative) < math.log(20.0)
    assert worse(treatment, control, margin=amount / 2.0, relative=relative) > math.log(20.0)


def test_equal_arms_are_rarely_called_different_at_any_of_their_looks() -> None:
    generator = np.random.default_rng(10)
    wrong = 0
    for _ in range(150):
        arms = [[float(score) for score in generator.integers(1, 6, 60)] for _ in range(2)]
        looks = (worse(arms[0][:units], arms[1][:units]) for units in range(5, 61, 5))
        wrong += max(looks) >= math.log(20.0)
    # alpha is 0.05: 17 of 150 has a chance below 1 in 400 where the promise holds
    assert wrong < 17
