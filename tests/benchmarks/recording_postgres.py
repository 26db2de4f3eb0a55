"""What recording on PostgreSQL costs: awaited by one, 16 and 256 callers at once, and as a bulk import.

`python -m tests.benchmarks.recording_postgres` starts a server of its own, with its default settings (every commit is
on the disk), or uses the one of PROMPTAB_TEST_POSTGRES. Each row is shown beside the floor measured in the same run, on
the same rows in the same table: a future per event, one connection of asyncpg's, and one COPY for all that wait.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import NamedTuple

import asyncpg
from rich.console import Console
from rich.table import Table

import promptab
from promptab import MetricEvent
from promptab.stores.event_rows import EVENT_COLUMNS, EventRow, event_row
from tests.benchmarks.recording import (
    VERSION_ID,
    Measured,
    arguments,
    driven,
    in_an_experiment,
    recorder,
    some_events,
)
from tests.postgres import TEST_POSTGRES, Databases, started_server

FLOOR_BATCH = 5_000

Measure = Callable[[str], Awaitable[Measured]]
"""Takes the URL of a new database."""


class Row(NamedTuple):
    """One line of the table."""

    name: str
    ours: Measure
    floor: Measure
    target: str


class Floor:
    """A future per event; one connection copies what is there, and answers all at once."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self._connection = connection
        self._waiting: list[tuple[EventRow, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    def record(self, row: EventRow) -> asyncio.Future[None]:
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((row, answer))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        return answer

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:FLOOR_BATCH], self._waiting[FLOOR_BATCH:]
            await copied(self._connection, [row for row, _ in batch])
            for _, answer in batch:
                answer.set_result(None)


async def copied(connection: asyncpg.Connection[asyncpg.Record], rows: Sequence[EventRow]) -> None:
    await connection.copy_records_to_table("promptab_events", records=rows, columns=EVENT_COLUMNS)


def recorded(events: Sequence[MetricEvent], callers: int, *, experiment: bool = False) -> Measure:
    async def measure(url: str) -> Measured:
        async with promptab.open(url) as lab:
            told = arguments(events)
            if experiment:
                told = await in_an_experiment(lab, told)
            await lab.metrics.record_event(None, success=True)
            measured = await driven(recorder(lab, told), len(events), callers)
            assert (await lab.metrics.get_metrics(VERSION_ID)).total_events == len(events)
        return measured

    return measure


def floored(events: Sequence[MetricEvent], callers: int) -> Measure:
    rows = [event_row(event) for event in events]

    async def measure(url: str) -> Measured:
        connection = await asyncpg.connect(url)
        floor = Floor(connection)
        measured = await driven(lambda number: floor.record(rows[number]), len(rows), callers)
        await connection.close()
        return measured

    return measure


def imported(events: Sequence[MetricEvent]) -> Measure:
    async def measure(url: str) -> Measured:
        async with promptab.open(url) as lab:
            began = time.perf_counter()
            assert await lab.metrics.record_many(events) == len(events)
            return Measured(len(events) / (time.perf_counter() - began), 0.0)

    return measure


def inserted(events: Sequence[MetricEvent]) -> Measure:
    rows = [event_row(event) for event in events]

    async def measure(url: str) -> Measured:
        connection = await asyncpg.connect(url)
        began = time.perf_counter()
        for start in range(0, len(rows), 2_000):
            await copied(connection, rows[start : start + 2_000])
        taken = time.perf_counter() - began
        await connection.close()
        return Measured(len(rows) / taken, 0.0)

    return measure


def rows_of_the_table(scale: float) -> list[Row]:
    one, some, many = (int(count * scale) for count in (1_000, 20_000, 50_000))
    events = some_events(many)
    return [
        Row("1 caller", recorded(events[:one], 1), floored(events[:one], 1), ""),
        Row("16 callers", recorded(events[:some], 16), floored(events[:some], 16), ""),
        Row("256 callers", recorded(events, 256), floored(events, 256), "70,000/s"),
        Row("256, in an experiment", recorded(events, 256, experiment=True), floored(events, 256), ""),
        Row("record_many", imported(events), inserted(events), ""),
    ]


def measure_once(measure: Measure, databases: Databases) -> Measured:
    # what was made before belongs to neither: it shall not be collected while one of them is timed
    gc.collect()
    gc.freeze()
    url = databases.new()

    async def run() -> Measured:
        return await measure(url)

    try:
        return asyncio.run(run())
    finally:
        databases.drop(url)


def table(rows: Sequence[Row], rounds: int, databases: Databases) -> Table:
    ours: dict[str, list[Measured]] = {row.name: [] for row in rows}
    floors: dict[str, list[Measured]] = {row.name: [] for row in rows}
    for _ in range(rounds):
        for row in rows:
            floors[row.name].append(measure_once(row.floor, databases))
            ours[row.name].append(measure_once(row.ours, databases))
    shown = Table(title="Recording, PostgreSQL")
    for column in ("await record_event", "events/s", "p50 ms", "floor/s", "of the floor", "target"):
        shown.add_column(column, justify="left" if column == "await record_event" else "right")
    for row in rows:
        pairs = list(zip(ours[row.name], floors[row.name], strict=True))
        rate = median(mine.per_second for mine, _ in pairs)
        p50 = median(mine.p50_ms for mine, _ in pairs)
        floor = median(its.per_second for _, its in pairs)
        ratio = median(mine.per_second / its.per_second for mine, its in pairs)
        shown.add_row(
            row.name, f"{rate:,.0f}", f"{p50:.3f}" if p50 else "", f"{floor:,.0f}", f"{ratio:.0%}", row.target
        )
    return shown


@contextmanager
def server_url() -> Iterator[str]:
    given = os.environ.get(TEST_POSTGRES)
    if given:
        yield given
    else:
        with started_server(required=True, durable=True) as server:
            yield server.get_uri()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rows = rows_of_the_table(0.2 if arguments.quick else 1.0)
    with server_url() as url:
        databases = Databases(url)
        Console().print(table(rows, 2 if arguments.quick else arguments.rounds, databases))
        databases.close()


if __name__ == "__main__":
    main()
