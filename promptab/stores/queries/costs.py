"""What calls cost, added up by what people ask for."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, case, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from promptab.stores.base import CostKey
from promptab.stores.queries.shadows import is_run, of_shadow
from promptab.stores.schema import events, experiments, versions


class CostRow(NamedTuple):
    """The calls of one group."""

    key: tuple[str | None, ...]
    """By `version`: type, name, version; by `prompt`: type, name; by `variant`: experiment, variant; by `model`:
    the model that answered, else the one that was asked. All None: what belongs to no group, such as fallbacks.
    """
    calls: int
    cost: float
    """US dollars, of the calls whose cost is known."""
    unknown: int
    """Calls whose cost is not known."""
    input_tokens: int
    """Those not read from a cache, as far as they are known; so are the next two."""
    cached_input_tokens: int
    output_tokens: int


class CostQueries:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def by(
        self, key: CostKey, *, since: datetime | None = None, in_shadow: bool = False
    ) -> list[CostRow]:
        """Return the uses since then, or the runs in the shadow, group by group: the costliest first, then by the
        group's key.
        """
        whose = _SHADOW if in_shadow else _SERVED
        columns = [column.label(f"key_{index}") for index, column in enumerate(_keys(whose)[key])]
        # named first, since a group by an expression has to be the very same expression in every database
        uses = (
            select(*columns, events.c.cost, *(events.c[name] for name in _TOKENS))
            .select_from(
                events.outerjoin(versions, versions.c.version_id == whose.version_id).outerjoin(
                    experiments, experiments.c.experiment_id == whose.experiment_id
                )
            )
            .where(whose.counted, *([] if since is None else [events.c.at >= since]))
            .subquery("uses")
        )
        names = [uses.c[column.name] for column in columns]
        query = select(
            *names,
            func.count().label("calls"),
            func.coalesce(func.sum(uses.c.cost), 0.0).label("cost"),
            func.sum(case((uses.c.cost.is_(None), 1), else_=0)).label("unknown"),
            *(func.coalesce(func.sum(uses.c[name]), 0).label(name) for name in _TOKENS),
        ).group_by(*names)
        rows = [
            CostRow(
                tuple(row[: len(names)]),
                int(row.calls),
                float(row.cost),
                int(row.unknown),
                *(int(getattr(row, name)) for name in _TOKENS),
            )
            for row in (await self._connection.execute(query)).all()
        ]
        # here, since databases do not agree on where null stands
        return sorted(rows, key=lambda row: (-row.cost, [(part is None, part or "") for part in row.key]))


_TOKENS = ("input_tokens", "cached_input_tokens", "output_tokens")


def _of_call(fact: str) -> ColumnElement[Any]:
    found: ColumnElement[Any] = events.c.metadata[("call", fact)].as_string()
    return found


class _Whose(NamedTuple):
    """Where an event says whose it is."""

    counted: ColumnElement[bool]
    version_id: ColumnElement[Any]
    experiment_id: ColumnElement[Any]
    variant: ColumnElement[Any]


_SERVED = _Whose(events.c.kind == "use", events.c.version_id, events.c.experiment_id, events.c.variant)
_SHADOW = _Whose(is_run(), of_shadow("version_id"), of_shadow("experiment_id"), of_shadow("variant"))


def _keys(whose: _Whose) -> dict[CostKey, tuple[ColumnElement[Any], ...]]:
    return {
        "version": (versions.c.prompt_type, versions.c.name, versions.c.version),
        "prompt": (versions.c.prompt_type, versions.c.name),
        "model": (func.coalesce(_of_call("response_model"), _of_call("model")),),
        "variant": (experiments.c.name, whose.variant),
    }
