"""Answers of OpenAI's models by the version that a user gets; each call is recorded with its tokens and its cost.

python examples/chat_openai.py --local
OPENAI_API_KEY=... python examples/chat_openai.py "Where is my parcel?"
"""

from __future__ import annotations

import argparse
import asyncio

from local_provider import openai_client

import promptab

CHAT = [
    {"role": "system", "content": "You help {{ customer }}, a customer of our shop. Two sentences at most."},
    {"role": "user", "content": "{{ question }}"},
]
CONFIG = {"model": "gpt-4.1-mini", "parameters": {"temperature": 0.2, "max_tokens": 200}}


async def main(question: str, *, local: bool) -> None:
    asking = openai_client(local=local, answer=lambda asked: "Your parcel is on its way. It comes on Friday.")
    async with asking as client, promptab.open("sqlite:///:memory:") as lab:
        # the version says which model is asked, and how
        version = await lab.versions.create_version("support_reply", "message", CHAT, config=CONFIG)
        await lab.versions.promote(version.version_id, reason="first release")

        # choose, render, call, record: whatever comes of the call is in one event
        variables = {"customer": "Ada", "question": question}
        done = await lab.complete(
            "support_reply", "message", user_id="u42", client=client, variables=variables
        )
        print(done.text)

        # what Ada says later counts for the same version
        await lab.feedback(done.call_id, rating=5, metrics={"resolved": 1})

        # the same in pieces, as they come
        async with lab.stream(
            "support_reply", "message", user_id="u7", client=client, variables=variables
        ) as stream:
            async for text in stream.text:
                print(text, end="", flush=True)
            print()

        for row in await lab.costs():
            print(f"{row.calls} calls of {'/'.join(map(str, row.key))}: ${row.cost:.6f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Answer a question by a versioned prompt and OpenAI.")
    parser.add_argument("question", nargs="?", default="Where is my parcel?")
    parser.add_argument("--local", action="store_true", help="ask a provider on this machine, without a key")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.question, local=arguments.local))
