"""What an analysis costs where it is large: 10,000,000 events of 1,000,000 units, five measures.

`python -m tests.benchmarks.analysis_large` prints each row beside the floor or the peer measured in the same run:
SQLite's own GROUP BY variant and unit with the sums of all five measures into a table, and DuckDB over the same rows as
Parquet. `--events` and `--units` change the size, `--rounds` how often what can be repeated is.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import resource
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

import promptab
from promptab import Lab, PromptExperiment
from promptab.stats.metric import MetricDefinition
from promptab.stores.schema import microseconds
from promptab.totalling import add_up
from tests.benchmarks import analysis
from tests.clock import SettableClock

DAY = 86_400_000_000
NEW_EVENTS = 50_000
ROWS_AT_ONCE = 100_000
VERSION = "11111111-1111-4111-8111-111111111111"

_EVENTS = pa.schema(
    [("unit", pa.string()), ("variant", pa.string()), ("happened", pa.int64())]
    + [(name, pa.float64()) for name in ("success", "response_time", "tokens", "cost", "rating")]
    + [("in_experiment", pa.bool_())]
)
_EXPOSURES = pa.schema(
    [("unit", pa.string()), ("variant", pa.string()), ("at", pa.int64()), ("plan", pa.string())]
)
_EVENT = analysis._EVENT.replace("flagged)", "flagged, version_id)").replace(", 0)", f", 0, '{VERSION}')")

_SEGMENTS = """
    SELECT plan, variant, count(*), sum(n), sum(s), sum((s - 0.7 * n) * (s - 0.7 * n)), sum(n * n),
        sum((s - 0.7 * n) * n)
    FROM (
        SELECT e.plan, e.variant, coalesce(t.n, 0) AS n, coalesce(t.s, 0) AS s
        FROM read_parquet('{exposures}') e LEFT JOIN (
            SELECT unit, count(success) AS n, sum(success) AS s FROM read_parquet('{events}')
            WHERE in_experiment GROUP BY unit
        ) t USING (unit)
    ) GROUP BY ALL
"""
_PAST = """
    SELECT variant, count(*), sum(n), sum(s), sum(m), sum(x), sum((s - 0.005 * n) * (s - 0.005 * n)),
        sum((x - 0.005 * m) * (x - 0.005 * m)), sum((s - 0.005 * n) * (x - 0.005 * m)), sum(n * n),
        sum(m * m), sum(n * m)
    FROM (
        SELECT e.variant, count(t.cost) FILTER (t.in_experiment) AS n, sum(t.cost) FILTER (t.in_experiment) AS s,
            count(t.cost) FILTER (t.happened // {day} < e.at // {day}) AS m,
            coalesce(sum(t.cost) FILTER (t.happened // {day} < e.at // {day}), 0) AS x
        FROM read_parquet('{exposures}') e JOIN read_parquet('{events}') t USING (unit) GROUP BY e.unit, e.variant
    ) WHERE n > 0 GROUP BY variant
"""


class Row(NamedTuple):
    """One line of the table; times in seconds."""

    work: str
    seconds: float
    against: str
    ratio: float | None
    target: str


def rows(count: int, units: int, at: int, experiment_id: str) -> Iterator[tuple[Any, ...]]:
    """Events as `analysis.events` makes them; every fifth happened a week earlier, in no experiment."""
    for position, row in enumerate(analysis.events(experiment_id, count, units, at)):
        if position % 5:
            yield row
        else:
            identity, _, _, unit, *measures, happened, recorded = row
            yield (identity, None, None, unit, *measures, happened - 7 * DAY, recorded - 7 * DAY)


def load(folder: Path, count: int, units: int, at: int, experiment_id: str) -> None:
    """Put the same rows into the store's tables and into Parquet."""
    exposed = list(analysis.exposures(experiment_id, units, at))
    analysis.load(folder / "large.db", analysis._EXPOSURE, iter(exposed))
    columns = [
        [row[1] for row in exposed],
        [row[2] for row in exposed],
        [row[3] for row in exposed],
        [row[4].split('"')[3] for row in exposed],
    ]
    pq.write_table(pa.table(columns, schema=_EXPOSURES), folder / "exposures.parquet", compression="zstd")
    with (
        closing(sqlite3.connect(folder / "large.db")) as connection,
        pq.ParquetWriter(folder / "events.parquet", _EVENTS, compression="zstd") as writer,
    ):
        batch: list[tuple[Any, ...]] = []
        for row in rows(count, units, at, experiment_id):
            batch.append(row)
            if len(batch) == ROWS_AT_ONCE:
                _put(connection, writer, batch)
        _put(connection, writer, batch)
        connection.commit()


def _put(connection: sqlite3.Connection, writer: Any, batch: list[tuple[Any, ...]]) -> None:
    connection.executemany(_EVENT, batch)
    if batch:
        _, experiments, variants, units, *measures, happened, _ = zip(*batch, strict=True)
        numbers = [[float(value) for value in measure] for measure in measures]
        inside = [experiment is not None for experiment in experiments]
        writer.write_table(pa.table([units, variants, happened, *numbers, inside], schema=_EVENTS))
    batch.clear()


async def median(rounds: int, work: Callable[[], Awaitable[object]]) -> float:
    return statistics.median([await analysis.timed(work) for _ in range(rounds)])


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Large:
    """The questions, on one store."""

    def __init__(self, lab: Lab, experiment: PromptExperiment, clock: SettableClock, folder: Path) -> None:
        self.lab = lab
        self.experiment = experiment
        self.clock = clock
        self.folder = folder

    async def analyze(self) -> None:
        await self.lab.analyze(self.experiment.experiment_id)

    async def segments(self) -> None:
        primary = self.experiment.plan.definition("success_rate")
        await self.lab.store.read(
            lambda tx: tx.rolled_up.sums_where(self.experiment, [primary], segment="plan")
        )

    async def past(self) -> None:
        metric = MetricDefinition(name="cost")
        await self.lab.store.read(lambda tx: tx.rolled_up.covariate_sums(self.experiment, metric, days=14))

    async def quantile(self) -> None:
        await self.lab.analyze(self.experiment.experiment_id, metrics=["p95_response_time"])

    async def version(self) -> None:
        await self.lab.store.read(lambda tx: tx.version_totals.metrics([VERSION]))

    async def new_events(self, units: int) -> float:
        """Return the seconds that the next look takes for each new event."""
        analysis.NEW_EVENTS = NEW_EVENTS
        fresh = analysis.fresh(self.experiment.experiment_id, units, microseconds(self.clock()))
        analysis.load(self.folder / "large.db", analysis._EVENT, fresh)
        return await analysis.timed(self.analyze) / NEW_EVENTS

    def duck(self, query: str) -> float:
        given = {"day": DAY} | {
            name: str(self.folder / f"{name}.parquet") for name in ("events", "exposures")
        }
        with duckdb.connect() as connection:
            started = time.perf_counter()
            connection.execute(query.format(**given)).fetchall()
            return time.perf_counter() - started


async def begun(lab: Lab) -> PromptExperiment:
    variants = [{"key": "a", "config": {"t": 0}}, {"key": "b", "config": {"t": 1}}]
    return await lab.experiments.create_experiment("large", "config", variants)


async def measure(folder: Path, count: int, units: int, rounds: int) -> list[Row]:
    clock = SettableClock()
    async with promptab.open(f"sqlite:///{folder / 'large.db'}", clock=clock) as lab:
        experiment = await begun(lab)
        # in a process of its own: what is measured here is the memory of an analysis
        loading = multiprocessing.get_context("spawn").Process(
            target=load, args=(folder, count, units, microseconds(clock()), experiment.experiment_id)
        )
        loading.start()
        await asyncio.to_thread(loading.join)
        assert loading.exitcode == 0
        clock.advance(days=1)
        large = Large(lab, experiment, clock, folder)
        floor = analysis.floor(folder / "large.db")
        first = await analysis.timed(large.analyze)
        found = [
            Row("first time", first, f"GROUP BY into a table, {floor:.2f} s", first / floor, "2 x"),
            Row("memory so far (MB)", peak_megabytes(), "", None, "300"),
            Row("again, nothing new", await median(rounds, large.analyze), "", None, "0.010 s"),
        ]
        per_event = statistics.median([await large.new_events(units) for _ in range(3)])
        found.append(Row("a new event at the next look", per_event, "", None, "0.000006 s"))
        taken = await analysis.timed(lambda: add_up(lab.store, "versions"))
        found.append(Row("totals by the hour, first time", taken, "GROUP BY", taken / floor, ""))
        found.append(Row("a version's metrics, then", await median(rounds, large.version), "", None, ""))
        taken = await analysis.timed(lambda: add_up(lab.store, "units"))
        found.append(Row("totals by unit and day, first time", taken, "GROUP BY", taken / floor, ""))
        segments, past = await median(rounds, large.segments), await median(rounds, large.past)
        # before DuckDB works in this process
        peak = peak_megabytes()
        quantile = await analysis.timed(large.quantile)
        for what, own, query in (("a breakdown by segment", segments, _SEGMENTS), ("CUPED", past, _PAST)):
            peer = statistics.median([large.duck(query) for _ in range(rounds)])
            found.append(Row(what, own, f"DuckDB over Parquet, {peer:.2f} s", own / peer, "1.5 x"))
        found.append(Row("memory at most (MB)", peak, "", None, "200"))
        found.append(Row("a quantile, worked out", quantile, "", None, ""))
        found.append(Row("the same quantile, kept", await median(rounds, large.quantile), "", None, ""))
    return found


async def measure_again(folder: Path, count: int, units: int, rounds: int) -> float:
    """Return the seconds of an analysis with nothing new, on a store of its own."""
    clock = SettableClock()
    async with promptab.open(f"sqlite:///{folder / 'large.db'}", clock=clock) as lab:
        experiment = await begun(lab)
        load(folder, count, units, microseconds(clock()), experiment.experiment_id)
        clock.advance(days=1)
        large = Large(lab, experiment, clock, folder)
        await large.analyze()
        return await median(rounds, large.analyze)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--units", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="promptab-benchmark-") as folder:
        found = asyncio.run(measure(Path(folder), arguments.events, arguments.units, arguments.rounds))
    tenth = arguments.events // 10, arguments.units // 10
    with tempfile.TemporaryDirectory(prefix="promptab-benchmark-") as folder:
        again = asyncio.run(measure_again(Path(folder), *tenth, arguments.rounds))
    found.append(Row("again, of a tenth of the events and units", again, "", None, ""))
    shown = Table(title=f"{arguments.events:,} events of {arguments.units:,} units, five measures")
    for heading in ("work", "median", "against", "ratio", "target"):
        shown.add_column(heading, justify="left" if heading in {"work", "against"} else "right")
    for row in found:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        value = f"{row.seconds:,.0f}" if row.work.startswith("memory") else f"{row.seconds:.6f} s"
        shown.add_row(row.work, value, row.against, ratio, row.target)
    Console().print(shown)


if __name__ == "__main__":
    main()
