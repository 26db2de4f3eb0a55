"""A span of OpenTelemetry for each call of a model.

    from promptab.integrations import telemetry

    async with promptab.open() as lab:
        telemetry.trace_calls(lab)

Only OpenTelemetry's API is needed; where the program has set up no SDK, no span is made. The span is current
while the request is sent, so the client's own HTTP spans are its children; a stream's span ends when the
stream does. `AsyncAnthropic` makes a span of its own below it, with the same usage:
`AsyncAnthropic(open_telemetry=False)` where that would count twice.

Attributes, each where it is known: those of the GenAI conventions for the call; `feature_flag.*` for what was
chosen, with the key (`type/name`) and the reasons that promptab has in OpenFeature; and of promptab's own

| attribute | value |
| --- | --- |
| `promptab.call.id` | what `lab.feedback` takes |
| `promptab.call.status` | `ok`, `error`, `partial`, `cancelled`, `unobserved` |
| `promptab.call.failure`, `promptab.call.attempts` | the kind of failure; requests sent, retries included |
| `promptab.cost.usd` | US dollars |
| `promptab.experiment.id`, `promptab.experiment.name`, `promptab.variant.key` | of the experiment that chose |
| `promptab.template.hash` | the version's content hash |
| `promptab.stands_in_for` | of a fallback: `type/name@version` |
| `promptab.shadow` | true of a run in the shadow, which nobody was served; it has no `feature_flag.*` |

What was asked and answered, messages of errors and ids of units are in no span; `units=True` adds the last,
as `feature_flag.context.id`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from promptab import __version__
from promptab.calls.finished import FinishedCall, Subject
from promptab.calls.request import Request
from promptab.choice import FLAG_REASONS
from promptab.errors import MissingExtraError
from promptab.lab import Lab

try:
    from opentelemetry import context, trace
except ImportError as error:
    raise MissingExtraError("opentelemetry-api", "otel") from error

_OPERATION = "chat"

_PARAMETERS = {
    "temperature": ("temperature", float),
    "top_p": ("top_p", float),
    "top_k": ("top_k", float),
    "frequency_penalty": ("frequency_penalty", float),
    "presence_penalty": ("presence_penalty", float),
    "max_tokens": ("max_tokens", int),
    "max_completion_tokens": ("max_tokens", int),
    "max_output_tokens": ("max_tokens", int),
    "seed": ("seed", int),
    "n": ("choice.count", int),
}
"""A model's parameter -> its name in the conventions, after `gen_ai.request.`, and its type there."""

_STOPS = ("stop", "stop_sequences")


def trace_calls(
    lab: Lab, tracer_provider: trace.TracerProvider | None = None, *, units: bool = False
) -> None:
    """Make a span of each call of the lab from now on, by the global tracer provider unless another one is given.

    `units` adds the id of the unit, which may be a person's, to the spans of calls that are part of an experiment.
    """
    tracer = trace.get_tracer("promptab", __version__, tracer_provider)
    lab.calls.tracer = _LlmTracer(tracer, units=units)


class _LlmTracer:
    def __init__(self, tracer: trace.Tracer, *, units: bool) -> None:
        self._tracer = tracer
        self._units = units

    def begin(self, subject: Subject, request: Request) -> _LlmSpan | None:
        span = self._tracer.start_span(
            _span_name(request.model), kind=trace.SpanKind.CLIENT, attributes=_sampled_by(subject, request)
        )
        if not span.get_span_context().is_valid:
            # nobody listens: no SDK is set up, and no caller of ours is traced
            return None
        return _LlmSpan(span, units=self._units)


class _LlmSpan:
    def __init__(self, span: trace.Span, *, units: bool) -> None:
        self._span = span
        self._units = units
        self._outside = context.get_current()

    def enter(self) -> None:
        context.attach(trace.set_span_in_context(self._span))

    def leave(self) -> None:
        # not by the token of `attach`, which another task's context refuses
        if trace.get_current_span() is self._span:
            context.attach(self._outside)

    def end(self, call: FinishedCall) -> None:
        span = self._span
        if span.is_recording():
            span.update_name(_span_name(call.model))
            span.set_attributes(
                _known({**_asked(call), **_answered(call), **_chosen(call, units=self._units)})
            )
            if call.success is False:
                span.set_status(trace.StatusCode.ERROR, call.failure.kind if call.failure else None)
        span.end()


def _span_name(model: str | None) -> str:
    return _OPERATION if model is None else f"{_OPERATION} {model}"


def _sampled_by(subject: Subject, request: Request) -> dict[str, Any]:
    """What a sampler may want to know, and so cannot come later."""
    attributes = {
        "gen_ai.operation.name": _OPERATION,
        "gen_ai.prompt.name": subject.name,
        "gen_ai.provider.name": None if request.api is None else request.api.vendor,
        "gen_ai.request.model": request.model,
        "promptab.experiment.id": subject.experiment_id,
        "promptab.shadow": subject.in_shadow or None,
    }
    return _known(attributes)


def _asked(call: FinishedCall) -> dict[str, Any]:
    where = urlsplit(call.url or "")
    return {
        "gen_ai.provider.name": call.vendor,
        "gen_ai.request.model": call.model,
        "gen_ai.request.stream": call.streamed or None,
        "gen_ai.prompt.version": call.subject.version,
        "server.address": where.hostname,
        "server.port": where.port or {"http": 80, "https": 443}.get(where.scheme),
        **_parameters(call.parameters),
    }


def _parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, (known, kind) in _PARAMETERS.items():
        value = parameters.get(name)
        if isinstance(value, (int, kind)) and not isinstance(value, bool):
            found[f"gen_ai.request.{known}"] = kind(value)
    for name in _STOPS:
        value = parameters.get(name)
        stops = [value] if isinstance(value, str) else value
        if isinstance(stops, (list, tuple)) and all(isinstance(stop, str) for stop in stops):
            found["gen_ai.request.stop_sequences"] = list(stops)
    return found


def _answered(call: FinishedCall) -> dict[str, Any]:
    answer, usage, failure = call.answer, call.answer.usage, call.failure
    return {
        "gen_ai.response.id": answer.response_id,
        "gen_ai.response.model": answer.model,
        "gen_ai.response.finish_reasons": list(answer.finish_reasons) or None,
        "gen_ai.response.time_to_first_chunk": call.seconds_to_first_token,
        # all of it, what came from a cache included: so the conventions want it
        "gen_ai.usage.input_tokens": usage.input,
        "gen_ai.usage.output_tokens": usage.output,
        "gen_ai.usage.cache_read.input_tokens": usage.cache_read,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_write,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning,
        "error.type": None if failure is None else failure.error_type or failure.kind,
        "http.response.status_code": None if failure is None else failure.status_code,
        "promptab.call.id": call.call_id,
        "promptab.call.status": call.status,
        "promptab.call.failure": None if failure is None else failure.kind,
        "promptab.call.attempts": call.attempts,
        "promptab.cost.usd": call.cost,
    }


def _chosen(call: FinishedCall, *, units: bool) -> dict[str, Any]:
    subject = call.subject
    return {
        **({} if subject.in_shadow else _flag(subject, units=units)),
        "promptab.experiment.name": subject.experiment_name,
        "promptab.variant.key": subject.variant,
        "promptab.template.hash": subject.content_hash,
        "promptab.stands_in_for": subject.stands_in_for,
    }


def _flag(subject: Subject, *, units: bool) -> dict[str, Any]:
    """Say what was served, and to whom."""
    return {
        "feature_flag.key": f"{subject.prompt_type}/{subject.name}",
        "feature_flag.provider.name": "promptab",
        "feature_flag.result.variant": subject.variant or subject.version,
        "feature_flag.result.reason": FLAG_REASONS[subject.source].lower(),
        "feature_flag.context.id": subject.unit if units else None,
    }


def _known(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}
