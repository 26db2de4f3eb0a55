"""What the analysis concludes: three ways of reading, checks that gate every winner, guardrails, size, segments."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptab.analysis.analyzing import analyze
from promptab.analysis.evidence import (
    ArmCounts,
    Evidence,
    MetricEvidence,
    SegmentEvidence,
    SeriesEvidence,
)
from promptab.analysis.result import METHODS, AnalysisResult, Method
from promptab.plan import AnalysisPlan
from promptab.stats.covariate_sums import CovariateSums
from promptab.stats.metric import MetricDefinition
from promptab.stats.quantile import QuantileArm
from promptab.stats.summary import UnitSums
from tests.test_analysis import EpochSums, around, compared, evidence_of, experiment_of, successes


def repeated(rate_of_units: Mapping[float, int], events: int = 4) -> EpochSums:
    """So many units of `events` events each with this share of successes."""
    return {
        0: UnitSums.of(
            [(events, events * rate) for rate, units in rate_of_units.items() for _ in range(units)],
            center=0.5,
        )
    }


def wide_margin(margin: float, **fields: object) -> MetricDefinition:
    return MetricDefinition(
        name="response_time",
        direction="decrease",
        role="guardrail",
        largest_regression=margin,
        format="seconds",
        **fields,  # type: ignore[arg-type]
    )


def guarded(
    margin: float, *, slower: float, method: Method = "sequential", units: int = 2000
) -> AnalysisResult:
    """Analyse a clear win on success whose response time is this much longer."""
    plan = AnalysisPlan(metrics=(wide_margin(margin),))
    experiment = experiment_of("a", "b", plan=plan)
    sums = {
        "success_rate": {"a": successes(units // 2, units), "b": successes(units * 7 // 10, units)},
        "response_time": {
            "a": around(1.0, seed=1, units=units),
            "b": around(1.0 + slower, seed=2, units=units),
        },
    }
    return analyze(evidence_of(sums, experiment), method)


@pytest.mark.parametrize("method", METHODS)
def test_a_large_effect_wins_by_every_method(method: Method) -> None:
    result = compared({"a": successes(106, 600), "b": successes(472, 600)}, method=method)
    assert (result.winner, result.method) == ("b", method)
    assert result.reason == result.metrics["success_rate"].differences["b"].sentence


@pytest.mark.parametrize("method", METHODS)
def test_no_effect_wins_by_no_method(method: Method) -> None:
    result = compared({"a": successes(500, 1000), "b": successes(502, 1000)}, method=method)
    assert result.winner is None
    assert result.reason.startswith("No variant is shown to be better than a")


def test_a_sequential_interval_is_wider_than_a_fixed_one_and_its_p_value_larger() -> None:
    arms = {"a": successes(300, 1000), "b": successes(350, 1000)}
    fixed = compared(arms).metrics["success_rate"].differences["b"]
    sequential = compared(arms, method="sequential").metrics["success_rate"].differences["b"]
    assert sequential.technique == "confidence sequence"
    assert fixed.low is not None
    assert fixed.high is not None
    assert sequential.low is not None
    assert sequential.high is not None
    assert sequential.low < fixed.low < fixed.high < sequential.high
    assert (fixed.p_value or 1.0) < (sequential.p_value or 0.0)
    assert (fixed.verdict, sequential.verdict) == ("better", "undecided")


def test_each_method_says_how_it_may_be_read() -> None:
    arms = {"a": successes(300, 1000), "b": successes(350, 1000)}
    said = {method: compared(arms, method=method).caution for method in METHODS}
    assert "hold at every look" in said["sequential"]
    assert "Approximate" in said["sequential"]
    assert "right for one look" in said["fixed"]
    assert "beliefs" in said["bayesian"]
    assert "Approximate" not in said["fixed"]


@pytest.mark.parametrize(("window", "approximate"), [(None, True), (24.0, False)])
def test_a_sequential_analysis_without_a_measurement_window_is_approximate(
    window: float | None, *, approximate: bool
) -> None:
    plan = AnalysisPlan(window_hours=window)
    arms = {"a": successes(300, 1000), "b": successes(350, 1000)}
    assert compared(arms, method="sequential", plan=plan).approximate is approximate
    assert compared(arms, method="fixed", plan=plan).approximate is False


def test_a_probability_and_an_expected_loss_come_with_a_bayesian_analysis() -> None:
    result = compared({"a": successes(100, 1000), "b": successes(150, 1000)}, method="bayesian")
    difference = result.metrics["success_rate"].differences["b"]
    assert difference.technique == "beta posterior"
    assert difference.p_value is None
    assert difference.probability_better == pytest.approx(0.9996, abs=2e-4)
    assert difference.expected_loss is not None
    assert 0.0 <= difference.expected_loss < 1e-5
    best = [estimate.probability_best for estimate in result.metrics["success_rate"].estimates.values()]
    assert sum(value or 0.0 for value in best) == pytest.approx(1.0)
    assert "better with probability above 0.999" in difference.sentence


def test_two_versions_that_are_as_good_as_each_other_have_no_bayesian_winner() -> None:
    """The loss of either choice is small; that makes neither of them better."""
    result = compared(
        {"a": successes(500_000, 1_000_000), "b": successes(500_300, 1_000_000)}, method="bayesian"
    )
    assert result.metrics["success_rate"].differences["b"].verdict == "undecided"
    assert result.winner is None


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    effect=st.sampled_from([-0.3, -0.05, 0.0, 0.05, 0.3]),
    method=st.sampled_from(METHODS),
    units=st.integers(30, 200),
)
def test_every_method_judges_a_mirrored_metric_alike(
    seed: int, effect: float, method: Method, units: int
) -> None:
    """Less of -x is as good as more of x: verdicts, p-values and intervals may not notice."""
    arms = {"a": around(0.0, seed=seed, units=units), "b": around(effect, seed=seed + 1, units=units)}
    mirrored = {
        key: {
            epoch: sums._replace(s=-sums.s, center=-sums.center, rn=-sums.rn)
            for epoch, sums in by_epoch.items()
        }
        for key, by_epoch in arms.items()
    }
    guard: dict[str, object] = {
        "role": "guardrail",
        "largest_regression": 0.1,
        "relative": False,
        "smallest_effect": 0.04,
    }
    results = []
    for sums, direction in ((arms, "increase"), (mirrored, "decrease")):
        definition = MetricDefinition.model_validate({"name": "score", "direction": direction, **guard})
        plan = AnalysisPlan(metrics=(definition,), minimum_units=2)
        experiment = experiment_of("a", "b", primary_metric="rating", plan=plan)
        evidence = evidence_of({"score": sums, "rating": sums}, experiment)
        results.append(analyze(evidence, method).metrics["score"].differences["b"])
    up, down = results
    assert (up.verdict, up.safety, up.size, up.p_value) == (
        down.verdict,
        down.safety,
        down.size,
        down.p_value,
    )
    if up.low is not None and up.high is not None:
        assert down.low == pytest.approx(-up.high)
        assert down.high == pytest.approx(-up.low)
    assert up.probability_better == down.probability_better
    assert up.expected_loss == down.expected_loss


def test_nothing_wins_below_the_minimum_of_units() -> None:
    plan = AnalysisPlan(minimum_units=500)
    result = compared({"a": successes(40, 400), "b": successes(300, 400)}, plan=plan)
    assert result.better() == "b"
    assert result.winner is None
    assert result.reason == (
        "Not enough units yet: a has 400, b has 400 of the 500 units with success_rate that each variant needs"
    )


def with_arms(evidence: Evidence, **counts: ArmCounts) -> Evidence:
    return replace(
        evidence, arms={key: {0: found} for key, found in counts.items()}, weights={0: {"a": 0.5, "b": 0.5}}
    )


def clear_win(units: int = 1000) -> Evidence:
    sums = {"success_rate": {"a": successes(units // 4, units), "b": successes(units // 2, units)}}
    return evidence_of(sums, experiment_of("a", "b"))


@pytest.mark.parametrize("method", METHODS)
def test_a_crooked_dealing_stops_every_winner(method: Method) -> None:
    crooked = with_arms(clear_win(), a=ArmCounts(1000, 1000), b=ArmCounts(1200, 1200))
    result = analyze(crooked, method)
    assert result.winner is None
    assert result.better() == "b"
    (failed,) = result.failed_checks()
    assert failed.name == "sample_ratio"
    assert "a 1000 (planned 1100), b 1200 (planned 1100)" in result.reason
    straight = with_arms(clear_win(), a=ArmCounts(1000, 1000), b=ArmCounts(1020, 1020))
    assert analyze(straight, method).winner == "b"


def test_a_variant_of_weight_zero_does_not_blur_the_dealing_of_the_others() -> None:
    evidence = replace(
        clear_win(),
        arms={"a": {0: ArmCounts(500, 500), 1: ArmCounts(500, 500)}, "b": {0: ArmCounts(500, 500)}},
        weights={0: {"a": 0.5, "b": 0.5}, 1: {"a": 1.0, "b": 0.0}},
    )
    assert analyze(evidence).failed_checks() == ()
    assert analyze(evidence).planned_shares == pytest.approx({"a": 2 / 3, "b": 1 / 3})


def test_units_seen_in_two_variants_stop_a_winner() -> None:
    result = analyze(with_arms(clear_win(), a=ArmCounts(1000, 1000, 30), b=ArmCounts(1000, 1000)))
    assert [check.name for check in result.failed_checks()] == ["switched_units"]
    assert "30 of a (3.0 %)" in result.reason
    few = analyze(with_arms(clear_win(), a=ArmCounts(1000, 1000, 5), b=ArmCounts(1000, 1000)))
    assert few.winner == "b"


def test_outcomes_that_are_missing_on_one_side_stop_a_winner() -> None:
    result = analyze(with_arms(clear_win(), a=ArmCounts(1100, 1000), b=ArmCounts(1020, 1000)))
    assert [check.name for check in result.failed_checks()] == ["missing_outcomes"]
    assert "a 100 of 1100 (9.1 %), b 20 of 1020 (2.0 %)" in result.reason
    even = analyze(with_arms(clear_win(), a=ArmCounts(1100, 1000), b=ArmCounts(1095, 1000)))
    assert even.winner == "b"


@pytest.mark.parametrize("method", METHODS)
def test_a_guardrail_that_is_shown_to_be_safe_lets_the_winner_win(method: Method) -> None:
    result = guarded(0.1, slower=0.0, method=method)
    assert result.metrics["response_time"].differences["b"].safety == "pass"
    assert result.winner == "b"


@pytest.mark.parametrize("method", METHODS)
def test_a_guardrail_that_is_broken_stops_the_winner(method: Method) -> None:
    result = guarded(0.1, slower=0.2, method=method)
    difference = result.metrics["response_time"].differences["b"]
    assert difference.safety == "fail"
    assert "not safe, worse by more than the 10 % that are tolerated" in result.reason
    assert result.winner is None


@pytest.mark.parametrize("method", METHODS)
def test_not_significant_is_not_safe(method: Method) -> None:
    """Thirty units show little about response times, least of all that they are no longer."""
    result = guarded(0.02, slower=0.035, method=method, units=30)
    assert result.metrics["response_time"].differences["b"].safety == "undecided"
    assert result.winner is None
    assert "not yet shown to be safe" in result.reason


def test_an_effect_that_is_real_and_too_small_does_not_win() -> None:
    def sized(smallest: float) -> AnalysisResult:
        definition = MetricDefinition(
            name="success_rate", kind="proportion", format="percent", smallest_effect=smallest, relative=False
        )
        plan = AnalysisPlan(metrics=(definition,))
        return compared({"a": successes(50_000, 100_000), "b": successes(51_000, 100_000)}, plan=plan)

    assert sized(0.005).winner == "b"
    small = sized(0.05)
    assert small.winner is None
    assert small.better() == "b"
    assert small.metrics["success_rate"].differences["b"].size == "too small"
    assert small.reason.startswith(
        "No variant is shown to be better than a by enough: b is 1.00 points better"
    )
    assert "real, but too small to matter: worth having is 5 points" in small.reason
    unclear = sized(0.012)
    assert unclear.metrics["success_rate"].differences["b"].size == "unclear"
    assert unclear.winner is None


def test_several_variants_share_the_alpha_of_the_primary_metric() -> None:
    """P = 0.03 decides alone, and not as one of three (Holm)."""
    pair = compared({"a": successes(500, 1000), "b": successes(549, 1000)})
    assert pair.winner == "b"
    arms = {
        "a": successes(500, 1000),
        "b": successes(549, 1000),
        "c": successes(500, 1000),
        "d": successes(505, 1000),
    }
    several = compared(arms)
    difference = several.metrics["success_rate"].differences["b"]
    assert several.winner is None
    assert difference.adjusted_p == pytest.approx(3 * (difference.p_value or 0.0))
    alone = pair.metrics["success_rate"].differences["b"]
    assert (difference.high or 0.0) - (difference.low or 0.0) > (alone.high or 0.0) - (alone.low or 0.0)
    assert "98.3 % interval" in difference.sentence


def test_secondary_metrics_are_judged_together() -> None:
    """One of ten metrics with p = 0.03 is what chance gives away."""
    quiet = {"a": successes(500, 1000), "b": successes(501, 1000)}
    sums: dict[str, Mapping[str, EpochSums]] = {f"quiet_{number}": quiet for number in range(9)}
    sums |= {"success_rate": quiet, "loud": {"a": successes(500, 1000), "b": successes(549, 1000)}}
    result = analyze(evidence_of(sums, experiment_of("a", "b")), "fixed")
    loud = result.metrics["loud"].differences["b"]
    assert (loud.p_value or 1.0) < 0.05 < (loud.adjusted_p or 0.0)
    assert loud.verdict == "undecided"
    assert "not after correcting for 10 comparisons" in loud.sentence
    assert "judged together" in result.caution


def test_few_units_are_compared_by_permuting_them() -> None:
    units = [(4.0, 3.0), (4.0, 4.0), (2.0, 2.0), (4.0, 3.0), (3.0, 3.0)]
    others = [(4.0, 1.0), (4.0, 0.0), (2.0, 1.0), (4.0, 1.0), (3.0, 0.0)]
    experiment = experiment_of("a", "b")
    sums = {"success_rate": {"a": {0: UnitSums.of(others)}, "b": {0: UnitSums.of(units)}}}
    evidence = evidence_of(sums, experiment)
    evidence = replace(evidence, primary=replace(evidence.primary, units={"a": {0: others}, "b": {0: units}}))
    difference = analyze(evidence, "fixed").metrics["success_rate"].differences["b"]
    assert difference.technique == "permutation"
    assert difference.p_value == pytest.approx(2 / math.comb(10, 5))
    assert difference.verdict == "better"


def test_few_bounded_scores_are_compared_by_betting_on_them() -> None:
    generator = random.Random(5)
    arms = {
        key: [(1.0, float(generator.random() < rate)) for _ in range(60)]
        for key, rate in (("a", 0.1), ("b", 0.9))
    }
    sums = {"success_rate": {key: {0: UnitSums.of(units)} for key, units in arms.items()}}
    evidence = evidence_of(sums, experiment_of("a", "b"))
    units = {key: {0: values} for key, values in arms.items()}
    evidence = replace(evidence, primary=replace(evidence.primary, units=units))
    difference = analyze(evidence).metrics["success_rate"].differences["b"]
    assert difference.technique == "betting confidence sequence"
    assert difference.verdict == "better"
    assert difference.low is not None
    assert difference.low > 0.2


def test_a_metric_with_a_history_is_judged_by_the_adjusted_difference() -> None:
    """The past explains most of what units differ by, so the adjusted interval is the narrower one."""
    generator = random.Random(11)

    def arm(effect: float) -> CovariateSums:
        rows = []
        for _ in range(400):
            habit = generator.gauss(5.0, 2.0)
            rows.append(
                (1.0, habit + effect + generator.gauss(0.0, 0.3), 1.0, habit + generator.gauss(0.0, 0.3))
            )
        return CovariateSums.of(rows)

    history = {"a": {0: arm(0.0)}, "b": {0: arm(0.15)}}
    definition = MetricDefinition(name="score", history_days=14)
    experiment = experiment_of("a", "b", primary_metric="score", plan=AnalysisPlan(metrics=(definition,)))
    sums = {"score": {key: {0: by_epoch[0].outcomes} for key, by_epoch in history.items()}}
    evidence = evidence_of(sums, experiment)
    result = analyze(replace(evidence, primary=replace(evidence.primary, history=history)))
    difference = result.metrics["score"].differences["b"]
    assert difference.adjusted is not None
    assert difference.adjusted.variance_reduction > 0.9
    assert difference.adjusted.high - difference.adjusted.low < 0.3 * (
        (difference.high or 0.0) - (difference.low or 0.0)
    )
    assert difference.low is not None
    assert difference.low < 0.0 < difference.adjusted.low
    assert (difference.verdict, result.winner) == ("better", "b")
    assert "adjusted for history" in difference.sentence


def test_a_quantile_is_compared_like_a_mean() -> None:
    definition = MetricDefinition(
        name="p95", kind="quantile", measure="response_time", quantile=0.95, direction="decrease"
    )
    experiment = experiment_of("a", "b", primary_metric="p95", plan=AnalysisPlan(metrics=(definition,)))
    evidence = replace(
        evidence_of({}, experiment, exposed={"a": 500, "b": 500}),
        primary=MetricEvidence(
            definition,
            quantiles={
                "a": {0: QuantileArm(2.0, 0.01, 500, 900, "interval")},
                "b": {0: QuantileArm(1.2, 0.01, 500, 900, "interval")},
            },
        ),
    )
    result = analyze(evidence)
    difference = result.metrics["p95"].differences["b"]
    assert difference.value == pytest.approx(-0.8)
    assert result.winner == "b"
    assert [estimate.value for estimate in result.metrics["p95"].estimates.values()] == [2.0, 1.2]


def test_segments_are_judged_together_and_keep_their_dealing_in_view() -> None:
    experiment = experiment_of("a", "b")
    evidence = evidence_of(
        {"success_rate": {"a": successes(500, 1000), "b": successes(501, 1000)}}, experiment
    )
    definition = evidence.primary.definition

    def segment(value: str, right: int, exposed: int = 200) -> SegmentEvidence:
        sums = {"a": successes(100, 200), "b": successes(right, 200)}
        arms = {"a": {0: ArmCounts(200, 200)}, "b": {0: ArmCounts(exposed, 200)}}
        return SegmentEvidence("plan", value, MetricEvidence(definition, sums=sums), arms)

    segments = [
        segment("free", 121),
        segment("pro", 101),
        segment("team", 99),
        segment("trial", 100, exposed=320),
    ]
    result = analyze(replace(evidence, segments=segments, weights={0: {"a": 0.5, "b": 0.5}}), "fixed")
    assert [found.value for found in result.segments] == ["free", "pro", "team", "trial"]
    free = result.segments[0].analysis.differences["b"]
    assert (free.p_value or 1.0) < 0.05 < (free.adjusted_p or 0.0)
    assert free.verdict == "undecided"
    assert result.segments[0].analysis.metric == "success_rate"
    assert (result.segments[3].sample_ratio_p or 1.0) < 0.001
    assert (result.segments[1].sample_ratio_p or 0.0) == 1.0


def test_a_series_shows_what_looks_on_the_way_would_have_seen() -> None:
    evidence = clear_win()
    days = [
        SeriesEvidence(
            evidence.at + timedelta(days=day),
            MetricEvidence(
                evidence.primary.definition,
                sums={"a": successes(25 * day, 100 * day), "b": successes(50 * day, 100 * day)},
            ),
        )
        for day in range(1, 6)
    ]
    points = analyze(replace(evidence, series=days)).series
    assert [point.units for point in points] == [200, 400, 600, 800, 1000]
    widths = [point.high - point.low for point in points]
    assert widths == sorted(widths, reverse=True)
    assert {point.value for point in points} == {0.25}


def test_what_a_decision_is_stored_with_names_the_method_and_its_limits() -> None:
    evidence = guarded(0.1, slower=0.0).evidence()
    assert set(evidence["metrics"]) == {"success_rate", "response_time"}
    assert (evidence["method"], evidence["approximate"], evidence["winner"]) == ("sequential", True, "b")
    assert [check["name"] for check in evidence["checks"]] == [
        "sample_ratio",
        "minimum_units",
        "switched_units",
        "missing_outcomes",
        "guardrails",
    ]
