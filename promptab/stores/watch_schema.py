"""The tables of what is watched, and by whom.

A part of the one schema, `promptab.stores.schema`.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, String, Table

from promptab.stores.schema import Instant, metadata

leases = Table(
    "promptab_leases",
    metadata,
    Column("name", String(64), primary_key=True, comment="of what is led"),
    Column("holder", String(36), nullable=False, comment="whoever leads, or led last; empty for nobody"),
    Column("term", BigInteger, nullable=False, comment="grows whenever another one begins to lead"),
    Column("until", Instant, comment="by the database's clock; null where a lock says how long"),
    Column("seconds", Float, nullable=False, comment="what each claim lasts"),
)
