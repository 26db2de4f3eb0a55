"""One of several processes of an application, all on one PostgreSQL. `examples/compose.yaml` starts four of them.

    export PROMPTAB_URL=postgresql://user:password@localhost/promptab
    python examples/several_processes.py prepare
    python examples/several_processes.py serve --calls 500     # in as many terminals, on as many machines, as you like
    promptab experiment analyze greeting

A user gets one variant, whichever process answers; a promotion made anywhere is served everywhere within a second.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections import Counter

import promptab
from promptab import PromptVariant

USERS = 2_000


async def prepare() -> None:
    """Make two versions and an experiment on them, once for all processes."""
    async with promptab.open() as lab:
        if await lab.versions.get_version_history("greeting", "system"):
            print("there is an experiment already")
            return
        first = await lab.versions.create_version("greeting", "system", "You help {{ user }}.")
        second = await lab.versions.create_version(
            "greeting", "system", "You help {{ user }} in one sentence."
        )
        await lab.versions.promote(first.version_id, reason="first release")
        await lab.experiments.create_experiment(
            "greeting", "system", [PromptVariant(first.version), PromptVariant(second.version)]
        )
        print("an experiment on 1.0.0 and 1.0.1 runs")


async def serve(calls: int) -> None:
    """Answer users who come by chance, and record what came of it."""
    rng = random.Random()
    served: Counter[str] = Counter()
    async with promptab.open() as lab:

        async def answer() -> None:
            user = f"user-{rng.randrange(USERS)}"
            choice = await lab.choose("greeting", user_id=user)
            choice.render(user=user)  # what a model would be asked
            liked = rng.random() < (0.7 if choice.variant == "1.0.1" else 0.6)
            await choice.record(success=liked, response_time=rng.uniform(0.4, 1.6))
            served[choice.variant or "none"] += 1

        for _ in range(0, calls, 50):
            # as a server does it: many requests at once share the commits of their events
            await asyncio.gather(*(answer() for _ in range(50)))
    print(", ".join(f"{variant} {count} times" for variant, count in sorted(served.items())))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("prepare", "serve"))
    parser.add_argument("--calls", type=int, default=1_000)
    arguments = parser.parse_args()
    asyncio.run(prepare() if arguments.what == "prepare" else serve(arguments.calls))


if __name__ == "__main__":
    main()
