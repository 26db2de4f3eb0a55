"""The coroutines of `Lab` that call models, with OpenAI's client over a transport that answers in memory."""

from __future__ import annotations

from typing import Any

import httpx2
import openai

from promptab import PromptVariant, PromptVersion
from tests.cancelled.attempts import Attempt, Preparation, Stage, reads

ANSWER: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": "gpt-4.1-mini",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello there."}}
    ],
    "usage": {"prompt_tokens": 20, "completion_tokens": 4, "total_tokens": 24},
}


def answering() -> openai.AsyncOpenAI:
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json=ANSWER))
    return openai.AsyncOpenAI(api_key="none", http_client=httpx2.AsyncClient(transport=transport))


async def asking_version(stage: Stage) -> PromptVersion:
    return await stage.lab.versions.create_version(
        stage.name, "system", "Be kind.", config={"model": "gpt-4.1-mini", "parameters": {"max_tokens": 20}}
    )


async def completing(stage: Stage) -> Attempt:
    version = await asking_version(stage)

    async def look() -> object:
        await stage.lab.calls.flush()
        return len(await stage.lab.metrics.get_events(version.version_id))

    # a call that had begun is an event, also where nobody waited for its end
    return Attempt(
        lambda: stage.lab.complete(stage.name, client=answering()),
        look,
        none=0,
        whole=1,
    )


async def giving_feedback(stage: Stage) -> Attempt:
    version = await asking_version(stage)
    done = await stage.lab.complete(stage.name, client=answering())

    async def look() -> object:
        await stage.lab.calls.flush()
        events = await stage.lab.metrics.get_events(version.version_id)
        return [event.user_rating for event in events if event.kind == "outcome"]

    return Attempt(lambda: stage.lab.feedback(done.call_id, rating=5), look, none=[], whole=[5.0])


async def adding_up_costs(stage: Stage) -> Attempt:
    await asking_version(stage)
    await stage.lab.complete(stage.name, client=answering())
    return reads(stage.lab.costs, [1], lambda rows: [row.calls for row in rows if stage.name in {*row.key}])


async def reporting_on_shadows(stage: Stage) -> Attempt:
    served = await asking_version(stage)
    shadow = await asking_version(stage)
    begun = await stage.lab.experiments.create_experiment(
        stage.name, "system", [PromptVariant(served.version), PromptVariant(shadow.version, shadow=1.0)]
    )
    choice = await stage.lab.choose(stage.name, user_id="u1")
    await choice.record(True)
    for run in choice.shadows:
        await run.record(False)
    return reads(
        lambda: stage.lab.shadow_report(begun.experiment_id),
        [(1, 0.0)],
        lambda report: [(each.runs, each.success_rate) for each in report.shadows],
    )


async def trying(stage: Stage) -> Attempt:
    version = await asking_version(stage)
    await stage.lab.versions.set_cases(
        stage.name, "system", [{"name": "greets", "expect": {"contains": ["Hello"]}}]
    )

    async def look() -> object:
        results = await stage.lab.versions.case_results(version.version_id)
        return {name: result.status for name, result in results.items()}

    return Attempt(
        lambda: stage.lab.test(stage.name, client=answering()), look, none={}, whole={"greets": "passed"}
    )


PREPARATIONS: dict[str, Preparation] = {
    "complete": completing,
    "costs": adding_up_costs,
    "feedback": giving_feedback,
    "shadow_report": reporting_on_shadows,
    "test": trying,
}
