"""A promoted version that is watched: what is read of it, what it is held against, and the rollback that follows."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from promptab import Alert, InvalidInputError, Lab, Policy, PromptVariant, PromptVersion, StateError
from promptab.decisions.deciding import redecide
from promptab.decisions.guard import Guard, GuardEvidence
from promptab.decisions.guarded import guard_readings
from promptab.decisions.stored import StoredDecision
from promptab.guarding import look_at_guard
from promptab.stats.summary import UnitSums
from promptab.stores.base import Transaction
from tests.clock import SettableClock
from tests.conftest import url_of

RATE = Policy(guardrails=["success_rate >= 0.8"])  # type: ignore[arg-type]  # a guardrail may be a line


@pytest.fixture(params=["memory"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return url_of(request, tmp_path)


every_store = pytest.mark.parametrize("store_url", ["file", "memory", "postgres"], indirect=True)
"""For what is added up in SQL."""


def policy(*guardrails: str, **fields: Any) -> Policy:
    return Policy.model_validate({"guardrails": guardrails, **fields})


class Stage:
    """A prompt with 1.0.0 in production, and 1.0.1 to take its place."""

    def __init__(self, lab: Lab, clock: SettableClock, versions: Sequence[PromptVersion]) -> None:
        self.lab = lab
        self.clock = clock
        self.first, self.second = versions

    @classmethod
    async def made(cls, lab: Lab, clock: SettableClock) -> Stage:
        versions = [
            await lab.versions.create_version("greeting", "system", text) for text in ("Kind.", "Kinder.")
        ]
        await lab.versions.promote(versions[0].version_id)
        return cls(lab, clock, versions)

    async def promote(self, guard: Policy | dict[str, Any] | None) -> None:
        self.clock.advance(hours=2)
        await self.lab.versions.promote(self.second.version_id, guard=guard)

    async def record(self, version: PromptVersion, values: Sequence[Any], **how: Any) -> None:
        """Record one event a value: of `measure`, success unless told; of unit u0, u1 ... or of none."""
        measure, named = how.get("measure", "success"), how.get("named", True)
        await self.lab.metrics.record_many(
            [
                {
                    "version_id": version.version_id,
                    "user_id": f"u{number % how.get('units', len(values))}" if named else None,
                    measure: value,
                }
                for number, value in enumerate(values)
            ]
        )

    async def guards(self) -> list[Guard]:
        async def work(tx: Transaction) -> list[Guard]:
            found = await tx.guards.listing(watching=False)
            return [guard for each in found if (guard := await tx.guards.by_id(each.guard_id)) is not None]

        return await self.lab.store.read(work)

    async def look(self, **options: Any) -> StoredDecision | None:
        guard = (await self.guards())[-1]
        return await look_at_guard(self.lab.store, guard, self.clock, **options)

    async def live(self) -> str:
        found = await self.lab.versions.get_version("greeting", "system", "production")
        assert found is not None
        return found.version

    async def history(self) -> list[tuple[str, str | None]]:
        moves = await self.lab.versions.deployments("greeting", "system")
        return [(move.action, move.version) for move in moves]


@pytest.fixture
async def stage(lab: Lab, clock: SettableClock) -> Stage:
    return await Stage.made(lab, clock)


def outcomes(rate: float, count: int, seed: int = 1) -> list[bool]:
    """Return so many outcomes that succeed at this rate, as exactly as it goes, in an order of their own."""
    successes = [number < round(rate * count) for number in range(count)]
    random.Random(seed).shuffle(successes)
    return successes


@every_store
async def test_a_version_that_fails_a_bound_is_rolled_back_with_its_evidence(stage: Stage) -> None:
    await stage.promote(RATE)
    await stage.record(stage.second, outcomes(0.55, 60))
    stored = await stage.look(actor="ada")
    assert stored is not None
    assert (stored.decision.action, stored.decision.rule, stored.status) == (
        "rollback",
        "guardrail",
        "applied",
    )
    assert await stage.live() == "1.0.0"
    last = (await stage.lab.versions.deployments("greeting", "system"))[-1]
    assert (last.action, last.actor, last.reason) == ("rollback", "ada", stored.decision.sentence)
    assert last.evidence is not None
    [reading] = last.evidence["guardrails"]
    assert (reading["verdict"], reading["units"], reading["technique"]) == ("fail", 60, "exact rates")
    assert "success_rate >= 0.8: 1.0.1 has failed it; it has 0.55 over 60 units" in last.reason
    [guard] = await stage.guards()
    assert (guard.status, guard.detail) == ("rolled_back", stored.decision.sentence)
    left = await stage.lab.versions.get_version("greeting", "system", "1.0.1")
    assert left is not None
    assert left.status == "deprecated"


async def test_the_safe_rollback_of_a_mean_under_a_bound_waits_for_evidence(stage: Stage) -> None:
    """A mean of 79 % over 100 events is under 80 %, and no sign that the rate is."""
    await stage.promote(RATE)
    await stage.record(stage.second, outcomes(0.79, 101), named=False)
    assert (await stage.lab.metrics.get_metrics(stage.second.version_id)).success_rate < 0.8
    stored = await stage.look()
    assert stored is not None
    assert (stored.decision.action, await stage.live()) == ("continue", "1.0.1")
    assert "it has 0.7921 over 101 events" in stored.decision.sentence
    await stage.record(stage.second, outcomes(0.5, 60), named=False)
    stored = await stage.look()
    assert stored is not None
    assert (stored.decision.action, await stage.live()) == ("rollback", "1.0.0")


async def test_a_second_look_at_a_guard_that_has_ended_changes_nothing(stage: Stage) -> None:
    await stage.promote(RATE)
    await stage.record(stage.second, outcomes(0.5, 60))
    assert await stage.look() is not None
    assert await stage.look() is None
    assert await stage.history() == [("promote", "1.0.0"), ("promote", "1.0.1"), ("rollback", "1.0.0")]


@every_store
async def test_of_many_that_look_at_once_one_rolls_back(stage: Stage) -> None:
    await stage.promote(RATE)
    await stage.record(stage.second, outcomes(0.5, 60))
    found = await asyncio.gather(*(stage.look() for _ in range(4)))
    assert [stored is not None for stored in found].count(True) == 1
    assert await stage.history() == [("promote", "1.0.0"), ("promote", "1.0.1"), ("rollback", "1.0.0")]


async def test_a_look_that_does_not_apply_says_what_it_would_do(stage: Stage) -> None:
    await stage.promote(RATE)
    await stage.record(stage.second, outcomes(0.5, 60))
    stored = await stage.look(apply=False)
    assert stored is not None
    assert (stored.decision.action, stored.status, await stage.live()) == ("rollback", "pending", "1.0.1")
    for _ in range(2):
        applied = await stage.lab.apply(stored, actor="ada")
        assert (applied.status, applied.actor, await stage.live()) == ("applied", "ada", "1.0.0")
    assert len(await stage.history()) == 3


async def test_what_was_not_applied_is_superseded_by_a_move_in_between(stage: Stage) -> None:
    await stage.promote(RATE)
    await stage.record(stage.second, outcomes(0.5, 60))
    stored = await stage.look(apply=False)
    assert stored is not None
    await stage.lab.versions.promote(stage.first.version_id, actor="ada")
    applied = await stage.lab.apply(stored)
    assert (applied.status, applied.detail) == ("superseded", "production was moved to 1.0.0 by ada")
    assert len(await stage.history()) == 3


async def test_what_is_refused_before_the_change_changes_nothing(stage: Stage) -> None:
    await stage.promote(RATE)
    await stage.record(stage.second, outcomes(0.5, 60))

    async def refuse(tx: Transaction) -> None:
        await tx.leases.check("watch", 7)

    with pytest.raises(Exception, match="another one leads by now"):
        await stage.look(first=refuse)
    assert (await stage.live(), (await stage.guards())[0].status) == ("1.0.1", "watching")


async def test_a_guard_ends_when_its_time_is_over_and_says_so(stage: Stage) -> None:
    await stage.promote(policy("success_rate >= 0.8", longest_hours=24))
    await stage.record(stage.second, outcomes(0.9, 60))
    stored = await stage.look()
    assert stored is not None
    assert stored.decision.action == "continue"
    stage.clock.advance(hours=24)
    stored = await stage.look()
    assert stored is not None
    assert (stored.decision.action, stored.decision.rule) == ("stop", "deadline")
    assert stored.decision.sentence.startswith("Kept: its 24 hours have passed, and no guardrail has failed")
    assert [guard.status for guard in await stage.guards()] == ["kept"]
    assert await stage.live() == "1.0.1"


@pytest.mark.parametrize("how", ["rollback", "promote", "untag"])
async def test_a_guard_ends_when_somebody_moves_what_it_guards(stage: Stage, how: str) -> None:
    await stage.promote(RATE)
    match how:
        case "rollback":
            await stage.lab.versions.rollback("greeting", "system", actor="ada")
        case "promote":
            await stage.lab.versions.promote(stage.first.version_id, actor="ada")
        case _:
            await stage.lab.versions.untag_version(stage.second.version_id, "production")
    [guard] = await stage.guards()
    assert guard.status == "moved"
    assert guard.detail.startswith("production was moved to ")
    await stage.record(stage.second, outcomes(0.1, 60))
    assert await stage.look() is None


async def test_a_version_that_is_promoted_again_is_guarded_anew(stage: Stage) -> None:
    await stage.promote(RATE)
    await stage.record(stage.second, outcomes(0.5, 60))
    await stage.lab.versions.rollback("greeting", "system")
    stage.clock.advance(hours=1)
    await stage.promote(RATE)
    stored = await stage.look()
    assert stored is not None
    assert stored.decision.action == "continue"
    assert [guard.status for guard in await stage.guards()] == ["moved", "watching"]


async def test_promoting_again_with_the_same_guard_changes_nothing(stage: Stage) -> None:
    for _ in range(2):
        await stage.promote(RATE)
    assert [guard.status for guard in await stage.guards()] == ["watching"]
    await stage.promote(policy("success_rate >= 0.7"))
    assert [guard.status for guard in await stage.guards()] == ["moved", "watching"]
    assert (await stage.guards())[0].detail == "another guard took its place"
    assert len(await stage.history()) == 2


async def test_nothing_is_guarded_where_nothing_was_live_before(lab: Lab) -> None:
    first = await lab.versions.create_version("greeting", "system", "Kind.")
    with pytest.raises(StateError, match="nothing was live in production before"):
        await lab.versions.promote(first.version_id, guard=RATE)
    assert await lab.versions.deployments("greeting", "system") == []


@pytest.mark.parametrize(
    ("guard", "named"),
    [
        ({}, "guard.guardrails"),
        ({"guardrails": ["success_rate >= 0.8"], "on_failed_guardrail": "pause"}, "on_failed_guardrail"),
        ({"guardrails": ["success_rate >= 80"]}, "guardrails"),
        ({"guardrails": [{"metric": "warmth", "largest_regression": 0.1}]}, "with a direction"),
    ],
    ids=["nothing", "pauses", "percent", "no_direction"],
)
async def test_a_policy_that_guards_nothing_is_refused(
    stage: Stage, guard: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidInputError, match=named):
        await stage.promote(guard)
    assert (await stage.live(), await stage.guards()) == ("1.0.0", [])


@every_store
async def test_a_relative_guardrail_is_held_against_what_the_version_before_had(stage: Stage) -> None:
    await stage.record(stage.first, outcomes(0.95, 1_000))
    await stage.promote(policy("success_rate >= control - 5%"))
    await stage.record(stage.second, outcomes(0.93, 100))
    stored = await stage.look()
    assert stored is not None
    assert stored.decision.action == "continue"
    [bound] = (await stage.guards())[0].bounds or ()
    # a one-sided bound of 99 % on 950 of 1,000, less five percent of it
    assert bound.bound == pytest.approx(0.9309 * 0.95, abs=0.002)
    assert (bound.previous, bound.previous_units) == (0.95, 1_000)
    assert bound.alpha == pytest.approx(0.04)
    assert "1.0.0 had 0.95 over 1000 units before" in stored.decision.sentence
    await stage.record(stage.second, outcomes(0.5, 80, seed=2), named=False)
    stored = await stage.look()
    assert stored is not None
    assert (stored.decision.action, await stage.live()) == ("rollback", "1.0.0")


async def test_without_a_record_of_the_version_before_a_relative_guardrail_says_that_it_does_not_watch(
    stage: Stage,
) -> None:
    await stage.promote(policy("success_rate >= control - 5%", "cost <= 0.01"))
    await stage.record(stage.second, outcomes(0.0, 60))
    stored = await stage.look()
    assert stored is not None
    assert stored.decision.action == "continue"
    assert "not watched: 1.0.0 had nothing recorded of it before" in stored.decision.sentence


@every_store
async def test_outcomes_of_units_with_several_are_weighed_by_unit(stage: Stage) -> None:
    await stage.promote(RATE)
    values = outcomes(0.55, 900)
    await stage.record(stage.second, values, units=150)
    stored = await stage.look()
    assert stored is not None
    [guard] = await stage.guards()
    assert stored.decision.action == "rollback"
    last = (await stage.lab.versions.deployments("greeting", "system"))[-1]
    [reading] = (last.evidence or {})["guardrails"]
    assert (reading["technique"], reading["units"]) == ("confidence sequence", 150)
    expected = UnitSums.of(
        [(6.0, float(sum(values[unit::150]))) for unit in range(150)], center=guard.tallies[0].sums.center
    )
    assert guard.tallies[0].sums == pytest.approx(expected)


@every_store
async def test_few_units_with_several_outcomes_are_bet_on(stage: Stage) -> None:
    """Ten calls each of twenty users: nobody waits for a hundred users when half of the calls fail."""
    await stage.promote(policy("success_rate >= 0.9", "p95_response_time <= 2.0"))
    values = outcomes(0.5, 200)
    await stage.record(stage.second, values, units=20)
    await stage.record(stage.second, [1.0, 1.5] * 100, units=20, measure="response_time")
    stored = await stage.look(apply=False)
    assert stored is not None
    assert stored.decision.action == "rollback"
    assert redecide(stored.decision.inputs or {}) == stored.decision
    [guard] = await stage.guards()
    rates, slow = guard.tallies
    assert rates.scores is None
    assert rates.units == tuple((10.0, float(sum(values[unit::20]))) for unit in range(20))
    assert slow.units == ((10.0, 0.0),) * 20
    failed, kept = guard_readings(GuardEvidence.of(guard), guard.policy)
    assert (failed.technique, failed.verdict, failed.alpha) == ("betting", "fail", 0.0125)
    assert (kept.technique, kept.verdict) == ("betting", "undecided")


@every_store
@pytest.mark.parametrize("steps", [1, 7, 20])
async def test_what_is_added_look_by_look_is_what_it_adds_up_to_at_once(stage: Stage, steps: int) -> None:
    numbers = random.Random(3)
    await stage.promote(
        policy("cost <= 1000", "warmth >= 0.1", "p95_response_time <= 3.9", "cost_per_success <= 1000")
    )
    told: list[tuple[str | None, float, float, bool]] = [
        (
            numbers.choice(["a", "b", "c", "d", None]),
            numbers.random(),
            4 * numbers.random(),
            numbers.random() < 0.7,
        )
        for _ in range(60)
    ]
    for step in range(steps):
        await stage.lab.metrics.record_many(
            [
                {
                    "version_id": stage.second.version_id,
                    "user_id": unit,
                    "cost": cost,
                    "response_time": seconds,
                    "success": success,
                    "metrics": {"warmth": cost / 2},
                }
                for unit, cost, seconds, success in told[step::steps]
            ]
        )
        await stage.look()
    [guard] = await stage.guards()
    expected = [
        summed(told, lambda event: (1.0, event[1])),
        summed(told, lambda event: (1.0, event[1] / 2)),
        summed(told, lambda event: (1.0, float(event[2] > 3.9))),
        summed(told, lambda event: (float(event[3]), event[1])),
    ]
    for tally, sums in zip(guard.tallies, expected, strict=True):
        assert tally.sums == pytest.approx(sums.recentered(tally.sums.center))
        assert tally.single_events == sum(unit is None for unit, *_ in told)


def summed(told: Sequence[tuple[str | None, float, float, bool]], carried: Any) -> UnitSums:
    totals: dict[Any, tuple[float, float]] = {}
    for number, event in enumerate(told):
        key = event[0] or number
        n, s = totals.get(key, (0.0, 0.0))
        more = carried(event)
        totals[key] = (n + more[0], s + more[1])
    return UnitSums.of(totals.values())


async def test_a_slow_quantile_is_weighed_as_the_share_of_slow_answers(stage: Stage) -> None:
    await stage.promote(policy("p95_response_time <= 2.0"))
    await stage.record(stage.second, [1.0, 1.0, 3.0] * 10, measure="response_time")
    stored = await stage.look()
    assert stored is not None
    assert stored.decision.action == "rollback"
    assert "it has 0.3333 of the values beyond 2 over 30 units" in stored.decision.sentence


@every_store
async def test_few_ratings_are_bet_on_in_the_order_of_their_arrival(stage: Stage) -> None:
    await stage.promote(policy("rating >= 4"))
    await stage.record(stage.second, [2.0, 1.0, 3.0, 2.0, 1.0] * 6, measure="user_rating")
    stored = await stage.look(apply=False)
    assert stored is not None
    assert stored.decision.action == "rollback"
    [guard] = await stage.guards()
    assert guard.tallies[0].scores == (2.0, 1.0, 3.0, 2.0, 1.0) * 6


async def test_a_mean_is_held_against_a_bound_from_a_hundred_units_on(stage: Stage) -> None:
    await stage.promote(policy("cost <= 0.01"))
    numbers = random.Random(5)
    await stage.record(stage.second, [0.02 + 0.01 * numbers.random() for _ in range(99)], measure="cost")
    stored = await stage.look()
    assert stored is not None
    assert stored.decision.action == "continue"
    await stage.record(stage.second, [0.02, 0.03], measure="cost", named=False)
    stored = await stage.look()
    assert stored is not None
    assert stored.decision.action == "rollback"


@every_store
async def test_only_outcomes_since_the_promotion_and_of_the_version_count(stage: Stage) -> None:
    await stage.record(stage.second, outcomes(0.0, 60))
    await stage.promote(RATE)
    await stage.record(stage.first, outcomes(0.0, 60))
    await stage.lab.metrics.record_event(
        stage.second.version_id, False, timestamp=stage.clock.now.replace(day=1)
    )
    stored = await stage.look()
    assert stored is not None
    assert "nothing of 1.0.1 carried success_rate yet" in stored.decision.sentence


async def test_looks_that_find_nothing_new_are_one_decision_that_was_seen_again(stage: Stage) -> None:
    await stage.promote(RATE)
    await stage.record(stage.second, outcomes(0.9, 20))
    for _ in range(3):
        stage.clock.advance(seconds=30)
        stored = await stage.look()
    assert stored is not None
    assert (stored.seen, stored.seen_at) == (3, stage.clock.now)


async def test_a_stored_decision_about_a_guard_is_made_again_from_its_inputs(stage: Stage) -> None:
    await stage.record(stage.first, outcomes(0.9, 200))
    await stage.promote(policy("success_rate >= control - 2%", "rating >= 3"))
    await stage.record(stage.second, outcomes(0.4, 60))
    await stage.record(stage.second, [2.0] * 10, measure="user_rating")
    stored = await stage.look()
    assert stored is not None
    assert stored.decision.inputs is not None
    assert redecide(stored.decision.inputs.model_dump(mode="json")) == stored.decision


@every_store
async def test_events_that_are_deleted_count_no_more(stage: Stage) -> None:
    await stage.promote(RATE)
    await stage.record(stage.second, outcomes(0.8, 60))
    await stage.look()
    await stage.lab.metrics.reset_metrics(stage.second.version_id)
    await stage.record(stage.second, outcomes(0.9, 30))
    await stage.look()
    [guard] = await stage.guards()
    assert (guard.tallies[0].sums.units, guard.tallies[0].sums.s) == (30, 27.0)


@every_store
async def test_events_that_a_guard_has_still_to_weigh_are_not_pruned(stage: Stage) -> None:
    await stage.record(stage.first, outcomes(0.9, 120))
    await stage.promote(policy("success_rate >= control - 90%"))
    await stage.record(stage.second, outcomes(0.8, 60))
    long_after = stage.clock.advance(days=40)
    report = await stage.lab.metrics.prune_events(long_after)
    assert (report.dropped, report.kept["not added up yet"]) == (0, 179)
    await stage.look()
    report = await stage.lab.metrics.prune_events(long_after)
    assert report.dropped == 179
    await stage.record(stage.second, outcomes(0.8, 10), named=False)
    await stage.look()
    [guard] = await stage.guards()
    assert (guard.tallies[0].sums.units, guard.tallies[0].sums.s) == (70, 56.0)
    assert guard.bounds is not None
    assert guard.bounds[0].previous_units == 120


async def test_running_experiments_with_the_version_are_paused_by_the_rollback(stage: Stage) -> None:
    await stage.promote(RATE)
    third = await stage.lab.versions.create_version("greeting", "system", "Kindest.")
    await stage.lab.experiments.create_experiment(
        "greeting", "system", [PromptVariant(stage.second.version), PromptVariant(third.version)]
    )
    await stage.record(stage.second, outcomes(0.4, 60))
    await stage.look()
    [experiment] = await stage.lab.experiments.list_experiments()
    assert experiment.status == "paused"


async def test_a_failure_with_nothing_to_go_back_to_is_kept_and_told(stage: Stage) -> None:
    await stage.promote(RATE)
    await stage.lab.versions.delete_version(stage.first.version_id)
    await stage.record(stage.second, outcomes(0.5, 60))
    heard: list[Alert] = []
    stage.lab.on_alert(heard.append)
    for _ in range(2):
        with pytest.raises(StateError, match="what was live before is gone"):
            await stage.look()
    [stored] = await stage.lab.decisions("system/greeting")
    assert (stored.decision.action, stored.status, await stage.live()) == ("rollback", "pending", "1.0.1")
    # it says what is to be done, as nothing was
    assert stored.decision.sentence.startswith("Rollback: ")
    await stage.lab.deliver_alerts()
    assert {alert.kind for alert in heard} == {"moved", "guardrail_failed"}


async def test_looks_that_do_not_apply_leave_one_decision_open(stage: Stage) -> None:
    await stage.promote(RATE)
    for _ in range(3):
        await stage.record(stage.second, outcomes(0.5, 60), named=False)
        await stage.look(apply=False)
    assert [stored.status for stored in await stage.lab.decisions("system/greeting")] == [
        "pending",
        "superseded",
        "superseded",
    ]
