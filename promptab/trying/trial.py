"""How a version is to be tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Required, TypedDict

from promptab.cases import CaseResult
from promptab.checks import check_count, check_number

LENGTHS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
"""What the protocols call the greatest length of an answer."""


class Trying(TypedDict, total=False):
    """What `Lab.test` takes beside what to try; see `Trial`."""

    client: Required[object]
    api: str | None
    model: str | None
    max_tokens: int | None
    max_cost: float | None
    concurrency: int
    timeout: float
    allow_python: bool
    on_plan: Callable[[int], object]
    on_result: Callable[[CaseResult], object]


def _nobody(*_: object) -> None:
    """Listen to nothing."""


@dataclass(frozen=True, slots=True)
class Trial:
    """How a version is to be tried on its cases; `InvalidInputError` for a value out of its bounds."""

    client: object
    """`AsyncOpenAI` or `AsyncAnthropic`."""
    api: str | None = None
    """`chat` or `responses`, for OpenAI."""
    model: str | None = None
    """In place of the versions' own."""
    max_tokens: int | None = None
    """The greatest length of an answer, in place of the versions' own."""
    max_cost: float | None = None
    """US dollars for the whole trial."""
    concurrency: int = 4
    """Requests at the same time, 1 to 100."""
    timeout: float = 60.0
    """Seconds for one answer, the client's own retries included; up to 3600."""
    allow_python: bool = False
    on_plan: Callable[[int], object] = _nobody
    """Is told how many results there will be."""
    on_result: Callable[[CaseResult], object] = _nobody
    """Is told each result as it comes."""

    def __post_init__(self) -> None:
        check_count("concurrency", self.concurrency, low=1, high=100)
        check_number("timeout", self.timeout, above=0.0, high=3600.0)
        if self.max_cost is not None:
            check_number("max_cost", self.max_cost, low=0.0)
        if self.max_tokens is not None:
            check_count("max_tokens", self.max_tokens, low=1)
