"""Alembic migrations: numbered, additive, applied once under a lock by `promptab.open`."""
