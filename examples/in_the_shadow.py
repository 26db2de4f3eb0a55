"""A shorter prompt on a smaller model, tried in the shadow of what is live: on a tenth of the users, and shown to none.

python examples/in_the_shadow.py --local
OPENAI_API_KEY=... python examples/in_the_shadow.py
"""

from __future__ import annotations

import argparse
import asyncio

from local_provider import openai_client

import promptab
from promptab import PromptVariant

LIVE = "You help {{ customer }}, a customer of our shop. Explain every step, and say why."
CANDIDATE = "You help {{ customer }}, a customer of our shop. Two sentences at most."


async def main(*, local: bool) -> None:
    asking = openai_client(local=local, answer=lambda asked: "Your parcel is on its way. It comes on Friday.")
    async with asking as client, promptab.open("sqlite:///:memory:") as lab:
        for number, template, model in (
            ("1.0.0", LIVE, "gpt-4.1-mini"),
            ("2.0.0", CANDIDATE, "gpt-4.1-nano"),
        ):
            await lab.versions.create_version(
                "support_reply",
                "system",
                template,
                version=number,
                config={"model": model, "parameters": {"max_tokens": 200}},
            )

        # the candidate takes no share of what is served: it is run beside the live version for a tenth of the users
        await lab.experiments.create_experiment(
            "support_reply",
            "system",
            [PromptVariant("1.0.0"), PromptVariant(key="candidate", version="2.0.0", shadow=0.1)],
        )

        # the same calls as ever: each returns with the live version's answer, and the candidate is asked afterwards
        question = [{"role": "user", "content": "Where is my parcel?"}]
        for user in range(60):
            await lab.complete(
                "support_reply",
                user_id=f"u{user}",
                client=client,
                variables={"customer": "Ada"},
                messages=question,
            )

        # code that calls a model by itself is told what to run beside the answer
        choice = await lab.choose("support_reply", user_id="u1")
        for shadow in choice.shadows:
            print(f"beside {choice.variant}: {shadow.variant}, {shadow.render(customer='Ada')!r}")

        await lab.shadows.settle()
        report = await lab.shadow_report("support_reply")
        for outcome in report.shadows:
            for comparison in outcome.comparisons:
                for found in comparison.differences:
                    print(f"{found.metric}: {found.shadow:.6g} in the shadow, {found.served:.6g} served")
            print(f"{outcome.variant}: {outcome.runs} of 60 calls, shown to nobody")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Try a prompt in the shadow of what is live.")
    parser.add_argument("--local", action="store_true", help="ask a provider on this machine, without a key")
    asyncio.run(main(local=parser.parse_args().local))
