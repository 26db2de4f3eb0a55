"""Who leads where only one may: a row for each thing that is led."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, case, select, type_coerce, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from promptab.errors import NotLeadingError
from promptab.stores.queries.database_clock import database_now
from promptab.stores.watch_schema import leases

NOBODY = ""


class LeaseQueries:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def claim(self, name: str, holder: str, *, seconds: float) -> int | None:
        """Lead for so many seconds from now, or for so many more; return the term, or None where another one leads.

        For a database that one machine uses: by that machine's clock. A lease that would last longer than its holder
        asked for is from before the clock was set back, and holds nobody up.
        """
        now = database_now(self._connection.dialect)
        until = type_coerce(leases.c.until, BigInteger)
        insert = sqlite.insert(leases).values(
            name=name, holder=holder, term=1, until=now + round(seconds * 1e6), seconds=seconds
        )
        free = (
            (leases.c.holder == holder)
            | (leases.c.holder == NOBODY)
            | (until <= now)
            | (until > now + leases.c.seconds * 1e6)
        )
        return await self._granted(insert, holder, free)

    async def take(self, name: str, holder: str, *, seconds: float) -> int:
        """Begin a term, for whoever holds the lock that says that nobody else leads."""
        insert = postgresql.insert(leases).values(name=name, holder=holder, term=1, seconds=seconds)
        term = await self._granted(insert, holder, None)
        assert term is not None  # noqa: S101 - nothing keeps this one from being granted
        return term

    async def release(self, name: str, holder: str) -> None:
        """Leave it to others at once; nothing where this one does not lead."""
        held = (leases.c.name == name, leases.c.holder == holder)
        await self._connection.execute(update(leases).where(*held).values(holder=NOBODY))

    async def check(self, name: str, term: int) -> None:
        """Raise `NotLeadingError` unless nobody has begun to lead since that term: the last look before a change."""
        query = select(leases.c.term).where(leases.c.name == name)
        newest = (await self._connection.execute(query)).scalar_one_or_none()
        if newest != term:
            raise NotLeadingError(
                f"{name}: another one leads by now (term {newest}, and this one's was {term}), so nothing was changed; "
                "the new leader looks for itself"
            )

    async def _granted(self, insert: Any, holder: str, free: ColumnElement[bool] | None) -> int | None:
        given = insert.excluded
        granted = insert.on_conflict_do_update(
            index_elements=[leases.c.name],
            set_={
                "holder": given.holder,
                "term": case((leases.c.holder == holder, leases.c.term), else_=leases.c.term + 1),
                "until": given.until,
                "seconds": given.seconds,
            },
            where=free,
        ).returning(leases.c.term)
        term: int | None = (await self._connection.execute(granted)).scalar_one_or_none()
        return term
