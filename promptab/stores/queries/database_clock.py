"""The time as the database has it: one clock for everybody who uses it."""

from __future__ import annotations

from sqlalchemy import BigInteger, ColumnElement, Dialect, cast, extract, func

_EPOCH_DAY = 2_440_587.5
"""The Julian day on which 1970 began."""
_DAY = 86_400_000_000.0


def database_now(dialect: Dialect) -> ColumnElement[int]:
    """Return the moment at which the statement gets there, in microseconds since 1970.

    Of PostgreSQL that is the server's clock. A SQLite file has that of the one machine that uses it, in milliseconds.
    """
    if dialect.name == "postgresql":
        return cast(extract("epoch", func.clock_timestamp()) * 1_000_000, BigInteger)
    return cast((func.julianday("now") - _EPOCH_DAY) * _DAY, BigInteger)
