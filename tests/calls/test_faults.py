"""What goes wrong at a provider: one event per call, the right status, the client's own exception, no hanging."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import pytest

from promptab import Lab, PromptVersion, VariableError
from promptab.calls import FailureKind, Status
from tests.calls.conftest import LONGEST, Spoken, anthropic, only_use, openai, uses
from tests.llm_server import Body, Cut, Fault, Hang, LlmServer
from tests.llm_server import Status as Http


class Case(NamedTuple):
    fault: Fault
    error: str
    """The class of the client's exception."""
    kind: FailureKind
    status: Status = "error"
    code: int | None = None


CASES = {
    "400": Case(Http(400), "BadRequestError", "invalid_request", code=400),
    "401": Case(Http(401), "AuthenticationError", "authentication", code=401),
    "404": Case(Http(404), "NotFoundError", "not_found", code=404),
    "429": Case(Http(429), "RateLimitError", "rate_limit", code=429),
    "429 with Retry-After": Case(Http(429, retry_after="9"), "RateLimitError", "rate_limit", code=429),
    "500": Case(Http(500), "InternalServerError", "provider", code=500),
    "malformed JSON": Case(Body(b'{"id": "x", "choices'), "JSONDecodeError", "malformed"),
    "broken off": Case(Cut(40), "APIConnectionError", "connection"),
    "hang": Case(Hang(), "APITimeoutError", "timeout"),
}


async def raised_by(asking: Callable[[], Awaitable[Any]]) -> Exception:
    async with asyncio.timeout(LONGEST):
        try:
            await asking()
        except Exception as error:  # noqa: BLE001 - which one it is, is what is asked
            return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize("name", list(CASES))
async def test_the_clients_exception_comes_out_and_the_event_says_its_kind(
    lab: Lab, reply: PromptVersion, spoken: Spoken, server: LlmServer, name: str
) -> None:
    case = CASES[name]
    server.script += [case.fault, case.fault]
    options = {"timeout": 0.3 if isinstance(case.fault, Hang) else 5}
    bare = await raised_by(lambda: spoken.create(**options))
    ours = await raised_by(lambda: lab.complete("support_reply", **spoken.how, options=options))
    assert (type(ours), str(ours)) == (type(bare), str(bare))
    assert type(ours).__name__ == case.error
    event = await only_use(lab, reply)
    told = event.metadata["call"]
    assert (event.success, told["status"], told["failure"]) == (False, case.status, case.kind)
    assert (told["error_type"], told.get("status_code")) == (case.error, case.code)
    assert (event.tokens, event.cost, event.metrics["attempts"]) == (None, None, 1.0)
    assert event.response_time is not None
    assert event.response_time > 0.0


WRONG = {
    "wrong types": {"id": 7, "model": ["m"], "choices": "many", "output": 3, "content": {}, "usage": "lots"},
    "no choices": {"id": "x", "model": "m", "choices": [], "output": [], "content": [], "usage": None},
    "a list": [],
}


@pytest.mark.parametrize("name", list(WRONG))
async def test_an_answer_that_is_none_is_handed_over_and_is_no_success(
    lab: Lab, reply: PromptVersion, spoken: Spoken, server: LlmServer, name: str
) -> None:
    server.script += [Body(json.dumps(WRONG[name]).encode())] * 2
    bare = await spoken.create()
    done = await lab.complete("support_reply", **spoken.how)
    assert (type(done.response), done.text) == (type(bare), "")
    event = await only_use(lab, reply)
    kind = "no_answer" if name == "no choices" else "malformed"
    assert (event.success, event.metadata["call"]["failure"]) == (False, kind)
    assert (event.tokens, event.cost) == (None, None)


@pytest.mark.parametrize(
    ("faults", "attempts"),
    [([Http(429, retry_after="0.01")], 2), ([Http(500, retry_after="0.01")] * 2, 3), ([Http(529)], 2)],
    ids=["429 with Retry-After", "500 twice", "529 without Retry-After"],
)
async def test_the_clients_own_retries_are_attempts_of_one_call(
    lab: Lab, reply: PromptVersion, spoken: Spoken, server: LlmServer, faults: list[Fault], attempts: int
) -> None:
    server.script += faults
    patient = spoken._replace(client=spoken.client.with_options(max_retries=2))
    async with asyncio.timeout(LONGEST):
        done = await lab.complete("support_reply", **patient.how)
    assert (done.text, done.call.attempts, len(server.asked)) == ("Hello there.", attempts, attempts)
    event = await only_use(lab, reply)
    assert (event.success, event.metrics["attempts"]) == (True, float(attempts))


async def test_a_client_that_gives_up_says_how_often_it_tried(
    lab: Lab, reply: PromptVersion, spoken: Spoken, server: LlmServer
) -> None:
    server.script += [Http(500, retry_after="0.01")] * 3
    patient = spoken._replace(client=spoken.client.with_options(max_retries=2))
    await raised_by(lambda: lab.complete("support_reply", **patient.how))
    assert (await only_use(lab, reply)).metrics["attempts"] == 3.0


async def test_a_provider_that_is_not_there_is_a_connection_error(lab: Lab, reply: PromptVersion) -> None:
    here = {"base_url": "http://127.0.0.1:9", "api_key": "k", "max_retries": 0}
    async with openai.AsyncOpenAI(**here) as one, anthropic.AsyncAnthropic(**here) as other:
        for client in (one, other):
            error = await raised_by(
                lambda client=client: lab.complete(  # type: ignore[misc]
                    "support_reply", client=client, variables={"customer": "Ada"}
                )
            )
            assert type(error).__name__ == "APIConnectionError"
    assert [event.metadata["call"]["failure"] for event in await uses(lab, reply)] == ["connection"] * 2


async def test_a_caller_who_goes_away_is_no_failure_of_the_version(
    lab: Lab, reply: PromptVersion, spoken: Spoken, server: LlmServer
) -> None:
    server.script.append(Hang())
    waiting = asyncio.create_task(lab.complete("support_reply", **spoken.how))
    async with asyncio.timeout(LONGEST):
        await server.heard.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    event = await only_use(lab, reply)
    told = event.metadata["call"]
    assert (event.success, told["status"], told["failure"]) == (None, "cancelled", "cancelled")
    # the connection is as good as new for the next one
    assert (await lab.complete("support_reply", **spoken.how)).text == "Hello there."


async def test_the_wrapper_records_what_the_client_raises(
    lab: Lab, reply: PromptVersion, spoken: Spoken, server: LlmServer
) -> None:
    server.script.append(Http(429))

    async def use() -> None:
        async with (await lab.choose("support_reply")).call() as call:
            call.observe(await spoken.create())

    assert type(await raised_by(use)).__name__ == "RateLimitError"
    event = await only_use(lab, reply)
    assert (event.success, event.metadata["call"]["failure"]) == (False, "rate_limit")
    assert event.metrics["attempts"] == 1.0


async def test_a_prompt_that_does_not_render_is_a_failure_of_its_version(
    lab: Lab, reply: PromptVersion, spoken: Spoken, server: LlmServer
) -> None:
    with pytest.raises(VariableError, match="customer"):
        await lab.complete("support_reply", **{**spoken.how, "variables": {}})
    event = await only_use(lab, reply)
    assert (event.success, event.response_time) == (False, None)
    assert event.metadata["call"]["failure"] == "prompt"
    assert server.asked == []


async def test_no_message_of_an_error_is_stored(
    lab: Lab, reply: PromptVersion, spoken: Spoken, server: LlmServer
) -> None:
    server.script.append(Http(401, message="the key sk-secret is not known"))
    error = await raised_by(lambda: lab.complete("support_reply", **spoken.how))
    assert "sk-secret" in str(error)
    assert "sk-secret" not in (await only_use(lab, reply)).model_dump_json()


async def test_calls_at_once_get_their_own_answers_and_events(
    lab: Lab, reply: PromptVersion, spoken: Spoken, server: LlmServer
) -> None:
    server.answer = lambda asked: asked.messages[-1][1]

    async def ask(number: int) -> tuple[str, str]:
        how = {**spoken.how, "variables": {"customer": f"customer {number}"}}
        done = await lab.complete("support_reply", **how, metadata={"number": number})
        return done.text, done.call_id

    answers = await asyncio.gather(*map(ask, range(30)))
    assert [text for text, _ in answers] == [f"Help customer {number}." for number in range(30)]
    stored = {event.event_id: event.metadata["number"] for event in await uses(lab, reply)}
    assert stored == {call_id: number for number, (_, call_id) in enumerate(answers)}
