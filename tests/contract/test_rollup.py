"""The roll-up against the same sums from the events one by one, after histories of every kind."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from promptab import Lab, PromptExperiment, StateError, Tokens
from promptab.plan import AnalysisPlan
from promptab.stats.metric import BUILT_IN_METRICS, MEASURES, MetricDefinition
from promptab.stores.base import Store, Transaction
from promptab.stores.opening import open_store
from promptab.stores.queries import rollup, unit_totals
from promptab.stores.queries.events import MetricSums
from promptab.stores.queries.rollup import Summaries
from tests.clock import SettableClock
from tests.contract.plain_sums import History, assert_same, own_events, pairs, unit_sums
from tests.contract.records import NOON, a_use, an_epoch, an_experiment, an_exposure, new_id

UNITS = ("u1", "u2", "u3", "session:s", "session:t")
PLAN = AnalysisPlan(
    metrics=(
        MetricDefinition(name="capped_cost", measure="cost", cap=20.0),
        MetricDefinition(name="capped_m", measure="m", cap=-1.5),
        MetricDefinition(name="spend", kind="mean_per_unit", measure="cost", cap=60.0),
        MetricDefinition(name="m_per_unit", kind="mean_per_unit", measure="m"),
        MetricDefinition(name="engaged", kind="share_of_units", measure="n.1"),
        MetricDefinition(name="failing", kind="share_of_units", measure="error_rate"),
        MetricDefinition(name="m_per_success", kind="ratio", measure="m", denominator="success_rate"),
        MetricDefinition(name="cost_per_n", kind="ratio", measure="cost", denominator="n.1", cap=20.0),
        MetricDefinition(name="error_rate", kind="proportion", direction="decrease"),
        MetricDefinition(name="rating", kind="mean_per_unit"),
        MetricDefinition(name="slowest", kind="quantile", measure="response_time", quantile=0.9),
    )
)


class Told(NamedTuple):
    """One step of a history."""

    kind: str
    unit: str
    variant: str | None
    epoch: int
    source: str
    minute: int
    measures: Mapping[str, object]


values = st.integers(-10_000, 10_000).map(lambda cents: cents / 100)
amounts = st.integers(0, 10_000).map(lambda cents: cents / 100)
measures = st.fixed_dictionaries(
    {},
    optional={
        "success": st.booleans(),
        "response_time": amounts,
        "cost": amounts,
        "user_rating": st.sampled_from([1.0, 2.5, 5.0]),
        "tokens": st.integers(0, 10**6).map(lambda total: Tokens(total=total)),
        "metrics": st.dictionaries(st.sampled_from(["m", "n.1"]), values, max_size=2),
    },
)
kinds = ["exposure", "exposure", *["event"] * 6, "fold", "fold", "alias", "override", "reset"]


def histories(*allowed: str) -> st.SearchStrategy[list[Told]]:
    step = st.builds(
        Told,
        kind=st.sampled_from([kind for kind in kinds if kind in allowed]),
        unit=st.sampled_from(UNITS),
        variant=st.sampled_from(["a", "b", "a", None]),
        epoch=st.sampled_from([1, 2]),
        source=st.sampled_from(["assigned", "assigned", "assigned", "override"]),
        minute=st.integers(0, 600),
        measures=measures,
    )
    return st.lists(step, max_size=40)


@pytest.fixture
def runner(store_url: str) -> Iterator[tuple[asyncio.Runner, Store]]:
    """A loop with one open store in it, for many examples one after the other."""
    with asyncio.Runner() as loop:
        store = loop.run(open_store(store_url))
        yield loop, store
        loop.run(store.close())


def small_steps(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Let a history of some dozen events be a backlog of many steps."""
    monkeypatch.setattr(unit_totals, "EVENTS_PER_STEP", size)
    monkeypatch.setattr(rollup, "UNITS_PER_STEP", size)


async def begun(store: Store, **fields: Any) -> PromptExperiment:
    experiment = an_experiment(plan=PLAN, **fields)

    async def begin(tx: Transaction) -> None:
        await tx.experiments.insert(experiment)
        for number in (1, 2):
            starts_at = NOON + timedelta(minutes=number)
            await tx.experiments.add_epoch(an_epoch(experiment, number, starts_at=starts_at))

    await store.write(begin)
    return experiment


async def folded(store: Store, experiment: PromptExperiment, clock: SettableClock) -> Summaries:
    """Fold whatever there is, and check that it stays so."""

    async def fold(tx: Transaction) -> bool:
        return await tx.rollup.fold(experiment, now=clock())

    while await store.write(fold):
        pass

    async def look(tx: Transaction) -> tuple[bool, Summaries]:
        return await tx.rollup.is_behind(experiment, now=clock()), await tx.rollup.summaries(experiment)

    behind, first = await store.read(look)
    assert not behind
    assert not await store.write(fold)
    assert await store.read(look) == (False, first)
    return first


async def tell(lab: Lab, experiment: PromptExperiment, told: Told, tag: str, version_id: str) -> None:
    """Do one step; every example has units of its own, since aliases are of the whole store."""
    unit = f"{told.unit}/{tag}"
    at = NOON + timedelta(minutes=told.minute)
    match told.kind:
        case "event":
            event = a_use(
                experiment, unit, told.variant, version_id=version_id, timestamp=at, **told.measures
            )
            await lab.store.record(event)
        case "exposure":
            await lab.store.keep(
                an_exposure(
                    experiment, unit, variant=told.variant or "b", epoch=told.epoch, source=told.source, at=at
                )
            )
        case "alias" if unit.startswith("session:"):
            with suppress(StateError):  # it is another user already
                await lab.experiments.alias(unit.removeprefix("session:"), f"u{told.epoch}/{tag}")
        case "override":
            # of everybody in one case of many: it ends the analysis
            shown = "*" if told.minute == 0 else unit
            await lab.experiments.set_override(experiment.experiment_id, shown, told.variant)
        case "reset":
            await lab.metrics.reset_metrics(version_id)


async def history_of(store: Store, experiment: PromptExperiment, version_id: str) -> History:
    async def look(tx: Transaction) -> History:
        current = await tx.experiments.by_id(experiment.experiment_id)
        assert current is not None
        return History(
            await tx.events.listing(version_id),
            await tx.exposures.listing(experiment.experiment_id),
            await tx.experiments.aliases_since(NOON - timedelta(days=9)),
            current.overrides,
        )

    return await store.read(look)


def defined(names: Sequence[str]) -> list[MetricDefinition]:
    """The metrics that a roll-up keeps: the plan's, the measures and the cost per success."""
    always = {name: BUILT_IN_METRICS[name] for name in (*MEASURES, "cost_per_success")}
    named = {name: MetricDefinition(name=name) for name in names}
    return list((always | named | {m.name: m for m in PLAN.metrics if m.kind != "quantile"}).values())


def assert_equals(summaries: Summaries, history: History, events_of: Any = own_events) -> None:
    expected = {
        metric.name: unit_sums(pairs(history, metric, events_of=events_of))
        for metric in defined(["m", "n.1"])
    }
    assert set(summaries.sums) == {name for name, sums in expected.items() if sums}
    for name, sums in summaries.sums.items():
        assert_same(sums, expected[name])
    counts: dict[tuple[str, int], list[int]] = {}
    for exposure in history.members():
        count = counts.setdefault((exposure.variant, exposure.epoch), [0, 0, 0])
        others = [e for e in history.events_of(exposure.unit) if e.variant not in {None, exposure.variant}]
        count[0] += 1
        count[1] += bool(events_of(history, exposure))
        count[2] += bool(others)
    found = {(v, e): list(count) for v, by_epoch in summaries.arms.items() for e, count in by_epoch.items()}
    assert found == counts


@pytest.mark.parametrize("size", [3, 1_000], ids=["many steps", "one step"])
@given(history=histories("exposure", "event", "fold", "alias", "override", "reset"))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_summaries_equal_the_sums_over_all_events_after_any_history(
    runner: tuple[asyncio.Runner, Store],
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    history: list[Told],
) -> None:
    small_steps(monkeypatch, size)
    loop, store = runner
    loop.run(_check_history(store, history))


async def _check_history(store: Store, told: list[Told]) -> None:
    clock = SettableClock()
    lab = Lab(store, clock=clock)
    experiment, version_id, tag = await begun(store), new_id(), new_id()
    for step in [*told, Told("fold", "", None, 1, "", 0, {})]:
        if step.kind != "fold":
            await tell(lab, experiment, step, tag, version_id)
            continue
        summaries = await folded(store, experiment, clock)
        whole = await history_of(store, experiment, version_id)
        assert_equals(summaries, whole)
        left_out = whole.overrides

        async def by_events(tx: Transaction, without: Collection[str] = left_out) -> MetricSums:
            return await tx.events.unit_sums(experiment.experiment_id, without=without)

        slow = await store.read(by_events)
        declared = {metric.name for metric in PLAN.metrics}
        for name, sums in slow.items():
            if name not in declared:
                assert_same(summaries.sums[name], sums)
    await store.write(lambda tx: tx.experiments.delete(experiment.experiment_id))
