"""Answers in pieces: what is passed on, what is recorded, and when a stream ends in any way but its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from promptab import Lab, PromptVersion, StateError, Tokens
from promptab.calls import ObservedStream
from tests.calls.conftest import LONGEST, PLACES, Spoken, only_use, read, told
from tests.llm_server import Cut, ErrorEvent, Fault, Hang, LlmServer, Status


async def test_a_stream_is_passed_on_and_recorded_when_it_ends(
    lab: Lab, reply: PromptVersion, spoken: Spoken
) -> None:
    async with lab.stream("support_reply", user_id="u42", **spoken.how) as stream:
        pieces = [text async for text in stream.text]
        assert stream.call is not None
    assert pieces == ["Hello", " there."]
    assert stream.answer.text == "Hello there."
    event = await only_use(lab, reply)
    assert (event.event_id, event.success) == (stream.call_id, True)
    assert event.tokens == Tokens(input=20, cached_input=100, output=30, total=150)
    assert event.cost is not None
    assert event.response_time is not None
    assert 0.0 < event.metrics["time_to_first_token"] <= event.response_time
    assert event.metrics["attempts"] == 1.0
    assert (told(event)["status"], told(event)["streamed"]) == ("ok", True)


async def test_the_chunks_are_the_clients_own(lab: Lab, reply: PromptVersion, spoken: Spoken) -> None:
    usage = {"stream_options": {"include_usage": True}} if spoken.api == "chat" else {}
    bare = [chunk async for chunk in await spoken.create(stream=True, **usage)]
    async with lab.stream("support_reply", **spoken.how) as stream:
        ours = [chunk async for chunk in stream]
    assert [chunk.model_dump() for chunk in ours] == [chunk.model_dump() for chunk in bare]
    assert (await only_use(lab, reply)).success is True


async def test_a_stream_of_the_callers_own_is_observed(
    lab: Lab, reply: PromptVersion, spoken: Spoken
) -> None:
    async with (await lab.choose("support_reply")).call() as call:
        stream = call.observe(await spoken.create(stream=True))
        assert isinstance(stream, ObservedStream)
        assert "".join([text async for text in stream.text]) == "Hello there."
        with pytest.raises(StateError, match="begin another one"):
            call.observe(object())
    event = await only_use(lab, reply)
    assert (event.success, event.metrics["attempts"]) == (True, 1.0)
    # a stream of Chat Completions tells its usage only where it is asked to
    assert (event.tokens is None) == (spoken.api == "chat")


@pytest.mark.parametrize("after", [0, 2])
async def test_an_error_inside_a_200_stream_is_a_failure(
    lab: Lab, reply: PromptVersion, spoken: Spoken, server: LlmServer, after: int
) -> None:
    count = 0 if after == 0 else PLACES[spoken.api].first_piece + 1
    server.script.append(ErrorEvent(count))
    text, error = await read(lab, spoken)
    # Responses reports it as an event like any other, and its client raises nothing
    assert (error is None) == (spoken.api == "responses")
    event = await only_use(lab, reply)
    assert (event.success, text) == (False, "Hello" if after else "")
    assert told(event)["status"] == ("partial" if after else "error")
    assert told(event)["failure"] == ("provider" if spoken.api == "responses" else "overloaded")
    assert event.cost is None


@pytest.mark.parametrize("at", [None, 1], ids=["before the first event", "after some"])
async def test_a_stream_that_hangs_ends_by_the_clients_timeout(
    lab: Lab, reply: PromptVersion, spoken: Spoken, server: LlmServer, at: int | None
) -> None:
    after = None if at is None else PLACES[spoken.api].first_piece + 1
    server.script.append(Hang(after))
    _, error = await read(lab, spoken, options={"timeout": 0.3})
    assert error is not None
    event = await only_use(lab, reply)
    assert (event.success, told(event)["failure"]) == (False, "timeout")
    assert told(event)["status"] == ("error" if at is None else "partial")


async def stopped_reading(stream: AsyncIterator[str]) -> None:
    async with aclosing(stream) as reading:  # type: ignore[type-var]
        async for _ in reading:
            break


async def test_a_reader_who_stops_early_gives_the_connection_back(
    lab: Lab, reply: PromptVersion, spoken: Spoken, server: LlmServer
) -> None:
    server.script.append(Hang(PLACES[spoken.api].first_piece + 1))
    async with lab.stream("support_reply", **spoken.how) as stream:
        await stopped_reading(stream.text)
    event = await only_use(lab, reply)
    assert (event.success, told(event)["status"]) == (None, "cancelled")
    async with lab.stream("support_reply", **spoken.how) as stream:
        assert "".join([text async for text in stream.text]) == "Hello there."


async def test_a_reader_who_is_cancelled_records_once_and_leaves_nothing_open(
    lab: Lab, reply: PromptVersion, spoken: Spoken, server: LlmServer
) -> None:
    server.script.append(Hang(PLACES[spoken.api].first_piece + 1))
    begun = asyncio.Event()

    async def consume() -> None:
        async with lab.stream("support_reply", **spoken.how) as stream:
            async for _ in stream.text:
                begun.set()

    reading = asyncio.create_task(consume())
    async with asyncio.timeout(LONGEST):
        await begun.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    event = await only_use(lab, reply)
    assert (event.success, told(event)["status"]) == (None, "cancelled")
    assert event.metrics["time_to_first_token"] > 0.0


async def test_a_mistake_of_the_reader_is_not_the_streams(
    lab: Lab, reply: PromptVersion, spoken: Spoken
) -> None:
    async def use() -> None:
        async with lab.stream("support_reply", **spoken.how) as stream:
            async for _ in stream:
                raise KeyError("a mistake of the program")

    with pytest.raises(KeyError):
        await use()
    event = await only_use(lab, reply)
    assert (event.success, told(event)["status"]) == (None, "cancelled")


@pytest.mark.parametrize("fault", [Status(429), Status(500)], ids=["429", "500"])
async def test_a_stream_that_does_not_begin_is_an_error_of_the_call(
    lab: Lab, reply: PromptVersion, spoken: Spoken, server: LlmServer, fault: Fault
) -> None:
    server.script.append(fault)
    _, error = await read(lab, spoken)
    event = await only_use(lab, reply)
    assert (told(event)["status"], told(event)["error_type"]) == ("error", type(error).__name__)
    assert event.metrics == {"attempts": 1.0}


async def test_a_stream_cut_before_its_usage_still_knows_what_came_before(
    lab: Lab, reply: PromptVersion, spoken: Spoken, server: LlmServer
) -> None:
    server.script.append(ErrorEvent(PLACES[spoken.api].first_piece + 1))
    await read(lab, spoken)
    event = await only_use(lab, reply)
    # Messages counts the input at the start; the others count everything at the end
    known = Tokens(input=20, cached_input=100) if spoken.api == "messages" else None
    assert (event.tokens, event.cost) == (known, None)


async def test_the_clients_own_stream_helpers_are_read(
    lab: Lab, reply: PromptVersion, openai_client: Any, anthropic_client: Any
) -> None:
    choice = await lab.choose("support_reply")
    turns: list[Any] = [{"role": "user", "content": "Hello?"}]
    helpers = [
        openai_client.chat.completions.stream(
            model="gpt-4.1-mini", messages=turns, stream_options={"include_usage": True}
        ),
        anthropic_client.messages.stream(model="claude-haiku-4-5", messages=turns, max_tokens=50),
    ]
    for helper in helpers:
        async with choice.call() as call, helper as stream:
            assert [_ async for _ in call.observe(stream)]
        assert call.finished is not None
        assert (call.finished.status, call.finished.answer.text) == ("ok", "Hello there.")
        assert call.finished.answer.usage.tokens == Tokens(input=20, cached_input=100, output=30, total=150)


async def test_pieces_that_nobody_here_can_read_are_no_failure(
    lab: Lab, reply: PromptVersion, anthropic_client: Any
) -> None:
    choice = await lab.choose("support_reply")
    helper = anthropic_client.messages.stream(
        model="claude-haiku-4-5", messages=[{"role": "user", "content": "Hello?"}], max_tokens=50
    )
    async with choice.call() as call, helper as stream:
        assert "".join([text async for text in call.observe(stream.text_stream)]) == "Hello there."
    event = await only_use(lab, reply)
    assert (event.success, told(event)["status"], event.tokens) == (True, "ok", None)


async def test_a_stream_of_nothing_is_cut_whoever_opened_it(
    lab: Lab, reply: PromptVersion, spoken: Spoken, server: LlmServer
) -> None:
    choice = await lab.choose("support_reply")
    server.script.append(Cut(0, clean=True))
    async with choice.call() as call:
        async for _ in call.observe(await spoken.create(stream=True)):
            pass
    event = await only_use(lab, reply)
    assert (event.success, told(event)["failure"]) == (False, "truncated")
