"""What recording costs: awaited by one, 16 and 256 callers at once, with full durability, and as a bulk import.

`python -m tests.benchmarks.recording` prints each beside the floor measured in the same run, on the same rows in the
same table: a future per event, a thread and `executemany`, and nothing else; for the import `executemany` alone. The
rounds are interleaved and medians are shown. `--quick` is for a look.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import sqlite3
import tempfile
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import SimpleQueue
from statistics import median
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

import promptab
from promptab import Lab, MetricEvent, PromptVariant, Tokens
from promptab.event_ids import new_event_id
from promptab.queueing import Durability
from promptab.stores.event_rows import EVENT_COLUMNS, EventRow, event_row
from promptab.stores.opening import open_store

VERSION_ID = "11111111-1111-4111-8111-111111111111"
UNITS = 10_000
FLOOR_BATCH = 5_000
TOKENS = range(50, 2_000)

_INSERT = (
    f"INSERT INTO promptab_events ({', '.join(EVENT_COLUMNS)}) VALUES ({', '.join('?' * len(EVENT_COLUMNS))})"
)

Record = Callable[[int], Awaitable[object]]


class Measured(NamedTuple):
    per_second: float
    p50_ms: float


class Row(NamedTuple):
    """One line of the table."""

    name: str
    ours: Callable[[Path], Awaitable[Measured]]
    floor: Callable[[Path], Awaitable[Measured]]
    target: str


def some_events(count: int, *, own_ids: bool = False) -> list[MetricEvent]:
    """Return what one call after the other records: success, response time, tokens, cost and a unit."""
    rng = random.Random(4)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    events = []
    for number in range(count):
        at = start + timedelta(microseconds=20 * number)
        given = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        events.append(
            MetricEvent.of_checked(
                {
                    **MetricEvent(event_id="", timestamp=at, recorded_at=at).model_dump(),
                    "event_id": given if own_ids else new_event_id(at),
                    "version_id": VERSION_ID,
                    "success": rng.random() < 0.7,
                    "response_time": rng.random(),
                    "tokens": Tokens(total=TOKENS[number % len(TOKENS)]),
                    "cost": rng.random() / 100,
                    "user_id": f"user-{rng.randrange(UNITS):06d}",
                }
            )
        )
    return events


class Floor:
    """A future per event; one thread writes what is there by `executemany`, and answers all at once."""

    def __init__(self, path: Path, durability: Durability) -> None:
        self._loop = asyncio.get_running_loop()
        self._rows: list[EventRow] = []
        self._answers: list[asyncio.Future[None]] = []
        self._busy = False
        self._inbox: SimpleQueue[tuple[list[EventRow], list[asyncio.Future[None]]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, args=(path, durability), daemon=True)
        self._thread.start()

    def record(self, row: EventRow) -> asyncio.Future[None]:
        answer = self._loop.create_future()
        self._rows.append(row)
        self._answers.append(answer)
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._hand_over)
        return answer

    def close(self) -> None:
        self._inbox.put(None)
        self._thread.join()

    def _hand_over(self) -> None:
        self._inbox.put((self._rows[:FLOOR_BATCH], self._answers[:FLOOR_BATCH]))
        self._rows, self._answers = self._rows[FLOOR_BATCH:], self._answers[FLOOR_BATCH:]

    def _answer(self, answers: Sequence[asyncio.Future[None]]) -> None:
        for answer in answers:
            if not answer.done():
                answer.set_result(None)
        if self._rows:
            self._loop.call_soon(self._hand_over)
        else:
            self._busy = False

    def _run(self, path: Path, durability: Durability) -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute(f"PRAGMA synchronous = {durability}")
        while (job := self._inbox.get()) is not None:
            rows, answers = job
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(_INSERT, rows)
            connection.execute("COMMIT")
            self._loop.call_soon_threadsafe(self._answer, answers)
        connection.close()


async def driven(record: Record, count: int, callers: int) -> Measured:
    """Let that many callers record one event after the other, until all are recorded."""
    await record(0)  # which begins the thread and opens the file
    waited: list[float] = []

    async def caller(first: int) -> None:
        clock = time.perf_counter
        for number in range(1 + first, count, callers):
            began = clock()
            await record(number)
            waited.append(clock() - began)

    began = time.perf_counter()
    await asyncio.gather(*map(caller, range(callers)))
    return Measured(count / (time.perf_counter() - began), median(waited) * 1e3)


def recorded(
    events: Sequence[MetricEvent],
    callers: int,
    *,
    durability: Durability = "normal",
    own_ids: bool = False,
    experiment: bool = False,
) -> Callable[[Path], Awaitable[Measured]]:
    async def measure(path: Path) -> Measured:
        async with promptab.open(f"sqlite:///{path}", durability=durability) as lab:
            told = arguments(events, own_ids=own_ids)
            if experiment:
                told = await in_an_experiment(lab, told)
            measured = await driven(recorder(lab, told), len(events), callers)
            assert (await lab.metrics.get_metrics(VERSION_ID)).total_events == len(events)
        return measured

    return measure


class Told(NamedTuple):
    """What a caller says of an event. It is at hand, as the rows of the floor are."""

    success: bool | None
    response_time: float | None
    tokens: int | None
    cost: float | None
    user_id: str | None
    event_id: str | None
    experiment_id: str | None = None
    variant: str | None = None


def arguments(events: Sequence[MetricEvent], *, own_ids: bool = False) -> list[Told]:
    return [
        Told(
            event.success,
            event.response_time,
            event.tokens.total if event.tokens else None,
            event.cost,
            event.user_id,
            event.event_id if own_ids else None,
        )
        for event in events
    ]


def recorder(lab: Lab, told: Sequence[Told]) -> Record:
    record_event = lab.metrics.record_event

    def record(number: int) -> Awaitable[object]:
        success, response_time, tokens, cost, user_id, event_id, experiment_id, variant = told[number]
        return record_event(
            VERSION_ID,
            success,
            response_time,
            tokens,
            cost=cost,
            user_id=user_id,
            event_id=event_id,
            experiment_id=experiment_id,
            variant=variant,
        )

    return record


async def in_an_experiment(lab: Lab, told: Sequence[Told]) -> list[Told]:
    """Return the same, and in which variant of an experiment each unit is, which has been exposed to it."""
    variants = [PromptVariant(key="a", config={"t": 0}), PromptVariant(key="b", config={"t": 1})]
    experiment = await lab.experiments.create_experiment("benchmark", "config", variants)
    placed = []
    for given in told:
        assert given.user_id is not None
        variant = await lab.experiments.get_variant_for_user(experiment.experiment_id, given.user_id)
        placed.append(given._replace(experiment_id=experiment.experiment_id, variant=variant))
    await lab.store.flush()
    return placed


def floored(
    events: Sequence[MetricEvent], callers: int, *, durability: Durability = "normal"
) -> Callable[[Path], Awaitable[Measured]]:
    rows = [event_row(event) for event in events]

    async def measure(path: Path) -> Measured:
        await (await open_store(f"sqlite:///{path}")).close()
        floor = Floor(path, durability)
        measured = await driven(lambda number: floor.record(rows[number]), len(rows), callers)
        floor.close()
        return measured

    return measure


def imported(events: Sequence[MetricEvent]) -> Callable[[Path], Awaitable[Measured]]:
    async def measure(path: Path) -> Measured:
        async with promptab.open(f"sqlite:///{path}") as lab:
            began = time.perf_counter()
            assert await lab.metrics.record_many(events) == len(events)
            return Measured(len(events) / (time.perf_counter() - began), 0.0)

    return measure


def inserted(events: Sequence[MetricEvent]) -> Callable[[Path], Awaitable[Measured]]:
    rows = [event_row(event) for event in events]

    async def measure(path: Path) -> Measured:
        await (await open_store(f"sqlite:///{path}")).close()
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = NORMAL")
            began = time.perf_counter()
            for start in range(0, len(rows), 2_000):
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(_INSERT, rows[start : start + 2_000])
                connection.execute("COMMIT")
            return Measured(len(rows) / (time.perf_counter() - began), 0.0)

    return measure


def rows_of_the_table(scale: float) -> list[Row]:
    one, some, many = (int(count * scale) for count in (2_000, 20_000, 50_000))
    ours, theirs = some_events(many), some_events(many, own_ids=True)
    return [
        Row("1 caller", recorded(ours[:one], 1), floored(ours[:one], 1), "p50 0.3 ms"),
        Row("16 callers", recorded(ours[:some], 16), floored(ours[:some], 16), "40,000/s"),
        Row("256 callers", recorded(ours, 256), floored(ours, 256), "60 %, 80,000/s"),
        Row("256, ids of their own", recorded(theirs, 256, own_ids=True), floored(theirs, 256), ""),
        Row("256, in an experiment", recorded(ours, 256, experiment=True), floored(ours, 256), ""),
        Row(
            "256, durability full",
            recorded(ours, 256, durability="full"),
            floored(ours, 256, durability="full"),
            "60 %, 60,000/s",
        ),
        Row("record_many", imported(ours), inserted(ours), "50 %"),
    ]


def measure_once(measure: Callable[[Path], Awaitable[Measured]]) -> Measured:
    # what was made before belongs to neither: it shall not be collected while one of them is timed
    gc.collect()
    gc.freeze()
    with tempfile.TemporaryDirectory(prefix="promptab-benchmark-") as folder:

        async def run() -> Measured:
            return await measure(Path(folder) / "benchmark.db")

        return asyncio.run(run())


def table(rows: Sequence[Row], rounds: int) -> Table:
    ours: dict[str, list[Measured]] = {row.name: [] for row in rows}
    floors: dict[str, list[Measured]] = {row.name: [] for row in rows}
    for _ in range(rounds):
        for row in rows:
            floors[row.name].append(measure_once(row.floor))
            ours[row.name].append(measure_once(row.ours))
    shown = Table(title="Recording, SQLite")
    for column in ("await record_event", "events/s", "p50 ms", "floor/s", "of the floor", "target"):
        shown.add_column(column, justify="left" if column == "await record_event" else "right")
    for row in rows:
        rate = median(measured.per_second for measured in ours[row.name])
        p50 = median(measured.p50_ms for measured in ours[row.name])
        floor = median(measured.per_second for measured in floors[row.name])
        # of each round by itself: the machine's mood is the same for both
        ratio = median(
            mine.per_second / its.per_second
            for mine, its in zip(ours[row.name], floors[row.name], strict=True)
        )
        shown.add_row(
            row.name, f"{rate:,.0f}", f"{p50:.3f}" if p50 else "", f"{floor:,.0f}", f"{ratio:.0%}", row.target
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rows = rows_of_the_table(0.2 if arguments.quick else 1.0)
    Console().print(table(rows, 2 if arguments.quick else arguments.rounds))


if __name__ == "__main__":
    main()
