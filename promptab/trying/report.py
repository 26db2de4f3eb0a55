"""What a trial of a version found."""

from __future__ import annotations

from promptab.cases import CaseResult, CaseStatus
from promptab.records import Record


class TriedCase(Record):
    """One case on the version, and on the one that is live."""

    name: str
    result: CaseResult
    live: CaseResult | None = None
    """None where nothing else is live, or it was not to be compared; the result may be an earlier one."""

    @property
    def is_step_back(self) -> bool:
        """Whether it passes on what is live and fails on the version."""
        return self.result.status == "failed" and self.live is not None and self.live.status == "passed"


class CaseReport(Record):
    """Every case of a prompt, tried on one version."""

    prompt: str
    """`type/name`."""
    version: str
    live: str | None
    """The version that it was compared with."""
    cases: tuple[TriedCase, ...]
    """In the order of the prompt."""
    calls: int
    """Requests to a model, those on what is live included."""
    cost: float
    """US dollars of the calls whose cost is known."""
    calls_of_unknown_cost: int

    @property
    def all_passed(self) -> bool:
        return all(case.result.status == "passed" for case in self.cases)

    @property
    def steps_back(self) -> tuple[str, ...]:
        """Names of the cases that pass on what is live and fail on this version."""
        return tuple(case.name for case in self.cases if case.is_step_back)

    def count(self, status: CaseStatus) -> int:
        return sum(case.result.status == status for case in self.cases)
