"""Values that are told by hand, and what Prometheus finds of them."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

import promptab
from promptab import (
    InvalidInputError,
)
from promptab.integrations import prometheus
from promptab.integrations.prometheus import PrometheusMetrics
from promptab.integrations.prometheus.exporting import MOST_LABEL_SETS
from promptab.tracking import LlmCall, add_tracker, remove_tracker
from tests.scraped import MODEL, PRICES, Scraped


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def exposed(registry: CollectorRegistry) -> Iterator[PrometheusMetrics]:
    metrics = prometheus.expose(registry=registry, prices=PRICES)
    yield metrics
    metrics.close()


def test_a_set_of_labels_is_no_more_lines_than_the_module_says(registry: CollectorRegistry) -> None:
    metrics = prometheus.expose(registry=registry, prices=PRICES)
    promptab.track_llm_call(model="m")
    lines = [line for line in Scraped(registry).text.splitlines() if 'model="m"' in line]
    metrics.close()
    said = " ".join((prometheus.__doc__ or "").split())
    most = re.search(r"at most (\d+) lines of the exposition, so at most ([\d,]+) are of calls", said)
    assert most is not None
    assert 0 < len(lines) <= int(most[1])
    assert int(most[2].replace(",", "")) == (MOST_LABEL_SETS + 1) * int(most[1])
    assert f"{MOST_LABEL_SETS} by default" in said


def test_tracked_calls_are_counted_under_their_labels(
    registry: CollectorRegistry, exposed: PrometheusMetrics
) -> None:
    for variant, duration in (("gpt4", 2.5), ("gpt4", 1.5), ("claude", 4.0)):
        promptab.track_llm_call(
            model=f"openai/{MODEL}",
            agent="specs",
            input_tokens=100,
            output_tokens=200,
            duration=duration,
            labels={"experiment": "llm_model_comparison", "variant": variant},
        )
    promptab.track_llm_call(
        model=MODEL,
        duration=0.5,
        cost=0.25,
        success=False,
        labels={"experiment": "llm_model_comparison", "variant": "claude"},
    )
    scraped = Scraped(registry)
    ours = {"experiment": "llm_model_comparison"}
    assert scraped.by("variant", "request_latency_seconds_sum", **ours) == {"gpt4": 4.0, "claude": 4.5}
    assert scraped.by("variant", "request_latency_seconds_count", **ours) == {"gpt4": 2, "claude": 2}
    # 100 at 10 dollars a million and 200 at 20
    assert scraped.by("variant", "llm_cost_dollars_total", **ours) == pytest.approx(
        {"gpt4": 0.01, "claude": 0.255}
    )
    assert scraped.by("variant", "http_errors_total", **ours) == {"gpt4": 0, "claude": 1}
    assert scraped.by("agent", "llm_tokens_total", kind="output") == {"specs": 600, "": 0}


def test_a_tracked_call_of_a_known_model_has_the_bundled_price(registry: CollectorRegistry) -> None:
    metrics = prometheus.expose(registry=registry)
    for model in ("gpt-4.1-mini", "openai/gpt-4.1-mini"):
        promptab.track_llm_call(model=model, input_tokens=1_000, output_tokens=1_000)
    promptab.track_llm_call(model="gpt-4.1-mini", input_tokens=1_000)
    cost = Scraped(registry).by("model", "llm_cost_dollars_total")
    metrics.close()
    assert cost["gpt-4.1-mini"] == cost["openai/gpt-4.1-mini"] > 0.0


def test_retrievals_and_cache_operations_are_counted(
    registry: CollectorRegistry, exposed: PrometheusMetrics
) -> None:
    labels = {"experiment": "rag_top_k", "variant": "top_3"}
    promptab.track_rag_retrieval(
        agent="specs", similarity_scores=[0.89, np.float32(0.5)], duration=0.2, labels=labels
    )
    promptab.track_rag_retrieval(agent="specs", labels=labels)
    promptab.track_cache_operation(
        operation="set", cache_type="embedding", latency_ms=2.5, labels={"experiment": "cache_ttl"}
    )
    for hit in (True, True, False):
        promptab.track_cache_operation(operation="get", cache_type="embedding", hit=hit)
    scraped = Scraped(registry)
    ours = {"agent": "specs", **labels}
    assert scraped.sum("rag_retrievals_total", **ours) == 2
    assert scraped.sum("rag_similarity_score_sum", **ours) == pytest.approx(1.39)
    assert scraped.sum("rag_similarity_score_count", **ours) == 2
    assert scraped.sum("rag_retrieval_latency_seconds_sum", **ours) == 0.2
    assert scraped.by("experiment", "cache_operation_latency_seconds_sum", operation="set") == {
        "cache_ttl": 0.0025
    }
    assert scraped.by("result", "cache_operations_total", operation="get") == {"hit": 2, "miss": 1, "": 0}


@pytest.mark.parametrize(
    ("field", "track"),
    [
        ("labels", lambda: promptab.track_llm_call(model="m", labels={"user": "u42"})),
        ("labels[variant]", lambda: promptab.track_llm_call(model="m", labels={"variant": "a\nb"})),
        ("model", lambda: promptab.track_llm_call(model="")),
        ("duration", lambda: promptab.track_llm_call(model="m", duration=-1.0)),
        ("input_tokens", lambda: promptab.track_llm_call(model="m", input_tokens=-1)),
        ("cost", lambda: promptab.track_llm_call(model="m", cost=float("nan"))),
        ("similarity_scores[1]", lambda: promptab.track_rag_retrieval(similarity_scores=[0.1, float("inf")])),
        ("similarity_scores[0]", lambda: promptab.track_rag_retrieval(similarity_scores=[True])),
        ("similarity_scores", lambda: promptab.track_rag_retrieval(similarity_scores=[0.0] * 10_001)),
        ("operation", lambda: promptab.track_cache_operation(operation="x" * 201)),
        ("latency_ms", lambda: promptab.track_cache_operation(operation="get", latency_ms=float("inf"))),
        ("hit", lambda: promptab.track_cache_operation(operation="get", hit="yes")),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_counted_is_refused_by_name(field: str, track: Any) -> None:
    with pytest.raises(InvalidInputError) as refused:
        track()
    assert refused.value.field == field


def test_an_exporter_that_fails_breaks_nobody(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(PrometheusMetrics):
        def __init__(self) -> None:
            self.told: list[LlmCall] = []

        def llm_call(self, call: LlmCall) -> None:
            self.told.append(call)
            raise RuntimeError("no room")

    failing = Failing()
    add_tracker(failing)
    promptab.track_llm_call(model="m")
    remove_tracker(failing)
    promptab.track_llm_call(model="m")
    assert len(failing.told) == 1
    assert "Failing" in caplog.text


def test_threads_lose_nothing(registry: CollectorRegistry) -> None:
    metrics = prometheus.expose(registry=registry, prices=PRICES, most_label_sets=5)

    def work() -> None:
        for number in range(400):
            promptab.track_llm_call(model=f"m{number % 20}", duration=0.1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = Scraped(registry).by("model", "request_latency_seconds_count")
    metrics.close()
    assert (len(counts), sum(counts.values())) == (6, 3200)


def test_tracking_without_an_exporter_needs_no_extra() -> None:
    code = (
        "import sys, promptab; promptab.track_llm_call(model='m'); print('prometheus_client' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "False\n"
