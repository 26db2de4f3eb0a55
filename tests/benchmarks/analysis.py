"""What an analysis costs: the first time, with nothing new, and with a few new events.

`python -m tests.benchmarks.analysis` prints each beside the floor measured in the same run: SQLite's own GROUP BY
variant and unit, with the sums of all five measures, into a table. `--events` and `--units` change the size.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import resource
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import promptab
from promptab.stores.schema import microseconds
from tests.clock import SettableClock

NEW_EVENTS = 1_000
ROWS_AT_ONCE = 50_000

_EXPOSURE = (
    "INSERT INTO promptab_exposures (experiment_id, unit, variant, epoch, at, attributes, source)"
    " VALUES (?, ?, ?, 1, ?, ?, 'assigned')"
)
_EVENT = (
    "INSERT INTO promptab_events (event_id, kind, experiment_id, variant, unit, success, response_time,"
    " tokens, cost, rating, at, recorded_at, flagged) VALUES (?, 'use', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)"
)
_FLOOR = (
    "CREATE TABLE floor AS SELECT variant, unit, count(*), sum(success), sum(response_time), sum(tokens),"
    " sum(cost), sum(rating) FROM promptab_events GROUP BY variant, unit"
)

Row = tuple[Any, ...]


def unit_name(number: int) -> str:
    return f"user-{number:09d}"


def variant_of(number: int) -> str:
    return "ab"[number * 2_654_435_761 % 2**32 >> 31]


def exposures(experiment_id: str, units: int, at: int) -> Iterator[Row]:
    for number in range(units):
        plan = f'{{"plan": "{("free", "pro", "team")[number % 3]}"}}'
        yield experiment_id, unit_name(number), variant_of(number), at + number, plan


def events(experiment_id: str, count: int, units: int, at: int) -> Iterator[Row]:
    """Events of units drawn at random, in the order of time, each with all five measures."""
    rng = random.Random(3)
    for position in range(count):
        number = rng.randrange(units)
        yield (
            uuid.UUID(int=rng.getrandbits(128)).bytes,
            experiment_id,
            variant_of(number),
            unit_name(number),
            rng.random() < 0.7,
            rng.gammavariate(2.0, 0.4),
            rng.randrange(50, 2_000),
            rng.random() / 100,
            float(rng.randrange(1, 6)),
            at + units + position,
            at + units + position,
        )


def load(path: Path, statement: str, rows: Iterator[Row]) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.executemany(statement, rows)
        connection.commit()


def floor(path: Path) -> float:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        started = time.perf_counter()
        connection.execute(_FLOOR)
        taken = time.perf_counter() - started
        connection.execute("DROP TABLE floor")
    return taken


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    started = time.perf_counter()
    await work()
    return time.perf_counter() - started


async def measure(path: Path, count: int, units: int) -> None:
    clock = SettableClock()
    async with promptab.open(f"sqlite:///{path}", clock=clock) as lab:
        variants = [{"key": "a", "config": {"t": 0}}, {"key": "b", "config": {"t": 1}}]
        experiment = await lab.experiments.create_experiment("benchmark", "config", variants)
        experiment_id, at = experiment.experiment_id, microseconds(clock())
        load(path, _EXPOSURE, exposures(experiment_id, units, at))
        load(path, _EVENT, events(experiment_id, count, units, at))
        floor_seconds = floor(path)
        clock.advance(days=1)

        async def once() -> None:
            await lab.analyze(experiment_id)

        print(f"{count:,} events of {units:,} units, five metrics, two variants")
        print(f"{'':28}{'seconds':>10}{'x floor':>10}{'target':>10}")
        say("floor: GROUP BY into a table", floor_seconds, floor_seconds)
        say("analysis, first", await timed(once), floor_seconds, "6 s")
        say("analysis, nothing new", min([await timed(once) for _ in range(5)]), floor_seconds, "0.1 s")
        for _ in range(3):
            load(path, _EVENT, fresh(experiment_id, units, microseconds(clock())))
            say(f"analysis, {NEW_EVENTS:,} new events", await timed(once), floor_seconds, "0.2 s")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"peak memory {peak:,.0f} MB (target 300 MB)")


def fresh(experiment_id: str, units: int, at: int) -> Iterator[Row]:
    """A few new events, with ids that no event has yet."""
    for row in events(experiment_id, NEW_EVENTS, units, at):
        yield (uuid.uuid4().bytes, *row[1:])


def say(what: str, seconds: float, floor_seconds: float, target: str = "") -> None:
    print(f"{what:28}{seconds:10.4f}{seconds / floor_seconds:10.3f}{target:>10}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--units", type=int, default=100_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="promptab-benchmark-") as folder:
        asyncio.run(measure(Path(folder) / "benchmark.db", arguments.events, arguments.units))


if __name__ == "__main__":
    main()
