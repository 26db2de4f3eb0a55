"""A decision in the store: what it was made on, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Literal

from pydantic import Field

from promptab.decisions.decision import Decision, DecisionState
from promptab.models import ExperimentStatus, PromptExperiment
from promptab.records import Json, Record, Utc

DecisionStatus = Literal["noted", "pending", "awaiting_approval", "by_hand", "applied", "superseded"]
"""What became of it:

- `noted`: there is nothing to be done
- `pending`: it may be applied
- `awaiting_approval`: it is applied once somebody approves
- `by_hand`: it is told, and a person acts: by approving it, or otherwise
- `applied`
- `superseded`: it never will be, as something has moved since, or a newer decision has taken its place
"""

OPEN_STATUSES: frozenset[DecisionStatus] = frozenset({"pending", "awaiting_approval", "by_hand"})
"""Those of decisions of which something may still come."""


class RolloutProgress(Record):
    """How far decisions and people have brought an experiment."""

    number: int = 0
    """Raised by every decision that is applied and by every move of a person: equal, and nothing has moved."""
    step: int = 0
    """The ramp step in force, from 0; of no meaning without a ramp."""
    step_since: Utc | None = None
    step_units: Mapping[str, int] = Field(default_factory=dict)
    """Units by variant that had been exposed when the step began, of those that are read."""
    withdrawn: tuple[str, ...] = ()
    """Variants that have been rolled back or evicted."""
    paused_for: tuple[str, ...] = ()
    """What it has been paused for by itself; it is not paused for the same again."""

    def decision_state(
        self, experiment: PromptExperiment, now: datetime, *, live: str | None = None
    ) -> DecisionState:
        """Return the state that a decision on this experiment is made from at `now`. It has started.

        `live` is the number of the version in production of its prompt. What it has lasted counts from when its
        schedule has it serve.
        """
        began = experiment.policy_since or experiment.started_at
        assert began is not None  # noqa: S101 - the caller has made sure that it runs or is paused
        if experiment.starts_at is not None:
            began = max(began, min(experiment.starts_at, now))
        return DecisionState(
            started_at=began,
            step=self.step,
            step_since=None if self.step_since is None else max(self.step_since, began),
            step_units=self.step_units,
            withdrawn=self.withdrawn,
            resting=tuple(key for key, share in experiment.traffic_split.items() if not share),
            in_production=_serving(experiment, live),
            paused_for=self.paused_for,
            paused=experiment.status == ExperimentStatus.PAUSED,
            live_beside=_beside(experiment, live),
            off_schedule=experiment.has_ended(now - timedelta(hours=experiment.plan.window_hours or 0.0)),
        )


def _serving(experiment: PromptExperiment, live: str | None) -> tuple[str, ...]:
    """Return the variants that serve this version; none where the control does."""
    keys = [each.key for each in experiment.variants if live is not None and each.version == live]
    return () if experiment.control in keys else tuple(keys)


def _beside(experiment: PromptExperiment, live: str | None) -> str | None:
    """Return this version where variants serve others; configurations alone are dealt beside whatever is live."""
    served = {each.version for each in experiment.variants} - {None}
    return live if served and live not in served else None


class Standing(Record):
    """Where an experiment stands: what a decision is made on, and what has to be so still when it is applied."""

    number: int
    """Of its `RolloutProgress`."""
    status: ExperimentStatus
    policy_digest: str | None
    epoch: int
    """The number of its latest map of weights; 0 before the start, and of a bandit."""
    weights: Mapping[str, float]
    """Of a bandit none: its weights are no ground of a decision."""
    traffic: float
    production_id: str | None
    """version_id of what is live in production of its prompt."""
    production: str | None
    """The number of that version."""

    def moved(self, now: Standing) -> str | None:
        """Return what has moved until `now`, as a sentence without its full stop; None where nothing has."""
        if now == self:
            return None
        told = {
            f"production is {now.production or 'empty'} now and was {self.production or 'empty'}": (
                now.production_id != self.production_id
            ),
            f"the experiment is {now.status} now and was {self.status}": now.status != self.status,
            "its policy is another one now": now.policy_digest != self.policy_digest,
            "its weights have changed": (now.epoch, now.weights) != (self.epoch, self.weights),
            f"its traffic is {now.traffic:.3g} now and was {self.traffic:.3g}": now.traffic != self.traffic,
        }
        return "; ".join(what for what, has in told.items() if has) or "somebody has moved it since"


class StoredDecision(Record):
    """A decision, and what became of it."""

    sequence: int
    """Order of decisions in the store; later is larger."""
    decision_id: str
    decision: Decision
    standing: Standing | None
    """What it was made on; None where there is nothing that could move."""
    status: DecisionStatus
    settled_at: Utc | None = None
    """When it was applied or superseded."""
    actor: str | None = None
    """Who applied it, or approved it."""
    detail: str = ""
    """What applying it did, or what superseded it, as a sentence."""
    effects: Json = Field(default_factory=dict)
    """What applying it did: `deployment` (the sequence of the entry), `withdrawn`, `deprecated`, and such."""
    seen: int = 1
    """How often the same was decided from the same inputs, one look after the other."""
    seen_at: Utc
    """The last time."""

    @property
    def is_open(self) -> bool:
        return self.status in OPEN_STATUSES

    def settled(
        self,
        status: DecisionStatus,
        *,
        at: datetime,
        detail: str,
        actor: str | None = None,
        effects: Json | None = None,
    ) -> StoredDecision:
        """Return it as applied or superseded."""
        return self.model_copy(
            update={
                "status": status,
                "settled_at": at,
                "detail": detail,
                "actor": actor,
                "effects": effects or {},
            }
        )
