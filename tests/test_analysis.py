"""What is made of the numbers: verdicts, winners, sentences, and the same for metrics where less is better."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptab.analysis.analyzing import analyze
from promptab.analysis.evidence import ArmCounts, Evidence, MetricEvidence
from promptab.analysis.result import AnalysisResult, Method
from promptab.errors import NotFoundError
from promptab.models import ExperimentStatus, PromptExperiment, PromptType, PromptVariant
from promptab.plan import AnalysisPlan
from promptab.stats.metric import BUILT_IN_METRICS, MetricDefinition
from promptab.stats.summary import UnitSums

EpochSums = dict[int, UnitSums]
NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)


def experiment_of(
    *keys: str,
    primary_metric: str = "success_rate",
    control: str | None = None,
    plan: AnalysisPlan | None = None,
) -> PromptExperiment:
    return PromptExperiment(
        experiment_id="0192f0c1-7b1e-7cc3-98c4-dc0c0c07398f",
        name="tone",
        prompt_type=PromptType.SYSTEM,
        prompt_name="support_reply",
        variants=tuple(PromptVariant(key) for key in keys),
        control=control or keys[0],
        traffic_split={key: 1 / len(keys) for key in keys},
        status=ExperimentStatus.RUNNING,
        layer="support_reply",
        primary_metric=primary_metric,
        plan=plan or AnalysisPlan(minimum_units=2),
        salt="s",
        enrolment_salt="e",
        created_at=datetime(2024, 1, 1, tzinfo=UTC),
    )


def evidence_of(
    metrics: Mapping[str, Mapping[str, EpochSums]],
    experiment: PromptExperiment,
    *,
    definitions: tuple[MetricDefinition, ...] = (),
    exposed: Mapping[str, int] | None = None,
) -> Evidence:
    """Put sums by metric and variant together; every unit was exposed in the first epoch unless `exposed` says."""
    declared = {definition.name: definition for definition in definitions}

    def metric(name: str) -> MetricEvidence:
        definition = declared.get(name) or experiment.plan.definition(name)
        return MetricEvidence(definition, sums=metrics.get(name, {}))

    primary = metric(experiment.primary_metric)
    units = exposed or {variant.key: primary.pooled(variant.key).units for variant in experiment.variants}
    weights = {key: float(count) for key, count in units.items()} if sum(units.values()) else {}
    total = sum(weights.values())
    return Evidence(
        experiment=experiment,
        at=NOON,
        primary=primary,
        others=[metric(name) for name in metrics if name != experiment.primary_metric],
        arms={key: {0: ArmCounts(count, count)} for key, count in units.items()},
        # dealt exactly as planned: what a crooked dealing does has tests of its own
        weights={0: {key: weight / total for key, weight in weights.items()}} if total else {},
    )


def successes(right: int, units: int) -> EpochSums:
    """One event per unit."""
    return {0: UnitSums.of([(1, 1)] * right + [(1, 0)] * (units - right), center=0.5)}


def alternating(mean: float, spread: float) -> EpochSums:
    """60 units of one event each, half of them `spread` above the mean and half below."""
    return {0: UnitSums.of([(1, mean + spread), (1, mean - spread)] * 30)}


def around(mean: float, *, seed: int, units: int = 60, spread: float = 0.1) -> EpochSums:
    generator = random.Random(seed)
    return {0: UnitSums.of([(2, 2 * generator.gauss(mean, spread)) for _ in range(units)])}


def compared(
    arms: Mapping[str, EpochSums],
    *,
    metric: str = "success_rate",
    method: Method = "fixed",
    definitions: tuple[MetricDefinition, ...] = (),
    confidence: float = 0.95,
    plan: AnalysisPlan | None = None,
) -> AnalysisResult:
    """Analyse one metric, the first arm being the control."""
    experiment = experiment_of(*arms, primary_metric=metric, plan=plan)
    evidence = evidence_of({metric: arms}, experiment, definitions=definitions)
    return analyze(evidence, method, confidence=confidence)


def test_analyze_names_the_variant_whose_interval_lies_above_zero() -> None:
    result = compared({"1.0.0": successes(106, 600), "1.1.0": successes(472, 600)})
    assert result.winner == "1.1.0"
    assert result.better() == "1.1.0"
    difference = result.metrics["success_rate"].differences["1.1.0"]
    assert (difference.verdict, difference.technique) == ("better", "proportions")
    assert difference.sentence == "1.1.0 is 61.0 points better (95 % interval 56.3 to 65.2) on success_rate"
    assert result.reason == difference.sentence


def test_analyze_names_no_winner_when_the_interval_holds_zero() -> None:
    result = compared({"1.0.0": successes(285, 395), "1.1.0": successes(275, 395)})
    assert result.winner is None
    assert result.better("success_rate") is None
    assert result.metrics["success_rate"].differences["1.1.0"].verdict == "undecided"
    assert result.reason == (
        "No variant is shown to be better than 1.0.0: 1.1.0 and 1.0.0 cannot be told apart on success_rate: "
        "the difference is -2.5 points (95 % interval -8.8 to 3.8)"
    )


def test_analyze_names_no_winner_when_the_variant_is_worse() -> None:
    result = compared({"1.0.0": successes(840, 1221), "1.1.0": successes(750, 1221)})
    difference = result.metrics["success_rate"].differences["1.1.0"]
    assert result.winner is None
    assert difference.verdict == "worse"
    assert difference.sentence == "1.1.0 is 7.4 points worse (95 % interval 3.6 to 11.1) on success_rate"


def test_less_is_better_where_the_metric_says_so() -> None:
    result = compared({"a": alternating(0.8, 0.1), "b": alternating(0.7, 0.1)}, metric="response_time")
    difference = result.metrics["response_time"].differences["b"]
    assert result.winner == "b"
    assert difference.value is not None
    assert difference.value < 0.0
    assert difference.sentence == "b is 0.100 s better (95 % interval 0.064 to 0.136) on response_time"
    slower = compared({"b": alternating(0.7, 0.1), "a": alternating(0.8, 0.1)}, metric="response_time")
    assert slower.winner is None
    assert slower.metrics["response_time"].differences["a"].verdict == "worse"


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(min_value=0, max_value=2**32 - 1),
    effects=st.lists(st.sampled_from([-0.2, -0.05, 0.0, 0.05, 0.2]), min_size=2, max_size=4),
    units=st.integers(min_value=0, max_value=12),
)
def test_a_mirrored_metric_gets_the_same_verdicts(seed: int, effects: list[float], units: int) -> None:
    """Change every sign and the direction: nothing that matters may move."""
    arms = {
        f"v{index}": around(3.0 + effect, seed=seed + index, units=units + index)
        for index, effect in enumerate(effects)
    }
    mirrored = {
        key: {
            epoch: sums._replace(s=-sums.s, center=-sums.center, rn=-sums.rn)
            for epoch, sums in epochs.items()
        }
        for key, epochs in arms.items()
    }
    up = compared(arms, metric="score")
    down = compared(
        mirrored, metric="score", definitions=(MetricDefinition(name="score", direction="decrease"),)
    )
    assert up.winner == down.winner
    for key, difference in up.metrics["score"].differences.items():
        other = down.metrics["score"].differences[key]
        assert (difference.verdict, difference.technique) == (other.verdict, other.technique)
        assert difference.p_value == other.p_value
        if difference.verdict != "undecided":
            assert difference.sentence == other.sentence


def test_the_winner_of_several_better_variants_has_the_best_estimate() -> None:
    arms = {
        "a": successes(300, 1000),
        "b": successes(450, 1000),
        "c": successes(600, 1000),
        "d": successes(100, 1000),
    }
    result = compared(arms)
    assert result.winner == "c"
    assert result.reason.endswith("; of the 2 variants that are better than a it has the best estimate")
    mirrored = {
        key: {0: sums[0]._replace(s=-sums[0].s, center=-0.5, rn=-sums[0].rn)} for key, sums in arms.items()
    }
    assert compared(mirrored, metric="cost").winner == "c"


def test_the_control_is_the_declared_one_wherever_it_stands() -> None:
    experiment = experiment_of("a", "b", control="b")
    sums = {"success_rate": {"a": successes(80, 100), "b": successes(20, 100)}}
    result = analyze(evidence_of(sums, experiment, exposed={"a": 110, "b": 105}), "fixed")
    assert result.control == "b"
    assert list(result.metrics["success_rate"].differences) == ["a"]
    assert result.winner == "a"
    assert result.units == {"a": 110, "b": 105}


@pytest.mark.parametrize(
    ("control", "variant", "counts"),
    [
        ({}, {}, "b has 0 units and a has 0 units"),
        (successes(1, 1), successes(30, 50), "b has 50 units and a has 1 unit"),
        (successes(30, 50), successes(1, 1), "b has 1 unit and a has 50 units"),
    ],
    ids=["nothing", "one control unit", "one variant unit"],
)
def test_fewer_than_two_units_are_not_enough_data(
    control: EpochSums, variant: EpochSums, counts: str
) -> None:
    result = compared({"a": control, "b": variant})
    difference = result.metrics["success_rate"].differences["b"]
    assert result.winner is None
    assert (difference.verdict, difference.technique) == ("undecided", "not enough data")
    assert (
        difference.sentence
        == f"not enough data on success_rate: {counts}; each needs at least 2 in one epoch"
    )


def test_the_primary_metric_is_there_even_if_nothing_was_recorded() -> None:
    result = analyze(evidence_of({}, experiment_of("a", "b"), exposed={"a": 4, "b": 0}))
    assert list(result.metrics) == ["success_rate"]
    assert result.units == {"a": 4, "b": 0}
    estimate = result.metrics["success_rate"].estimates["b"]
    assert (estimate.value, estimate.units, estimate.events) == (None, 0, 0)
    assert result.winner is None
    assert result.reason.startswith("Not enough units yet: a has 0, b has 0")


def test_arms_without_variation_are_decided_by_permutation() -> None:
    arms = {"a": successes(0, 10), "b": successes(10, 10)}
    difference = compared(arms, metric="score").metrics["score"].differences["b"]
    assert (difference.verdict, difference.technique) == ("better", "permutation")
    assert difference.low is None
    assert difference.sentence == (
        "b is 1.0 better (no interval: the units do not vary enough; by permutation p = 1.1e-05) on score"
    )


def test_arms_without_variation_and_few_units_are_undecided() -> None:
    result = compared({"a": successes(0, 3), "b": successes(3, 3)}, metric="score")
    assert result.metrics["score"].differences["b"].verdict == "undecided"
    assert result.winner is None


def test_a_level_of_confidence_decides_what_is_told_apart() -> None:
    arms = {"a": successes(50, 100), "b": successes(64, 100)}
    assert compared(arms).winner == "b"
    strict = compared(arms, confidence=0.99)
    assert strict.winner is None
    assert "99 % interval" in strict.reason
    assert strict.confidence == 0.99


def test_the_primary_metric_comes_first_and_the_others_as_they_were_asked_for() -> None:
    arms = {"a": successes(1, 4), "b": successes(2, 4)}
    names = ("zest", "cost", "aroma", "success_rate", "rating")
    experiment = experiment_of("a", "b", primary_metric="rating")
    result = analyze(evidence_of(dict.fromkeys(names, arms), experiment), "fixed")
    assert list(result.metrics) == ["rating", "zest", "cost", "aroma", "success_rate"]
    assert result.primary_metric == "rating"


def test_a_metric_without_a_declaration_is_better_when_it_increases() -> None:
    arms = {"a": around(1.0, seed=1), "b": around(2.0, seed=2)}
    undeclared = compared(arms, metric="helpfulness").metrics["helpfulness"]
    assert (undeclared.direction, undeclared.label, undeclared.format) == (
        "increase",
        "helpfulness",
        "number",
    )
    assert undeclared.better() == "b"


def test_a_declaration_replaces_a_built_in_metric() -> None:
    arms = {"a": around(1.0, seed=1), "b": around(2.0, seed=2)}
    declared = MetricDefinition(name="tokens", direction="increase", label="Length", format="tokens")
    result = compared(arms, metric="tokens", definitions=(declared,))
    assert result.winner == "b"
    assert result.metrics["tokens"].label == "Length"


def test_built_in_metrics_know_which_way_is_better() -> None:
    directions = {name: metric.direction for name, metric in BUILT_IN_METRICS.items()}
    assert {name for name, direction in directions.items() if direction == "increase"} == {
        "success_rate",
        "rating",
    }
    assert set(directions) == {
        "success_rate",
        "error_rate",
        "response_time",
        "p95_response_time",
        "tokens",
        "cost",
        "cost_per_success",
        "rating",
    }


def test_better_on_a_secondary_metric_is_told_apart_from_the_primary() -> None:
    sums = {
        "success_rate": {"a": successes(50, 100), "b": successes(51, 100)},
        "cost": {"a": alternating(0.004, 0.0005), "b": alternating(0.002, 0.0005)},
    }
    result = analyze(evidence_of(sums, experiment_of("a", "b")), "fixed")
    assert result.better() is None
    assert result.better("cost") == "b"
    sentence = result.metrics["cost"].differences["b"].sentence
    assert sentence == "b is 0.00200 dollars better (95 % interval 0.00182 to 0.00218) on cost"


def test_better_on_a_metric_that_was_not_compared_is_an_error_that_lists_those_that_were() -> None:
    with pytest.raises(NotFoundError, match="no metric 'speed'; analysed are success_rate"):
        compared({"a": successes(1, 4), "b": successes(2, 4)}).better("speed")


def test_lift_is_relative_to_the_control_of_the_same_epochs() -> None:
    arms = {
        "a": {0: successes(450, 4500)[0], 1: successes(500, 2500)[0]},
        "b": {0: successes(60, 500)[0], 1: successes(600, 2500)[0]},
    }
    difference = compared(arms).metrics["success_rate"].differences["b"]
    assert difference.value == pytest.approx(0.5 * 0.02 + 0.5 * 0.04)
    assert difference.lift == pytest.approx(0.03 / 0.15)


def test_lift_is_withheld_where_the_control_is_not_positive() -> None:
    for mean in (0.0, -2.0):
        flat = {0: UnitSums.of([(1, mean - 1), (1, mean + 1)])}
        result = compared({"a": flat, "b": around(5.0, seed=3)}, metric="score")
        assert result.metrics["score"].differences["b"].lift is None


def test_an_epoch_that_is_left_out_is_said() -> None:
    arms = {
        "a": {0: successes(20, 100)[0], 1: successes(2, 9)[0]},
        "b": {0: successes(70, 100)[0], 1: successes(1, 1)[0]},
    }
    difference = compared(arms).metrics["success_rate"].differences["b"]
    assert difference.left_out == (1,)
    assert difference.sentence.endswith("; without epoch 1, where a variant has fewer than 2 units")


def test_no_interval_of_an_estimate_goes_beyond_what_is_possible() -> None:
    estimates = compared({"a": successes(1, 12), "b": successes(11, 12)}).metrics["success_rate"].estimates
    assert estimates["a"].low == 0.0
    assert estimates["b"].high == 1.0
    wrong = MetricDefinition(name="score", lowest=3.0, highest=4.0)
    result = compared(
        {"a": around(9.0, seed=1), "b": around(1.0, seed=2)}, metric="score", definitions=(wrong,)
    )
    for estimate in result.metrics["score"].estimates.values():
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.value is not None
        assert estimate.low <= estimate.value <= estimate.high


def test_the_fixed_analysis_says_that_it_is_for_one_planned_look() -> None:
    result = compared({"a": successes(50, 100), "b": successes(51, 100)})
    assert result.method == "fixed"
    assert result.caution == (
        "Fixed-horizon intervals are right for one look, at a moment planned before the start; looking again "
        "and again and stopping when they please names winners that are none."
    )


def test_the_caution_speaks_of_few_units() -> None:
    result = compared({"a": successes(5, 10), "b": successes(5, 10), "c": successes(5, 10)})
    assert "fewer than 30 units" in result.caution


@pytest.mark.parametrize(
    "huge",
    [
        UnitSums.of([(1, 1e200), (1, 3e200)]),
        UnitSums(units=2, n=2, s=math.inf, center=1.0, rr=math.inf, nn=2, rn=math.inf),
    ],
    ids=["squares", "sums"],
)
def test_sums_too_large_to_compare_are_undecided_and_still_json(huge: UnitSums) -> None:
    result = compared({"a": dict.fromkeys((0, 1), successes(5, 10)[0]), "b": {0: huge, 1: huge}})
    difference = result.metrics["success_rate"].differences["b"]
    assert (difference.verdict, difference.technique) == ("undecided", "not computable")
    assert "too large" in difference.sentence
    json.dumps(result.model_dump(mode="json"), allow_nan=False)


def test_a_difference_that_rounds_to_zero_has_no_sign() -> None:
    reason = compared({"a": successes(500, 1000), "b": successes(4999, 10_000)}).reason
    assert "the difference is 0.0 points (95 % interval -3.3 to 3.2)" in reason


def test_huge_and_tiny_amounts_stay_short() -> None:
    for scale in (1e-12, 1e30):
        arms = {
            "a": around(1.0 * scale, seed=1, spread=0.1 * scale),
            "b": around(2.0 * scale, seed=2, spread=scale),
        }
        difference = compared(arms, metric="score").metrics["score"].differences["b"]
        assert difference.verdict == "better"
        assert len(difference.sentence) < 80, difference.sentence


def test_a_result_survives_json() -> None:
    result = compared({"a": successes(50, 100), "b": successes(0, 1), "c": successes(80, 100)})
    text = result.model_dump_json()
    assert AnalysisResult.model_validate_json(text) == result
    assert json.loads(text)["metrics"]["success_rate"]["differences"]["c"]["verdict"] == "better"
