"""What Prometheus would scrape: of calls by the real clients, of feedback, and of tracked values."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

import promptab
from promptab import (
    Lab,
    MissingExtraError,
    PriceBook,
    PromptVariant,
    PromptVersion,
    StateError,
    VariableError,
)
from promptab.integrations import prometheus
from promptab.integrations.prometheus import PrometheusMetrics
from tests.calls.conftest import Spoken, openai
from tests.llm_server import LlmServer, Status
from tests.scraped import MODEL, PRICES, Scraped

QUERIES = """
avg by (variant) (
  rate(request_latency_seconds_sum{experiment="my_experiment"}[1h]) /
  rate(request_latency_seconds_count{experiment="my_experiment"}[1h])
)
sum by (variant) (
  rate(llm_cost_dollars_total{experiment="my_experiment"}[1h])
) * 3600
sum by (variant) (
  rate(http_errors_total{experiment="my_experiment"}[1h])
) /
sum by (variant) (
  rate(request_latency_seconds_count{experiment="my_experiment"}[1h])
) * 100
sum by (variant) (
  rate(user_feedback_total{sentiment="positive",experiment="my_experiment"}[1h])
) /
sum by (variant) (
  rate(user_feedback_total{experiment="my_experiment"}[1h])
) * 100
"""
"""What users of the first guide have in their dashboards."""


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def exposed(lab: Lab, registry: CollectorRegistry) -> Iterator[PrometheusMetrics]:
    lab.calls.prices = PRICES
    metrics = prometheus.expose(lab, registry=registry, prices=PRICES)
    yield metrics
    metrics.close()


def selectors(queries: str) -> set[tuple[str, frozenset[str]]]:
    """Return each metric that is selected, with the labels that it has to have."""
    grouped = set(re.findall(r"by \((\w+)\)", queries))
    return {
        (name, frozenset(re.findall(r"(\w+)=", matchers)) | grouped)
        for name, matchers in re.findall(r"(\w+)\{([^}]*)\}", queries)
    }


def test_the_queries_are_those_of_the_first_guide(shared_dir: Path) -> None:
    (guide,) = (shared_dir / "seeds").glob("000_*.txt")
    blocks = re.findall(r"```promql\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 4
    assert selectors("\n".join(blocks)) == selectors(QUERIES)


async def experiment_on_reply(lab: Lab) -> None:
    await lab.versions.create_version(
        "support_reply", "system", "Help {{ customer }} now.", config={"model": MODEL}
    )
    await lab.experiments.create_experiment(
        "my_experiment",
        "system",
        [PromptVariant("1.0.0", key="control"), PromptVariant("1.0.1", key="treatment")],
        prompt_name="support_reply",
        overrides={"ada": "control", "bob": "treatment"},
    )


async def test_the_queries_find_what_calls_and_feedback_expose(
    lab: Lab,
    reply: PromptVersion,
    openai_client: Any,
    server: LlmServer,
    registry: CollectorRegistry,
    exposed: PrometheusMetrics,
) -> None:
    await experiment_on_reply(lab)
    how: dict[str, Any] = {"client": openai_client, "model": MODEL, "variables": {"customer": "Ada"}}
    seconds: dict[str, float] = {"control": 0.0, "treatment": 0.0}
    ids = {}
    for user, variant in (("ada", "control"), ("bob", "treatment"), ("bob", "treatment")):
        done = await lab.complete("support_reply", user_id=user, **how)
        assert done.call.seconds is not None
        seconds[variant] += done.call.seconds
        ids[variant] = done.call_id
    server.script.append(Status(500))
    with pytest.raises(openai.InternalServerError):
        await lab.complete("support_reply", user_id="bob", **how)
    await lab.feedback(ids["control"], rating=5)
    await lab.feedback(ids["treatment"], rating=2)
    await lab.feedback(ids["treatment"], rating=3.5, metrics={"resolved": 1})
    await lab.feedback(ids["treatment"], metrics={"resolved": 1})
    scraped = Scraped(registry)
    for name, needed in selectors(QUERIES):
        found = [labels for labels in scraped.labels(name) if labels["experiment"] == "my_experiment"]
        assert {labels["variant"] for labels in found} == {"control", "treatment"}
        assert all(needed <= labels.keys() for labels in found)
        assert all({"experiment", "variant", "version", "model"} <= labels.keys() for labels in found)
    ours = {"experiment": "my_experiment"}
    assert scraped.by("variant", "request_latency_seconds_count", **ours) == {"control": 1, "treatment": 3}
    latency = scraped.by("variant", "request_latency_seconds_sum", **ours)
    assert latency["control"] == pytest.approx(seconds["control"])
    assert latency["treatment"] > seconds["treatment"]
    # 15 + 5 tokens of input and 30 of output, at 10 and 20 dollars a million
    assert scraped.by("variant", "llm_cost_dollars_total", **ours) == pytest.approx(
        {"control": 0.0008, "treatment": 0.0016}
    )
    assert scraped.by("variant", "http_errors_total", **ours) == {"control": 0, "treatment": 1}
    assert scraped.by("variant", "user_feedback_total", sentiment="positive", **ours) == {
        "control": 1,
        "treatment": 0,
    }
    assert scraped.by("variant", "user_feedback_total", **ours) == {"control": 1, "treatment": 2}
    assert scraped.by("version", "http_errors_total", **ours) == {
        "system/support_reply@1.0.0": 0,
        "system/support_reply@1.0.1": 1,
    }
    assert scraped.by("model", "http_errors_total", **ours) == {MODEL: 1}


async def test_tokens_and_costs_of_every_protocol_are_counted_without_an_experiment(
    lab: Lab,
    reply: PromptVersion,
    spoken: Spoken,
    registry: CollectorRegistry,
    exposed: PrometheusMetrics,
) -> None:
    lab.calls.prices = PriceBook()
    done = await lab.complete("support_reply", **spoken.how)
    async with lab.stream("support_reply", **spoken.how) as stream:
        assert [text async for text in stream.text]
    scraped = Scraped(registry)
    where = {"experiment": "", "variant": "", "model": spoken.model}
    assert scraped.by("kind", "llm_tokens_total", **where) == {
        "input": 40,
        "cached_input": 200,
        "output": 60,
    }
    assert done.cost is not None
    assert scraped.sum("llm_cost_dollars_total", **where) == pytest.approx(2 * done.cost)
    assert scraped.sum("llm_cost_unknown_total", **where) == 0
    assert scraped.sum("request_latency_seconds_count", **where) == 2


async def test_an_unknown_cost_is_counted_apart_and_never_as_zero_dollars(
    lab: Lab,
    reply: PromptVersion,
    openai_client: Any,
    registry: CollectorRegistry,
    exposed: PrometheusMetrics,
) -> None:
    await lab.complete(
        "support_reply", client=openai_client, model="no-such-model", variables={"customer": "Ada"}
    )
    scraped = Scraped(registry)
    assert scraped.sum("llm_cost_unknown_total") == 1
    assert scraped.sum("llm_cost_dollars_total") == 0


async def test_what_was_never_sent_is_no_request(
    lab: Lab,
    reply: PromptVersion,
    openai_client: Any,
    registry: CollectorRegistry,
    exposed: PrometheusMetrics,
) -> None:
    with pytest.raises(VariableError):
        await lab.complete("support_reply", client=openai_client)
    async with (await lab.choose("support_reply")).call():
        pass
    scraped = Scraped(registry)
    assert scraped.sum("request_latency_seconds_count") == scraped.sum("http_errors_total") == 0
    assert lab.calls.stats().observer_errors == 0


async def test_label_sets_are_bounded_and_what_comes_later_is_other(
    lab: Lab,
    reply: PromptVersion,
    registry: CollectorRegistry,
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics = prometheus.expose(lab, registry=registry, most_label_sets=3, prices=PRICES)
    with caplog.at_level(logging.WARNING, "promptab"):
        for number in range(6):
            promptab.track_llm_call(model=f"model-{number}", duration=1.0, labels={"experiment": "e"})
            promptab.track_cache_operation(operation=f"o{number}", hit=True)
    promptab.track_llm_call(model="model-1", duration=1.0, labels={"experiment": "e"})
    scraped = Scraped(registry)
    assert scraped.by("model", "request_latency_seconds_count") == {
        "model-0": 1,
        "model-1": 2,
        "model-2": 1,
        "other": 3,
    }
    past = [labels for labels in scraped.labels("http_errors_total") if labels["model"] == "other"]
    assert past == [dict.fromkeys(("experiment", "variant", "version", "model", "agent"), "other")]
    assert scraped.by("result", "cache_operations_total", operation="other") == {
        "hit": 3,
        "miss": 0,
        "": 0,
    }
    assert caplog.text.count("more than 3 sets of labels for calls of models") == 1
    metrics.close()


async def test_a_choice_has_the_labels_that_tracking_takes(
    lab: Lab, reply: PromptVersion, registry: CollectorRegistry, exposed: PrometheusMetrics
) -> None:
    await experiment_on_reply(lab)
    choice = await lab.choose("support_reply", user_id="bob")
    promptab.track_llm_call(model=MODEL, duration=1.0, labels=choice.labels)
    (labels,) = Scraped(registry).labels("request_latency_seconds_count")
    assert labels == {
        "experiment": "my_experiment",
        "variant": "treatment",
        "version": "system/support_reply@1.0.1",
        "model": MODEL,
        "agent": "",
    }
    assert (await lab.choose("support_reply", version="1.0.0")).labels == {
        "version": "system/support_reply@1.0.0"
    }


async def test_closing_counts_no_more_and_frees_the_names(
    lab: Lab, reply: PromptVersion, openai_client: Any, registry: CollectorRegistry
) -> None:
    first = prometheus.expose(lab, registry=registry, prices=PRICES)
    with pytest.raises(StateError, match="namespace="):
        prometheus.expose(lab, registry=registry, prices=PRICES)
    second = prometheus.expose(registry=registry, prices=PRICES, namespace="mine")
    promptab.track_llm_call(model="m", duration=1.0)
    assert Scraped(registry).sum("mine_request_latency_seconds_count") == 1
    second.close()
    first.close()
    first.close()
    assert lab.calls.observers == []
    assert Scraped(registry).samples == []
    prometheus.expose(lab, registry=registry, prices=PRICES).close()


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "prometheus_client" else found(name)
    )
    monkeypatch.delitem(sys.modules, "promptab.integrations.prometheus")
    with pytest.raises(MissingExtraError, match=r"promptab\[prometheus\]"):
        importlib.import_module("promptab.integrations.prometheus")
