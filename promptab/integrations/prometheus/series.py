"""The metrics by name, and their series by label set: so many, and no more."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram

logger = logging.getLogger("promptab")

T = TypeVar("T")

OTHER = "other"
"""What each label is past the bound."""

LLM = ("experiment", "variant", "version", "model", "agent")
RAG = ("agent", "experiment", "variant", "version")
CACHE = ("operation", "cache_type", "experiment", "variant", "version")

_CACHE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_SIMILARITY_BUCKETS = tuple(tenth / 10 for tenth in range(11))


class Families:
    """Makes metrics in a registry, and takes them out again."""

    def __init__(self, registry: CollectorRegistry, namespace: str) -> None:
        self._registry = registry
        self._namespace = namespace
        self._made: list[Counter | Histogram] = []

    def counter(self, name: str, what: str, labels: Sequence[str]) -> Counter:
        made = Counter(name, what, labels, namespace=self._namespace, registry=self._registry)
        self._made.append(made)
        return made

    def histogram(self, name: str, what: str, labels: Sequence[str], buckets: Sequence[float]) -> Histogram:
        made = Histogram(
            name, what, labels, namespace=self._namespace, registry=self._registry, buckets=buckets
        )
        self._made.append(made)
        return made

    def unregister(self) -> None:
        while self._made:
            self._registry.unregister(self._made.pop())


class LabelSets(Generic[T]):
    """The first so many label sets with their series; whatever comes later is `other` in every label.

    Looked up in any thread, as the metrics themselves are.
    """

    def __init__(
        self, what: str, labels: Sequence[str], most: int, series_of: Callable[[tuple[str, ...]], T]
    ) -> None:
        self._what = what
        self._most = most
        self._series_of = series_of
        self._other = (OTHER,) * len(labels)
        self._known: dict[tuple[str, ...], T] = {}
        self._lock = threading.Lock()

    def at(self, labels: tuple[str, ...]) -> T:
        found = self._known.get(labels)
        return self._taken_in(labels) if found is None else found

    def _taken_in(self, labels: tuple[str, ...]) -> T:
        with self._lock:
            if len(self._known) >= self._most and labels not in self._known:
                if self._other not in self._known:
                    logger.warning(
                        "more than %d sets of labels for %s: what comes is counted as %r; raise most_label_sets",
                        self._most,
                        self._what,
                        OTHER,
                    )
                labels = self._other
            if labels not in self._known:
                self._known[labels] = self._series_of(labels)
            return self._known[labels]


class LlmSeries(NamedTuple):
    """The series of one set of labels. They begin at zero together, so that a share of none is 0 and not nothing."""

    latency: Histogram
    errors: Counter
    cost: Counter
    cost_unknown: Counter
    tokens: dict[str, Counter]
    feedback: dict[str, Counter]

    def count_request(self, seconds: float, *, failed: bool) -> None:
        self.latency.observe(seconds)
        if failed:
            self.errors.inc()

    def count_cost(self, dollars: float | None, *, answered: bool) -> None:
        if dollars is not None:
            self.cost.inc(dollars)
        elif answered:
            self.cost_unknown.inc()

    def count_tokens(self, fresh: int | None, cached: int | None, output: int | None) -> None:
        for kind, count in (("input", fresh), ("cached_input", cached), ("output", output)):
            if count is not None:
                self.tokens[kind].inc(count)

    def count_feedback(self, kind: str) -> None:
        self.feedback[kind].inc()


class LlmFamilies:
    """The metrics of calls. Those of runs in the shadow have names of their own, so that no sum mixes the two."""

    def __init__(self, families: Families, buckets: Sequence[float], *, shadow: bool = False) -> None:
        before, whose = ("shadow_", " In the shadow: served to nobody.") if shadow else ("", "")

        def counter(name: str, what: str, labels: Sequence[str]) -> Counter:
            return families.counter(f"{before}{name}", f"{what}{whose}", labels)

        self._latency = families.histogram(
            f"{before}request_latency_seconds",
            f"Calls of a model that ended, by their seconds.{whose}",
            LLM,
            buckets,
        )
        self._errors = counter("http_errors", "Calls of a model without a whole answer.", LLM)
        self._cost = counter("llm_cost_dollars", "US dollars of calls whose cost is known.", LLM)
        self._unknown = counter("llm_cost_unknown", "Answered calls whose cost is not known.", LLM)
        self._tokens = counter("llm_tokens", "Tokens that providers counted.", (*LLM, "kind"))
        self._feedback = counter("user_feedback", "Ratings of calls.", (*LLM, "sentiment"))

    def of(self, labels: tuple[str, ...]) -> LlmSeries:
        return LlmSeries(
            latency=self._latency.labels(*labels),
            errors=self._errors.labels(*labels),
            cost=self._cost.labels(*labels),
            cost_unknown=self._unknown.labels(*labels),
            tokens={kind: self._tokens.labels(*labels, kind) for kind in ("input", "cached_input", "output")},
            feedback={
                kind: self._feedback.labels(*labels, kind) for kind in ("positive", "neutral", "negative")
            },
        )


class RagSeries(NamedTuple):
    retrievals: Counter
    similarity: Histogram
    latency: Histogram


class RagFamilies:
    def __init__(self, families: Families, buckets: Sequence[float]) -> None:
        self._retrievals = families.counter("rag_retrievals", "Searches for documents.", RAG)
        self._similarity = families.histogram(
            "rag_similarity_score", "Similarity of each document that was found.", RAG, _SIMILARITY_BUCKETS
        )
        self._latency = families.histogram(
            "rag_retrieval_latency_seconds", "Searches for documents, by their seconds.", RAG, buckets
        )

    def of(self, labels: tuple[str, ...]) -> RagSeries:
        return RagSeries(
            self._retrievals.labels(*labels), self._similarity.labels(*labels), self._latency.labels(*labels)
        )


class CacheSeries(NamedTuple):
    by_result: dict[bool | None, Counter]
    latency: Histogram


class CacheFamilies:
    def __init__(self, families: Families) -> None:
        self._operations = families.counter("cache_operations", "Uses of a cache.", (*CACHE, "result"))
        self._latency = families.histogram(
            "cache_operation_latency_seconds", "Uses of a cache, by their seconds.", CACHE, _CACHE_BUCKETS
        )

    def of(self, labels: tuple[str, ...]) -> CacheSeries:
        results = {True: "hit", False: "miss", None: ""}
        return CacheSeries(
            {hit: self._operations.labels(*labels, result) for hit, result in results.items()},
            self._latency.labels(*labels),
        )
