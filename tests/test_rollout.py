"""Decisions end to end: from recorded outcomes to what is live, with the evidence in the history."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from promptab import (
    ExperimentStatus,
    Lab,
    NotFoundError,
    Policy,
    PromptVariant,
    StateError,
    StoredDecision,
    VersionStatus,
    redecide,
)
from tests.clock import SettableClock
from tests.conftest import url_of
from tests.rollouts import BETTER, CANDIDATE, CONTROL, EQUAL, OTHER, WORSE, staged


@pytest.fixture(params=["file"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return url_of(request, tmp_path)


on_both = pytest.mark.parametrize("store_url", ["file", "postgres"], indirect=True)
"""Of what writes in a way of its own; the rest is on one database."""


async def decided(lab: Lab, experiment: str) -> StoredDecision:
    """Decide and apply, as a cron job does."""
    return await lab.apply(await lab.decide(experiment))


@on_both
async def test_a_winner_goes_live_with_its_evidence_and_ends_the_experiment(lab: Lab) -> None:
    scene = await staged(lab, {})
    await scene.record(BETTER)
    stored = await lab.decide("support_reply")
    assert (stored.status, stored.decision.action, stored.decision.variants) == (
        "pending",
        "promote",
        (CANDIDATE,),
    )
    assert (await scene.live(), (await scene.now()).status) == (CONTROL, "running")
    applied = await lab.apply(stored)
    assert (applied.status, applied.actor) == ("applied", "promptab")
    assert await scene.live() == CANDIDATE
    ended = await scene.now()
    assert (ended.status, ended.winner) == (ExperimentStatus.COMPLETED, CANDIDATE)
    move = (await scene.history())[-1]
    assert (move.action, move.version, move.previous_version, move.actor) == (
        "promote",
        CANDIDATE,
        CONTROL,
        "promptab",
    )
    assert move.reason == stored.decision.sentence
    assert move.evidence is not None
    assert move.evidence["decision_id"] == stored.decision_id
    assert move.evidence["policy_digest"] == scene.experiment.policy_digest
    assert move.evidence["analysis"]["winner"] == CANDIDATE
    assert applied.effects["deployment"] == move.sequence
    assert await lab.decisions("support_reply") == [applied]


async def test_a_second_apply_changes_nothing_and_returns_what_the_first_did(lab: Lab) -> None:
    scene = await staged(lab, {})
    await scene.record(BETTER)
    stored = await lab.decide("support_reply")
    first = await lab.apply(stored)
    history = await scene.history()
    assert await lab.apply(stored) == first
    assert await lab.apply(stored.decision_id, actor="Ada") == first
    assert await scene.history() == history


@on_both
async def test_of_many_that_apply_one_decision_at_once_one_does(lab: Lab, store_url: str) -> None:
    scene = await staged(lab, {})
    await scene.record(BETTER)
    stored = await lab.decide("support_reply")
    results = await asyncio.gather(*(lab.apply(stored, actor=f"a{number}") for number in range(8)))
    assert len({result.actor for result in results}) == 1
    assert [move.action for move in await scene.history()] == ["promote", "promote"]


@on_both
async def test_a_failed_guardrail_takes_the_candidate_out_at_once(lab: Lab) -> None:
    scene = await staged(lab, {"guardrails": ["success_rate >= 0.8"]}, keys=(CONTROL, CANDIDATE, OTHER))
    await scene.record({CONTROL: 0.9, CANDIDATE: 0.6, OTHER: 0.9})
    stored = await decided(lab, "support_reply")
    assert (stored.decision.action, stored.decision.rule, stored.status) == (
        "rollback",
        "guardrail",
        "applied",
    )
    now = await scene.now()
    assert now.status == ExperimentStatus.RUNNING
    assert now.traffic_split == {CONTROL: 0.5, CANDIDATE: 0.0, OTHER: 0.5}
    served = {await lab.experiments.get_variant_for_user("support_reply", f"n{n}") for n in range(50)}
    assert served == {CONTROL, OTHER}
    assert await scene.status_of(CANDIDATE) == VersionStatus.DEPRECATED
    assert await scene.live() == CONTROL
    move = (await scene.history())[-1]
    assert (move.action, move.version, move.previous_version) == ("keep", CONTROL, CONTROL)
    assert move.evidence is not None
    assert move.evidence["decision_id"] == stored.decision_id
    assert f"{CANDIDATE} is served to nobody any more" in stored.detail
    # units of the withdrawn variant meet another one now, and that says nothing against the others
    await lab.metrics.record_many(
        {
            "version_id": scene.versions[OTHER].version_id,
            "success": True,
            "experiment_id": scene.experiment_id,
            "variant": OTHER,
            "user_id": f"u{number}-{CANDIDATE}",
        }
        for number in range(100)
    )
    await scene.record({CONTROL: 0.6, OTHER: 0.95}, 800, prefix="later")
    following = await decided(lab, "support_reply")
    assert (following.decision.action, following.decision.variants) == ("promote", (OTHER,))
    assert await scene.live() == OTHER


async def test_the_experiment_ends_when_only_its_control_is_left(lab: Lab) -> None:
    scene = await staged(lab, {"guardrails": ["success_rate >= 0.8"]})
    await scene.record(WORSE)
    stored = await decided(lab, "support_reply")
    assert (await scene.now()).status == ExperimentStatus.STOPPED
    assert "only its control is left" in stored.detail
    assert [move.action for move in await scene.history()] == ["promote", "keep"]


@on_both
async def test_a_candidate_that_is_in_production_is_rolled_back_there_too(lab: Lab) -> None:
    scene = await staged(lab, {"guardrails": ["success_rate >= 0.8"]}, live=(OTHER, CANDIDATE))
    await scene.record(WORSE)
    stored = await decided(lab, "support_reply")
    assert await scene.live() == OTHER
    move = (await scene.history())[-1]
    assert (move.action, move.version, move.previous_version) == ("rollback", OTHER, CANDIDATE)
    assert await scene.status_of(CANDIDATE) == VersionStatus.DEPRECATED
    assert f"production is back at {OTHER}" in stored.detail
    assert stored.effects["deprecated"] == [f"system/support_reply@{CANDIDATE}"]


@on_both
async def test_a_candidate_that_somebody_promoted_meanwhile_is_rolled_back_once_it_is_shown_to_be_worse(
    lab: Lab,
) -> None:
    scene = await staged(lab, {}, keys=(CONTROL, CANDIDATE, OTHER))
    await scene.record({**EQUAL, OTHER: 0.75}, units=50)
    await lab.versions.promote(scene.versions[CANDIDATE].version_id, reason="it reads better")
    assert (await decided(lab, "support_reply")).decision.action == "continue"
    await scene.record({**WORSE, OTHER: 0.9}, prefix="later")
    stored = await decided(lab, "support_reply")
    assert (stored.decision.rule, stored.status) == ("worse", "applied")
    assert f"production is back at {CONTROL}" in stored.detail
    assert await scene.live() == CONTROL
    assert await scene.status_of(CANDIDATE) == VersionStatus.DEPRECATED
    move = (await scene.history())[-1]
    assert (move.action, move.evidence and move.evidence["rule"]) == ("rollback", "worse")
    assert (await scene.now()).status == ExperimentStatus.RUNNING
    assert (await decided(lab, "support_reply")).decision.action == "continue"


async def test_a_policy_that_pauses_pauses_for_what_is_worse_in_production_and_a_person_goes_on(
    lab: Lab,
) -> None:
    scene = await staged(lab, {"on_failed_guardrail": "pause"}, keys=(CONTROL, CANDIDATE, OTHER))
    await lab.versions.promote(scene.versions[CANDIDATE].version_id)
    await scene.record({**WORSE, OTHER: 0.9})
    assert (await decided(lab, "support_reply")).decision.action == "pause"
    assert (await scene.live(), (await scene.now()).status) == (CANDIDATE, ExperimentStatus.PAUSED)
    await lab.override("support_reply", "continue", reason="we know")
    assert (await decided(lab, "support_reply")).decision.action == "continue"


async def test_a_variant_without_weight_is_promoted_once_it_gets_weight_again(lab: Lab) -> None:
    scene = await staged(lab, {}, keys=(CONTROL, CANDIDATE, OTHER))
    await scene.record({**BETTER, OTHER: 0.6})
    await lab.experiments.update_weights("support_reply", {CONTROL: 1, CANDIDATE: 0, OTHER: 1})
    stored = await decided(lab, "support_reply")
    assert stored.decision.action == "continue"
    assert f"{CANDIDATE} is ahead of {CONTROL}, but not promoted" in stored.decision.sentence
    await lab.experiments.update_weights("support_reply", {CONTROL: 1, CANDIDATE: 1, OTHER: 1})
    assert (await decided(lab, "support_reply")).decision.variants == (CANDIDATE,)
    assert await scene.live() == CANDIDATE


async def test_production_without_a_past_goes_to_the_control(lab: Lab) -> None:
    scene = await staged(lab, {"guardrails": ["success_rate >= 0.8"]}, live=(CANDIDATE,))
    await scene.record(WORSE)
    await decided(lab, "support_reply")
    assert await scene.live() == CONTROL
    assert [move.action for move in await scene.history()] == ["promote", "rollback"]


@pytest.mark.parametrize("where", ["staging", "experiment"])
async def test_a_version_that_is_in_use_elsewhere_stays_active(lab: Lab, where: str) -> None:
    scene = await staged(lab, {"guardrails": ["success_rate >= 0.8"]})
    if where == "staging":
        await lab.versions.promote(scene.versions[CANDIDATE].version_id, "staging")
    else:
        await lab.experiments.create_experiment(
            "other", "system", list(scene.experiment.variants), prompt_name="support_reply"
        )
    await scene.record(WORSE)
    stored = await decided(lab, scene.experiment_id)
    assert await scene.status_of(CANDIDATE) == VersionStatus.ACTIVE
    assert stored.effects["deprecated"] == []


@on_both
async def test_a_ramp_goes_step_by_step_to_the_promotion(lab: Lab, clock: SettableClock) -> None:
    ramp = [{"traffic": 0.1, "minimum_units": 100}, {"traffic": 0.5, "minimum_hours": 2}]
    scene = await staged(lab, {"ramp": ramp})
    assert scene.experiment.traffic == 0.1
    await scene.record(EQUAL, 60)
    waiting = await decided(lab, "support_reply")
    assert (waiting.decision.action, waiting.status) == ("continue", "noted")
    assert "60 of 100 units" in waiting.decision.sentence
    await scene.record(EQUAL, 60, prefix="v")
    clock.advance(hours=1)
    grown = await decided(lab, "support_reply")
    assert (grown.decision.action, grown.detail) == ("ramp", "Traffic is 0.5")
    now = await scene.now()
    assert (now.traffic, now.traffic_history[-1]) == (0.5, (clock.now, 0.5))
    progress = await lab.store.read(lambda tx: tx.rollouts.of(scene.experiment_id))
    assert (progress.step, progress.step_since) == (1, clock.now)
    assert progress.step_units == {CONTROL: 120, CANDIDATE: 120}
    await scene.record(BETTER, 800, prefix="w")
    assert "lasted 0 of 2 hours" in (await decided(lab, "support_reply")).decision.sentence
    clock.advance(hours=2)
    assert (await decided(lab, "support_reply")).decision.action == "promote"
    assert [move.action for move in await scene.history()] == ["promote", "keep", "promote"]


@on_both
async def test_a_crooked_dealing_pauses_and_a_person_goes_on(lab: Lab) -> None:
    scene = await staged(lab, {})
    await scene.record({CONTROL: 0.75}, 700)
    await scene.record({CANDIDATE: 0.75}, 300)
    paused = await decided(lab, "support_reply")
    assert (paused.decision.action, paused.decision.rule) == ("pause", "mismatch")
    assert (await scene.now()).status == ExperimentStatus.PAUSED
    assert (await decided(lab, "support_reply")).decision.rule == "paused"
    on = await lab.override("support_reply", "continue", reason="the loader is mended", actor="Ada")
    assert (on.status, on.actor, on.decision.rule) == ("applied", "Ada", "override")
    assert (await scene.now()).status == ExperimentStatus.RUNNING
    entries = await scene.history()
    assert [move.action for move in entries] == ["promote", "keep", "keep"]
    assert entries[-1].reason == "Goes on by hand: the loader is mended"


@on_both
async def test_the_longest_duration_ends_it_without_a_winner(lab: Lab, clock: SettableClock) -> None:
    scene = await staged(lab, {"longest_hours": 24})
    await scene.record(EQUAL)
    assert (await decided(lab, "support_reply")).status == "noted"
    clock.advance(hours=25)
    stopped = await decided(lab, "support_reply")
    assert (stopped.decision.action, stopped.decision.rule) == ("stop", "deadline")
    assert ((await scene.now()).status, await scene.live()) == (ExperimentStatus.STOPPED, CONTROL)
    with pytest.raises(StateError, match="stopped: nothing is left to decide"):
        await lab.decide("support_reply")


async def test_a_policy_may_end_with_a_winner_and_leave_production(lab: Lab) -> None:
    scene = await staged(lab, {"on_win": "stop"})
    await scene.record(BETTER)
    await decided(lab, "support_reply")
    now = await scene.now()
    assert (now.status, now.winner, await scene.live()) == (ExperimentStatus.COMPLETED, CANDIDATE, CONTROL)


@on_both
@pytest.mark.parametrize(
    ("on_win", "status"), [("require_approval", "awaiting_approval"), ("notify", "by_hand")]
)
async def test_what_needs_consent_is_applied_by_whoever_gives_it(lab: Lab, on_win: str, status: str) -> None:
    scene = await staged(lab, {"on_win": on_win})
    with pytest.raises(StateError, match=r"no decision .* waits for approval"):
        await lab.approve("support_reply")
    await scene.record(BETTER)
    stored = await lab.decide("support_reply")
    assert stored.status == status
    assert await lab.apply(stored) == stored
    assert await scene.live() == CONTROL
    approved = await lab.approve("support_reply", reason="looks right", actor="Ada")
    assert (approved.decision_id, approved.status, approved.actor) == (stored.decision_id, "applied", "Ada")
    move = (await scene.history())[-1]
    assert (move.version, move.actor) == (CANDIDATE, "Ada")
    assert move.reason.endswith("; approved: looks right")


@on_both
async def test_the_same_look_again_is_the_same_decision(lab: Lab, clock: SettableClock) -> None:
    scene = await staged(lab, {"longest_hours": 100})
    await scene.record(EQUAL)
    first = await lab.decide("support_reply")
    for _ in range(5):
        clock.advance(seconds=30)
        again = await lab.decide("support_reply")
        assert again.decision_id == first.decision_id
    assert (again.seen, again.seen_at) == (6, clock.now)
    assert await lab.decisions("support_reply") == [again]
    await scene.record(EQUAL, 10, prefix="v")
    other = await lab.decide("support_reply")
    assert other.decision_id != first.decision_id
    assert [each.seen for each in await lab.decisions("support_reply")] == [1, 6]
    assert await lab.decisions("support_reply", limit=1) == [other]


async def test_looks_that_changed_nothing_are_kept_once_an_hour_after_a_day(
    lab: Lab, clock: SettableClock
) -> None:
    scene = await staged(lab, {})
    for number in range(30):
        await scene.record(EQUAL, units=1, prefix=f"look{number}-")
        await lab.decide("support_reply")
        clock.advance(seconds=20 * 60)
    assert len(await lab.decisions("support_reply")) == 30
    clock.advance(seconds=26 * 3600)
    await scene.record(EQUAL, units=1, prefix="later")
    latest = await lab.decide("support_reply")
    newest, *old = await lab.decisions("support_reply")
    assert newest == latest
    assert len(old) == 10
    assert len({each.decision.at.replace(minute=0, second=0) for each in old}) == 10


async def test_a_stored_decision_is_made_the_same_again(lab: Lab) -> None:
    scene = await staged(lab, {"guardrails": ["success_rate >= 0.5", "p95_response_time <= 2"]})
    await scene.record(BETTER, response_time={CONTROL: 0.4, CANDIDATE: 0.5})
    await lab.decide("support_reply")
    [kept] = await lab.decisions("support_reply")
    assert kept.decision.inputs is not None
    assert redecide(kept.decision.inputs) == kept.decision
    assert {guard["metric"] for guard in kept.decision.inputs.analysis["guards"]} == {
        "success_rate",
        "p95_response_time",
    }


async def test_an_archived_winner_is_not_promoted_and_nothing_else_happens(lab: Lab) -> None:
    scene = await staged(lab, {})
    await scene.record(BETTER)
    stored = await lab.decide("support_reply")
    version_id = scene.versions[CANDIDATE].version_id
    await lab.store.write(lambda tx: tx.versions.set_status(version_id, VersionStatus.ARCHIVED))
    with pytest.raises(StateError, match="archived and cannot be promoted"):
        await lab.apply(stored)
    assert (await scene.now()).status == ExperimentStatus.RUNNING
    assert (await lab.decisions("support_reply"))[0].status == "pending"


async def test_configurations_alone_are_completed_with_their_winner(lab: Lab) -> None:
    made = await lab.experiments.create_experiment(
        "top-k",
        "config",
        [PromptVariant(key="a", config={"k": 3}), PromptVariant(key="b", config={"k": 8})],
        policy=Policy(allow_approximate=True),
    )
    await lab.metrics.record_many(
        {
            "success": number % 10 < tenths,
            "experiment_id": made.experiment_id,
            "variant": key,
            "user_id": f"{key}{number}",
        }
        for number in range(400)
        for key, tenths in (("a", 5), ("b", 9))
    )
    done = await decided(lab, "top-k")
    assert done.detail == "Completed: b has won, and serves no version to promote"
    assert "deployment" not in done.effects


@on_both
async def test_another_policy_reads_only_units_that_came_after_it(lab: Lab, clock: SettableClock) -> None:
    scene = await staged(lab, {"guardrails": ["success_rate >= 0.5"]})
    await scene.record(WORSE)
    clock.advance(hours=1)
    stale = await lab.decide("support_reply")
    await lab.experiments.set_policy(
        "support_reply", {"guardrails": ["success_rate >= 0.8"], "allow_approximate": True}, actor="Ada"
    )
    assert (await lab.apply(stale)).status == "superseded"
    fresh = await decided(lab, "support_reply")
    assert fresh.decision.inputs is not None
    assert fresh.decision.inputs.analysis["units"] == {CONTROL: 0, CANDIDATE: 0}
    assert (await lab.analyze("support_reply")).since == clock.now
    assert fresh.decision.inputs.state.started_at == clock.now
    clock.advance(hours=1)
    await scene.record(WORSE, prefix="v")
    assert (await decided(lab, "support_reply")).decision.rule == "guardrail"
    rules = [each.decision.rule for each in await lab.decisions("support_reply")]
    assert rules == ["guardrail", "undecided", "policy", stale.decision.rule]
    assert [move.action for move in await scene.history()] == ["promote", "keep", "keep"]


@on_both
async def test_decisions_outlive_the_experiment(lab: Lab) -> None:
    scene = await staged(lab, {})
    await scene.record(EQUAL)
    stored = await lab.decide("support_reply")
    pending = await lab.override("support_reply", "stop", reason="it was a test")
    await lab.experiments.delete_experiment("support_reply")
    for name in ("support_reply", scene.experiment_id):
        assert await lab.decisions(name) == [pending, stored]
    with pytest.raises(NotFoundError):
        await lab.decisions("nothing")
    with pytest.raises(NotFoundError):
        await lab.apply("0192f0c1-7b1e-7cc3-98c4-dc0c0c07398f")


async def test_a_decision_about_an_experiment_that_is_gone_is_superseded(lab: Lab) -> None:
    scene = await staged(lab, {})
    await scene.record(BETTER)
    stored = await lab.decide("support_reply")
    await lab.experiments.delete_experiment("support_reply")
    gone = await lab.apply(stored)
    assert (gone.status, gone.detail) == ("superseded", "The experiment has been deleted")
    assert await scene.live() == CONTROL


async def test_outcomes_that_a_rollback_cut_short_are_no_mismatch(lab: Lab) -> None:
    policy = {"guardrails": ["response_time <= 2"]}
    scene = await staged(lab, policy, keys=(CONTROL, CANDIDATE, OTHER))
    choices = [await lab.choose("support_reply", user_id=f"u{number}") for number in range(1500)]
    for number, choice in enumerate(choices):
        if number % 10 < 7:
            seconds = (5.0 if choice.variant == CANDIDATE else 1.0) + number % 3 / 10
            await choice.record(success=number % 4 != 0, response_time=seconds)
    assert (await decided(lab, "support_reply")).decision.variants == (CANDIDATE,)
    for number in range(1500):
        if number % 10 >= 7:
            choice = await lab.choose("support_reply", user_id=f"u{number}")
            assert choice.variant != CANDIDATE
            await choice.record(success=number % 4 != 0, response_time=1.0)
    assert (await decided(lab, "support_reply")).decision.rule == "undecided"
    assert (await scene.now()).status == ExperimentStatus.RUNNING


async def test_what_a_person_has_evicted_is_not_promoted(lab: Lab) -> None:
    scene = await staged(lab, {}, keys=(CONTROL, CANDIDATE, OTHER))
    await scene.record({**BETTER, OTHER: 0.6})
    weights = {CONTROL: 0.5, CANDIDATE: 0.0, OTHER: 0.5}
    await lab.experiments.update_weights("support_reply", weights, evict=True)
    assert (await decided(lab, "support_reply")).decision.action == "continue"
    await lab.experiments.update_weights("support_reply", dict.fromkeys(weights, 1.0))
    assert (await lab.decide("support_reply")).decision.variants == (CANDIDATE,)


async def test_what_an_experiment_has_lasted_counts_from_its_schedule(lab: Lab, clock: SettableClock) -> None:
    begins = clock.now + timedelta(days=14)
    policy = {
        "longest_hours": 14 * 24,
        "shortest_hours": 24,
        "ramp": [{"traffic": 0.5, "minimum_hours": 24, "minimum_units": 0}, 1.0],
    }
    scene = await staged(lab, policy, starts_at=begins)
    assert (await decided(lab, "support_reply")).status == "noted"
    clock.advance(days=14, hours=1)
    assert "lasted 1 of 24 hours" in (await decided(lab, "support_reply")).decision.sentence
    clock.advance(hours=23)
    assert (await decided(lab, "support_reply")).decision.action == "ramp"
    clock.advance(days=13)
    assert (await decided(lab, "support_reply")).decision.rule == "deadline"
    assert (await scene.now()).status == ExperimentStatus.STOPPED


async def test_an_experiment_whose_schedule_is_over_ends_once_its_windows_have_closed(
    lab: Lab, clock: SettableClock
) -> None:
    scene = await staged(lab, {}, ends_at=clock.now + timedelta(days=7), plan={"window_hours": 24})
    clock.advance(days=7, hours=23)
    assert (await decided(lab, "support_reply")).status == "noted"
    clock.advance(hours=1)
    stopped = await decided(lab, "support_reply")
    assert (stopped.decision.action, stopped.decision.rule) == ("stop", "deadline")
    assert stopped.decision.sentence.startswith("Its schedule has ended without a winner")
    assert (await scene.now()).status == ExperimentStatus.STOPPED


async def test_superseded_decisions_that_wait_for_a_person_are_thinned_out_too(
    lab: Lab, clock: SettableClock
) -> None:
    scene = await staged(lab, {"on_win": "notify"})
    await scene.record(BETTER)
    for number in range(12):
        await scene.record(BETTER, units=1, prefix=f"look{number}-")
        assert (await lab.decide("support_reply")).status == "by_hand"
        clock.advance(seconds=20 * 60)
    clock.advance(hours=26)
    await scene.record(BETTER, units=1, prefix="later")
    latest = await lab.decide("support_reply")
    newest, *old = await lab.decisions("support_reply")
    assert (newest, latest.status) == (latest, "by_hand")
    assert len(old) in {4, 5}


async def test_a_variant_that_gets_no_new_units_holds_no_ramp_up(lab: Lab) -> None:
    policy = {"ramp": [{"traffic": 0.5, "minimum_units": 10}, 1.0]}
    scene = await staged(lab, policy, keys=(CONTROL, CANDIDATE, OTHER))
    await lab.experiments.update_weights("support_reply", {CONTROL: 1, CANDIDATE: 1, OTHER: 0})
    await scene.record(EQUAL, units=9)
    assert "9 of 10 units" in (await lab.decide("support_reply")).decision.sentence
    await scene.record(EQUAL, units=1, prefix="last")
    assert (await lab.decide("support_reply")).decision.action == "ramp"
    # of which none gets any, the ramp goes nowhere
    await lab.experiments.update_weights("support_reply", {CONTROL: 1, CANDIDATE: 0, OTHER: 0})
    assert (await lab.decide("support_reply")).decision.action == "continue"
