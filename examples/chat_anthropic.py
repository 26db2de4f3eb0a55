"""Code that calls Anthropic's client itself, and only has its calls tracked: each is one event of the version.

python examples/chat_anthropic.py --local
ANTHROPIC_API_KEY=... python examples/chat_anthropic.py "Where is my parcel?"
"""

from __future__ import annotations

import argparse
import asyncio

from local_provider import anthropic_client

import promptab

SYSTEM = "You help {{ customer }}, a customer of our shop. Two sentences at most."
MODEL = "claude-haiku-4-5"


async def main(question: str, *, local: bool) -> None:
    asking = anthropic_client(
        local=local, answer=lambda asked: "Your parcel is on its way. It comes on Friday."
    )
    async with asking as client, promptab.open("sqlite:///:memory:") as lab:
        version = await lab.versions.create_version("support_reply", "system", SYSTEM)
        await lab.versions.promote(version.version_id, reason="first release")

        choice = await lab.choose("support_reply", "system", user_id="u42")
        system = choice.render(customer="Ada")
        async with choice.call() as call:
            response = await client.messages.create(
                model=MODEL,
                system=system,
                messages=[{"role": "user", "content": question}],
                max_tokens=200,
            )
            call.observe(response)
        print("".join(block.text for block in response.content if block.type == "text"))

        # a stream is read from what `observe` returns; leaving it early is recorded as that
        async with choice.call() as call:
            stream = call.observe(
                await client.messages.create(
                    model=MODEL,
                    system=system,
                    messages=[{"role": "user", "content": question}],
                    max_tokens=200,
                    stream=True,
                )
            )
            async for text in stream.text:
                print(text, end="", flush=True)
            print()

        await lab.calls.flush()
        for event in await lab.metrics.get_events(version.version_id):
            tokens = event.tokens
            cost = "unknown" if event.cost is None else f"${event.cost:.6f}"
            print(f"success {event.success}, {tokens.total if tokens else 'unknown'} tokens, cost {cost}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Track calls that your own code makes to Anthropic.")
    parser.add_argument("question", nargs="?", default="Where is my parcel?")
    parser.add_argument("--local", action="store_true", help="ask a provider on this machine, without a key")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.question, local=arguments.local))
