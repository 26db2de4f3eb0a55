"""What each channel of alerts wants, so that alerts which are still to be sent are known."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column(
        "promptab_alert_channels",
        sa.Column(
            "wanted",
            sa.Text(),
            nullable=True,
            comment="kinds and severities, as JSON; null until somebody delivers to it who says so",
        ),
    )
