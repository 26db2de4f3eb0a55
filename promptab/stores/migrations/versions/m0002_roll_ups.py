"""Roll-ups: totals per unit, sums over units, and which exposures are in them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

# written out, not imported: a migration means the same for ever, whatever the schema becomes later
BYTEWISE = sa.String().with_variant(sa.String(collation="C"), "postgresql")
MEASURES = ("success_rate", "response_time", "tokens", "cost", "rating")


def upgrade() -> None:
    op.add_column(
        "promptab_exposures",
        sa.Column(
            "rolled_up",
            sa.BigInteger(),
            nullable=True,
            comment="the watermark at which the unit went into the moments; null while it is not in them",
        ),
    )
    op.create_index(
        "ix_promptab_exposures_waiting",
        "promptab_exposures",
        ["experiment_id", "at"],
        unique=False,
        sqlite_where=sa.text("rolled_up IS NULL"),
        postgresql_where=sa.text("rolled_up IS NULL"),
    )
    op.create_index(op.f("ix_promptab_aliases_unit"), "promptab_aliases", ["unit"], unique=False)
    _create_table(
        "promptab_rollups",
        sa.Column(
            "watermark", sa.BigInteger(), nullable=False, comment="the last event that is in the totals"
        ),
        sa.Column(
            "basis",
            sa.Text(),
            nullable=False,
            comment="what of the experiment's plan the totals and moments rest on",
        ),
        sa.Column(
            "late",
            sa.BigInteger(),
            nullable=False,
            comment="events that came after their unit's window had closed",
        ),
        comment="How far the events of an experiment have been rolled up. Without its row nothing has been.",
    )
    _create_table(
        "promptab_unit_totals",
        sa.Column(
            "unit",
            BYTEWISE,
            nullable=False,
            comment="as recorded: aliases are followed when the totals are read",
        ),
        sa.Column("variant", sa.Text(), nullable=False, comment="as recorded; empty for none"),
        *(sa.Column(f"n_{measure}", sa.BigInteger(), nullable=False) for measure in MEASURES),
        *(sa.Column(f"s_{measure}", sa.Float(), nullable=False) for measure in MEASURES),
        key=["unit", "variant"],
        comment="Events that carried each measure (n), and their total (s).",
        sqlite_with_rowid=False,
    )
    _create_table(
        "promptab_unit_metric_totals",
        sa.Column(
            "measure",
            sa.Text(),
            nullable=False,
            comment="a named metric, or a capped measure such as cost<=2.5",
        ),
        sa.Column("unit", BYTEWISE, nullable=False),
        sa.Column("variant", sa.Text(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("s", sa.Float(), nullable=False),
        key=["measure", "unit", "variant"],
        comment="As promptab_unit_totals, for the measures that have no columns of their own.",
        sqlite_with_rowid=False,
    )
    _create_table(
        "promptab_moments",
        sa.Column("metric", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("variant", sa.Text(), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.Float(), nullable=False) for name in ("n", "s", "center", "rr", "nn", "rn")),
        key=["metric", "epoch", "variant"],
        comment="Sums over units, as in promptab.stats.summary.UnitSums.",
    )
    _create_table(
        "promptab_arms",
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("variant", sa.Text(), nullable=False),
        sa.Column("exposed", sa.BigInteger(), nullable=False, comment="units"),
        sa.Column(
            "reporting",
            sa.BigInteger(),
            nullable=False,
            comment="of these, units with an event of their variant",
        ),
        sa.Column(
            "switched",
            sa.BigInteger(),
            nullable=False,
            comment="of these, units with an event of another variant",
        ),
        key=["epoch", "variant"],
    )
    _create_table(
        "promptab_quantiles",
        sa.Column("metric", sa.Text(), nullable=False),
        sa.Column("watermark", sa.BigInteger(), nullable=False),
        sa.Column("document", sa.JSON(none_as_null=True), nullable=False),
        key=["metric"],
        comment="Quantiles need every event, so they are kept until something new is rolled up.",
    )


def _create_table(name: str, *columns: sa.Column[Any], key: list[str] | None = None, **options: Any) -> None:
    """Create a table of what belongs to an experiment, and goes with it."""
    op.create_table(
        name,
        sa.Column("experiment_id", sa.String(length=36), nullable=False),
        *columns,
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["promptab_experiments.experiment_id"],
            name=op.f(f"fk_{name}_experiment_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("experiment_id", *(key or []), name=op.f(f"pk_{name}")),
        **options,
    )
