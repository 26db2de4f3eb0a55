"""What is concluded where the usual numbers give out: no spread, a control near zero, rates and their complements."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptab.analysis.analyzing import analyze
from promptab.analysis.evidence import MetricEvidence
from promptab.analysis.result import METHODS, Method, VariantDifference
from promptab.errors import InvalidInputError
from promptab.plan import AnalysisPlan
from promptab.stats.betting import bernoulli_difference
from promptab.stats.covariate_sums import CovariateSums
from promptab.stats.metric import BUILT_IN_METRICS, MetricDefinition
from promptab.stats.summary import UnitSums
from tests.test_analysis import EpochSums, compared, evidence_of, experiment_of, successes

ERRORS = MetricDefinition(
    name="error_rate",
    kind="proportion",
    direction="decrease",
    role="guardrail",
    largest_regression=0.01,
    relative=False,
    format="percent",
)


def normal(mean: float, *, seed: int, units: int = 500) -> EpochSums:
    generator = random.Random(seed)
    return {0: UnitSums.of([(1.0, generator.gauss(mean, 1.0)) for _ in range(units)], center=mean)}


@pytest.mark.parametrize("method", METHODS)
def test_a_guardrail_without_a_single_error_passes_once_there_are_units_enough(method: Method) -> None:
    def safety(units: int) -> str | None:
        experiment = experiment_of("a", "b", plan=AnalysisPlan(metrics=(ERRORS,)))
        sums = {
            "success_rate": {"a": successes(units // 2, units), "b": successes(units * 7 // 10, units)},
            "error_rate": {"a": successes(0, units), "b": successes(0, units)},
        }
        result = analyze(evidence_of(sums, experiment), method)
        assert (result.winner == "b") == (result.metrics["error_rate"].differences["b"].safety == "pass")
        return result.metrics["error_rate"].differences["b"].safety

    assert safety(100) == "undecided"
    assert safety(20_000) == "pass"


def test_rates_that_never_vary_and_differ_are_told_apart_at_every_look() -> None:
    result = compared({"a": successes(0, 1000), "b": successes(1000, 1000)}, method="sequential")
    difference = result.metrics["success_rate"].differences["b"]
    assert difference.technique == "beta-binomial confidence sequence"
    assert difference.low is not None
    assert difference.low > 0.9
    assert result.winner == "b"
    same = compared({"a": successes(1000, 1000), "b": successes(1000, 1000)}, method="sequential")
    assert same.winner is None
    assert same.metrics["success_rate"].differences["b"].p_value == 1.0


@given(st.integers(1, 400), st.integers(1, 400), st.data(), st.sampled_from([0.9, 0.95, 0.99]))
@settings(max_examples=150, deadline=None)
def test_the_exact_p_value_of_two_rates_is_small_exactly_where_the_interval_excludes_no_difference(
    n: int, m: int, data: st.DataObject, confidence: float
) -> None:
    won, lost = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    found = bernoulli_difference((won, n), (lost, m), tuning_trials=200.0, confidence=confidence)
    swapped = bernoulli_difference((lost, m), (won, n), tuning_trials=200.0, confidence=confidence)
    assert (swapped.low, swapped.high) == pytest.approx((-found.high, -found.low), abs=1e-9)
    assert swapped.p_value == pytest.approx(found.p_value, rel=1e-6)
    assert found.value is not None
    assert found.low <= found.value <= found.high
    if abs(found.p_value - (1.0 - confidence)) > 1e-6:
        assert (found.low > 0.0 or found.high < 0.0) == (found.p_value < 1.0 - confidence)


def test_the_exact_difference_of_two_rates_errs_rarely_over_many_looks() -> None:
    generator, alarms, runs = random.Random(5), 0, 300
    for _ in range(runs):
        ones, others, total = 0, 0, 0
        for _ in range(20):
            total += 10
            ones += sum(generator.random() < 0.9 for _ in range(10))
            others += sum(generator.random() < 0.9 for _ in range(10))
            if bernoulli_difference((ones, total), (others, total), tuning_trials=100.0).p_value <= 0.05:
                alarms += 1
                break
    assert alarms / runs <= 0.05


def test_a_control_that_may_be_zero_gives_a_lift_no_prior() -> None:
    score = MetricDefinition(name="score")
    experiment = experiment_of("a", "b", plan=AnalysisPlan(metrics=(score,)), primary_metric="score")
    sums = {"score": {"a": normal(0.055, seed=1), "b": normal(1.004, seed=2)}}
    difference = analyze(evidence_of(sums, experiment), "bayesian").metrics["score"].differences["b"]
    assert difference.low is not None
    assert difference.high is not None
    assert difference.value is not None
    assert difference.low < difference.value < difference.high
    assert difference.low > 0.6
    assert difference.verdict == "better"
    assert difference.probability_better == pytest.approx(1.0)


@given(st.integers(20, 1000), st.data(), st.sampled_from(METHODS), st.integers(1, 3))
@settings(max_examples=120, deadline=None)
def test_failures_to_avoid_are_judged_as_successes_to_seek(
    units: int, data: st.DataObject, method: Method, events: int
) -> None:
    """`decrease` on 1 - x is `increase` on x: verdict, p-value and interval, mirrored."""
    won = [[data.draw(st.integers(0, events)) for _ in range(6)] for _ in "ab"]
    weights = [[data.draw(st.integers(1, units)) for _ in range(6)] for _ in "ab"]

    def difference(*, failures: bool) -> VariantDifference:
        name = "error_rate" if failures else "success_rate"
        arms = {}
        for key, scores, counts in zip("ab", won, weights, strict=True):
            totals = [
                (float(events), float(events - score if failures else score))
                for score, count in zip(scores, counts, strict=True)
                for _ in range(count)
            ]
            arms[key] = {0: UnitSums.of(totals, center=0.5)}
        experiment = experiment_of("a", "b", primary_metric=name)
        definition = BUILT_IN_METRICS[name]
        evidence = evidence_of({name: arms}, experiment)
        assert evidence.primary.definition == definition
        return analyze(evidence, method).metrics[name].differences["b"]

    of_successes, of_failures = difference(failures=False), difference(failures=True)
    assert of_successes.verdict == of_failures.verdict
    assert of_successes.p_value == pytest.approx(of_failures.p_value, abs=1e-9)
    assert of_successes.probability_better == pytest.approx(of_failures.probability_better, abs=1e-7)
    assert of_successes.expected_loss == pytest.approx(of_failures.expected_loss, abs=1e-7)
    if of_successes.low is not None and of_successes.high is not None:
        assert of_failures.low == pytest.approx(-of_successes.high, abs=1e-7)
        assert of_failures.high == pytest.approx(-of_successes.low, abs=1e-7)


def test_a_loser_that_harms_or_is_small_stops_nobody_else() -> None:
    def result(harmed: str, few: str) -> tuple[str | None, str]:
        experiment = experiment_of("a", "b", "c", plan=AnalysisPlan(metrics=(ERRORS,)))
        units = {key: 30 if key == few else 5000 for key in "abc"}
        rates = {"a": 0.5, "b": 0.7, "c": 0.5}
        sums = {
            "success_rate": {key: successes(int(rates[key] * n), n) for key, n in units.items()},
            "error_rate": {
                key: successes(int((0.2 if key == harmed else 0.02) * n), n) for key, n in units.items()
            },
        }
        found = analyze(evidence_of(sums, experiment), "fixed")
        return found.winner, found.reason

    assert result(harmed="", few="")[0] == "b"
    assert result(harmed="c", few="c")[0] == "b"
    winner, reason = result(harmed="b", few="")
    assert (winner, "A guardrail is not shown to be safe" in reason) == (None, True)
    winner, reason = result(harmed="", few="b")
    assert (winner, "Not enough units yet: b has 30" in reason) == (None, True)
    assert result(harmed="", few="a")[0] is None


def test_secondary_metrics_are_corrected_once() -> None:
    """With two treatments, by Benjamini-Hochberg over all four differences, and not by Holm before it."""
    score = MetricDefinition(name="score")
    experiment = experiment_of("a", "b", "c", plan=AnalysisPlan(metrics=(score,)))
    sums = {
        "success_rate": {key: successes(500, 1000) for key in "abc"},
        "score": {"a": normal(0.0, seed=1), "b": normal(0.1, seed=7), "c": normal(0.1, seed=8)},
    }
    differences = analyze(evidence_of(sums, experiment), "fixed").metrics["score"].differences
    p_values = sorted(each.p_value for each in differences.values() if each.p_value is not None)
    assert sorted(each.adjusted_p or 0.0 for each in differences.values()) == pytest.approx(
        [min(2.0 * p_values[0], p_values[1]), p_values[1]]
    )
    for each in differences.values():
        assert (each.verdict != "undecided") == ((each.adjusted_p or 1.0) <= 0.05)


def test_what_is_corrected_for_many_is_the_difference_that_history_adjusted() -> None:
    generator = random.Random(3)
    score = MetricDefinition(name="score", history_days=14)
    arms, history = {}, {}
    for key, lift in (("a", 0.0), ("b", 0.3)):
        past = [generator.gauss(5.0, 3.0) for _ in range(800)]
        totals = [(1.0, before + lift + generator.gauss(0.0, 0.5)) for before in past]
        arms[key] = {0: UnitSums.of(totals, center=5.0)}
        history[key] = {0: CovariateSums.of([(n, s, 1.0, x) for (n, s), x in zip(totals, past, strict=True)])}
    experiment = experiment_of("a", "b", plan=AnalysisPlan(metrics=(score,)))
    sums = {"success_rate": {key: successes(400, 800) for key in "ab"}}
    evidence = evidence_of(sums, experiment)
    evidence = replace(evidence, others=(MetricEvidence(score, arms, history=history),))
    difference = analyze(evidence, "fixed").metrics["score"].differences["b"]
    assert difference.adjusted is not None
    assert difference.adjusted_p == difference.adjusted.p_value
    assert difference.verdict == "better"


@pytest.mark.parametrize("confidence", [0.5, 0.0, 1.0, 0.99999])
def test_a_confidence_without_a_meaning_is_refused_by_its_name(confidence: float) -> None:
    with pytest.raises(InvalidInputError, match=r"plan\.confidence"):
        AnalysisPlan(confidence=confidence)


def test_a_ratio_over_nothing_says_so() -> None:
    cost = BUILT_IN_METRICS["cost_per_success"]
    experiment = experiment_of("a", "b", primary_metric="cost_per_success")
    arms: dict[str, EpochSums] = {
        "a": {0: UnitSums.of([(1.0, 2.0)] * 50)},
        "b": {0: UnitSums.of([(0.0, 2.0)] * 50)},
    }
    result = analyze(evidence_of({cost.name: arms}, experiment))
    assert "nothing to divide by" in result.metrics[cost.name].differences["b"].sentence


@pytest.mark.parametrize("method", METHODS)
def test_a_ratio_over_a_measure_that_may_be_negative_is_analysed_with_few_units_too(method: Method) -> None:
    balance = MetricDefinition(name="per_balance", kind="ratio", measure="cost", denominator="balance")
    experiment = experiment_of("a", "b", primary_metric=balance.name, plan=AnalysisPlan(metrics=(balance,)))
    generator = random.Random(2)
    units = {key: {0: [(generator.gauss(3.0, 2.0), generator.random()) for _ in range(12)]} for key in "ab"}
    sums = {key: {0: UnitSums.of(by_epoch[0])} for key, by_epoch in units.items()}
    evidence = evidence_of({balance.name: sums}, experiment)
    evidence = replace(evidence, primary=MetricEvidence(balance, sums, units=units))
    difference = analyze(evidence, method).metrics[balance.name].differences["b"]
    assert difference.value is not None
    assert difference.technique in {"t", "confidence sequence", "normal posterior"}
