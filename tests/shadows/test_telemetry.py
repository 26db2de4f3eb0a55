"""Spans and metrics of runs in the shadow are marked, and mixed with none of what was served."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from promptab import Lab
from promptab.integrations import prometheus, telemetry
from tests.llm_server import Status
from tests.scraped import Scraped
from tests.shadows.conftest import TwoFacedServer, experiment_with_shadow, shadow_events


async def test_a_run_has_a_span_of_its_own_that_says_so_and_is_no_evaluated_flag(
    lab: Lab, client: Any
) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry.trace_calls(lab, provider, units=True)
    await experiment_with_shadow(lab)
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span("request") as request:
        await lab.complete("reply", client=client, variables={"customer": "Ada"}, user_id="u1")
        await shadow_events(lab)
    _, served, shadow = sorted(exporter.get_finished_spans(), key=lambda span: span.start_time or 0)
    assert {span.parent and span.parent.span_id for span in (served, shadow)} == {
        request.get_span_context().span_id
    }
    of_served, of_shadow = dict(served.attributes or {}), dict(shadow.attributes or {})
    assert "promptab.shadow" not in of_served
    assert of_served["feature_flag.result.variant"] == "1.0.0"
    assert of_shadow["promptab.shadow"] is True
    assert of_shadow["promptab.variant.key"] == "candidate"
    assert of_shadow["promptab.experiment.name"] == "reply"
    assert not [name for name in of_shadow if name.startswith("feature_flag")]


async def test_a_run_is_counted_in_metrics_of_their_own(
    lab: Lab, server: TwoFacedServer, client: Any
) -> None:
    registry = CollectorRegistry()
    metrics = prometheus.expose(lab, registry=registry)
    await experiment_with_shadow(lab)
    server.fault = Status(500)
    await lab.complete("reply", client=client, variables={"customer": "Ada"}, user_id="u1")
    (failed,) = await shadow_events(lab)
    server.fault = None
    await lab.complete("reply", client=client, variables={"customer": "Ada"}, user_id="u1")
    await shadow_events(lab)
    await lab.feedback(failed.event_id, rating=1)
    scraped = Scraped(registry)
    latency, tokens = "request_latency_seconds_count", "llm_tokens_total"
    assert scraped.by("variant", latency) == {"1.0.0": 2}
    assert scraped.by("variant", f"shadow_{latency}") == {"candidate": 2}
    assert scraped.sum("http_errors_total") == 0
    assert scraped.by("variant", "shadow_http_errors_total") == {"candidate": 1}
    assert scraped.by("variant", tokens) == {"1.0.0": 300}
    assert scraped.by("variant", f"shadow_{tokens}") == {"candidate": 150}
    assert scraped.sum("user_feedback_total") == 0
    assert scraped.by("variant", "shadow_user_feedback_total", sentiment="negative") == {"candidate": 1}
    assert scraped.by("version", "shadow_llm_cost_dollars_total").keys() == {"system/reply@2.0.0"}
    metrics.close()


def test_names_of_metrics_keep_their_namespace() -> None:
    registry = CollectorRegistry()
    metrics = prometheus.expose(registry=registry, namespace="our")
    assert "our_shadow_llm_tokens" in Scraped(registry).text
    metrics.close()
    assert "our_shadow_llm_tokens" not in Scraped(registry).text
