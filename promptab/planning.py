"""What is asked beside an analysis: how much history there is to plan by, how often an analysis errs on it, and whether
two experiments disturb each other.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from promptab.analysing import Analysing
from promptab.analysis.planned import InteractionResult, MetricHistory, ReplayResult
from promptab.analysis.result import METHODS, Method
from promptab.assigning import find_experiment
from promptab.checks import check_confidence, check_count, check_name
from promptab.errors import InvalidInputError, NotFoundError
from promptab.measures import canonical_metric
from promptab.models import PromptExperiment, PromptType
from promptab.stats.covariate_sums import CovariateSums
from promptab.stats.metric import BUILT_IN_METRICS, MetricDefinition
from promptab.stats.summary import UnitSums
from promptab.stores.base import Store, Transaction
from promptab.totalling import add_up, asks_for_the_past

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from promptab.analysis.evidence import UnitTotal
    from promptab.stores.queries.crossing import Cell, CrossedUnits

HISTORY_DAYS = 28
"""How far back a prompt's history is read: as long as experiments usually take. Units that come back are not new, so
the longer one waits the fewer new ones a day brings."""

MOST_RUNS = 100_000


class Planning(Analysing):
    """Answers from what has been recorded; nothing is changed but the summaries, which are brought up to date."""

    async def measured_history(self, experiment_or_prompt: str, metric: str | None = None) -> MetricHistory:
        """Return what the recorded events say about a metric, to plan an experiment by.

        Of an experiment (its id or name) it is the control's units, and units per day are what all variants got,
        scaled to full traffic; of a prompt, TYPE/NAME, the units of its last 28 days. `metric` is the experiment's
        primary one, of a prompt success_rate, unless named.

        Raises `NotFoundError` where there is neither, `StateError` where several experiments have that name, and
        `InvalidInputError` for a quantile, which no formula plans.
        """
        wanted = None if metric is None else canonical_metric("metric", metric)
        store = await self._store()
        await store.flush()
        try:
            experiment = await find_experiment(store, experiment_or_prompt, now=self._clock())
        except NotFoundError:
            return await self._history_of_prompt(store, experiment_or_prompt, wanted or "success_rate")
        await self._roll_up(store, experiment)
        if asks_for_the_past(experiment):
            await add_up(store, "units")
        definition = _summed(experiment.plan.definition(wanted or experiment.primary_metric))
        now = self._clock()

        async def work(tx: Transaction) -> MetricHistory:
            return await _history_of_experiment(tx, experiment, definition, now)

        return await store.read(work)

    async def replay(
        self,
        experiment: str,
        *,
        metric: str | None = None,
        runs: int = 1_000,
        seed: int = 0,
        method: Method = "fixed",
        confidence: float | None = None,
    ) -> ReplayResult:
        """Deal the recorded units of the control anew, many times, to two halves that were served the same, and count
        how often the analysis finds a difference at one look: an A/A test of this project's own numbers.

        The control's alone, as with the other variants' a real effect would pass for chance. Equal seeds give equal
        results. Raises `StateError` where the control has fewer than 60 units, `NotFoundError` and
        `InvalidInputError`.
        """
        if method not in METHODS:
            raise InvalidInputError("method", method, f"one of {', '.join(METHODS)}")
        check_count("runs", runs, low=1, high=MOST_RUNS)
        check_count("seed", seed)
        wanted = None if metric is None else canonical_metric("metric", metric)
        if confidence is not None:
            check_confidence("confidence", confidence)
        store = await self._store()
        found = await find_experiment(store, experiment, now=self._clock())
        definition = _summed(found.plan.definition(wanted or found.primary_metric))
        await self._roll_up(store, found)

        async def work(tx: Transaction) -> list[UnitTotal]:
            values = await tx.rolled_up.unit_values(found, definition)
            return [pair for pairs in values.get(found.control, {}).values() for pair in pairs]

        units = await store.read(work)
        level = found.plan.confidence if confidence is None else confidence
        return await asyncio.to_thread(_replayed, found, definition, units, method, level, runs, seed)

    async def interaction(
        self, first: str, second: str, *, metric: str | None = None, confidence: float | None = None
    ) -> InteractionResult:
        """Say whether the effect of `first` depends on what units got in `second`, over the units that are in both.

        The metric, and the outcomes, are those of `first` (its primary metric unless named). Right for one look, at a
        planned moment. `confidence` is the first experiment's unless given.

        Raises `NotFoundError`, `StateError` where several experiments have a name, and `InvalidInputError`, also for
        a quantile and for one experiment twice.
        """
        wanted = None if metric is None else canonical_metric("metric", metric)
        if confidence is not None:
            check_confidence("confidence", confidence)
        store = await self._store()
        one, other = [await find_experiment(store, name, now=self._clock()) for name in (first, second)]
        if one.experiment_id == other.experiment_id:
            raise InvalidInputError("second", second, "another experiment than the first")
        definition = _summed(one.plan.definition(wanted or one.primary_metric))
        await self._roll_up(store, one)

        async def work(tx: Transaction) -> Mapping[Cell, CrossedUnits]:
            return await tx.crossing.cells(one, other, definition)

        cells = await store.read(work)
        level = one.plan.confidence if confidence is None else confidence
        return await asyncio.to_thread(_crossed, one, other, definition, cells, level)

    async def _history_of_prompt(self, store: Store, name: str, metric: str) -> MetricHistory:
        kind, slash, prompt = name.partition("/")
        if not slash:
            raise NotFoundError("experiment", name, "write a prompt as TYPE/NAME")
        prompt_type, prompt = PromptType.parse(kind), check_name("prompt", prompt)
        definition = _summed(BUILT_IN_METRICS.get(metric) or MetricDefinition(name=metric))
        earliest = self._clock() - timedelta(days=HISTORY_DAYS)

        async def work(tx: Transaction) -> MetricHistory:
            if not await tx.versions.numbers(prompt_type, prompt):
                raise NotFoundError("experiment or prompt", name, "list prompts with `promptab list`")
            pruned = await tx.retention.pruned_before()
            since = earliest if pruned is None else max(earliest, pruned)
            found = await tx.history.of_prompt(prompt_type, prompt, definition, since=since)
            variance = None
            if definition.kind == "mean" and found.sums.units:
                variance = await tx.history.event_variance_of_prompt(
                    prompt_type, prompt, definition, since=since, center=found.sums.center
                )
            return MetricHistory.of(
                f"prompt {prompt_type}/{prompt}, {_stretch(earliest, since)}",
                definition,
                found.sums,
                event_variance=variance,
                units_per_day=_per_day(found.sums.units, _days_between(found.first, found.last)),
            )

        return await store.read(work)


async def _history_of_experiment(
    tx: Transaction, experiment: PromptExperiment, definition: MetricDefinition, now: datetime
) -> MetricHistory:
    found = await tx.rolled_up.sums_where(experiment, [definition])
    summaries = found.get("")
    by_variant = {} if summaries is None else summaries.sums.get(definition.name, {})
    sums = UnitSums.pooled(by_variant.get(experiment.control, {}).values())
    measured = sum(part.units for by_epoch in by_variant.values() for part in by_epoch.values())
    arms = {} if summaries is None else summaries.arms
    exposed = sum(counts.exposed for by_epoch in arms.values() for counts in by_epoch.values())
    variance = None
    # of the events that are left it would be another quantity than the sums over all
    whole = await tx.retention.pruned_before(experiment.experiment_id) is None
    if definition.kind == "mean" and sums.units and whole:
        variance = await tx.history.event_variance(
            experiment, definition, variant=experiment.control, center=sums.center
        )
    counts = await tx.exposures.analysed_counts(experiment)
    return MetricHistory.of(
        f"experiment {experiment.name}, variant {experiment.control}",
        definition,
        sums,
        event_variance=variance,
        # those whose window is still open are enrolled already, and as many of them will have the metric
        units_per_day=_per_day(
            sum(counts.values()) * measured / max(exposed, 1), _full_days(experiment, now)
        ),
        before=await _before(tx, experiment, definition),
        tuning_units=experiment.plan.tuning_units,
    )


async def _before(
    tx: Transaction, experiment: PromptExperiment, definition: MetricDefinition
) -> tuple[Mapping[int, CovariateSums], Mapping[int, CovariateSums]] | None:
    """Return the first treatment's and the control's units with their past, where the metric has one."""
    if definition.history_days is None:
        return None
    sums = await tx.rolled_up.covariate_sums(experiment, definition, days=definition.history_days)
    treatment = next(variant.key for variant in experiment.variants if variant.key != experiment.control)
    return sums.get(treatment, {}), sums.get(experiment.control, {})


def _full_days(experiment: PromptExperiment, now: datetime) -> float:
    """Return how many days the experiment has enrolled, a day at half the traffic being half a day."""
    end = min(time for time in (experiment.ended_at, experiment.ends_at, now) if time is not None)
    days = 0.0
    for at, (start, share) in enumerate(experiment.traffic_history):
        following = experiment.traffic_history[at + 1 :]
        stop = min(end, following[0][0]) if following else end
        begun = start if experiment.starts_at is None else max(start, experiment.starts_at)
        days += share * max(0.0, (stop - begun) / timedelta(days=1))
    return days


def _stretch(earliest: datetime, since: datetime) -> str:
    if since == earliest:
        return f"the last {HISTORY_DAYS} days"
    return f"since {since:%Y-%m-%d} (earlier events have been pruned)"


def _days_between(first: datetime | None, last: datetime | None) -> float:
    return 0.0 if first is None or last is None else (last - first) / timedelta(days=1)


def _per_day(units: float, days: float) -> float | None:
    """A morning tells nothing of a day."""
    return units / days if units and days >= 1.0 else None


def _summed(definition: MetricDefinition) -> MetricDefinition:
    if definition.kind == "quantile":
        raise InvalidInputError(
            "metric", definition.name, "a share, a mean or a ratio", "a quantile is no sum over units"
        )
    return definition


def _replayed(
    experiment: PromptExperiment,
    definition: MetricDefinition,
    units: Sequence[UnitTotal],
    method: Method,
    confidence: float,
    runs: int,
    seed: int,
) -> ReplayResult:
    from promptab.analysis.replaying import replay_analysis  # noqa: PLC0415 - brings scipy, which only this needs

    return replay_analysis(
        experiment, definition, units, method=method, confidence=confidence, runs=runs, seed=seed
    )


def _crossed(
    first: PromptExperiment,
    second: PromptExperiment,
    definition: MetricDefinition,
    cells: Mapping[Cell, CrossedUnits],
    confidence: float,
) -> InteractionResult:
    """Put the cells together by pair of epochs."""
    from promptab.analysis.crossing import crossed  # noqa: PLC0415 - brings scipy, which only this needs

    epochs = sorted({(cell.epoch, cell.other_epoch) for cell in cells})
    by_epochs = {
        pair: {
            (cell.variant, cell.other_variant): units
            for cell, units in cells.items()
            if (cell.epoch, cell.other_epoch) == pair
        }
        for pair in epochs
    }
    return crossed(
        first,
        second,
        definition,
        strata=[{key: units.sums for key, units in by_epochs[pair].items()} for pair in epochs],
        dealt=[{key: units.exposed for key, units in by_epochs[pair].items()} for pair in epochs],
        confidence=confidence,
    )
