"""People and machines on one experiment: who moves first counts, and what a person does is a decision as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from promptab import ExperimentStatus, InvalidInputError, Lab, PromptVariant, StateError, VersionStatus
from promptab.doctor import check_records
from tests.conftest import url_of
from tests.rollouts import BETTER, CANDIDATE, CONTROL, OTHER, staged


@pytest.fixture(params=["file"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return url_of(request, tmp_path)


on_both = pytest.mark.parametrize("store_url", ["file", "postgres"], indirect=True)
"""Of what writes in a way of its own; the rest is on one database."""


@on_both
@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("stop", "The experiment is stopped now and was running"),
        ("complete", "The experiment is completed now and was running"),
        ("delete_experiment", "The experiment has been deleted"),
    ],
)
async def test_nothing_waits_for_a_person_where_the_experiment_is_over(lab: Lab, how: str, told: str) -> None:
    scene = await staged(lab, {"on_win": "require_approval"})
    await scene.record(BETTER)
    assert (await lab.decide("support_reply")).status == "awaiting_approval"
    await getattr(lab.experiments, how)("support_reply")
    [stored] = await lab.decisions("support_reply")
    assert (stored.status, stored.detail) == ("superseded", told)


async def test_what_the_winner_was_not_compared_with_is_replaced_with_consent_only(lab: Lab) -> None:
    scene = await staged(lab, {})
    await scene.record(BETTER)
    await lab.versions.promote(scene.versions[OTHER].version_id, reason="the winner of another experiment")
    [update] = [update async for update in lab.watch(once=True)]
    assert update.decision is not None
    assert (update.decision.status, await scene.live()) == ("awaiting_approval", OTHER)
    told = "Promote, once somebody approves, as 1.2.0 is live and no variant of this: 1.1.0 is "
    assert update.sentence.startswith(told)
    await lab.approve("support_reply", reason="1.2.0 has served its time")
    assert await scene.live() == CANDIDATE


async def test_configurations_alone_win_beside_whatever_is_live(lab: Lab) -> None:
    scene = await staged(lab)
    await lab.experiments.stop(scene.experiment_id)
    heats = [PromptVariant(key=key, config={"temperature": heat}) for key, heat in (("a", 0.1), ("b", 0.9))]
    policy = {"allow_approximate": True}
    heat = await lab.experiments.create_experiment(
        "heat", "system", heats, prompt_name="support_reply", policy=policy
    )
    await lab.metrics.record_many(
        {
            "experiment_id": heat.experiment_id,
            "variant": key,
            "user_id": f"{key}{unit}",
            "success": unit % 10 < of_ten,
        }
        for key, of_ten in (("a", 6), ("b", 9))
        for unit in range(400)
    )
    [update] = [update async for update in lab.watch(["heat"], once=True)]
    assert update.decision is not None
    assert (update.decision.status, update.decision.decision.variants) == ("applied", ("b",))
    now = await lab.experiments.get_experiment(heat.experiment_id)
    assert now is not None
    assert (now.status, now.winner, await scene.live()) == (ExperimentStatus.COMPLETED, "b", CONTROL)


@on_both
async def test_a_person_who_moves_in_between_supersedes_the_machine(lab: Lab) -> None:
    scene = await staged(lab, {})
    await scene.record(BETTER)
    moves: list[tuple[Any, str]] = [
        (
            lambda: lab.experiments.update_weights("support_reply", {CONTROL: 1, CANDIDATE: 3}),
            "Its weights have changed",
        ),
        (lambda: lab.experiments.update_traffic("support_reply", 0.5), "Its traffic is 0.5 now and was 1"),
        (
            lambda: lab.versions.promote(scene.versions[CANDIDATE].version_id),
            f"Production is {CANDIDATE} now and was {CONTROL}",
        ),
        (lambda: lab.experiments.pause("support_reply"), "The experiment is paused now and was running"),
    ]
    for move, told in moves:
        stored = await lab.decide("support_reply")
        await move()
        superseded = await lab.apply(stored)
        assert (superseded.status, superseded.detail) == ("superseded", told)
        assert await lab.apply(stored) == superseded
    assert (await scene.history())[-1].action == "promote"


async def test_a_move_and_its_undoing_supersede_as_well(lab: Lab) -> None:
    scene = await staged(lab, {})
    await scene.record(BETTER)
    stored = await lab.decide("support_reply")
    await lab.experiments.pause("support_reply")
    await lab.experiments.resume("support_reply")
    assert (await lab.apply(stored)).detail == "Somebody has moved it since"
    assert await scene.live() == CONTROL


@on_both
async def test_an_override_supersedes_what_was_open_and_is_in_the_history(lab: Lab) -> None:
    scene = await staged(lab, {"on_win": "require_approval"})
    await scene.record(BETTER)
    stored = await lab.decide("support_reply")
    done = await lab.override("support_reply", "rollback", reason="it insults people", actor="Ada")
    assert (done.decision.rule, done.decision.variants, done.status) == (
        "override",
        (CANDIDATE,),
        "applied",
    )
    assert (await scene.now()).status == ExperimentStatus.STOPPED
    assert await scene.status_of(CANDIDATE) == VersionStatus.DEPRECATED
    told = (await lab.apply(stored)).detail
    assert told == f"Another decision: Rolled back by hand, {CANDIDATE}: it insults people"
    move = (await scene.history())[-1]
    assert (move.action, move.actor) == ("keep", "Ada")
    assert move.evidence is not None
    assert move.evidence["rule"] == "override"
    with pytest.raises(StateError, match="stopped: nothing is left"):
        await lab.override("support_reply", "promote", reason="after all")


@on_both
async def test_a_person_may_do_everything_without_a_policy(lab: Lab) -> None:
    scene = await staged(lab, None, keys=(CONTROL, CANDIDATE, OTHER))
    with pytest.raises(StateError, match="has no policy to decide by"):
        await lab.decide("support_reply")
    for action in ("pause", "continue"):
        await lab.override("support_reply", action, reason="lunch")
    await lab.override("support_reply", "rollback", variant=OTHER, reason="too long")
    await lab.override("support_reply", "promote", reason="the boss likes it", actor="Ada")
    assert (await scene.live(), (await scene.now()).winner) == (CANDIDATE, CANDIDATE)
    rules = [
        (each.decision.action, each.decision.policy_digest) for each in await lab.decisions("support_reply")
    ]
    assert rules == [("promote", None), ("rollback", None), ("continue", None), ("pause", None)]
    assert [move.action for move in await scene.history()] == ["promote", "keep", "keep", "keep", "promote"]


async def test_of_two_of_one_name_the_paused_one_goes_on(lab: Lab) -> None:
    first = await staged(lab, None)
    await lab.experiments.pause("support_reply")
    variants = [PromptVariant(CONTROL), PromptVariant(CANDIDATE)]
    second = await lab.experiments.create_experiment("support_reply", "system", variants)
    done = await lab.override("support_reply", "continue", reason="both may run")
    assert done.decision.experiment_id == first.experiment_id
    with pytest.raises(StateError, match="running already"):
        await lab.override(second.experiment_id, "continue", reason="it runs")


async def test_a_person_may_hurry_the_ramp(lab: Lab) -> None:
    scene = await staged(lab, {"ramp": [{"traffic": 0.1, "minimum_hours": 24}, 0.5]})
    await lab.override("support_reply", "ramp", reason="it is a quiet day")
    assert (await scene.now()).traffic == 0.5
    with pytest.raises(StateError, match="in the last of the 2 steps"):
        await lab.override("support_reply", "ramp", reason="more")


@pytest.mark.parametrize(
    ("action", "options", "error"),
    [
        ("promote", {"reason": " "}, InvalidInputError),
        ("explode", {"reason": "why not"}, InvalidInputError),
        ("promote", {"reason": "which?"}, InvalidInputError),
        ("rollback", {"reason": "the control", "variant": CONTROL}, InvalidInputError),
        ("promote", {"reason": "unknown", "variant": "9.9.9"}, InvalidInputError),
        ("pause", {"reason": "one of them", "variant": CANDIDATE}, InvalidInputError),
        ("continue", {"reason": "it runs"}, StateError),
        ("ramp", {"reason": "no ramp"}, StateError),
    ],
    ids=["no reason", "no action", "no variant", "control", "unknown", "all variants", "runs", "no ramp"],
)
async def test_an_override_that_makes_no_sense_changes_nothing(
    lab: Lab, action: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    scene = await staged(lab, {}, keys=(CONTROL, CANDIDATE, OTHER))
    with pytest.raises(error):
        await lab.override("support_reply", action, **options)
    assert await scene.now() == scene.experiment
    assert await lab.decisions("support_reply") == []


async def test_what_is_kept_in_the_history_is_no_move_of_production(lab: Lab) -> None:
    scene = await staged(lab, None, live=(OTHER, CONTROL))
    [_, moved] = await scene.history()
    await lab.override("support_reply", "pause", reason="lunch")
    assert (await scene.history())[-1].action == "keep"
    assert await lab.versions.promote(scene.versions[CONTROL].version_id) == moved
    back = await lab.versions.rollback("support_reply", "system")
    assert back is not None
    assert (back.version, back.previous_version) == (OTHER, CONTROL)
    assert [check.detail for check in await check_records(lab.store) if check.status == "failed"] == []


@on_both
async def test_two_lookers_that_decide_the_same_do_not_take_each_others_decision_away(lab: Lab) -> None:
    scene = await staged(lab, {})
    await scene.record(BETTER)
    one = await lab.decide("support_reply")
    await scene.record(BETTER, 10, prefix="v")
    other = await lab.decide("support_reply")
    assert other.decision_id != one.decision_id
    assert (await lab.apply(one)).status == "applied"
    late = await lab.apply(other)
    assert (late.status, late.detail) == ("superseded", f"Another decision: {one.decision.sentence}")
    assert [move.version for move in await scene.history()] == [CONTROL, CANDIDATE]


async def test_a_decision_that_is_no_longer_right_is_superseded_by_the_next_look(lab: Lab) -> None:
    scene = await staged(lab, {})
    await scene.record(BETTER)
    stored = await lab.decide("support_reply")
    await scene.record({CONTROL: 0.95, CANDIDATE: 0.2}, 600, prefix="v")
    assert (await lab.decide("support_reply")).decision.action != "promote"
    assert (await lab.apply(stored)).status == "superseded"
    assert await scene.live() == CONTROL


async def test_what_a_person_deals_to_again_is_watched_again(lab: Lab) -> None:
    scene = await staged(lab, {"guardrails": ["success_rate >= 0.8"]}, keys=(CONTROL, CANDIDATE, OTHER))
    await lab.override("support_reply", "rollback", variant=CANDIDATE, reason="it is rude")
    weights = {CONTROL: 1, CANDIDATE: 0, OTHER: 1}
    await lab.experiments.update_weights("support_reply", weights)
    assert (await lab.rollout.progress("support_reply")).withdrawn == (CANDIDATE,)
    await lab.experiments.update_weights("support_reply", weights | {CANDIDATE: 1}, lead_seconds=0)
    assert (await lab.rollout.progress("support_reply")).withdrawn == ()
    await scene.record({CONTROL: 0.9, CANDIDATE: 0.5, OTHER: 0.9}, 200)
    done = await lab.apply(await lab.decide("support_reply"))
    assert (done.decision.action, done.decision.variants) == ("rollback", (CANDIDATE,))


async def test_what_waits_for_a_person_outlasts_the_steps_of_a_bandit(lab: Lab) -> None:
    bandit = {"minimum_units": 50, "batch_units": 50, "batch_hours": 0}
    scene = await staged(lab, {"on_win": "require_approval"}, bandit=bandit)
    for number in range(600):
        choice = await lab.choose("support_reply", user_id=f"u{number}")
        await choice.record(success=number % 10 < (9 if choice.variant == CANDIDATE else 4))
    assert (await lab.decide("support_reply")).status == "awaiting_approval"
    await lab.experiments.update_weights("support_reply", {CONTROL: 3, CANDIDATE: 2}, lead_seconds=0)
    refused = await lab.approve("support_reply")
    assert (refused.status, refused.detail) == ("superseded", "Somebody has moved it since")
    assert (await lab.decide("support_reply")).status == "awaiting_approval"
    for number in range(600, 900):
        choice = await lab.choose("support_reply", user_id=f"u{number}")
        await choice.record(success=number % 10 < (9 if choice.variant == CANDIDATE else 4))
    assert (await lab.rebalance("support_reply")).changed
    assert (await lab.approve("support_reply")).status == "applied"
    assert await scene.live() == CANDIDATE


@pytest.mark.parametrize("by", ["override", "resume"])
async def test_who_lets_a_paused_experiment_go_on_has_the_last_word_on_what_it_was_paused_for(
    lab: Lab, by: str
) -> None:
    guards = ["success_rate >= 0.5", "success_rate >= control - 5%"]
    scene = await staged(lab, {"guardrails": guards, "on_failed_guardrail": "pause"})
    await scene.record({CONTROL: 0.9, CANDIDATE: 0.6})
    paused = await lab.apply(await lab.decide("support_reply"))
    assert (paused.decision.action, (await scene.now()).status) == ("pause", ExperimentStatus.PAUSED)
    if by == "override":
        await lab.override("support_reply", "continue", reason="known, and being worked on")
    else:
        await lab.experiments.resume("support_reply")
    again = await lab.decide("support_reply")
    assert (again.decision.action, again.status) != ("pause", "pending")
    assert (await scene.now()).status == ExperimentStatus.RUNNING
    # what else fails pauses it as before
    await scene.record({CONTROL: 0.9, CANDIDATE: 0.05}, prefix="later")
    other = await lab.apply(await lab.decide("support_reply"))
    assert (other.decision.action, other.status) == ("pause", "applied")
    assert "success_rate >= 0.5" in other.decision.sentence
    assert "success_rate >= control - 5%" not in other.decision.sentence


async def test_another_policy_pauses_again_for_what_the_old_one_was_paused_for(lab: Lab) -> None:
    said = {"guardrails": ["success_rate >= 0.8"], "on_failed_guardrail": "pause"}
    scene = await staged(lab, said)
    await scene.record({CONTROL: 0.9, CANDIDATE: 0.6})
    await lab.apply(await lab.decide("support_reply"))
    await lab.override("support_reply", "continue", reason="known")
    await lab.experiments.set_policy("support_reply", said | {"alpha": 0.04})
    await scene.record({CONTROL: 0.9, CANDIDATE: 0.6}, prefix="later")
    assert (await lab.decide("support_reply")).decision.action == "pause"
