"""A metric's name that is a slip is told before anything waits for it, and what nothing carries is told afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from promptab import InvalidInputError, Lab
from promptab.stats.metric import BUILT_IN_METRICS, MEASURE_ALIASES
from promptab.stats.misspelling import remedy_for
from tests.conftest import url_of
from tests.rollouts import CANDIDATE, CONTROL, staged


@pytest.fixture(params=["file", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return url_of(request, tmp_path)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("sucess_rate", "success_rate"),
        ("succes_rte", "success_rate"),
        ("success_rates", "success_rate"),
        ("successRate", "success_rate"),
        ("sucesss_rate", "success_rate"),
        ("eror_rate", "error_rate"),
        ("reponse_time", "response_time"),
        ("response-time", "response_time"),
        ("respnose_time", "response_time"),
        ("p95_respons_time", "p95_response_time"),
        ("costs", "cost"),
        ("Cost", "cost"),
        ("token", "tokens"),
        ("ratings", "rating"),
        ("raitng", "rating"),
        ("cost_per_sucess", "cost_per_success"),
        ("user_ratings", "user_rating"),
    ],
)
def test_a_slip_is_told_with_what_was_meant(written: str, meant: str) -> None:
    assert remedy_for(written) == f"did you mean {meant}?"


@pytest.mark.parametrize(
    "name",
    [
        *BUILT_IN_METRICS,
        *MEASURE_ALIASES,
        *("lost", "cast", "host", "dating", "broken", "response_size", "error_ratio", "input_tokens"),
        *("user_satisfaction", "latency", "resolved", "quality", "p95_latency", "response_rate", "turns"),
        *("accuracy", "success_time", "cost_per_call"),
    ],
)
def test_a_name_of_its_own_is_no_slip(name: str) -> None:
    assert remedy_for(name) is None


def test_another_quantile_is_told_how_it_is_declared() -> None:
    told = "declare it in the plan: {name: p99_response_time, kind: quantile, measure: response_time, quantile: 0.99}"
    assert remedy_for("p99_response_time") == told
    assert "measure: cost, quantile: 0.50" in (remedy_for("p50_costs") or "")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"policy": {"guardrails": ["sucess_rate >= 0.8"]}}, "policy.guardrails"),
        ({"policy": {"primary_metric": "sucess_rate"}}, "primary_metric"),
        ({"primary_metric": "sucess_rate"}, "primary_metric"),
        ({"plan": {"metrics": [{"name": "ok", "measure": "sucess_rate"}]}}, "metrics[ok].measure"),
    ],
    ids=["guardrail", "primary of the policy", "primary", "measure"],
)
async def test_an_experiment_is_not_begun_on_a_slip(lab: Lab, options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError, match=r"did you mean success_rate\?") as refused:
        await staged(lab, **options)
    assert refused.value.field == field
    assert await lab.experiments.list_experiments() == []


async def test_another_policy_is_held_against_the_names_too(lab: Lab) -> None:
    scene = await staged(lab, {})
    with pytest.raises(InvalidInputError, match="did you mean cost"):
        await lab.experiments.set_policy(scene.experiment_id, {"guardrails": ["costs <= 0.1"]})


async def test_a_guard_on_a_slip_is_refused_and_nothing_goes_live(lab: Lab) -> None:
    scene = await staged(lab)
    with pytest.raises(InvalidInputError, match=r"did you mean response_time\?"):
        await lab.versions.promote(
            scene.versions[CANDIDATE].version_id, guard={"guardrails": ["reponse_time <= 2"]}
        )
    assert await scene.live() == CONTROL


async def test_a_name_that_the_plan_declares_or_events_carry_is_ones_own(lab: Lab) -> None:
    declared = {"metrics": [{"name": "costs", "direction": "decrease"}]}
    scene = await staged(lab, {"guardrails": ["costs <= 0.1"]}, plan=declared)
    await lab.metrics.record_event(scene.versions[CONTROL].version_id, metrics={"ratings": 3.0})
    await lab.versions.promote(
        scene.versions[CANDIDATE].version_id, guard={"guardrails": ["ratings >= 2"], "longest_hours": 1}
    )
    assert await scene.live() == CANDIDATE
