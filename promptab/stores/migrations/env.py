"""Run by Alembic: migrate the connection that promptab has opened and locked."""

from __future__ import annotations

from alembic import context

from promptab.stores.migrating import VERSION_TABLE
from promptab.stores.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
context.run_migrations()
