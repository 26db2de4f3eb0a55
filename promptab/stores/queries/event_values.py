"""The values of single events, which quantiles need: read in pieces, kept as arrays."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncConnection

from promptab.models import PromptExperiment
from promptab.stores.queries.exposures import analysed_units
from promptab.stores.queries.unit_facts import Series
from promptab.stores.queries.unit_totals import carrying, of_own_variant, up_to_the_roll_up, with_exposures
from promptab.stores.schema import events, exposures

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = tuple[NDArray[np.float64], NDArray[np.int32]]
    EventValues = dict[str, dict[int, Values]]
    """variant -> epoch -> values, and whose each is."""

ROWS_AT_ONCE = 20_000


async def event_values(
    connection: AsyncConnection, experiment: PromptExperiment, measure: str, *which: ColumnElement[bool]
) -> EventValues:
    """Return the values of the events that count, in the order in which they were recorded.

    `which` are conditions on exposures. 12 bytes are kept for each event, and a number for each unit.
    """
    import numpy as np  # noqa: PLC0415 - a store is opened without it

    source, value = carrying(with_exposures(experiment.experiment_id), Series(measure), connection.dialect)
    query = (
        select(exposures.c.variant, exposures.c.epoch, exposures.c.unit, value.label("value"))
        .select_from(source)
        .where(
            events.c.experiment_id == experiment.experiment_id,
            value.is_not(None),
            of_own_variant(),
            *up_to_the_roll_up(experiment),
            *analysed_units(experiment),
            *which,
        )
        .order_by(events.c.sequence)
    )
    numbers: dict[str, int] = {}
    kept: dict[tuple[str, int], tuple[array[float], array[int]]] = {}
    async with connection.stream(query, execution_options={"yield_per": ROWS_AT_ONCE}) as result:
        async for rows in result.partitions():
            for variant, epoch, unit, number in rows:
                values, units = kept.setdefault((variant, epoch), (array("d"), array("i")))
                values.append(number)
                units.append(numbers.setdefault(unit, len(numbers)))
    found: EventValues = {}
    for (variant, epoch), (values, units) in sorted(kept.items()):
        arrays = (np.frombuffer(values, dtype=np.float64), np.frombuffer(units, dtype=np.int32))
        found.setdefault(variant, {})[epoch] = arrays
    return found
