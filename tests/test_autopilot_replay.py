"""Recorded replies of a real model as live traffic under policies: nobody watches.

Questions of three sets arrive in a seeded order, a hundred an hour; each hour whatever is decided is applied. Step by
step is far better on multiarith, worse on commonsenseqa, and not to be told apart on addsub.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

import promptab
from examples.replay import Replies, create_versions, read_replies
from promptab import ExperimentStatus, Lab, Policy, PromptVariant, RampStep
from promptab.decisions.stored import StoredDecision
from tests.clock import SettableClock

PER_HOUR = 100
ENDINGS = {"promote", "rollback", "stop"}

POLICY = Policy.model_validate({"guardrails": ["success_rate >= control - 5%"], "longest_hours": 25})
RAMPED = POLICY.model_copy(
    update={"ramp": (RampStep(traffic=0.4, minimum_units=20), RampStep(traffic=1.0, minimum_units=20))}
)
"""A ramp takes time, which the sets that differ little do not have: each has but a few hundred questions."""


@pytest.fixture(scope="module")
def recorded(shared_dir: Path) -> Mapping[str, Replies]:
    return read_replies(shared_dir / "data" / "zero_shot_replies.jsonl.gz")


class Traffic:
    """The questions of some sets, in a seeded order, and what was decided about each set meanwhile."""

    def __init__(self, lab: Lab, clock: SettableClock, recorded: Mapping[str, Replies], seed: int) -> None:
        self.lab, self.clock, self.recorded, self.seed = lab, clock, recorded, seed
        self.applied: dict[str, list[StoredDecision]] = {}
        self.served: Counter[tuple[str, str]] = Counter()

    async def start(self, question_set: str, policy: Policy = POLICY, *, control: str = "1.0.0") -> None:
        await self.lab.experiments.create_experiment(
            question_set,
            "user",
            [PromptVariant("1.0.0", 50), PromptVariant("1.1.0", 50)],
            control=control,
            # a question is asked once, so what its hour brings is all there is
            plan={"window_hours": 0.5},
            policy=policy,
            salt=f"order {self.seed}",
        )
        self.applied[question_set] = []

    async def flow(self) -> None:
        """Let a hundred questions an hour arrive until every experiment has ended, and the rest after that."""
        arrivals = [(name, number) for name in self.applied for number in self.recorded[name]]
        random.Random(self.seed).shuffle(arrivals)
        for start in itertools.count(0, PER_HOUR):
            batch = arrivals[start : start + PER_HOUR]
            if not batch and all(
                decisions[-1].decision.action in ENDINGS for decisions in self.applied.values()
            ):
                return
            await asyncio.gather(*(self._ask(*question) for question in batch))
            self.clock.advance(hours=1)
            await self._watch()

    async def _ask(self, question_set: str, number: int) -> None:
        choice = await self.lab.choose(question_set, "user", user_id=number)
        assert choice.version is not None
        self.served[question_set, choice.version.version] += 1
        reply = self.recorded[question_set][number][choice.version.version]
        await choice.record(success=reply.correct)

    async def _watch(self) -> None:
        async for update in self.lab.watch(once=True):
            if update.decision is not None:
                self.applied[update.subject].append(update.decision)

    def acts(self, question_set: str) -> list[tuple[str, str]]:
        """Return what was done, and by which rule; looks at which it went on as it was are left out."""
        decisions = [stored.decision for stored in self.applied[question_set]]
        return [(one.action, one.rule) for one in decisions if one.action != "continue"]

    async def live(self, question_set: str) -> str | None:
        version = await self.lab.versions.get_version(question_set, "user", "production")
        return None if version is None else version.version


@pytest.mark.parametrize("seed", range(5))
async def test_what_is_better_is_promoted_and_the_rest_ends_without_a_person(
    recorded: Mapping[str, Replies], seed: int
) -> None:
    clock = SettableClock()
    async with promptab.open("sqlite:///:memory:", clock=clock) as lab:
        traffic = Traffic(lab, clock, recorded, seed)
        for name, policy in (("multiarith", RAMPED), ("commonsenseqa", POLICY), ("addsub", POLICY)):
            await create_versions(lab, name)
            await traffic.start(name, policy)
        await traffic.flow()

        assert traffic.acts("multiarith") == [("ramp", "ramp"), ("promote", "won")]
        assert await traffic.live("multiarith") == "1.1.0"
        assert traffic.acts("addsub") == [("stop", "deadline")]
        # where chance makes it look worse than it is, it is rolled back at once
        assert traffic.acts("commonsenseqa")[-1] in {("stop", "deadline"), ("rollback", "guardrail")}
        for name in ("commonsenseqa", "addsub"):
            assert await traffic.live(name) == "1.0.0"
            experiment = await lab.experiments.get_experiment(name)
            assert experiment is not None
            assert (experiment.status, experiment.winner) == (ExperimentStatus.STOPPED, None)
        for name in traffic.applied:
            await assert_history_bears_the_evidence(lab, name, traffic.applied[name][-1])


async def assert_history_bears_the_evidence(lab: Lab, question_set: str, last: StoredDecision) -> None:
    """The last entry of the deployment history says what was done, why, and on which numbers."""
    *_, entry = await lab.versions.deployments(question_set, "user")
    assert entry.reason == last.decision.sentence
    assert entry.action == ("promote" if last.decision.action == "promote" else "keep")
    assert entry.evidence is not None
    assert entry.evidence["decision_id"] == last.decision_id
    assert entry.evidence["policy_digest"] == last.decision.policy_digest
    estimates = entry.evidence["analysis"]["metrics"]["success_rate"]["estimates"]
    assert min(estimates[number]["units"] for number in ("1.0.0", "1.1.0")) >= 30
    (guard,) = entry.evidence["analysis"]["guards"]
    assert guard["guardrail"] == POLICY.guardrails[0].text


@pytest.mark.parametrize("seed", range(3))
async def test_a_version_that_is_worse_is_rolled_back_long_before_its_time(
    recorded: Mapping[str, Replies], seed: int
) -> None:
    """Multiarith the other way round: step by step is live, and answering at once is tried."""
    clock = SettableClock()
    async with promptab.open("sqlite:///:memory:", clock=clock) as lab:
        traffic = Traffic(lab, clock, recorded, seed)
        versions = await create_versions(lab, "multiarith")
        await lab.versions.promote(versions["1.1.0"].version_id, reason="better")
        await traffic.start("multiarith", control="1.1.0")
        await traffic.flow()

        assert traffic.acts("multiarith")[-1] == ("rollback", "guardrail")
        assert await traffic.live("multiarith") == "1.1.0"
        assert traffic.served["multiarith", "1.0.0"] < 60
        assert sum(traffic.served.values()) == len(recorded["multiarith"])
        *_, entry = await lab.versions.deployments("multiarith", "user")
        assert entry.evidence is not None
        assert entry.evidence["rule"] == "guardrail"
        assert entry.evidence["variants"] == ["1.0.0"]
        assert entry.evidence["numbers"]["p_value"] <= entry.evidence["numbers"]["alpha"] == 0.05
