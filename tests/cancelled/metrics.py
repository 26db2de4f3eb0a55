"""The coroutines of `MetricsCollector`. Those that analyse find events that nobody has rolled up yet."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from promptab.managed import utc_now
from tests.cancelled.attempts import (
    FIRST,
    SECOND,
    Attempt,
    Preparation,
    Running,
    Stage,
    reads,
    recorded,
    running,
)

if TYPE_CHECKING:
    from promptab.analysis.result import AnalysisResult
    from promptab.models import MetricEvent, PromptMetrics

RATES = {FIRST: 0.333, SECOND: 1.0}
UNITS_TO_REPLAY = 120


def rates(result: AnalysisResult) -> dict[str, float]:
    estimates = result.metrics["success_rate"].estimates
    return {key: round(estimate.value or 0.0, 3) for key, estimate in estimates.items()}


async def analyzing(stage: Stage) -> Attempt:
    begun = await recorded(stage)
    return reads(
        lambda: stage.lab.metrics.analyze(begun.experiment_id, series="day", metrics=["p95_response_time"]),
        (RATES, {FIRST: 3, SECOND: 3}, 1),
        lambda result: (rates(result), dict(result.units), len(result.series)),
    )


async def comparing(stage: Stage) -> Attempt:
    begun = await recorded(stage)
    return reads(lambda: stage.lab.metrics.compare(begun.experiment_id), RATES, rates)


async def spreading(stage: Stage) -> Attempt:
    begun = await recorded(stage)
    return reads(
        lambda: stage.lab.metrics.distribution(begun.experiment_id),
        {FIRST: 3, SECOND: 3},
        lambda found: {histogram.variant: sum(histogram.counts) for histogram in found},
    )


async def crossed(stage: Stage) -> tuple[str, str]:
    """Start two experiments on the same units, with events in the first."""
    begun = await recorded(stage)
    other = await stage.lab.experiments.create_experiment(
        f"{stage.name}-x", "config", [{"key": "off", "config": {}}, {"key": "on", "config": {}}]
    )
    for number in range(3):
        for version in (FIRST, SECOND):
            await stage.lab.experiments.assign(other.experiment_id, f"u{number}-{version}")
    return begun.experiment_id, other.experiment_id


async def crossing(stage: Stage) -> Attempt:
    one, other = await crossed(stage)
    return reads(lambda: stage.lab.metrics.interaction(one, other), 6, lambda result: result.units)


async def looking_back(stage: Stage) -> Attempt:
    begun = await recorded(stage)
    return reads(
        lambda: stage.lab.metrics.measured_history(begun.experiment_id),
        (3, 0.333),
        lambda history: (history.units, round(history.mean or 0.0, 3)),
    )


async def replaying(stage: Stage) -> Attempt:
    begun = await recorded(stage, UNITS_TO_REPLAY)
    return reads(
        lambda: stage.lab.metrics.replay(begun.experiment_id, runs=5),
        (UNITS_TO_REPLAY // 2, 5),
        lambda result: (result.units, result.runs),
    )


def totals(metrics: PromptMetrics) -> tuple[int, int]:
    return metrics.total_events, metrics.success_count


OF_EACH = {FIRST: (3, 1), SECOND: (3, 3)}


def by_number(begun: Running, found: Mapping[str, PromptMetrics]) -> dict[str, tuple[int, int]]:
    return {version.version: totals(found[version.version_id]) for version in (begun.first, begun.second)}


async def reading_metrics(stage: Stage) -> Attempt:
    begun = await recorded(stage)
    return reads(lambda: stage.lab.metrics.get_metrics(begun.first.version_id), OF_EACH[FIRST], totals)


async def reading_side_by_side(stage: Stage) -> Attempt:
    begun = await recorded(stage)
    return reads(
        lambda: stage.lab.metrics.compare_variants([begun.first.version_id, begun.second.version_id]),
        OF_EACH,
        lambda found: by_number(begun, found),
    )


async def summing_up(stage: Stage) -> Attempt:
    begun = await recorded(stage)
    return reads(
        lambda: stage.lab.metrics.get_summary([begun.first.version_id, begun.second.version_id]),
        ((6, 4), OF_EACH),
        lambda summary: (totals(summary.metrics), by_number(begun, summary.by_version)),
    )


async def ranking(stage: Stage) -> Attempt:
    begun = await recorded(stage)
    ids = [begun.first.version_id, begun.second.version_id]
    return reads(
        lambda: stage.lab.metrics.get_top_versions(ids),
        ids[::-1],
        lambda ranked: [version_id for version_id, _ in ranked],
    )


async def reading_over_time(stage: Stage) -> Attempt:
    begun = await recorded(stage)
    return reads(
        lambda: stage.lab.metrics.get_version_performance_over_time(
            begun.second.version_id, interval_hours=24 * 366
        ),
        [OF_EACH[SECOND]],
        lambda periods: [totals(period.metrics) for period in periods],
    )


async def reading_events(stage: Stage) -> Attempt:
    begun = await recorded(stage)
    return reads(lambda: stage.lab.metrics.get_events(begun.first.version_id), 3, len)


async def exporting(stage: Stage) -> Attempt:
    begun = await recorded(stage)

    async def look() -> object:
        # whatever is there is whole, and what was being written is gone
        assert list(stage.folder.rglob(".*.tmp")) == []
        return sum(pq.ParquetFile(file).metadata.num_rows for file in stage.folder.rglob("events.parquet"))

    return Attempt(
        lambda: stage.lab.metrics.export_events(stage.folder, experiment=begun.experiment_id),
        look,
        none=0,
        whole=6,
    )


async def flushing(stage: Stage) -> Attempt:
    begun = await running(stage)
    for _ in range(3):
        assert stage.lab.metrics.record_nowait(begun.first.version_id, True)

    async def look() -> object:
        await stage.lab.metrics.flush()
        return len(await stage.lab.metrics.get_events(begun.first.version_id))

    # they are written, whether anybody waits for it or not
    return Attempt(stage.lab.metrics.flush, look, none=3, whole=3)


async def pruning(stage: Stage) -> Attempt:
    begun = await recorded(stage)
    before = utc_now() + timedelta(minutes=1)

    async def look() -> object:
        # not of the second version, which has the newest event of all, and that one stays
        events = await stage.lab.metrics.get_events(begun.first.version_id)
        # the totals have them whether they are there or not
        kept = totals(await stage.lab.metrics.get_metrics(begun.first.version_id))
        return len(events), kept, rates(await stage.lab.metrics.compare(begun.experiment_id))

    return Attempt(
        lambda: stage.lab.metrics.prune_events(before),
        look,
        none=(3, OF_EACH[FIRST], RATES),
        whole=(0, OF_EACH[FIRST], RATES),
    )


async def asking_what_was_pruned(stage: Stage) -> Attempt:
    begun = await recorded(stage)
    return reads(lambda: stage.lab.metrics.pruned_before(begun.experiment_id), None, lambda moment: moment)


async def resetting(stage: Stage) -> Attempt:
    begun = await recorded(stage)

    async def look() -> object:
        found = totals(await stage.lab.metrics.get_metrics(begun.second.version_id))
        return found, rates(await stage.lab.metrics.compare(begun.experiment_id))

    return Attempt(
        lambda: stage.lab.metrics.reset_metrics(begun.second.version_id),
        look,
        none=(OF_EACH[SECOND], RATES),
        whole=((0, 0), {FIRST: RATES[FIRST], SECOND: 0.0}),
    )


async def recording(stage: Stage) -> Attempt:
    begun = await running(stage)

    async def look() -> object:
        await stage.lab.store.flush()
        events = await stage.lab.metrics.get_events(begun.first.version_id)
        return told(events), await stage.lab.experiments.get_experiment_assignments(begun.experiment_id)

    return Attempt(
        lambda: stage.lab.metrics.record_event(
            begun.first.version_id,
            True,
            metrics={"m": 1.0},
            experiment_id=begun.experiment_id,
            variant=FIRST,
            user_id="u1",
        ),
        look,
        none=([], {}),
        whole=([(True, {"m": 1.0})], {"u1": FIRST}),
    )


def told(events: list[MetricEvent]) -> list[tuple[bool | None, dict[str, float]]]:
    return [(event.success, dict(event.metrics)) for event in events]


async def importing(stage: Stage) -> Attempt:
    begun = await running(stage)

    async def look() -> object:
        events = await stage.lab.metrics.get_events(begun.second.version_id)
        return len(events), await stage.lab.experiments.get_experiment_assignments(begun.experiment_id)

    told = [
        {
            "version_id": begun.second.version_id,
            "experiment_id": begun.experiment_id,
            "variant": SECOND,
            "user_id": f"u{number}",
        }
        for number in range(4)
    ]
    return Attempt(
        lambda: stage.lab.metrics.record_many(told),
        look,
        none=(0, {}),
        whole=(4, {f"u{number}": SECOND for number in range(4)}),
    )


async def recording_a_result(stage: Stage) -> Attempt:
    begun = await recorded(stage)

    async def look() -> object:
        await stage.lab.store.flush()
        result = await stage.lab.metrics.compare(begun.experiment_id)
        rating = result.metrics.get("rating")
        return rating and {key: estimate.events for key, estimate in rating.estimates.items()}

    return Attempt(
        lambda: stage.lab.metrics.record_result(stage.name, "rating", 5.0, user_id=f"u1-{SECOND}"),
        look,
        none=None,
        whole={FIRST: 0, SECOND: 1},
    )


PREPARATIONS: dict[str, Preparation] = {
    "analyze": analyzing,
    "compare": comparing,
    "compare_variants": reading_side_by_side,
    "distribution": spreading,
    "export_events": exporting,
    "flush": flushing,
    "get_events": reading_events,
    "get_metrics": reading_metrics,
    "get_summary": summing_up,
    "get_top_versions": ranking,
    "get_version_performance_over_time": reading_over_time,
    "interaction": crossing,
    "measured_history": looking_back,
    "prune_events": pruning,
    "pruned_before": asking_what_was_pruned,
    "record_event": recording,
    "record_many": importing,
    "record_result": recording_a_result,
    "replay": replaying,
    "reset_metrics": resetting,
}
