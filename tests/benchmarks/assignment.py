"""What it costs to know which variant a user gets, and to choose and render a prompt.

`python -m tests.benchmarks.assignment` prints each beside the floor (one XXH3 and one bisect, awaited), the peers and
a template of Jinja2's own sandbox, all measured in the same run: the rounds are interleaved, and medians are shown.
It is the processor's time of the one thread that is measured, which is the time that passes where nothing else runs.
`--quick` is for a look.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import tempfile
import time
import uuid
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from jinja2.sandbox import ImmutableSandboxedEnvironment
from rich.console import Console
from rich.table import Table
from xxhash import xxh3_64_intdigest

import promptab
from promptab import Lab, PromptVariant
from tests.benchmarks.assignment_peers import installed_peers

ROUNDS = 15
USERS = 20_000
NEW_USERS = 2_000
"""New ones of one round: no more than a busy loop would meet between two turns of its own."""
MANY_VERSIONS = 1_000
MANY_EXPERIMENTS = 200
MANY_UNITS = 200_000
AB = [PromptVariant("1.0.0"), PromptVariant("1.0.1")]

_RULES = (
    "You answer questions for customers of a shop. Be brief, say when you do not know, never invent an order number, "
    "and keep to the facts in the context below. "
)
TEMPLATE = (
    f"{_RULES * 3}\nCustomer: {{{{ name }}}}\nTopic: {{{{ topic }}}}\nLanguage: {{{{ language }}}}\n{_RULES * 3}"
    f"\nContext: {{{{ context }}}}\nQuestion: {{{{ question }}}}\n{_RULES * 2}"
)
VARIABLES = {
    "name": "Ada Byron",
    "topic": "returns",
    "language": "English",
    "context": "The shop takes goods back within 30 days. " * 3,
    "question": "Can I return a lamp?",
}
VALIDATION = {
    "properties": {name: {"type": "string", "maxLength": 500} for name in VARIABLES},
    "required": sorted(VARIABLES),
}

Ask = Callable[[str], Awaitable[object]]


class Row(NamedTuple):
    """One line of the table."""

    name: str
    ask: Ask
    beside: str = ""
    """The row that the ratio is to."""
    target: str = ""
    new_users: bool = False
    """Whether every call is of a user that was never seen."""
    calls: int = USERS


def user_ids(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [str(uuid.UUID(int=rng.getrandbits(128), version=4)) for _ in range(count)]


def floor() -> Ask:
    seed = xxh3_64_intdigest(b"salt")
    ends, keys = [(1 << 64) * (part + 1) // 10 for part in range(10)], [str(part) for part in range(10)]

    async def ask(user: str) -> object:
        return keys[bisect_right(ends, xxh3_64_intdigest(user.encode(), seed))]

    return ask


def rendered_by_jinja() -> Ask:
    template = ImmutableSandboxedEnvironment().from_string(TEMPLATE)

    async def ask(_user: str) -> object:
        return template.render(**VARIABLES)

    return ask


async def prompt(lab: Lab, name: str, *, versions: int = 2, **how: Any) -> str:
    """Make a prompt with that many versions, an experiment on the first two, and return the experiment's id."""
    for _ in range(versions):
        await lab.versions.create_version(name, "system", TEMPLATE, **how)
    return (await lab.experiments.create_experiment(name, "system", AB)).experiment_id


def variant(lab: Lab, experiment: str) -> Ask:
    get = lab.experiments.get_variant_for_user

    async def ask(user: str) -> object:
        return await get(experiment, user)

    return ask


def choose(lab: Lab, name: str, *, attributes: dict[str, Any] | None = None) -> Ask:
    async def ask(user: str) -> object:
        return await lab.choose(name, user_id=user, attributes=attributes)

    return ask


def choose_nowait(lab: Lab, name: str) -> Ask:
    async def ask(user: str) -> object:
        return lab.choose_nowait(name, user_id=user)

    return ask


def choose_and_render(lab: Lab, name: str) -> Ask:
    async def ask(user: str) -> object:
        return (await lab.choose(name, user_id=user)).render(**VARIABLES)

    return ask


async def microseconds(ask: Ask, users: Sequence[str]) -> float:
    """Return what one call takes, the loop around it included."""
    gc.collect()
    gc.disable()
    try:
        began = time.thread_time_ns()
        for user in users:
            await ask(user)
        return (time.thread_time_ns() - began) / len(users) / 1_000
    finally:
        gc.enable()


async def measured(lab: Lab, rows: Sequence[Row], rounds: int) -> dict[str, float]:
    """Return the median of each row; in every round each row has its turn, so that all share the same weather."""
    taken: dict[str, list[float]] = {row.name: [] for row in rows}
    known = user_ids(USERS, seed=1)
    for turn in range(rounds):
        for place, row in enumerate(rows):
            fresh = (
                user_ids(NEW_USERS, seed=1_000 * turn + place + 2) if row.new_users else known[: row.calls]
            )
            if not row.new_users and turn == 0:
                for user in fresh:
                    await row.ask(user)
            await lab.store.flush()
            await lab.store.snapshot()
            taken[row.name].append(await microseconds(row.ask, fresh))
    return {name: median(times) for name, times in taken.items()}


async def rows_of(lab: Lab) -> list[Row]:
    get = "get_variant_for_user"
    plain, strict = await prompt(lab, "plain"), await prompt(lab, "strict", validation=VALIDATION)
    await prompt(lab, "old", versions=MANY_VERSIONS)
    for _ in range(2):
        await lab.versions.create_version("aimed", "system", TEMPLATE)
    aimed = await lab.experiments.create_experiment("aimed", "system", AB, where="plan == 'premium'")
    premium = {"plan": "premium"}

    async def variant_of_aimed(user: str) -> object:
        return await lab.experiments.get_variant_for_user(aimed.experiment_id, user, premium)

    peers = installed_peers()
    return [
        Row("floor: XXH3 and bisect, awaited", floor()),
        *(Row(name, ask, "floor: XXH3 and bisect, awaited", calls=2_000) for name, ask in peers.items()),
        Row(f"{get}, warm", variant(lab, plain), "floor: XXH3 and bisect, awaited", "5 x"),
        Row(f"{get}, never seen, exposure queued", variant(lab, strict), "", "4 us", new_users=True),
        Row(f"{get}, with where= and attributes", variant_of_aimed, "floor: XXH3 and bisect, awaited"),
        Row("choose, warm", choose(lab, "plain"), "floor: XXH3 and bisect, awaited"),
        Row("choose_nowait, warm", choose_nowait(lab, "plain"), "floor: XXH3 and bisect, awaited"),
        Row("floor: Jinja2's sandbox, precompiled", rendered_by_jinja(), calls=2_000),
        Row(
            "choose + render, five variables",
            choose_and_render(lab, "plain"),
            "floor: Jinja2's sandbox, precompiled",
            "1.5 x",
            calls=2_000,
        ),
        Row(
            f"the same of {MANY_VERSIONS:,} versions",
            choose_and_render(lab, "old"),
            "choose + render, five variables",
            "1 x",
            calls=2_000,
        ),
        Row(
            "the same with validation",
            choose_and_render(lab, "strict"),
            "floor: Jinja2's sandbox, precompiled",
            calls=2_000,
        ),
        Row(
            "choose with where= and attributes",
            choose(lab, "aimed", attributes=premium),
            "floor: XXH3 and bisect, awaited",
        ),
    ]


async def growth(lab: Lab, console: Console, rounds: int) -> None:
    """Show what does not change what a call takes: how many experiments there are, and how many units were seen."""
    get, experiment = variant(lab, "plain"), (await lab.experiments.get_experiment("plain"))
    assert experiment is not None
    users = user_ids(USERS, seed=1)

    async def typical() -> float:
        for user in users:
            await get(user)
        times = []
        for _ in range(rounds):
            await lab.store.snapshot()
            times.append(await microseconds(get, users))
        return median(times)

    table = Table("growth: get_variant_for_user, warm", "us")
    table.add_row("few experiments", f"{await typical():.2f}")
    for user in user_ids(MANY_UNITS, seed=3):
        await get(user)
        if random.random() < 0.001:
            await lab.store.flush()
    table.add_row(f"after {MANY_UNITS:,} units", f"{await typical():.2f}")
    for number in range(MANY_EXPERIMENTS):
        await lab.experiments.create_experiment(
            f"other{number}", "config", [{"key": "a", "config": {}}, {"key": "b", "config": {}}]
        )
    table.add_row(f"with {MANY_EXPERIMENTS} experiments more", f"{await typical():.2f}")
    console.print(table)


def table_of(rows: Sequence[Row], took: dict[str, float]) -> Table:
    table = Table("call", "us", "ratio", "to", "target")
    for row in rows:
        ratio = f"{took[row.name] / took[row.beside]:.2f}" if row.beside else ""
        table.add_row(row.name, f"{took[row.name]:.2f}", ratio, row.beside.partition(":")[0], row.target)
    return table


async def run(path: Path, rounds: int) -> None:
    console = Console()
    async with promptab.open(f"sqlite:///{path}") as lab:
        rows = await rows_of(lab)
        took = await measured(lab, rows, rounds)
        console.print(table_of(rows, took))
        peers = {row.name: took[row.name] for row in rows if row.name in installed_peers()}
        if peers:
            fastest = min(peers, key=lambda name: peers[name])
            times = peers[fastest] / took["get_variant_for_user, warm"]
            console.print(
                f"the fastest peer, {fastest}, takes {times:.1f} times as long (target: 10 or more)"
            )
        else:
            console.print("no peer is installed; see tests/benchmarks/assignment_peers.py")
        await growth(lab, console, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    rounds = 3 if parser.parse_args().quick else ROUNDS
    with tempfile.TemporaryDirectory(prefix="promptab-benchmark-") as folder:
        asyncio.run(run(Path(folder) / "benchmark.db", rounds))


if __name__ == "__main__":
    main()
