"""A decision, and what it was made from: stored whether it was applied or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from promptab.records import Json, Record, Utc

Action = Literal["continue", "ramp", "promote", "rollback", "pause", "stop"]
Rule = Literal[
    "mismatch",
    "guardrail",
    "all_withdrawn",
    "paused",
    "won",
    "worse",
    "no_effect",
    "deadline",
    "ramp",
    "undecided",
    "override",
    "policy",
]
"""What led to it:

- `mismatch`: units were not dealt as the weights say, or outcomes are lost unevenly
- `guardrail`: a variant is shown to have failed one
- `all_withdrawn`: every variant but the control has been rolled back or evicted
- `paused`: nothing is served, so nothing grows or is promoted
- `won`: a variant is better by enough, with every check and guardrail passed and the ramp behind it
- `worse`: every variant is shown to be worse than the control, or what somebody has promoted meanwhile is
- `no_effect`: for every variant the smallest effect that is worth having is excluded
- `deadline`: the longest duration has passed, or the schedule has ended, without a winner
- `ramp`: the step has lasted long enough, and nothing speaks against the next one
- `undecided`: none of these
- `override`: a person does it, for a reason of their own
- `policy`: a person has put another policy into force, and a new analysis begins
"""

Consent = Literal["none", "approval", "by_hand"]
"""Who has to agree before it is applied: nobody, somebody who approves it, or whoever does it, as nothing does it by
itself.
"""


class DecisionState(Record):
    """How far an experiment has come, as the one who applies decisions left it."""

    started_at: Utc
    step: int = 0
    """The ramp step in force, from 0; of no meaning without a ramp."""
    step_since: Utc | None = None
    """None: since the start."""
    step_units: Mapping[str, int] = Field(default_factory=dict)
    """Exposed units by variant when the step began; none where left out."""
    withdrawn: tuple[str, ...] = ()
    """Variants that have been rolled back or evicted."""
    resting: tuple[str, ...] = ()
    """Variants with weight zero: they keep their units and get no new ones. They are watched, and not
    promoted."""
    in_production: tuple[str, ...] = ()
    """Variants whose version is live in production, where the control serves another one."""
    paused_for: tuple[str, ...] = ()
    """What it has been paused for, as `grounds_of_pause` names it. Whoever let it go on knew: never for that again."""
    paused: bool = False
    off_schedule: bool = False
    """Whether its schedule has ended, and the measurement windows of its last units have closed."""
    live_beside: str | None = None
    """The version that is live in production, where no variant serves it: no winner was compared with that."""


class DecisionInputs(Record):
    """Everything that a decision was made from, as a document: `redecide` makes the same decision of it."""

    analysis: Json
    policy: Json
    now: Utc
    state: DecisionState


class Decision(Record):
    """What is to be done, and why."""

    experiment_id: str
    experiment: str
    """The experiment's name."""
    at: Utc
    action: Action
    rule: Rule
    variants: tuple[str, ...] = ()
    """The one to promote, those to roll back, or the one that has won where its experiment stops or goes on; else
    empty."""
    consent: Consent = "none"
    step: int | None = None
    """Of a ramp: the step to go to."""
    traffic: float | None = None
    """Of a ramp: the traffic of that step."""
    numbers: Mapping[str, float | int | None]
    """Those that the rule went by, by name."""
    sentence: str
    policy_digest: str | None
    """None where a person decided about an experiment that has no policy."""
    inputs: DecisionInputs | None
    """None where a person decided."""
