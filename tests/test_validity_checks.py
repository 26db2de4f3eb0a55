"""The conditions without which nothing wins, where weights change and where one looks again and again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest

from promptab.analysis.analyzing import analyze
from promptab.analysis.checks import validity_checks
from promptab.analysis.evidence import ArmCounts, Evidence, MetricEvidence, SegmentEvidence
from promptab.analysis.result import METHODS, Check, Method
from promptab.stats.interaction import assignment_independence
from promptab.stats.sample_ratio import EpochUnits, sequential_bayes_factor
from tests.test_analysis import evidence_of, experiment_of, successes

EVEN = {"a": 0.5, "b": 0.5}


def evidence(
    arms: Mapping[str, Mapping[int, ArmCounts]], weights: Mapping[int, Mapping[str, float]]
) -> Evidence:
    """Return a clear win for b, among units that were dealt and reported like this."""
    sums = {"success_rate": {"a": successes(250, 1000), "b": successes(500, 1000)}}
    return replace(evidence_of(sums, experiment_of("a", "b")), arms=arms, weights=weights)


def check(name: str, method: Method, given: Evidence) -> Check:
    return next(found for found in validity_checks(given, method, {}) if found.name == name)


def in_one_epoch(a: ArmCounts, b: ArmCounts) -> Evidence:
    return evidence({"a": {0: a}, "b": {0: b}}, {0: EVEN})


@pytest.mark.parametrize("method", METHODS)
def test_outcomes_missing_alike_pass_also_while_weights_and_rates_change(method: Method) -> None:
    """A fiftieth of 90/10 and then a half of 50/50 is missing: in each epoch as much of the one as of the other."""
    ramp = evidence(
        {
            "a": {0: ArmCounts(9000, 8820), 1: ArmCounts(1000, 500)},
            "b": {0: ArmCounts(1000, 980), 1: ArmCounts(1000, 500)},
        },
        {0: {"a": 0.9, "b": 0.1}, 1: EVEN},
    )
    pooled = assignment_independence([[[680, 520], [9320, 1480]]])
    assert pooled is not None
    assert pooled.p_value < 1e-6
    found = check("missing_outcomes", method, ramp)
    assert found.passed
    assert found.detail == "exposed and nothing recorded: a 680 of 10000 (6.8 %), b 520 of 2000 (26.0 %)"


@pytest.mark.parametrize(
    ("missing", "alarms"),
    [
        ((100, 105), set[Method]()),
        ((80, 130), {"fixed"}),
        ((40, 160), {"fixed", "sequential", "bayesian"}),
    ],
    ids=["alike", "enough for one look", "enough for any look"],
)
def test_missing_outcomes_that_are_looked_at_again_and_again_take_more_to_alarm(
    missing: tuple[int, int], alarms: set[Method]
) -> None:
    given = in_one_epoch(*(ArmCounts(1000, 1000 - lost) for lost in missing))
    assert {method for method in METHODS if not check("missing_outcomes", method, given).passed} == alarms


def test_the_alarm_for_missing_outcomes_at_every_look_is_that_of_the_bayes_factor() -> None:
    given = in_one_epoch(ArmCounts(1000, 900), ArmCounts(1000, 860))
    split = sequential_bayes_factor([EpochUnits({"a": 100, "b": 140}, EVEN)])
    assert split > 0.0
    assert check("missing_outcomes", "sequential", given).p_value == pytest.approx(math.exp(-split))


@pytest.mark.parametrize("method", METHODS)
def test_a_crooked_dealing_is_no_missing_outcome(method: Method) -> None:
    given = in_one_epoch(ArmCounts(2000, 1800), ArmCounts(1000, 900))
    assert check("missing_outcomes", method, given).passed
    assert not check("sample_ratio", method, given).passed


@pytest.mark.parametrize("method", METHODS)
def test_units_in_a_variant_of_weight_zero_stop_every_winner_and_are_counted(method: Method) -> None:
    given = evidence({"a": {0: ArmCounts(1000, 1000)}, "b": {0: ArmCounts(7, 7)}}, {0: {"a": 1.0, "b": 0.0}})
    result = analyze(given, method)
    assert result.winner is None
    assert "7 units are in a variant whose weight was zero" in result.reason


def with_segments(*exposed: tuple[int, int]) -> Evidence:
    """Return an even dealing on the whole, of which each of these is one segment."""
    given = in_one_epoch(ArmCounts(1000, 1000), ArmCounts(1000, 1000))
    sums = {"a": successes(100, 200), "b": successes(100, 200)}
    segments = [
        SegmentEvidence(
            "plan",
            str(number),
            MetricEvidence(given.primary.definition, sums=sums),
            {"a": {0: ArmCounts(a, a)}, "b": {0: ArmCounts(b, b)}},
        )
        for number, (a, b) in enumerate(exposed)
    ]
    return replace(given, segments=segments)


@pytest.mark.parametrize("method", METHODS)
def test_a_crooked_dealing_within_a_segment_stops_every_winner(method: Method) -> None:
    straight = analyze(with_segments((500, 500), (500, 500)), method)
    assert straight.winner == "b"
    assert [segment.sample_ratio_mismatch for segment in straight.segments] == [False, False]
    crooked = analyze(with_segments((400, 600), (600, 400)), method)
    assert crooked.winner is None
    assert [segment.sample_ratio_mismatch for segment in crooked.segments] == [True, True]
    assert "with plan = 0: a 400 (planned 500), b 600 (planned 500)" in crooked.reason


def test_the_dealing_within_segments_is_judged_by_their_number() -> None:
    """Of one segment the odds are enough; of twenty that were looked at they are what chance gives away."""
    odd = (440, 560)
    for method in METHODS:
        alone = analyze(with_segments(odd), method).segments[0]
        among = analyze(with_segments(odd, *[(50, 50)] * 19), method).segments[0]
        assert alone.sample_ratio_p is not None
        assert among.sample_ratio_p == pytest.approx(20 * alone.sample_ratio_p)
        assert (alone.sample_ratio_mismatch, among.sample_ratio_mismatch) == (True, False)


def test_the_p_value_of_the_dealing_holds_at_the_looks_of_its_method() -> None:
    given = in_one_epoch(ArmCounts(460, 460), ArmCounts(540, 540))
    odds = sequential_bayes_factor([EpochUnits({"a": 460, "b": 540}, EVEN)])
    assert check("sample_ratio", "sequential", given).p_value == pytest.approx(math.exp(-odds))
    fixed = check("sample_ratio", "fixed", given).p_value
    assert fixed is not None
    assert fixed < math.exp(-odds)
