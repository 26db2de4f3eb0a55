"""A small calibration, and the page of the large one.

Every simulation has one fixed seed. A rule has to stay within what 99.9 % of the outcomes of one that errs in 5 % are;
what people do without it has to be outside, so that each test is seen to be able to fail.
"""

from __future__ import annotations

import functools

import pytest
from scipy.stats import binom

from tests.calibration import record
from tests.calibration.__main__ import MEASURED, README
from tests.calibration.bandits import (
    DRIFT,
    MANY_EVENTS,
    MILLIONTH,
    NULLS,
    REALS,
    WITHDRAWING,
    BanditSetting,
    simulate_bandit,
)
from tests.calibration.cells import QUANTILE, Cell, Key, Pair, Result, Runs, jobs, simulated
from tests.calibration.checks import ALARM, COVERAGE, FIXED, LOOKS, POOLED, Promise, check
from tests.calibration.dealing import BROKEN, DEALINGS, alarms
from tests.calibration.experiment_tables import TUNED_ENOUGH
from tests.calibration.experiments import Setting
from tests.calibration.outcomes import METRICS, Population
from tests.calibration.page import page
from tests.calibration.schedule import ramped
from tests.calibration.small_samples import few_units
from tests.calibration.tally import ALPHA, Tally

by_metric = pytest.mark.parametrize("metric", METRICS)
ANYTIME = ("anytime", TUNED_ENOUGH)

# An effect of so many standard errors is found by a fixed horizon in 80 % of experiments.
_POWERED = 2.8


def clustered(metric: str) -> Setting:
    """20 events a unit, alike enough for a test over events to err in every third experiment or more."""
    return Cell(Population(metric, 20, 0.3), "steady").setting


@functools.cache
def without_effect(metric: str) -> Tally:
    # quantiles take ten times as long
    return simulated(clustered(metric), 60 if metric == QUANTILE else 120, 30)


@functools.cache
def with_effect(metric: str) -> Tally:
    effect = _POWERED * without_effect(metric).mean_se
    return simulated(clustered(metric)._replace(effect=effect), 30 if metric == QUANTILE else 60, 31)


@functools.cache
def with_a_ramp(metric: str) -> Tally:
    """90/10, then 50/50 when the base value is higher, and no effect."""
    if metric == QUANTILE:
        return simulated(Setting(Population(metric, 5, 0.1), ramped(2_000)), 30, 32)
    return simulated(Setting(Population(metric, 20, 0.3), ramped(2_000)), 80, 32)


def most(tally: Tally) -> int:
    return int(binom.interval(0.999, tally.runs, ALPHA)[1])


def fewest(tally: Tally) -> int:
    return int(binom.interval(0.999, tally.runs, ALPHA)[0])


@by_metric
def test_one_look_at_units_errs_in_five_percent_and_one_at_events_does_not(metric: str) -> None:
    tally = without_effect(metric)
    assert fewest(tally) <= tally.counts["fixed"] <= most(tally)
    assert tally.counts["events"] > most(tally), "events taken for units should be far off"


@by_metric
def test_28_looks_err_in_five_percent_at_most_and_peeking_does_not(metric: str) -> None:
    tally = without_effect(metric)
    for name in ANYTIME:
        assert tally.counts[name] <= most(tally)
    # a t test of a quantile at each of 28 looks is too slow to repeat so often
    naive = "events" if metric == QUANTILE else "peeking"
    assert tally.counts[naive] > most(tally), "the naive way should be far off"


@by_metric
def test_a_ramp_with_a_moving_base_rate_errs_no_more_and_mixed_epochs_do(metric: str) -> None:
    tally = with_a_ramp(metric)
    assert fewest(tally) <= tally.counts["fixed"] <= most(tally)
    for name in ANYTIME:
        assert tally.counts[name] <= most(tally)
    assert tally.counts["pooled"] > most(tally), "mixed epochs should be far off"


@by_metric
def test_a_real_effect_is_found_and_more_often_at_one_look_than_at_any_of_28(metric: str) -> None:
    real, null = with_effect(metric), without_effect(metric)
    assert real.share("fixed") >= 0.6
    assert real.share(TUNED_ENOUGH) >= 0.2
    assert real.share("anytime") >= 0.05
    assert real.share("fixed") > real.share(TUNED_ENOUGH) > real.share("anytime")
    assert null.share("fixed") < 0.2, "what finds everything should not pass for power"


@by_metric
def test_intervals_cover_a_real_effect_and_those_over_events_do_not(metric: str) -> None:
    tally = with_effect(metric)
    for name in ("fixed", *ANYTIME):
        assert tally.counts[f"{name} missed"] <= most(tally)
    assert tally.counts["events missed"] > most(tally), "intervals over events should be far too narrow"


@pytest.mark.parametrize("label", ["50/50", "90/10, then 50/50"])
def test_the_sample_ratio_alarm_is_silent_for_28_looks_and_daily_chi_square_is_not(label: str) -> None:
    tally = alarms(DEALINGS[label], per_day=1_000, runs=150, seed=33)
    assert tally.share("sequential") < 0.01
    assert tally.share("daily 0.05") > 0.1, "a test at 5 % each day should be far off"


def test_the_sample_ratio_alarm_sees_units_that_are_lost() -> None:
    tally = alarms(BROKEN["52/48 instead of 50/50"], per_day=1_000, runs=30, seed=34)
    assert tally.share("sequential") > 0.9


@pytest.mark.parametrize("sizes", [(2, 2), (3, 3), (5, 5)], ids=str)
def test_a_handful_of_units_is_not_enough_to_look_certain(sizes: tuple[int, int]) -> None:
    """With one event a unit, arms without any variation are common, and must not decide."""
    tally = few_units(Population("success_rate", 1, 0.0), *sizes, runs=200, seed=35)
    assert max(tally.counts["fixed"], tally.counts["t"]) <= most(tally)


@pytest.mark.parametrize("sizes", [(2, 50), (3, 100)], ids=str)
def test_an_arm_of_equal_units_is_not_taken_to_be_free_of_error(sizes: tuple[int, int]) -> None:
    tally = few_units(Population("success_rate", 1, 0.0), *sizes, runs=120, seed=36)
    assert max(tally.counts["fixed"], tally.counts["t"]) <= most(tally)
    assert tally.counts["plain Welch"] > most(tally), "plain Welch should be far off"


@functools.cache
def bandits(arms: int, drift: float = 0.0, events: int = 1, rule: str = "Thompson") -> Tally:
    return simulate_bandit(BanditSetting(NULLS[arms], rule, drift=drift, events=events), 100, 37)


@pytest.mark.parametrize("events", [1, MANY_EVENTS], ids=["one event", "many events"])
@pytest.mark.parametrize("drift", [0.0, DRIFT], ids=["steady", "rising"])
def test_the_analysis_of_a_bandit_errs_in_five_percent_and_means_over_a_rising_base_do_not(
    drift: float, events: int
) -> None:
    tally = bandits(2, drift, events)
    for name in ("weighted", "weighted, looks", "slice, looks"):
        assert tally.counts[name] <= most(tally)
    if drift:
        assert tally.counts["naive"] > most(tally), "plain means should be far off"


def test_the_slice_of_a_bandit_errs_in_five_percent_when_the_worst_arm_is_withdrawn() -> None:
    tally = bandits(3, DRIFT, rule=WITHDRAWING.label)
    for name in ("weighted", "weighted, looks", "slice, looks"):
        assert tally.counts[name] <= most(tally)


def test_a_bandit_loses_less_than_dealing_alike_and_its_intervals_cover_the_difference() -> None:
    real = simulate_bandit(BanditSetting(REALS[3]), 60, 38)
    alike = simulate_bandit(BanditSetting(REALS[3], "uniform"), 20, 39)
    assert real.counts["regret"] / real.runs < 0.75 * alike.counts["regret"] / alike.runs
    assert real.counts["best"] * MILLIONTH / real.runs > 0.6
    for name in ("weighted missed", "weighted, looks missed"):
        assert real.counts[name] <= most(real)


@functools.cache
def measured() -> dict[Key, Result]:
    return record.read(MEASURED.read_text(encoding="utf-8"))


def test_the_page_is_written_from_the_counts_beside_it() -> None:
    assert page(measured(), Runs()) == README.read_text(encoding="utf-8")


def test_everything_that_there_is_to_measure_was_measured_as_often_as_the_page_says() -> None:
    assert measured().keys() == jobs(Runs()).keys()
    for (section, row), result in measured().items():
        if section in {"steady", "ramped"}:
            assert isinstance(result, Pair), row
            assert result.null.runs == Runs().null >= 2_000, row
            assert result.real.runs in {Runs().real, Runs().dear}, row


def test_counts_are_read_back_as_they_were_written() -> None:
    text = MEASURED.read_text(encoding="utf-8")
    assert record.written(record.read(text)) == text


def test_the_page_says_of_each_promise_whether_it_was_held() -> None:
    text = README.read_text(encoding="utf-8")
    assert ("**Every number that has a bound is within it:" in text) != ("**Outside their bounds:" in text)
    for title in ("A day's units each day", "90/10, then 50/50, and the base value moves"):
        for promise in (FIXED, POOLED, LOOKS, COVERAGE):
            assert f"| {title} | {promise.sentence} |" in text
    assert ALARM.sentence in text


def test_the_page_names_a_number_that_is_outside_its_bound_and_the_chance_of_that() -> None:
    key: Key = ("steady", Cell(Population("success_rate", 5, 0.1), "steady"))
    worse = dict(measured())
    pair = worse[key]
    assert isinstance(pair, Pair)
    broken = Tally(pair.null.runs, {**pair.null.counts, "anytime": 140}.items(), pair.null.se_sum)
    worse[key] = pair._replace(null=broken)
    text = page(worse, Runs())
    assert "**Outside their bounds:" in text
    assert "- Success rate, 5 events, correlation 0.1, anytime: false positives: 7.0 % (p = " in text
    assert "| **7.0 %** |" in text
    assert f'"{LOOKS.sentence}": 1 of ' in text


@pytest.mark.parametrize(
    ("promise", "kept", "broken"),
    [(FIXED, (68, 132), (67, 133)), (POOLED, (81, 120), (80, 121)), (LOOKS, (0, 131), (132, 2_000))],
    ids=["each row", "all rows", "at any look"],
)
def test_bounds_are_where_they_are_said_to_be(
    promise: Promise, kept: tuple[int, int], broken: tuple[int, int]
) -> None:
    for counts, held in ((kept, True), (broken, False)):
        for count in counts:
            tally = Tally(2_000, [("found", count)])
            assert check(promise, tally, "found", where="", told="").held is held, count
