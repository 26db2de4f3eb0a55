"""Bringing the totals of all events up to date, step by step, so that writers come in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from promptab.models import PromptExperiment
from promptab.stats.metric import MetricDefinition
from promptab.stores.base import Store, Transaction, Work

if TYPE_CHECKING:
    from promptab.stores.queries.total_rollup import TotalKind

OTHERS_SECONDS = 0.05
"""How long is waited while another process is folding, before looking again."""

TAIL_EVENTS = 20_000
"""So many events are added up as they are read sooner than a read has to write."""


async def add_up(store: Store, kind: TotalKind, *, at_least: int = 1) -> None:
    """Add the events to these totals that are not in them yet, where there are at least so many."""

    async def behind(tx: Transaction) -> int:
        return await tx.totals.behind(kind)

    async def fold(tx: Transaction) -> bool | None:
        return await tx.totals.fold(kind)

    if await store.read(behind) >= at_least:
        await fold_all(store, fold)


async def roll_up(store: Store, experiment: PromptExperiment, *, now: Callable[[], datetime]) -> None:
    """Bring the summaries of an experiment up to date; `now` is asked once everything queued is in the store."""
    await store.flush()
    moment = now()

    async def behind(tx: Transaction) -> bool:
        return await tx.rollup.is_behind(experiment, now=moment)

    async def fold(tx: Transaction) -> bool | None:
        return await tx.rollup.fold(experiment, now=moment)

    if await store.read(behind):
        await fold_all(store, fold)


async def fold_all(store: Store, fold: Work[bool | None]) -> None:
    """Take one step after the other until there is none left; where others take them, wait until they have."""
    while (more := await store.write(fold, shown=False)) is not False:
        if more is None:
            await asyncio.sleep(OTHERS_SECONDS)


def asks_for_the_past(experiment: PromptExperiment, *metrics: str | MetricDefinition) -> bool:
    """Return whether any metric of the plan, or of these, is compared with what units did before."""
    definitions = (*experiment.plan.metrics, *(m for m in metrics if isinstance(m, MetricDefinition)))
    return any(definition.history_days is not None for definition in definitions)
