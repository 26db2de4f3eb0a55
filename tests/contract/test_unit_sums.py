"""The sums over units that statistics are computed from, against the same sums computed in Python from the events."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from promptab import MetricEvent, Tokens
from promptab.models import Exposure
from promptab.stats.summary import UnitSums
from promptab.stores.base import Store, Transaction
from promptab.stores.opening import open_store
from promptab.stores.queries.events import MetricSums
from tests.contract.records import NOON, a_use, an_epoch, an_experiment, an_exposure, new_id

UNITS = ("u1", "u2", "u3", "session:s", "session:t")
ANALYSED = {"assigned", "reported", "alias"}


class Told(NamedTuple):
    """One step of a history: an exposure or an event of a unit, or that a session is a user."""

    kind: str
    unit: str | None
    variant: str | None
    epoch: int
    source: str
    measures: Mapping[str, object]


# two decimals: both sides must see the same numbers, and sums of many should stay comparable to the last digits
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
        "metrics": st.dictionaries(st.sampled_from(["m", "n.1", "success"]), values, max_size=3),
    },
)
histories = st.lists(
    st.builds(
        Told,
        kind=st.sampled_from(["exposure", "event", "event", "event", "alias"]),
        unit=st.sampled_from([*UNITS, None]),
        variant=st.sampled_from(["a", "b", "a", None]),
        epoch=st.sampled_from([1, 2]),
        source=st.sampled_from(["assigned", "override", "alias"]),
        measures=measures,
    ),
    max_size=30,
)


@pytest.fixture
def runner(store_url: str) -> Iterator[tuple[asyncio.Runner, Store]]:
    """A loop with one open store in it, for many examples one after the other."""
    with asyncio.Runner() as loop:
        store = loop.run(open_store(store_url))
        yield loop, store
        loop.run(store.close())


@given(history=histories)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_unit_sums_equal_those_computed_from_the_events_one_by_one(
    runner: tuple[asyncio.Runner, Store], history: list[Told]
) -> None:
    loop, store = runner
    measured, expected = loop.run(both_ways(store, history))
    assert {metric: {v: set(epochs) for v, epochs in by.items()} for metric, by in measured.items()} == {
        metric: {v: set(epochs) for v, epochs in by.items()} for metric, by in expected.items()
    }
    for metric, by_variant in expected.items():
        for variant, by_epoch in by_variant.items():
            for epoch, sums in by_epoch.items():
                assert_close(measured[metric][variant][epoch], sums)


def assert_close(measured: UnitSums, expected: UnitSums) -> None:
    """Rounding: a sum of k terms is off by at most k units in the last place of its largest term.

    With up to 30 events of up to 1e6 a residual is off by about 1e-9, and its square by that times the residual.
    """
    assert measured.units == expected.units
    assert measured.n == expected.n
    assert measured.nn == expected.nn
    assert measured.s == pytest.approx(expected.s, rel=1e-12, abs=1e-9)
    assert measured.center == pytest.approx(expected.center, rel=1e-12, abs=1e-9)
    assert measured.rr == pytest.approx(expected.rr, rel=1e-9, abs=1e-6)
    assert measured.rn == pytest.approx(expected.rn, rel=1e-9, abs=1e-6)


async def both_ways(store: Store, history: list[Told]) -> tuple[MetricSums, MetricSums]:
    """Tell the store a history under an experiment of its own; return the sums by SQL and by Python."""
    experiment, version_id, tag = an_experiment(), new_id(), new_id()
    aliases: dict[str, str] = {}

    async def begin(tx: Transaction) -> None:
        await tx.experiments.insert(experiment)
        for number in (1, 2):
            await tx.experiments.add_epoch(
                an_epoch(experiment, number, starts_at=NOON + timedelta(minutes=number))
            )

    await store.write(begin)
    for told in history:
        # aliases are of the whole store, so every example has units of its own
        unit = None if told.unit is None else f"{told.unit}/{tag}"
        if told.kind == "event":
            at = NOON + timedelta(minutes=told.epoch)
            event = a_use(
                experiment, unit, told.variant, version_id=version_id, timestamp=at, **told.measures
            )
            await store.record(event)
        elif told.kind == "exposure" and unit is not None:
            await store.keep(
                an_exposure(
                    experiment, unit, variant=told.variant or "b", epoch=told.epoch, source=told.source
                )
            )
        elif unit is not None and unit.startswith("session:") and unit not in aliases:
            aliases[unit] = user = f"u{told.epoch}/{tag}"

            async def alias(tx: Transaction, session: str = unit, user: str = user) -> None:
                await tx.experiments.add_alias(session, user, NOON)

            await store.write(alias)

    async def look(tx: Transaction) -> tuple[MetricSums, list[MetricEvent], list[Exposure]]:
        return (
            await tx.events.unit_sums(experiment.experiment_id),
            await tx.events.listing(version_id),
            await tx.exposures.listing(experiment.experiment_id),
        )

    measured, events, exposures = await store.read(look)
    return measured, sums_of(events, exposures, aliases)


def sums_of(events: list[MetricEvent], exposures: list[Exposure], aliases: Mapping[str, str]) -> MetricSums:
    """Add up in the plainest way: unit by unit, then variant by variant."""
    met = {exposure.unit: exposure for exposure in exposures}
    totals: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for event in events:
        if event.user_id is None:
            continue
        unit = aliases.get(event.user_id, event.user_id)
        if unit in aliases or unit not in met or met[unit].source not in ANALYSED:
            continue
        # an event of another variant than its unit's is of neither: flagged ones, and a session's of before
        if event.variant in {None, met[unit].variant}:
            for metric, value in measures_of(event).items():
                totals[metric][unit].append(value)
    sums: MetricSums = {}
    for metric, by_unit in totals.items():
        everything = [value for values in by_unit.values() for value in values]
        center = sum(everything) / len(everything)
        groups: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
        for unit, values in by_unit.items():
            groups[met[unit].variant, met[unit].epoch].append((float(len(values)), sum(values)))
        for (variant, epoch), pairs in groups.items():
            sums.setdefault(metric, {}).setdefault(variant, {})[epoch] = UnitSums.of(pairs, center=center)
    return sums


def measures_of(event: MetricEvent) -> dict[str, float]:
    own = {
        "success_rate": event.success,
        "response_time": event.response_time,
        "tokens": event.tokens.total if event.tokens else None,
        "cost": event.cost,
        "rating": event.user_rating,
    }
    return {name: float(value) for name, value in own.items() if value is not None} | dict(event.metrics)


async def test_unit_sums_of_an_unknown_experiment_are_empty(store: Store) -> None:
    async def work(tx: Transaction) -> MetricSums:
        return await tx.events.unit_sums(new_id())

    assert await store.read(work) == {}


async def test_unit_sums_keep_their_digits_far_from_zero(store: Store) -> None:
    """Values near 1e9 that differ by 1: raw sums of squares would keep no digit of the spread."""
    experiment = an_experiment()

    async def begin(tx: Transaction) -> None:
        await tx.experiments.insert(experiment)
        await tx.experiments.add_epoch(an_epoch(experiment))

    await store.write(begin)
    for number in range(100):
        await store.record(a_use(experiment, f"u{number}", metrics={"big": 1e9 + number % 2}))

    async def work(tx: Transaction) -> MetricSums:
        return await tx.events.unit_sums(experiment.experiment_id)

    sums = (await store.read(work))["big"]["a"][1]
    assert sums.center == pytest.approx(1e9 + 0.5, rel=1e-15)
    assert sums.rr == pytest.approx(25.0, rel=1e-6)


@pytest.mark.parametrize(
    ("without", "left"), [([], 3), (["u1", "u3", "nobody"], 1), (["*"], 0), (["u1", "*"], 0)]
)
async def test_unit_sums_leave_out_the_units_that_are_shown_a_variant_by_hand(
    store: Store, without: list[str], left: int
) -> None:
    experiment = an_experiment()

    async def begin(tx: Transaction) -> None:
        await tx.experiments.insert(experiment)
        await tx.experiments.add_epoch(an_epoch(experiment))

    await store.write(begin)
    for unit in ("u1", "u2", "u3"):
        await store.record(a_use(experiment, unit, success=True))

    async def work(tx: Transaction) -> tuple[MetricSums, dict[str, int]]:
        return (
            await tx.events.unit_sums(experiment.experiment_id, without=without),
            await tx.exposures.analysed_counts(
                experiment.model_copy(update={"overrides": dict.fromkeys(without, "a")})
            ),
        )

    sums, counts = await store.read(work)
    assert [by_epoch[1].units for by in sums.values() for by_epoch in by.values()] == [left] * (left > 0)
    assert counts == ({"a": left} if left else {})
