"""Alerts, and their deliveries."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0007"

# written out, not imported: a migration means the same for ever, whatever the schema becomes later
SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _alerts()
    _what_is_known()
    _deliveries()


def _alerts() -> None:
    op.create_table(
        "promptab_alerts",
        sa.Column("sequence", SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("alert_id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("severity", sa.String(length=16), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column(
            "subject",
            sa.String(length=36),
            nullable=False,
            comment="the experiment, or what else it is about",
        ),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("numbers", sa.JSON(), nullable=False),
        sa.Column("decision_id", sa.String(length=36), nullable=True),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_promptab_alerts")),
        sa.UniqueConstraint("alert_id", name=op.f("uq_promptab_alerts_alert_id")),
        comment="What somebody should hear of: written with the decision it is about, and sent afterwards.",
    )
    op.create_index(op.f("ix_promptab_alerts_at"), "promptab_alerts", ["at"], unique=False)


def _what_is_known() -> None:
    op.create_table(
        "promptab_alert_facts",
        sa.Column("subject", sa.String(length=36), nullable=False),
        sa.Column("fact", sa.Text(), nullable=False),
        sa.Column("episode", sa.Integer(), nullable=False, comment="how often it has begun"),
        sa.Column("holds", sa.Boolean(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("subject", "fact", name=op.f("pk_promptab_alert_facts")),
        comment="What holds of a subject, so that it is told when it begins and not at every look.",
    )
    op.create_table(
        "promptab_alert_pulses",
        sa.Column("subject", sa.String(length=36), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False, comment="units or outcomes"),
        sa.Column("mark", sa.Text(), nullable=False, comment="the count at the last look"),
        sa.Column("moved_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.Column("moves", sa.BigInteger(), nullable=False),
        sa.Column(
            "longest",
            sa.BigInteger(),
            nullable=False,
            comment="microseconds: the longest silence that has ended",
        ),
        sa.PrimaryKeyConstraint("subject", "source", name=op.f("pk_promptab_alert_pulses")),
        comment="How counts move from look to look, as in promptab.alerts.traffic.Pulse.",
    )


def _deliveries() -> None:
    op.create_table(
        "promptab_alert_channels",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False, comment="alerts from then on are sent to it"),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_promptab_alert_channels")),
    )
    op.create_table(
        "promptab_alert_deliveries",
        sa.Column("alert_id", sa.String(length=64), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False, comment="pending, delivered or dead"),
        sa.Column(
            "attempts",
            sa.Integer(),
            nullable=False,
            comment="begun; a process that was killed has not ended its own",
        ),
        sa.Column(
            "due_at",
            sa.BigInteger(),
            nullable=False,
            comment="of the next attempt; while one runs, of its lease's end",
        ),
        sa.Column(
            "claim",
            sa.String(length=36),
            nullable=True,
            comment="who is trying it now; nobody else does before due_at",
        ),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.Column(
            "error",
            sa.Text(),
            nullable=True,
            comment="of the last attempt; no part of an address or a secret",
        ),
        sa.ForeignKeyConstraint(
            ["alert_id"],
            ["promptab_alerts.alert_id"],
            name=op.f("fk_promptab_alert_deliveries_alert_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("alert_id", "channel", name=op.f("pk_promptab_alert_deliveries")),
    )
    op.create_index(
        op.f("ix_promptab_alert_deliveries_channel_status_due_at"),
        "promptab_alert_deliveries",
        ["channel", "status", "due_at"],
        unique=False,
    )
