"""Policies in the shapes that people have written before, read as they stand, and in promptab.yaml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import promptab
from promptab.criteria import read_ab_testing, read_criteria
from promptab.errors import InvalidInputError, PromptFileError
from promptab.guardrails import Guardrail
from promptab.library.policies import PolicyFile, read_policy_file
from promptab.plan import AnalysisPlan
from promptab.policy import Policy

DECISION_CRITERIA: dict[str, Any] = {
    "primary_metric": {"name": "user_satisfaction", "threshold": 0.05, "direction": "increase"},
    "guardrails": [
        {"name": "latency", "max_regression": 0.10},
        {"name": "error_rate", "max_increase": 0.02},
        {"name": "cost", "max_increase": 0.20},
    ],
}
TEST_CRITERIA = {
    "criteria": {
        "min_requests": 10000,
        "max_error_rate": 0.01,
        "max_latency_ms": 200,
        "min_improvement": 0.05,
    }
}
AB_TESTING = """\
# config/ab_testing.yaml
ab_testing:
  enabled: true

  default_settings:
    significance_level: 0.05
    power: 0.8
    min_sample_size_per_group: 1000
    max_duration_days: 30

  traffic_allocation:
    method: "user_hash"  # user_hash, feature_hash, random
    hash_seed: "mlops-2024"

  statistical_tests:
    multiple_testing_correction: "bonferroni"
    effect_size_threshold: 0.02

  automation:
    auto_stop_on_significance: false
    auto_promote_winner: false
    early_stopping_enabled: true

  monitoring:
    check_interval_hours: 6
    alert_on_significant_result: true
    alert_on_sample_size_reached: true
"""


def test_decision_criteria_are_read_as_they_stand() -> None:
    assert read_criteria(DECISION_CRITERIA).policy == Policy(
        primary_metric="user_satisfaction",
        direction="increase",
        smallest_effect=0.05,
        guardrails=(
            Guardrail(metric="response_time", largest_regression=0.1),
            Guardrail(metric="error_rate", largest_regression=0.02, direction="decrease"),
            Guardrail(metric="cost", largest_regression=0.2, direction="decrease"),
        ),
    )


def test_test_criteria_are_read_as_they_stand() -> None:
    assert read_criteria(TEST_CRITERIA).policy == Policy(
        smallest_effect=0.05,
        guardrails=(
            Guardrail(metric="error_rate", at_most=0.01),
            Guardrail(metric="response_time", at_most=0.2),
        ),
        minimum_events=10_000,
    )


def test_a_policy_in_its_own_fields_is_itself() -> None:
    fields = {"longest_hours": 24, "guardrails": ["success_rate >= 0.8"], "ramp": [0.1, 1.0]}
    assert read_criteria(fields).policy == Policy.model_validate(fields)


def test_the_ab_testing_block_is_read_as_it_stands() -> None:
    found = read_policy_file(AB_TESTING, path="config/ab_testing.yaml").ab_testing
    assert found is not None
    assert found.policy == Policy(smallest_effect=0.02, longest_hours=720.0, on_win="notify")
    assert found.plan.minimum_units == 1_000
    assert (found.enabled, found.plan.power, found.unit, found.hash_seed) == (True, 0.8, "user", "mlops-2024")
    assert found.check_interval_hours == 6.0
    assert found.alert_on_significant_result
    assert found.alert_on_sample_size_reached


@pytest.mark.parametrize(
    ("automation", "on_win", "shortest_hours"),
    [
        ({"auto_promote_winner": True}, "promote", 0.0),
        ({"auto_promote_winner": True, "auto_stop_on_significance": True}, "promote", 0.0),
        ({"auto_stop_on_significance": True}, "stop", 0.0),
        ({"early_stopping_enabled": False}, "notify", 48.0),
    ],
)
def test_automation_says_what_happens_on_a_win(
    automation: dict[str, bool], on_win: str, shortest_hours: float
) -> None:
    found = read_ab_testing({"default_settings": {"max_duration_days": 2}, "automation": automation}).policy
    assert (found.on_win, found.shortest_hours) == (on_win, shortest_hours)


@pytest.mark.parametrize(("method", "unit"), [("feature_hash", "features"), ("random", "request")])
def test_the_way_of_dealing_says_what_is_randomised(method: str, unit: str) -> None:
    assert read_ab_testing({"traffic_allocation": {"method": method}}).unit == unit


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"criteria": {"max_errors": 0.01}}, "TestCriteria.max_errors"),
        ({"criteria": {"max_error_rate": 5}}, "guardrails[error_rate].at_most"),
        ({"primary_metric": {"threshold": 0.1}}, "PrimaryMetric.name"),
        (
            {"primary_metric": {"name": "x"}, "guardrails": [{"name": "cost"}]},
            "guardrails[cost]",
        ),
        (
            {"primary_metric": {"name": "x"}, "guardrails": [{"name": "turns", "max_regression": 0.1}]},
            "guardrails[turns].max_regression",
        ),
        ("criteria", "policy"),
    ],
)
def test_criteria_that_do_not_fit_are_refused(document: Any, field: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        read_criteria(document)
    assert refused.value.field == field


@pytest.mark.parametrize(
    "block",
    [
        {"statistical_tests": {"multiple_testing_correction": "none"}},
        {"traffic_allocation": {"method": "sticky"}},
        {"default_settings": {"power": 1.0}},
        {"automation": {"early_stopping_enabled": False}},
        {"automation": {"auto_promote_winner": "yes"}},
        {"monitoring": {"check_interval_hours": 0}},
        {"monitoring": {"pager": True}},
    ],
    ids=lambda block: next(iter(block)),
)
def test_an_ab_testing_block_that_does_not_fit_is_refused(block: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        read_ab_testing({"ab_testing": block})


def test_a_project_declares_its_policies_by_name() -> None:
    text = """\
policies:
  careful:
    guardrails:
      - success_rate >= 0.8
      - p95_response_time <= 2.0
    ramp: [0.1, {traffic: 0.4, minimum_units: 500}, 1.0]
    longest_hours: 336
    on_win: require_approval
  classic:
    criteria: {min_requests: 100, max_error_rate: 0.01}
"""
    found = read_policy_file(text).policies
    assert [each.text for each in found["careful"].policy.guardrails] == [
        "success_rate >= 0.8",
        "p95_response_time <= 2",
    ]
    assert [step.traffic for step in found["careful"].policy.ramp] == [0.1, 0.4, 1.0]
    assert found["classic"].policy.minimum_events == 100


@pytest.mark.parametrize("page", ["decisions", "alerts"])
def test_what_the_guides_show_is_read(page: str) -> None:
    guide = (Path(promptab.__file__).parent / page / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"^```yaml\n(.*?)^```$", guide, re.DOTALL | re.MULTILINE)
    assert shown
    for text in shown:
        declared = read_policy_file(text)
        assert declared.policies or declared.alerts is not None
        for criteria in declared.policies.values():
            policy = criteria.policy
            policy.planned(AnalysisPlan(), primary_metric="rating")
            assert policy.on_win == "require_approval"
            assert len(policy.guardrails) == 4


@pytest.mark.parametrize("text", ["", "policies:\n", "# nothing\n", "ab_testing:\n"])
def test_a_file_without_entries_declares_nothing(text: str) -> None:
    assert read_policy_file(text) == PolicyFile()


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("policies:\n  one: {}\n  two:\n    alpha: 7\n", 4, "policy.alpha"),
        (
            "policies:\n  one:\n    alfa: 7\n",
            3,
            "Policy.alfa: 7 is not known: Policy has primary_metric, direction,",
        ),
        (
            "policies:\n  one:\n    ramp: [0.1]\n    guardrails:\n      - metric: cost\n        at_mots: 1\n",
            6,
            "Guardrail.at_mots: 1 is not known: Guardrail has metric, at_least, at_most,",
        ),
        ("policies:\n  one:\n    ramp: \n      - {traffic: 0.5}\n      - {traffic: 0.1}\n", 3, "ramp"),
        ("ab_testing:\n  default_settings:\n    power: 2\n", 3, "power"),
        ("policies:\n  'no name': {}\n", 2, "no name"),
        ("policies:\n  none: {}\n", 2, "--policy none means no policy at all"),
        ("policies:\n  a: {}\n  ab_testing: {}\n", 3, "--policy ab_testing means the block of that name"),
        ("policies: [1]\n", 1, "policies"),
        ("- 1\n", 1, "mapping"),
        ("policies: {}\npolicy: {}\n", 2, "policy"),
        ("ab_testing:\n  enabled: maybe\n", 2, "enabled"),
        ("policies: {one: {guardrails: [cost < 1]}}\n", 1, "write it as"),
    ],
)
def test_a_fault_in_the_file_is_told_with_its_line(text: str, line: int, said: str) -> None:
    with pytest.raises(PromptFileError) as refused:
        read_policy_file(text)
    assert refused.value.line == line
    assert said in str(refused.value)
