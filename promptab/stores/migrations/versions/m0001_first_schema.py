"""The first schema: versions, deployments, experiments, exposures, events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

# written out, not imported: a migration means the same for ever, whatever the schema becomes later
BYTEWISE = sa.String().with_variant(sa.String(collation="C"), "postgresql")
DOCUMENT = sa.JSON(none_as_null=True)
METRICS = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "promptab_aliases",
        sa.Column("alias", BYTEWISE, nullable=False, comment="a session, before it was known whose it is"),
        sa.Column("unit", BYTEWISE, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("alias", name=op.f("pk_promptab_aliases")),
    )
    op.create_table(
        "promptab_deployments",
        sa.Column("sequence", SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("prompt_type", BYTEWISE, nullable=False),
        sa.Column("name", BYTEWISE, nullable=False),
        sa.Column("environment", sa.String(length=16), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("version_id", sa.String(length=36), nullable=True),
        sa.Column("version", BYTEWISE, nullable=True),
        sa.Column("previous_version_id", sa.String(length=36), nullable=True),
        sa.Column("previous_version", BYTEWISE, nullable=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("evidence", DOCUMENT, nullable=True),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_promptab_deployments")),
        comment="Append-only. Version strings are kept beside the ids, so that the history outlives a deleted version.",
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_promptab_deployments_prompt_type_name_environment"),
        "promptab_deployments",
        ["prompt_type", "name", "environment"],
        unique=False,
    )
    op.create_table(
        "promptab_events",
        sa.Column("sequence", SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("event_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("version_id", sa.String(length=36), nullable=True),
        sa.Column("experiment_id", sa.String(length=36), nullable=True),
        sa.Column("variant", sa.Text(), nullable=True),
        sa.Column("unit", BYTEWISE, nullable=True),
        sa.Column("success", sa.Boolean(), nullable=True),
        sa.Column("response_time", sa.Float(), nullable=True),
        sa.Column("input_tokens", sa.BigInteger(), nullable=True),
        sa.Column("cached_input_tokens", sa.BigInteger(), nullable=True),
        sa.Column("output_tokens", sa.BigInteger(), nullable=True),
        sa.Column(
            "tokens",
            sa.BigInteger(),
            nullable=True,
            comment="the total: of the parts, or as the caller gave it",
        ),
        sa.Column("cost", sa.Float(), nullable=True),
        sa.Column("rating", sa.Float(), nullable=True),
        sa.Column("metrics", METRICS, nullable=True),
        sa.Column("metadata", DOCUMENT, nullable=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.Column("flagged", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_promptab_events")),
        sa.UniqueConstraint("event_id", name=op.f("uq_promptab_events_event_id")),
    )
    op.create_table(
        "promptab_experiments",
        sa.Column("experiment_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("prompt_type", BYTEWISE, nullable=False),
        sa.Column("prompt_name", BYTEWISE, nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column(
            "definition", DOCUMENT, nullable=False, comment="variants, salts, targeting, overrides, weights"
        ),
        sa.Column("metadata", DOCUMENT, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("experiment_id", name=op.f("pk_promptab_experiments")),
    )
    op.create_index(op.f("ix_promptab_experiments_name"), "promptab_experiments", ["name"], unique=False)
    op.create_index(op.f("ix_promptab_experiments_status"), "promptab_experiments", ["status"], unique=False)
    op.create_table(
        "promptab_holdouts",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("salt", sa.String(length=64), nullable=False),
        sa.Column("share", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_promptab_holdouts")),
    )
    op.create_table(
        "promptab_store",
        sa.Column("store_id", sa.String(length=36), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("store_id", name=op.f("pk_promptab_store")),
        comment="One row: which store this is, and a number that grows with every change that a snapshot shows.",
    )
    op.create_table(
        "promptab_versions",
        sa.Column("version_id", sa.String(length=36), nullable=False),
        sa.Column("prompt_type", BYTEWISE, nullable=False),
        sa.Column("name", BYTEWISE, nullable=False),
        sa.Column("version", BYTEWISE, nullable=False),
        sa.Column("sort_key", BYTEWISE, nullable=False, comment="text whose byte order is the SemVer order"),
        sa.Column("content_hash", sa.String(length=64), nullable=False),
        sa.Column(
            "content",
            DOCUMENT,
            nullable=False,
            comment="template, messages, includes, defaults, validation, config",
        ),
        sa.Column("metadata", DOCUMENT, nullable=False),
        sa.Column(
            "status",
            sa.String(length=16),
            nullable=False,
            comment="beside the pointer: production is in promptab_pointers",
        ),
        sa.Column("parent_version", sa.String(length=36), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("version_id", name=op.f("pk_promptab_versions")),
        sa.UniqueConstraint(
            "prompt_type", "name", "version", name=op.f("uq_promptab_versions_prompt_type_name_version")
        ),
    )
    op.create_index(
        op.f("ix_promptab_versions_prompt_type_name_status_sort_key"),
        "promptab_versions",
        ["prompt_type", "name", "status", "sort_key"],
        unique=False,
    )
    op.create_table(
        "promptab_epochs",
        sa.Column("experiment_id", sa.String(length=36), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("starts_at", sa.BigInteger(), nullable=False),
        sa.Column("weights", DOCUMENT, nullable=False),
        sa.Column("segments", DOCUMENT, nullable=False),
        sa.Column("evicted", DOCUMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["promptab_experiments.experiment_id"],
            name=op.f("fk_promptab_epochs_experiment_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("experiment_id", "number", name=op.f("pk_promptab_epochs")),
    )
    op.create_table(
        "promptab_exposures",
        sa.Column("experiment_id", sa.String(length=36), nullable=False),
        sa.Column("unit", BYTEWISE, nullable=False),
        sa.Column("variant", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("attributes", DOCUMENT, nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("served", sa.Text(), nullable=True, comment="instead of an evicted variant"),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["promptab_experiments.experiment_id"],
            name=op.f("fk_promptab_exposures_experiment_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("experiment_id", "unit", name=op.f("pk_promptab_exposures")),
    )
    op.create_index(
        "ix_promptab_exposures_brought",
        "promptab_exposures",
        ["experiment_id"],
        unique=False,
        sqlite_where=sa.text("source = 'alias'"),
        postgresql_where=sa.text("source = 'alias'"),
    )
    op.create_table(
        "promptab_pointers",
        sa.Column("prompt_type", BYTEWISE, nullable=False),
        sa.Column("name", BYTEWISE, nullable=False),
        sa.Column("environment", sa.String(length=16), nullable=False),
        sa.Column("version_id", sa.String(length=36), nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"], ["promptab_versions.version_id"], name=op.f("fk_promptab_pointers_version_id")
        ),
        sa.PrimaryKeyConstraint("prompt_type", "name", "environment", name=op.f("pk_promptab_pointers")),
        comment="What is live. The primary key is what makes two production versions of one prompt impossible.",
    )
    op.create_index(
        op.f("ix_promptab_pointers_version_id"), "promptab_pointers", ["version_id"], unique=False
    )
    op.create_table(
        "promptab_tags",
        sa.Column("version_id", sa.String(length=36), nullable=False),
        sa.Column("tag", BYTEWISE, nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["promptab_versions.version_id"],
            name=op.f("fk_promptab_tags_version_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("version_id", "tag", name=op.f("pk_promptab_tags")),
    )
