"""Runs in the shadow beside calls by the real clients: what is sent, what is recorded, and that no user notices."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import promptab
from promptab import Lab, ShadowSettings, VariableError
from tests.llm_server import Body, Cut, Fault, Hang, Status
from tests.shadows.conftest import (
    LONGEST,
    SERVED_MODELS,
    SHADOW_MODELS,
    TwoFacedServer,
    anthropic,
    experiment_with_shadow,
    one_run,
    shadow_events,
)

FAULTS: dict[str, tuple[Fault, str]] = {
    "fails": (Status(500), "provider"),
    "refuses": (Status(401), "authentication"),
    "is limited": (Status(429), "rate_limit"),
    "talks nonsense": (Body(b"<html>"), "malformed"),
    "breaks off": (Cut(after_bytes=20), "connection"),
}


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    settings = ShadowSettings(timeout_seconds=LONGEST, close_seconds=LONGEST)
    async with promptab.open("sqlite:///:memory:", shadows=settings) as opened:
        yield opened


async def ask(lab: Lab, client: Any, user: str = "u", **how: Any) -> promptab.Completion:
    async with asyncio.timeout(LONGEST):
        return await lab.complete("reply", client=client, variables={"customer": "Ada"}, user_id=user, **how)


async def read(lab: Lab, client: Any, **how: Any) -> str:
    pieces = []
    async with (
        asyncio.timeout(LONGEST),
        lab.stream("reply", client=client, variables={"customer": "Ada"}, user_id="u", **how) as stream,
    ):
        async for text in stream.text:
            pieces.append(text)  # noqa: PERF401 - as users read it
    return "".join(pieces)


@pytest.mark.parametrize("api", list(SERVED_MODELS))
async def test_a_shadow_is_asked_by_the_same_client_with_its_own_template_model_and_parameters(
    lab: Lab, server: TwoFacedServer, client: Any, api: str
) -> None:
    await experiment_with_shadow(lab, api=api)
    turns = [{"role": "user", "content": "Hello?"}]
    async with anthropic.AsyncAnthropic(**server.anthropic, max_retries=0) as other:
        await ask(lab, other if api == "messages" else client, api=api, messages=turns)
        event = await one_run(lab)
    (asked,) = server.shadows
    assert asked.body["model"] == SHADOW_MODELS[api]
    assert [text for _, text in asked.messages] == ["Be brief with Ada.", "Hello?"]
    assert 20 in asked.body.values()
    assert event.success is True
    assert event.response_time is not None
    assert event.tokens is not None
    assert event.tokens.total == 150
    assert event.cost is not None


async def test_a_run_says_whose_it_is_beside_the_fields_of_what_was_served(lab: Lab, client: Any) -> None:
    experiment = await experiment_with_shadow(lab)
    candidate = await lab.versions.get_version("reply", "system", "2.0.0")
    assert candidate is not None
    served = await ask(lab, client, metadata={"request": "r1", "shadow": "mine"})
    event = await one_run(lab)
    assert (event.kind, event.version_id, event.experiment_id, event.variant, event.user_id) == (
        "shadow", None, None, None, None,
    )  # fmt: skip
    assert event.shadow == (
        experiment.experiment_id, "candidate", "u", candidate.version_id, None, served.call_id,
    )  # fmt: skip
    assert event.metadata["request"] == "r1"
    assert event.metadata["call"]["prompt"] == "system/reply@2.0.0"


@pytest.mark.parametrize(("fault", "kind"), FAULTS.values(), ids=list(FAULTS))
async def test_what_a_shadow_meets_reaches_nobody_and_is_recorded_counted_and_logged(
    lab: Lab,
    server: TwoFacedServer,
    client: Any,
    caplog: pytest.LogCaptureFixture,
    fault: Fault,
    kind: str,
) -> None:
    await experiment_with_shadow(lab)
    server.fault = fault
    with caplog.at_level(logging.WARNING, "promptab.shadows"):
        assert (await ask(lab, client)).text == "Hello there."
        event = await one_run(lab)
    assert (event.success, event.metadata["call"]["failure"]) == (False, kind)
    assert lab.shadows.stats().failed == 1
    assert caplog.messages == [f"shadow candidate of experiment 'reply' failed: {kind}"]


async def test_a_shadow_that_hangs_delays_no_answer_and_ends_as_a_timeout(
    server: TwoFacedServer, client: Any
) -> None:
    async with promptab.open("sqlite:///:memory:", shadows=ShadowSettings(timeout_seconds=0.3)) as lab:
        await experiment_with_shadow(lab)
        server.fault = Hang()
        answers = [await ask(lab, client, f"u{number}") for number in range(5)]
        assert {answer.text for answer in answers} == {"Hello there."}
        found = await shadow_events(lab)
    assert [event.metadata["call"]["failure"] for event in found] == ["timeout"] * 5
    assert [event.success for event in found] == [False] * 5


async def test_a_served_stream_is_read_whole_while_its_shadow_waits(
    lab: Lab, server: TwoFacedServer, client: Any
) -> None:
    await experiment_with_shadow(lab)
    server.gate.clear()
    assert await read(lab, client) == "Hello there."
    async with asyncio.timeout(LONGEST):
        await server.shadowed.wait()
    assert lab.shadows.stats().pending == 1
    server.gate.set()
    assert (await one_run(lab)).metadata["call"].get("streamed") is None


async def test_a_stream_that_nobody_reads_on_has_no_shadow_and_one_that_breaks_off_has(
    lab: Lab, server: TwoFacedServer, client: Any
) -> None:
    await experiment_with_shadow(lab)
    async with lab.stream("reply", client=client, variables={"customer": "Ada"}, user_id="u") as stream:
        async for _ in stream:
            break
    assert await shadow_events(lab) == []
    server.script.append(Cut(after_bytes=300))
    with pytest.raises(Exception, match="Connection error"):
        await read(lab, client)
    assert (await one_run(lab)).success is True


async def test_a_served_call_that_fails_has_a_shadow_as_both_outcomes_are_to_be_compared(
    lab: Lab, server: TwoFacedServer, client: Any
) -> None:
    await experiment_with_shadow(lab)
    server.script.append(Status(500))
    with pytest.raises(Exception, match="500"):
        await ask(lab, client)
    assert (await one_run(lab)).success is True


async def test_a_prompt_that_does_not_render_is_an_outcome_of_the_shadow_alone(lab: Lab, client: Any) -> None:
    await experiment_with_shadow(lab)
    await lab.experiments.stop("reply")
    await lab.versions.create_version("reply", "system", "{{ customer }}, {{ mood }}", version="3.0.0")
    await lab.experiments.create_experiment(
        "reply", "system", [{"version": "1.0.0"}, {"version": "3.0.0", "shadow": 1.0}]
    )
    assert (await ask(lab, client, model="gpt-4.1-mini")).text == "Hello there."
    event = await one_run(lab)
    assert (event.success, event.metadata["call"]["failure"]) == (False, "prompt")
    with pytest.raises(VariableError):
        await lab.complete("reply", client=client, user_id="u", model="gpt-4.1-mini")


async def test_what_the_caller_says_holds_where_a_shadow_says_nothing(
    lab: Lab, server: TwoFacedServer, client: Any
) -> None:
    for number in ("1.0.0", "2.0.0"):
        await lab.versions.create_version("reply", "system", "Hi.", version=number)
    await lab.experiments.create_experiment(
        "reply",
        "system",
        [
            {"version": "1.0.0"},
            {"version": "2.0.0", "shadow": 1.0, "config": {"parameters": {"temperature": 0.9}}},
        ],
    )
    async with asyncio.timeout(LONGEST):
        await lab.complete(
            "reply",
            client=client,
            user_id="u",
            model="gpt-4.1-mini",
            parameters={"temperature": 0.1, "seed": 7},
        )
    await shadow_events(lab)
    served, shadow = (asked.body for asked in server.asked)
    assert (served["temperature"], served["seed"]) == (0.1, 7)
    assert (shadow["model"], shadow["temperature"], shadow["seed"]) == ("gpt-4.1-mini", 0.9, 7)


async def test_what_is_changed_after_the_answer_is_not_in_the_shadows_request(
    lab: Lab, server: TwoFacedServer, client: Any
) -> None:
    await experiment_with_shadow(lab)
    turns = [{"role": "user", "content": "Hello?"}]
    answer = await ask(lab, client, messages=turns)
    turns[0]["content"] = "Never mind."
    turns.append({"role": "assistant", "content": answer.text})
    await shadow_events(lab)
    assert server.shadows[0].messages[1:] == [("user", "Hello?")]


async def test_a_conversation_that_can_be_read_once_is_read_by_both(
    lab: Lab, server: TwoFacedServer, client: Any
) -> None:
    await experiment_with_shadow(lab)

    def turns() -> Iterator[dict[str, str]]:
        yield {"role": "user", "content": "Hello?"}

    await ask(lab, client, messages=turns())
    await shadow_events(lab)
    assert server.served[0].messages[1:] == server.shadows[0].messages[1:] == [("user", "Hello?")]


async def test_a_request_that_is_cancelled_sends_no_shadow_and_leaves_nothing(
    lab: Lab, server: TwoFacedServer, client: Any
) -> None:
    await experiment_with_shadow(lab)
    server.script.append(Hang())
    asking = asyncio.create_task(ask(lab, client))
    async with asyncio.timeout(LONGEST):
        await server.heard.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert await shadow_events(lab) == []
    assert lab.shadows.stats() == (0, 0, 0, 0, 0, 0, 0.0)


async def test_a_shadow_goes_on_when_the_request_that_it_stood_beside_has_been_answered_and_cancelled(
    lab: Lab, server: TwoFacedServer, client: Any
) -> None:
    await experiment_with_shadow(lab)
    server.gate.clear()
    answered = asyncio.Event()

    async def handle() -> None:
        await ask(lab, client)
        answered.set()
        await asyncio.Event().wait()

    handler = asyncio.create_task(handle())
    async with asyncio.timeout(LONGEST):
        await answered.wait()
        await server.shadowed.wait()
    handler.cancel()
    server.gate.set()
    assert (await one_run(lab)).success is True


async def test_what_finds_no_room_is_left_out_and_counted(server: TwoFacedServer, client: Any) -> None:
    async with promptab.open("sqlite:///:memory:", shadows=ShadowSettings(most_at_once=3)) as lab:
        await experiment_with_shadow(lab)
        server.gate.clear()
        await asyncio.gather(*(ask(lab, client, f"u{number}") for number in range(10)))
        async with asyncio.timeout(LONGEST):
            await server.crowded.wait()
        server.gate.set()
        assert len(await shadow_events(lab)) == 3
        stats = lab.shadows.stats()
        assert (stats.answered, stats.over_capacity, stats.pending) == (3, 7, 0)
        await ask(lab, client)
        await shadow_events(lab)
        assert lab.shadows.stats().answered == 4
    assert server.most_at_once == 3


async def test_calls_whose_runs_were_left_out_are_compared_with_no_run(
    server: TwoFacedServer, client: Any
) -> None:
    async with promptab.open("sqlite:///:memory:", shadows=ShadowSettings(max_cost=1e-9)) as lab:
        experiment = await experiment_with_shadow(lab)
        for number in range(2):
            await ask(lab, client, f"u{number}")
        await shadow_events(lab)
        for number in range(2):
            await ask(lab, client, f"u{number}")
        (shadow,) = (await lab.shadow_report(experiment.experiment_id)).shadows
        (comparison,) = shadow.comparisons
        assert lab.shadows.stats().over_cost > 0
        assert comparison.calls > comparison.runs == shadow.runs
        totals = await lab.store.read(lambda tx: tx.shadows.totals(experiment))
        assert sum(row.use.totals["response_time"][0] for row in totals.served["candidate"]) == shadow.runs


async def test_no_run_begins_that_may_go_past_the_cost_that_was_set(
    server: TwoFacedServer, client: Any
) -> None:
    async with promptab.open("sqlite:///:memory:", shadows=ShadowSettings(max_cost=2e-5)) as lab:
        await experiment_with_shadow(lab)
        for number in range(6):
            await ask(lab, client, f"u{number}")
            await lab.shadows.settle()
        stats = lab.shadows.stats()
        events = await shadow_events(lab)
    costs = [event.cost or 0.0 for event in events]
    assert stats.cost == pytest.approx(sum(costs))
    assert sum(costs) <= 2e-5 < sum(costs) + max(costs)
    assert (stats.answered, stats.over_cost) == (len(costs), 6 - len(costs))


async def test_closing_waits_for_what_is_out_and_records_it(
    server: TwoFacedServer, client: Any, tmp_path: Any
) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    async with promptab.open(url, shadows=ShadowSettings(close_seconds=LONGEST)) as lab:
        await experiment_with_shadow(lab)
        server.gate.clear()
        await ask(lab, client)
        async with asyncio.timeout(LONGEST):
            await server.shadowed.wait()
        asyncio.get_running_loop().call_later(0.2, server.gate.set)
    async with promptab.open(url) as again:
        assert (await one_run(again)).success is True


async def test_closing_cancels_what_does_not_end_in_time_and_says_so(
    server: TwoFacedServer, client: Any, tmp_path: Any
) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    async with asyncio.timeout(LONGEST), promptab.open(url, shadows=ShadowSettings(close_seconds=0.1)) as lab:
        await experiment_with_shadow(lab)
        server.fault = Hang()
        await ask(lab, client)
        await server.shadowed.wait()
    assert lab.shadows.stats() == (0, 0, 0, 1, 0, 0, 0.0)
    assert [task.get_name() for task in asyncio.all_tasks() if "shadow" in task.get_name()] == []
    async with promptab.open(url) as again:
        event = await one_run(again)
    assert (event.success, event.metadata["call"]["status"]) == (None, "cancelled")


async def test_a_program_that_closes_nothing_ends_all_the_same(server: TwoFacedServer, client: Any) -> None:
    lab = await promptab.open("sqlite:///:memory:")
    await experiment_with_shadow(lab)
    server.fault = Hang()
    await ask(lab, client)
    async with asyncio.timeout(LONGEST):
        await server.shadowed.wait()
    (task,) = (task for task in asyncio.all_tasks() if task.get_name() == "promptab shadow")
    # what the end of a loop does to all that still runs on it
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await lab.close()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
async def test_a_child_has_none_of_its_parents_runs(lab: Lab, server: TwoFacedServer, client: Any) -> None:
    await experiment_with_shadow(lab)
    server.gate.clear()
    await ask(lab, client)
    async with asyncio.timeout(LONGEST):
        await server.shadowed.wait()
    child = os.fork()
    if child == 0:
        # nothing of the parent's loop is touched: only what the lab counts
        os._exit(lab.shadows.stats().pending)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert lab.shadows.stats().pending == 1
    server.gate.set()
    assert (await one_run(lab)).success is True
