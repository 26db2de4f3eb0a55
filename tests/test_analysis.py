"""Comparisons of variants: verdicts, leaders, sentences, and the same for metrics where less is better."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptab.analysis import Comparison, compare
from promptab.errors import InvalidInputError, NotFoundError
from promptab.models import ExperimentStatus, PromptExperiment, PromptType, PromptVariant
from promptab.stats import BUILT_IN_METRICS, MetricDefinition, UnitSums

EpochSums = dict[int, UnitSums]


def experiment_of(
    *keys: str, primary_metric: str = "success_rate", control: str | None = None
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
        salt="s",
        enrolment_salt="e",
        created_at=datetime(2024, 1, 1, tzinfo=UTC),
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
    definitions: tuple[MetricDefinition, ...] = (),
    confidence: float = 0.95,
) -> Comparison:
    """Compare on one metric, the first arm being the control."""
    return compare(
        {metric: arms},
        experiment=experiment_of(*arms, primary_metric=metric),
        exposed_units={key: sum(sums.units for sums in epochs.values()) for key, epochs in arms.items()},
        definitions=definitions,
        confidence=confidence,
    )


def test_compare_names_the_variant_whose_interval_lies_above_zero() -> None:
    comparison = compared({"1.0.0": successes(106, 600), "1.1.0": successes(472, 600)})
    assert comparison.leader == "1.1.0"
    assert comparison.better() == "1.1.0"
    difference = comparison.metrics["success_rate"].differences["1.1.0"]
    assert (difference.verdict, difference.ground) == ("better", "interval")
    assert difference.sentence == "1.1.0 is 61.0 points better (95 % interval 56.5 to 65.5) on success_rate"
    assert comparison.reason == difference.sentence


def test_compare_names_no_leader_when_the_interval_holds_zero() -> None:
    comparison = compared({"1.0.0": successes(285, 395), "1.1.0": successes(275, 395)})
    assert comparison.leader is None
    assert comparison.better("success_rate") is None
    assert comparison.metrics["success_rate"].differences["1.1.0"].verdict == "undecided"
    assert comparison.reason == (
        "No variant is shown to be better than 1.0.0: 1.1.0 and 1.0.0 cannot be told apart on success_rate: "
        "the difference is -2.5 points (95 % interval -8.9 to 3.8)"
    )


def test_compare_names_no_leader_when_the_variant_is_worse() -> None:
    comparison = compared({"1.0.0": successes(840, 1221), "1.1.0": successes(750, 1221)})
    difference = comparison.metrics["success_rate"].differences["1.1.0"]
    assert comparison.leader is None
    assert difference.verdict == "worse"
    assert difference.sentence == "1.1.0 is 7.4 points worse (95 % interval 3.6 to 11.1) on success_rate"


def test_less_is_better_where_the_metric_says_so() -> None:
    comparison = compared({"a": alternating(0.8, 0.1), "b": alternating(0.7, 0.1)}, metric="response_time")
    difference = comparison.metrics["response_time"].differences["b"]
    assert comparison.leader == "b"
    assert difference.value is not None
    assert difference.value < 0.0
    assert difference.sentence == "b is 0.100 s better (95 % interval 0.064 to 0.136) on response_time"
    slower = compared({"b": alternating(0.7, 0.1), "a": alternating(0.8, 0.1)}, metric="response_time")
    assert slower.leader is None
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
    assert up.leader == down.leader
    for key, difference in up.metrics["score"].differences.items():
        other = down.metrics["score"].differences[key]
        assert (difference.verdict, difference.ground) == (other.verdict, other.ground)
        assert difference.p_value == other.p_value
        if difference.verdict != "undecided":
            assert difference.sentence == other.sentence


def test_the_leader_of_several_better_variants_has_the_best_estimate() -> None:
    arms = {
        "a": successes(300, 1000),
        "b": successes(450, 1000),
        "c": successes(600, 1000),
        "d": successes(100, 1000),
    }
    comparison = compared(arms)
    assert comparison.leader == "c"
    assert comparison.reason.endswith("; of the 2 variants that are better than a it has the best estimate")
    mirrored = {
        key: {0: sums[0]._replace(s=-sums[0].s, center=-0.5, rn=-sums[0].rn)} for key, sums in arms.items()
    }
    assert compared(mirrored, metric="cost").leader == "c"


def test_the_control_is_the_declared_one_wherever_it_stands() -> None:
    experiment = experiment_of("a", "b", control="b")
    comparison = compare(
        {"success_rate": {"a": successes(80, 100), "b": successes(20, 100)}},
        experiment=experiment,
        exposed_units={"a": 110, "b": 105},
    )
    assert comparison.control == "b"
    assert list(comparison.metrics["success_rate"].differences) == ["a"]
    assert comparison.leader == "a"
    assert comparison.units == {"a": 110, "b": 105}


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
    comparison = compared({"a": control, "b": variant})
    difference = comparison.metrics["success_rate"].differences["b"]
    assert comparison.leader is None
    assert (difference.verdict, difference.ground) == ("undecided", "not enough data")
    assert (
        difference.sentence
        == f"not enough data on success_rate: {counts}; each needs at least 2 in one epoch"
    )


def test_the_primary_metric_is_there_even_if_nothing_was_recorded() -> None:
    comparison = compare({}, experiment=experiment_of("a", "b"), exposed_units={"a": 4})
    assert list(comparison.metrics) == ["success_rate"]
    assert comparison.units == {"a": 4, "b": 0}
    estimate = comparison.metrics["success_rate"].estimates["b"]
    assert (estimate.value, estimate.units, estimate.events) == (None, 0, 0)
    assert comparison.leader is None
    assert "not enough data" in comparison.reason


def test_arms_without_variation_are_decided_by_permutation() -> None:
    difference = (
        compared({"a": successes(0, 10), "b": successes(10, 10)}).metrics["success_rate"].differences["b"]
    )
    assert (difference.verdict, difference.ground) == ("better", "permutation")
    assert difference.low is None
    assert difference.sentence == (
        "b is 100.0 points better (no unit of either varies, so there is no interval; "
        "by permutation p = 1.1e-05) on success_rate"
    )


def test_arms_without_variation_and_few_units_are_undecided() -> None:
    comparison = compared({"a": successes(0, 3), "b": successes(3, 3)})
    assert comparison.metrics["success_rate"].differences["b"].verdict == "undecided"
    assert comparison.leader is None


def test_a_level_of_confidence_decides_what_is_told_apart() -> None:
    arms = {"a": successes(50, 100), "b": successes(64, 100)}
    assert compared(arms).leader == "b"
    strict = compared(arms, confidence=0.99)
    assert strict.leader is None
    assert "99 % interval" in strict.reason
    assert strict.confidence == 0.99


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, -0.1, math.nan])
def test_compare_refuses_a_confidence_outside_its_bounds(confidence: float) -> None:
    with pytest.raises(InvalidInputError, match=r"confidence: .* is not between 0 and 1; 95 % is 0\.95"):
        compared({"a": successes(1, 4), "b": successes(2, 4)}, confidence=confidence)


def test_metrics_come_in_order_primary_then_built_in_then_by_name() -> None:
    arms = {"a": successes(1, 4), "b": successes(2, 4)}
    names = ("zest", "cost", "aroma", "success_rate", "rating")
    comparison = compare(
        dict.fromkeys(names, arms),
        experiment=experiment_of("a", "b", primary_metric="rating"),
        exposed_units={},
    )
    assert list(comparison.metrics) == ["rating", "success_rate", "cost", "aroma", "zest"]
    assert comparison.primary_metric == "rating"


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
    comparison = compared(arms, metric="tokens", definitions=(declared,))
    assert comparison.leader == "b"
    assert comparison.metrics["tokens"].label == "Length"


def test_built_in_metrics_know_which_way_is_better() -> None:
    assert {name: metric.direction for name, metric in BUILT_IN_METRICS.items()} == {
        "success_rate": "increase",
        "error_rate": "decrease",
        "response_time": "decrease",
        "tokens": "decrease",
        "cost": "decrease",
        "rating": "increase",
    }


def test_better_on_a_secondary_metric_is_told_apart_from_the_primary() -> None:
    comparison = compare(
        {
            "success_rate": {"a": successes(50, 100), "b": successes(51, 100)},
            "cost": {"a": alternating(0.004, 0.0005), "b": alternating(0.002, 0.0005)},
        },
        experiment=experiment_of("a", "b"),
        exposed_units={"a": 100, "b": 100},
    )
    assert comparison.better() is None
    assert comparison.better("cost") == "b"
    sentence = comparison.metrics["cost"].differences["b"].sentence
    assert sentence == "b is 0.00200 dollars better (95 % interval 0.00182 to 0.00218) on cost"


def test_better_on_a_metric_that_was_not_compared_is_an_error_that_lists_those_that_were() -> None:
    with pytest.raises(NotFoundError, match="no metric 'speed'; compared are success_rate"):
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
        comparison = compared({"a": flat, "b": around(5.0, seed=3)}, metric="score")
        assert comparison.metrics["score"].differences["b"].lift is None


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
    comparison = compared(
        {"a": around(9.0, seed=1), "b": around(1.0, seed=2)}, metric="score", definitions=(wrong,)
    )
    for estimate in comparison.metrics["score"].estimates.values():
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.value is not None
        assert estimate.low <= estimate.value <= estimate.high


def test_the_comparison_says_that_it_is_for_one_planned_look() -> None:
    comparison = compared({"a": successes(50, 100), "b": successes(51, 100)})
    assert comparison.method == "fixed"
    assert comparison.caution == (
        "Fixed-horizon intervals are right for one look, at a moment planned before the start; looking again "
        "and again and stopping when they please names winners that are none."
    )


def test_the_caution_grows_with_the_number_of_differences_and_for_few_units() -> None:
    comparison = compared({"a": successes(5, 10), "b": successes(5, 10), "c": successes(5, 10)})
    assert (
        "Each of the 2 differences is judged alone: where nothing differs, about 5 in 100"
        in comparison.caution
    )
    assert "fewer than 30 units" in comparison.caution


@pytest.mark.parametrize(
    "huge",
    [
        UnitSums.of([(1, 1e200), (1, 3e200)]),
        UnitSums(units=2, n=2, s=math.inf, center=1.0, rr=math.inf, nn=2, rn=math.inf),
    ],
    ids=["squares", "sums"],
)
def test_sums_too_large_to_compare_are_undecided_and_still_json(huge: UnitSums) -> None:
    comparison = compared({"a": dict.fromkeys((0, 1), successes(5, 10)[0]), "b": {0: huge, 1: huge}})
    difference = comparison.metrics["success_rate"].differences["b"]
    assert (difference.verdict, difference.ground) == ("undecided", "not computable")
    assert "too large to add up" in difference.sentence
    json.dumps(comparison.model_dump(mode="json"), allow_nan=False)


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


def test_a_comparison_survives_json() -> None:
    comparison = compared({"a": successes(50, 100), "b": successes(0, 1), "c": successes(80, 100)})
    text = comparison.model_dump_json()
    assert Comparison.model_validate_json(text) == comparison
    assert json.loads(text)["metrics"]["success_rate"]["differences"]["c"]["verdict"] == "better"
