"""Who leads where only one may."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "promptab_leases",
        sa.Column("name", sa.String(length=64), nullable=False, comment="of what is led"),
        sa.Column(
            "holder",
            sa.String(length=36),
            nullable=False,
            comment="whoever leads, or led last; empty for nobody",
        ),
        sa.Column(
            "term", sa.BigInteger(), nullable=False, comment="grows whenever another one begins to lead"
        ),
        sa.Column(
            "until",
            sa.BigInteger(),
            nullable=True,
            comment="by the database's clock; null where a lock says how long",
        ),
        sa.Column("seconds", sa.Float(), nullable=False, comment="what each claim lasts"),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_promptab_leases")),
    )
