"""Guards of promoted versions, and what their units have had since."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

# written out, not imported: a migration means the same for ever, whatever the schema becomes later
BYTEWISE = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "promptab_guards",
        sa.Column("guard_id", sa.String(length=36), nullable=False),
        sa.Column("prompt_type", BYTEWISE, nullable=False),
        sa.Column("name", BYTEWISE, nullable=False),
        sa.Column("environment", sa.String(length=16), nullable=False),
        sa.Column("version_id", sa.String(length=36), nullable=False),
        sa.Column("version", BYTEWISE, nullable=False),
        sa.Column(
            "previous_version_id", sa.String(length=36), nullable=False, comment="what was live before"
        ),
        sa.Column("previous_version", BYTEWISE, nullable=False),
        sa.Column("policy", sa.JSON(), nullable=False, comment="as it was when the version was promoted"),
        sa.Column("policy_digest", sa.String(length=64), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=True, comment="null: until the environment is moved"),
        sa.Column(
            "status",
            sa.String(length=16),
            nullable=False,
            comment="watching, kept, rolled_back or moved",
        ),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column(
            "bounds",
            sa.JSON(),
            nullable=True,
            comment="where each guardrail draws its line; null before the first look",
        ),
        sa.Column("sums", sa.JSON(), nullable=False, comment="over units, for each bound"),
        sa.Column("watermark", sa.BigInteger(), nullable=False, comment="the last event that is in the sums"),
        sa.PrimaryKeyConstraint("guard_id", name=op.f("pk_promptab_guards")),
        comment="Versions that are watched since they were promoted. They outlive the version, as the history does.",
    )
    op.create_index(op.f("ix_promptab_guards_prompt_type_name"), "promptab_guards", ["prompt_type", "name"])
    op.create_index(op.f("ix_promptab_guards_status"), "promptab_guards", ["status"])
    op.create_table(
        "promptab_guard_units",
        sa.Column("guard_id", sa.String(length=36), nullable=False),
        sa.Column(
            "bound",
            sa.Integer(),
            autoincrement=False,
            nullable=False,
            comment="its place among the guard's",
        ),
        sa.Column("unit", BYTEWISE, nullable=False, comment="u and the unit; or e and an event's sequence"),
        sa.Column("n", sa.Float(), nullable=False),
        sa.Column("s", sa.Float(), nullable=False),
        sa.Column("first_sequence", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["guard_id"],
            ["promptab_guards.guard_id"],
            name=op.f("fk_promptab_guard_units_guard_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("guard_id", "bound", "unit", name=op.f("pk_promptab_guard_units")),
        comment="What the outcomes of each unit add up to while a guard watches; gone when it ends.",
        sqlite_with_rowid=False,
    )
