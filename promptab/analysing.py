"""Asking the store for what an analysis needs, and analysing it: the reading half of `MetricsCollector`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from promptab.analysis.histogram import Histogram
from promptab.analysis.result import METHODS, AnalysisResult, Method
from promptab.assigning import find_experiment
from promptab.checks import check_confidence, check_items, check_name, check_time
from promptab.errors import InvalidInputError
from promptab.gathering import Gathered, Question, gather
from promptab.managed import Managed
from promptab.measures import canonical_metric
from promptab.models import PromptExperiment
from promptab.policy import Policy
from promptab.stats.metric import MetricDefinition
from promptab.stores.base import Store, Transaction
from promptab.totalling import add_up, asks_for_the_past, fold_all

if TYPE_CHECKING:
    from promptab.analysis.evidence import Evidence
    from promptab.stores.queries.event_values import EventValues

_BINS = 40

Period = Literal["hour", "day"]
_SECONDS: Mapping[Period, int] = {"hour": 3_600, "day": 86_400}


class Analysing(Managed):
    """Summaries are made by the database, once for each event; what is read here is small."""

    async def analyze(
        self,
        experiment: str,
        method: Method = "sequential",
        metrics: Iterable[str | MetricDefinition] | None = None,
        segments: Iterable[str] = (),
        since: datetime | None = None,
        *,
        series: Period | None = None,
        confidence: float | None = None,
        policy: Policy | None = None,
    ) -> AnalysisResult:
        """Say what an experiment shows, metric by metric, and which variant wins or why none does.

        `method`: `sequential` holds at every look; `fixed` is right for one look at a planned moment;
        `bayesian` gives probabilities and expected losses. `metrics` are names or definitions beside the
        primary one (default: the plan's and every measure that was recorded); `segments` are attributes that
        were given when units were assigned; `since` leaves out units first exposed before it, by default before
        the experiment had its policy. `series` adds what the primary metric looked like at the end of each hour
        or day. `confidence` is the plan's, 0.95 unless declared. `policy` is the one whose guardrails are read,
        by default the experiment's; another is read as if the experiment had been started with it.

        Raises `NotFoundError` (also for a metric that is nowhere declared or recorded), `StateError` where several
        experiments have that name, and
        `InvalidInputError`.
        """
        if method not in METHODS:
            raise InvalidInputError("method", method, f"one of {', '.join(METHODS)}")
        if series is not None and series not in _SECONDS:
            raise InvalidInputError("series", series, f"one of {', '.join(_SECONDS)}")
        level = None if confidence is None else check_confidence("confidence", confidence)
        start = None if since is None else check_time("since", since)
        attributes = [check_name("segments", name) for name in check_items("segments", segments)]
        wanted = None if metrics is None else [_wanted(metric) for metric in check_items("metrics", metrics)]
        store = await self._store()
        found = await find_experiment(store, experiment, now=self._clock())
        await self._roll_up(store, found)
        if asks_for_the_past(found, *(wanted or ())):
            await add_up(store, "units")
        now = self._clock()

        read, acted_on = _with_policy(found, policy)
        question = Question(
            wanted,
            attributes,
            start or found.policy_since,
            None if series is None else _SECONDS[series],
            acted_on,
        )

        async def work(tx: Transaction) -> Gathered:
            return await gather(tx, read, question, now=now)

        gathered = await store.read(work)
        if gathered.quantiles:
            await self._keep(store, found.experiment_id, gathered)
        # off the loop: the first analysis imports scipy, and permutations take a while
        return await asyncio.to_thread(_analyzed, gathered.evidence, method, level, acted_on)

    async def compare(self, experiment: str, *, confidence: float = 0.95) -> AnalysisResult:
        """Analyse at a fixed horizon: right for one look, at a moment planned before the start."""
        return await self.analyze(experiment, "fixed", confidence=confidence)

    async def distribution(
        self, experiment: str, measure: str = "response_time", *, since: datetime | None = None
    ) -> tuple[Histogram, ...]:
        """Return how the single events' values of a measure are spread, one histogram per variant that has any,
        all over the same edges. Raises as `analyze` does.
        """
        start = None if since is None else check_time("since", since)
        carried = canonical_metric("measure", measure)
        store = await self._store()
        found = await find_experiment(store, experiment, now=self._clock())
        await self._roll_up(store, found)

        async def work(tx: Transaction) -> EventValues:
            return await tx.rolled_up.event_values(found, carried, since=start)

        return await asyncio.to_thread(_histograms, await store.read(work))

    async def _roll_up(self, store: Store, experiment: PromptExperiment) -> None:
        """Bring the summaries up to date, step by step, so that writers come in between."""
        await store.flush()
        now = self._clock()

        async def behind(tx: Transaction) -> bool:
            return await tx.rollup.is_behind(experiment, now=now)

        async def fold(tx: Transaction) -> bool | None:
            return await tx.rollup.fold(experiment, now=now)

        if await store.read(behind):
            await fold_all(store, fold)

    async def _keep(self, store: Store, experiment_id: str, gathered: Gathered) -> None:
        async def work(tx: Transaction) -> None:
            for name, document in gathered.quantiles.items():
                await tx.rolled_up.keep_quantile(experiment_id, name, gathered.watermark, document)

        await store.write(work, shown=False)


def _wanted(metric: str | MetricDefinition) -> str | MetricDefinition:
    return metric if isinstance(metric, MetricDefinition) else canonical_metric("metrics", metric)


def _histograms(values: EventValues) -> tuple[Histogram, ...]:
    """Count in even bins up to the pooled 99th percentile, and what is beyond it in one."""
    import numpy as np  # noqa: PLC0415 - only an analysis needs it

    by_variant = {
        variant: np.concatenate([of_epoch for of_epoch, _ in by_epoch.values()])
        for variant, by_epoch in values.items()
    }
    if not by_variant:
        return ()
    pooled = np.concatenate(list(by_variant.values()))
    low, high, top = pooled.min(), np.quantile(pooled, 0.99), pooled.max()
    edges = np.unique(np.append(np.linspace(low, high, _BINS + 1), np.nextafter(top, np.inf)))
    return tuple(
        Histogram(variant, edges.tolist(), np.histogram(found, edges)[0].tolist())
        for variant, found in by_variant.items()
    )


def _with_policy(
    experiment: PromptExperiment, policy: Policy | None
) -> tuple[PromptExperiment, Policy | None]:
    """Return the experiment as it is analysed, and the policy whose guardrails are read."""
    if policy is None or policy == experiment.policy:
        # before the start the plan does not have yet what the policy says
        return experiment, None if experiment.started_at is None else experiment.policy
    declared = experiment.declared_plan or experiment.plan
    settled = policy.planned(declared, primary_metric=experiment.primary_metric)
    return experiment.model_copy(update={"plan": settled}), policy


def _analyzed(
    evidence: Evidence, method: Method, confidence: float | None, policy: Policy | None
) -> AnalysisResult:
    from promptab.analysis.analyzing import analyze  # noqa: PLC0415 - brings scipy, which only an analysis needs

    return analyze(evidence, method, confidence=confidence, policy=policy)
