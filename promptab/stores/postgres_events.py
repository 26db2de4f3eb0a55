"""The one hot write on PostgreSQL: a batch of exposures and events in one transaction, on a connection of its own.

Events are copied into the table, which is the fastest way there is. COPY knows no "unless it is there"; but events
that are there already are rare, and a batch that has one is written again by a slower way, which looks.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterable, Mapping, Sequence

import asyncpg
from sqlalchemy.dialects import postgresql

from promptab.errors import StoreError
from promptab.models import Exposure
from promptab.recent import Recent
from promptab.stores.driver_errors import sqlstate
from promptab.stores.event_rows import (
    EVENT_COLUMNS,
    EXPERIMENT_AT,
    METRICS_AT,
    TIME_AT,
    UNIT_AT,
    VARIANT_AT,
    Batch,
    BatchOutcome,
    EventRow,
)
from promptab.stores.postgres_connecting import Connection, Server, hang_up
from promptab.stores.schema import events, microseconds

ATTEMPTS = 6
"""How often a batch is written while others are in its way."""
HELD_VARIANTS = 50_000
"""Units whose exposures are remembered."""
BATCH_SECONDS = 10.0
"""How long a batch may take before the connection is given up: then nobody is at its other end."""
_IN_THE_WAY = frozenset({"40001", "40P01", "23503"})
"""A deadlock; or an experiment that was deleted between the look at it and the exposure to it."""

_UNTOLD = {"at", "recorded_at", "flagged"}
"""What may differ between two tellings of one event: a retry has a later clock and does not know the flag."""
_COMPARED = [index for index, name in enumerate(EVENT_COLUMNS) if name not in _UNTOLD and index != METRICS_AT]

_ARRAYS = {"BYTEA": "bytea", "BOOLEAN": "boolean", "BIGINT": "bigint", "FLOAT": "float8"}
_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]
_SPELLED = [events.c[name].type.compile(_DIALECT) for name in EVENT_COLUMNS]
_PARAMETERS = ", ".join(
    f"${number}::{_ARRAYS.get(spelled, 'text')}[]" for number, spelled in enumerate(_SPELLED, start=1)
)
_VALUES = ", ".join(
    f"told.{name}::{spelled}" if spelled.startswith("JSON") else f"told.{name}"
    for name, spelled in zip(EVENT_COLUMNS, _SPELLED, strict=True)
)
_NAMES = ", ".join(EVENT_COLUMNS)

_INSERT_EVENTS = (
    f"INSERT INTO promptab_events ({_NAMES}) SELECT {_VALUES}"  # noqa: S608 - names and types of the schema
    f" FROM unnest({_PARAMETERS}) WITH ORDINALITY AS told({_NAMES}, position)"
    " ORDER BY told.position ON CONFLICT DO NOTHING"
)
"""No index is named: where the table is partitioned, the one on ids belongs to each partition."""
_SELECT_EVENTS = f"SELECT {_NAMES} FROM promptab_events WHERE event_id = ANY($1::bytea[])"  # noqa: S608 - as above

_INSERT_EXPOSURES = """
    INSERT INTO promptab_exposures (experiment_id, unit, variant, epoch, at, attributes, source, propensity)
    SELECT told.experiment_id, told.unit, told.variant,
        coalesce(told.epoch, (SELECT max(epochs.number) FROM promptab_epochs AS epochs
            WHERE epochs.experiment_id = told.experiment_id AND epochs.starts_at <= told.at), 1),
        told.at, told.attributes::json, told.source, told.propensity
    FROM unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::bigint[], $6::text[], $7::text[],
            $8::float8[])
        AS told(experiment_id, unit, variant, epoch, at, attributes, source, propensity)
    WHERE EXISTS (SELECT 1 FROM promptab_experiments AS known WHERE known.experiment_id = told.experiment_id)
    ORDER BY told.experiment_id, told.unit
    ON CONFLICT (experiment_id, unit) DO NOTHING
"""
"""An exposure whose experiment has been deleted meanwhile is left out; an unknown epoch is the one of its time.

In the order of the key, so that two processes that expose the same units do not wait for one another in a circle.
"""

_SELECT_VARIANTS = """
    SELECT held.experiment_id, held.unit, held.variant
    FROM unnest($1::text[], $2::text[]) AS asked(experiment_id, unit)
    JOIN promptab_exposures AS held ON held.experiment_id = asked.experiment_id AND held.unit = asked.unit
"""
_FLAG_EVENTS = "UPDATE promptab_events SET flagged = true WHERE event_id = ANY($1::bytea[])"

_Key = tuple[str, str]
"""Of an exposure: experiment and unit."""
_ExposureRow = tuple[str, str, str, int | None, int, str, str, float | None]


class PostgresEvents:
    """Writes batches, one after the other. Makes a new connection where it has lost the one it had."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connection: Connection | None = None
        self._held: Recent[_Key, str] = Recent(HELD_VARIANTS)
        """What units were exposed to first, which never changes."""
        self._one_at_a_time = asyncio.Lock()

    async def write(self, batch: Batch) -> BatchOutcome:
        """Commit the batch. An event that conflicts leaves nothing behind.

        Raises `StoreUnavailableError` where it may be offered again, also if its commit was under way when the
        connection was lost: what is there already is not written twice.
        """
        if not (batch.exposures or batch.events):
            return BatchOutcome()
        for attempt in range(1, ATTEMPTS):
            try:
                return await self._write(batch)
            except StoreError as error:
                if sqlstate(error) not in _IN_THE_WAY:
                    raise
            await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311 - jitter
        return await self._write(batch)

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await hang_up(connection)

    async def _write(self, batch: Batch) -> BatchOutcome:
        async with self._one_at_a_time:
            return await self._write_on(await self._connected(), batch)

    async def _write_on(self, connection: Connection, batch: Batch) -> BatchOutcome:
        try:
            with self._server.translated():
                async with asyncio.timeout(BATCH_SECONDS):
                    try:
                        return await self._commit(connection, batch, copy=True)
                    except asyncpg.UniqueViolationError:
                        return await self._commit(connection, batch, copy=False)
        except BaseException as error:
            if not isinstance(error, StoreError) or sqlstate(error) is None:
                # cancelled, or without an answer: what is on its way belongs to nobody any more
                connection.terminate()
            raise

    async def _commit(self, connection: Connection, batch: Batch, *, copy: bool) -> BatchOutcome:
        reported = {
            index: (row[EXPERIMENT_AT], row[UNIT_AT])
            for index, row in enumerate(batch.events)
            if row[EXPERIMENT_AT] and row[VARIANT_AT] and row[UNIT_AT]
        }
        held = {key: variant for key in reported.values() if (variant := self._held.get(key)) is not None}
        if copy and not batch.exposures and not _strays(batch.events, reported, held, unknown=True):
            # one statement is a transaction by itself
            await _copy(connection, batch.events)
            return BatchOutcome()
        async with connection.transaction(isolation="read_committed"):
            await _insert_exposures(connection, map(_exposure_row, batch.exposures))
            conflicts = frozenset[int]()
            if copy:
                await _copy(connection, batch.events)
            else:
                await connection.execute(_INSERT_EVENTS, *zip(*batch.events, strict=True))
                conflicts = await _conflicts(connection, batch.events)
            for index in conflicts:
                reported.pop(index, None)
            await _expose(connection, batch.events, reported, held)
            flagged = _strays(batch.events, reported, held)
            if flagged:
                await connection.execute(_FLAG_EVENTS, [batch.events[index][0] for index in flagged])
        for key, variant in held.items():
            # only now is it committed
            self._held.put(key, variant)
        return BatchOutcome(conflicts, flagged)

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._server.connect()
        return self._connection


async def _copy(connection: Connection, rows: Sequence[EventRow]) -> None:
    if rows:
        await connection.copy_records_to_table("promptab_events", records=rows, columns=EVENT_COLUMNS)


async def _conflicts(connection: Connection, rows: Sequence[EventRow]) -> frozenset[int]:
    """Return which events are there with other content."""
    found = await connection.fetch(_SELECT_EVENTS, [row[0] for row in rows])
    stored = {row[0]: tuple(row) for row in found}
    return frozenset(
        index for index, row in enumerate(rows) if row[0] not in stored or not _alike(row, stored[row[0]])
    )


def _alike(told: EventRow, stored: EventRow) -> bool:
    return all(told[index] == stored[index] for index in _COMPARED) and _numbers(
        told[METRICS_AT]
    ) == _numbers(stored[METRICS_AT])


def _numbers(metrics: str | None) -> dict[str, float]:
    """Return named metrics by value: PostgreSQL spells numbers its own way."""
    return {name: float(value) for name, value in json.loads(metrics or "{}").items()}


def _strays(
    rows: Sequence[EventRow], reported: Mapping[int, _Key], held: Mapping[_Key, str], *, unknown: bool = False
) -> frozenset[int]:
    """Return which events are of a unit whose first exposure names another variant, or is not known."""
    return frozenset(
        index
        for index, key in reported.items()
        if held.get(key, None if unknown else rows[index][VARIANT_AT]) != rows[index][VARIANT_AT]
    )


async def _expose(
    connection: Connection, rows: Sequence[EventRow], reported: Mapping[int, _Key], held: dict[_Key, str]
) -> None:
    """Look up the units that are not among `held`, expose those that had not been, and add both."""
    missing = set(reported.values()) - held.keys()
    if not missing:
        return
    held |= await _variants(connection, missing)
    first: dict[_Key, _ExposureRow] = {}
    for index, key in reported.items():
        if key not in held:
            row = rows[index]
            first.setdefault(key, (*key, row[VARIANT_AT], None, row[TIME_AT], "{}", "reported", None))
    if first:
        await _insert_exposures(connection, first.values())
        # not as they were given: another process may have been faster, or the experiment is gone
        held |= await _variants(connection, first)


async def _variants(connection: Connection, keys: Iterable[_Key]) -> dict[_Key, str]:
    """Return the variant of each unit's exposure, where it has one."""
    found = await connection.fetch(_SELECT_VARIANTS, *zip(*keys, strict=True))
    return {(row[0], row[1]): row[2] for row in found}


async def _insert_exposures(connection: Connection, rows: Iterable[_ExposureRow]) -> None:
    if columns := list(zip(*rows, strict=True)):
        await connection.execute(_INSERT_EXPOSURES, *columns)


def _exposure_row(exposure: Exposure) -> _ExposureRow:
    return (
        exposure.experiment_id,
        exposure.unit,
        exposure.variant,
        exposure.epoch,
        microseconds(exposure.at),
        json.dumps(dict(exposure.attributes)),
        exposure.source,
        exposure.propensity,
    )
