"""Whole streams under a policy: which are rolled back or promoted, and when that is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

from promptab.analysis.analyzing import analyze
from promptab.decisions.deciding import decide
from promptab.decisions.decision import Action, DecisionState
from promptab.gathering import single_units
from promptab.guardrails import Guardrail
from promptab.policy import Policy
from tests.calibration.outcomes import Bools
from tests.calibration.streams import LEVELS, PLAN, Stream, streams
from tests.calibration.sums import ARMS
from tests.calibration.tally import Tally
from tests.calibration.verdicts import Watch
from tests.outcomes import NOON, START, evidence_of

EVERY = (5, 50)
"""Units between two looks."""
UNITS = 20_000
"""Of both arms, at the end of a stream."""

Situation = Literal["no effect", "at the margin"]


class Watched(NamedTuple):
    """A policy: what is to be better, and what must not be worse."""

    primary: str
    guardrails: tuple[str, ...]

    @property
    def policy(self) -> Policy:
        return Policy.model_validate({"primary_metric": self.primary, "guardrails": self.guardrails})

    @property
    def label(self) -> str:
        return f"{self.primary}; {', '.join(self.guardrails)}"


class Rollouts(NamedTuple):
    """One kind of stream."""

    situation: Situation
    events: int
    """Per unit: 1, or the mean of a geometric count."""


EVENTS_OF_UNITS = (1, 10)
KINDS = tuple(Rollouts(situation, events) for situation in get_args(Situation) for events in EVENTS_OF_UNITS)

CONTROLS: Mapping[Situation, Mapping[str, float]] = {
    "no effect": LEVELS,
    "at the margin": {
        "success_rate": LEVELS["success_rate"] / 0.95,
        "refusal_rate": LEVELS["refusal_rate"] - 0.02,
        "response_time": LEVELS["response_time"] / 1.1,
        "cost_per_success": LEVELS["cost_per_success"] / 1.1,
        "relevance": LEVELS["relevance"] / 0.9,
        "rating": LEVELS["rating"] - 0.4,
    },
}
"""What the control comes to: the same, or as much better as each guardrail just allows; only on the rating, which
decides there, it is worse.
"""

_SINGLE: Mapping[Situation, tuple[str, ...]] = {
    "no effect": (
        "success_rate >= 0.9",
        "success_rate >= control",
        "refusal_rate <= 0.05",
        "refusal_rate <= control",
        "response_time <= 1.2",
        "response_time <= control",
        "cost_per_success <= 0.004",
        "relevance >= 0.7",
        "relevance >= control",
    ),
    "at the margin": (
        "success_rate >= 0.9",
        "success_rate >= control - 5%",
        "refusal_rate <= 0.05",
        "refusal_rate <= control + 0.02",
        "response_time <= 1.2",
        "response_time <= control + 10%",
        "cost_per_success <= control + 10%",
        "relevance >= 0.7",
        "relevance >= control - 10%",
    ),
}

_SEVERAL: Mapping[Situation, tuple[Watched, ...]] = {
    "no effect": (
        Watched(
            "success_rate", ("success_rate >= control", "response_time <= control", "refusal_rate <= 0.05")
        ),
        Watched(
            "response_time",
            (
                "success_rate >= control",
                "refusal_rate <= control",
                "response_time <= control",
                "cost_per_success <= control",
                "relevance >= control",
            ),
        ),
        Watched(
            "rating",
            (
                "success_rate >= 0.9",
                "success_rate >= control",
                "refusal_rate <= control",
                "response_time <= 1.2",
                "relevance >= 0.7",
            ),
        ),
    ),
    "at the margin": (
        Watched(
            "rating",
            ("success_rate >= control - 5%", "response_time <= control + 10%", "refusal_rate <= 0.05"),
        ),
        Watched(
            "rating",
            (
                "success_rate >= 0.9",
                "success_rate >= control - 5%",
                "refusal_rate <= control + 0.02",
                "response_time <= control + 10%",
                "relevance >= control - 10%",
            ),
        ),
    ),
}


def watched(situation: Situation) -> list[Watched]:
    """Return the policies of a table: every kind of guardrail by itself, then three and five of them."""
    single = []
    for line in _SINGLE[situation]:
        guarded = Guardrail.model_validate(line).metric
        # where nothing differs what is guarded decides as well; a bound would only get in the way of that
        primary = guarded if situation == "no effect" and "control" in line else "rating"
        single.append(Watched(primary, (line,)))
    return [*single, *_SEVERAL[situation]]


def rollouts(
    kind: Rollouts,
    policies: Sequence[Watched],
    *,
    runs: int,
    seed: int,
    units: int = UNITS,
) -> Tally:
    """Count the streams that end wrongly under each policy, with a look after every 5 and after every 50 units.

    Names are "LABEL: rollback every 5" and the like; "LABEL: careless" are those in which a one-sided z test of any
    guardrail, at 5 % and from 30 units an arm on, alarms at any look after every 5 units.
    """
    controls = CONTROLS[kind.situation]
    tally = Tally()
    for stream in streams(controls, events=kind.events, units=units, every=EVERY[0], runs=runs, seed=seed):
        watch = Watch(stream)
        found: set[str] = set()
        for one in policies:
            asked = looks_to_ask(watch, one)
            for every in EVERY:
                action = first_action(stream, one, asked, every=every)
                if action is not None:
                    found.add(f"{one.label}: {action[1]} every {every}")
            if any(watch.careless(Guardrail.model_validate(line)).any() for line in one.guardrails):
                found.add(f"{one.label}: careless")
        tally.add(found)
    return tally


def looks_to_ask(watch: Watch, one: Watched) -> Bools:
    """Say at which looks something may be rolled back or promoted."""
    guardrails = [Guardrail.model_validate(line) for line in one.guardrails]
    share = one.policy.guardrail_alpha / len(guardrails)
    failed = np.any([watch.fails(guardrail, share) for guardrail in guardrails], axis=0)
    passed = np.all([watch.passes(guardrail) for guardrail in guardrails], axis=0)
    asked: Bools = failed | (passed & watch.better(one.primary))
    return asked


def first_action(stream: Stream, one: Watched, asked: Bools, *, every: int) -> tuple[int, Action] | None:
    """Return the first look, with what is done there, at which `decide` rolls back or promotes."""
    step = every // stream.every
    for look in np.flatnonzero(asked[step - 1 :: step]) * step + step - 1:
        action = action_at(stream, one, int(look))
        if action in {"rollback", "promote"}:
            return int(look), action
    return None


def action_at(stream: Stream, one: Watched, look: int) -> Action:
    """Analyse and decide as at this look."""
    policy = one.policy
    names = dict.fromkeys([one.primary, *(Guardrail.model_validate(line).metric for line in one.guardrails)])
    sums = {
        name: {key: {0: stream.sums[name].at(arm, look)} for arm, key in enumerate(ARMS)} for name in names
    }
    units = {name: stream.single_units(name, look) for name in names if single_units(sums[name])}
    exposed = dict(zip(ARMS, stream.exposed(look).tolist(), strict=True))
    evidence = evidence_of(
        sums,
        policy,
        primary_metric=one.primary,
        plan=PLAN,
        weights={0: {"control": 1.0 - stream.share, "treatment": stream.share}},
        units=units,
        exposed=exposed,
    )
    analysis = analyze(evidence, policy=policy)
    return decide(analysis, policy, NOON, DecisionState(started_at=START)).action
