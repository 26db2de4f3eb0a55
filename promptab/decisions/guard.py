"""A guard: what is watched after a promotion, since when, and what has come of it."""

from __future__ import annotations

from typing import Literal, NamedTuple

from promptab.analysis.uncarried import TOLD_AFTER
from promptab.decisions.decision import Decision
from promptab.guardrails import Guardrail
from promptab.models import Environment, PromptType
from promptab.plan import AnalysisPlan
from promptab.policy import Policy
from promptab.records import Record, Utc
from promptab.stats.interval import Side
from promptab.stats.metric import MetricDefinition
from promptab.stats.summary import UnitSums

GuardStatus = Literal["watching", "kept", "rolled_back", "moved"]
"""What has come of it:

- `watching`: it may still roll back
- `kept`: its time has passed without a guardrail that failed
- `rolled_back`: a guardrail failed, and the version was taken out
- `moved`: somebody moved the environment, or promoted the version again, so that there is nothing left to guard
"""


GUARD = "guard"
"""The key by which the inputs of a decision about a guard are told from those about an experiment."""

FEW_UNITS = 100
"""Up to so many units each is read by itself: methods for few units want them."""


class PastEvent(NamedTuple):
    """An event of the version before that carried a metric."""

    unit: int
    """The same for events of one unit."""
    n: float
    """1, or of a ratio what the denominator had."""
    s: float


def definition_of(guardrail: Guardrail) -> MetricDefinition:
    """Return what its metric is: built in, or a mean."""
    known = AnalysisPlan().definition(guardrail.metric)
    if guardrail.direction is None:
        return known
    return known.model_copy(update={"direction": guardrail.direction})


class GuardBound(Record):
    """Where one guardrail draws the line: settled at the first look, and the same at every later one."""

    guardrail: str
    """As a line."""
    metric: str
    claim: Side
    """The side of the bound on which it has failed."""
    bound: float | None
    """In the metric's own unit; of a quantile the share of single values that may lie beyond `threshold`. None where
    nothing is known that it could be held against."""
    threshold: float | None = None
    beyond: Side = "greater"
    """Of a quantile: the values that are counted are those on this side of the threshold."""
    alpha: float
    """The chance that this guardrail fails although it is kept, over all looks, beside that of `bound` itself."""
    previous: float | None = None
    """What the version before had, of a guardrail that is relative to it."""
    previous_units: int = 0
    detail: str = ""
    """Where the bound comes from, or why there is none; empty for one that the guardrail names itself."""


class Weighed(NamedTuple):
    """One bound, and the metric that is held against it."""

    bound: GuardBound
    definition: MetricDefinition


class GuardTally(Record):
    """What the guarded version's outcomes since the promotion add up to, for one bound."""

    sums: UnitSums = UnitSums()
    """Of a quantile: of ones for the values that are beyond its threshold, and zeros for the others."""
    single_events: int = 0
    """Units that are an event each, since it names none."""
    events: int = 0
    """Of the version since the promotion, with the metric or without."""
    scores: tuple[float, ...] | None = None
    """In the order of their arrival, where there are few and each is one of a unit."""
    units: tuple[tuple[float, float], ...] | None = None
    """(n, s) of each unit, of a rate of which a few units have several outcomes."""


class Guard(Record):
    """A version that is watched since it was promoted, and is taken back once a guardrail has failed."""

    guard_id: str
    prompt_type: PromptType
    name: str
    environment: Environment
    version_id: str
    version: str
    previous_version_id: str
    """What was live before."""
    previous_version: str
    policy: Policy
    policy_digest: str
    since: Utc
    until: Utc | None
    """None: until the environment is moved."""
    status: GuardStatus = "watching"
    ended_at: Utc | None = None
    detail: str = ""
    """Why it ended, as a sentence."""
    bounds: tuple[GuardBound, ...] | None = None
    """None before the first look."""
    tallies: tuple[GuardTally, ...] = ()
    """In the order of the bounds."""
    watermark: int
    """The last event that is in the tallies."""

    @property
    def weigh_rates(self) -> tuple[bool, ...]:
        """Whether each bound is one of a rate, quantiles included; empty before the first look."""
        pairs = zip(self.bounds or (), self.policy.guardrails, strict=False)
        return tuple(
            bound.threshold is not None or definition_of(guardrail).is_rate for bound, guardrail in pairs
        )

    @property
    def prompt(self) -> str:
        return f"{self.prompt_type}/{self.name}"

    @property
    def label(self) -> str:
        return f"{self.prompt}@{self.version}"

    @property
    def uncarried(self) -> tuple[str, ...]:
        """The metrics that none of its events carries, once there are enough of them; each once."""
        return tuple(
            dict.fromkeys(
                bound.metric
                for bound, tally in zip(self.bounds or (), self.tallies, strict=True)
                if bound.bound is not None and not tally.sums.n and tally.events >= TOLD_AFTER
            )
        )


class GuardEvidence(Record):
    """What a decision about a guard is made from."""

    guard_id: str
    prompt: str
    environment: Environment
    version: str
    previous_version: str
    until: Utc | None
    bounds: tuple[GuardBound, ...]
    tallies: tuple[GuardTally, ...]

    @classmethod
    def of(cls, guard: Guard) -> GuardEvidence:
        """Take it from a guard that has been looked at."""
        return cls(
            guard_id=guard.guard_id,
            prompt=guard.prompt,
            environment=guard.environment,
            version=guard.version,
            previous_version=guard.previous_version,
            until=guard.until,
            bounds=guard.bounds or (),
            tallies=guard.tallies,
        )


def is_about_guard(decision: Decision) -> bool:
    """Whether it is about a guarded version: its `experiment_id` is the guard's id, its `experiment` the prompt."""
    return decision.inputs is not None and GUARD in decision.inputs.analysis
