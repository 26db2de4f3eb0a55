"""What telemetry adds to a tracked call: `python -m tests.benchmarks.telemetry`.

Nothing is sent: the call observes an answer that is there already, so that only promptab's own work is measured. The
kinds take turns, and what is printed are medians over many calls of each, in microseconds.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Callable

from openai.types import chat
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry

import promptab
from promptab.integrations import prometheus, telemetry

ROUNDS = 2_000
AT_ONCE = 20

ANSWER = chat.ChatCompletion.model_validate(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": "gpt-4.1-mini",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello."}}
        ],
        "usage": {"prompt_tokens": 120, "completion_tokens": 30, "total_tokens": 150},
    }
)


class Discarding(SpanExporter):
    def export(self, spans: object) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def nothing(lab: promptab.Lab) -> None: ...


def api_alone(lab: promptab.Lab) -> None:
    telemetry.trace_calls(lab)


def with_sdk(lab: promptab.Lab) -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Discarding()))
    telemetry.trace_calls(lab, provider)


def counted(lab: promptab.Lab) -> None:
    prometheus.expose(lab, registry=CollectorRegistry())


KINDS: dict[str, Callable[[promptab.Lab], None]] = {
    "none": nothing,
    "OpenTelemetry's API, no SDK": api_alone,
    "OpenTelemetry with its SDK": with_sdk,
    "Prometheus": counted,
}


async def microseconds(lab: promptab.Lab) -> float:
    """Return what one call takes before its caller goes on."""
    choice = await lab.choose("reply")
    started = time.perf_counter()
    for _ in range(AT_ONCE):
        async with choice.call() as call:
            call.observe(ANSWER)
    taken = (time.perf_counter() - started) / AT_ONCE * 1e6
    # what is written afterwards is in no round
    await lab.calls.flush()
    return taken


async def main(rounds: int) -> None:
    labs = {}
    for name, prepare in KINDS.items():
        labs[name] = await promptab.open("sqlite:///:memory:")
        await labs[name].versions.create_version("reply", "system", "Help.")
        prepare(labs[name])
        await microseconds(labs[name])
    taken: dict[str, list[float]] = {name: [] for name in KINDS}
    for _ in range(rounds // AT_ONCE):
        for name, lab in labs.items():
            taken[name].append(await microseconds(lab))
    print(f"medians of {rounds} calls in microseconds")
    floor = statistics.median(taken["none"])
    for name, times in taken.items():
        median = statistics.median(times)
        more = statistics.median(ours - bare for ours, bare in zip(times, taken["none"], strict=True))
        print(f"{name:30}{median:10.1f}{more:+10.1f}{median / floor:8.2f}x")
    for lab in labs.values():
        await lab.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS))
