"""The one hot write: a batch of exposures and events in one transaction, by the driver's own cursor.

SQLAlchemy's insert costs several times the insert itself here; `executemany` of tuples does not. The
statements are constants made from the schema's column names.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from promptab.models import Exposure, MetricEvent
from promptab.stores.group_commit import BatchOutcome, Row
from promptab.stores.schema import events, microseconds

_COLUMNS = [column.name for column in events.columns if column.name != "sequence"]
_UNTOLD = {"at", "recorded_at", "flagged"}
"""What may differ between two tellings of one event: a retry has a later clock and does not know the flag."""

_INSERT_EVENT = (
    f"INSERT INTO promptab_events ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608 - column names of the schema
    " ON CONFLICT (event_id) DO NOTHING"
)
_SELECT_EVENT = f"SELECT {', '.join(_COLUMNS)} FROM promptab_events WHERE event_id = ?"  # noqa: S608 - as above

_INSERT_EXPOSURE = (
    "INSERT INTO promptab_exposures (experiment_id, unit, variant, epoch, at, attributes, source)"
    " SELECT ?1, ?2, ?3, coalesce(?4, (SELECT max(number) FROM promptab_epochs"
    " WHERE experiment_id = ?1 AND starts_at <= ?5), 1),"
    " ?5, ?6, ?7 WHERE EXISTS (SELECT 1 FROM promptab_experiments WHERE experiment_id = ?1)"
    " ON CONFLICT (experiment_id, unit) DO NOTHING"
)
"""An exposure whose experiment has been deleted meanwhile is left out; an unknown epoch is the one of its
time.
"""

_FLAG_EVENT = "UPDATE promptab_events SET flagged = 1 WHERE event_id = ?"

_SELECT_VARIANT = "SELECT variant FROM promptab_exposures WHERE experiment_id = ? AND unit = ?"


class Cursor(Protocol):
    """What is needed of a DBAPI cursor."""

    @property
    def rowcount(self) -> int: ...

    def execute(self, statement: str, parameters: Sequence[Any] = ..., /) -> Any: ...

    def executemany(self, statement: str, parameters: Any, /) -> Any: ...

    def fetchone(self) -> Any: ...


def write_batch(cursor: Cursor, rows: Sequence[Row]) -> BatchOutcome:
    """Write the rows inside the open transaction. An event that conflicts leaves nothing behind."""
    cursor.executemany(_INSERT_EXPOSURE, [_exposure_values(row) for row in rows if isinstance(row, Exposure)])
    positions = [position for position, row in enumerate(rows) if isinstance(row, MetricEvent)]
    told = [row for row in rows if isinstance(row, MetricEvent)]
    if not told:
        return BatchOutcome()
    values = [_event_values(event) for event in told]
    cursor.executemany(_INSERT_EVENT, values)
    conflicts = set() if cursor.rowcount == len(values) else set(_conflicts(cursor, values))
    reported = {
        index: event
        for index, event in enumerate(told)
        if event.experiment_id and event.variant and event.user_id and index not in conflicts
    }
    cursor.executemany(
        _INSERT_EXPOSURE, [_reported_exposure_values(event) for event in _first_of_units(reported.values())]
    )
    flagged = _flagged(cursor, reported)
    cursor.executemany(_FLAG_EVENT, [values[index][:1] for index in flagged])
    return BatchOutcome(
        frozenset(positions[index] for index in conflicts), frozenset(positions[index] for index in flagged)
    )


def _first_of_units(reported: Iterable[MetricEvent]) -> list[MetricEvent]:
    first: dict[tuple[str | None, str | None], MetricEvent] = {}
    for event in reported:
        first.setdefault((event.experiment_id, event.user_id), event)
    return list(first.values())


def _flagged(cursor: Cursor, reported: Mapping[int, MetricEvent]) -> list[int]:
    """Return which events are of a unit whose first exposure names another variant."""
    held: dict[tuple[str | None, str | None], str | None] = {}
    flagged = []
    for index, event in reported.items():
        key = (event.experiment_id, event.user_id)
        if key not in held:
            cursor.execute(_SELECT_VARIANT, key)
            found = cursor.fetchone()
            held[key] = found[0] if found else None
        if held[key] not in {None, event.variant}:
            flagged.append(index)
    return flagged


def _conflicts(cursor: Cursor, values: Sequence[tuple[Any, ...]]) -> Iterable[int]:
    compared = [index for index, name in enumerate(_COLUMNS) if name not in _UNTOLD]
    for position, given in enumerate(values):
        cursor.execute(_SELECT_EVENT, (given[0],))
        stored = cursor.fetchone()
        if stored is None or any(stored[index] != given[index] for index in compared):
            yield position


def _exposure_values(exposure: Exposure) -> tuple[Any, ...]:
    return (
        exposure.experiment_id,
        exposure.unit,
        exposure.variant,
        exposure.epoch,
        microseconds(exposure.at),
        json.dumps(dict(exposure.attributes)),
        exposure.source,
    )


def _reported_exposure_values(event: MetricEvent) -> tuple[Any, ...]:
    return (
        event.experiment_id,
        event.user_id,
        event.variant,
        None,
        microseconds(event.timestamp),
        "{}",
        "reported",
    )


def _event_values(event: MetricEvent) -> tuple[Any, ...]:
    tokens = event.tokens
    return (
        uuid.UUID(event.event_id).bytes,
        event.kind,
        event.version_id,
        event.experiment_id,
        event.variant,
        event.user_id,
        event.success,
        event.response_time,
        tokens.input if tokens else None,
        tokens.cached_input if tokens else None,
        tokens.output if tokens else None,
        tokens.total if tokens else None,
        event.cost,
        event.user_rating,
        json.dumps(dict(event.metrics), sort_keys=True) if event.metrics else None,
        json.dumps(dict(event.metadata), sort_keys=True) if event.metadata else None,
        microseconds(event.timestamp),
        microseconds(event.recorded_at),
        event.flagged,
    )
