"""A stream that is cut after every single byte: one event each time, and the right one."""

from __future__ import annotations

from itertools import accumulate

import pytest

from promptab import Lab, PromptVersion
from tests.calls.conftest import PLACES, Spoken, read, told, uses
from tests.llm_server import Asked, Cut, LlmServer

USAGES = {
    "chat": {"prompt_tokens": 1, "completion_tokens": 30},
    "responses": {"input_tokens": 1, "output_tokens": 30},
    "messages": {"input_tokens": 1, "output_tokens": 30},
}


@pytest.mark.parametrize("clean", [False, True], ids=["connection lost", "body ended early"])
async def test_a_stream_cut_after_any_byte_is_recorded_once_and_as_what_it_was(
    lab: Lab, reply: PromptVersion, spoken: Spoken, server: LlmServer, *, clean: bool
) -> None:
    server.answer = lambda asked: "Hi Ada"
    # short streams: there are as many calls as there are bytes
    server.usage = USAGES
    body = {"model": spoken.model, "stream_options": {"include_usage": True}}
    ends = list(accumulate(map(len, server.events(Asked(f"/v1/{spoken.api}", {}, body)))))
    first, last, counted = (ends[index] for index in PLACES[spoken.api])
    # every byte of a lost connection; of a body that ends early, which is as quiet within an event, those at the ends
    sizes = range(ends[-1]) if not clean else [end + near for end in ends[:-1] for near in (-1, 0, 1)]
    heard = []
    for size in sizes:
        server.script.append(Cut(size, clean=clean))
        heard.append((size, *(await read(lab, spoken))))
    events = await uses(lab, reply)
    assert len(events) == lab.calls.stats().finished == len(server.asked) == len(heard)
    for event, (size, text, error) in zip(events, heard, strict=True):
        broken = "partial" if size >= first else "error"
        whole = error is None and size >= last
        assert (told(event)["status"], event.success) == (("ok", True) if whole else (broken, False)), size
        if not whole:
            known = ("truncated", None) if error is None else ("connection", type(error).__name__)
            assert (told(event)["failure"], told(event).get("error_type")) == known, size
        assert bool(text) == (size >= first), size
        output = None if event.tokens is None else event.tokens.output
        assert output == (30 if size >= counted else None), size
        assert event.response_time is not None
        assert event.response_time > 0.0
