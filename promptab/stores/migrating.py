"""Which schema a database has, and bringing an old one up to date.

An up-to-date database is recognised by one query. A new one is made whole from the declared tables, and only an
old one takes the migrations and loads Alembic for them; tests hold the two ways against each other. A database that
was made by a newer promptab, or by another application, is refused and left as it was.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import (
    Column,
    Connection,
    Inspector,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    func,
    insert,
    inspect,
    select,
)
from sqlalchemy.exc import DBAPIError

from promptab.errors import StoreVersionError
from promptab.stores import schema
from promptab.stores.driver_errors import UNDEFINED_TABLE, sqlstate

VERSION_TABLE = "promptab_migrations"
HEAD = "0010"
"""The newest migration; a test holds it against the files."""

_LOCK = 0x70726F6D70746162
"""Whoever migrates a PostgreSQL database holds this advisory lock: "promptab" in ASCII."""

_MIGRATIONS = Path(__file__).parent / "migrations"
_version = Table(
    VERSION_TABLE,
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"),
)
"""Alembic's own table, as Alembic makes it."""


class Identity(NamedTuple):
    store_id: str
    migration: str


def identify(connection: Connection) -> Identity | None:
    """Return which store this is, or None where the database has no promptab tables.

    Raises `StoreVersionError` for a database that is newer, or not promptab's.
    """
    try:
        with connection.begin_nested():  # PostgreSQL takes no further query after one that failed
            row = connection.execute(
                select(
                    schema.store.c.store_id,
                    select(_version.c.version_num).scalar_subquery().label("migration"),
                )
            ).one_or_none()
    except DBAPIError as error:
        if "no such table" not in str(error.orig) and sqlstate(error) != UNDEFINED_TABLE:
            raise
        row = None
    if row is None or row.migration is None:
        _refuse_foreign(connection)
        return None
    if row.migration > HEAD:
        raise StoreVersionError(
            f"the database has schema {row.migration} and this promptab knows up to {HEAD}; "
            "it was left untouched: upgrade promptab to use it"
        )
    return Identity(row.store_id, row.migration)


def migrate(connection: Connection, *, now: datetime) -> Identity:
    """Bring the database of this connection up to date in its transaction; name it if it is new.

    SQLite has locked the file for the transaction already. Another process may have been faster while this one waited
    for the lock: then there is nothing left to do.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    present = identify(connection)
    if present is not None and present.migration == HEAD:
        return present
    if present is None:
        identity = Identity(str(uuid.uuid4()), HEAD)
        if inspect(connection).has_table(VERSION_TABLE):
            # whole but for the row that names it
            upgrade(connection)
        else:
            _make(connection)
        connection.execute(
            insert(schema.store).values(store_id=identity.store_id, revision=0, created_at=now)
        )
        return identity
    upgrade(connection)
    return present._replace(migration=HEAD)


def _make(connection: Connection) -> None:
    schema.metadata.create_all(connection, checkfirst=False)
    _version.create(connection)
    connection.execute(insert(_version).values(version_num=HEAD))


def upgrade(connection: Connection, to: str = "head") -> None:
    """Take the migrations that the database has not had, in the transaction of this connection."""
    # Alembic takes as long to import as everything else together, and most openings do not need it
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def _refuse_foreign(connection: Connection) -> None:
    """Refuse a SQLite file that holds another application's tables; a PostgreSQL schema may be shared."""
    if connection.dialect.name != "sqlite":
        return
    inspector: Inspector = inspect(connection)
    foreign = sorted(name for name in inspector.get_table_names() if not name.startswith("promptab_"))
    if foreign:
        raise StoreVersionError(
            f"the database belongs to another application (it has a table {foreign[0]!r}); it was left untouched: "
            "choose another file for promptab"
        )
