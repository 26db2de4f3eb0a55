"""Keep a prompt's production on the move, until the time is over: `rolling_out.py URL ROLE SECONDS SEED`.

`feed` starts experiments with a policy and guarded promotions, and records outcomes of both; `meddle` does what people
do meanwhile: promote, roll back, pause, go on, override and approve. Prints how much of it came to something, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter
from contextlib import suppress

import promptab
from promptab import ConflictError, InvalidInputError, Lab, NotFoundError, PromptVariant, StateError
from promptab.decisions.decision import Action

PROMPT = ("tone", "system")
REFUSALS = (ConflictError, StateError, NotFoundError, InvalidInputError)
POLICY = {
    "guardrails": ["error_rate <= 0.5"],
    "ramp": [{"traffic": 0.5, "minimum_units": 20}, 1.0],
    "allow_approximate": True,
    "longest_hours": 6.0,
}
GUARD = {"guardrails": ["success_rate >= 0.7"]}


async def feed(lab: Lab, seconds: float, rng: random.Random) -> Counter[str]:
    came: Counter[str] = Counter()
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        version = await lab.versions.create_version(*PROMPT, f"Be kind, {rng.random()}.")
        live = await lab.versions.get_version(*PROMPT, "production")
        assert live is not None
        rate = rng.choice([0.2, 0.98])
        with suppress(*REFUSALS):
            if rng.random() < 0.4:
                await lab.versions.promote(version.version_id, guard=GUARD, actor="feeder")
                came["guarded"] += 1
                await record(lab, version.version_id, rate, 40, rng)
            else:
                experiment = await lab.experiments.create_experiment(
                    version.version,
                    "system",
                    [PromptVariant(live.version), PromptVariant(version.version)],
                    prompt_name=PROMPT[0],
                    policy=POLICY,
                    plan={"minimum_units": 20},
                )
                came["experiments"] += 1
                for variant, of_variant in ((live, 0.6), (version, rate)):
                    await record(
                        lab,
                        variant.version_id,
                        of_variant,
                        150,
                        rng,
                        experiment_id=experiment.experiment_id,
                        variant=variant.version,
                    )
        await asyncio.sleep(rng.random() * 0.5)
        await end_old(lab, keep=3)
    return came


async def record(
    lab: Lab, version_id: str, rate: float, count: int, rng: random.Random, **where: str
) -> None:
    await lab.metrics.record_many(
        {
            "version_id": version_id,
            "success": rng.random() < rate,
            "user_id": f"{rng.random()}",
            **where,
        }
        for _ in range(count)
    )


async def end_old(lab: Lab, *, keep: int) -> None:
    """Stop what nobody decides about any more, so that a look stays short."""
    live = [*await lab.experiments.list_experiments(status="running")]
    live += await lab.experiments.list_experiments(status="paused")
    for experiment in sorted(live, key=lambda each: each.created_at)[:-keep]:
        with suppress(*REFUSALS):
            await lab.override(experiment.experiment_id, "stop", reason="too old", actor="feeder")


async def meddle(lab: Lab, seconds: float, rng: random.Random) -> Counter[str]:
    came: Counter[str] = Counter()
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        act = rng.choice(["promote", "rollback", "pause", "continue", "override", "approve", "apply"])
        with suppress(*REFUSALS):
            await once(lab, act, rng)
            came[act] += 1
        await asyncio.sleep(rng.random() * 0.2)
    return came


async def once(lab: Lab, act: str, rng: random.Random) -> None:
    if act == "promote":
        version = rng.choice(await lab.versions.list_versions(*PROMPT))
        await lab.versions.promote(version.version_id, actor="ada")
    elif act == "rollback":
        await lab.versions.rollback(*PROMPT, actor="ada")
    else:
        found = await lab.experiments.list_experiments()
        if not found:
            return
        experiment = rng.choice(found).experiment_id
        if act == "override":
            action: Action = rng.choice(["promote", "rollback", "ramp", "stop"])
            await lab.override(experiment, action, reason="I know better", actor="ada")
        elif act == "approve":
            await lab.approve(experiment, actor="ada")
        elif act == "apply":
            await lab.apply(await lab.decide(experiment), actor="ada")
        else:
            await lab.override(experiment, act, reason="wait" if act == "pause" else "go on", actor="ada")  # type: ignore[arg-type]


async def main(url: str, role: str, seconds: float, seed: int) -> None:
    async with promptab.open(url, timeout=60.0) as lab:
        came = await {"feed": feed, "meddle": meddle}[role](lab, seconds, random.Random(seed))
    print(json.dumps(came), flush=True)


asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])))
