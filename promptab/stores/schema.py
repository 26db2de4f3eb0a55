"""The tables. Migrations build the same ones step by step; a test compares the two.

Times are microseconds since 1970 in UTC: one form on every database, exact, and cheap to group by hour.
Enumerations and ids are text. Names of prompts are compared byte by byte.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import JSONB

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND


def instant(value: int) -> datetime:
    return _EPOCH + value * _MICROSECOND


class Instant(TypeDecorator[datetime]):
    """An aware datetime, stored as microseconds since 1970 in UTC."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else microseconds(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        return None if value is None else instant(value)


class Bytewise(TypeDecorator[str]):
    """Text that sorts by its bytes on every database, whatever the collation of the server."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        return dialect.type_descriptor(String(collation="C") if dialect.name == "postgresql" else String())


# text on every database: it comes back as it was written, in its order, and hashes to the same
Document = JSON(none_as_null=True)
Metrics = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
# SQLite gives a rowid alias, and so an automatic sequence, only to a column declared INTEGER
Sequence = BigInteger().with_variant(Integer(), "sqlite")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

store = Table(
    "promptab_store",
    metadata,
    Column("store_id", String(36), primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("created_at", Instant, nullable=False),
    comment="One row: which store this is, and a number that grows with every change that a snapshot shows.",
)

versions = Table(
    "promptab_versions",
    metadata,
    Column("version_id", String(36), primary_key=True),
    Column("prompt_type", Bytewise, nullable=False),
    Column("name", Bytewise, nullable=False),
    Column("version", Bytewise, nullable=False),
    Column("sort_key", Bytewise, nullable=False, comment="text whose byte order is the SemVer order"),
    Column("content_hash", String(64), nullable=False),
    Column(
        "content",
        Document,
        nullable=False,
        comment="template, messages, includes, defaults, validation, config",
    ),
    Column("metadata", Document, nullable=False),
    Column(
        "status", String(16), nullable=False, comment="beside the pointer: production is in promptab_pointers"
    ),
    Column("parent_version", String(36)),
    Column("created_at", Instant, nullable=False),
    Column("created_by", Text),
    UniqueConstraint("prompt_type", "name", "version"),
)
Index(None, versions.c.prompt_type, versions.c.name, versions.c.status, versions.c.sort_key)

tags = Table(
    "promptab_tags",
    metadata,
    Column("version_id", String(36), ForeignKey(versions.c.version_id, ondelete="CASCADE"), primary_key=True),
    Column("tag", Bytewise, primary_key=True),
)

pointers = Table(
    "promptab_pointers",
    metadata,
    Column("prompt_type", Bytewise, primary_key=True),
    Column("name", Bytewise, primary_key=True),
    Column("environment", String(16), primary_key=True),
    Column("version_id", String(36), ForeignKey(versions.c.version_id), nullable=False),
    comment="What is live. The primary key is what makes two production versions of one prompt impossible.",
)
Index(None, pointers.c.version_id)

deployments = Table(
    "promptab_deployments",
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=True),
    Column("prompt_type", Bytewise, nullable=False),
    Column("name", Bytewise, nullable=False),
    Column("environment", String(16), nullable=False),
    Column("action", String(16), nullable=False),
    Column("version_id", String(36)),
    Column("version", Bytewise),
    Column("previous_version_id", String(36)),
    Column("previous_version", Bytewise),
    Column("at", Instant, nullable=False),
    Column("actor", Text),
    Column("reason", Text, nullable=False),
    Column("evidence", Document),
    comment="Append-only. Version strings are kept beside the ids, so that the history outlives a deleted version.",
    sqlite_autoincrement=True,
)
Index(None, deployments.c.prompt_type, deployments.c.name, deployments.c.environment)

experiments = Table(
    "promptab_experiments",
    metadata,
    Column("experiment_id", String(36), primary_key=True),
    Column("name", Text, nullable=False),
    Column("prompt_type", Bytewise, nullable=False),
    Column("prompt_name", Bytewise),
    Column("status", String(16), nullable=False),
    Column("definition", Document, nullable=False, comment="variants, salts, targeting, overrides, weights"),
    Column("metadata", Document, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("started_at", Instant),
    Column("ended_at", Instant),
)
Index(None, experiments.c.status)
Index(None, experiments.c.name)

epochs = Table(
    "promptab_epochs",
    metadata,
    Column(
        "experiment_id",
        String(36),
        ForeignKey(experiments.c.experiment_id, ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("number", Integer, primary_key=True),
    Column("starts_at", Instant, nullable=False),
    Column("weights", Document, nullable=False),
    Column("segments", Document, nullable=False),
    Column("evicted", Document, nullable=False),
)

exposures = Table(
    "promptab_exposures",
    metadata,
    Column(
        "experiment_id",
        String(36),
        ForeignKey(experiments.c.experiment_id, ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("unit", Bytewise, primary_key=True),
    Column("variant", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("at", Instant, nullable=False),
    Column("attributes", Document, nullable=False),
    Column("source", String(16), nullable=False),
    Column("served", Text, comment="instead of an evicted variant"),
)
_brought = exposures.c.source == "alias"
Index(
    "ix_promptab_exposures_brought",
    exposures.c.experiment_id,
    sqlite_where=_brought,
    postgresql_where=_brought,
)

holdouts = Table(
    "promptab_holdouts",
    metadata,
    Column("name", Text, primary_key=True),
    Column("salt", String(64), nullable=False),
    Column("share", Float, nullable=False),
)

aliases = Table(
    "promptab_aliases",
    metadata,
    Column("alias", Bytewise, primary_key=True, comment="a session, before it was known whose it is"),
    Column("unit", Bytewise, nullable=False),
    Column("at", Instant, nullable=False),
)

events = Table(
    "promptab_events",
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=True),
    Column("event_id", LargeBinary(16), nullable=False),
    Column("kind", String(8), nullable=False),
    Column("version_id", String(36)),
    Column("experiment_id", String(36)),
    Column("variant", Text),
    Column("unit", Bytewise),
    Column("success", Boolean),
    Column("response_time", Float),
    Column("input_tokens", BigInteger),
    Column("cached_input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("tokens", BigInteger, comment="the total: of the parts, or as the caller gave it"),
    Column("cost", Float),
    Column("rating", Float),
    Column("metrics", Metrics),
    Column("metadata", Document),
    Column("at", Instant, nullable=False),
    Column("recorded_at", Instant, nullable=False),
    Column("flagged", Boolean, nullable=False),
    # the only index: each further one costs the writer dearly, and readers go by roll-ups
    UniqueConstraint("event_id"),
)
