"""Cases of prompts, and what came of them on each version."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

# written out, not imported: a migration means the same for ever, whatever the schema becomes later
BYTEWISE = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "promptab_cases",
        sa.Column("prompt_type", BYTEWISE, nullable=False),
        sa.Column("name", BYTEWISE, nullable=False),
        sa.Column("cases", sa.JSON(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("prompt_type", "name", name=op.f("pk_promptab_cases")),
        comment="What every version of a prompt is tried on. No part of a version: they may change while it stays.",
    )
    op.create_table(
        "promptab_case_results",
        sa.Column("version_id", sa.String(length=36), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False, comment="of the case as it was tried"),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False, comment="passed or failed"),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=True, comment="its beginning"),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("cost", sa.Float(), nullable=True),
        sa.Column("seconds", sa.Float(), nullable=True),
        sa.Column("at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["promptab_versions.version_id"],
            name=op.f("fk_promptab_case_results_version_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("version_id", "digest", name=op.f("pk_promptab_case_results")),
        comment="The latest result of each case on each version.",
    )
