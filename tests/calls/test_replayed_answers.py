"""The whole loop by real clients: two prompts, each question a unit, and the better prompt is promoted."""

from __future__ import annotations

import asyncio

import pytest

from promptab import Lab, PromptVariant
from tests.calls.conftest import Spoken
from tests.conftest import SHARED_DIR
from tests.llm_server import Asked, LlmServer
from tests.recorded import DIRECTLY, ENDINGS, STEP_BY_STEP, Answers, made_answers, recorded_answers

AT_ONCE = 16
RECORDED = SHARED_DIR / "data" / "zero_shot_replies.jsonl.gz"


@pytest.fixture(scope="session")
def answers() -> Answers:
    return recorded_answers(RECORDED) if RECORDED.is_file() else made_answers()


def answering(answers: Answers, asked: Asked) -> str:
    """Return the recorded answer to the question, under the prompt that it came in."""
    ((_, text),) = asked.messages
    question, _, ending = text.removeprefix("Q: ").partition("\n")
    (version,) = [number for number, known in ENDINGS.items() if known == ending]
    return answers[question][version].text


async def two_prompts(lab: Lab, model: str) -> str:
    """Make both prompts, the first in production, and an experiment of them; return the name."""
    config = {"model": model, "parameters": {"max_tokens": 200}}
    first = await lab.versions.create_version("sums", "user", DIRECTLY, "1.0.0", config=config)
    await lab.versions.create_version("sums", "user", STEP_BY_STEP, "1.1.0", config=config)
    await lab.versions.promote(first.version_id)
    arms = [PromptVariant("1.0.0"), PromptVariant("1.1.0")]
    await lab.experiments.create_experiment("sums", "user", arms, primary_metric="correct", salt="sums")
    return "sums"


@pytest.mark.parametrize("spoken", ["chat", "messages"], indirect=True)
async def test_the_better_prompt_is_promoted_on_what_was_recorded_of_its_calls(
    lab: Lab, spoken: Spoken, server: LlmServer, answers: Answers
) -> None:
    name = await two_prompts(lab, spoken.model)
    server.answer = lambda asked: answering(answers, asked)
    turns = asyncio.Semaphore(AT_ONCE)

    async def ask(number: int, question: str) -> bool:
        async with turns:
            done = await lab.complete(
                name, "user", user_id=number, client=spoken.client, variables={"question": question}
            )
            expected = answers[question][done.choice.variant or ""]
            assert done.text == expected.text
            await lab.feedback(done.call_id, metrics={"correct": float(expected.correct)})
            return expected.correct

    right = await asyncio.gather(*(ask(number, question) for number, question in enumerate(answers)))
    result = await lab.analyze(name)
    assert result.winner == "1.1.0"
    moved = await lab.promote_winner(name, allow_approximate=True)
    assert (moved.previous_version, moved.version) == ("1.0.0", "1.1.0")
    versions = [await lab.versions.get_version(name, "user", number) for number in ENDINGS]
    measured = [await lab.metrics.get_metrics(each.version_id) for each in versions if each is not None]
    # every question once, each with its outcome, all with their cost
    assert sum(each.total_events for each in measured) == len(answers) == len(server.asked)
    correct = sum(each.metrics["correct"] * each.total_events for each in measured)
    assert correct == pytest.approx(sum(right))
    assert [each.cost_count for each in measured] == [each.total_events for each in measured]
    assert lab.calls.stats() == (len(answers), 0, 0, 0)


def test_answers_of_our_own_making_are_there_without_the_recorded_ones() -> None:
    made = made_answers(200)
    rates = {number: sum(each[number].correct for each in made.values()) / 200 for number in ENDINGS}
    assert rates["1.0.0"] < 0.4
    assert rates["1.1.0"] > 0.6
