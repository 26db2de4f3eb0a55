"""How many passages should a question bring along? Two configurations of one prompt, compared on what came of them.

    python examples/rag_top_k.py --local
    OPENAI_API_KEY=... python examples/rag_top_k.py --users 40

Both variants serve the same version; what differs is `top_k`, which the program reads from `choice.config`.
"""

from __future__ import annotations

import argparse
import asyncio
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from local_provider import openai_client

import promptab
from promptab import Lab, PromptVariant

if TYPE_CHECKING:
    from openai import AsyncOpenAI

MODEL = "gpt-4.1-mini"
PASSAGES = (
    "Parcels within the country take two days.",
    "Parcels abroad take a week, and longer where customs are slow.",
    "A parcel that is late by more than three days can be reported lost.",
    "A lost parcel is sent again at no cost.",
    "Goods can be sent back for 30 days after they have come.",
    "What is sent back is paid back within five days.",
    "Sending back is free, but for furniture, which costs 25 euros.",
    "Lamps that arrive broken are replaced at once; a photo is enough.",
)


class Question(NamedTuple):
    text: str
    fact: str
    """What a right answer says."""


QUESTIONS = (
    Question("My parcel is late. When is it lost?", "three days"),
    Question("My lost parcel: what does a new one cost?", "no cost"),
    Question("How long can goods be sent back?", "30 days"),
    Question("I sent a parcel back. When is it paid back?", "five days"),
    Question("What does sending furniture back cost?", "25 euros"),
    Question("Parcels to friends abroad: how long do they take?", "a week"),
    Question("A lamp arrived broken. What do you need of me?", "a photo"),
    Question("Is sending a parcel within the country quick?", "two days"),
)


def retrieve(question: str, *, top_k: int) -> list[str]:
    """Return the passages that share most words with the question, the best first."""
    asked = set(re.findall(r"\w+", question.lower()))
    ranked = sorted(PASSAGES, key=lambda passage: -len(asked & set(re.findall(r"\w+", passage.lower()))))
    return ranked[:top_k]


def read_carefully(asked: Any) -> str:
    """Answer for `--local`: a model that finds the fact if one of its passages has it."""
    ((_, text),) = asked.messages
    (fact,) = [question.fact for question in QUESTIONS if question.text in text]
    return f"It is {fact}." if fact in text.partition("Question:")[0] else "I cannot say."


async def serve(lab: Lab, client: AsyncOpenAI, user: int) -> None:
    """Answer one question of one user, and record whether the answer is right."""
    question = QUESTIONS[user % len(QUESTIONS)]
    choice = await lab.choose("rag_answer", "user", user_id=user)
    passages = retrieve(question.text, top_k=choice.config["top_k"])
    async with choice.call() as call:
        response = await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": choice.render(passages=passages, question=question.text)}],
        )
        call.observe(response)
    answer = response.choices[0].message.content or ""
    await lab.feedback(call.call_id, metrics={"right": float(question.fact in answer)})


async def main(users: int, *, local: bool) -> None:
    async with (
        openai_client(local=local, answer=read_carefully) as client,
        promptab.open("sqlite:///:memory:") as lab,
    ):
        version = await lab.versions.create_version(
            "rag_answer",
            "user",
            "{% for passage in passages %}- {{ passage }}\n{% endfor %}Question: {{ question }}\n",
            config={"top_k": 1},
        )
        await lab.versions.promote(version.version_id, reason="first release")
        variants = [
            PromptVariant(version.version, key=f"top_{count}", config={"top_k": count}) for count in (1, 3)
        ]
        await lab.experiments.create_experiment("rag_answer", "user", variants, primary_metric="right")

        at_once = asyncio.Semaphore(8)

        async def turn(user: int) -> None:
            async with at_once:
                await serve(lab, client, user)

        await asyncio.gather(*(turn(user) for user in range(users)))
        result = await lab.analyze("rag_answer")
        for variant, estimate in result.metrics["right"].estimates.items():
            print(f"{variant}: {100 * (estimate.value or 0.0):.1f} % right of {estimate.events}")
        print(result.reason)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compare two configurations of a search.")
    parser.add_argument("--users", type=int, default=800)
    parser.add_argument("--local", action="store_true", help="ask a provider on this machine, without a key")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.users, local=arguments.local))
