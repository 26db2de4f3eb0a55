"""Trying versions on cases by the real clients."""

from __future__ import annotations

import asyncio
import json
import sys
from types import ModuleType
from typing import Any

import pytest

from promptab import (
    CaseReport,
    GateError,
    InvalidInputError,
    Lab,
    NotFoundError,
    Price,
    PriceBook,
    PromptVersion,
    StateError,
)
from tests.calls.conftest import Spoken, uses
from tests.llm_server import Asked, Body, Hang, LlmServer, Status

CASES: list[dict[str, Any]] = [
    {"name": "named", "variables": {"customer": "Ada"}, "expect": {"contains": "Ada"}},
    {"name": "number", "variables": {"customer": "Bo"}, "expect": {"regex": r"\d{2}"}},
    {
        "name": "asked",
        "variables": {"customer": "Cy"},
        "messages": [{"role": "user", "content": "Where is my parcel?"}],
        "expect": {"ends_with": "parcel?"},
    },
]


def echoing(asked: Asked) -> str:
    """Answer with a number and what was asked."""
    return f"42 {' '.join(text for _, text in asked.messages)}"


@pytest.fixture
async def cased(lab: Lab, reply: PromptVersion) -> PromptVersion:
    """`reply` with three cases."""
    await lab.versions.set_cases("support_reply", "system", CASES)
    return reply


@pytest.fixture
async def shorter(lab: Lab, cased: PromptVersion) -> PromptVersion:
    """The next version, which does not use the customer's name."""
    return await lab.versions.create_version(
        "support_reply", "system", "Help{{ '' if customer else '' }}.", config=cased.config
    )


def statuses(report: CaseReport) -> list[str]:
    return [case.result.status for case in report.cases]


async def test_every_case_is_asked_and_judged_by_every_protocol(
    lab: Lab, cased: PromptVersion, spoken: Spoken, server: LlmServer
) -> None:
    server.answer = echoing
    how: dict[str, Any] = {"client": spoken.client, "api": spoken.api, "model": spoken.model}
    report = await lab.test("support_reply", **how)
    assert statuses(report) == ["passed"] * 3
    assert (report.prompt, report.version, report.live) == ("system/support_reply", "1.0.0", None)
    assert (report.all_passed, report.calls, report.calls_of_unknown_cost) == (True, 3, 0)
    assert {asked.messages[0][1] for asked in server.asked} == {"Help Ada.", "Help Bo.", "Help Cy."}
    assert {asked.body["model"] for asked in server.asked} == {spoken.model}
    results = await lab.versions.case_results(cased.version_id)
    assert [results[case.name] for case in report.cases] == [case.result for case in report.cases]
    assert all(result.cost and result.seconds and result.answer for result in results.values())
    # the use of a version is what its users see
    assert await uses(lab, cased) == []


async def test_what_does_not_hold_is_told_with_the_answer(
    lab: Lab, cased: PromptVersion, openai_client: Any, server: LlmServer
) -> None:
    server.answer = lambda asked: "Hello."
    report = await lab.test("support_reply", client=openai_client)
    assert statuses(report) == ["failed"] * 3
    assert [case.result.reasons for case in report.cases] == [
        ("does not contain 'Ada'",), (r"does not match '\\d{2}'",), ("does not end with 'parcel?'",),
    ]  # fmt: skip
    assert report.cases[0].result.answer == "Hello."
    assert not report.all_passed


async def test_a_case_that_does_not_render_has_failed_and_costs_nothing(
    lab: Lab, cased: PromptVersion, openai_client: Any, server: LlmServer
) -> None:
    await lab.versions.set_cases("support_reply", "system", [{"variables": {"client": "Ada"}}])
    report = await lab.test("support_reply", client=openai_client)
    (case,) = report.cases
    assert case.result.status == "failed"
    assert "customer" in case.result.reasons[0]
    assert (server.asked, report.calls, report.cost) == ([], 0, 0.0)


async def test_what_is_live_is_tried_too_as_far_as_it_was_not(
    lab: Lab, shorter: PromptVersion, openai_client: Any, server: LlmServer
) -> None:
    server.answer = echoing
    report = await lab.test("support_reply", client=openai_client)
    assert (report.version, report.live, report.steps_back) == ("1.0.1", "1.0.0", ("named",))
    assert [case.live.status if case.live else None for case in report.cases] == ["passed"] * 3
    assert (report.calls, len(server.asked)) == (6, 6)
    again = await lab.test("support_reply", client=openai_client)
    assert (again.calls, again.steps_back) == (3, ("named",))
    # another model is another question
    assert (await lab.test("support_reply", client=openai_client, model="gpt-4.1-nano")).calls == 6
    alone = await lab.test("support_reply", client=openai_client, against=None)
    assert (alone.calls, alone.live, alone.steps_back) == (3, None, ())
    live = await lab.test("support_reply", version="production", client=openai_client)
    assert (live.version, live.live, live.calls) == ("1.0.0", None, 3)


async def test_a_trial_is_what_the_gate_goes_by(
    lab: Lab, shorter: PromptVersion, openai_client: Any, server: LlmServer
) -> None:
    server.answer = echoing
    with pytest.raises(GateError, match="not tried"):
        await lab.versions.promote(shorter.version_id, gate=True)
    await lab.test("support_reply", client=openai_client)
    with pytest.raises(GateError, match=r"passed on .*@1\.0\.0.* fails on .*@1\.0\.1: named"):
        await lab.versions.promote(shorter.version_id, gate=True)
    server.answer = lambda asked: f"{echoing(asked)} Ada parcel?"
    await lab.test("support_reply", client=openai_client)
    move = await lab.versions.promote(shorter.version_id, gate=True)
    assert move.version == "1.0.1"


async def test_what_is_live_and_cannot_be_asked_is_no_reason_to_stop(
    lab: Lab, openai_client: Any, server: LlmServer
) -> None:
    old = await lab.versions.create_version("reply", "system", "Help.")
    await lab.versions.promote(old.version_id)
    await lab.versions.create_version("reply", "system", "Do help.", config={"model": "gpt-4.1-mini"})
    await lab.versions.set_cases("reply", "system", [{}])
    report = await lab.test("reply", client=openai_client)
    (case,) = report.cases
    assert case.live is not None
    assert (case.result.status, case.live.status) == ("passed", "error")
    assert "config.model" in case.live.reasons[0]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Status(401), "the provider refuses the key, or what it is used for (AuthenticationError, 401)"),
        (Status(404), "the provider has no such model (NotFoundError, 404)"),
        (Status(429), "the provider limits the rate of requests (RateLimitError, 429)"),
        (Hang(), "no answer in time (TimeoutError)"),
    ],
    ids=["key", "model", "rate", "hang"],
)
async def test_a_call_without_an_answer_says_nothing_of_the_version(
    lab: Lab, cased: PromptVersion, openai_client: Any, server: LlmServer, fault: Any, said: str
) -> None:
    server.answer = echoing
    server.script.append(fault)
    report = await lab.test("support_reply", client=openai_client, concurrency=1, timeout=1.0)
    assert statuses(report) == ["error", "passed", "passed"]
    assert report.cases[0].result.reasons == (said,)
    assert list(await lab.versions.case_results(cased.version_id)) == ["number", "asked"]
    assert report.calls_of_unknown_cost == (1 if isinstance(fault, Hang) else 0)


async def test_an_empty_answer_is_one_of_the_version(
    lab: Lab, cased: PromptVersion, openai_client: Any, server: LlmServer
) -> None:
    empty = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": []}
    server.script.extend([Body(json.dumps(empty).encode())] * 3)
    report = await lab.test("support_reply", client=openai_client)
    assert {case.result.reasons for case in report.cases} == {("the answer is empty",)}
    assert statuses(report) == ["failed"] * 3


async def test_no_more_calls_than_allowed_go_on_at_a_time(
    lab: Lab, cased: PromptVersion, openai_client: Any, server: LlmServer
) -> None:
    await lab.versions.set_cases(
        "support_reply", "system", [{"variables": {"customer": str(n)}} for n in range(12)]
    )
    under_way = most = 0
    create = openai_client.chat.completions.create

    async def counted(**how: Any) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            return await create(**how)
        finally:
            under_way -= 1

    openai_client.chat.completions.create = counted
    told: list[object] = []
    report = await lab.test(
        "support_reply", client=openai_client, concurrency=3, on_plan=told.append, on_result=told.append
    )
    assert (len(server.asked), most) == (12, 3)
    assert told[0] == 12
    by_name = {case.name: case.result for case in report.cases}
    assert {by_name[result.name] for result in told[1:] if hasattr(result, "name")} == set(by_name.values())


PRICED = {"gpt-4.1-mini": Price(input=1_000.0, output=10_000.0, cache_read=500.0, cache_write=1_250.0)}
"""US dollars per million: the 120 tokens in and 30 out that the server tells of cost $0.37125."""


@pytest.mark.parametrize("concurrency", [1, 4, 12])
@pytest.mark.parametrize("limit", [0.0, 1.9, 4.0, 1_000.0])
async def test_a_limit_of_cost_is_not_exceeded_and_what_was_not_run_is_told(
    lab: Lab, cased: PromptVersion, openai_client: Any, server: LlmServer, limit: float, concurrency: int
) -> None:
    lab.calls.prices = PriceBook(PRICED)
    cases = [{"name": f"n{n}", "variables": {"customer": str(n)}} for n in range(12)]
    await lab.versions.set_cases("support_reply", "system", cases)
    report = await lab.test("support_reply", client=openai_client, max_cost=limit, concurrency=concurrency)
    assert report.cost == pytest.approx(len(server.asked) * report.cost / max(1, report.calls))
    assert report.cost <= limit
    assert report.count("passed") == len(server.asked) == report.calls
    assert report.count("passed") + report.count("not_run") == 12
    if limit == 1_000.0:
        assert report.all_passed
    else:
        left = [case.result for case in report.cases if case.result.status == "not_run"]
        assert {result.reasons for result in left} == {("its cost could exceed the limit",)}
        # one more could have cost more than what was left, and as many were run as were sure to fit
        assert report.calls == {0.0: 0, 1.9: 1, 4.0: 6}[limit]


async def test_a_limit_needs_a_length_and_a_price(lab: Lab, openai_client: Any, server: LlmServer) -> None:
    await lab.versions.create_version("reply", "system", "Help.", config={"model": "gpt-4.1-mini"})
    await lab.versions.set_cases("reply", "system", [{}])
    with pytest.raises(InvalidInputError, match=r"max_tokens is not given.*--max-tokens"):
        await lab.test("reply", client=openai_client, max_cost=1.0)
    with pytest.raises(InvalidInputError, match=r"max_cost: 'my-own' is not a model whose price is known"):
        await lab.test("reply", client=openai_client, max_cost=1.0, max_tokens=10, model="my-own")
    assert server.asked == []
    report = await lab.test("reply", client=openai_client, max_cost=1.0, max_tokens=10)
    assert report.all_passed
    assert server.asked[0].body["max_completion_tokens"] == 10


async def test_a_given_length_goes_over_that_of_the_version(
    lab: Lab, cased: PromptVersion, spoken: Spoken, server: LlmServer
) -> None:
    how: dict[str, Any] = {"client": spoken.client, "api": spoken.api, "model": spoken.model}
    await lab.test("support_reply", **how, max_tokens=7)
    lengths = ("max_tokens", "max_completion_tokens", "max_output_tokens")
    given = [{name: asked.body[name] for name in lengths if name in asked.body} for asked in server.asked]
    assert [list(each.values()) for each in given] == [[7]] * 3


async def test_functions_run_for_those_only_who_allow_it(
    lab: Lab, cased: PromptVersion, openai_client: Any, server: LlmServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = ModuleType("shop_checks")
    called: list[str] = []

    def kind(answer: str) -> None:
        called.append(answer)
        assert "Ada" in answer, "say her name"

    async def short(answer: str) -> bool:
        await asyncio.sleep(0)
        return len(answer) < 5

    def broken(answer: str) -> None:
        raise KeyError(answer[:2])

    checks.kind, checks.short, checks.broken = kind, short, broken  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "shop_checks", checks)
    names = ["shop_checks:kind", "shop_checks:short", "shop_checks:broken"]
    await lab.versions.set_cases(
        "support_reply", "system", [{"variables": {"customer": "Bo"}, "expect": {"python": names}}]
    )
    with pytest.raises(InvalidInputError, match=r"not allowed to run.*--allow-python"):
        await lab.test("support_reply", client=openai_client)
    assert (called, server.asked) == ([], [])
    report = await lab.test("support_reply", client=openai_client, allow_python=True)
    (case,) = report.cases
    assert called == ["Hello there."]
    assert case.result.reasons[0].startswith("shop_checks:kind refuses it: say her name")
    assert case.result.reasons[1:] == (
        "shop_checks:short refuses it", "shop_checks:broken raised KeyError: 'He'",
    )  # fmt: skip


@pytest.mark.parametrize("missing", ["no_such_module_anywhere:f", "json:no_such_function", "json:__name__"])
async def test_a_function_that_is_not_there_is_found_before_the_first_call(
    lab: Lab, cased: PromptVersion, openai_client: Any, server: LlmServer, missing: str
) -> None:
    await lab.versions.set_cases("support_reply", "system", [{"expect": {"python": missing}}])
    with pytest.raises(InvalidInputError, match="a function"):
        await lab.test("support_reply", client=openai_client, allow_python=True)
    assert server.asked == []


async def test_an_interrupted_trial_keeps_what_it_has_found(
    lab: Lab, cased: PromptVersion, openai_client: Any, server: LlmServer
) -> None:
    server.answer = echoing
    server.script.extend([None, Hang()])
    trying = asyncio.ensure_future(lab.test("support_reply", client=openai_client, concurrency=1))
    async with asyncio.timeout(20):
        while len(server.asked) < 2:
            server.heard.clear()
            await server.heard.wait()
    trying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trying
    assert list(await lab.versions.case_results(cased.version_id)) == ["named"]


async def test_what_cannot_be_tried_is_refused(lab: Lab, reply: PromptVersion, openai_client: Any) -> None:
    with pytest.raises(StateError, match=r"has no cases.*set_cases"):
        await lab.test("support_reply", client=openai_client)
    with pytest.raises(NotFoundError):
        await lab.test("support_reply", version="9.9.9", client=openai_client)
    await lab.versions.set_cases("support_reply", "system", CASES)
    with pytest.raises(InvalidInputError, match="client"):
        await lab.test("support_reply", client=object())
    with pytest.raises(InvalidInputError, match="environment"):
        await lab.test("support_reply", client=openai_client, against="test")
    for wrong in ({"concurrency": 0}, {"timeout": 0.0}, {"max_cost": -1.0}, {"max_tokens": 0}):
        with pytest.raises(InvalidInputError, match=next(iter(wrong))):
            await lab.test("support_reply", client=openai_client, **wrong)


async def test_a_model_alone_is_tried_on_conversations(
    lab: Lab, openai_client: Any, server: LlmServer
) -> None:
    server.answer = echoing
    await lab.versions.create_version("fast", "model", config={"model": "gpt-4.1-mini"})
    await lab.versions.set_cases(
        "fast", "model", [{"messages": [{"role": "user", "content": "Hm?"}], "expect": {"equals": "42 Hm?"}}]
    )
    assert (await lab.test("fast", "model", client=openai_client)).all_passed
