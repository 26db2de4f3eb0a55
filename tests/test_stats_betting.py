"""Confidence sequences by betting and by beta mixtures: published numbers, exact coverage, symmetries."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import betaln
from scipy.stats import binom

from promptab.errors import InvalidInputError
from promptab.stats.betting import (
    BoundedDifference,
    bernoulli_interval,
    bernoulli_log_e_value,
    betting_difference,
    betting_interval,
)
from promptab.stats.interval import Interval
from tests.oracles import oracle

Floats = npt.NDArray[np.float64]

scores = st.lists(st.floats(0.0, 1.0), max_size=40)
ratings = st.lists(st.integers(1, 5).map(float), max_size=40)
confidences = st.floats(0.5, 0.999)
counts = st.integers(0, 300).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials)))


def hedged_capitals(values: list[float], mean: float, alpha: float) -> tuple[float, float]:
    """Bet score by score, as the paper tells it; return the two capitals, each of a stake of one."""
    up = down = 1.0
    total, squares, variance = 0.5, 0.25, 0.25
    for i, x in enumerate(values, start=1):
        stake = math.sqrt(2 * math.log(2 / alpha) / (variance * i * math.log(i + 1)))
        up *= 1 + min(stake, math.inf if mean == 0 else 0.5 / mean) * (x - mean)
        down *= 1 - min(stake, math.inf if mean == 1 else 0.5 / (1 - mean)) * (x - mean)
        total += x
        squares += (x - total / (i + 1)) ** 2
        variance = squares / (i + 1)
    return up, down


def test_betting_interval_is_the_published_one() -> None:
    row = oracle("cs-betting-50")
    pattern = [1, 0, 1, 1, 0, 1, 1, 1, 0, 1]
    values = (pattern * row["inputs"]["n"])[: row["inputs"]["n"]]
    interval = betting_interval(values, low=0, high=1, confidence=1 - row["inputs"]["alpha"])
    assert list(interval) == pytest.approx(row["expected"], abs=row["tol"])


@settings(max_examples=60)
@given(values=scores, confidence=confidences)
def test_betting_interval_holds_every_mean_against_which_nobody_got_rich(
    values: list[float], confidence: float
) -> None:
    alpha = 1 - confidence
    interval = betting_interval(values, low=0, high=1, confidence=confidence)
    grid = np.linspace(0, 1, 201).tolist()
    kept = [mean for mean in grid if max(hedged_capitals(values, mean, alpha)) / 2 < 0.999999 / alpha]
    lost = [mean for mean in grid if max(hedged_capitals(values, mean, alpha)) / 2 > 1.000001 / alpha]
    assert all(interval.low <= mean <= interval.high for mean in kept)
    if len(lost) < len(grid):
        assert not any(interval.low < mean < interval.high for mean in lost)


@settings(max_examples=60)
@given(values=ratings, confidence=confidences)
def test_betting_interval_of_mirrored_scores_is_mirrored(values: list[float], confidence: float) -> None:
    interval = betting_interval(values, low=1, high=5, confidence=confidence)
    mirrored = betting_interval([6 - x for x in values], low=1, high=5, confidence=confidence)
    assert mirrored == pytest.approx((6 - interval.high, 6 - interval.low), abs=1e-9)


@settings(max_examples=60)
@given(values=scores, shift=st.floats(-100, 100), scale=st.floats(0.01, 1000))
def test_betting_interval_moves_and_stretches_with_its_bounds(
    values: list[float], shift: float, scale: float
) -> None:
    low, high = shift, shift + scale
    interval = betting_interval(values, low=0, high=1)
    moved = betting_interval([min(high, shift + scale * x) for x in values], low=low, high=high)
    assert moved == pytest.approx([shift + scale * end for end in interval], abs=1e-6 * (1 + scale))


def test_betting_interval_of_no_scores_is_all_that_is_possible() -> None:
    assert betting_interval([], low=1, high=5) == Interval(1.0, 5.0)


def test_betting_interval_of_one_score_holds_it() -> None:
    interval = betting_interval([4.0], low=1, high=5)
    assert 1.0 <= interval.low < 4.0 < interval.high <= 5.0


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_scores_that_do_not_vary_narrow_the_interval_around_them(value: float) -> None:
    few, many = (betting_interval([value] * n, low=0, high=1) for n in (10, 200))
    assert few.low <= many.low <= value <= many.high <= few.high
    assert many.high - many.low < 0.1 < few.high - few.low


def test_where_a_drift_leaves_no_mean_nothing_is_said() -> None:
    drifting = [1.0] * 20 + [0.0] * 400
    capitals = [hedged_capitals(drifting, mean, 0.05) for mean in np.linspace(0, 1, 501).tolist()]
    assert all(max(pair) / 2 >= 20 for pair in capitals), "every mean is refuted"
    assert betting_interval(drifting, low=0, high=1) == Interval(0.0, 1.0)
    difference = betting_difference(drifting, [1.0] * 500, low=0, high=1, confidence=0.9)
    assert difference.low < 0.0 < difference.high
    assert difference.p_value == 1.0


def test_betting_interval_covers_the_mean_at_all_looks_at_once() -> None:
    generator = np.random.default_rng(200)
    looks, runs = (5, 10, 20, 50, 100, 200), 300
    samples = {
        "rare successes": (0.1, generator.binomial(1, 0.1, (runs, 200)).astype(float)),
        "scores at both ends": (0.5, generator.beta(0.3, 0.3, (runs, 200))),
    }
    for name, (mean, values) in samples.items():
        missed = sum(
            any(
                not low <= mean <= high
                for low, high in (betting_interval(run[:n], low=0, high=1, confidence=0.9) for n in looks)
            )
            for run in values
        )
        assert missed / runs <= 0.1, name
        assert missed, f"{name}: the interval is no wider than it has to be"


@settings(max_examples=60)
@given(treatment=ratings, control=ratings, confidence=confidences)
def test_difference_and_p_value_agree_on_whether_the_arms_differ(
    treatment: list[float], control: list[float], confidence: float
) -> None:
    difference = betting_difference(treatment, control, low=1, high=5, confidence=confidence)
    assert (difference.p_value <= 1 - confidence) == (difference.low > 0 or difference.high < 0)
    assert -4 <= difference.low <= difference.high <= 4
    assert 0 <= difference.p_value <= 1


@settings(max_examples=60)
@given(
    gap=st.integers(1, 4).map(float),
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    confidence=confidences,
)
def test_arms_far_apart_are_told_apart_by_both_or_by_neither(
    gap: float, sizes: tuple[int, int], confidence: float
) -> None:
    difference = betting_difference(
        [1.0 + gap] * sizes[0], [1.0] * sizes[1], low=1, high=5, confidence=confidence
    )
    assert (difference.p_value <= 1 - confidence) == (difference.low > 0)


@settings(max_examples=60)
@given(treatment=ratings, control=ratings)
def test_difference_of_mirrored_scores_and_of_swapped_arms_is_mirrored(
    treatment: list[float], control: list[float]
) -> None:
    value, low, high, p = betting_difference(treatment, control, low=1, high=5)
    for mirrored in (
        betting_difference([6 - x for x in treatment], [6 - x for x in control], low=1, high=5),
        betting_difference(control, treatment, low=1, high=5),
    ):
        assert mirrored[1:] == pytest.approx((-high, -low, p), rel=1e-9, abs=1e-9)
        assert mirrored.value == (None if value is None else pytest.approx(-value, abs=1e-12))


def test_difference_is_between_two_intervals_of_half_the_error_each() -> None:
    generator = np.random.default_rng(4)
    treatment, control = generator.beta(4, 2, 60), generator.beta(2, 4, 80)
    value, low, high, p = betting_difference(treatment, control, low=0, high=1, confidence=0.9)
    above = betting_interval(treatment, low=0, high=1, confidence=0.95)
    below = betting_interval(control, low=0, high=1, confidence=0.95)
    assert (low, high) == pytest.approx((above.low - below.high, above.high - below.low), abs=1e-12)
    assert value == pytest.approx(treatment.mean() - control.mean(), rel=1e-12)
    assert low > 0
    assert p < 0.1


def test_p_value_is_four_over_the_evidence_that_the_arms_share_no_mean() -> None:
    generator = np.random.default_rng(5)
    treatment, control = generator.beta(4, 2, 30).tolist(), generator.beta(2, 4, 40).tolist()
    evidence = max(
        min(hedged_capitals(treatment, mean, 0.025)[0], hedged_capitals(control, mean, 0.025)[1])
        for mean in np.linspace(0, 1, 4001).tolist()
    )
    difference = betting_difference(treatment, control, low=0, high=1, confidence=0.95)
    assert difference.p_value == pytest.approx(4 / evidence, rel=0.01)
    assert difference.p_value <= 4 / evidence


def test_difference_without_scores_in_an_arm_has_no_value_and_proves_nothing() -> None:
    assert betting_difference([], [], low=1, high=5) == BoundedDifference(None, -4.0, 4.0, 1.0)
    difference = betting_difference([5.0] * 300, [], low=1, high=5)
    assert (difference.value, difference.p_value) == (None, 1.0)
    assert difference.low <= 0.0
    assert difference.high == 4.0


def test_equal_arms_are_seldom_found_to_differ_at_any_look() -> None:
    generator = np.random.default_rng(12)
    runs = 150
    ratings_seen = generator.choice([1.0, 4.0, 5.0], (2, runs, 100), p=[0.2, 0.3, 0.5])
    alarms = sum(
        any(
            betting_difference(treatment[:n], control[:n], low=1, high=5).p_value <= 0.05
            for n in (10, 20, 40, 70, 100)
        )
        for treatment, control in zip(*ratings_seen, strict=True)
    )
    assert alarms / runs <= 0.05


def test_few_units_with_a_large_difference_suffice() -> None:
    difference = betting_difference([5.0, 4.0, 5.0] * 7, [2.0, 1.0, 2.0] * 7, low=1, high=5)
    assert difference.low > 0.0
    assert difference.p_value < 0.05


@pytest.mark.parametrize(
    "row_id", ["cs-bernoulli-700-1000", "cs-bernoulli-15-50", "cs-bernoulli-1-50", "cs-bernoulli-100-200"]
)
def test_bernoulli_interval_is_the_published_one(row_id: str) -> None:
    row = oracle(row_id)
    inputs = row["inputs"]
    interval = bernoulli_interval(
        inputs["successes"], inputs["trials"], tuning_trials=inputs["t_opt"], confidence=1 - inputs["alpha"]
    )
    assert list(interval) == pytest.approx(row["expected"], abs=row["tol"])


@settings(max_examples=60)
@given(count=counts, tuned=st.integers(1, 1000), confidence=confidences)
def test_bernoulli_interval_holds_the_rates_without_enough_evidence_against_them(
    count: tuple[int, int], tuned: int, confidence: float
) -> None:
    successes, trials = count
    low, high = bernoulli_interval(successes, trials, tuning_trials=tuned, confidence=confidence)
    alpha = 1 - confidence
    for rate in np.linspace(0.01, 0.99, 50).tolist():
        surplus = bernoulli_log_e_value(
            successes, trials, rate=rate, tuning_trials=tuned, alpha=alpha
        ) + math.log(alpha)
        if abs(surplus) > 1e-6:
            assert (low <= rate <= high) == (surplus < 0), rate


@given(count=counts, tuned=st.integers(1, 1000), confidence=confidences)
def test_bernoulli_interval_of_failures_is_that_of_successes_mirrored(
    count: tuple[int, int], tuned: int, confidence: float
) -> None:
    successes, trials = count
    low, high = bernoulli_interval(successes, trials, tuning_trials=tuned, confidence=confidence)
    mirrored = bernoulli_interval(trials - successes, trials, tuning_trials=tuned, confidence=confidence)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-9)


@given(count=counts, tuned=st.integers(1, 1000))
def test_ends_are_rounded_away_from_the_rates_that_are_kept(count: tuple[int, int], tuned: int) -> None:
    successes, trials = count
    for rate in bernoulli_interval(successes, trials, tuning_trials=tuned, confidence=0.75):
        log_e = bernoulli_log_e_value(successes, trials, rate=rate, tuning_trials=tuned, alpha=0.25)
        assert rate in {0.0, 1.0} or log_e >= math.log(4)


def test_bernoulli_interval_of_no_trials_is_all_rates() -> None:
    assert bernoulli_interval(0, 0, tuning_trials=100) == Interval(0.0, 1.0)


def test_bernoulli_interval_stays_accurate_with_a_billion_trials() -> None:
    low, high = bernoulli_interval(10**6, 10**9, tuning_trials=1e9)
    se = math.sqrt(0.001 * 0.999 / 10**9)
    # the normal mixture is the limit: 3.035 standard errors at the trials that it is tuned for
    assert ((0.001 - low) / se, (high - 0.001) / se) == pytest.approx((3.0352, 3.0352), rel=0.003)
    rare = bernoulli_interval(30, 10**9, tuning_trials=1e9)
    assert 0.0 < rare.low < 30e-9 < rare.high < 100e-9


@given(
    rate=st.floats(0.01, 0.99), tuned=st.floats(1, 1000), alpha=st.floats(0.001, 0.5), n=st.integers(0, 60)
)
def test_evidence_against_a_rate_is_worth_one_while_the_rate_holds(
    rate: float, tuned: float, alpha: float, n: int
) -> None:
    worth = math.fsum(
        float(binom.pmf(s, n, rate))
        * math.exp(bernoulli_log_e_value(s, n, rate=rate, tuning_trials=tuned, alpha=alpha))
        for s in range(n + 1)
    )
    assert worth == pytest.approx(1.0, rel=1e-9)


def test_evidence_against_a_rate_is_the_mixture_of_likelihood_ratios() -> None:
    rate, alpha, tuned = 0.3, 0.05, 80.0
    doubled = -2 * math.log(alpha)
    weight = tuned / (doubled + math.log(1 + doubled)) - 1
    a, b = weight * rate, weight * (1 - rate)

    def ratio(q: float) -> float:
        prior = math.exp((a - 1) * math.log(q) + (b - 1) * math.log(1 - q) - float(betaln(a, b)))
        return prior * (q / rate) ** 20 * ((1 - q) / (1 - rate)) ** 20

    mixed, _ = quad(ratio, 0, 1, epsabs=0, epsrel=1e-10)
    log_e = bernoulli_log_e_value(20, 40, rate=rate, tuning_trials=tuned, alpha=alpha)
    assert log_e == pytest.approx(math.log(mixed), abs=1e-9)


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.5])
def test_bernoulli_interval_misses_the_rate_at_any_of_200_looks_with_less_than_its_error(rate: float) -> None:
    # exact: the distribution over the runs whose interval has held the rate so far
    alpha, trials = 0.1, 200
    holding = {0: 1.0}
    for n in range(1, trials + 1):
        reached: dict[int, float] = {}
        for successes, share in holding.items():
            for more, chance in ((0, 1 - rate), (1, rate)):
                reached[successes + more] = reached.get(successes + more, 0.0) + share * chance
        holding = {
            s: share
            for s, share in reached.items()
            if bernoulli_log_e_value(s, n, rate=rate, tuning_trials=50, alpha=alpha) < -math.log(alpha)
        }
    missed = 1.0 - math.fsum(holding.values())
    assert 0.01 < missed <= alpha


def test_a_rate_of_zero_is_refuted_by_one_success_and_by_nothing_else() -> None:
    for rate, successes in ((0.0, 0), (1.0, 10)):
        assert bernoulli_log_e_value(successes, 10, rate=rate, tuning_trials=10, alpha=0.05) == 0.0
        assert bernoulli_log_e_value(5, 10, rate=rate, tuning_trials=10, alpha=0.05) == math.inf


@pytest.mark.parametrize(
    ("low", "high", "field"),
    [(1.0, 1.0, "high"), (2.0, 1.0, "high"), (math.nan, 1.0, "low"), (-1e308, 1e308, "high")],
)
def test_bounds_without_a_range_between_them_are_refused(low: float, high: float, field: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        betting_interval([], low=low, high=high)
    assert refused.value.field == field


@pytest.mark.parametrize("score", [0.5, 5.5, math.nan, math.inf])
def test_a_score_outside_its_bounds_is_refused_and_named(score: float) -> None:
    with pytest.raises(InvalidInputError, match="from 1 to 5") as refused:
        betting_difference([3.0, score], [3.0], low=1, high=5)
    assert refused.value.field == "scores[1]"


def test_a_table_of_scores_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="one number per unit"):
        betting_interval(np.zeros((2, 3)), low=0, high=1)


@pytest.mark.parametrize("confidence", [0.0, 1.0, math.nan, 95.0])
def test_a_confidence_that_is_no_share_is_refused(confidence: float) -> None:
    with pytest.raises(InvalidInputError, match="confidence"):
        betting_interval([], low=0, high=1, confidence=confidence)
    with pytest.raises(InvalidInputError, match="confidence"):
        bernoulli_interval(1, 2, tuning_trials=10, confidence=confidence)


@pytest.mark.parametrize(
    ("successes", "trials", "tuned", "field"),
    [
        (3, 2, 10.0, "successes"),
        (-1, 2, 10.0, "successes"),
        (0, -1, 10.0, "trials"),
        (1, 2, 0.0, "tuning_trials"),
    ],
)
def test_counts_that_cannot_be_are_refused(successes: int, trials: int, tuned: float, field: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        bernoulli_interval(successes, trials, tuning_trials=tuned)
    assert refused.value.field == field


@pytest.mark.parametrize("rate", [-0.1, 1.1, math.nan, 1e-310])
def test_a_rate_that_cannot_be_is_refused(rate: float) -> None:
    with pytest.raises(InvalidInputError, match="rate"):
        bernoulli_log_e_value(1, 2, rate=rate, tuning_trials=10, alpha=0.05)
