"""Totals by the hour and by the day, which outlive the events, and what has been dropped."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

# written out, not imported: a migration means the same for ever, whatever the schema becomes later
BYTEWISE = sa.String().with_variant(sa.String(collation="C"), "postgresql")
SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MEASURES = ("success_rate", "response_time", "tokens", "cost", "rating")
AMOUNTS = ("response_time", "cost", "rating")
COUNTED = ("tokens", "input_tokens", "cached_input_tokens", "output_tokens")


def upgrade() -> None:
    op.add_column(
        "promptab_rollups",
        sa.Column(
            "pruned_before",
            sa.BigInteger(),
            nullable=True,
            comment="events that happened before then may be gone; null while every event is there",
        ),
    )
    watermarks = op.create_table(
        "promptab_total_watermarks",
        sa.Column("kind", sa.String(length=16), nullable=False, comment="versions or units"),
        _number("watermark", comment="the last event that is in these totals"),
        sa.PrimaryKeyConstraint("kind", name=op.f("pk_promptab_total_watermarks")),
        comment="How far all events have been added up. Both rows are there from the beginning.",
    )
    op.bulk_insert(watermarks, [{"kind": kind, "watermark": 0} for kind in ("versions", "units")])
    _create_table(
        "promptab_version_hours",
        sa.Column("version_id", sa.String(length=36), nullable=False),
        _number("hour", comment="its beginning"),
        _number("events"),
        _number("uses", comment="of these, uses: the others are later outcomes"),
        _number("outcomes", comment="events that told whether they succeeded"),
        _number("successes"),
        *(_number(f"n_{measure}") for measure in (*AMOUNTS, "tokens")),
        *(_amount(f"s_{measure}") for measure in AMOUNTS),
        *(_number(f"s_{count}") for count in COUNTED),
        _number("first_at"),
        _number("last_at"),
        _number("first_sequence", comment="where its events begin"),
        _number("last_sequence"),
        key=["version_id", "hour"],
        comment="What the events of a version add up to, by the hour in which they happened. Outlives the events.",
    )
    _create_table(
        "promptab_version_metric_hours",
        sa.Column("version_id", sa.String(length=36), nullable=False),
        _number("hour"),
        sa.Column("measure", sa.Text(), nullable=False, comment="a named metric"),
        _number("n"),
        _amount("s"),
        key=["version_id", "hour", "measure"],
    )
    _create_table(
        "promptab_unit_days",
        sa.Column("unit", BYTEWISE, nullable=False, comment="as recorded, as in promptab_unit_totals"),
        _number("day", comment="its beginning, in UTC"),
        *(_number(f"n_{measure}") for measure in MEASURES),
        *(_amount(f"s_{measure}") for measure in MEASURES),
        key=["unit", "day"],
        comment="What the events of a unit add up to in a day, in whichever experiment or none. Outlives the events.",
    )
    _create_table(
        "promptab_unit_metric_days",
        sa.Column("measure", sa.Text(), nullable=False, comment="a named metric"),
        sa.Column("unit", BYTEWISE, nullable=False),
        _number("day"),
        _number("n"),
        _amount("s"),
        key=["measure", "unit", "day"],
    )
    op.create_table(
        "promptab_prunings",
        sa.Column("number", SEQUENCE, autoincrement=True, nullable=False),
        _number("at"),
        _number("before", comment="events that happened before then were dropped"),
        _number("dropped"),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_promptab_prunings")),
    )


def _number(name: str, **options: Any) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False, **options)


def _amount(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.Float(), nullable=False)


def _create_table(name: str, *columns: sa.Column[Any], key: list[str], **options: Any) -> None:
    op.create_table(
        name,
        *columns,
        sa.PrimaryKeyConstraint(*key, name=op.f(f"pk_{name}")),
        sqlite_with_rowid=False,
        **options,
    )
