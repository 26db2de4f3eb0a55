"""Records events and folds them in small steps, until it is killed: `folding.py URL EXPERIMENT`."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime

from promptab.models import PromptExperiment
from promptab.stores.base import Transaction
from promptab.stores.opening import open_store
from promptab.stores.queries import rollup, unit_totals
from promptab.totalling import fold_all
from tests.contract.records import a_use

UNITS = 40


async def main(url: str, experiment_id: str) -> None:
    unit_totals.EVENTS_PER_STEP = 7
    rollup.UNITS_PER_STEP = 5
    store = await open_store(url)

    async def find(tx: Transaction) -> PromptExperiment | None:
        return await tx.experiments.by_id(experiment_id)

    experiment = await store.read(find)
    assert experiment is not None

    async def fold(tx: Transaction) -> bool | None:
        return await tx.rollup.fold(experiment, now=datetime.now(UTC))

    number = 0
    while True:
        uses = [
            a_use(experiment, f"u{(number + each) % UNITS}", "a", cost=float(each), success=each % 2 == 0)
            for each in range(23)
        ]
        await asyncio.gather(*(store.record(use) for use in uses))
        number += 11
        await fold_all(store, fold)
        sys.stdout.write("folded\n")
        sys.stdout.flush()


asyncio.run(main(*sys.argv[1:]))
