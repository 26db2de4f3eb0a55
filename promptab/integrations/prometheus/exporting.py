"""From calls, feedback and tracked values to the metrics that count them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry

from promptab import tracking
from promptab.calls.finished import METADATA_KEY, FinishedCall
from promptab.calls.pricing import Asked, PriceBook
from promptab.calls.usage import Usage
from promptab.checks import check_count
from promptab.errors import StateError
from promptab.integrations.prometheus.series import (
    CACHE,
    LLM,
    RAG,
    CacheFamilies,
    Families,
    LabelSets,
    LlmFamilies,
    RagFamilies,
)
from promptab.lab import Lab
from promptab.models import MetricEvent
from promptab.tracking import CacheOperation, LlmCall, RagRetrieval

MOST_LABEL_SETS = 500

LATENCY_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
"""Seconds: from a short answer of a small model to a long one that thinks."""


def expose(
    *labs: Lab,
    registry: CollectorRegistry = REGISTRY,
    namespace: str = "",
    most_label_sets: int = MOST_LABEL_SETS,
    latency_buckets: Sequence[float] = LATENCY_BUCKETS,
    prices: PriceBook | None = None,
) -> PrometheusMetrics:
    """Count the calls of these labs, and whatever `promptab.track_...` tells in this process, from now on.

    `namespace` goes before all names. `prices` are those of calls told by `track_llm_call` without a cost, by default
    as in `PROMPTAB_PRICES` and `genai-prices`. Raises `StateError` where the registry has metrics of these names,
    such as those of an earlier call: use `watch` for another lab.
    """
    metrics = PrometheusMetrics(registry, namespace, most_label_sets, latency_buckets, prices)
    for lab in labs:
        metrics.watch(lab)
    return metrics


class PrometheusMetrics:
    """What `expose` returns."""

    def __init__(
        self,
        registry: CollectorRegistry,
        namespace: str,
        most_label_sets: int,
        latency_buckets: Sequence[float],
        prices: PriceBook | None,
    ) -> None:
        most = check_count("most_label_sets", most_label_sets, low=1, high=1_000_000)
        self._prices = PriceBook.of_environment() if prices is None else prices
        self._labs: list[Lab] = []
        families = Families(registry, namespace)
        try:
            self._llm = LlmFamilies(families, latency_buckets)
            self._shadow = LlmFamilies(families, latency_buckets, shadow=True)
            self._rag = RagFamilies(families, latency_buckets)
            self._cache = CacheFamilies(families)
        except ValueError as error:
            families.unregister()
            raise StateError(
                f"the registry does not take these metrics: {error}; give another registry= or namespace=, or watch "
                "another lab by what expose(...) returned first"
            ) from error
        self._families = families
        self._llm_series = LabelSets("calls of models", LLM, most, self._llm.of)
        self._shadow_series = LabelSets("runs in the shadow", LLM, most, self._shadow.of)
        self._rag_series = LabelSets("retrievals", RAG, most, self._rag.of)
        self._cache_series = LabelSets("cache operations", CACHE, most, self._cache.of)
        tracking.add_tracker(self)
        # loading the prices takes a moment: by the time of the first call they are there, and it waits for them if not
        threading.Thread(target=self._prices.load, name="promptab prices", daemon=True).start()

    def watch(self, lab: Lab) -> None:
        """Count the calls of this lab too, from now on."""
        lab.calls.observers.append(self)
        self._labs.append(lab)

    def close(self) -> None:
        """Count nothing any more, and take the metrics out of the registry. A second time does nothing."""
        tracking.remove_tracker(self)
        for lab in self._labs:
            lab.calls.observers[:] = [known for known in lab.calls.observers if known is not self]
        self._labs.clear()
        self._families.unregister()

    def call_finished(self, call: FinishedCall) -> None:
        subject, usage = call.subject, call.answer.usage
        every = self._shadow_series if subject.in_shadow else self._llm_series
        series = every.at(
            (
                subject.experiment_name or "",
                subject.variant or "",
                subject.label,
                call.model or "",
                "",
            )
        )
        tokens = usage.tokens
        if tokens is not None:
            series.count_tokens(tokens.input, tokens.cached_input, tokens.output)
        series.count_cost(call.cost, answered=call.success is True)
        # who stopped waiting says nothing of how long the answer takes, and what was not sent took no time
        if call.success is not None and call.seconds is not None:
            series.count_request(call.seconds, failed=not call.success)

    def feedback_given(self, feedback: MetricEvent, call: MetricEvent) -> None:
        if feedback.user_rating is None:
            return
        facts: dict[str, Any] = call.metadata.get(METADATA_KEY, {})
        names = (facts.get(name) or "" for name in ("experiment", "prompt", "model"))
        experiment, version, model = (str(name) for name in names)
        place = call.shadow
        variant = call.variant if place is None else place.variant
        every = self._llm_series if place is None else self._shadow_series
        series = every.at((experiment, variant or "", version, model, ""))
        series.count_feedback(sentiment(feedback.user_rating))

    def llm_call(self, call: LlmCall) -> None:
        series = self._llm_series.at((*call.labels, call.model, call.agent))
        series.count_tokens(call.input_tokens, None, call.output_tokens)
        series.count_cost(self._cost(call), answered=call.success)
        if call.seconds is not None:
            series.count_request(call.seconds, failed=not call.success)
        elif not call.success:
            series.errors.inc()

    def rag_retrieval(self, retrieval: RagRetrieval) -> None:
        series = self._rag_series.at((retrieval.agent, *retrieval.labels))
        series.retrievals.inc()
        for similarity in retrieval.similarities:
            series.similarity.observe(similarity)
        if retrieval.seconds is not None:
            series.latency.observe(retrieval.seconds)

    def cache_operation(self, operation: CacheOperation) -> None:
        series = self._cache_series.at((operation.operation, operation.cache_type, *operation.labels))
        series.by_result[operation.hit].inc()
        if operation.seconds is not None:
            series.latency.observe(operation.seconds)

    def _cost(self, call: LlmCall) -> float | None:
        if call.cost is not None or call.input_tokens is None or call.output_tokens is None:
            return call.cost
        vendor, slash, model = call.model.rpartition("/")
        asked = Asked(vendor if slash else None, None, model)
        usage = Usage(uncached=call.input_tokens, cache_read=0, cache_write=0, output=call.output_tokens)
        return self._prices.cost(asked, usage, datetime.now(UTC))


def sentiment(rating: float) -> str:
    """Return what a rating from 1 to 5 counts as."""
    if rating >= 4.0:
        return "positive"
    return "negative" if rating <= 2.0 else "neutral"
