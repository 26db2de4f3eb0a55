"""Whatever machines and people do to an experiment, in whatever order: the history explains what is live."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import promptab
from promptab import InvalidInputError, Lab, StateError, StoredDecision, VersionStatus
from promptab.lifecycle import deployed_at, rollback_candidates
from tests.clock import SettableClock
from tests.rollouts import BETTER, CANDIDATE, CONTROL, EQUAL, OTHER, PROMPT, WORSE, Scene, staged

T = TypeVar("T")

KEYS = (CONTROL, CANDIDATE, OTHER)
POLICIES: list[dict[str, Any]] = [
    {"guardrails": ["success_rate >= 0.8"]},
    {"on_win": "require_approval", "ramp": [0.2, 0.6]},
    {"on_failed_guardrail": "pause", "guardrails": ["success_rate >= control - 5%"], "longest_hours": 30},
    {"on_win": "notify", "ramp": [{"traffic": 0.1, "minimum_units": 50}, 0.5]},
]
RATES = [rates | {OTHER: other} for rates in (BETTER, WORSE, EQUAL) for other in (0.5, 0.95)]


class Rollouts(RuleBasedStateMachine):
    """One experiment after the other on one prompt; refused moves change nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = SettableClock()
        self.lab: Lab = self.run(self._open())
        self.scene: Scene = self.run(staged(self.lab, POLICIES[0], keys=KEYS, plan={"minimum_units": 20}))
        self.made: list[StoredDecision] = []
        self.results: dict[str, StoredDecision] = {}
        """What the first apply that settled a decision returned, by its id."""
        self.looks = 0

    async def _open(self) -> Lab:
        return await promptab.open("sqlite:///:memory:", clock=self.clock)

    def run(self, work: Awaitable[T]) -> T:
        async def awaited() -> T:
            return await work

        return self.runner.run(awaited())

    def tried(self, work: Awaitable[T]) -> T | None:
        """Return what comes of it; None where it was refused."""
        self.clock.advance(seconds=1)
        try:
            return self.run(work)
        except (StateError, InvalidInputError):
            return None

    def teardown(self) -> None:
        self.run(self.lab.close())
        self.runner.close()

    def is_live(self) -> bool:
        return self.run(self.scene.now()).status in {"running", "paused"}

    @rule(rates=st.sampled_from(RATES), hours=st.sampled_from([0, 1, 20]))
    def record(self, rates: dict[str, float], hours: int) -> None:
        self.looks += 1
        self.clock.advance(hours=hours)
        self.run(self.scene.record(rates, 60, prefix=f"{self.looks}-"))

    @rule()
    def decide(self) -> None:
        stored = self.tried(self.lab.decide(self.scene.experiment_id))
        if stored is not None:
            self.made.append(stored)

    @precondition(lambda self: self.made)
    @rule(which=st.randoms(use_true_random=False), newest=st.booleans())
    def apply(self, which: Any, *, newest: bool) -> None:
        stored = self.made[-1] if newest else which.choice(self.made)
        before = len(self.run(self.scene.history()))
        result = self.tried(self.lab.apply(stored))
        if result is None or result.status not in {"applied", "superseded"}:
            return
        if stored.decision_id in self.results:
            assert result == self.results[stored.decision_id]
            assert len(self.run(self.scene.history())) == before
        self.results[stored.decision_id] = result

    @rule()
    def approve(self) -> None:
        self.tried(self.lab.approve(self.scene.experiment_id, actor="Ada"))

    @rule(
        action=st.sampled_from(["continue", "ramp", "promote", "rollback", "pause", "stop"]),
        variant=st.sampled_from([None, *KEYS]),
    )
    def override(self, action: Any, variant: str | None) -> None:
        self.tried(
            self.lab.override(self.scene.experiment_id, action, variant=variant, reason="so", actor="Ada")
        )

    @rule(said=st.sampled_from(POLICIES))
    def change_policy(self, said: dict[str, Any]) -> None:
        self.tried(
            self.lab.experiments.set_policy(self.scene.experiment_id, {"allow_approximate": True, **said})
        )

    @rule(number=st.sampled_from(KEYS))
    def promote_by_hand(self, number: str) -> None:
        self.tried(self.lab.versions.promote(self.scene.versions[number].version_id, actor="Bob"))

    @rule()
    def roll_back_by_hand(self) -> None:
        self.tried(self.lab.versions.rollback(*PROMPT, actor="Bob"))

    @rule(change=st.sampled_from(["pause", "resume", "traffic", "weights"]))
    def move_by_hand(self, change: str) -> None:
        experiments, which = self.lab.experiments, self.scene.experiment_id
        if change == "traffic":
            self.tried(experiments.update_traffic(which, 0.7))
        elif change == "weights":
            self.tried(experiments.update_weights(which, {CONTROL: 2, CANDIDATE: 1, OTHER: 1}))
        else:
            self.tried(getattr(experiments, change)(which))

    @precondition(lambda self: not self.is_live())
    @rule(said=st.sampled_from(POLICIES))
    def begin_anew(self, said: dict[str, Any]) -> None:
        self.clock.advance(seconds=1)
        experiment = self.run(
            self.lab.experiments.create_experiment(
                *PROMPT,
                self.scene.experiment.variants,
                policy={"allow_approximate": True, **said},
                plan={"minimum_units": 20},
            )
        )
        self.scene = self.scene._replace(experiment=experiment)
        self.made.clear()

    @invariant()
    def the_history_replays_to_what_is_live(self) -> None:
        live: str | None = None
        moves = self.run(self.scene.history())
        for move in moves:
            assert move.previous_version_id == live
            assert (move.version_id == live) == (move.action == "keep")
            live = move.version_id
        productive = self.run(self.lab.versions.list_versions(*PROMPT, status=VersionStatus.PRODUCTION))
        assert [version.version_id for version in productive] == ([] if live is None else [live])
        assert live not in {former.version_id for former in rollback_candidates(moves)}
        now = deployed_at(moves, self.clock.now)
        assert (None if now is None else now.version_id) == live
        # what is kept beside the moves changes nothing of where a rollback goes
        alone = [move for move in moves if move.action != "keep"]
        assert rollback_candidates(alone) == rollback_candidates(moves)

    @invariant()
    def every_decision_is_applied_once_and_told(self) -> None:
        moves = self.run(self.scene.history())
        named = [(move.evidence or {}).get("decision_id") for move in moves]
        told = Counter(decision_id for decision_id in named if decision_id is not None)
        stored = self.run(self.lab.decisions(self.scene.experiment.name, limit=100))
        applied = {each.decision_id for each in stored if each.status == "applied"}
        assert all(count == 1 for count in told.values())
        if all(move.version_id is not None for move in moves):
            assert applied <= set(told)
        standing = [each for each in stored if each.status == "pending"]
        assert len({(each.decision.action, each.decision.variants) for each in standing}) <= 1


FULL = os.environ.get("PROMPTAB_FULL_RACES") == "1"

TestRollouts = Rollouts.TestCase
TestRollouts.settings = settings(
    max_examples=150 if FULL else 8,
    stateful_step_count=30 if FULL else 18,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
