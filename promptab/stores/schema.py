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

from promptab.stats.metric import MEASURES

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

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Any:
        """Return the time, or what is none as it is: then its row alone is refused, when it is read."""
        try:
            return None if value is None else instant(value)
        except (TypeError, OverflowError):
            return value


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


def experiment_key() -> Column[str]:
    """Return the first column of the key of what belongs to an experiment, and goes with it."""
    experiment = ForeignKey("promptab_experiments.experiment_id", ondelete="CASCADE")
    return Column("experiment_id", String(36), experiment, primary_key=True)


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

cases = Table(
    "promptab_cases",
    metadata,
    Column("prompt_type", Bytewise, primary_key=True),
    Column("name", Bytewise, primary_key=True),
    Column("cases", Document, nullable=False),
    Column("changed_at", Instant, nullable=False),
    comment="What every version of a prompt is tried on. No part of a version: they may change while it stays.",
)

case_results = Table(
    "promptab_case_results",
    metadata,
    Column("version_id", String(36), ForeignKey(versions.c.version_id, ondelete="CASCADE"), primary_key=True),
    Column("digest", String(64), primary_key=True, comment="of the case as it was tried"),
    Column("name", Text, nullable=False),
    Column("status", String(16), nullable=False, comment="passed or failed"),
    Column("reasons", Document, nullable=False),
    Column("answer", Text, comment="its beginning"),
    Column("model", Text),
    Column("cost", Float),
    Column("seconds", Float),
    Column("at", Instant),
    comment="The latest result of each case on each version.",
)

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
    Column(
        "rolled_up",
        BigInteger,
        comment="the watermark at which the unit went into the moments; null while it is not in them",
    ),
)
_brought = exposures.c.source == "alias"
Index(
    "ix_promptab_exposures_brought",
    exposures.c.experiment_id,
    sqlite_where=_brought,
    postgresql_where=_brought,
)
_waiting = exposures.c.rolled_up.is_(None)
Index(
    "ix_promptab_exposures_waiting",
    exposures.c.experiment_id,
    exposures.c.at,
    sqlite_where=_waiting,
    postgresql_where=_waiting,
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
Index(None, aliases.c.unit)

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

rollups = Table(
    "promptab_rollups",
    metadata,
    experiment_key(),
    Column("watermark", BigInteger, nullable=False, comment="the last event that is in the totals"),
    Column(
        "basis", Text, nullable=False, comment="what of the experiment's plan the totals and moments rest on"
    ),
    Column(
        "late", BigInteger, nullable=False, comment="events that came after their unit's window had closed"
    ),
    Column(
        "pruned_before",
        Instant,
        comment="events that happened before then may be gone; null while every event is there",
    ),
    comment="How far the events of an experiment have been rolled up. Without its row nothing has been.",
)

unit_totals = Table(
    "promptab_unit_totals",
    metadata,
    experiment_key(),
    Column(
        "unit",
        Bytewise,
        primary_key=True,
        comment="as recorded: aliases are followed when the totals are read",
    ),
    Column("variant", Text, primary_key=True, comment="as recorded; empty for none"),
    *(Column(f"n_{measure}", BigInteger, nullable=False) for measure in MEASURES),
    *(Column(f"s_{measure}", Float, nullable=False) for measure in MEASURES),
    comment="Events that carried each measure (n), and their total (s).",
    sqlite_with_rowid=False,
)

unit_metric_totals = Table(
    "promptab_unit_metric_totals",
    metadata,
    experiment_key(),
    # first: which measures there are, and all units of one of them, are each one stretch of the key
    Column(
        "measure", Text, primary_key=True, comment="a named metric, or a capped measure such as cost<=2.5"
    ),
    Column("unit", Bytewise, primary_key=True),
    Column("variant", Text, primary_key=True),
    Column("n", BigInteger, nullable=False),
    Column("s", Float, nullable=False),
    comment="As promptab_unit_totals, for the measures that have no columns of their own.",
    sqlite_with_rowid=False,
)

moments = Table(
    "promptab_moments",
    metadata,
    experiment_key(),
    Column("metric", Text, primary_key=True),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("variant", Text, primary_key=True),
    Column("units", BigInteger, nullable=False),
    *(Column(sum_, Float, nullable=False) for sum_ in ("n", "s", "center", "rr", "nn", "rn")),
    comment="Sums over units, as in promptab.stats.summary.UnitSums.",
)

arms = Table(
    "promptab_arms",
    metadata,
    experiment_key(),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("variant", Text, primary_key=True),
    Column("exposed", BigInteger, nullable=False, comment="units"),
    Column("reporting", BigInteger, nullable=False, comment="of these, units with an event of their variant"),
    Column(
        "switched", BigInteger, nullable=False, comment="of these, units with an event of another variant"
    ),
)

quantiles = Table(
    "promptab_quantiles",
    metadata,
    experiment_key(),
    Column("metric", Text, primary_key=True),
    Column("watermark", BigInteger, nullable=False),
    Column("document", Document, nullable=False),
    comment="Quantiles need every event, so they are kept until something new is rolled up.",
)
