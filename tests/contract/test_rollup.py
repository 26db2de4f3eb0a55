"""The roll-up against the same sums from the events one by one, after histories of every kind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from promptab import Lab, MetricEvent, PromptExperiment, StateError, Tokens
from promptab.models import Exposure
from promptab.plan import AnalysisPlan
from promptab.stats.metric import BUILT_IN_METRICS, MEASURES, MetricDefinition
from promptab.stats.summary import UnitSums
from promptab.stores.base import Store, Transaction
from promptab.stores.opening import open_store
from promptab.stores.queries import rollup, unit_totals
from promptab.stores.queries.events import MetricSums
from promptab.stores.queries.rolled_up import Summaries
from promptab.stores.queries.sums_over_time import SumsAt
from promptab.stores.queries.unit_values import UnitValues
from tests.clock import SettableClock
from tests.contract.plain_sums import History, assert_same, own_events, pairs, unit_sums
from tests.contract.records import NOON, a_use, an_epoch, an_experiment, an_exposure, new_id
from tests.processes import start

PLANS = ("free", "pro", "")
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
    experiment = an_experiment(**{"plan": PLAN, **fields})

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

    while await store.write(fold, shown=False):
        pass

    async def look(tx: Transaction) -> tuple[bool, Summaries]:
        return await tx.rollup.is_behind(experiment, now=clock()), await tx.rolled_up.summaries(experiment)

    behind, first = await store.read(look)
    assert not behind
    assert not await store.write(fold, shown=False)
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
                    experiment,
                    unit,
                    variant=told.variant or "b",
                    epoch=told.epoch,
                    source=told.source,
                    at=at,
                    attributes={"plan": PLANS[told.minute % 2]} if told.minute % 3 else {},
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


def at_any_time(_: MetricEvent, __: Exposure) -> bool:
    return True


def assert_equals(
    summaries: Summaries,
    history: History,
    counts_in: Callable[[MetricEvent, Exposure], bool] = at_any_time,
) -> None:
    def events_of(history: History, exposure: Exposure) -> list[MetricEvent]:
        return [event for event in own_events(history, exposure) if counts_in(event, exposure)]

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
        others = [
            event
            for event in history.events_of(exposure.unit)
            if event.variant not in {None, exposure.variant} and counts_in(event, exposure)
        ]
        count[0] += 1
        count[1] += bool(events_of(history, exposure))
        count[2] += bool(others)
    found = {(v, e): list(count) for v, by_epoch in summaries.arms.items() for e, count in by_epoch.items()}
    assert found == counts


@pytest.mark.parametrize("size", [3, 1_000], ids=["many steps", "one step"])
@given(history=histories("exposure", "event", "fold", "alias", "override", "reset"))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


@given(history=histories("exposure", "event", "fold", "alias", "override"))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_read_by_unit_by_segment_and_by_day_agrees_with_the_events(
    runner: tuple[asyncio.Runner, Store], history: list[Told]
) -> None:
    loop, store = runner
    loop.run(_check_readings(store, history))


async def _check_readings(store: Store, told: list[Told]) -> None:
    clock = SettableClock()
    lab = Lab(store, clock=clock)
    experiment, version_id, tag = await begun(store), new_id(), new_id()
    for step in told:
        if step.kind == "fold":
            await folded(store, experiment, clock)
        else:
            await tell(lab, experiment, step, tag, version_id)
    await folded(store, experiment, clock)
    whole = await history_of(store, experiment, version_id)
    current = await store.read(lambda tx: tx.experiments.by_id(experiment.experiment_id))
    assert current is not None
    since = NOON + timedelta(minutes=250)
    read = ("success_rate", "m", "capped_m", "spend", "failing", "cost_per_n")
    for metric in (each for each in defined(["m", "n.1"]) if each.name in read):
        counted = pairs(whole, metric)

        async def look(tx: Transaction, metric: MetricDefinition = metric) -> tuple[Any, ...]:
            return (
                await tx.rolled_up.unit_values(current, metric),
                await tx.rolled_up.sums_where(current, [metric], since=since),
                await tx.rolled_up.sums_where(current, [metric], segment="plan"),
                await tx.rolled_up.segment_unit_values(current, metric, "plan", PLANS[1:]),
            )

        values, late, by_plan, plan_values = await store.read(look)
        expected: dict[str, dict[int, list[tuple[Any, Any]]]] = {}
        for pair in counted:
            expected.setdefault(pair.exposure.variant, {}).setdefault(pair.exposure.epoch, []).append(
                (pytest.approx(pair.n, abs=1e-9), pytest.approx(pair.s, abs=1e-9))
            )
        assert values == expected
        assert_same(_sums(late, "", metric), unit_sums(pair for pair in counted if pair.exposure.at >= since))
        for plan in PLANS:
            of_plan = [pair for pair in counted if pair.exposure.attributes.get("plan", "") == plan]
            assert_same(_sums(by_plan, plan, metric), unit_sums(of_plan))
        for plan in PLANS[1:]:
            assert_same(_by_unit(plan_values.get(plan, {})), _sums(by_plan, plan, metric))
        assert set(plan_values) <= set(PLANS[1:])
        await _check_hours(store, current, metric, values)
        await _check_hours(store, current, metric, _sums(late, "", metric), since=since)
    await store.write(lambda tx: tx.experiments.delete(experiment.experiment_id))


async def _check_hours(
    store: Store,
    experiment: PromptExperiment,
    metric: MetricDefinition,
    now: UnitValues | Mapping[str, Mapping[int, UnitSums]],
    since: datetime | None = None,
) -> None:
    """Hold each hour's units against its sums, and the last hour against what there is `now`."""

    async def look(tx: Transaction) -> tuple[list[SumsAt], dict[datetime, UnitValues]]:
        hourly = await tx.rolled_up.daily_sums(experiment, metric, seconds=3_600, since=since)
        # not all of them are asked for
        moments = [each.at for each in hourly[1:]]
        return hourly, await tx.rolled_up.daily_unit_values(
            experiment, metric, moments, seconds=3_600, since=since
        )

    hourly, values = await store.read(look)
    assert [each.at for each in hourly] == sorted({each.at for each in hourly})
    assert set(values) == {each.at for each in hourly[1:]}
    for moment in hourly[1:]:
        assert_same(_by_unit(values[moment.at]), moment.sums)
    last = hourly[-1].sums if hourly else {}
    assert_same(last, {key: {e: _unit_sums(part) for e, part in by.items()} for key, by in now.items()})


def _by_unit(values: UnitValues) -> dict[str, dict[int, UnitSums]]:
    return {
        variant: {epoch: _unit_sums(units) for epoch, units in by_epoch.items()}
        for variant, by_epoch in values.items()
    }


def _unit_sums(part: UnitSums | Sequence[tuple[float, float]]) -> UnitSums:
    """Sum units up; those that count with nothing to divide and to divide by are no units to `UnitSums.of`."""
    return part if isinstance(part, UnitSums) else UnitSums.of(part, center=0.0)._replace(units=len(part))


def _sums(found: Mapping[str, Summaries], value: str, metric: MetricDefinition) -> Any:
    return found[value].sums.get(metric.name, {}) if value in found else {}


async def test_numbers_of_deleted_events_that_are_given_again_are_not_skipped(store: Store) -> None:
    clock = SettableClock()
    lab = Lab(store, clock=clock)
    kept, dropped = await begun(store), await begun(store, name="other", layer="other")
    first, second = new_id(), new_id()
    for unit in ("u1", "u2"):
        await store.record(a_use(kept, unit, "a", version_id=first, cost=1.0, success=True))
    for number in range(5):
        await store.record(a_use(dropped, f"u{number}", "b", version_id=second, cost=2.0))
    # the watermark of both is behind the events that are deleted next
    for experiment in (kept, dropped):
        await folded(store, experiment, clock)
    assert await lab.metrics.reset_metrics(second) == 5
    for unit in ("u1", "u3"):
        await store.record(a_use(kept, unit, "a", version_id=first, cost=4.0, success=False))
    await store.record(a_use(dropped, "u9", "b", version_id=second, cost=8.0))
    costs = (await folded(store, kept, clock)).sums["cost"]["a"][1]
    assert (costs.units, costs.n, costs.s) == (3, 4.0, 10.0)
    assert_equals(await folded(store, kept, clock), await history_of(store, kept, first))
    costs = (await folded(store, dropped, clock)).sums["cost"]["b"][1]
    assert (costs.units, costs.n, costs.s) == (1, 1.0, 8.0)


@pytest.mark.parametrize("size", [3, 1_000], ids=["many steps", "one step"])
@given(history=histories("exposure", "event", "alias"))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_with_a_window_the_events_in_it_count_once_it_has_closed(
    runner: tuple[asyncio.Runner, Store],
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    history: list[Told],
) -> None:
    small_steps(monkeypatch, size)
    loop, store = runner
    # exposures first: what a unit does before it is exposed is in no window
    ordered = sorted(history, key=lambda told: ("alias", "exposure", "event").index(told.kind))
    loop.run(_check_window(store, ordered))


async def _check_window(store: Store, told: list[Told]) -> None:
    clock = SettableClock()
    lab = Lab(store, clock=clock)
    experiment = await begun(store, plan=PLAN.model_copy(update={"window_hours": 2.0}))
    version_id, tag = new_id(), new_id()
    for step in told:
        await tell(lab, experiment, step, tag, version_id)
    clock.now = NOON
    assert (await folded(store, experiment, clock)).arms == {}
    clock.advance(hours=24)
    summaries = await folded(store, experiment, clock)
    assert_equals(summaries, await history_of(store, experiment, version_id), in_window)
    assert summaries.late == 0
    await store.write(lambda tx: tx.experiments.delete(experiment.experiment_id))


def in_window(event: MetricEvent, exposure: Exposure) -> bool:
    return timedelta(0) <= event.timestamp - exposure.at < timedelta(hours=2)


async def test_an_event_of_a_window_that_has_been_counted_is_late_and_changes_nothing(store: Store) -> None:
    clock = SettableClock()
    experiment = await begun(store, plan=PLAN.model_copy(update={"window_hours": 2.0}))
    await store.keep(an_exposure(experiment, "u1"))
    await store.record(a_use(experiment, "u1", "a", cost=1.0, timestamp=NOON + timedelta(hours=1)))
    clock.advance(hours=3)
    before = await folded(store, experiment, clock)
    await store.record(a_use(experiment, "u1", "a", cost=7.0, timestamp=NOON + timedelta(hours=1.5)))
    await store.record(a_use(experiment, "u1", "a", cost=9.0, timestamp=NOON + timedelta(hours=2.5)))
    after = await folded(store, experiment, clock)
    assert after.sums == before.sums
    assert (before.late, after.late) == (0, 1)


async def test_stores_that_record_and_fold_at_the_same_time_count_each_event_once(
    lasting_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_steps(monkeypatch, 4)
    clock = SettableClock()
    stores = [await open_store(lasting_url) for _ in range(3)]
    experiment, version_id = await begun(stores[0]), new_id()

    async def work(store: Store, who: int) -> None:
        async def fold(tx: Transaction) -> bool:
            return await tx.rollup.fold(experiment, now=clock())

        for turn in range(6):
            uses = [
                a_use(
                    experiment, f"u{(who + turn * each) % 11}", "a", version_id=version_id, cost=float(turn)
                )
                for each in range(9)
            ]
            await asyncio.gather(*(store.record(use) for use in uses))
            await store.write(fold, shown=False)

    await asyncio.gather(*(work(store, who) for who, store in enumerate(stores)))
    summaries = await folded(stores[1], experiment, clock)
    assert_equals(summaries, await history_of(stores[2], experiment, version_id))
    assert sum(part.n for part in summaries.sums["cost"]["a"].values()) == 3 * 6 * 9
    for store in stores:
        await store.close()


async def test_a_process_killed_while_it_folds_leaves_sums_that_are_right(lasting_url: str) -> None:
    store = await open_store(lasting_url)
    experiment = await begun(store)
    clock = SettableClock()
    for turn in range(4):
        worker = start("folding.py", lasting_url, experiment.experiment_id)
        try:
            assert worker.stdout is not None
            line = await asyncio.to_thread(worker.stdout.readline)
            assert line, worker.communicate(timeout=60)[1]
            # at another moment of a step each time
            await asyncio.sleep(0.01 * turn)
        finally:
            worker.kill()
            worker.communicate()

        async def both(tx: Transaction) -> tuple[Summaries, Summaries]:
            return await tx.rolled_up.summaries(experiment), await tx.rolled_up.recomputed(experiment)

        kept, recomputed = await store.read(both)
        assert kept.arms == recomputed.arms
        assert set(kept.sums) == set(recomputed.sums)
        for name, sums in kept.sums.items():
            assert_same(sums, recomputed.sums[name])

    summaries = await folded(store, experiment, clock)
    count, total = await _stored(store, experiment)
    costs = [part for by_epoch in summaries.sums["cost"].values() for part in by_epoch.values()]
    assert sum(part.n for part in costs) == count > 0
    assert sum(part.s for part in costs) == pytest.approx(total, rel=1e-12)
    await store.close()


async def _stored(store: Store, experiment: PromptExperiment) -> tuple[int, float]:
    async def look(tx: Transaction) -> MetricSums:
        return await tx.events.unit_sums(experiment.experiment_id)

    parts = [part for by_epoch in (await store.read(look))["cost"].values() for part in by_epoch.values()]
    return int(sum(part.n for part in parts)), sum(part.s for part in parts)
