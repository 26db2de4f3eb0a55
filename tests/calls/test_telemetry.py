"""Spans of OpenTelemetry, as its SDK receives them, of calls by the real clients."""

from __future__ import annotations

import asyncio
import importlib
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult

from promptab import Lab, MissingExtraError, PromptVariant, PromptVersion, VariableError
from promptab.calls import CallSpan, Request, Subject
from promptab.integrations import telemetry
from tests.calls.conftest import PLACES, Spoken, anthropic, openai, read
from tests.llm_server import ErrorEvent, Hang, LlmServer, Status


class Traced:
    """A tracer provider of the SDK's, and what it has exported."""

    def __init__(self, **how: Any) -> None:
        self.provider = TracerProvider(**how)
        self._exporter = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def spans(self) -> list[ReadableSpan]:
        """Those that have ended, in that order."""
        return list(self._exporter.get_finished_spans())

    @property
    def only(self) -> ReadableSpan:
        (span,) = self.spans
        return span

    @property
    def told(self) -> dict[str, Any]:
        return dict(self.only.attributes or {})


def is_below(span: ReadableSpan, other: ReadableSpan) -> bool:
    assert span.parent is not None
    assert other.context is not None
    return bool(span.parent.span_id == other.context.span_id)


@pytest.fixture
async def traced(lab: Lab) -> AsyncIterator[Traced]:
    made = Traced()
    telemetry.trace_calls(lab, made.provider)
    yield made
    made.provider.shutdown()


async def test_a_call_is_one_span_with_the_names_of_the_conventions(
    lab: Lab, reply: PromptVersion, spoken: Spoken, traced: Traced, server: LlmServer
) -> None:
    done = await lab.complete("support_reply", user_id="u42", **spoken.how)
    assert traced.only.name == f"chat {spoken.model}"
    assert traced.only.kind is trace.SpanKind.CLIENT
    assert traced.only.status.is_ok
    finish = {"chat": "stop", "responses": "completed", "messages": "end_turn"}[spoken.api]
    host, _, port = server.url.removeprefix("http://").partition(":")
    assert traced.told == {
        "gen_ai.operation.name": "chat",
        "gen_ai.prompt.name": "support_reply",
        "gen_ai.prompt.version": "1.0.0",
        "gen_ai.provider.name": "anthropic" if spoken.api == "messages" else "openai",
        "gen_ai.request.model": spoken.model,
        "gen_ai.request.temperature": 0.2,
        "gen_ai.request.max_tokens": 50,
        "gen_ai.response.model": spoken.model,
        "gen_ai.response.id": done.call.answer.response_id,
        "gen_ai.response.finish_reasons": (finish,),
        "gen_ai.usage.input_tokens": 120,
        "gen_ai.usage.output_tokens": 30,
        "gen_ai.usage.cache_read.input_tokens": 100,
        "gen_ai.usage.cache_creation.input_tokens": 5,
        "gen_ai.usage.reasoning.output_tokens": 12,
        "server.address": host,
        "server.port": int(port),
        "feature_flag.key": "system/support_reply",
        "feature_flag.provider.name": "promptab",
        "feature_flag.result.variant": "1.0.0",
        "feature_flag.result.reason": "static",
        "promptab.call.id": done.call_id,
        "promptab.call.status": "ok",
        "promptab.call.attempts": 1,
        "promptab.cost.usd": done.cost,
        "promptab.template.hash": reply.content_hash,
    }
    assert done.call.answer.response_id


@pytest.mark.parametrize("units", [False, True])
async def test_an_assignment_is_told_and_the_unit_only_where_that_was_asked_for(
    lab: Lab, reply: PromptVersion, openai_client: Any, traced: Traced, *, units: bool
) -> None:
    telemetry.trace_calls(lab, traced.provider, units=units)
    experiment = await lab.experiments.create_experiment(
        "tone_test",
        "system",
        [PromptVariant("1.0.0", key="kind"), PromptVariant("1.0.0", key="brief")],
        prompt_name="support_reply",
    )
    await lab.complete("support_reply", user_id="u42", client=openai_client, variables={"customer": "Ada"})
    told = traced.told
    assert told["promptab.experiment.id"] == experiment.experiment_id
    assert told["promptab.experiment.name"] == "tone_test"
    assert told["promptab.variant.key"] == told["feature_flag.result.variant"]
    assert told["promptab.variant.key"] in {"kind", "brief"}
    assert told["feature_flag.result.reason"] == "split"
    assert told.get("feature_flag.context.id") == ("u42" if units else None)


async def test_a_stream_is_a_span_until_it_ends(
    lab: Lab, reply: PromptVersion, spoken: Spoken, traced: Traced
) -> None:
    async with lab.stream("support_reply", **spoken.how) as stream:
        pieces = [text async for text in stream.text if not traced.spans]
        assert stream.call is not None
    assert pieces == ["Hello", " there."]
    told = traced.told
    assert told["gen_ai.request.stream"] is True
    assert told["gen_ai.response.time_to_first_chunk"] == stream.call.seconds_to_first_token
    assert told["gen_ai.usage.input_tokens"] == 120
    assert traced.only.end_time is not None
    assert traced.only.start_time is not None
    took = (traced.only.end_time - traced.only.start_time) / 1e9
    assert took >= told["gen_ai.response.time_to_first_chunk"]


async def test_who_reads_a_stream_is_not_below_its_span(
    lab: Lab, reply: PromptVersion, spoken: Spoken, traced: Traced
) -> None:
    tracer = traced.provider.get_tracer("the program")
    with tracer.start_as_current_span("request") as request:
        async with lab.stream("support_reply", **spoken.how) as stream:
            async for _ in stream:
                assert trace.get_current_span() is request
        assert trace.get_current_span() is request
    call, outer = traced.spans
    assert outer.name == "request"
    assert is_below(call, outer)


async def test_the_clients_own_spans_are_below_the_calls(
    lab: Lab, reply: PromptVersion, server: LlmServer, traced: Traced
) -> None:
    options: Any = {"tracer_provider": traced.provider}
    async with anthropic.AsyncAnthropic(**server.anthropic, open_telemetry=options) as client:
        await lab.complete(
            "support_reply", client=client, model="claude-haiku-4-5", variables={"customer": "Ada"}
        )
    below, call = traced.spans
    assert (below.name, call.name) == ("anthropic.messages.create", "chat claude-haiku-4-5")
    assert is_below(below, call)
    # so the provider can go on with the trace
    assert format(below.context.trace_id, "032x") in server.asked[0].headers["traceparent"]


async def test_what_is_done_in_a_block_is_below_its_call(
    lab: Lab, reply: PromptVersion, spoken: Spoken, traced: Traced
) -> None:
    outside = trace.get_current_span()
    async with (await lab.choose("support_reply")).call() as call:
        with traced.provider.get_tracer("the client").start_as_current_span("POST"):
            call.observe(await spoken.create())
    assert trace.get_current_span() is outside
    post, span = traced.spans
    assert is_below(post, span)
    # nobody said before what would be asked
    assert span.name == f"chat {spoken.model}"


async def test_a_block_that_another_task_leaves_disturbs_no_context(
    lab: Lab, reply: PromptVersion, openai_client: Any, traced: Traced, caplog: pytest.LogCaptureFixture
) -> None:
    block = (await lab.choose("support_reply")).call()

    async def within_another_span() -> None:
        with traced.provider.get_tracer("other").start_as_current_span("other") as other:
            await block.__aexit__(None, None, None)
            assert trace.get_current_span() is other

    await asyncio.create_task(block.__aenter__())
    await asyncio.create_task(within_another_span())
    assert {span.name for span in traced.spans} == {"chat", "other"}
    assert caplog.text == ""


async def test_a_failure_is_an_error_without_its_message(
    lab: Lab, reply: PromptVersion, spoken: Spoken, server: LlmServer, traced: Traced
) -> None:
    server.script.append(Status(429, message="quota of key sk-123"))
    with pytest.raises((openai.RateLimitError, anthropic.RateLimitError)):
        await lab.complete("support_reply", **spoken.how)
    told = traced.told
    assert traced.only.status.status_code is trace.StatusCode.ERROR
    assert (told["error.type"], told["http.response.status_code"]) == ("RateLimitError", 429)
    assert (told["promptab.call.status"], told["promptab.call.failure"]) == ("error", "rate_limit")
    assert "sk-123" not in traced.only.to_json()
    assert "gen_ai.usage.input_tokens" not in told


async def test_a_stream_that_breaks_off_is_an_error(
    lab: Lab, reply: PromptVersion, spoken: Spoken, server: LlmServer, traced: Traced
) -> None:
    server.script.append(ErrorEvent(PLACES[spoken.api].first_piece + 1))
    await read(lab, spoken)
    assert traced.only.status.status_code is trace.StatusCode.ERROR
    assert traced.told["promptab.call.status"] == "partial"
    assert "gen_ai.response.time_to_first_chunk" in traced.told


async def test_a_cancelled_call_ends_its_span_and_is_no_error(
    lab: Lab, reply: PromptVersion, spoken: Spoken, server: LlmServer, traced: Traced
) -> None:
    server.script.append(Hang())
    task = asyncio.create_task(lab.complete("support_reply", **spoken.how))
    async with asyncio.timeout(20):
        await server.heard.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert traced.only.status.status_code is trace.StatusCode.UNSET
    assert traced.told["promptab.call.status"] == "cancelled"


async def test_a_prompt_that_does_not_render_has_a_span_too(
    lab: Lab, reply: PromptVersion, openai_client: Any, traced: Traced
) -> None:
    with pytest.raises(VariableError):
        await lab.complete("support_reply", client=openai_client)
    assert traced.told["promptab.call.failure"] == "prompt"
    assert traced.told["gen_ai.prompt.version"] == "1.0.0"


async def test_each_model_that_is_tried_is_a_span_of_its_own(
    lab: Lab, openai_client: Any, server: LlmServer, traced: Traced
) -> None:
    config = {"model": "gpt-4.1-mini", "fallbacks": ["gpt-4.1-nano"]}
    await lab.versions.create_version("reply", "system", "Help.", config=config)
    server.script.append(Status(500))
    await lab.complete("reply", client=openai_client)
    first, second = traced.spans
    assert (first.name, first.status.is_ok) == ("chat gpt-4.1-mini", False)
    assert second.name == "chat gpt-4.1-nano"
    assert second.attributes is not None
    assert second.attributes["promptab.stands_in_for"] == "system/reply@1.0.0"
    assert second.attributes["feature_flag.result.reason"] == "default"
    assert "gen_ai.prompt.version" not in second.attributes
    assert second.parent is None


class NoCalls(Sampler):
    """Keeps what begins a trace unless it is a call of ours."""

    def should_sample(
        self, parent_context: object, trace_id: int, name: str, *args: Any, **more: Any
    ) -> SamplingResult:
        return SamplingResult(Decision.DROP if name.startswith("chat ") else Decision.RECORD_AND_SAMPLE)

    def get_description(self) -> str:
        return "NoCalls"


async def test_what_is_sampled_out_is_not_exported_and_its_children_neither(
    lab: Lab, reply: PromptVersion, server: LlmServer
) -> None:
    traced = Traced(sampler=ParentBased(NoCalls()))
    telemetry.trace_calls(lab, traced.provider)
    options: Any = {"tracer_provider": traced.provider}
    async with anthropic.AsyncAnthropic(**server.anthropic, open_telemetry=options) as client:
        await lab.complete(
            "support_reply", client=client, model="claude-haiku-4-5", variables={"customer": "Ada"}
        )
    assert traced.spans == []
    sampled = 0x01
    assert int(server.asked[0].headers["traceparent"].rpartition("-")[2], 16) & sampled == 0


class Broken:
    """A tracer that fails, at once or later."""

    def __init__(self, *, at_once: bool) -> None:
        self._at_once = at_once

    def begin(self, subject: Subject, request: Request) -> CallSpan:
        if self._at_once:
            raise RuntimeError("no span")
        return self

    def enter(self) -> None:
        raise RuntimeError("no context")

    leave = enter

    def end(self, call: object) -> None:
        raise RuntimeError("no end")


@pytest.mark.parametrize(("at_once", "errors"), [(True, 1), (False, 3)])
async def test_a_tracer_that_fails_breaks_no_call(
    lab: Lab,
    reply: PromptVersion,
    spoken: Spoken,
    caplog: pytest.LogCaptureFixture,
    at_once: bool,
    errors: int,
) -> None:
    lab.calls.tracer = Broken(at_once=at_once)
    with caplog.at_level(logging.ERROR, "promptab.calls"):
        done = await lab.complete("support_reply", **spoken.how)
    assert done.text == "Hello there."
    assert lab.calls.stats() == (1, 1, 0, errors)
    assert "Broken" in caplog.text


def test_without_an_sdk_no_span_is_made() -> None:
    """In a process of its own, since the tracer provider of a process can be set once."""
    code = """
import asyncio, sys
import promptab
from promptab.integrations import telemetry

async def main():
    async with promptab.open("sqlite:///:memory:") as lab:
        telemetry.trace_calls(lab)
        await lab.versions.create_version("a", "system", "Help.")
        async with (await lab.choose("a")).call() as call:
            call.observe({})
        assert lab.calls.tracer.begin(call.subject, promptab.calls.Request()) is None
        await lab.calls.flush()
        print(lab.calls.stats(), "opentelemetry.sdk" in sys.modules)

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    expected = "CallStats(finished=1, pending=0, not_recorded=0, observer_errors=0) False\n"
    assert (done.stdout, done.stderr) == (expected, "")


def test_what_is_no_number_is_not_told_as_a_parameter() -> None:
    odd = {"temperature": "hot", "max_tokens": True, "top_p": 1, "stop": "END", "seed": 1.5}
    assert telemetry._parameters(odd) == {
        "gen_ai.request.top_p": 1.0,
        "gen_ai.request.stop_sequences": ["END"],
    }


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "promptab.integrations.telemetry")
    with pytest.raises(MissingExtraError, match=r"promptab\[otel\]"):
        importlib.import_module("promptab.integrations.telemetry")
