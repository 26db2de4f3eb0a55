"""Values that no wrapper of a client sees, told by hand: `promptab.track_llm_call` and its like.

They go to whoever exports them, as `promptab.integrations.prometheus` does, and nowhere else: they name no unit, so
they are no events and count in no analysis. Who exports is a fact of the process, as with logging, so that code deep
in a program can tell without being handed a lab. Every function may be called from any thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import NamedTuple, Protocol, SupportsFloat

from promptab.checks import (
    MAX_MEASURE,
    check_count,
    check_flag,
    check_items,
    check_label,
    check_mapping,
    check_number,
)
from promptab.errors import InvalidInputError
from promptab.measures import MAX_TOKENS

logger = logging.getLogger("promptab")

MAX_SIMILARITIES = 10_000


class Labels(NamedTuple):
    """What a value is counted under; "" is none."""

    experiment: str = ""
    variant: str = ""
    version: str = ""


class LlmCall(NamedTuple):
    """One call of a model. What is None is not known."""

    labels: Labels
    model: str
    agent: str
    success: bool
    seconds: float | None
    input_tokens: int | None
    output_tokens: int | None
    cost: float | None
    """US dollars."""


class RagRetrieval(NamedTuple):
    """One search for documents."""

    labels: Labels
    agent: str
    similarities: tuple[float, ...]
    """Of the documents that were found, one each."""
    seconds: float | None


class CacheOperation(NamedTuple):
    """One use of a cache."""

    labels: Labels
    operation: str
    cache_type: str
    hit: bool | None
    """None for an operation that does not look anything up."""
    seconds: float | None


class Tracker(Protocol):
    """Exports what is tracked. It is called in the thread that tracks, and returns at once."""

    def llm_call(self, call: LlmCall) -> None: ...

    def rag_retrieval(self, retrieval: RagRetrieval) -> None: ...

    def cache_operation(self, operation: CacheOperation) -> None: ...


class _Trackers:
    """The exporters of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._trackers: tuple[Tracker, ...] = ()

    def add(self, tracker: Tracker) -> None:
        with self._lock:
            self._trackers = (*self._trackers, tracker)

    def remove(self, tracker: Tracker) -> None:
        with self._lock:
            self._trackers = tuple(known for known in self._trackers if known is not tracker)

    def tell(self, what: Callable[[Tracker], None]) -> None:
        for tracker in self._trackers:
            try:
                what(tracker)
            except Exception:  # anything: an exporter is no part of what is tracked
                logger.exception("an exporter failed: %s", type(tracker).__name__)


_TRACKERS = _Trackers()


def add_tracker(tracker: Tracker) -> None:
    """Tell this one too, from now on, of all that is tracked in the process."""
    _TRACKERS.add(tracker)


def remove_tracker(tracker: Tracker) -> None:
    """Tell it no more; one that is not told does not matter."""
    _TRACKERS.remove(tracker)


def track_llm_call(
    *,
    model: str,
    agent: str = "",
    input_tokens: int | None = None,
    output_tokens: int | None = None,
    duration: float | None = None,
    cost: float | None = None,
    success: bool = True,
    labels: Mapping[str, str] | None = None,
) -> None:
    """Count a call of a model that promptab did not see. `lab.complete`, `lab.stream` and `choice.call()` count by
    themselves.

    `duration` is in seconds, `cost` in US dollars: where it is left out and both counts are given, the exporter looks
    the price of `model` up (`gpt-4.1-mini`, or `openai/gpt-4.1-mini`). `labels` may name `experiment`, `variant` and
    `version`: `Choice.labels` has all of them. Raises `InvalidInputError`.
    """
    call = LlmCall(
        labels=_labels(labels),
        model=check_label("model", model),
        agent=_optional_label("agent", agent),
        success=check_flag("success", success),
        seconds=_seconds("duration", duration),
        input_tokens=_tokens("input_tokens", input_tokens),
        output_tokens=_tokens("output_tokens", output_tokens),
        cost=None if cost is None else check_number("cost", cost, low=0.0, high=MAX_MEASURE),
    )
    _TRACKERS.tell(lambda tracker: tracker.llm_call(call))


def track_rag_retrieval(
    *,
    agent: str = "",
    similarity_scores: Iterable[SupportsFloat] = (),
    duration: float | None = None,
    labels: Mapping[str, str] | None = None,
) -> None:
    """Count a search for documents. `similarity_scores` has one finite number for each document that was found, none
    for a search that found nothing, and 10,000 at most; `duration` is in seconds. `labels` as in `track_llm_call`.
    """
    scores = check_items("similarity_scores", similarity_scores)
    if len(scores) > MAX_SIMILARITIES:
        raise InvalidInputError("similarity_scores", len(scores), f"at most {MAX_SIMILARITIES} numbers")
    retrieval = RagRetrieval(
        labels=_labels(labels),
        agent=_optional_label("agent", agent),
        similarities=tuple(_similarity(index, score) for index, score in enumerate(scores)),
        seconds=_seconds("duration", duration),
    )
    _TRACKERS.tell(lambda tracker: tracker.rag_retrieval(retrieval))


def track_cache_operation(
    *,
    operation: str,
    cache_type: str = "",
    latency_ms: float | None = None,
    hit: bool | None = None,
    labels: Mapping[str, str] | None = None,
) -> None:
    """Count a use of a cache: `operation` is such as `get` or `set`, `hit` what came of a look-up, `latency_ms` in
    milliseconds. `labels` as in `track_llm_call`.
    """
    latency = _seconds("latency_ms", latency_ms)
    done = CacheOperation(
        labels=_labels(labels),
        operation=check_label("operation", operation),
        cache_type=_optional_label("cache_type", cache_type),
        hit=None if hit is None else check_flag("hit", hit),
        seconds=None if latency is None else latency / 1_000,
    )
    _TRACKERS.tell(lambda tracker: tracker.cache_operation(done))


def _labels(labels: Mapping[str, str] | None) -> Labels:
    given = check_mapping("labels", {} if labels is None else labels)
    if unknown := [name for name in given if name not in Labels._fields]:
        raise InvalidInputError("labels", unknown[0], f"one of {', '.join(Labels._fields)}")
    return Labels(**{name: _optional_label(f"labels[{name}]", value) for name, value in given.items()})


def _optional_label(field: str, value: object) -> str:
    return "" if value == "" else check_label(field, value)


def _similarity(index: int, score: object) -> float:
    # what computes them has numbers of its own, such as those of numpy, that are real but no float
    number = float(score) if type(score) is not bool and isinstance(score, Real) else score
    return check_number(f"similarity_scores[{index}]", number, low=-MAX_MEASURE, high=MAX_MEASURE)


def _seconds(field: str, value: float | None) -> float | None:
    return None if value is None else check_number(field, value, low=0.0, high=MAX_MEASURE)


def _tokens(field: str, value: int | None) -> int | None:
    return None if value is None else check_count(field, value, high=MAX_TOKENS)
