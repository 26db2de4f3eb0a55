"""What stands in: another model for one that fails, a prompt that came with the program for a store that is away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import promptab
from promptab import InvalidInputError, Lab, PromptVariant, PromptVersion, StoreUnavailableError
from tests.calls.conftest import only_use
from tests.calls.test_complete import Watching
from tests.llm_server import Asked, Body, Hang, LlmServer, Status

CONFIG = {
    "model": "gpt-4.1-mini",
    "parameters": {"max_tokens": 50},
    "fallbacks": [
        "gpt-4.1-nano",
        {"model": "claude-haiku-4-5", "provider": "anthropic", "parameters": {"max_tokens": 20}},
    ],
}
PATIENT_FOR_A_WHILE = promptab.QueueSettings(patience_seconds=0.2)
HOW: dict[str, Any] = {"variables": {"customer": "Ada"}, "options": {"timeout": 0.5}}


@pytest.fixture
async def chained(lab: Lab, server: LlmServer) -> PromptVersion:
    """A version whose configuration names three models; each answers by its own name."""

    def name(asked: Asked) -> str:
        return str(asked.body["model"])

    server.answer = name
    created = await lab.versions.create_version("reply", "system", "Help {{ customer }}.", config=CONFIG)
    await lab.versions.promote(created.version_id)
    return created


@pytest.fixture
def clients(openai_client: Any, anthropic_client: Any) -> list[Any]:
    return [openai_client, anthropic_client]


async def test_the_first_model_that_answers_is_the_last_that_is_asked(
    lab: Lab, chained: PromptVersion, clients: list[Any], server: LlmServer
) -> None:
    done = await lab.complete("reply", client=clients, **HOW)
    assert (done.text, done.tried, len(server.asked)) == ("gpt-4.1-mini", (), 1)
    assert (await only_use(lab, chained)).success is True


async def test_each_model_that_is_tried_is_an_event_and_none_but_the_first_counts_for_the_version(
    lab: Lab, chained: PromptVersion, clients: list[Any], server: LlmServer
) -> None:
    await lab.versions.create_version("reply", "system", "Help {{ customer }} now.", config=CONFIG)
    experiment = await lab.experiments.create_experiment(
        "reply", "system", [PromptVariant("1.0.0"), PromptVariant("1.0.1")], overrides={"u42": "1.0.0"}
    )
    watching = Watching()
    lab.calls.observers.append(watching)
    server.script += [Status(429), Status(500)]
    done = await lab.complete("reply", user_id="u42", client=clients, **HOW)
    assert done.text == "claude-haiku-4-5"
    assert [asked.body["model"] for asked in server.asked] == [
        "gpt-4.1-mini",
        "gpt-4.1-nano",
        "claude-haiku-4-5",
    ]
    assert [asked.body.get("max_tokens") for asked in server.asked] == [50, 50, 20]
    first, second, third = watching.calls
    assert (done.tried, done.call) == ((first, second), third)
    assert [call.status for call in watching.calls] == ["error", "error", "ok"]
    assert [call.failure and call.failure.kind for call in watching.calls] == ["rate_limit", "provider", None]
    assert (first.subject.version, first.subject.experiment_id) == ("1.0.0", experiment.experiment_id)
    for other in (second, third):
        assert (other.subject.source, other.subject.stands_in_for) == ("fallback", "system/reply@1.0.0")
        assert (other.subject.version_id, other.subject.variant, other.subject.unit) == (None, None, None)
    event = await only_use(lab, chained)
    assert (event.event_id, event.success, event.variant) == (first.call_id, False, "1.0.0")
    assert event.cost is None
    costs = {row.key: row for row in await lab.costs("version")}
    assert costs[None, None, None].calls == 2
    assert costs[None, None, None].cost == third.cost


async def test_what_is_said_of_a_fallbacks_answer_is_not_said_of_the_version(
    lab: Lab, chained: PromptVersion, clients: list[Any], server: LlmServer
) -> None:
    server.script.append(Hang())
    done = await lab.complete("reply", client=clients, **HOW)
    assert done.text == "gpt-4.1-nano"
    said = await lab.feedback(done.call_id, rating=5)
    assert (said.version_id, said.experiment_id) == (None, None)
    assert (await lab.metrics.get_metrics(chained.version_id)).rating_count == 0


async def test_where_every_model_fails_the_last_exception_comes_out(
    lab: Lab, chained: PromptVersion, clients: list[Any], server: LlmServer
) -> None:
    server.script += [Status(429), Status(500), Status(529)]
    with pytest.raises(Exception, match="529") as caught:
        await lab.complete("reply", client=clients, **HOW)
    assert type(caught.value).__name__ == "OverloadedError"
    assert caught.value.__context__ is None
    assert lab.calls.stats().finished == 3


@pytest.mark.parametrize(
    ("api", "body", "kind"),
    [
        ("chat", b'{"id": "x", "choices": null}', "malformed"),
        ("responses", b'{"status": "failed", "error": {"code": "server_error"}, "output": []}', "provider"),
    ],
)
async def test_an_answer_that_reports_a_failure_has_the_next_model_asked(
    lab: Lab, chained: PromptVersion, clients: list[Any], server: LlmServer, api: str, body: bytes, kind: str
) -> None:
    server.script.append(Body(body))
    done = await lab.complete("reply", client=clients, api=api, **HOW)
    assert done.text == "gpt-4.1-nano"
    assert [call.failure and call.failure.kind for call in done.tried] == [kind]
    assert lab.calls.stats().finished == 2
    event = await only_use(lab, chained)
    assert (event.success, event.event_id) == (False, done.tried[0].call_id)


async def test_where_every_answer_reports_a_failure_the_last_is_handed_over(
    lab: Lab, chained: PromptVersion, clients: list[Any], server: LlmServer
) -> None:
    server.script += [Body(b"{}")] * 3
    done = await lab.complete("reply", client=clients, **HOW)
    assert (done.text, len(done.tried), done.call.success) == ("", 2, False)
    assert lab.calls.stats().finished == 3


async def test_a_fault_of_the_request_asks_no_other_model(
    lab: Lab, chained: PromptVersion, clients: list[Any], server: LlmServer
) -> None:
    server.script.append(Status(400))
    with pytest.raises(Exception, match="400"):
        await lab.complete("reply", client=clients, **HOW)
    assert len(server.asked) == 1


async def test_a_stream_falls_back_before_its_first_chunk(
    lab: Lab, chained: PromptVersion, clients: list[Any], server: LlmServer
) -> None:
    server.script += [Status(500), Status(500)]
    async with lab.stream("reply", client=clients, **HOW) as stream:
        assert [text async for text in stream.text] == ["claude-haiku-4-5"]
    assert stream.call is not None
    assert stream.call.subject.stands_in_for == "system/reply@1.0.0"
    assert (await only_use(lab, chained)).success is False


async def test_a_model_named_by_hand_has_no_fallbacks(
    lab: Lab, chained: PromptVersion, clients: list[Any], server: LlmServer
) -> None:
    server.script.append(Status(500))
    with pytest.raises(Exception, match="500"):
        await lab.complete("reply", client=clients, model="gpt-5", **HOW)
    assert len(server.asked) == 1


async def test_a_fallback_without_its_client_is_found_before_it_is_needed(
    lab: Lab, chained: PromptVersion, openai_client: Any, server: LlmServer
) -> None:
    with pytest.raises(InvalidInputError, match=r"config\.provider.*anthropic"):
        await lab.complete("reply", client=openai_client, **HOW)
    assert server.asked == []


@pytest.fixture
async def away(tmp_path: Path) -> AsyncIterator[Lab]:
    """A lab whose database has never been there."""
    path = tmp_path / "store.db"
    path.mkdir()
    lab = await promptab.open(f"sqlite:///{path}", may_be_away=True, timeout=2, queue=PATIENT_FOR_A_WHILE)
    yield lab
    with suppress(StoreUnavailableError):
        await lab.close()


async def test_a_template_stands_in_where_the_store_was_never_reached(
    away: Lab, openai_client: Any, server: LlmServer
) -> None:
    how = {**HOW, "client": openai_client, "model": "gpt-4.1-mini"}
    with pytest.raises(StoreUnavailableError):
        await away.complete("reply", **how)
    done = await away.complete("reply", user_id="u42", **how, fallback="Do help {{ customer }}.")
    assert done.text == "Hello there."
    assert server.asked[0].messages == [("system", "Do help Ada.")]
    assert (done.choice.source, done.choice.version, done.choice.unit) == ("fallback", None, None)
    assert (done.call.subject.version_id, done.call.subject.stands_in_for) == (None, "system/reply")
    await away.calls.settle()
    # the store is still away: the event waits for it, which is no matter to the caller
    assert away.calls.stats().not_recorded == 0
    assert (away.metrics.stats().queued, away.metrics.stats().written) == (1, 0)


async def test_when_the_store_comes_prompts_come_from_it_and_the_waiting_event_goes_into_it(
    away: Lab, tmp_path: Path, openai_client: Any
) -> None:
    how = {"client": openai_client, "model": "gpt-4.1-mini", "fallback": "Help."}
    stood_in = await away.complete("reply", **how)
    (tmp_path / "store.db").rmdir()
    await away.metrics.flush(10)
    created = await away.versions.create_version("reply", "system", "Be kind.")
    done = await away.complete("reply", **how)
    assert (stood_in.choice.source, done.choice.source) == ("fallback", "range")
    assert (await only_use(away, created)).event_id == done.call_id
    assert (await away.feedback(stood_in.call_id, rating=4)).version_id is None


async def test_a_version_stands_in_with_its_own_model(
    away: Lab, lab: Lab, openai_client: Any, server: LlmServer
) -> None:
    version = await lab.versions.create_version(
        "reply",
        "message",
        [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "{{ q }}"}],
        config={"model": "m-7"},
        defaults={"q": "Hm?"},
    )
    done = await away.complete("reply", "message", client=openai_client, fallback=version)
    assert (server.asked[0].body["model"], done.call.subject.version_id) == ("m-7", None)
    assert server.asked[0].messages == [("system", "Be kind."), ("user", "Hm?")]


async def test_choose_serves_the_fallback_to_code_that_calls_the_client_itself(
    away: Lab, openai_client: Any
) -> None:
    choice = await away.choose("reply", fallback="Help {{ customer }}.")
    assert choice.render(customer="Ada") == "Help Ada."
    async with choice.call() as call:
        call.observe(await openai_client.chat.completions.create(model="gpt-4.1-mini", messages=[]))
    assert call.finished is not None
    assert call.finished.subject.stands_in_for == "system/reply"


async def test_a_fallback_is_not_served_while_the_store_is_there(
    lab: Lab, chained: PromptVersion, clients: list[Any]
) -> None:
    done = await lab.complete("reply", client=clients, fallback="Never mind.", **HOW)
    assert done.choice.content_hash == chained.content_hash


@pytest.mark.parametrize("wrong", ["{{ open", "", 3])
async def test_a_fallback_that_is_no_prompt_is_refused(away: Lab, wrong: Any) -> None:
    kind = "message" if wrong == "" else "system"
    with pytest.raises(InvalidInputError, match="template"):
        await away.choose("reply", kind, fallback=wrong)


async def test_a_version_that_includes_others_cannot_stand_in(away: Lab, lab: Lab) -> None:
    await lab.versions.create_version("tone", "system", "Be kind.")
    version = await lab.versions.create_version("reply", "system", '{% include "system/tone" %}')
    with pytest.raises(InvalidInputError, match="without includes"):
        await away.choose("reply", fallback=version)
