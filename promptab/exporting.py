"""What was recorded, as Parquet files by day: to keep, and to analyse where it outgrew the store."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from promptab.errors import ConflictError, InvalidInputError, MissingExtraError
from promptab.models import PromptExperiment
from promptab.records import Record
from promptab.stores.base import Store, Transaction
from promptab.stores.queries.exports import EventDay
from promptab.stores.queries.time_spans import DAY, Span
from promptab.stores.schema import instant, microseconds

if importlib.util.find_spec("pyarrow") is None:
    raise MissingExtraError("pyarrow", "warehouse")

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from sqlalchemy import Row

MANIFEST = "promptab-export.json"
_FORMAT = 1

_TEXT, _TIME = pa.string(), pa.timestamp("us", tz="UTC")
EVENTS = pa.schema(
    [
        ("sequence", pa.int64()),
        ("event_id", _TEXT),
        ("kind", _TEXT),
        ("version_id", _TEXT),
        ("experiment_id", _TEXT),
        ("variant", _TEXT),
        ("unit", _TEXT),
        ("success", pa.bool_()),
        ("response_time", pa.float64()),
        ("input_tokens", pa.int64()),
        ("cached_input_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("tokens", pa.int64()),
        ("cost", pa.float64()),
        ("rating", pa.float64()),
        ("metrics", pa.map_(_TEXT, pa.float64())),
        ("metadata", _TEXT),
        ("happened_at", _TIME),
        ("recorded_at", _TIME),
        ("flagged", pa.bool_()),
    ]
)
EXPOSURES = pa.schema(
    [
        ("experiment_id", _TEXT),
        ("unit", _TEXT),
        ("variant", _TEXT),
        ("epoch", pa.int32()),
        ("exposed_at", _TIME),
        ("attributes", pa.map_(_TEXT, _TEXT)),
        ("source", _TEXT),
        ("served", _TEXT),
        ("propensity", pa.float64()),
    ]
)
ALIASES = pa.schema([("alias", _TEXT), ("unit", _TEXT), ("told_at", _TIME)])
_TIMES = ("happened_at", "exposed_at", "told_at")
"""What is called `at` in the store, a word that means something else in some dialects of SQL."""


class ExportReport(Record):
    """What an export wrote."""

    folder: str
    days: int
    """Days with events."""
    events: int
    kept: int
    """Events that a file of an earlier export has and the store has not any more: they are in the files still."""
    exposures: int
    aliases: int


class _Cells(NamedTuple):
    """How the value of a column becomes a cell; those that are not named stay as they are."""

    schema: pa.Schema
    made: Mapping[str, Callable[[Any], Any]]

    def batch(self, rows: Sequence[Row[Any]]) -> pa.RecordBatch:
        columns = []
        for field in self.schema:
            name = "at" if field.name in _TIMES else field.name
            values = [getattr(row, name) for row in rows]
            if field.name in self.made:
                make = self.made[field.name]
                values = [None if value is None else make(value) for value in values]
            columns.append(pa.array(values, field.type))
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


def _uuid(value: bytes) -> str:
    text = value.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _numbers(metrics: Mapping[str, float]) -> list[tuple[str, float]]:
    return [(name, float(value)) for name, value in metrics.items()]


def _texts(attributes: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return attributes as a segment shows them: strings bare, anything else as JSON; null is none."""
    return [
        (name, value if isinstance(value, str) else json.dumps(value, separators=(",", ":")))
        for name, value in attributes.items()
        if value is not None
    ]


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


_EVENT_CELLS = _Cells(EVENTS, {"event_id": _uuid, "metrics": _numbers, "metadata": _json})
_EXPOSURE_CELLS = _Cells(EXPOSURES, {"attributes": _texts})
_ALIAS_CELLS = _Cells(ALIASES, {})


async def export(
    store: Store,
    folder: Path,
    *,
    since: datetime | None,
    until: datetime | None,
    experiment: PromptExperiment | None,
) -> ExportReport:
    """Write everything, as `MetricsCollector.export_events` says."""
    experiment_id = None if experiment is None else experiment.experiment_id
    await asyncio.to_thread(_claim, folder, store.store_id, experiment_id)
    span = _full_days(since, until)

    async def look(tx: Transaction) -> list[EventDay]:
        return await tx.exports.event_days(span, experiment_id)

    days = await store.read(look)
    counts = [await _write_day(store, folder, day, experiment_id) for day in days]
    return ExportReport(
        folder=str(folder),
        days=len(days),
        events=sum(written for written, _ in counts),
        kept=sum(kept for _, kept in counts),
        exposures=await _write_exposures(store, folder, span, experiment_id),
        aliases=await _write_aliases(store, folder),
    )


def _claim(folder: Path, store_id: str, experiment_id: str | None) -> None:
    """Make the folder this export's own, or refuse it: files of two exports would replace one another."""
    document = {"format": _FORMAT, "store_id": store_id, "experiment_id": experiment_id}
    path = folder / MANIFEST
    try:
        folder.mkdir(parents=True, exist_ok=True)
        present = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        if present is None and any(folder.iterdir()):
            raise InvalidInputError(
                "folder", str(folder), "empty, or that of an earlier export", "choose another folder"
            )
        if present is None:
            with _replacing(path) as temporary:
                temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError("folder", str(folder), f"a folder that can be written ({error})") from error
    if present is not None and present != document:
        raise ConflictError(
            f"{folder} holds an export of store {present.get('store_id')}, experiment "
            f"{present.get('experiment_id') or 'all'}: files of two exports would replace one another; choose another "
            "folder"
        )


def _full_days(since: datetime | None, until: datetime | None) -> Span:
    start = None if since is None else microseconds(since) // DAY * DAY
    end = None if until is None else -(-microseconds(until) // DAY) * DAY
    return Span(start, end)


async def _write_day(store: Store, folder: Path, day: EventDay, experiment_id: str | None) -> tuple[int, int]:
    """Write the file of one day; return how many events the store had, and how many only the file had."""
    path = _file(folder, "events", day.start)

    async def work(tx: Transaction) -> tuple[int, int]:
        # asked beside the events: a pruning may have begun since the days were listed
        pruned = await tx.retention.pruned_before()
        may_lack = pruned is not None and day.start < microseconds(pruned)
        with _replacing(path) as temporary, pq.ParquetWriter(temporary, EVENTS, compression="zstd") as writer:
            ids: list[pa.Array] | None = [] if may_lack and path.exists() else None
            written = await _write(writer, _EVENT_CELLS, tx.exports.events(day, experiment_id), ids=ids)
            kept = 0 if ids is None else await asyncio.to_thread(_carry_over, path, writer, ids)
        return written, kept

    return await store.read(work)


async def _write_exposures(store: Store, folder: Path, span: Span, experiment_id: str | None) -> int:
    async def work(tx: Transaction) -> int:
        written = 0
        with _DailyFiles(folder, "exposures", _EXPOSURE_CELLS) as files:
            async for rows in tx.exports.exposures(span, experiment_id):
                await asyncio.to_thread(files.write, rows)
                written += len(rows)
        return written

    return await store.read(work)


async def _write_aliases(store: Store, folder: Path) -> int:
    async def work(tx: Transaction) -> int:
        with (
            _replacing(folder / "aliases.parquet") as temporary,
            pq.ParquetWriter(temporary, ALIASES, compression="zstd") as writer,
        ):
            return await _write(writer, _ALIAS_CELLS, tx.exports.aliases())

    return await store.read(work)


async def _write(
    writer: pq.ParquetWriter,
    cells: _Cells,
    rows: AsyncIterator[Sequence[Row[Any]]],
    *,
    ids: list[pa.Array] | None = None,
) -> int:
    """Write rows as they come; where `ids` are asked for, those of the events go there."""

    def write(some: Sequence[Row[Any]]) -> None:
        batch = cells.batch(some)
        writer.write_batch(batch)
        if ids is not None:
            ids.append(batch.column("event_id"))

    written = 0
    async for some in rows:
        await asyncio.to_thread(write, some)
        written += len(some)
    return written


def _carry_over(path: Path, writer: pq.ParquetWriter, ids: Sequence[pa.Array]) -> int:
    """Write the events of an earlier file whose ids are not among these; return how many there are."""
    present = pa.chunked_array(ids, type=_TEXT)
    kept = 0
    with pq.ParquetFile(path) as earlier:
        for batch in earlier.iter_batches():
            gone = batch.filter(pc.invert(pc.is_in(batch.column("event_id"), value_set=present)))
            if gone.num_rows:
                writer.write_batch(gone.cast(EVENTS))
            kept += gone.num_rows
    return kept


class _DailyFiles:
    """Rows in the order of their time, each written to the file of its day."""

    def __init__(self, folder: Path, what: str, cells: _Cells) -> None:
        self._folder = folder
        self._what = what
        self._cells = cells
        self._day: int | None = None
        self._writer: pq.ParquetWriter | None = None
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def write(self, rows: Sequence[Row[Any]]) -> None:
        for day, some in groupby(rows, key=lambda row: microseconds(row.at) // DAY * DAY):
            if self._writer is None or day != self._day:
                self._open.close()
                path = _file(self._folder, self._what, day)
                self._writer = self._open.enter_context(
                    pq.ParquetWriter(
                        self._open.enter_context(_replacing(path)), self._cells.schema, compression="zstd"
                    )
                )
                self._day = day
            self._writer.write_batch(self._cells.batch(list(some)))


def _file(folder: Path, what: str, day: int) -> Path:
    return folder / what / f"date={instant(day).date().isoformat()}" / f"{what}.parquet"


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Give a file to write to that takes the place of `path` once it is whole, and is gone where it is not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # readers of a folder of Parquet files pass over names that begin with a dot
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
