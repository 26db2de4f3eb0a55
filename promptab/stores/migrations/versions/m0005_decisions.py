"""Decisions, and how far they have brought each experiment."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

# written out, not imported: a migration means the same for ever, whatever the schema becomes later
SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "promptab_decisions",
        sa.Column("sequence", SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("decision_id", sa.String(length=36), nullable=False),
        sa.Column("experiment_id", sa.String(length=36), nullable=False),
        sa.Column("experiment", sa.Text(), nullable=False, comment="its name"),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False, comment="what became of it"),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column(
            "decision", sa.JSON(), nullable=False, comment="the whole decision, with what it was made from"
        ),
        sa.Column(
            "standing",
            sa.JSON(),
            nullable=True,
            comment="where the experiment stood: if that has moved it is not applied",
        ),
        sa.Column("settled_at", sa.BigInteger(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("effects", sa.JSON(), nullable=False),
        sa.Column(
            "seen",
            sa.BigInteger(),
            nullable=False,
            comment="looks that decided the same from the same inputs",
        ),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_promptab_decisions")),
        sa.UniqueConstraint("decision_id", name=op.f("uq_promptab_decisions_decision_id")),
        comment="Append-only but for what became of each. They outlive the experiment: deployments name them.",
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_promptab_decisions_experiment_id_sequence"),
        "promptab_decisions",
        ["experiment_id", "sequence"],
    )
    op.create_index(
        op.f("ix_promptab_decisions_experiment_id_status"), "promptab_decisions", ["experiment_id", "status"]
    )
    op.create_index(op.f("ix_promptab_decisions_experiment"), "promptab_decisions", ["experiment"])
    op.create_table(
        "promptab_rollouts",
        sa.Column("experiment_id", sa.String(length=36), nullable=False),
        sa.Column(
            "number", sa.BigInteger(), nullable=False, comment="raised by every move of the experiment"
        ),
        sa.Column("step", sa.Integer(), nullable=False, comment="of the ramp, from 0"),
        sa.Column("step_since", sa.BigInteger(), nullable=True),
        sa.Column("step_units", sa.JSON(), nullable=False, comment="exposed by variant when the step began"),
        sa.Column(
            "withdrawn", sa.JSON(), nullable=False, comment="keys of the variants that were rolled back"
        ),
        sa.Column("paused_for", sa.JSON(), nullable=False, comment="for what it is not paused again"),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["promptab_experiments.experiment_id"],
            name=op.f("fk_promptab_rollouts_experiment_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("experiment_id", name=op.f("pk_promptab_rollouts")),
        comment="How far decisions and people have brought each experiment.",
    )
