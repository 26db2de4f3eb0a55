"""The tables of decisions, and of how far they have brought each experiment.

A part of the one schema, `promptab.stores.schema`.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, String, Table, Text, UniqueConstraint

from promptab.stores.schema import Document, Instant, Sequence, experiment_key, metadata

decisions = Table(
    "promptab_decisions",
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=True),
    Column("decision_id", String(36), nullable=False),
    Column("experiment_id", String(36), nullable=False),
    Column("experiment", Text, nullable=False, comment="its name"),
    Column("action", String(16), nullable=False),
    Column("status", String(32), nullable=False, comment="what became of it"),
    Column("at", Instant, nullable=False),
    Column("decision", Document, nullable=False, comment="the whole decision, with what it was made from"),
    Column("standing", Document, comment="where the experiment stood: if that has moved it is not applied"),
    Column("settled_at", Instant),
    Column("actor", Text),
    Column("detail", Text, nullable=False),
    Column("effects", Document, nullable=False),
    Column("seen", BigInteger, nullable=False, comment="looks that decided the same from the same inputs"),
    Column("seen_at", Instant, nullable=False),
    UniqueConstraint("decision_id"),
    comment="Append-only but for what became of each. They outlive the experiment: deployments name them.",
    sqlite_autoincrement=True,
)
Index(None, decisions.c.experiment_id, decisions.c.sequence)
# each look asks for those that are open, among thousands that were only noted
Index(None, decisions.c.experiment_id, decisions.c.status)
Index(None, decisions.c.experiment)

rollouts = Table(
    "promptab_rollouts",
    metadata,
    experiment_key(),
    Column("number", BigInteger, nullable=False, comment="raised by every move of the experiment"),
    Column("step", Integer, nullable=False, comment="of the ramp, from 0"),
    Column("step_since", Instant),
    Column("step_units", Document, nullable=False, comment="exposed by variant when the step began"),
    Column("withdrawn", Document, nullable=False, comment="keys of the variants that were rolled back"),
    Column("paused_for", Document, nullable=False, comment="for what it is not paused again"),
    comment="How far decisions and people have brought each experiment.",
)
