"""Parquet files by day: everything that was recorded, whole files or none, again and again."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from promptab import ConflictError, InvalidInputError, Lab, NotFoundError, Tokens, exporting
from promptab.stores.opening import open_store
from tests.clock import SettableClock
from tests.command_line import Shell
from tests.contract.records import new_id

VERSION = new_id()


async def furnished(lab: Lab, clock: SettableClock) -> None:
    """Three days of events, two experiments, and a session that became a user."""
    variants = [{"key": "a", "config": {"t": 0}}, {"key": "b", "config": {"t": 1}}]
    for name in ("e", "f"):
        await lab.experiments.create_experiment(name, "config", variants, salt="s")
    for day in range(3):
        for number in range(6):
            unit, attributes = f"ü{number}", {"plan": "pro", "age": number, "beta": True, "none": None}
            assignment = await lab.experiments.assign("e", unit, attributes=attributes)
            await lab.metrics.record_event(
                VERSION,
                success=number > 2,
                response_time=0.1 + number,
                tokens=Tokens(input=3, output=4, total=7),
                user_rating=4.5,
                cost=0.25,
                metrics={"m": 1.5, "n.1": -2.0} if number else None,
                metadata={"ключ": [number, {"day": day}]},
                experiment_id="e",
                variant=assignment.variant,
                user_id=unit,
            )
        await lab.metrics.record_event(None)
        await lab.metrics.record_result("f", "m", 2.0, session_id="s1")
        clock.advance(days=1)
    await lab.experiments.alias("s1", "ü1")


def rows(folder: Path, what: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ds.dataset(folder / what, partitioning=None).to_table().to_pylist()
    return found


def contents(folder: Path) -> dict[str, list[dict[str, Any]]]:
    paths = sorted(folder.rglob("*.parquet"))
    return {
        str(path.relative_to(folder)): pq.read_table(path, partitioning=None).to_pylist() for path in paths
    }


async def test_every_field_of_every_event_is_in_the_file_of_its_day(
    lab: Lab, clock: SettableClock, tmp_path: Path
) -> None:
    await furnished(lab, clock)
    report = await lab.metrics.export_events(tmp_path / "out")
    assert (report.days, report.events, report.kept, report.aliases) == (3, 24, 0, 1)
    found = {row["event_id"]: row for row in rows(tmp_path / "out", "events")}
    told = await lab.metrics.get_events(VERSION)
    assert (len(found), len(told)) == (24, 18)
    for event in told:
        row = found[event.event_id]
        assert row["happened_at"] == event.timestamp
        assert row["recorded_at"] == event.recorded_at
        assert dict(row["metrics"] or ()) == event.metrics
        assert json.loads(row["metadata"]) == event.metadata
        assert (row["success"], row["response_time"], row["rating"], row["cost"]) == (
            event.success, event.response_time, event.user_rating, event.cost,
        )  # fmt: skip
        assert (row["input_tokens"], row["output_tokens"], row["tokens"]) == (3, 4, 7)
        assert (row["experiment_id"], row["variant"], row["unit"], row["flagged"]) == (
            event.experiment_id, event.variant, event.user_id, event.flagged,
        )  # fmt: skip
    days = {path.parent.name for path in (tmp_path / "out" / "events").rglob("*.parquet")}
    assert days == {"date=2026-01-05", "date=2026-01-06", "date=2026-01-07"}
    for path in (tmp_path / "out" / "events").rglob("*.parquet"):
        dates = {
            f"date={row['happened_at']:%Y-%m-%d}"
            for row in pq.read_table(path, partitioning=None).to_pylist()
        }
        assert dates == {path.parent.name}


async def test_exposures_and_aliases_are_written_too(lab: Lab, clock: SettableClock, tmp_path: Path) -> None:
    await furnished(lab, clock)
    report = await lab.metrics.export_events(tmp_path / "out")
    exposures = rows(tmp_path / "out", "exposures")
    assert len(exposures) == report.exposures
    of_units = {row["unit"]: row for row in exposures}
    assert dict(of_units["ü2"]["attributes"]) == {"plan": "pro", "age": "2", "beta": "true"}
    assert (of_units["ü2"]["epoch"], of_units["ü2"]["source"]) == (1, "assigned")
    (alias,) = pq.read_table(tmp_path / "out" / "aliases.parquet").to_pylist()
    assert (alias["alias"], alias["unit"]) == ("session:s1", "ü1")


async def test_written_again_the_files_say_the_same_and_new_days_are_added(
    lab: Lab, clock: SettableClock, tmp_path: Path
) -> None:
    await furnished(lab, clock)
    await lab.metrics.export_events(tmp_path / "out")
    first = contents(tmp_path / "out")
    await lab.metrics.export_events(tmp_path / "out")
    assert contents(tmp_path / "out") == first
    await lab.metrics.record_event(VERSION)
    await lab.metrics.export_events(tmp_path / "out")
    second = contents(tmp_path / "out")
    assert {name: second[name] for name in first} == first
    assert set(second) - set(first) == {"events/date=2026-01-08/events.parquet"}


async def test_whole_days_are_written_of_what_is_asked_for(
    lab: Lab, clock: SettableClock, tmp_path: Path
) -> None:
    await furnished(lab, clock)
    middle = clock() - timedelta(days=2, hours=1)
    await lab.metrics.export_events(tmp_path / "out", since=middle, until=middle)
    assert {path.parent.name for path in (tmp_path / "out" / "events").rglob("*.parquet")} == {
        "date=2026-01-06"
    }
    assert len(rows(tmp_path / "out", "events")) == 8
    report = await lab.metrics.export_events(tmp_path / "one", experiment="f")
    assert {row["experiment_id"] for row in rows(tmp_path / "one", "events")} == {
        (await lab.experiments.get_experiment("f") or pytest.fail("gone")).experiment_id
    }
    assert report.events == 3
    with pytest.raises(NotFoundError):
        await lab.metrics.export_events(tmp_path / "none", experiment="nobody")


async def test_files_keep_the_events_that_were_pruned_since(
    lab: Lab, clock: SettableClock, tmp_path: Path
) -> None:
    await furnished(lab, clock)
    await lab.metrics.export_events(tmp_path / "out")
    first = contents(tmp_path / "out")
    report = await lab.metrics.prune_events(clock() - timedelta(days=1))
    assert report.dropped
    late = clock() - timedelta(days=2)
    await lab.metrics.record_event(VERSION, timestamp=late)
    again = await lab.metrics.export_events(tmp_path / "out")
    second = contents(tmp_path / "out")
    assert sum(map(len, second.values())) == sum(map(len, first.values())) + 1
    assert again.kept > 0
    ids = [row["event_id"] for row in rows(tmp_path / "out", "events")]
    assert len(ids) == len(set(ids)) == 25


async def test_files_keep_the_events_that_are_pruned_while_they_are_written(
    lab: Lab, clock: SettableClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await furnished(lab, clock)
    await lab.metrics.export_events(tmp_path / "out")
    first = contents(tmp_path / "out")
    write_day = exporting._write_day

    async def write_day_of_a_pruned_store(*arguments: Any, **named: Any) -> tuple[int, int]:
        # after the look at the days, and before the first of them is read
        await lab.metrics.prune_events(clock())
        return await write_day(*arguments, **named)

    monkeypatch.setattr(exporting, "_write_day", write_day_of_a_pruned_store)
    report = await lab.metrics.export_events(tmp_path / "out")
    # of "f" nobody was exposed, so its outcomes stay; the last of them is the newest event
    assert (report.events, report.kept) == (3, 21)
    second = contents(tmp_path / "out")
    assert {name: len(found) for name, found in second.items()} == {
        name: len(found) for name, found in first.items()
    }


async def test_a_folder_of_another_export_is_refused_and_left_as_it_was(
    lab: Lab, clock: SettableClock, tmp_path: Path
) -> None:
    await furnished(lab, clock)
    await lab.metrics.export_events(tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(ConflictError, match="another folder"):
        await lab.metrics.export_events(tmp_path / "out", experiment="e")
    other = await open_store("sqlite:///:memory:")
    with pytest.raises(ConflictError, match="another folder"):
        await Lab(other).metrics.export_events(tmp_path / "out")
    await other.close()
    assert contents(tmp_path / "out") == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "mine", tmp_path / "file"):
        with pytest.raises(InvalidInputError, match="folder"):
            await lab.metrics.export_events(folder)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


async def test_a_file_is_there_whole_or_not_at_all(
    lab: Lab, clock: SettableClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await furnished(lab, clock)
    await lab.metrics.export_events(tmp_path / "out")
    before = contents(tmp_path / "out")
    await lab.metrics.record_event(VERSION, timestamp=clock() - timedelta(days=2))
    batch = exporting._Cells.batch

    def failing(self: Any, some: Sequence[Any]) -> Any:
        made = batch(self, some)
        if self.schema is exporting.EXPOSURES or some[0].at.day == 7:
            raise OSError("no space left on device")
        return made

    monkeypatch.setattr(exporting._Cells, "batch", failing)
    with pytest.raises(OSError, match="no space"):
        await lab.metrics.export_events(tmp_path / "out")
    monkeypatch.undo()
    after = contents(tmp_path / "out")
    changed = [name for name in before if before[name] != after[name]]
    assert changed == ["events/date=2026-01-06/events.parquet"]
    assert [path for path in (tmp_path / "out").rglob("*") if path.suffix == ".tmp"] == []


async def test_memory_does_not_grow_with_the_events(tmp_path: Path) -> None:
    """In new processes, whose peaks are their own: five times the events, a few megabytes of difference."""
    peaks = []
    for count in (20_000, 100_000):
        code = (
            "import asyncio, resource, sys\n"
            "from tests.test_exporting import export_many\n"
            "asyncio.run(export_many(sys.argv[1], int(sys.argv[2])))\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
        )
        finished = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", code, str(tmp_path / f"{count}"), str(count)],
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert finished.returncode == 0, finished.stderr
        peaks.append(int(finished.stdout) / 1024)
    assert peaks[1] - peaks[0] < 40, peaks


async def export_many(folder: str, count: int) -> None:
    """Export events of one day that were put into the table directly."""
    import sqlite3  # noqa: PLC0415 - the child process alone needs it

    Path(folder).mkdir()
    path = Path(folder) / "many.db"
    store = await open_store(f"sqlite:///{path}")
    connection = sqlite3.connect(path)
    connection.executemany(
        "INSERT INTO promptab_events (event_id, kind, unit, cost, metadata, at, recorded_at, flagged)"
        " VALUES (?, 'use', ?, 0.5, ?, ?, ?, 0)",
        (
            (number.to_bytes(16, "big"), f"u{number % 1000}", json.dumps({"text": "x" * 200}), number, number)
            for number in range(count)
        ),
    )
    connection.commit()
    connection.close()
    await Lab(store).metrics.export_events(Path(folder) / "out")
    await store.close()


def test_commands_export_and_prune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = Shell(tmp_path, monkeypatch)
    shell.make_greeting()
    for _ in range(3):
        shell.ok("record", "system/greeting@1.0.0", "--success")
    said = shell.json("events", "export", "out")
    assert (said["events"], said["days"]) == (3, 1)
    assert "3" in shell.ok("events", "export", "out", "--since", "7d")
    looked = shell.run("events", "prune", "--before", "0m")
    assert looked.code == 0
    assert "to be dropped" in looked.out
    assert "add --yes" in looked.err
    assert shell.json("events", "prune", "--before", "0m", "--yes")["dropped"] == 2
    assert shell.json("metrics", "system/greeting@1.0.0")[0]["total_events"] == 3
    assert shell.json("events", "export", "out")["kept"] == 2
    assert len(rows(tmp_path / "out", "events")) == 3
