"""A metric's name that is a slip is told before anything waits for it, and what nothing carries is told afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from promptab import InvalidInputError, Lab
from promptab.stats.metric import BUILT_IN_METRICS, MEASURE_ALIASES
from promptab.stats.misspelling import remedy_for
from tests.conftest import url_of
from tests.rollouts import CANDIDATE, CONTROL, EQUAL, PROMPT, staged


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
    # where there is no plan, and of what is no quantile, that would be no help
    assert "in the plan" not in (remedy_for("p99_response_time", has_plan=False) or "in the plan")
    assert remedy_for("p0_cost") is None


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


async def test_what_was_taken_before_names_were_looked_at_bars_no_other_policy_and_none(lab: Lab) -> None:
    scene = await staged(lab, {})
    older = (await scene.now()).model_copy(update={"primary_metric": "sucess_rate"})
    await lab.store.write(lambda tx: tx.experiments.replace(older))
    another = {"guardrails": ["cost <= 0.1"]}
    changed = await lab.experiments.set_policy(scene.experiment_id, another)
    assert changed.policy is not None
    assert (await lab.experiments.set_policy(scene.experiment_id, None)).policy is None


async def test_a_guard_on_a_slip_is_refused_and_nothing_goes_live(lab: Lab) -> None:
    scene = await staged(lab)
    with pytest.raises(InvalidInputError, match=r"did you mean response_time\?"):
        await lab.versions.promote(
            scene.versions[CANDIDATE].version_id, guard={"guardrails": ["reponse_time <= 2"]}
        )
    with pytest.raises(
        InvalidInputError, match=r"p95_cost.*; record it under this name, or name cost: only a plan"
    ):
        await lab.versions.promote(
            scene.versions[CANDIDATE].version_id, guard={"guardrails": ["p95_cost <= 2"]}
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


async def alerted(lab: Lab) -> list[str]:
    return [f"{told.alert.kind}: {told.alert.sentence}" for told in await lab.alerts.list_alerts()]


async def test_a_guardrail_that_nothing_carries_is_told_in_the_decision_and_by_an_alert(lab: Lab) -> None:
    scene = await staged(lab, {"guardrails": ["politeness >= 0.8"], "ramp": [0.5, 1.0]})
    await scene.record(EQUAL, units=99)
    assert "politeness: is it recorded" not in (await lab.decide("support_reply")).decision.sentence
    await scene.record(EQUAL, units=1, prefix="last")
    stored = await lab.decide("support_reply")
    told = "none of 200 units carries politeness: is it recorded, and under that name?"
    assert (stored.decision.action, stored.decision.sentence.endswith(told)) == ("ramp", True)
    assert [told for told in await alerted(lab) if "uncarried" in told] == [f"uncarried: {told}"]
    assert (await lab.decide("support_reply")).decision_id == stored.decision_id
    await scene.record(EQUAL, units=1, prefix="then", metrics={key: {"politeness": 0.9} for key in EQUAL})
    assert "is it recorded" not in (await lab.decide("support_reply")).decision.sentence


async def test_a_primary_metric_that_nothing_carries_is_told(lab: Lab) -> None:
    scene = await staged(lab, {}, primary_metric="usefulness")
    await scene.record(EQUAL, units=100)
    told = (await lab.decide("support_reply")).decision.sentence
    assert "none of 200 units carries usefulness" in told


async def test_a_guarded_version_tells_what_none_of_its_events_carries(lab: Lab) -> None:
    scene = await staged(lab)
    version_id = scene.versions[CANDIDATE].version_id
    await lab.versions.promote(version_id, guard={"guardrails": ["politeness >= 0.8", "success_rate >= 0.5"]})
    [first] = [
        update async for update in lab.watch(["/".join(reversed(PROMPT))], once=True) if update.decision
    ]
    assert "carried politeness yet" in first.sentence
    for count in (150, 50):
        await lab.metrics.record_many({"version_id": version_id, "success": True} for _ in range(count))
        updates = [update async for update in lab.watch(once=True) if update.decision]
    assert "politeness >= 0.8: none of 200 events carries politeness: is it recorded" in updates[-1].sentence
    told = [told for told in await alerted(lab) if "uncarried" in told]
    assert told == ["uncarried: none of 200 events carries politeness: is it recorded, and under that name?"]
