"""Quantiles of clustered events: against numpy, brute force, published numbers, and repeated experiments."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptab.errors import InvalidInputError
from promptab.stats.contrast import Contrast
from promptab.stats.fixed import t_p_value
from promptab.stats.quantile import (
    QuantileArm,
    clustered_quantile_variance,
    quantile_arm,
    quantile_contrast,
)
from promptab.stats.summary import UnitSums
from tests.oracles import oracle

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Events = tuple[Floats, Integers]

seeds = st.integers(min_value=0, max_value=2**32 - 1)
samples = st.lists(st.floats(min_value=-1e6, max_value=1e6), min_size=1, max_size=60)


def clustered_events(
    generator: np.random.Generator, *, units: int, mean_events: float = 5.0, icc: float = 0.3
) -> Events:
    """Standard normal values, of which the share `icc` of the variance is between units."""
    counts = generator.geometric(1.0 / mean_events, units)
    codes = np.repeat(np.arange(units), counts)
    levels = generator.normal(0.0, math.sqrt(icc), units)
    return levels[codes] + generator.normal(0.0, math.sqrt(1.0 - icc), codes.size), codes


def share_of_false_findings(
    runs: int, draw: Callable[[], Events], *, nu: float, events_as_units: bool = False
) -> float:
    """Compare two arms that do not differ, `runs` times; return the share with p < 0.05."""
    found = 0
    for _ in range(runs):
        arms = []
        for _ in range(2):
            values, units = draw()
            arms.append(quantile_arm(values, np.arange(values.size) if events_as_units else units, nu))
        value, se, df = effect(quantile_contrast({0: arms[0]}, {0: arms[1]}))
        found += t_p_value(value, se, df) < 0.05
    return found / runs


def effect(contrast: Contrast) -> tuple[float, float, float]:
    value, se, df = contrast.value, contrast.se, contrast.df
    assert value is not None
    assert se is not None
    assert df is not None
    return value, se, df


def variance_of(arm: QuantileArm) -> float:
    assert arm.variance is not None
    return arm.variance


def test_variance_from_sums_matches_the_published_clustered_quantile() -> None:
    row = oracle("gb-quantile-clustered")
    inputs = row["inputs"]
    raw = UnitSums(
        units=inputs["clusters"],
        n=inputs["sum_N"],
        s=inputs["sum_S"],
        rr=inputs["sum_S2"],
        nn=inputs["sum_N2"],
        rn=inputs["sum_SN"],
    )
    variance = clustered_quantile_variance(
        raw.recentered(raw.s / raw.n),
        inputs["nu"],
        lower=inputs["quantile_lower"],
        upper=inputs["quantile_upper"],
    )
    assert variance == pytest.approx(row["expected"], abs=row["tol"])


def test_variance_from_sums_agrees_with_that_from_events() -> None:
    values, units = clustered_events(np.random.default_rng(1), units=5_000)
    nu, counts = 0.9, np.bincount(units)
    reach = 1.96 * math.sqrt(nu * (1 - nu) / values.size)
    lower, value, upper = np.quantile(values, [nu - reach, nu, nu + reach], method="inverted_cdf")
    below = np.bincount(units[values <= value], minlength=5_000)
    sums = UnitSums.of(zip(counts.tolist(), below.tolist(), strict=True))
    from_sums = clustered_quantile_variance(sums, nu, lower=float(lower), upper=float(upper))
    assert from_sums == pytest.approx(variance_of(quantile_arm(values, units, nu)), rel=0.1)


def test_variance_from_sums_is_unknown_with_one_unit_and_zero_where_units_are_alike() -> None:
    for totals, expected in (([(5.0, 3.0)], None), ([(5.0, 3.0), (10.0, 6.0)], 0.0)):
        assert clustered_quantile_variance(UnitSums.of(totals), 0.5, lower=1.0, upper=2.0) == expected


@settings(deadline=None)
@given(values=samples, nu=st.floats(min_value=0.01, max_value=0.99))
def test_the_quantile_is_the_order_statistic_that_numpy_names(values: list[float], nu: float) -> None:
    arm = quantile_arm(values, np.arange(len(values)), nu)
    # numpy and we may differ by a rank where n nu is a whole number but for rounding
    if abs(len(values) * nu - round(len(values) * nu)) > 1e-9:
        assert arm.value == np.quantile(values, nu, method="inverted_cdf")
    assert arm.value in values
    assert np.mean(np.array(values) <= arm.value) >= nu - 1e-9
    assert np.mean(np.array(values) < arm.value) < nu + 1e-9


@pytest.mark.parametrize("nu", [0.07, 0.14, 0.28, 0.55, 0.56, 0.57, 0.95])
def test_a_whole_rank_stays_whole_where_doubles_round_up(nu: float) -> None:
    assert quantile_arm(np.arange(1.0, 101.0), np.arange(100), nu).value == round(100 * nu)


@pytest.mark.parametrize(("nu", "density"), [(0.5, 0.39894), (0.95, 0.10314)])
def test_independent_events_have_the_textbook_variance(nu: float, density: float) -> None:
    """It is nu (1 - nu)/(n f²) with f the density at the quantile: here that of the standard normal."""
    arm = quantile_arm(np.random.default_rng(2).normal(size=20_000), np.arange(20_000), nu)
    assert arm.method == "interval"
    assert variance_of(arm) == pytest.approx(nu * (1 - nu) / 20_000 / density**2, rel=0.2)


@pytest.mark.parametrize("nu", [0.5, 0.95])
def test_the_interval_and_the_bootstrap_agree_with_repetition(nu: float) -> None:
    generator = np.random.default_rng(3)
    for units, method in ((400, "interval"), (90, "bootstrap")):
        arms = [quantile_arm(*clustered_events(generator, units=units), nu) for _ in range(150)]
        assert {arm.method for arm in arms} == {method}
        repeated = np.var([arm.value or 0.0 for arm in arms], ddof=1)
        # 150 repetitions know a variance to about 12 %; the interval is wide by design in the tail
        assert 0.75 < np.mean([variance_of(arm) for arm in arms]) / repeated < 1.7


@pytest.mark.parametrize(
    ("units", "mean_events", "nu"),
    [(2, 6.0, 0.5), (7, 3.0, 0.5), (40, 5.0, 0.95), (3, 2_000.0, 0.9), (3, 2_000.0, 0.0005)],
    ids=["two units", "few events", "p95", "more events than blocks", "first block"],
)
def test_the_bootstrap_finds_what_sorting_every_draw_finds(units: int, mean_events: float, nu: float) -> None:
    values, codes = clustered_events(np.random.default_rng(9), units=units, mean_events=mean_events)
    arm = quantile_arm(values, codes, nu, seed=4)
    quantiles = []
    for drawn in np.random.default_rng(4).integers(0, units, (1_000, units)):
        resampled = np.sort(np.concatenate([values[codes == unit] for unit in drawn]))
        quantiles.append(resampled[math.ceil(resampled.size * nu * (1 - 1e-15)) - 1])
    assert arm.method == "bootstrap"
    assert arm.variance == pytest.approx(np.var(quantiles, ddof=1) * units / (units - 1), rel=1e-9)


def test_a_bootstrap_that_is_drawn_in_pieces_agrees_with_one_drawn_at_once() -> None:
    """The p99.9 of 2,500 events: too few for the interval, too many units to draw all at a time."""
    values = np.random.default_rng(12).normal(size=2_500)
    arm = quantile_arm(values, np.arange(2_500), 0.999)
    draws = np.sort(np.random.default_rng(13).choice(values, (2_000, 2_500)), axis=1)
    assert arm.method == "bootstrap"
    assert arm.variance == pytest.approx(np.var(draws[:, 2_497]), rel=0.2)


def test_the_bootstrap_repeats_itself_with_its_seed_and_differs_with_another() -> None:
    events = clustered_events(np.random.default_rng(6), units=20)
    first = quantile_arm(*events, 0.5)
    assert quantile_arm(*events, 0.5, seed=0) == first
    assert quantile_arm(*events, 0.5, seed=1).variance != first.variance


@pytest.mark.parametrize(("mean_events", "runs", "independent"), [(5.0, 300, 0.08), (20.0, 100, 0.2)])
def test_a_p95_of_clustered_events_finds_nothing_where_there_is_nothing(
    mean_events: float, runs: int, independent: float
) -> None:
    """Nominal 5 %, conservative allowed; taking every event for a unit finds far more."""
    for events_as_units in (False, True):
        generator = np.random.default_rng(21)

        def draw(generator: np.random.Generator = generator) -> Events:
            return clustered_events(generator, units=500, mean_events=mean_events)

        found = share_of_false_findings(runs, draw, nu=0.95, events_as_units=events_as_units)
        assert found >= independent if events_as_units else found <= 0.075


@pytest.mark.parametrize("units", [25, 400], ids=["bootstrap", "interval"])
def test_a_median_on_the_edge_between_two_ratings_finds_nothing(units: int) -> None:
    """Half of the events are 4 and half are 5: either may be the median, and nothing between them."""
    generator = np.random.default_rng(23)

    def draw() -> Events:
        values, codes = clustered_events(generator, units=units)
        return np.where(values > 0.0, 5.0, 4.0), codes

    assert share_of_false_findings(200, draw, nu=0.5) <= 0.05


@pytest.mark.parametrize("units", [25, 400], ids=["bootstrap", "interval"])
def test_ratings_that_clearly_differ_are_told_apart(units: int) -> None:
    """Two in ten events are 4 in one arm, eight in ten in the other; the rest are 5."""
    generator = np.random.default_rng(24)
    arms = []
    for threshold in (-0.85, 0.85):
        values, codes = clustered_events(generator, units=units, icc=0.05)
        arms.append(quantile_arm(np.where(values > threshold, 5.0, 4.0), codes, 0.5))
    value, se, df = effect(quantile_contrast({0: arms[0]}, {0: arms[1]}))
    assert value == 1.0
    assert 0.0 < t_p_value(value, se, df) < 0.05


@settings(max_examples=25, deadline=None)
@given(seed=seeds, units=st.sampled_from([12, 150]))
def test_the_order_of_events_and_the_names_of_units_change_nothing(seed: int, units: int) -> None:
    values, codes = clustered_events(np.random.default_rng(seed), units=units)
    shuffled = np.random.default_rng(seed).permutation(values.size)
    expected = quantile_arm(values, codes, 0.6)
    assert quantile_arm(values[shuffled], codes[shuffled], 0.6) == expected
    for named in (codes * 1_000_003 - 5, codes * 2):
        assert quantile_arm(values, named, 0.6) == expected


@settings(max_examples=25, deadline=None)
@given(seed=seeds, units=st.sampled_from([12, 150]), shift=st.integers(-999, 999), power=st.integers(-20, 20))
def test_a_shift_moves_the_quantile_and_a_scale_stretches_it(
    seed: int, units: int, shift: int, power: int
) -> None:
    values, codes = clustered_events(np.random.default_rng(seed), units=units)
    here, there = (quantile_arm(v, codes, 0.6) for v in (values, 2.0**power * values + shift))
    assert here.value is not None
    assert there.value == 2.0**power * here.value + shift
    assert there.variance == pytest.approx(4.0**power * variance_of(here), rel=1e-4, abs=1e-12)
    assert there.method == here.method


@settings(max_examples=25, deadline=None)
@given(seed=seeds, units=st.sampled_from([15, 200]), tied=st.booleans())
def test_the_mirrored_metric_has_the_mirrored_quantile(seed: int, units: int, tied: bool) -> None:
    values, codes = clustered_events(np.random.default_rng(seed), units=units)
    values = np.round(values) if tied else values
    # a level at which neither the sample nor a draw of its units has a whole rank
    high, low = quantile_arm(values, codes, 0.8 + 1e-7), quantile_arm(-values, codes, 0.2 - 1e-7)
    assert high.value is not None
    assert low._replace(variance=0.0) == high._replace(value=-high.value, variance=0.0)
    assert low.variance == pytest.approx(variance_of(high), rel=1e-9)


def test_swapped_arms_give_the_opposite_difference() -> None:
    generator = np.random.default_rng(31)
    first, second = (
        {epoch: quantile_arm(*clustered_events(generator, units=units), 0.5) for epoch in (0, 1)}
        for units in (120, 40)
    )
    value, se, df = effect(quantile_contrast(first, second))
    assert effect(quantile_contrast(second, first)) == pytest.approx((-value, se, df), rel=1e-12)


def test_epochs_are_combined_by_their_units() -> None:
    treatment = {
        0: QuantileArm(2.0, 0.04, 100, 500, "interval"),
        4: QuantileArm(5.0, 0.01, 50, 90, "interval"),
    }
    control = {0: QuantileArm(1.0, 0.05, 200, 900, "interval"), 4: QuantileArm(5.5, 0.02, 50, 80, "interval")}
    contrast = quantile_contrast(treatment, control)
    value, se, _ = effect(contrast)
    assert value == pytest.approx(0.75 * 1.0 - 0.25 * 0.5)
    assert se**2 == pytest.approx(0.75**2 * 0.09 + 0.25**2 * 0.03)
    assert (contrast.units, contrast.epochs, contrast.left_out) == (400, (0, 4), ())


def test_an_epoch_whose_variance_is_unknown_is_left_out() -> None:
    known = QuantileArm(2.0, 0.04, 100, 500, "interval")
    alone = QuantileArm(9.0, None, 1, 3, None)
    empty = quantile_arm([], [], 0.5)
    contrast = quantile_contrast({0: known, 1: alone, 2: known, 3: empty}, {0: known, 1: known, 3: empty})
    assert (contrast.value, contrast.epochs, contrast.left_out) == (0.0, (0,), (1, 2))
    assert quantile_contrast({}, {}).value is None


def test_no_events_and_one_unit_have_no_variance() -> None:
    assert quantile_arm([], [], 0.5) == QuantileArm(None, None, 0, 0, None)
    assert quantile_arm([3.0, 1.0, 2.0, 5.0, 4.0], [7] * 5, 0.5) == QuantileArm(3.0, None, 1, 5, None)


@pytest.mark.parametrize(
    ("events", "nu", "known"),
    [
        (39, 0.95, False),
        (40, 0.95, True),
        (39, 0.05, False),
        (45, 0.05, True),
        (4, 0.5, False),
        (5, 0.5, True),
    ],
)
def test_a_quantile_with_fewer_than_two_events_beyond_it_has_no_variance(
    events: int, nu: float, known: bool
) -> None:
    arm = quantile_arm(np.arange(float(events)), np.arange(events), nu)
    assert arm.value is not None
    assert (arm.variance is not None) == known


def test_events_that_are_all_alike_have_no_variance_to_speak_of() -> None:
    for units in (10, 300):
        arm = quantile_arm(np.full(3 * units, 0.1), np.repeat(np.arange(units), 3), 0.5)
        assert (arm.value, arm.variance) == (0.1, 0.0)
    contrast = quantile_contrast({0: arm}, {0: arm})
    assert (contrast.value, contrast.se, contrast.exact_p) == (0.0, 0.0, 1.0)


def test_most_events_alike_do_not_make_a_quantile_certain() -> None:
    """Nine in ten ratings are 5; the median of some repetition may be 4, so the variance is not 0."""
    generator = np.random.default_rng(41)
    for units in (30, 300):
        ratings = np.where(generator.random(units) < 0.9, 5.0, 4.0)
        arm = quantile_arm(ratings, np.arange(units), 0.5)
        assert arm.value == 5.0
        assert 0.0 < variance_of(arm) < 1.0


@pytest.mark.parametrize(("owners", "share"), [(1, 0.04), (10, 0.06)], ids=["wide interval", "few beyond"])
def test_a_tail_that_few_units_own_sends_the_quantile_to_the_bootstrap(owners: int, share: float) -> None:
    values, units = clustered_events(np.random.default_rng(43), units=2_000)
    tail = np.arange(round(share * values.size))
    values = np.concatenate([values, 50.0 + tail / tail.size])
    assert quantile_arm(values, np.append(units, 2_000 + tail % owners), 0.95).method == "bootstrap"
    assert quantile_arm(values, np.append(units, 2_000 + tail % 200), 0.95).method == "interval"


def test_the_interval_looks_past_a_rare_value_beside_the_quantile() -> None:
    """The median is 5, the next value is 4, but as good as all that is not 5 is 1."""
    values = np.repeat([1.0, 4.0, 5.0], [188, 4, 208])
    assert variance_of(quantile_arm(values, np.arange(400), 0.5)) == pytest.approx(
        (4.0 / 1.96) ** 2, rel=1e-4
    )


def test_values_too_far_apart_for_a_double_leave_the_variance_unknown() -> None:
    for units in (20, 300):
        values = np.where(np.arange(units) % 2, 1e200, -1e200) * np.linspace(0.5, 1.0, units)
        arm = quantile_arm(values, np.arange(units), 0.5)
        assert arm.value is not None
        assert (arm.variance, arm.method) == (None, None)


@pytest.mark.parametrize("nu", [0.0, 1.0, -0.5, 95.0, math.nan])
def test_a_level_outside_its_bounds_is_refused(nu: float) -> None:
    with pytest.raises(InvalidInputError, match="nu"):
        quantile_arm([1.0, 2.0], [0, 1], nu)
    with pytest.raises(InvalidInputError):
        clustered_quantile_variance(UnitSums(), nu, lower=0.0, upper=1.0)


def test_an_interval_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="upper"):
        clustered_quantile_variance(UnitSums(), 0.5, lower=2.0, upper=1.0)


@pytest.mark.parametrize(
    ("values", "units", "field"),
    [
        ([1.0, math.nan], [0, 1], "values"),
        ([1.0, math.inf], [0, 1], "values"),
        ([[1.0, 2.0]], [0, 1], "values"),
        ([1.0, 2.0], [0], "units"),
        ([1.0, 2.0], [0.5, 1.5], "units"),
    ],
)
def test_events_that_are_no_numbers_of_units_are_refused(
    values: npt.ArrayLike, units: npt.ArrayLike, field: str
) -> None:
    with pytest.raises(InvalidInputError) as refused:
        quantile_arm(values, units, 0.5)
    assert refused.value.field == field
