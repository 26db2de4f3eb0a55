"""Permutation of units: scipy's permutation test, every deal counted by hand, and the tie of test and interval."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from promptab.errors import InvalidInputError
from promptab.stats import permutation
from promptab.stats.interval import Interval
from promptab.stats.permutation import EpochUnits, permutation_interval, permutation_p

Totals = list[tuple[float, float]]

unit_totals = st.tuples(st.integers(1, 6).map(float), st.integers(-12, 12).map(lambda tenths: tenths / 10))
few_units = st.lists(unit_totals, min_size=1, max_size=4)
small_epochs = st.lists(st.builds(EpochUnits, few_units, few_units), min_size=1, max_size=2)
# at least C(20, 10) deals, more than are enumerated
many_units = st.lists(unit_totals, min_size=10, max_size=14)
sampled_epochs = st.lists(st.builds(EpochUnits, many_units, many_units), min_size=1, max_size=2)
levels = st.sampled_from([0.5, 0.8, 0.9, 0.95])


def one_event_each(values: list[float]) -> Totals:
    return [(1.0, value) for value in values]


def mean(units: Totals) -> float:
    return math.fsum(s for _, s in units) / math.fsum(n for n, _ in units)


def difference(strata: list[EpochUnits]) -> float:
    units = sum(len(epoch.treatment) + len(epoch.control) for epoch in strata)
    return math.fsum(
        (len(epoch.treatment) + len(epoch.control))
        / units
        * (mean(list(epoch.treatment)) - mean(list(epoch.control)))
        for epoch in strata
    )


def deals_of(epoch: EpochUnits) -> list[EpochUnits]:
    units = [*epoch.treatment, *epoch.control]
    return [
        EpochUnits([units[i] for i in chosen], [unit for i, unit in enumerate(units) if i not in chosen])
        for chosen in itertools.combinations(range(len(units)), len(epoch.treatment))
    ]


def p_by_hand(strata: list[EpochUnits], shift: float = 0.0) -> float:
    """Deal in every way, units in lists and one deal at a time, and count both tails; ties within 1e-9 count."""
    shifted = [
        EpochUnits([(n, s - shift * n) for n, s in epoch.treatment], epoch.control) for epoch in strata
    ]
    observed = difference(shifted)
    dealt = [difference(list(deal)) for deal in itertools.product(*map(deals_of, shifted))]
    upper = sum(value >= observed - 1e-9 for value in dealt)
    lower = sum(value <= observed + 1e-9 for value in dealt)
    return min(1.0, 2 * min(upper, lower) / len(dealt))


def negated(strata: list[EpochUnits]) -> list[EpochUnits]:
    return [
        EpochUnits([(n, -s) for n, s in epoch.treatment], [(n, -s) for n, s in epoch.control])
        for epoch in strata
    ]


@settings(max_examples=60, deadline=None)
@given(small_epochs)
def test_every_deal_is_counted_as_by_hand(strata: list[EpochUnits]) -> None:
    assert permutation_p(strata) == pytest.approx(p_by_hand(strata), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.builds(EpochUnits, *[st.lists(unit_totals, min_size=3, max_size=4)] * 2), levels)
def test_the_interval_holds_exactly_the_shifts_that_the_test_does_not_reject(
    epoch: EpochUnits, confidence: float
) -> None:
    interval = permutation_interval([epoch], confidence=confidence)
    if interval is None:
        return
    alpha = round(1 - confidence, 12)
    width = interval.high - interval.low
    assert p_by_hand([epoch], interval.low) > alpha
    assert p_by_hand([epoch], interval.high) > alpha
    assert p_by_hand([epoch], (interval.low + interval.high) / 2) > alpha
    assert p_by_hand([epoch], interval.low - 0.01 * width - 1e-6) <= alpha
    assert p_by_hand([epoch], interval.high + 0.01 * width + 1e-6) <= alpha


def scipy_p(treatment: list[float], control: list[float], resamples: int) -> float:
    return float(
        scipy.stats.permutation_test(
            (np.array(treatment), np.array(control)),
            lambda x, y, axis: np.mean(x, axis=axis) - np.mean(y, axis=axis),
            n_resamples=resamples,
            vectorized=True,
            rng=np.random.default_rng(3),
        ).pvalue
    )


@pytest.mark.parametrize("seed", range(8))
def test_the_exact_test_agrees_with_scipy(seed: int) -> None:
    generator = np.random.default_rng(seed)
    treatment, control = list(generator.normal(0.6, 1, 7)), list(generator.normal(0, 1, 8))
    p = permutation_p([EpochUnits(one_event_each(treatment), one_event_each(control))])
    assert p == pytest.approx(scipy_p(treatment, control, 10_000), rel=1e-12)


@pytest.mark.parametrize("sizes", [(15, 15), (12, 80)], ids=str)
def test_the_sampled_test_agrees_with_scipy_up_to_sampling(sizes: tuple[int, int]) -> None:
    generator = np.random.default_rng(11)
    treatment, control = list(generator.normal(0.6, 1, sizes[0])), list(generator.normal(0, 1, sizes[1]))
    p = permutation_p([EpochUnits(one_event_each(treatment), one_event_each(control))])
    expected = scipy_p(treatment, control, 9_999)
    # both are twice a share of about 10,000 draws; five standard deviations of their difference
    assert p == pytest.approx(expected, abs=5 * 2 * math.sqrt(2 * expected / 2 / 10_000))


def test_sampling_approaches_what_enumerating_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(4)
    arms = [
        [
            (float(n), float(n * m))
            for n, m in zip(generator.integers(1, 9, 7), generator.normal(d, 1, 7), strict=True)
        ]
        for d in (0.8, 0.0)
    ]
    strata = [EpochUnits(*arms)]
    exact_p, exact = permutation_p(strata), permutation_interval(strata, confidence=0.9)
    monkeypatch.setattr(permutation, "MOST_ENUMERATED", 0)
    sampled_p, sampled = permutation_p(strata), permutation_interval(strata, confidence=0.9)
    assert exact is not None
    assert sampled is not None
    assert sampled_p != exact_p
    assert sampled_p == pytest.approx(exact_p, abs=0.02)
    assert sampled == pytest.approx(exact, abs=0.05)


def test_every_deal_is_drawn_equally_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of five units with sums 1, 2, 4, 8, 16: the sum of the dealt arm names the deal; chi-square over ten."""
    epoch = permutation._epoch(EpochUnits([(1.0, 1.0), (1.0, 2.0)], [(1.0, 4.0), (1.0, 8.0), (1.0, 16.0)]))
    assert epoch is not None
    monkeypatch.setattr(permutation, "_MOST_MARKS", 5_000)
    sums = permutation._sampled_deals(epoch, np.random.default_rng(0), 20_000)[:, 0]
    _, counts = np.unique(np.round(sums, 6), return_counts=True)
    assert len(counts) == 10
    assert scipy.stats.chisquare(counts).pvalue > 0.001


@settings(max_examples=40, deadline=None)
@given(st.one_of(small_epochs, sampled_epochs), levels)
def test_the_interval_excludes_zero_exactly_where_the_test_rejects(
    strata: list[EpochUnits], confidence: float
) -> None:
    p, interval = permutation_p(strata), permutation_interval(strata, confidence=confidence)
    assert p is not None
    if interval is not None:
        assert interval.excludes(0.0) == (p <= round(1 - confidence, 12))


@settings(max_examples=40, deadline=None)
@given(st.one_of(small_epochs, sampled_epochs))
def test_turning_the_sign_of_the_metric_mirrors_everything_exactly(strata: list[EpochUnits]) -> None:
    assert permutation_p(negated(strata)) == permutation_p(strata)
    interval, mirrored = permutation_interval(strata), permutation_interval(negated(strata))
    assert (interval and interval.mirrored()) == mirrored


@settings(max_examples=40, deadline=None)
@given(small_epochs)
def test_swapping_the_arms_mirrors_the_interval(strata: list[EpochUnits]) -> None:
    swapped = [EpochUnits(epoch.control, epoch.treatment) for epoch in strata]
    assert permutation_p(swapped) == pytest.approx(permutation_p(strata), rel=1e-12)
    interval, mirrored = (permutation_interval(some, confidence=0.8) for some in (strata, swapped))
    assert (interval is None) == (mirrored is None)
    if interval is not None:
        assert mirrored == pytest.approx(interval.mirrored(), abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    st.one_of(small_epochs, sampled_epochs), st.sampled_from([1e-9, 3.0, 1e9]), st.sampled_from([0.0, 50.0])
)
def test_another_unit_of_measure_changes_only_the_scale(
    strata: list[EpochUnits], scale: float, offset: float
) -> None:
    moved = [
        EpochUnits(
            *([(n, scale * (s + offset * n)) for n, s in arm] for arm in (epoch.treatment, epoch.control))
        )
        for epoch in strata
    ]
    assert permutation_p(moved) == permutation_p(strata)
    interval, scaled = (
        permutation_interval(strata, confidence=0.8),
        permutation_interval(moved, confidence=0.8),
    )
    assert (interval is None) == (scaled is None)
    if interval is not None and scaled is not None:
        assert [end / scale for end in scaled] == pytest.approx(list(interval), abs=1e-9)


def test_the_seed_decides_the_draws_and_the_same_seed_the_same_answer() -> None:
    generator = np.random.default_rng(8)
    strata = [
        EpochUnits(
            one_event_each(list(generator.normal(0.3, 1, 15))),
            one_event_each(list(generator.normal(0, 1, 20))),
        )
    ]
    assert permutation_p(strata, seed=1) == permutation_p(strata, seed=1)
    assert len({permutation_p(strata, seed=seed) for seed in range(5)}) > 1
    assert permutation_p(strata, seed=1) == pytest.approx(permutation_p(strata, seed=2), abs=0.05)


def test_a_sampled_p_value_is_never_zero() -> None:
    strata = [
        EpochUnits(
            one_event_each([100.0 + i for i in range(20)]), one_event_each([float(i) for i in range(20)])
        )
    ]
    assert permutation_p(strata, resamples=99) == 2 / 100
    assert permutation_p(strata) == 2 / 10_000


def test_units_are_dealt_within_their_epochs() -> None:
    """The base rate moves between epochs and the weights with it: pooled, the arms look far apart."""

    def spread_around(center: float, units: int) -> Totals:
        return one_event_each([center + step for step in np.linspace(-1, 1, units)])

    morning = EpochUnits(spread_around(0, 4), spread_around(0, 25))
    evening = EpochUnits(spread_around(5, 25), spread_around(5, 4))
    pooled = EpochUnits([*morning.treatment, *evening.treatment], [*morning.control, *evening.control])
    apart = permutation_p([morning, evening])
    assert apart is not None
    assert apart > 0.9
    assert permutation_p([pooled]) == 2 / 10_000


def small_arms(generator: np.random.Generator, effect: float) -> list[EpochUnits]:
    """Ten and twelve units of skewed means and uneven numbers of events, in two epochs of different base rates."""
    return [
        EpochUnits(
            *(
                [
                    (float(n), float(n * (base + shift + generator.lognormal())))
                    for n in generator.integers(1, 9, size)
                ]
                for size, shift in ((5, effect), (6, 0.0))
            )
        )
        for base in (0.0, 3.0)
    ]


def test_without_an_effect_it_rejects_no_more_than_alpha_and_covers_what_is_there() -> None:
    """400 simulated experiments; a binomial test at 1 % of at most 5 % false alarms, and of 95 % coverage."""
    generator = np.random.default_rng(12)
    false_alarms = misses = 0
    for _ in range(400):
        p = permutation_p(small_arms(generator, 0.0), resamples=399)
        interval = permutation_interval(small_arms(generator, 0.7), resamples=399)
        assert p is not None
        assert interval is not None
        false_alarms += p <= 0.05
        misses += interval.excludes(0.7)
    assert false_alarms > 0
    for count in (false_alarms, misses):
        assert scipy.stats.binomtest(count, 400, 0.05, alternative="greater").pvalue > 0.01


def test_an_arm_without_units_gives_no_answer() -> None:
    units = one_event_each([1.0, 2.0, 3.0])
    for strata in ([], [EpochUnits(units, [])], [EpochUnits([], units)], [EpochUnits(units, [(0.0, 0.0)])]):
        assert permutation_p(strata) is None
        assert permutation_interval(strata) is None


def test_an_epoch_without_units_in_an_arm_and_units_without_events_are_left_out() -> None:
    epoch = EpochUnits(one_event_each([1.0, 2.0, 5.0, 7.0]), one_event_each([0.0, 0.5, 1.5, 1.0]))
    more = [EpochUnits([*epoch.treatment, (0.0, 0.0)], epoch.control), EpochUnits([(1.0, 90.0)], [])]
    assert permutation_p(more) == permutation_p([epoch])
    assert permutation_interval(more, confidence=0.9) == permutation_interval([epoch], confidence=0.9)


def test_one_unit_an_arm_is_never_evidence() -> None:
    strata = [EpochUnits([(1.0, 1000.0)], [(1.0, 0.0)])]
    assert permutation_p(strata) == 1.0
    assert permutation_interval(strata, confidence=0.5) is None


def test_too_few_deals_for_the_level_give_no_interval() -> None:
    strata = [EpochUnits(one_event_each([5.0, 6.0, 7.0]), one_event_each([1.0, 2.0, 3.0]))]
    assert permutation_p(strata) == 2 / 20
    assert permutation_interval(strata, confidence=0.95) is None
    assert permutation_interval(strata, confidence=0.9) == pytest.approx(Interval(2.0, 6.0))


def test_arms_that_never_vary_have_a_p_value_and_no_interval() -> None:
    alike = [EpochUnits(one_event_each([0.1] * 6), [(3.0, 0.1 * 3.0)] * 6)]
    apart = [EpochUnits(one_event_each([1.0] * 6), one_event_each([0.0] * 6))]
    assert permutation_p(alike) == 1.0
    assert permutation_p(apart) == pytest.approx(2 / math.comb(12, 6))
    assert permutation_interval(alike) is None
    assert permutation_interval(apart) is None


def test_sums_that_overflow_give_no_answer() -> None:
    strata = [EpochUnits([(1.0, 1e308)] * 6, one_event_each([0.0, 1.0, 2.0]))]
    assert permutation_p(strata) is None
    assert permutation_interval(strata) is None


@pytest.mark.parametrize(
    ("unit", "field"),
    [((-1.0, 0.0), "n"), ((float("nan"), 0.0), "n"), ((float("inf"), 0.0), "n"), ((1.0, float("nan")), "s")],
    ids=str,
)
def test_totals_that_are_no_totals_are_refused(unit: tuple[float, float], field: str) -> None:
    for function in (permutation_p, permutation_interval):
        with pytest.raises(InvalidInputError) as refused:
            function([EpochUnits([unit], [(1.0, 1.0)])])
        assert refused.value.field == field


def test_impossible_levels_and_numbers_of_draws_are_refused() -> None:
    strata = [EpochUnits([(1.0, 1.0)], [(1.0, 1.0)])]
    with pytest.raises(InvalidInputError, match="resamples"):
        permutation_p(strata, resamples=0)
    for confidence in (0.0, 1.0, 95.0, float("nan")):
        with pytest.raises(InvalidInputError, match="confidence"):
            permutation_interval(strata, confidence=confidence)
