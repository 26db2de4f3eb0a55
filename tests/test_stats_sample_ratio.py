"""The dealing against the weights: published numbers, scipy's exact tests, and how often the alarm is false."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from promptab.errors import InvalidInputError
from promptab.stats.sample_ratio import (
    EpochUnits,
    chi_square,
    exact,
    sample_ratio,
    sequential_bayes_factor,
    sequential_p_values,
)
from tests.oracles import oracle

even = {"control": 1.0, "treatment": 1.0}


def epoch(units: list[int], weights: list[float]) -> EpochUnits:
    keys = "abcdefgh"[: len(units)]
    return EpochUnits(dict(zip(keys, units, strict=True)), dict(zip(keys, weights, strict=True)))


@st.composite
def dealt_epochs(draw: st.DrawFn, most: int = 2_000) -> EpochUnits:
    arms = draw(st.integers(1, 4))
    units = draw(st.lists(st.integers(0, most), min_size=arms, max_size=arms))
    return epoch(units, draw(st.lists(st.floats(0.01, 10.0), min_size=arms, max_size=arms)))


@pytest.mark.parametrize(
    "row_id", ["srm-kohavi", "srm-wikipedia", "srm-posthog-84351", "srm-statsig", "srm-zero-weight-arm"]
)
def test_chi_square_reproduces_the_published_p_value(row_id: str) -> None:
    row = oracle(row_id)
    p_value = chi_square([epoch(row["inputs"]["observed"], row["inputs"]["weights"])])
    assert p_value == pytest.approx(row["expected"], abs=row["tol"])


def test_exact_reproduces_the_published_binomial_test() -> None:
    row = oracle("srm-exact-small")
    dealt = epoch([row["inputs"]["control"], row["inputs"]["treatment"]], [0.5, row["inputs"]["p_treatment"]])
    assert exact([dealt]) == pytest.approx(row["expected"], abs=row["tol"])
    found = sample_ratio([dealt])
    assert (found.p_value, found.p_method) == (exact([dealt]), "exact")


@pytest.mark.parametrize("row_id", ["srm-seq-equal", "srm-seq-60-40", "srm-seq-conc100"])
def test_bayes_factor_reproduces_the_published_numbers(row_id: str) -> None:
    row = oracle(row_id)
    dealt = epoch(row["inputs"]["counts"], row["inputs"]["theta0"])
    concentration = float(sum(row["inputs"]["dirichlet_alpha"]))
    found = sequential_bayes_factor([dealt], concentration=concentration)
    assert found == pytest.approx(row["expected"]["log_bf"], abs=row["tol"])
    (p_value,) = sequential_p_values([[dealt]], concentration=concentration)
    assert p_value == pytest.approx(row["expected"]["p_at_n"], abs=row["tol"])


@settings(max_examples=60, deadline=None)
@given(dealt=dealt_epochs())
def test_chi_square_of_one_epoch_is_that_of_scipy(dealt: EpochUnits) -> None:
    counts, weights = list(dealt.units.values()), list(dealt.weights.values())
    total = sum(counts)
    if not total or len(counts) < 2:
        assert chi_square([dealt]) is None
        return
    expected = [total * weight / math.fsum(weights) for weight in weights]
    p_value = scipy.stats.chisquare(counts, expected, sum_check=False).pvalue
    assert chi_square([dealt]) == pytest.approx(float(p_value), rel=1e-9, abs=1e-300)


@settings(max_examples=60, deadline=None)
@given(units=st.tuples(st.integers(0, 300), st.integers(0, 300)), share=st.floats(0.02, 0.98))
def test_exact_test_of_two_variants_is_the_binomial_test(units: tuple[int, int], share: float) -> None:
    p_value = exact([epoch(list(units), [share, 1.0 - share])])
    if not sum(units):
        assert p_value is None
        return
    expected = scipy.stats.binomtest(units[0], sum(units), share).pvalue
    assert p_value == pytest.approx(expected, rel=1e-6)


def test_exact_test_adds_up_every_outcome_of_every_epoch_that_is_no_likelier() -> None:
    first, second = epoch([5, 2, 1], [0.5, 0.3, 0.2]), epoch([1, 5], [0.9, 0.1])
    chances = {}
    for a, b in itertools.product(range(9), repeat=2):
        for x in range(7):
            if a + b <= 8:
                chances[a, b, x] = float(
                    scipy.stats.multinomial.pmf([a, b, 8 - a - b], 8, [0.5, 0.3, 0.2])
                    * scipy.stats.binom.pmf(x, 6, 0.9)
                )
    observed = chances[5, 2, 1]
    expected = math.fsum(chance for chance in chances.values() if chance <= observed * (1 + 1e-7))
    assert math.fsum(chances.values()) == pytest.approx(1.0)
    assert exact([first, second]) == pytest.approx(expected, rel=1e-9)


def test_exact_test_of_too_many_outcomes_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="at most 1,000,000 possible outcomes; use chi_square"):
        exact([epoch([500, 500, 500], [1, 1, 1]), epoch([500, 500], [1, 1])])


def test_chi_square_adds_statistics_and_degrees_of_freedom_over_epochs_with_units() -> None:
    epochs = [
        epoch([900, 100], [0.9, 0.1]),
        epoch([0, 0], [0.5, 0.5]),
        epoch([480, 520, 0], [0.5, 0.5, 0]),
    ]
    statistic = 0.0 + 2 * 20**2 / 500
    assert chi_square(epochs) == pytest.approx(float(scipy.stats.chi2.sf(statistic, 2)), rel=1e-12)


def test_a_changed_split_is_no_mismatch_where_each_epoch_follows_its_own_weights() -> None:
    ramp = [epoch([9_000, 1_000], [9, 1]), epoch([5_020, 4_980], [1, 1])]
    pooled = [epoch([14_020, 5_980], [1, 1])]
    assert not sample_ratio(ramp).mismatch
    assert not sample_ratio(ramp, gate="fixed").mismatch
    assert sample_ratio(pooled).mismatch
    found = sample_ratio(ramp)
    assert found.observed == {"a": 14_020, "b": 5_980}
    assert found.expected == pytest.approx({"a": 14_000.0, "b": 6_000.0})


def test_expected_units_keep_a_variant_that_received_none() -> None:
    found = sample_ratio([EpochUnits({"control": 10}, {"control": 3.0, "treatment": 1.0, "late": 0.0})])
    assert found.observed == {"control": 10, "treatment": 0, "late": 0}
    assert found.expected == {"control": 7.5, "treatment": 2.5, "late": 0.0}


def test_a_unit_in_a_variant_of_weight_zero_is_a_mismatch_by_itself() -> None:
    found = sample_ratio([epoch([500, 500, 1], [1, 1, 0])])
    assert (found.mismatch, found.impossible, found.p_value) == (True, 1, 0.0)
    assert found.log_bayes_factor == math.inf
    assert exact([epoch([5, 5, 1], [1, 1, 0])]) == chi_square([epoch([5, 5, 1], [1, 1, 0])]) == 0.0
    assert sample_ratio([epoch([1, 0], [0, 0])], gate="fixed").mismatch


@pytest.mark.parametrize(
    "epochs",
    [[], [epoch([0, 0], [1, 1])], [epoch([7, 0], [1, 0])], [epoch([0, 0], [0, 0])], [EpochUnits({}, {})]],
    ids=["no epochs", "no units", "one variant deals", "nothing deals", "no variants"],
)
def test_where_nothing_was_dealt_nothing_is_known_and_nothing_alarms(epochs: list[EpochUnits]) -> None:
    for gate in ("sequential", "fixed"):
        found = sample_ratio(epochs, gate=gate)
        assert found[:5] == (False, None, None, 0.0, 0)
    assert chi_square(epochs) is None
    assert exact(epochs) is None


@pytest.mark.parametrize(
    ("units", "weights", "method"),
    [
        ([499, 500], [1, 1], "exact"),
        ([500, 500], [1, 1], "chi-square"),
        ([5_000, 9], [999, 1], "chi-square"),
        ([4_000, 9], [999, 1], "exact"),
        ([1_500, 1_498, 9], [0.5, 0.499, 0.001], "bayes factor"),
        ([90, 90, 90, 90, 90], [1, 1, 1, 1, 1], "chi-square"),
    ],
    ids=[
        "below 1,000 units",
        "1,000 units",
        "5 expected",
        "4 expected",
        "4 expected, countless",
        "countless",
    ],
)
def test_the_p_value_says_where_it_comes_from(units: list[int], weights: list[float], method: str) -> None:
    assert sample_ratio([epoch(units, weights)]).p_method == method


def test_where_outcomes_are_countless_and_rare_the_p_value_is_the_inverse_bayes_factor() -> None:
    dealt = [epoch([1_500, 1_450, 40], [0.5, 0.499, 0.001])]
    found = sample_ratio(dealt, gate="fixed")
    assert found.p_value == pytest.approx(math.exp(-sequential_bayes_factor(dealt)))
    assert found.mismatch


def test_the_gate_decides_which_test_makes_a_mismatch() -> None:
    # 4.2 standard deviations in a million units: certain for one look, not yet for any number of looks
    dealt = [epoch([502_100, 497_900], [1, 1])]
    fixed, sequential = sample_ratio(dealt, gate="fixed"), sample_ratio(dealt)
    assert fixed._replace(mismatch=False) == sequential
    assert fixed.mismatch
    assert fixed.p_value is not None
    assert fixed.p_value < 1e-4
    assert not sample_ratio(dealt, gate="fixed", alpha=1e-6).mismatch
    assert sample_ratio(dealt, bayes_factor=math.exp(fixed.log_bayes_factor - 1e-9)).mismatch


@settings(max_examples=60, deadline=None)
@given(epochs=st.lists(dealt_epochs(300), min_size=1, max_size=3), scale=st.floats(1e-3, 1e3))
def test_neither_the_scale_of_weights_nor_the_order_of_variants_or_epochs_matters(
    epochs: list[EpochUnits], scale: float
) -> None:
    turned = [
        EpochUnits(
            dict(sorted(units.items(), reverse=True)),
            {key: scale * weight for key, weight in sorted(weights.items(), reverse=True)},
        )
        for units, weights in reversed(epochs)
    ]
    before, after = sample_ratio(epochs), sample_ratio(turned)
    assert after.p_method == before.p_method
    assert (after.p_value is None) == (before.p_value is None)
    assert after.p_value is None or after.p_value == pytest.approx(before.p_value, rel=1e-6)
    assert after.log_bayes_factor == pytest.approx(before.log_bayes_factor, abs=1e-7)


@settings(max_examples=40, deadline=None)
@given(units=st.tuples(*[st.integers(0, 12)] * 3), weights=st.tuples(*[st.floats(0.1, 5.0)] * 3))
def test_bayes_factor_is_a_fair_bet_on_the_next_unit(
    units: tuple[int, int, int], weights: tuple[float, float, float]
) -> None:
    """The mean over the next unit's variant, dealt by the weights, is the factor so far: a martingale."""
    dealt = epoch(list(units), list(weights))
    after = [
        weight
        / math.fsum(weights)
        * math.exp(
            sequential_bayes_factor([dealt._replace(units={**dealt.units, key: dealt.units[key] + 1})])
        )
        for key, weight in dealt.weights.items()
    ]
    assert math.fsum(after) == pytest.approx(math.exp(sequential_bayes_factor([dealt])), rel=1e-9)


def test_bayes_factors_of_epochs_multiply() -> None:
    first, second = epoch([300, 200], [1, 1]), epoch([30, 300, 4], [1, 8, 1])
    assert sequential_bayes_factor([first, second]) == pytest.approx(
        sequential_bayes_factor([first]) + sequential_bayes_factor([second])
    )


def test_sequential_p_value_keeps_the_strongest_look() -> None:
    looks = [
        [EpochUnits({"control": n - x, "treatment": x}, even)] for n, x in ((9, 5), (500, 150), (900, 440))
    ]
    p_values = sequential_p_values(looks)
    factors = [sequential_bayes_factor(look) for look in looks]
    assert factors[1] > factors[2]
    assert p_values == [1.0, math.exp(-factors[1]), math.exp(-factors[1])]
    assert sequential_p_values([]) == []


@pytest.mark.parametrize(
    ("dealt", "message"),
    [
        (EpochUnits({"a": -1}, {"a": 1.0}), r"units\.a: -1 is not a whole number"),
        (
            EpochUnits({"a": 1, "b": 1}, {"a": 1.0}),
            r"units\.b: 1 is not of a variant that has a weight; give",
        ),
        (EpochUnits({"a": 1}, {"a": -0.5}), r"weights\.a: -0\.5 is not a finite number of at least 0"),
        (EpochUnits({"a": 1}, {"a": math.inf}), r"weights\.a: inf is not"),
        (EpochUnits({"a": 1}, {"a": math.nan, "b": 1.0}), r"weights\.a: nan is not"),
        (EpochUnits({"a": 1}, {"a": 1.0, "b": 1e-19}), r"weights\.b: 1e-19 is not 0 or at least 1e-18 of"),
    ],
)
def test_impossible_counts_and_weights_are_refused(dealt: EpochUnits, message: str) -> None:
    for test in (chi_square, exact, sequential_bayes_factor, sample_ratio):
        with pytest.raises(InvalidInputError, match=message):
            test([dealt])


@pytest.mark.parametrize(
    "limits",
    [
        {"alpha": 0.0},
        {"alpha": 1.0},
        {"bayes_factor": 0.5},
        {"bayes_factor": math.inf},
        {"concentration": 0.0},
    ],
    ids=str,
)
def test_limits_that_would_always_or_never_alarm_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(limits))):
        sample_ratio([], **limits)  # type: ignore[arg-type]  # mypy takes the mapping's values for the gate too


def test_huge_and_tiny_weights_do_not_overflow() -> None:
    found = sample_ratio([epoch([5_000, 4_900], [1e308, 1.7e308])])
    assert found.mismatch
    assert found.expected["b"] == pytest.approx(9_900 * 1.7 / 2.7)
    tiny = sample_ratio([epoch([5_000, 4_900], [5e-320, 5e-320])])
    assert tiny.expected == pytest.approx({"a": 4_950.0, "b": 4_950.0})
    rare = sample_ratio([epoch([10**9, 1], [1.0, 1e-18])])
    assert math.isfinite(rare.log_bayes_factor)
    assert rare.p_value is not None
    assert 0.0 < rare.p_value <= 1.0


def share_of_alarms(share: float, weight: float, *, days: int, per_day: int, runs: int, seed: int) -> float:
    """The share of experiments in which the sequential alarm fires at one of the daily looks."""
    generator = np.random.default_rng(seed)
    dealt = np.cumsum(generator.binomial(per_day, share, size=(runs, days)), axis=1)
    alarms = 0
    for path in dealt:
        looks = [
            [epoch([int(x), per_day * (day + 1) - int(x)], [weight, 1 - weight])]
            for day, x in enumerate(path)
        ]
        alarms += sequential_p_values(looks)[-1] <= 0.01
    return alarms / runs


@pytest.mark.parametrize("weight", [0.5, 0.1])
def test_daily_looks_for_28_days_alarm_in_less_than_one_percent_of_sound_experiments(weight: float) -> None:
    assert share_of_alarms(weight, weight, days=28, per_day=200, runs=1_000, seed=11) < 0.01


def test_an_alarm_catches_a_dealing_of_45_to_55_within_28_days() -> None:
    assert share_of_alarms(0.45, 0.5, days=28, per_day=100, runs=200, seed=12) > 0.95


def test_chi_square_alarms_in_a_thousandth_of_sound_experiments() -> None:
    generator = np.random.default_rng(13)
    alarms = sum(
        sample_ratio([epoch([int(x) for x in counts], [0.6, 0.3, 0.1])], gate="fixed", alpha=0.01).mismatch
        for counts in generator.multinomial(5_000, [0.6, 0.3, 0.1], size=2_000)
    )
    assert scipy.stats.binomtest(alarms, 2_000, 0.01).pvalue > 1e-3
