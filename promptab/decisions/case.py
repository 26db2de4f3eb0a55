"""What a decision is made on, as its rules ask for it, and what a rule answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from promptab.analysis.result import AnalysisResult, Check, GuardReading, MetricAnalysis
from promptab.decisions.decision import Action, Consent, DecisionState, Rule
from promptab.policy import Policy

MISMATCHES = frozenset({"sample_ratio", "missing_outcomes"})


class Found(NamedTuple):
    """What a rule answers."""

    action: Action
    rule: Rule
    sentence: str
    numbers: Mapping[str, float | int | None] = {}
    variants: tuple[str, ...] = ()
    consent: Consent = "none"
    step: int | None = None


class Case(NamedTuple):
    """One look at one experiment."""

    analysis: AnalysisResult
    policy: Policy
    now: datetime
    state: DecisionState

    @property
    def candidates(self) -> list[str]:
        """The variants that may still be promoted, in the experiment's order."""
        out = {self.analysis.control, *self.state.withdrawn}
        return [key for key in self.analysis.units if key not in out]

    @property
    def served(self) -> list[str]:
        """Those of them that get new units: what a person has set to weight 0 is watched, and not promoted."""
        return [key for key in self.candidates if key not in self.state.resting]

    @property
    def live(self) -> list[str]:
        """Those of them whose version somebody has brought into production meanwhile."""
        return [key for key in self.candidates if key in self.state.in_production]

    @property
    def primary(self) -> MetricAnalysis:
        """The primary metric, as it compares the candidates."""
        return self.primary_of(self.candidates)

    def primary_of(self, keys: Sequence[str]) -> MetricAnalysis:
        """The primary metric, as it compares these variants."""
        primary = self.analysis.metrics[self.analysis.primary_metric]
        return primary.model_copy(update={"differences": {key: primary.differences[key] for key in keys}})

    @property
    def guards(self) -> list[GuardReading]:
        return [guard for guard in self.analysis.guards if guard.variant in self.candidates]

    def hours(self, since: datetime) -> float:
        return (self.now - since) / timedelta(hours=1)

    @property
    def age_hours(self) -> float:
        return self.hours(self.state.started_at)

    @property
    def is_over(self) -> bool:
        longest = self.policy.longest_hours
        return self.state.off_schedule or (longest is not None and self.age_hours >= longest)

    def failed_checks(self, *names: str) -> list[Check]:
        """Return those that fail for the experiment as a whole, for its control or for a candidate."""
        among = {self.analysis.control, *self.candidates}
        return [
            check
            for check in self.analysis.checks
            if not check.passed and check.name in names and (not check.variants or among & {*check.variants})
        ]

    @property
    def mismatches(self) -> list[Check]:
        return self.failed_checks(*MISMATCHES)

    def pauses_for(self, ground: str) -> bool:
        """Whether this is anything to pause for: not what somebody has let it go on in spite of."""
        return self.is_over or not (self.state.paused or ground in self.state.paused_for)

    @property
    def over(self) -> str:
        """Why it is over, as the beginning of a sentence."""
        if self.state.off_schedule:
            return "Its schedule has ended"
        return f"The longest duration, {self.policy.longest_hours or 0.0:g} hours, has passed"
