"""What came of a case on one version."""

from __future__ import annotations

from typing import Literal

from promptab.records import Record, Utc

CaseStatus = Literal["passed", "failed", "error", "not_run"]
"""`failed`: the prompt did not render, or the answer is not as expected. `error`: there was no answer to judge, which
says nothing of the version. `not_run`: the cost ceiling was reached before.
"""

MAX_KEPT_CHARS = 2_000
"""Of an answer, in a result."""


class CaseResult(Record):
    """One case, tried on one version once. Those that passed or failed are kept, the latest of each."""

    name: str
    """Of the case."""
    digest: str
    """`digest_of` the case as it was tried."""
    status: CaseStatus
    reasons: tuple[str, ...] = ()
    """What was not met, or why there is no answer."""
    answer: str | None = None
    """At most the first `MAX_KEPT_CHARS` characters."""
    model: str | None = None
    """The model that was asked."""
    cost: float | None = None
    """US dollars; None where it is not known."""
    seconds: float | None = None
    at: Utc | None = None
    """None where nothing was asked."""

    @property
    def is_verdict(self) -> bool:
        """Whether it says something of the version."""
        return self.status in {"passed", "failed"}
