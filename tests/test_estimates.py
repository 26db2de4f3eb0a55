"""What a variant comes to by itself, how likely it is the best of all, and which methods suit its units."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptab.analysis import wording
from promptab.analysis.analyzing import analyze
from promptab.analysis.estimate import probabilities_best
from promptab.analysis.evidence import MetricEvidence
from promptab.analysis.result import METHODS, AnalysisResult, Method
from promptab.plan import AnalysisPlan
from promptab.stats.contrast import ArmMean
from promptab.stats.metric import MetricDefinition
from promptab.stats.quantile import QuantileArm
from promptab.stats.ratio import ratio_contrast
from promptab.stats.summary import UnitSums
from tests.test_analysis import EpochSums, compared, evidence_of, experiment_of, successes


@pytest.mark.parametrize("method", METHODS)
def test_a_single_unit_has_a_value_without_an_error(method: Method) -> None:
    result = compared({"a": successes(30, 50), "b": {0: UnitSums.of([(4.0, 3.0)])}}, method=method)
    estimate = result.metrics["success_rate"].estimates["b"]
    assert (estimate.value, estimate.units, estimate.events) == (0.75, 1, 4)
    assert (estimate.se, estimate.low, estimate.high, estimate.probability_best) == (None,) * 4
    difference = result.metrics["success_rate"].differences["b"]
    assert (difference.value, difference.low, difference.p_value, difference.lift) == (None,) * 4


def test_a_quantile_whose_error_is_not_known_has_a_value_alone() -> None:
    p95 = MetricDefinition(name="p95", kind="quantile", measure="response_time", quantile=0.95)
    experiment = experiment_of("a", "b", primary_metric="p95", plan=AnalysisPlan(metrics=(p95,)))
    arms = {
        "a": {0: QuantileArm(2.0, 0.01, 500, 900, "interval"), 1: QuantileArm(9.0, None, 1, 2, None)},
        "b": {0: QuantileArm(3.0, None, 1, 4, None), 1: QuantileArm(6.0, None, 2, 4, None)},
    }
    evidence = evidence_of({}, experiment, exposed={"a": 501, "b": 3})
    result = analyze(replace(evidence, primary=MetricEvidence(p95, quantiles=arms)))
    known, unknown = (result.metrics["p95"].estimates[key] for key in ("a", "b"))
    assert (known.value, known.units, known.events) == (2.0, 500, 902)
    assert known.se == pytest.approx(0.1)
    assert (unknown.value, unknown.se, unknown.units, unknown.events) == (5.0, None, 3, 8)


def test_what_is_the_best_of_all_is_not_decided_by_weights_that_changed() -> None:
    """Nine in ten of a came while everything succeeded, and half of b: pooled, a would seem far better."""
    arms: dict[str, EpochSums] = {
        "a": {0: successes(7200, 9000)[0], 1: successes(200, 1000)[0]},
        "b": {0: successes(800, 1000)[0], 1: successes(200, 1000)[0]},
        "c": {0: successes(800, 1000)[0], 1: successes(200, 1000)[0]},
    }
    estimates = compared(arms, method="bayesian").metrics["success_rate"].estimates
    chances = [estimate.probability_best for estimate in estimates.values()]
    assert all(chance is not None and 0.2 < chance < 0.45 for chance in chances)


RAMP: dict[str, EpochSums] = {
    # a tenth succeeds while nine in ten come to a, and a quarter later: what they serve makes no difference
    "a": {0: successes(90, 900)[0], 1: successes(125, 500)[0]},
    "b": {0: successes(10, 100)[0], 1: successes(125, 500)[0]},
}


@pytest.mark.parametrize("method", METHODS)
def test_estimates_agree_with_their_difference_when_weights_changed_while_the_base_rate_moved(
    method: Method,
) -> None:
    metric = compared(RAMP, method=method).metrics["success_rate"]
    a, b = metric.estimates["a"], metric.estimates["b"]
    contrast = ratio_contrast(RAMP["b"], RAMP["a"])
    assert contrast.value == pytest.approx(0.0, abs=1e-12)
    assert [a.value, b.value] == [pytest.approx(contrast.control), pytest.approx(contrast.treatment)]
    variances = [contrast.control_variance, contrast.treatment_variance]
    assert [(one.se or 0.0) ** 2 for one in (a, b)] == [pytest.approx(variance) for variance in variances]
    assert [(one.units, one.events) for one in (a, b)] == [(1400, 1400), (600, 600)]
    assert all(one.low is not None and one.value is not None and one.low < one.value for one in (a, b))


def test_a_variant_that_was_dealt_for_a_while_takes_no_epochs_from_the_others() -> None:
    arms = {**RAMP, "c": {0: successes(30, 100)[0]}, "d": {7: successes(3, 10)[0]}}
    estimates = compared(arms).metrics["success_rate"].estimates
    two = compared(RAMP).metrics["success_rate"].estimates
    assert {key: estimates[key] for key in RAMP} == two
    assert (estimates["c"].value, estimates["d"].value) == pytest.approx((0.3, 0.3))


def test_quantiles_of_variants_are_side_by_side_too() -> None:
    p95 = MetricDefinition(name="p95", kind="quantile", measure="response_time", quantile=0.95)
    experiment = experiment_of("a", "b", primary_metric="p95", plan=AnalysisPlan(metrics=(p95,)))
    arms = {
        "a": {
            0: QuantileArm(1.0, 0.01, 900, 900, "interval"),
            1: QuantileArm(2.0, 0.01, 500, 500, "interval"),
        },
        "b": {
            0: QuantileArm(1.0, 0.01, 100, 100, "interval"),
            1: QuantileArm(2.0, 0.01, 500, 500, "interval"),
        },
    }
    evidence = evidence_of({}, experiment, exposed={"a": 1400, "b": 600})
    found = analyze(replace(evidence, primary=MetricEvidence(p95, quantiles=arms))).metrics["p95"]
    assert found.differences["b"].value == pytest.approx(0.0)
    assert [estimate.value for estimate in found.estimates.values()] == [pytest.approx(1.5)] * 2


@given(
    st.lists(
        st.tuples(*[st.tuples(st.integers(0, 40), st.integers(0, 40)).map(sorted)] * 2),
        min_size=1,
        max_size=4,
    )
)
@settings(deadline=None, max_examples=60)
def test_two_estimates_differ_as_their_difference_does_in_any_epochs(epochs: list[list[list[int]]]) -> None:
    """(right, units) of both variants, epoch by epoch; with no units, or one, an epoch is left out."""
    arms = {
        key: {number: successes(*epoch[at])[0] for number, epoch in enumerate(epochs) if epoch[at][1]}
        for at, key in enumerate("ab")
    }
    metric = compared(arms).metrics["success_rate"]
    a, b = (metric.estimates[key].value for key in "ab")
    if (value := metric.differences["b"].value) is not None:
        assert a is not None
        assert b is not None
        assert b - a == pytest.approx(value, abs=1e-12)
    assert [metric.estimates[key].units for key in "ab"] == [
        sum(epoch[at][1] for epoch in epochs) for at in (0, 1)
    ]


def test_a_variant_that_never_varied_takes_part_in_what_is_best() -> None:
    arms = {"a": successes(50, 100), "b": successes(40, 100), "c": successes(100, 100)}
    estimates = compared(arms, method="bayesian").metrics["success_rate"].estimates
    assert (estimates["c"].probability_best or 0.0) > 0.99
    assert sum(estimate.probability_best or 0.0 for estimate in estimates.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "means",
    [
        {},
        {"a": {0: ArmMean(1.0, 0.0, 9)}, "b": {0: ArmMean(2.0, 0.0, 9)}},
        {"a": {0: ArmMean(1.0, 0.1, 9)}, "b": {1: ArmMean(2.0, 0.1, 9)}},
        {"a": {0: ArmMean(1.0, float("inf"), 9)}, "b": {0: ArmMean(2.0, 0.1, 9)}},
    ],
    ids=["no variants", "nothing varies", "no epoch in common", "overflow"],
)
def test_what_is_best_may_not_be_known(means: Mapping[str, Mapping[int, ArmMean]]) -> None:
    assert probabilities_best(means, direction="increase") == {}


def test_chances_of_being_best_are_told_of_three_variants_and_more() -> None:
    arms = {"a": successes(50, 100), "b": successes(40, 100), "c": successes(80, 100)}
    three = compared(arms, method="bayesian")
    assert wording.best_of_all(three.metrics["success_rate"]) == (
        "P(best of all): a <0.001, b <0.001, c >0.999"
    )
    assert "P(best of all)" in three._repr_html_()
    two = compared({"a": arms["a"], "b": arms["b"]}, method="bayesian")
    assert wording.best_of_all(two.metrics["success_rate"]) is None
    assert wording.best_of_all(compared(arms).metrics["success_rate"]) is None


Units = Sequence[tuple[float, float]]


def of_few_units(
    definition: MetricDefinition, arms: Mapping[str, Units], method: Method = "sequential"
) -> AnalysisResult:
    plan = AnalysisPlan(metrics=(definition,))
    experiment = experiment_of(*arms, primary_metric=definition.name, plan=plan)
    sums = {definition.name: {key: {0: UnitSums.of(units)} for key, units in arms.items()}}
    evidence = evidence_of(sums, experiment)
    primary = replace(evidence.primary, units={key: {0: units} for key, units in arms.items()})
    return analyze(replace(evidence, primary=primary), method)


def scores(mean: float, *, seed: int) -> list[tuple[float, float]]:
    generator = random.Random(seed)
    return [(1.0, generator.uniform(mean - 0.2, mean + 0.2)) for _ in range(40)]


def test_a_value_beyond_the_declared_bounds_leaves_the_method_that_needs_none() -> None:
    definition = MetricDefinition(name="score", lowest=0.0, highest=1.0)
    within = of_few_units(definition, {"a": scores(0.3, seed=1), "b": scores(0.7, seed=2)})
    assert within.metrics["score"].differences["b"].technique == "betting confidence sequence"
    beyond = of_few_units(definition, {"a": scores(0.3, seed=1), "b": [*scores(0.7, seed=2), (1.0, 1.5)]})
    difference = beyond.metrics["score"].differences["b"]
    assert difference.technique == "confidence sequence"
    assert difference.low is not None


@pytest.mark.parametrize("method", ["fixed", "bayesian"])
def test_values_between_0_and_1_are_not_counted_as_trials(method: Method) -> None:
    definition = MetricDefinition(name="score", kind="proportion")
    arms = {"a": scores(0.3, seed=3), "b": scores(0.5, seed=4)}
    found = of_few_units(definition, arms, method).metrics["score"]
    assert found.differences["b"].technique == {"fixed": "t", "bayesian": "normal posterior"}[method]
    assert [found.estimates[key].value for key in arms] == [
        pytest.approx(sum(s for _, s in units) / 40) for units in arms.values()
    ]
    ones = {key: [(1.0, round(s)) for _, s in units] for key, units in arms.items()}
    counted = of_few_units(definition, ones, method).metrics["score"].differences["b"]
    assert counted.technique == {"fixed": "proportions", "bayesian": "beta posterior"}[method]
