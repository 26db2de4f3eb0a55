"""The probability with which each unit got the variant of its first exposure."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column(
        "promptab_exposures",
        sa.Column(
            "propensity",
            sa.Float(),
            nullable=True,
            comment="the probability with which the unit got this variant; null where it is not known",
        ),
    )
