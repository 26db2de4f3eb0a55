"""The policy of an experiment: given, settled at the start, frozen, and changed in sight of everybody."""

from __future__ import annotations

from typing import Any

import pytest

from promptab import (
    ABTestManager,
    AnalysisPlan,
    Guardrail,
    InvalidInputError,
    Lab,
    MetricDefinition,
    NotFoundError,
    Policy,
    PromptExperiment,
    PromptVariant,
    StateError,
)
from promptab.decisions.stored import RolloutProgress, StoredDecision
from tests.clock import SettableClock

CRITERIA = {
    "primary_metric": {"name": "rating", "threshold": 0.02, "direction": "increase"},
    "guardrails": [{"name": "latency", "max_regression": 0.1}],
}
GUARDED = Policy.model_validate({"guardrails": ["cost <= 0.01"], "alpha": 0.01, "ramp": [0.1, 0.5]})


async def created(experiments: ABTestManager, **options: Any) -> PromptExperiment:
    arms = [PromptVariant(key="a", config={"t": 0}), PromptVariant(key="b", config={"t": 1})]
    return await experiments.create_experiment("tone", "config", arms, **options)


async def progress(lab: Lab, experiment: PromptExperiment) -> RolloutProgress:
    return await lab.store.read(lambda tx: tx.rollouts.of(experiment.experiment_id))


async def told(lab: Lab, experiment: PromptExperiment) -> list[StoredDecision]:
    return await lab.store.read(lambda tx: tx.decisions.of(experiment.experiment_id))


async def test_the_policy_of_a_draft_is_settled_and_frozen_at_the_start(
    lab: Lab, clock: SettableClock
) -> None:
    declared = AnalysisPlan(metrics=(MetricDefinition(name="refunds", direction="decrease"),))
    draft = await created(lab.experiments, plan=declared, policy=GUARDED, status="draft", traffic=0.7)
    assert (draft.policy, draft.policy_digest, draft.plan) == (GUARDED, None, declared)
    begun = await lab.experiments.start(draft.experiment_id)
    assert begun.policy_digest == GUARDED.digest
    assert begun.declared_plan == declared
    assert begun.plan == GUARDED.planned(declared, primary_metric="success_rate")
    assert begun.plan.confidence == 0.99
    assert (begun.traffic, begun.traffic_history) == (0.1, ((clock.now, 0.1),))
    assert await progress(lab, begun) == RolloutProgress(number=1, step_since=clock.now)
    assert await lab.experiments.get_experiment("tone") == begun


async def test_the_policy_of_a_draft_is_replaced_without_a_word(lab: Lab) -> None:
    draft = await created(lab.experiments, policy=GUARDED, status="draft")
    assert (await lab.experiments.set_policy("tone", {"alpha": 0.1})).policy == Policy(alpha=0.1)
    assert (await lab.experiments.set_policy("tone", None)).policy is None
    assert (await lab.experiments.start("tone")).plan == AnalysisPlan()
    assert await told(lab, draft) == []


async def test_criteria_as_they_were_written_before_are_a_policy(experiments: ABTestManager) -> None:
    made = await created(experiments, policy=CRITERIA)
    assert made.primary_metric == "rating"
    assert made.policy is not None
    assert [guardrail.metric for guardrail in made.policy.guardrails] == ["response_time"]
    assert made.plan.definition("rating").smallest_effect == 0.02
    tested = await created(
        experiments, policy={"criteria": {"min_requests": 100, "max_error_rate": 0.05}}, primary_metric=None
    )
    assert (tested.primary_metric, tested.policy and tested.policy.minimum_events) == ("success_rate", 100)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"policy": Policy(primary_metric="rating"), "primary_metric": "cost"}, "policy.primary_metric"),
        ({"policy": Policy(alpha=0.01), "plan": {"confidence": 0.9}}, "policy.alpha"),
        ({"policy": {"guardrail": ["cost <= 1"]}}, "Policy.guardrail"),
        ({"policy": "promote"}, "policy"),
    ],
    ids=["another metric", "another alpha", "unknown field", "no mapping"],
)
async def test_a_policy_that_does_not_fit_is_refused_before_anything_is_there(
    experiments: ABTestManager, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        await created(experiments, **options, status="draft")
    assert caught.value.field == field
    assert await experiments.list_experiments() == []


async def test_another_policy_on_a_running_experiment_begins_a_new_analysis(
    lab: Lab, clock: SettableClock
) -> None:
    begun = await created(lab.experiments, policy=GUARDED)
    for unit in range(40):
        await lab.experiments.assign(begun.experiment_id, f"u{unit}")
    clock.advance(hours=2)
    looser = Policy.model_validate({"guardrails": ["cost <= 0.02", "p95_response_time <= 2"], "alpha": 0.05})
    changed = await lab.experiments.set_policy("tone", looser, reason="cost was too tight", actor="Ada")
    assert (changed.policy, changed.policy_digest) == (looser, looser.digest)
    assert changed.policy_since == clock.now
    # alpha and guardrails of the policy before are gone from the plan
    assert changed.plan == looser.planned(AnalysisPlan(), primary_metric="success_rate")
    assert await lab.experiments.get_experiment("tone") == changed
    [entry] = await told(lab, begun)
    assert (entry.decision.rule, entry.status, entry.actor) == ("policy", "applied", "Ada")
    assert entry.decision.policy_digest == looser.digest
    assert looser.digest[:12] in entry.decision.sentence
    assert f"before it was {GUARDED.digest[:12]}" in entry.decision.sentence
    assert entry.decision.sentence.endswith("; cost was too tight")
    moved = await progress(lab, begun)
    assert (moved.number, moved.step_since, moved.step_units) == (2, clock.now, {})


async def test_the_same_policy_again_changes_nothing(lab: Lab, clock: SettableClock) -> None:
    begun = await created(lab.experiments, policy=GUARDED)
    clock.advance(hours=1)
    assert await lab.experiments.set_policy("tone", GUARDED) == begun
    assert await told(lab, begun) == []
    assert (await progress(lab, begun)).number == 1


@pytest.mark.parametrize(
    ("before", "ramp", "step", "traffic"),
    [(0.4, [0.1, 0.4, 1.0], 1, 0.4), (0.6, [0.1, 0.4, 1.0], 1, 0.4), (0.05, [0.1, 0.4], 0, 0.1)],
    ids=["a step of it", "between two", "below all"],
)
async def test_a_new_ramp_begins_with_the_step_that_is_reached(
    lab: Lab, before: float, ramp: list[float], step: int, traffic: float
) -> None:
    begun = await created(lab.experiments, traffic=before)
    changed = await lab.experiments.set_policy("tone", {"ramp": ramp})
    assert (changed.traffic, changed.traffic_history[-1][1]) == (traffic, traffic)
    assert (await progress(lab, begun)).step == step


async def test_traffic_that_a_person_sets_reaches_a_step_of_the_ramp(lab: Lab, clock: SettableClock) -> None:
    begun = await created(lab.experiments, policy={"ramp": [0.1, 0.4, 0.8]})
    for unit in range(200):
        await lab.experiments.assign(begun.experiment_id, f"u{unit}")
    clock.advance(hours=1)
    await lab.experiments.update_traffic("tone", 0.5)
    reached = await progress(lab, begun)
    assert (reached.step, reached.step_since) == (1, clock.now)
    assert reached.step_units == await lab.experiments.get_variant_distribution("tone")
    assert sum(reached.step_units.values()) > 0


async def test_a_policy_that_is_taken_away_leaves_the_plan_that_was_declared(lab: Lab) -> None:
    declared = AnalysisPlan(window_hours=24)
    begun = await created(lab.experiments, policy=GUARDED, plan=declared)
    left = await lab.experiments.set_policy("tone", None)
    assert (left.policy, left.policy_digest, left.policy_since, left.plan) == (None, None, None, declared)
    assert "nothing is decided" in (await told(lab, begun))[0].decision.sentence


async def test_the_policy_of_an_ended_experiment_stays(lab: Lab) -> None:
    await created(lab.experiments, policy=GUARDED)
    await lab.experiments.stop("tone")
    with pytest.raises(StateError, match="stopped: its policy cannot change"):
        await lab.experiments.set_policy("tone", None)
    with pytest.raises(NotFoundError):
        await lab.experiments.set_policy("nothing", None)


@pytest.mark.parametrize("change", ["pause", "weights", "traffic"])
async def test_every_move_of_a_person_raises_the_number(lab: Lab, change: str) -> None:
    begun = await created(lab.experiments)
    calls = {
        "pause": lambda: lab.experiments.pause("tone"),
        "weights": lambda: lab.experiments.update_weights("tone", {"a": 1, "b": 3}),
        "traffic": lambda: lab.experiments.update_traffic("tone", 0.5),
    }
    await calls[change]()
    assert (await progress(lab, begun)).number == 2


async def test_guardrails_that_are_written_as_text_are_kept_as_fields(experiments: ABTestManager) -> None:
    made = await created(experiments, policy={"guardrails": ["success_rate >= control - 2%"]})
    assert made.policy is not None
    assert made.policy.guardrails == (
        Guardrail(metric="success_rate", largest_regression=0.02, direction="increase"),
    )
    assert await experiments.get_experiment("tone") == made


async def recorded(lab: Lab, experiment: PromptExperiment, units: int = 120) -> None:
    await lab.metrics.record_many(
        {
            "success": number % 10 < tenths,
            "response_time": seconds + number % 7 / 10,
            "experiment_id": experiment.experiment_id,
            "variant": key,
            "user_id": f"{key}{number}",
        }
        for number in range(units)
        for key, tenths, seconds in (("a", 9, 0.5), ("b", 5, 3.0))
    )


async def test_an_analysis_reads_the_guardrails_of_the_experiments_policy(lab: Lab) -> None:
    said = {"guardrails": ["success_rate >= 0.8", "p95_response_time <= 2.0"], "guardrail_alpha": 0.1}
    made = await created(lab.experiments, policy=said)
    await recorded(lab, made, 1_000)
    result = await lab.analyze("tone")
    verdicts = {(guard.metric, guard.variant): (guard.verdict, guard.alpha) for guard in result.guards}
    assert verdicts == {("success_rate", "b"): ("fail", 0.05), ("p95_response_time", "b"): ("fail", 0.05)}
    # guardrails are read, whatever was asked for
    alone = await lab.analyze("tone", metrics=())
    assert alone.guards == result.guards
    assert list(alone.metrics) == ["success_rate", "p95_response_time"]
    assert (await lab.compare("tone")).guards != ()


async def test_another_policy_is_read_as_if_the_experiment_had_it(lab: Lab) -> None:
    made = await created(lab.experiments)
    await recorded(lab, made)
    assert (await lab.analyze("tone")).guards == ()
    other = Policy.model_validate({"guardrails": ["response_time <= 1.5"], "alpha": 0.01})
    result = await lab.analyze("tone", policy=other)
    assert result.confidence == 0.99
    assert [(guard.guardrail, guard.verdict) for guard in result.guards] == [("response_time <= 1.5", "fail")]
    found = await lab.experiments.get_experiment("tone")
    assert found is not None
    assert (found.plan, found.policy) == (made.plan, None)


async def test_an_analysis_of_a_draft_has_no_guardrails_yet(lab: Lab) -> None:
    await created(lab.experiments, policy=GUARDED, status="draft")
    assert (await lab.analyze("tone")).guards == ()
