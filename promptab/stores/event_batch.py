"""The one hot write on SQLite: a batch of exposures and events in one transaction, by the driver's own cursor.

SQLAlchemy's insert costs several times the insert itself here. The statements are constants made from the schema's
column names. Rows go in many to a statement, since the driver lets go of the interpreter's lock, and may have to wait
for it, with every single one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Protocol

from promptab.models import Exposure
from promptab.recent import Recent
from promptab.stores.event_rows import (
    EVENT_COLUMNS,
    EXPERIMENT_AT,
    TIME_AT,
    UNIT_AT,
    VARIANT_AT,
    Batch,
    BatchOutcome,
    EventRow,
    row_encoder,
)
from promptab.stores.schema import microseconds

_NULL = math.nan
"""SQLite stores NaN as NULL (https://sqlite.org/floatingpoint.html). The driver looks for an adapter of every value
that is not exactly an int, a float, a str or a bytearray, which takes longer than all the rest of a row.
"""

sqlite_row = row_encoder(absent=_NULL, blob=bytearray.fromhex, truth={True: 1, False: 0, None: _NULL})

ROWS_PER_STATEMENT = (32, 8)
"""More gain little, and 32 rows of values stay below the 999 that older builds of SQLite take."""

KNOWN_EXPOSURES = 100_000
"""Units whose variant is remembered, so that it is not looked up with each of their events."""

Variants = dict[tuple[str, str], str]
"""By experiment and unit."""

Known = Recent[tuple[str, str], str]
"""The variants of exposures that are committed: what was written once does not change."""

_UNTOLD = {"at", "recorded_at", "flagged"}
"""What may differ between two tellings of one event: a retry has a later clock and does not know the flag."""
_COMPARED = [index for index, name in enumerate(EVENT_COLUMNS) if name not in _UNTOLD]

_SELECT_EVENT = f"SELECT {', '.join(EVENT_COLUMNS)} FROM promptab_events WHERE event_id = ?"  # noqa: S608 - column names of the schema

_INSERT_EXPOSURE = (
    "INSERT INTO promptab_exposures (experiment_id, unit, variant, epoch, at, attributes, source, propensity)"
    " SELECT ?1, ?2, ?3, coalesce(?4, (SELECT max(number) FROM promptab_epochs"
    " WHERE experiment_id = ?1 AND starts_at <= ?5), 1),"
    " ?5, ?6, ?7, ?8 WHERE EXISTS (SELECT 1 FROM promptab_experiments WHERE experiment_id = ?1)"
    " ON CONFLICT (experiment_id, unit) DO NOTHING"
)
"""An exposure whose experiment has been deleted meanwhile is left out; an unknown epoch is the one of its
time.
"""

_FLAG_EVENT = "UPDATE promptab_events SET flagged = 1 WHERE event_id = ?"

_SELECT_VARIANT = "SELECT variant FROM promptab_exposures WHERE experiment_id = ? AND unit = ?"


def _insert_events(rows: int) -> str:
    values = f"({', '.join('?' * len(EVENT_COLUMNS))})"
    return (
        f"INSERT INTO promptab_events ({', '.join(EVENT_COLUMNS)}) VALUES {', '.join([values] * rows)}"  # noqa: S608 - as above
        " ON CONFLICT (event_id) DO NOTHING"
    )


_INSERT_EVENT = _insert_events(1)
_INSERT_EVENTS = {rows: _insert_events(rows) for rows in ROWS_PER_STATEMENT}


class Cursor(Protocol):
    """What is needed of a DBAPI cursor."""

    @property
    def rowcount(self) -> int: ...

    def execute(self, statement: str, parameters: Sequence[Any] = ..., /) -> Any: ...

    def executemany(self, statement: str, parameters: Any, /) -> Any: ...

    def fetchone(self) -> Any: ...


def write_batch(cursor: Cursor, batch: Batch, known: Known) -> tuple[BatchOutcome, Variants]:
    """Write the rows inside the open transaction; an event that conflicts leaves nothing behind.

    Returns what became of them, and what may be added to `known` once the transaction has committed.
    """
    if batch.exposures:
        cursor.executemany(_INSERT_EXPOSURE, [_exposure_values(exposure) for exposure in batch.exposures])
    rows = batch.events
    if not rows:
        return BatchOutcome(), {}
    inserted = _insert(cursor, rows)
    conflicts = frozenset() if inserted == len(rows) else frozenset(_conflicts(cursor, rows))
    # what stands for an absent value is no text
    reported = {
        index: row
        for index, row in enumerate(rows)
        if type(row[EXPERIMENT_AT]) is str
        and type(row[VARIANT_AT]) is str
        and type(row[UNIT_AT]) is str
        and index not in conflicts
    }
    if not reported:
        return BatchOutcome(conflicts), {}
    held, learned = _expose(cursor, reported.values(), known)
    flagged = [
        index
        for index, row in reported.items()
        if held.get((row[EXPERIMENT_AT], row[UNIT_AT]), row[VARIANT_AT]) != row[VARIANT_AT]
    ]
    if flagged:
        cursor.executemany(_FLAG_EVENT, [rows[index][:1] for index in flagged])
    return BatchOutcome(conflicts, frozenset(flagged)), learned


def _insert(cursor: Cursor, rows: Sequence[EventRow]) -> int:
    """Return how many of the rows were new."""
    inserted = start = 0
    for size in ROWS_PER_STATEMENT:
        while len(rows) - start >= size:
            cursor.execute(_INSERT_EVENTS[size], list(chain.from_iterable(rows[start : start + size])))
            inserted += cursor.rowcount
            start += size
    if rest := rows[start:]:
        cursor.executemany(_INSERT_EVENT, rest)
        inserted += cursor.rowcount
    return inserted


def _expose(cursor: Cursor, reported: Iterable[EventRow], known: Known) -> tuple[Variants, Variants]:
    """Write the exposures that are missing; return the variants of all, and those of them that were not known.

    The exposure of a deleted experiment is in neither.
    """
    held: Variants = {}
    first: dict[tuple[str, str], EventRow] = {}
    for row in reported:
        key = (row[EXPERIMENT_AT], row[UNIT_AT])
        if key in held or key in first:
            continue
        if (variant := known.get(key)) is None:
            first[key] = row
        else:
            held[key] = variant
    learned: Variants = {}
    if first:
        cursor.executemany(_INSERT_EXPOSURE, [_reported_exposure(row) for row in first.values()])
    for key in first:
        cursor.execute(_SELECT_VARIANT, key)
        if (found := cursor.fetchone()) is not None:
            learned[key] = held[key] = found[0]
    return held, learned


def _conflicts(cursor: Cursor, rows: Sequence[EventRow]) -> Iterator[int]:
    for position, given in enumerate(rows):
        cursor.execute(_SELECT_EVENT, given[:1])
        stored = cursor.fetchone()
        if stored is None or any(stored[index] != _stored(given[index]) for index in _COMPARED):
            yield position


def _stored(value: Any) -> Any:
    return None if value is _NULL else value


def _exposure_values(exposure: Exposure) -> tuple[Any, ...]:
    return (
        exposure.experiment_id,
        exposure.unit,
        exposure.variant,
        exposure.epoch,
        microseconds(exposure.at),
        json.dumps(dict(exposure.attributes)),
        exposure.source,
        _NULL if exposure.propensity is None else exposure.propensity,
    )


def _reported_exposure(row: EventRow) -> tuple[Any, ...]:
    return row[EXPERIMENT_AT], row[UNIT_AT], row[VARIANT_AT], _NULL, row[TIME_AT], "{}", "reported", _NULL
