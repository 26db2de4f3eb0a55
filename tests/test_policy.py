"""What is settled about acting on an experiment before it starts."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from promptab.errors import InvalidInputError
from promptab.guardrails import Guardrail
from promptab.plan import AnalysisPlan
from promptab.policy import Policy, RampStep
from promptab.stats.metric import MetricDefinition


def guardrail(line: str) -> Guardrail:
    return Guardrail.model_validate(line)


def policy(**fields: Any) -> Policy:
    """Guardrails and ramp steps as people write them: lines and shares."""
    return Policy(**fields)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("success_rate >= 0.8", Guardrail(metric="success_rate", at_least=0.8)),
        ("success >= 80 %", Guardrail(metric="success_rate", at_least=0.8)),
        ("p95_response_time <= 2.0", Guardrail(metric="p95_response_time", at_most=2.0)),
        ("cost per call <= 0.01", Guardrail(metric="cost", at_most=0.01)),
        ("Cost per success<=1e-2", Guardrail(metric="cost_per_success", at_most=0.01)),
        ("balance >= -5", Guardrail(metric="balance", at_least=-5.0)),
        (
            "success_rate >= control - 2%",
            Guardrail(metric="success_rate", largest_regression=0.02, direction="increase"),
        ),
        (
            "response_time <= control + 0.2",
            Guardrail(metric="response_time", largest_regression=0.2, relative=False, direction="decrease"),
        ),
        (
            "error_rate <= control",
            Guardrail(metric="error_rate", largest_regression=0.0, direction="decrease"),
        ),
    ],
)
def test_a_guardrail_is_read_from_a_line(line: str, expected: Guardrail) -> None:
    assert guardrail(line) == expected
    assert guardrail(expected.text) == expected


@pytest.mark.parametrize(
    "line",
    [
        "",
        "success_rate",
        "success_rate > 0.8",
        "success_rate >= high",
        "success_rate >= control + 2%",
        "cost <= control - 0.01",
        "cost <= control + lots",
        "cost <= control 5%",
        "0.5 <= success_rate <= 0.8",
    ],
)
def test_a_line_that_is_no_guardrail_is_refused_with_examples(line: str) -> None:
    with pytest.raises(InvalidInputError):
        guardrail(line)


def test_a_refused_line_names_how_to_write_it() -> None:
    with pytest.raises(InvalidInputError, match=r"success_rate > 0\.8.*write it as 'success_rate >= 0\.8'"):
        guardrail("success_rate > 0.8")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"metric": "cost"}, "guardrails[cost]"),
        ({"metric": "cost", "at_most": 1.0, "at_least": 0.5}, "guardrails[cost]"),
        ({"metric": "success_rate", "at_least": 80.0}, "guardrails[success_rate].at_least"),
        ({"metric": "success_rate", "at_least": -0.1}, "guardrails[success_rate].at_least"),
        ({"metric": "cost", "at_most": -1.0}, "guardrails[cost].at_most"),
        ({"metric": "cost", "largest_regression": -0.1}, "guardrails[cost].largest_regression"),
        ({"metric": "cost", "at_most": math.inf}, "guardrails[cost].at_most"),
        ({"metric": "cost", "at_most": True}, "Guardrail.at_most"),
        ({"metric": "-", "at_most": 1.0}, "guardrail.metric"),
        ({"metric": "cost", "at_most": 1.0, "margin": 3}, "Guardrail.margin"),
    ],
)
def test_a_guardrail_that_does_not_fit_is_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        Guardrail(**fields)
    assert refused.value.field == field


def test_a_policy_that_says_nothing_is_safe() -> None:
    said = Policy()
    assert (said.alpha, said.guardrail_alpha) == (0.05, 0.05)
    assert (said.on_failed_guardrail, said.on_mismatch) == ("rollback", "pause")
    assert said.longest_hours is None
    assert not said.allow_approximate


def test_a_policy_survives_json_and_cannot_be_changed() -> None:
    said = policy(
        primary_metric="rating",
        direction="increase",
        smallest_effect=0.05,
        guardrails=["success_rate >= 0.8", "cost <= control + 10%"],
        ramp=[0.1, {"traffic": 0.4, "minimum_units": 500, "minimum_hours": 24}, RampStep(traffic=1.0)],
        longest_hours=336,
        on_win="require_approval",
    )
    assert Policy.model_validate_json(said.model_dump_json()) == said
    assert Policy.model_validate(json.loads(said.model_dump_json())).digest == said.digest
    with pytest.raises(ValidationError):
        said.alpha = 0.5


def test_the_digest_is_that_of_what_is_declared() -> None:
    assert Policy(alpha=0.05).digest == Policy().digest
    assert policy(longest_hours=24).digest == policy(longest_hours=24.0).digest
    assert len({Policy(alpha=alpha).digest for alpha in (0.01, 0.02, 0.05)}) == 3
    assert len(Policy().digest) == 64


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"alpha": 0.0}, "policy.alpha"),
        ({"alpha": 0.5}, "policy.alpha"),
        ({"guardrail_alpha": 5}, "policy.guardrail_alpha"),
        ({"smallest_effect": 0.0}, "policy.smallest_effect"),
        ({"longest_hours": 0}, "policy.longest_hours"),
        ({"longest_hours": math.nan}, "policy.longest_hours"),
        ({"longest_hours": 24, "shortest_hours": 48}, "policy.shortest_hours"),
        ({"shortest_hours": -1}, "policy.shortest_hours"),
        ({"minimum_events": -1}, "policy.minimum_events"),
        ({"minimum_events": True}, "Policy.minimum_events"),
        ({"minimum_events": 0.5}, "Policy.minimum_events"),
        ({"primary_metric": ""}, "policy.primary_metric"),
        ({"direction": "up"}, "Policy.direction"),
        ({"on_win": "celebrate"}, "Policy.on_win"),
        ({"on_mismatch": "rollback"}, "Policy.on_mismatch"),
        ({"gardrails": []}, "Policy.gardrails"),
        ({"guardrails": ["cost <= 1", "cost <= 2"]}, "policy.guardrails"),
        ({"guardrails": "cost <= 1"}, "Policy.guardrails"),
        ({"ramp": [0.0]}, "ramp.traffic"),
        ({"ramp": [1.5]}, "ramp.traffic"),
        ({"ramp": [0.4, 0.1]}, "policy.ramp.traffic"),
        ({"ramp": [0.4, 0.4]}, "policy.ramp.traffic"),
        ({"ramp": [{"traffic": 0.1, "minimum_units": -1}]}, "ramp.minimum_units"),
        ({"ramp": [{"traffic": 0.1, "minimum_hours": math.inf}]}, "ramp.minimum_hours"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else None,
)
def test_a_policy_that_does_not_fit_is_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        Policy(**fields)
    assert refused.value.field == field


def test_the_plan_gets_what_the_policy_says_of_metrics_and_alpha() -> None:
    said = policy(
        direction="decrease",
        smallest_effect=0.1,
        alpha=0.01,
        guardrails=["turns <= control + 5%", "success_rate >= 0.8", "error_rate <= control"],
    )
    plan = said.planned(AnalysisPlan(window_hours=24.0), primary_metric="complaints")
    assert plan.confidence == 0.99
    assert plan.window_hours == 24.0
    assert plan.definition("complaints") == MetricDefinition(
        name="complaints", direction="decrease", smallest_effect=0.1
    )
    assert plan.definition("turns") == MetricDefinition(
        name="turns", direction="decrease", role="guardrail", largest_regression=0.05
    )
    roles = {metric.name: metric.role for metric in plan.metrics}
    # measured, but nothing about them is to be excluded before a promotion by the analysis itself
    assert (roles["success_rate"], roles["error_rate"]) == ("secondary", "secondary")
    assert AnalysisPlan.model_validate(plan.model_dump(mode="json")) == plan


@given(
    st.sampled_from([0.01, 0.05, 0.1]),
    st.sampled_from([None, 0.02]),
    st.lists(
        st.sampled_from(
            ["success_rate >= 0.8", "cost <= control + 10%", "turns >= control - 0.5", "tokens <= 900"]
        ),
        unique=True,
    ),
)
def test_a_plan_that_is_settled_twice_stays_as_it_is(
    alpha: float, smallest_effect: float | None, guardrails: list[str]
) -> None:
    said = policy(alpha=alpha, smallest_effect=smallest_effect, guardrails=guardrails)
    once = said.planned(AnalysisPlan(), primary_metric="rating")
    assert said.planned(once, primary_metric="rating") == once


@pytest.mark.parametrize(
    ("fields", "plan", "field"),
    [
        ({"alpha": 0.01}, {"confidence": 0.9}, "policy.alpha"),
        ({"primary_metric": "cost"}, {}, "policy.primary_metric"),
        ({"direction": "decrease"}, {"metrics": [{"name": "rating"}]}, "policy.direction"),
        (
            {"smallest_effect": 0.1},
            {"metrics": [{"name": "rating", "smallest_effect": 0.2}]},
            "policy.smallest_effect",
        ),
        (
            {"smallest_effect": 0.1},
            {"metrics": [{"name": "rating", "smallest_effect": 0.1, "relative": False}]},
            "policy.relative",
        ),
        ({"guardrails": ["cost >= control - 5%"]}, {}, "policy.guardrails[cost].direction"),
        (
            {"guardrails": ["cost <= control + 5%"]},
            {
                "metrics": [
                    {"name": "cost", "direction": "decrease", "role": "guardrail", "largest_regression": 0.1}
                ]
            },
            "policy.guardrails[cost].largest_regression",
        ),
    ],
)
def test_what_plan_and_policy_say_differently_is_refused(
    fields: dict[str, Any], plan: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInputError) as refused:
        Policy(**fields).planned(AnalysisPlan(**plan), primary_metric="rating")
    assert refused.value.field == field


def test_guardrails_that_only_the_plan_declares_are_watched_too() -> None:
    turns = MetricDefinition(name="turns", direction="decrease", role="guardrail", largest_regression=0.1)
    said = policy(guardrails=["success_rate >= 0.8", "cost <= control + 5%"])
    plan = said.planned(AnalysisPlan(metrics=(turns,)), primary_metric="rating")
    lines = [each.text for each in said.watched(plan, primary_metric="rating")]
    assert lines == ["success_rate >= 0.8", "cost <= control + 5%", "turns <= control + 10%"]


@pytest.mark.parametrize("kind", ["share_of_units", "mean_per_unit"])
def test_a_least_total_of_units_is_not_held_against_those_that_have_only_just_come(kind: Any) -> None:
    bought = AnalysisPlan(metrics=(MetricDefinition(name="bought", kind=kind),))
    behind = Policy.model_validate({"guardrails": ["bought >= 0.3"]})
    with pytest.raises(InvalidInputError, match=r"bought >= 0\.3.*measurement window.*window_hours"):
        behind.planned(bought, primary_metric="success_rate")
    behind.planned(bought.model_copy(update={"window_hours": 24.0}), primary_metric="success_rate")
    for line in ("bought >= control - 10%", "bought <= 0.9"):
        Policy.model_validate({"guardrails": [line]}).planned(bought, primary_metric="success_rate")
