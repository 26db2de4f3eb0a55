"""From two versions to an unattended rollout: traffic grows by steps, and the policy decides.

    python examples/autopilot.py            # the new version is better: it ends in production
    python examples/autopilot.py --worse    # it is worse: it is rolled back
    python examples/autopilot.py --url postgresql://localhost/prompts

Users and model are simulated, so that this runs without a key and within seconds: put a call to yours in `ask_model`.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random

import promptab
from promptab import ExperimentStatus, Lab, PromptVariant

OLD = "You help {{ customer }}, a customer of our shop."
NEW = "You help {{ customer }}, a customer of our shop. End with the next step."
POLICY = {
    "guardrails": ["success_rate >= control - 5%", "response_time <= control + 25%"],
    "ramp": [{"traffic": 0.2, "minimum_units": 50}, {"traffic": 1.0, "minimum_units": 200}],
    "longest_hours": 14 * 24,
    "allow_approximate": True,  # outcomes count at once, not after a measurement window
}


async def roll_out(lab: Lab) -> None:
    old = await lab.versions.create_version("greeting", "system", OLD)
    new = await lab.versions.create_version("greeting", "system", NEW)
    await lab.versions.promote(old.version_id, reason="first release")
    variants = [PromptVariant(old.version), PromptVariant(new.version)]
    await lab.experiments.create_experiment("greeting", "system", variants, policy=POLICY)
    # or, from a process of its own: promptab watch
    async for update in lab.watch(interval=INTERVAL):
        if update.applied:
            print(update.sentence)


# Everything below stands in for what is live in your shop.

INTERVAL = 0.2
rng = random.Random(11)


async def ask_model(prompt: str, *, better: bool) -> tuple[str, float]:
    """Stand in for a real model: the next step helps customers, or confuses them. Returns text and seconds."""
    helped = {True: 0.85, False: 0.3}[better] if "next step" in prompt else 0.65
    return ("Please send us your order number." if rng.random() < helped else "?"), rng.uniform(0.4, 1.6)


async def serve(lab: Lab, user: int, *, better: bool) -> None:
    choice = await lab.choose("greeting", "system", user_id=user)
    reply, seconds = await ask_model(choice.render(customer=f"customer {user}"), better=better)
    await choice.record(success="order number" in reply, response_time=seconds)


async def main(url: str, *, better: bool) -> None:
    users = itertools.count()
    async with promptab.open(url) as lab, asyncio.TaskGroup() as tasks:
        autopilot = tasks.create_task(roll_out(lab))
        experiment = None
        while experiment is None or experiment.status == ExperimentStatus.RUNNING:
            for user in itertools.islice(users, 20 if experiment else 0):
                await serve(lab, user, better=better)
            await asyncio.sleep(INTERVAL / 10)
            experiment = await lab.experiments.get_experiment("greeting")
        await asyncio.sleep(INTERVAL)
        autopilot.cancel()
        print()
        for move in await lab.versions.deployments("greeting", "system"):
            print(f"{move.action:<8}  {move.previous_version or '-':<6} -> {move.version}  {move.reason}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Roll a new version out with nobody watching.")
    parser.add_argument("--worse", action="store_true", help="the new version is worse than the old one")
    parser.add_argument("--url", default="sqlite:///:memory:", help="a new store (default: in memory)")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.url, better=not arguments.worse))
