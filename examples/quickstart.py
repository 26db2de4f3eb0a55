"""Two versions of a prompt, an experiment on them, and production moved forward and back on what came of it.

    python examples/quickstart.py

The model is simulated, so that this runs without a key: put a call to yours in `ask_model`.
"""

from __future__ import annotations

import asyncio
import random
import sys

import promptab
from promptab import PromptVariant

rng = random.Random(7)


async def ask_model(prompt: str) -> tuple[str, float]:
    """Stand in for a real model: it does better when the prompt asks for the next step. Returns text, seconds."""
    helpful = rng.random() < (0.75 if "next step" in prompt else 0.6)
    return ("Please send us your order number." if helpful else "I cannot say."), rng.uniform(0.4, 1.6)


async def main(url: str) -> None:
    async with promptab.open(url) as lab:
        # 1. Versions are immutable; the second is the next number after the first.
        first = await lab.versions.create_version(
            "greeting", "system", "You help {{ customer }}, a customer of our shop."
        )
        second = await lab.versions.create_version(
            "greeting", "system", "You help {{ customer }}, a customer of our shop. End with the next step."
        )
        await lab.versions.promote(first.version_id, reason="first release")

        # 2. Half of the users get the second version, each user always the same one.
        await lab.experiments.create_experiment(
            "greeting", "system", [PromptVariant(first.version, 50), PromptVariant(second.version, 50)]
        )

        # 3. Serve: choose, render, call, record. Users at the same time share their commits.
        async def serve(user: int) -> None:
            for _ in range(3):
                choice = await lab.choose("greeting", "system", user_id=user)
                reply, seconds = await ask_model(choice.render(customer=f"customer {user}"))
                await choice.record(success="order number" in reply, response_time=seconds)

        await asyncio.gather(*(serve(user) for user in range(800)))

        # 4. Compare over users (three calls of one user are not three users), and act only on a difference.
        result = await lab.analyze("greeting")
        print(result.reason)
        if result.winner != second.version:
            print("no promotion")
            return
        await lab.promote_winner("greeting", allow_approximate=True)

        # 5. And back, should it be needed.
        await lab.versions.rollback("greeting", "system", reason="complaints about the tone")
        for move in await lab.versions.deployments("greeting", "system"):
            print(f"{move.action:<8}  {move.previous_version or '-':<6} -> {move.version}  {move.reason}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "sqlite:///:memory:"))
