"""One batch step of a bandit: from what is recorded to the weights of the next epoch, once, whoever asks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from promptab.assigning import find_experiment
from promptab.bandit import Bandit, Rebalancing
from promptab.errors import NotFoundError, StateError
from promptab.gathering import gather_primary
from promptab.managed import Clock
from promptab.models import Epoch, ExperimentStatus, PromptExperiment
from promptab.moving import with_weights
from promptab.steering import LEAD_SECONDS
from promptab.stores.base import Store, Transaction
from promptab.totalling import roll_up

if TYPE_CHECKING:
    from promptab.analysis.evidence import Evidence


async def rebalance(store: Store, name: str, *, clock: Clock) -> Rebalancing:
    """Look at a bandit and change its weights where that is due; as `Lab.rebalance` says."""
    found = await find_experiment(store, name, now=clock())
    bandit = found.bandit
    if bandit is None:
        raise StateError(
            f"the weights of experiment {found.name!r} follow nothing; declare a bandit when it is created: "
            "create_experiment(..., bandit='thompson')"
        )
    if found.started_at is None:
        raise StateError(f"experiment {found.name!r} is {found.status}: it has no weights in force yet")
    await roll_up(store, found, now=clock)
    now = clock()

    async def read(tx: Transaction) -> tuple[Evidence, list[Epoch]]:
        current = await tx.experiments.by_id(found.experiment_id)
        if current is None:
            raise NotFoundError("experiment", found.name, "it has been deleted meanwhile")
        evidence = await gather_primary(tx, current, now=now)
        return evidence, await tx.experiments.epochs_of(found.experiment_id)

    evidence, epochs = await store.read(read)
    # off the loop: the first look imports scipy
    proposal = await asyncio.to_thread(_proposed, evidence, bandit, epochs)
    if not proposal.changed:
        return proposal
    lead = timedelta(seconds=LEAD_SECONDS if store.shared else 0.0)
    return await _begun(store, proposal, evidence.experiment, epochs[-1], starts_at=now + lead, now=now)


async def _begun(
    store: Store,
    proposal: Rebalancing,
    seen: PromptExperiment,
    last: Epoch,
    *,
    starts_at: datetime,
    now: datetime,
) -> Rebalancing:
    """Begin the epoch, unless the weights or the experiment are others than those that the proposal rests on."""

    async def work(tx: Transaction) -> bool:
        current = await tx.experiments.by_id(seen.experiment_id)
        epochs = await tx.experiments.epochs_of(seen.experiment_id)
        if current is None or current.status != ExperimentStatus.RUNNING or epochs[-1] != last:
            return False
        await with_weights(tx, current, proposal.weights, now=now, starts_at=starts_at, by_itself=True)
        return True

    if await store.write(work):
        return proposal
    untouched = {"changed": False, "epoch": last.number, "weights": last.weights}
    reason = "somebody else changed the experiment meanwhile; nothing was changed"
    return proposal.model_copy(update=untouched | {"reason": reason})


def _proposed(evidence: Evidence, bandit: Bandit, epochs: Sequence[Epoch]) -> Rebalancing:
    from promptab.analysis.adapting import proposed  # noqa: PLC0415 - brings scipy, which only an analysis needs

    return proposed(evidence, bandit, epochs)
