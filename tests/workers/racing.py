"""Do one thing to a store at the same moment as other processes: `racing.py URL ACTION JSON`.

Opens the store, says `ready`, waits for a line, acts, and prints what came of it as JSON. The actions are the
coroutines below that take a lab.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from typing import Any

import promptab
from promptab import ConflictError, Lab, PromptabError, StateError

ROUND_SECONDS = 0.25
VERSION_ID = "11111111-1111-4111-8111-111111111111"
HANG_SECONDS = 120.0
"""A dozen processes that start at once on a busy machine take their time."""


async def create_next(lab: Lab, count: int, who: str) -> list[str]:
    """Create the next version again and again; return the numbers it was given."""
    numbers = []
    for turn in range(count):
        version = await lab.versions.create_version("tone", "system", f"Be kind, {who} {turn}.")
        numbers.append(version.version)
    return numbers


async def create_exact(lab: Lab, version: str, who: str) -> str | None:
    """Create the version with this number; return its template, or None where another was faster."""
    try:
        return (await lab.versions.create_version("tone", "system", f"Be kind, {who}.", version)).template
    except ConflictError:
        return None


async def create_exact_in_rounds(lab: Lab, rounds: int, who: str) -> list[bool]:
    """Create 1.0.0, 1.0.1 and so on, each at the same moment as the other processes; return which were won."""
    won = []
    for number in range(rounds):
        # all processes of a machine read one clock
        await asyncio.sleep(ROUND_SECONDS - time.monotonic() % ROUND_SECONDS)
        won.append(await create_exact(lab, f"1.0.{number}", who) is not None)
    return won


async def move_about(lab: Lab, version_ids: list[str], seconds: float) -> int:
    """Promote and roll back by turns, whatever is live; return how many turns it took."""
    turn, ends_at = 0, time.monotonic() + seconds
    while time.monotonic() < ends_at:
        turn += 1
        with contextlib.suppress(ConflictError, StateError):  # another was faster; or nothing to go back to
            if turn % 3 == 0:
                await lab.versions.rollback("tone", "system")
            else:
                await lab.versions.promote(version_ids[turn % len(version_ids)])
    return turn


async def watch_production(lab: Lab, seconds: float) -> list[int]:
    """Look again and again how many versions are production, by status and by tag; return the counts that were seen."""
    seen, ends_at = set(), time.monotonic() + seconds
    while time.monotonic() < ends_at:
        seen.add(len(await lab.versions.list_versions("tone", status="production")))
        seen.add(len(await lab.versions.list_versions("tone", tags=["production"])))
        live = await lab.versions.get_version("tone", "system", "production")
        seen.add(0 if live is None or live.status != "production" else 1)
    return sorted(seen)


async def promote(lab: Lab, version_id: str, expected: str | None) -> str:
    """Promote from a state that was seen; return `moved`, or the name of the error."""
    try:
        await lab.versions.promote(version_id, expected=expected)
    except ConflictError as error:
        return type(error).__name__
    return "moved"


async def promote_in_turn(lab: Lab, version_ids: list[str], turns: int) -> int:
    """Promote one version after the other, whatever is live; return how many moves lost a race."""
    lost = 0
    for turn in range(turns):
        try:
            await lab.versions.promote(version_ids[turn % len(version_ids)])
        except ConflictError:
            lost += 1
    return lost


async def count_production(lab: Lab, turns: int) -> list[int]:
    """Look again and again how many production versions there are; return the counts that were seen."""
    return sorted({len(await lab.versions.list_versions("tone", status="production")) for _ in range(turns)})


async def assign(lab: Lab, experiment: str, users: int, rounds: int) -> dict[str, list[str]]:
    """Assign the same users again and again; return every answer that each of them got."""
    answers: dict[str, set[str]] = {f"u{number}": set() for number in range(users)}
    for _ in range(rounds):
        for user, seen in answers.items():
            seen.add(str(await lab.experiments.get_variant_for_user(experiment, user)))
        await asyncio.sleep(0.02)
    return {user: sorted(seen) for user, seen in answers.items()}


async def reweigh(lab: Lab, experiment: str, splits: list[dict[str, float]]) -> int:
    """Change the weights step by step, with the lead time that is the default; return how many steps."""
    for split in splits:
        await lab.experiments.update_weights(experiment, split)
        await asyncio.sleep(0.3)
    return len(splits)


async def write_for(lab: Lab, seconds: float, callers: int) -> dict[str, Any]:
    """Record events, and now and then create a version, until the time is over.

    Returns the ids that were acknowledged, the errors that reached a caller, and how long the slowest of 100 waited.
    """
    acknowledged: list[str] = []
    errors: list[str] = []
    waits: list[float] = []
    end = time.monotonic() + seconds

    async def caller(number: int) -> None:
        while time.monotonic() < end:
            began = time.monotonic()
            try:
                event = await lab.metrics.record_event(VERSION_ID, True, cost=float(number))
                acknowledged.append(event.event_id)
                if number == 0 and len(acknowledged) % 20 == 0:
                    await lab.versions.create_version("tone", "system", f"Be kind, {began}.")
            except PromptabError as error:
                errors.append(repr(error))
            waits.append(time.monotonic() - began)

    await asyncio.gather(*map(caller, range(callers)))
    slowest = sorted(waits)[len(waits) * 99 // 100]
    return {"acknowledged": acknowledged, "errors": errors, "p99": slowest}


async def read_for(lab: Lab, seconds: float) -> dict[str, Any]:
    """Read events and versions until the time is over; return the errors, and how many events each look saw."""
    errors: list[str] = []
    seen: list[int] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            seen.append((await lab.metrics.get_metrics(VERSION_ID)).total_events)
            await lab.versions.list_versions("tone")
        except PromptabError as error:
            errors.append(repr(error))
        await asyncio.sleep(0.05)
    return {"errors": errors, "seen": seen}


async def rebalance(lab: Lab, experiment: str, looks: int) -> list[list[Any]]:
    """Look at a bandit again and again; return the epoch and the weights of each change that was made here."""
    found = [await lab.rebalance(experiment) for _ in range(looks)]
    return [[each.epoch, dict(each.weights)] for each in found if each.changed]


ACTIONS = {
    action.__name__: action
    for action in (
        create_next,
        create_exact_in_rounds,
        move_about,
        watch_production,
        promote,
        promote_in_turn,
        count_production,
        assign,
        reweigh,
        rebalance,
        write_for,
        read_for,
    )
}


async def main(url: str, action: str, arguments: dict[str, Any]) -> None:
    async with promptab.open(url, timeout=HANG_SECONDS) as lab:
        await lab.store.snapshot()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        result = await ACTIONS[action](lab, **arguments)
    print(json.dumps(result), flush=True)


asyncio.run(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
