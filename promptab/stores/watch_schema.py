"""The tables of what is watched, and by whom.

A part of the one schema, `promptab.stores.schema`.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, ForeignKey, Index, Integer, String, Table, Text

from promptab.stores.schema import Bytewise, Document, Instant, metadata

leases = Table(
    "promptab_leases",
    metadata,
    Column("name", String(64), primary_key=True, comment="of what is led"),
    Column("holder", String(36), nullable=False, comment="whoever leads, or led last; empty for nobody"),
    Column("term", BigInteger, nullable=False, comment="grows whenever another one begins to lead"),
    Column("until", Instant, comment="by the database's clock; null where a lock says how long"),
    Column("seconds", Float, nullable=False, comment="what each claim lasts"),
)

guards = Table(
    "promptab_guards",
    metadata,
    Column("guard_id", String(36), primary_key=True),
    Column("prompt_type", Bytewise, nullable=False),
    Column("name", Bytewise, nullable=False),
    Column("environment", String(16), nullable=False),
    Column("version_id", String(36), nullable=False),
    Column("version", Bytewise, nullable=False),
    Column("previous_version_id", String(36), nullable=False, comment="what was live before"),
    Column("previous_version", Bytewise, nullable=False),
    Column("policy", Document, nullable=False, comment="as it was when the version was promoted"),
    Column("policy_digest", String(64), nullable=False),
    Column("since", Instant, nullable=False),
    Column("until", Instant, comment="null: until the environment is moved"),
    Column("status", String(16), nullable=False, comment="watching, kept, rolled_back or moved"),
    Column("ended_at", Instant),
    Column("detail", Text, nullable=False),
    Column("bounds", Document, comment="where each guardrail draws its line; null before the first look"),
    Column("sums", Document, nullable=False, comment="over units, for each bound"),
    Column("watermark", BigInteger, nullable=False, comment="the last event that is in the sums"),
    comment="Versions that are watched since they were promoted. They outlive the version, as the history does.",
)
Index(None, guards.c.prompt_type, guards.c.name)
Index(None, guards.c.status)

guard_units = Table(
    "promptab_guard_units",
    metadata,
    Column("guard_id", String(36), ForeignKey(guards.c.guard_id, ondelete="CASCADE"), primary_key=True),
    Column("bound", Integer, primary_key=True, autoincrement=False, comment="its place among the guard's"),
    Column("unit", Bytewise, primary_key=True, comment="u and the unit; or e and an event's sequence"),
    Column("n", Float, nullable=False),
    Column("s", Float, nullable=False),
    Column("first_sequence", BigInteger, nullable=False),
    comment="What the outcomes of each unit add up to while a guard watches; gone when it ends.",
    sqlite_with_rowid=False,
)
