"""The tables of what outlives the events: totals by the hour and by the day, and what has been dropped.

A part of the one schema, `promptab.stores.schema`.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Connection, Float, String, Table, Text, event, insert

from promptab.stats.metric import MEASURES
from promptab.stores.schema import Bytewise, Instant, Sequence, metadata

AMOUNTS = ("response_time", "cost", "rating")
"""Measures with amounts that are not whole."""
COUNTED = ("tokens", "input_tokens", "cached_input_tokens", "output_tokens")
"""Whole amounts, whose sums stay exact."""

total_watermarks = Table(
    "promptab_total_watermarks",
    metadata,
    Column("kind", String(16), primary_key=True, comment="versions or units"),
    Column("watermark", BigInteger, nullable=False, comment="the last event that is in these totals"),
    comment="How far all events have been added up. Both rows are there from the beginning.",
)


@event.listens_for(total_watermarks, "after_create")
def _begin_at_the_first_event(_target: Table, connection: Connection, **_options: object) -> None:
    rows = [{"kind": kind, "watermark": 0} for kind in ("versions", "units")]
    connection.execute(insert(total_watermarks), rows)


version_hours = Table(
    "promptab_version_hours",
    metadata,
    Column("version_id", String(36), primary_key=True),
    Column("hour", Instant, primary_key=True, comment="its beginning"),
    Column("events", BigInteger, nullable=False),
    Column("uses", BigInteger, nullable=False, comment="of these, uses: the others are later outcomes"),
    Column("outcomes", BigInteger, nullable=False, comment="events that told whether they succeeded"),
    Column("successes", BigInteger, nullable=False),
    *(Column(f"n_{measure}", BigInteger, nullable=False) for measure in (*AMOUNTS, "tokens")),
    *(Column(f"s_{measure}", Float, nullable=False) for measure in AMOUNTS),
    *(Column(f"s_{count}", BigInteger, nullable=False) for count in COUNTED),
    Column("first_at", Instant, nullable=False),
    Column("last_at", Instant, nullable=False),
    Column("first_sequence", BigInteger, nullable=False, comment="where its events begin"),
    Column("last_sequence", BigInteger, nullable=False),
    comment="What the events of a version add up to, by the hour in which they happened. Outlives the events.",
    sqlite_with_rowid=False,
)

version_metric_hours = Table(
    "promptab_version_metric_hours",
    metadata,
    Column("version_id", String(36), primary_key=True),
    Column("hour", Instant, primary_key=True),
    Column("measure", Text, primary_key=True, comment="a named metric"),
    Column("n", BigInteger, nullable=False),
    Column("s", Float, nullable=False),
    sqlite_with_rowid=False,
)

unit_days = Table(
    "promptab_unit_days",
    metadata,
    Column("unit", Bytewise, primary_key=True, comment="as recorded, as in promptab_unit_totals"),
    Column("day", Instant, primary_key=True, comment="its beginning, in UTC"),
    *(Column(f"n_{measure}", BigInteger, nullable=False) for measure in MEASURES),
    *(Column(f"s_{measure}", Float, nullable=False) for measure in MEASURES),
    comment="What the events of a unit add up to in a day, in whichever experiment or none. Outlives the events.",
    sqlite_with_rowid=False,
)

unit_metric_days = Table(
    "promptab_unit_metric_days",
    metadata,
    Column("measure", Text, primary_key=True, comment="a named metric"),
    Column("unit", Bytewise, primary_key=True),
    Column("day", Instant, primary_key=True),
    Column("n", BigInteger, nullable=False),
    Column("s", Float, nullable=False),
    sqlite_with_rowid=False,
)

prunings = Table(
    "promptab_prunings",
    metadata,
    Column("number", Sequence, primary_key=True, autoincrement=True),
    Column("at", Instant, nullable=False),
    Column("before", Instant, nullable=False, comment="events that happened before then were dropped"),
    Column("dropped", BigInteger, nullable=False),
)
