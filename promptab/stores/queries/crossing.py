"""Units that are in two experiments at once: what they add up to by what they were dealt in both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Text, cast, select
from sqlalchemy.ext.asyncio import AsyncConnection

from promptab.models import PromptExperiment
from promptab.stats.metric import MetricDefinition
from promptab.stats.summary import UnitSums
from promptab.stores.queries.exposures import analysed_units
from promptab.stores.queries.moments import kept_centers, summed
from promptab.stores.queries.unit_facts import UnitFacts, all_series
from promptab.stores.schema import exposures


class Cell(NamedTuple):
    """What a unit was dealt: the variant and the epoch in the first experiment, then in the second."""

    variant: str
    epoch: int
    other_variant: str
    other_epoch: int


class CrossedUnits(NamedTuple):
    """The units of one cell."""

    exposed: int
    """In both experiments, whether anything was recorded for them or not."""
    sums: UnitSums
    """Over the units that count in the metric, of their events in the first experiment."""


class CrossingQueries:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def cells(
        self, first: PromptExperiment, second: PromptExperiment, metric: MetricDefinition
    ) -> dict[Cell, CrossedUnits]:
        """Return the sums over the units that count in the analyses of both, of what is rolled up of the first.

        Cells without units are not there. Raises `InvalidInputError` for a quantile.
        """
        crossed = (
            select(
                exposures.c.unit,
                # one column, as sums are grouped by one beside the first experiment's own; no epoch has a colon
                (cast(exposures.c.epoch, Text) + ":" + exposures.c.variant).label("dealt"),
            )
            .where(exposures.c.experiment_id == second.experiment_id, *analysed_units(second))
            .cte("crossed")
        )
        dealt = select(crossed.c.dealt).where(crossed.c.unit == exposures.c.unit).scalar_subquery()
        members = (exposures.c.rolled_up.is_not(None), exposures.c.unit.in_(select(crossed.c.unit)))

        async def facts_of(some: Sequence[MetricDefinition]) -> UnitFacts:
            columns = (dealt.label("dealt"),)
            return await UnitFacts.of(
                self._connection, first, all_series(some), *members, columns=columns, with_arms=True
            )

        centers = await kept_centers(self._connection, first.experiment_id)
        found: dict[Cell, CrossedUnits] = {}
        for text, sums in (await summed(self._connection, facts_of, [metric], centers, by="dealt")).items():
            other_epoch, _, other_variant = text.partition(":")
            measured = sums.metrics.get(metric.name, {})
            for variant, by_epoch in sums.arms.items():
                for epoch, counts in by_epoch.items():
                    cell = Cell(variant, epoch, other_variant, int(other_epoch))
                    of_cell = measured.get(variant, {}).get(epoch, UnitSums())
                    found[cell] = CrossedUnits(counts.exposed, of_cell)
        return found
