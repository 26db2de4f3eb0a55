"""Where the guardrails of a policy stand, in analyses of real sums."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from promptab.analysis.analyzing import analyze
from promptab.analysis.result import GuardReading
from promptab.errors import InvalidInputError
from promptab.plan import AnalysisPlan
from promptab.policy import Policy
from promptab.stats.metric import MetricDefinition
from promptab.stats.quantile import quantile_arm
from promptab.stats.rate_bound import rate_log_e_value, unit_rate_log_e_value
from promptab.stats.rate_regression import DealtRates, regression_log_e_value
from promptab.stats.summary import UnitSums
from tests.outcomes import evidence_of, rate, values

EVEN = {"a": {0: rate(180, 200)}, "b": {0: rate(180, 200)}}


def readings(metrics: dict[str, Any], guardrails: list[str], **how: Any) -> list[GuardReading]:
    policy = Policy.model_validate({"guardrails": guardrails} | how.pop("policy", {}))
    return list(analyze(evidence_of(metrics, policy, **how), policy=policy).guards)


def test_a_rate_behind_a_bound_is_weighed_exactly() -> None:
    arms = {"a": {0: rate(180, 200)}, "b": {0: rate(130, 200)}}
    (found,) = readings({"success_rate": arms}, ["success_rate >= 0.8"])
    log_e = rate_log_e_value(130, 200, bound=0.8, claim="less")
    assert found.p_value == pytest.approx(math.exp(-log_e))
    assert (found.technique, found.verdict, found.variant) == ("exact rates", "fail", "b")
    assert (found.value, found.control, found.units) == (0.65, None, 200)
    assert found.sentence.startswith("success_rate >= 0.8: b has failed it; it has 0.65 over 200 units (p = ")


def test_a_rate_beside_a_control_is_weighed_with_the_weights_of_each_epoch() -> None:
    arms = {
        "a": {1: rate(810, 900), 2: rate(90, 100)},
        "b": {1: rate(80, 100), 2: rate(700, 900)},
    }
    weights = {1: {"a": 0.9, "b": 0.1}, 2: {"a": 0.1, "b": 0.9}}
    (found,) = readings({"success_rate": arms}, ["success_rate >= control - 2%"], weights=weights)
    log_e = regression_log_e_value(
        [DealtRates(0.1, (80, 100), (810, 900)), DealtRates(0.9, (700, 900), (90, 100))],
        margin=0.02,
        relative=True,
        direction="increase",
    )
    assert found.p_value == pytest.approx(math.exp(-log_e))
    assert (found.technique, found.verdict) == ("exact rates", "fail")


def test_an_epoch_that_dealt_to_one_arm_alone_compares_nothing() -> None:
    arms = {"a": {1: rate(90, 100), 2: UnitSums()}, "b": {1: rate(90, 100), 2: rate(0, 500)}}
    weights = {1: {"a": 0.5, "b": 0.5}, 2: {"a": 0.0, "b": 1.0}}
    (found,) = readings({"success_rate": arms}, ["success_rate >= control"], weights=weights)
    assert (found.technique, found.p_value) == ("exact rates", 1.0)


def test_the_budget_is_shared_among_guardrails_and_variants() -> None:
    arms = {key: {0: rate(180, 200)} for key in "abc"}
    found = readings(
        {"success_rate": arms, "cost": {key: {0: values(0.01, 200)} for key in "abc"}},
        ["success_rate >= 0.8", "cost <= 1"],
        policy={"guardrail_alpha": 0.04},
    )
    assert [reading.alpha for reading in found] == [0.01] * 4
    assert [(reading.metric, reading.variant) for reading in found] == [
        ("success_rate", "b"),
        ("success_rate", "c"),
        ("cost", "b"),
        ("cost", "c"),
    ]


@pytest.mark.parametrize(("successes", "verdict"), [(150, "fail"), (170, "undecided"), (195, "pass")])
def test_a_bound_is_failed_kept_or_not_known(successes: int, verdict: str) -> None:
    arms = {"a": {0: rate(180, 200)}, "b": {0: rate(successes, 200)}}
    (found,) = readings({"success_rate": arms}, ["success_rate >= 0.85"])
    assert (found.verdict, found.needed) == (verdict, True)


def test_several_outcomes_of_a_unit_are_one_observation() -> None:
    """Ten calls each of 20 units, all of a unit alike: far too little for what 200 units would show."""
    alike = UnitSums.of([(10.0, 10.0)] * 13 + [(10.0, 0.0)] * 7)
    (found,) = readings({"success_rate": {"a": {0: alike}, "b": {0: alike}}}, ["success_rate >= 0.9"])
    assert (found.technique, found.p_value, found.verdict) == ("not enough data", None, "undecided")
    many = UnitSums.of([(10.0, 10.0)] * 130 + [(10.0, 0.0)] * 70)
    (found,) = readings({"success_rate": {"a": {0: many}, "b": {0: many}}}, ["success_rate >= 0.9"])
    assert (found.technique, found.verdict) == ("confidence sequence", "fail")


def test_few_units_of_several_outcomes_are_bet_on_behind_a_bound() -> None:
    units = {key: {0: [(5.0, 5.0)] * 20 + [(7.0, 2.0)] * 20} for key in "ab"}
    arms = {key: {0: UnitSums.of(of_epoch[0])} for key, of_epoch in units.items()}
    lines = ["success_rate >= 0.9", "success_rate >= control - 5%"]
    behind, beside = readings({"success_rate": arms}, lines, units={"success_rate": units})
    assert behind.p_value == pytest.approx(
        math.exp(-unit_rate_log_e_value(units["b"][0], bound=0.9, claim="less"))
    )
    # the other half is for the confidence sequence, once there are more of them
    assert (behind.technique, behind.verdict, behind.alpha) == ("betting", "fail", 0.0125)
    assert (beside.technique, beside.p_value, beside.alpha) == ("not enough data", None, 0.025)


def test_a_bet_on_units_of_several_outcomes_lets_no_guardrail_pass() -> None:
    units = {key: {0: [(50.0, 50.0)] * 59 + [(50.0, 49.0)]} for key in "ab"}
    arms = {key: {0: UnitSums.of(of_epoch[0])} for key, of_epoch in units.items()}
    (found,) = readings({"success_rate": arms}, ["success_rate >= 0.1"], units={"success_rate": units})
    assert (found.technique, found.p_value, found.verdict) == ("betting", 1.0, "undecided")


def test_a_share_of_anything_but_zeros_and_ones_is_not_bet_on() -> None:
    units = {key: {0: [(2.0, 3.0)] * 40} for key in "ab"}
    arms = {key: {0: UnitSums.of(of_epoch[0])} for key, of_epoch in units.items()}
    (found,) = readings({"success_rate": arms}, ["success_rate >= 0.9"], units={"success_rate": units})
    assert (found.technique, found.verdict) == ("not enough data", "undecided")


@pytest.mark.parametrize(("units", "verdict"), [(300, "undecided"), (400, "pass")])
def test_few_errors_of_units_alike_do_not_pass_for_little_variation(units: int, verdict: str) -> None:
    """By the variance that so few errors leave, 250 units would be enough for a rate of 2 % behind one of 5 %."""
    alike = UnitSums.of([(10.0, 4.0)] * (units // 20) + [(10.0, 0.0)] * (units - units // 20))
    (found,) = readings(
        {"success_rate": EVEN, "error_rate": {"a": {0: alike}, "b": {0: alike}}}, ["error_rate <= 0.05"]
    )
    assert (found.technique, found.verdict) == ("confidence sequence", verdict)


def test_few_ratings_are_bet_on_in_their_order() -> None:
    generator = np.random.default_rng(1)
    units = {
        "a": {0: [(1.0, float(score)) for score in generator.integers(4, 6, 60)]},
        "b": {0: [(1.0, float(score)) for score in generator.integers(1, 4, 60)]},
    }
    arms = {key: {0: UnitSums.of(of_epoch[0])} for key, of_epoch in units.items()}
    found = readings(
        {"success_rate": EVEN, "rating": arms},
        ["rating >= 3.5", "rating >= control - 0.5"],
        units={"rating": units},
    )
    assert [reading.technique for reading in found] == ["betting", "betting"]
    assert [reading.verdict for reading in found] == ["fail", "fail"]
    # the other half is for the confidence sequence, once there are more of them
    assert [reading.alpha for reading in found] == [0.0125, 0.0125]


def test_what_has_no_bounds_waits_for_a_hundred_units() -> None:
    lines = ["cost <= 0.5", "cost <= control + 10%"]
    for units, technique, verdict in (
        (80, "not enough data", "undecided"),
        (200, "confidence sequence", "fail"),
    ):
        cost = {"a": {0: values(0.4, units)}, "b": {0: values(0.6, units)}}
        found = readings({"success_rate": EVEN, "cost": cost}, lines)
        assert {(reading.technique, reading.verdict) for reading in found} == {(technique, verdict)}


@pytest.mark.parametrize(("seconds", "verdict"), [(1.1, "pass"), (1.2, "undecided"), (1.3, "fail")])
def test_a_margin_in_the_metrics_own_unit_is_allowed(seconds: float, verdict: str) -> None:
    times = {"a": {0: values(1.0, 400)}, "b": {0: values(seconds, 400)}}
    (found,) = readings({"success_rate": EVEN, "response_time": times}, ["response_time <= control + 0.2"])
    assert found.verdict == verdict


def test_what_never_varied_has_no_spread_to_go_by() -> None:
    cost = {"a": {0: values(0.4, 200, spread=0.0)}, "b": {0: values(0.6, 200, spread=0.0)}}
    (found,) = readings({"success_rate": EVEN, "cost": cost}, ["cost <= 0.5"])
    assert (found.technique, found.verdict) == ("not enough data", "undecided")


@pytest.mark.parametrize(("scale", "verdict"), [(1.0, "pass"), (6.0, "fail")])
def test_a_quantile_has_a_bound_too(scale: float, verdict: str) -> None:
    generator = np.random.default_rng(2)
    arms = {
        key: {0: quantile_arm(generator.exponential(size, 2_000), np.arange(2_000), 0.95)}
        for key, size in (("a", 1.0), ("b", scale))
    }
    (found,) = readings(
        {"success_rate": EVEN}, ["p95_response_time <= 6"], quantiles={"p95_response_time": arms}
    )
    assert (found.technique, found.verdict) == ("confidence sequence", verdict)


def test_a_regression_that_is_excluded_passes_and_any_that_is_allowed_needs_nothing() -> None:
    cost = {"a": {0: values(0.4, 2_000, spread=0.05)}, "b": {0: values(0.4, 2_000, spread=0.05)}}
    found = readings(
        {"success_rate": EVEN, "cost": cost}, ["cost <= control + 10%", "success_rate >= control"]
    )
    assert [(reading.verdict, reading.needed) for reading in found] == [("pass", True), ("undecided", False)]


def test_guardrails_of_the_plan_are_read_with_those_of_the_policy() -> None:
    turns = MetricDefinition(name="turns", direction="decrease", role="guardrail", largest_regression=0.1)
    arms = {"a": {0: values(3.0, 400)}, "b": {0: values(4.0, 400)}}
    found = readings(
        {"success_rate": EVEN, "turns": arms},
        ["success_rate >= 0.5"],
        plan=AnalysisPlan(metrics=(turns,), minimum_units=2),
    )
    assert [(reading.guardrail, reading.verdict) for reading in found] == [
        ("success_rate >= 0.5", "pass"),
        ("turns <= control + 10%", "fail"),
    ]
    assert [reading.alpha for reading in found] == [0.025, 0.025]


def test_a_metric_of_which_there_is_no_evidence_is_refused() -> None:
    said = Policy.model_validate({"guardrails": ["tokens <= 900"]})
    evidence = evidence_of({"success_rate": EVEN}, Policy())
    with pytest.raises(InvalidInputError, match=r"policy\.planned"):
        analyze(evidence, policy=said)


def test_without_a_policy_nothing_is_read() -> None:
    assert analyze(evidence_of({"success_rate": EVEN}, Policy())).guards == ()


def test_before_anything_was_recorded_no_guardrail_has_failed() -> None:
    nothing = {"a": {0: UnitSums()}, "b": {0: UnitSums()}}
    found = readings(
        {"success_rate": nothing},
        ["success_rate >= 0.8", "success_rate >= control", "cost <= 1", "rating >= 3"],
    )
    assert {reading.verdict for reading in found} == {"undecided"}
    assert {reading.value for reading in found} == {None}
    assert found[0].sentence == "success_rate >= 0.8: nothing of b carried success_rate yet"
