"""What units did before their exposure: full days, by the totals or, for what is capped, by the events."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from promptab import Lab
from promptab.stats.covariate_sums import CovariateSums
from promptab.stats.metric import MetricDefinition
from promptab.stores.base import Transaction
from promptab.totalling import add_up
from tests.clock import SettableClock

CAPPED = MetricDefinition(name="capped", measure="cost", cap=1_000.0)


async def pasts(lab: Lab, metric: MetricDefinition, days: float) -> CovariateSums:
    """Return the sums of the one arm that there is."""
    await lab.analyze("e")
    await add_up(lab.store, "units")
    experiment = await lab.experiments.get_experiment("e")
    assert experiment is not None

    async def work(tx: Transaction) -> dict[str, dict[int, CovariateSums]]:
        return await tx.rolled_up.covariate_sums(experiment, metric, days=days)

    found = await lab.store.read(work)
    (sums,) = [part for by_epoch in found.values() for part in by_epoch.values()]
    return sums


@pytest.mark.parametrize(
    "metric",
    [MetricDefinition(name="cost"), CAPPED, MetricDefinition(name="m")],
    ids=["by the day", "capped", "named"],
)
@pytest.mark.parametrize(
    ("days", "counted"),
    [(0.5, [2]), (1.0, [2]), (2.0, [2, 3, 4]), (3.0, [2, 3, 4, 5]), (400.0, [2, 3, 4, 5, 6])],
)
async def test_the_past_is_full_days_before_that_of_the_exposure(
    lab: Lab, clock: SettableClock, metric: MetricDefinition, days: float, counted: list[int]
) -> None:
    variants = [{"key": "a", "config": {"t": 0}}, {"key": "b", "config": {"t": 1}}]
    await lab.experiments.create_experiment("e", "config", variants, plan={"metrics": [CAPPED.model_dump()]})
    midnight = clock().replace(hour=0)
    # by the number of each: that very day, the day before, two days before at both ends, and longer ago
    happened = [
        midnight + timedelta(hours=9),
        midnight,
        midnight - timedelta(microseconds=1),
        midnight - timedelta(days=1, microseconds=1),
        midnight - timedelta(days=2),
        midnight - timedelta(days=3),
        midnight - timedelta(days=30),
    ]
    for number, at in enumerate(happened):
        value = 2.0**number
        unit = "session:s" if number == 3 else "u"
        told: dict[str, Any] = {"cost": value, "metrics": {"m": value}, "user_id": unit, "timestamp": at}
        await lab.metrics.record_event(None, **told)
    chosen = await lab.experiments.get_variant_for_user("e", "u")
    await lab.metrics.record_event(
        None, cost=0.5, metrics={"m": 0.5}, experiment_id="e", variant=chosen, user_id="u"
    )
    await lab.experiments.alias("s", "u")
    sums = await pasts(lab, metric, days)
    assert (sums.units, sums.with_history, sums.n, sums.s) == (1, 1, 1.0, 0.5)
    assert (sums.m, sums.x) == (len(counted), sum(2.0**number for number in counted))
