"""The tables of alerts: the outbox, how far each channel has come with it, and what is known to hold.

A part of the one schema, `promptab.stores.schema`. Nothing here refers to an experiment by a key: what was told of
one stays when it is deleted.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from promptab.stores.schema import Document, Instant, Sequence, metadata

alerts = Table(
    "promptab_alerts",
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=True),
    Column("alert_id", String(64), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("severity", String(16), nullable=False),
    Column("at", Instant, nullable=False),
    Column("subject", String(36), nullable=False, comment="the experiment, or what else it is about"),
    Column("name", Text, nullable=False),
    Column("sentence", Text, nullable=False),
    Column("numbers", Document, nullable=False),
    Column("decision_id", String(36)),
    UniqueConstraint("alert_id"),
    comment="What somebody should hear of: written with the decision it is about, and sent afterwards.",
)
Index(None, alerts.c.at)

alert_facts = Table(
    "promptab_alert_facts",
    metadata,
    Column("subject", String(36), primary_key=True),
    Column("fact", Text, primary_key=True),
    Column("episode", Integer, nullable=False, comment="how often it has begun"),
    Column("holds", Boolean, nullable=False),
    Column("changed_at", Instant, nullable=False),
    comment="What holds of a subject, so that it is told when it begins and not at every look.",
)

alert_pulses = Table(
    "promptab_alert_pulses",
    metadata,
    Column("subject", String(36), primary_key=True),
    Column("source", String(16), primary_key=True, comment="units or outcomes"),
    Column("mark", Text, nullable=False, comment="the count at the last look"),
    Column("moved_at", Instant, nullable=False),
    Column("seen_at", Instant, nullable=False),
    Column("moves", BigInteger, nullable=False),
    Column("longest", BigInteger, nullable=False, comment="microseconds: the longest silence that has ended"),
    comment="How counts move from look to look, as in promptab.alerts.traffic.Pulse.",
)

alert_channels = Table(
    "promptab_alert_channels",
    metadata,
    Column("name", Text, primary_key=True),
    Column("since", Instant, nullable=False, comment="alerts from then on are sent to it"),
    Column(
        "wanted",
        Text,
        comment="kinds and severities, as JSON; null until somebody delivers to it who says so",
    ),
)

alert_deliveries = Table(
    "promptab_alert_deliveries",
    metadata,
    Column(
        "alert_id",
        String(64),
        ForeignKey(alerts.c.alert_id, ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("channel", Text, primary_key=True),
    Column("status", String(16), nullable=False, comment="pending, delivered or dead"),
    Column(
        "attempts", Integer, nullable=False, comment="begun; a process that was killed has not ended its own"
    ),
    Column(
        "due_at", Instant, nullable=False, comment="of the next attempt; while one runs, of its lease's end"
    ),
    Column("claim", String(36), comment="who is trying it now; nobody else does before due_at"),
    Column("changed_at", Instant, nullable=False),
    Column("error", Text, comment="of the last attempt; no part of an address or a secret"),
)
Index(None, alert_deliveries.c.channel, alert_deliveries.c.status, alert_deliveries.c.due_at)
