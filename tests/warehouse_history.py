"""A history with everything in it that summaries have to tell apart, and the comparison of two that should be equal."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest

from promptab import Lab, MetricDefinition, PromptExperiment
from promptab.analysis.evidence import Evidence, MetricEvidence
from promptab.gathering import Gathered, Question, gather
from promptab.stats.summary import UnitSums
from promptab.stores.base import Transaction
from promptab.totalling import add_up
from tests.clock import SettableClock

PLAN: dict[str, Any] = {
    "metrics": [
        {"name": "capped_cost", "measure": "cost", "cap": 4.0},
        {"name": "cost", "history_days": 3},
        {"name": "spend", "kind": "mean_per_unit", "measure": "cost", "cap": 9.0, "history_days": 1.5},
        {"name": "m_per_unit", "kind": "mean_per_unit", "measure": "m"},
        {"name": "engaged", "kind": "share_of_units", "measure": "n.1"},
        {
            "name": "m_per_success",
            "kind": "ratio",
            "measure": "m",
            "denominator": "success",
            "history_days": 2,
        },
        {"name": "cost_per_n", "kind": "ratio", "measure": "cost", "denominator": "n.1", "cap": 4.0},
        {"name": "error_rate", "kind": "proportion", "direction": "decrease"},
        {"name": "slowest", "kind": "quantile", "measure": "response_time", "quantile": 0.8},
        {"name": "big_m", "kind": "quantile", "measure": "m", "quantile": 0.5},
    ]
}
SEGMENTS = ("plan", "age")


@dataclass(frozen=True, slots=True)
class Recorded:
    """An experiment in a store, and what is asked of it."""

    lab: Lab
    experiment: PromptExperiment
    since: datetime | None
    now: datetime

    async def evidence(self, metrics: Sequence[str | MetricDefinition] | None = None) -> Evidence:
        """Return what the store has summed up."""
        await self.lab.analyze(self.experiment.experiment_id)
        await add_up(self.lab.store, "units")
        question = Question(metrics, SEGMENTS, self.since)

        async def work(tx: Transaction) -> Gathered:
            return await gather(tx, self.experiment, question, now=self.now)

        return (await self.lab.store.read(work)).evidence


async def record_history(
    lab: Lab, clock: SettableClock, *, units: int, window_hours: float | None, since: bool = False
) -> Recorded:
    """Let units come over four days: before the experiment, in two epochs, as sessions, by hand, and out of place."""
    rng = random.Random(7)
    numbers = range(units)
    for _ in range(2):
        for number in numbers:
            if rng.random() < 0.7:
                await record(lab, rng, None, None, f"u{number}")
        clock.advance(hours=19)
    variants = [{"key": key, "config": {"t": key}} for key in ("a", "b", "c")]
    plan = {**PLAN, "window_hours": window_hours}
    made = [
        await lab.experiments.create_experiment(name, "config", variants, salt=name, plan=plan)
        for name in ("e", "other")
    ]
    await lab.experiments.set_override("e", "u3", "b")
    middle = clock()
    for day in range(4):
        if day == 2:
            middle = clock()
            await lab.experiments.update_weights("e", {"a": 0.2, "b": 0.5, "c": 0.3})
            clock.advance(seconds=10)
        for number in numbers[: units * (day + 2) // 5]:
            # a session by itself now and then, that turns out to be the user below
            session = f"s{number}" if number % 11 == 0 and day == 0 else None
            given = {"plan": ("free", "pro")[number % 2], "age": number % 3} if number % 7 else {}
            for name in ("e", "other"):
                assignment = await lab.experiments.assign(
                    name, None if session else f"u{number}", session_id=session, attributes=given
                )
                unit = assignment.unit
                for _ in range(rng.randrange(3)):
                    wrong = rng.random() < 0.05
                    variant = "c" if wrong else None if rng.random() < 0.1 else assignment.variant
                    await record(lab, rng, name, variant, unit)
                clock.advance(seconds=7)
        clock.advance(hours=15)
    for number in numbers[::11]:
        await lab.experiments.alias(f"s{number}", f"u{number}")
    # of units that were never exposed, of nobody, and long before
    await lab.metrics.record_result("e", "m", 5.0, user_id="stranger")
    await record(lab, rng, "e", "a", None)
    await record(lab, rng, "e", None, "u1", timestamp=clock() - timedelta(days=6))
    clock.advance(days=2)
    await lab.store.flush()
    found = await lab.experiments.get_experiment(made[0].experiment_id)
    assert found is not None
    return Recorded(lab, found, middle if since else None, clock())


async def record(
    lab: Lab,
    rng: random.Random,
    experiment: str | None,
    variant: str | None,
    unit: str | None,
    **fields: Any,
) -> None:
    """Record an event with some of the measures."""

    def some(value: Any) -> Any:
        return value if rng.random() < 0.7 else None

    named = {name: rng.uniform(low, 9.0) for name, low in (("m", -3.0), ("n.1", 0.0)) if rng.random() < 0.6}
    await lab.metrics.record_event(
        None,
        success=some(rng.random() < 0.6),
        response_time=some(rng.gammavariate(2.0, 0.3)),
        cost=some(rng.gammavariate(1.0, 3.0)),
        tokens=some(rng.randrange(10, 900)),
        user_rating=some(float(rng.randrange(1, 6))),
        metrics=named,
        experiment_id=experiment,
        variant=variant,
        user_id=unit,
        **fields,
    )


def assert_same(found: Evidence, expected: Evidence) -> None:
    """Compare every number, sums of residuals about the same center; to 1e-9 of their size."""
    assert found.arms == expected.arms, (found.arms, expected.arms)
    assert {metric.definition.name for metric in found.others} == {
        metric.definition.name for metric in expected.others
    }
    by_name = {metric.definition.name: metric for metric in found.others}
    assert_metric(found.primary, expected.primary)
    for metric in expected.others:
        assert_metric(by_name[metric.definition.name], metric)
    segments = {(one.attribute, one.value): one for one in found.segments}
    assert len(segments) == len(found.segments) == len(expected.segments)
    for segment in expected.segments:
        same = segments[segment.attribute, segment.value]
        assert same.arms == segment.arms
        assert_metric(same.primary, segment.primary)


def assert_metric(found: MetricEvidence, expected: MetricEvidence) -> None:
    assert found.definition == expected.definition
    assert_sums(found.sums, expected.sums)
    for variant, by_epoch in expected.quantiles.items():
        for epoch, arm in by_epoch.items():
            same = found.quantiles[variant][epoch]
            assert (same.value, same.units, same.events) == (arm.value, arm.units, arm.events)
    assert {v: set(e) for v, e in found.quantiles.items()} == {
        v: set(e) for v, e in expected.quantiles.items()
    }
    assert (found.units is None) == (expected.units is None), expected.definition
    for variant, by_number in (expected.units or {}).items():
        for epoch, totals in by_number.items():
            same_totals = (found.units or {})[variant][epoch]
            flat = [number for pair in totals for number in pair]
            assert [number for pair in same_totals for number in pair] == pytest.approx(flat, rel=1e-9)
    assert (found.history is None) == (expected.history is None)
    for variant, by_past in (expected.history or {}).items():
        for epoch, sums in by_past.items():
            past = (found.history or {})[variant][epoch]
            assert past._asdict() == pytest.approx(sums._asdict(), rel=1e-9, abs=1e-9 * scale(sums))


def assert_sums(
    found: Mapping[str, Mapping[int, UnitSums]], expected: Mapping[str, Mapping[int, UnitSums]]
) -> None:
    assert {v: set(e) for v, e in found.items()} == {v: set(e) for v, e in expected.items()}
    for variant, by_epoch in expected.items():
        for epoch, sums in by_epoch.items():
            same = found[variant][epoch].recentered(sums.center)
            assert same._asdict() == pytest.approx(sums._asdict(), rel=1e-9, abs=1e-9 * scale(sums))


def scale(sums: Any) -> float:
    """Sums of residuals may be nearly nothing beside what they are made from."""
    return float(abs(sums.rr) + abs(sums.nn) * (1.0 + sums.center**2) + abs(sums.s))
