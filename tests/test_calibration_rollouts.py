"""A small calibration of what is done on the evidence; the large one is in `tests/calibration`.

As in `test_calibration`: fixed seeds, bounds that 99.9 % of the outcomes keep where a rule errs in 5 %, and beside
each the careless way, which has to be outside.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

import numpy as np
import pytest
from scipy.stats import binom

from promptab.stats.quantile import quantile_arm
from tests.calibration.detections import (
    KEPT_RATE,
    SEED_BOUND,
    ClusteredFall,
    Delay,
    Detection,
    Fall,
    clustered_detected,
    detected,
    failing,
    streams_of,
)
from tests.calibration.outcomes import Population, quantile_se
from tests.calibration.quantile_rollouts import (
    BEHIND_BOUND,
    BESIDE_CONTROL,
    WatchedPercentile,
    quantile_rollouts,
    resampled_variance,
)
from tests.calibration.quantile_rollouts import action_at as percentile_action_at
from tests.calibration.rollout_tables import is_as_aimed
from tests.calibration.rollouts import (
    CONTROLS,
    EVERY,
    KINDS,
    Rollouts,
    Situation,
    Watched,
    action_at,
    looks_to_ask,
    rollouts,
    watched,
)
from tests.calibration.streams import CORRELATION, streams
from tests.calibration.tally import ALPHA, Tally
from tests.calibration.verdicts import Watch

by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.situation}, {kind.events} events")


@functools.cache
def small(kind: Rollouts) -> Tally:
    return rollouts(kind, watched(kind.situation), runs=60, seed=61, units=3_000)


def most(runs: int) -> int:
    return int(binom.interval(0.999, runs, ALPHA)[1])


@by_kind
def test_streams_are_wrongly_rolled_back_or_promoted_in_five_percent_at_most(kind: Rollouts) -> None:
    tally = small(kind)
    for one in watched(kind.situation):
        for action in ("rollback", "promote"):
            for every in EVERY:
                name = f"{one.label}: {action} every {every}"
                assert tally.counts[name] <= most(tally.runs), name


@by_kind
def test_a_z_test_at_every_look_is_wrong_far_more_often_and_more_so_of_several(kind: Rollouts) -> None:
    tally = small(kind)
    careless = {one: tally.counts[f"{one.label}: careless"] for one in watched(kind.situation)}
    single = [count for one, count in careless.items() if len(one.guardrails) == 1]
    assert sum(single) > most(tally.runs * len(single)), "a z test at every look should be far off"
    assert all(count > most(tally.runs) for one, count in careless.items() if len(one.guardrails) > 1)
    assert max(single) < max(careless.values())


# of a control beside which the treatment is worse on everything, and of one beside which it is better
APART: Mapping[str, Mapping[str, float]] = {
    "worse": {
        "success_rate": 0.97,
        "refusal_rate": 0.01,
        "response_time": 0.9,
        "cost_per_success": 0.003,
        "relevance": 0.8,
        "rating": 4.1,
    },
    "better": {
        "success_rate": 0.8,
        "refusal_rate": 0.1,
        "response_time": 1.8,
        "cost_per_success": 0.006,
        "relevance": 0.6,
        "rating": 3.0,
    },
}
BOUNDED = Watched("rating", ("success_rate >= 0.8", "relevance >= 0.6", "response_time <= 1.5"))


@pytest.mark.parametrize("events", [1, 10])
@pytest.mark.parametrize("controls", [*APART, *CONTROLS])
def test_looks_at_which_decide_is_asked_are_all_at_which_it_acts(controls: str, events: int) -> None:
    """The whole analysis and decision at every look, of streams with harm, without, and with a gain."""
    situation: Situation = "at the margin" if controls == "at the margin" else "no effect"
    levels = APART.get(controls) or CONTROLS[situation]
    policies = [BOUNDED, *(one for one in watched(situation) if len(one.guardrails) > 1)]
    done = set()
    for stream in streams(levels, events=events, units=600, every=10, runs=1, seed=62):
        watch = Watch(stream)
        for one in policies:
            actions = [action_at(stream, one, look) for look in range(stream.looks)]
            acts = [look for look, action in enumerate(actions) if action in {"rollback", "promote"}]
            assert acts == np.flatnonzero(looks_to_ask(watch, one)).tolist(), one
            done |= set(actions)
    assert controls not in APART or {"worse": "rollback", "better": "promote"}[controls] in done


FALLS = [Fall(0.8), Fall(0.7), Fall(0.8, 0.5), Fall(0.7, 0.1)]


@pytest.mark.parametrize("fall", [Fall(0.7), Fall(0.7, 0.5), Fall(0.7, 0.1), Fall(0.9, 0.1)], ids=str)
def test_looks_at_which_a_fall_is_seen_are_those_at_which_decide_rolls_back(fall: Fall) -> None:
    one = Watched("success_rate", (fall.guardrail,))
    (stream,) = streams_of(fall, runs=1, seed=67, units=500)
    rolled_back = [look for look in range(stream.looks) if action_at(stream, one, look) == "rollback"]
    assert rolled_back == np.flatnonzero(failing(fall, stream, stream.looks)).tolist()
    assert bool(rolled_back) == (fall.rate < 0.9)


@functools.cache
def small_detection(fall: Fall) -> Detection:
    return detected(fall, runs=100, seed=64, units=3_000)


@pytest.mark.parametrize("fall", FALLS, ids=str)
def test_a_fall_is_seen_nearly_as_soon_as_information_allows(fall: Fall) -> None:
    found = small_detection(fall)
    assert found.guardrail.stopped == found.runs
    assert is_as_aimed(found.guardrail, fall)


def test_the_rule_of_seed_003_waits_where_the_fall_is_deep_and_misses_a_shallow_one() -> None:
    deep, shallow = small_detection(Fall(0.7)), detected(Fall(0.85), runs=40, seed=65, units=3_000)
    assert deep.guardrail.median is not None
    assert deep.seed.median is not None
    assert deep.guardrail.median < deep.seed.median / 2
    assert shallow.seed.stopped < 0.3 * shallow.runs < 0.9 * shallow.runs < shallow.guardrail.stopped


@pytest.mark.parametrize("fall", [Fall(0.9), Fall(0.9, 0.1), Fall(0.9, 0.5)], ids=str)
def test_without_a_fall_nothing_is_rolled_back_in_nineteen_of_twenty_streams(fall: Fall) -> None:
    assert small_detection(fall).guardrail.stopped <= most(100)


def test_a_deep_fall_of_units_with_several_events_is_seen_before_there_are_a_hundred() -> None:
    found = clustered_detected(ClusteredFall(0.7, 0.9), runs=40, seed=68, units=2_000)
    assert found.guardrail.stopped == found.runs
    assert found.guardrail.median is not None
    assert found.guardrail.median <= 75
    without = clustered_detected(ClusteredFall(0.9, 0.9), runs=100, seed=69, units=2_000)
    assert without.guardrail.stopped <= most(100)


def test_the_rule_of_seed_003_rolls_back_what_keeps_its_own_bound() -> None:
    found = small_detection(Fall(KEPT_RATE, bound=SEED_BOUND))
    assert found.guardrail.stopped <= most(100) < found.seed.stopped


def test_information_bounds_are_those_of_the_formula() -> None:
    assert Fall(0.8).information_bound == pytest.approx(67.4669, abs=1e-4)
    assert Fall(0.85, 0.5).information_bound == pytest.approx(521.1545, abs=1e-4)
    assert Fall(0.9).information_bound is None


def test_a_delay_that_most_streams_never_had_has_no_median() -> None:
    assert Delay.of([10, None, 30, 20]) == Delay(3, 20, None)
    assert Delay.of([None, None, 30]) == Delay(1, None, None)


@pytest.mark.parametrize(("events", "slower", "seed"), [(1, 1.7, 1), (10, 1.7, 2), (10, 1.3, 3)])
def test_the_looks_at_which_nothing_is_asked_of_a_95th_percentile_are_those_at_which_nothing_is_done(
    events: int, slower: float, seed: int
) -> None:
    population = Population("p95_response_time", events, CORRELATION if events > 1 else 0.0)
    watched = WatchedPercentile.drawn(np.random.default_rng(seed), population, 1_000, slower=slower)
    for one in (BEHIND_BOUND, BESIDE_CONTROL):
        z = watched.true_z(quantile_se(population, 0.95), bounded=one is BEHIND_BOUND)
        found = watched.first_action(one, z)
        assert found is not None
        look, action = found
        assert action == "rollback"
        earlier = range(max(0, look - 40), look)
        asked = [percentile_action_at(watched.stream, watched.arms, one, each) for each in earlier]
        assert not {"rollback", "promote"} & set(asked)


def test_a_bootstrap_of_single_events_comes_to_the_variance_without_drawing() -> None:
    generator = np.random.default_rng(5)
    for n in (100, 200, 400):
        values = generator.lognormal(0.0, 0.6, n)
        drawn = quantile_arm(values, np.arange(n), 0.95)
        assert drawn.method == "bootstrap"
        # 1,000 draws give a standard deviation to some 3 %
        assert math.sqrt(drawn.variance or 0.0) == pytest.approx(
            math.sqrt(resampled_variance(values)), rel=0.12
        )


def test_a_95th_percentile_errs_in_five_percent_at_most_and_a_z_test_of_it_does_not() -> None:
    tally = quantile_rollouts(10, runs=60, seed=66, units=3_000)
    for one in (BEHIND_BOUND, BESIDE_CONTROL):
        for action in ("rollback", "promote"):
            assert tally.counts[f"{one.label}: {action}"] <= most(tally.runs)
        assert tally.counts[f"{one.label}: careless"] > most(tally.runs)
