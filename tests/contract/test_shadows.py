"""Events of shadows: stored as they are, found by nobody who adds up what was served, and totalled by unit."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any

import pytest

from promptab import MetricEvent, PromptVariant, Tokens
from promptab.analysis.shadow_totals import ShadowTotals, UnitUse
from promptab.shadow_place import ShadowPlace
from promptab.stores.base import Store, Transaction
from tests.contract.records import NOON, an_epoch, an_event, an_experiment, new_id

EXPERIMENT = an_experiment(shadows=(PromptVariant(key="c", config={}, shadow=0.5),))
OTHER = an_experiment("other")
VERSION = new_id()


@pytest.fixture
async def begun(store: Store) -> Store:
    async def work(tx: Transaction) -> None:
        for experiment in (EXPERIMENT, OTHER):
            await tx.experiments.insert(experiment)
            await tx.experiments.add_epoch(an_epoch(experiment))

    await store.write(work)
    return store


def a_run(unit: str, *, of: str | None = None, feedback_on: str | None = None, **fields: Any) -> MetricEvent:
    place = ShadowPlace(of or EXPERIMENT.experiment_id, "c", unit, VERSION, feedback_on)
    metadata = {**fields.pop("metadata", {}), **place.metadata()}
    return an_event(None, kind="shadow", metadata=metadata, **fields)


def a_served(unit: str, variant: str = "a", **fields: Any) -> MetricEvent:
    return an_event(VERSION, experiment_id=EXPERIMENT.experiment_id, variant=variant, user_id=unit, **fields)


async def totals(store: Store, *moments: datetime) -> ShadowTotals:
    async def work(tx: Transaction) -> ShadowTotals:
        return await tx.shadows.totals(EXPERIMENT, moments)

    return await store.read(work)


def told(rows: list[UnitUse], measure: str) -> list[tuple[Any, ...]]:
    return sorted(
        (row.unit, row.variant, row.stretch, row.use.calls, *row.use.totals[measure]) for row in rows
    )


async def test_a_run_comes_back_as_it_was_recorded_and_belongs_to_no_version(begun: Store) -> None:
    run = a_run("ünit\u2028 'x'", success=True, tokens=Tokens(input=3, total=7), metadata={"ü": [1, None]})
    assert await begun.record(run) == run
    assert await begun.record(run) == run

    async def look(tx: Transaction) -> tuple[MetricEvent | None, list[MetricEvent], list[Any], int]:
        return (
            await tx.events.by_id(run.event_id),
            await tx.events.listing(VERSION),
            await tx.exposures.listing(EXPERIMENT.experiment_id),
            await tx.events.count(),
        )

    assert await begun.read(look) == (run, [], [], 1)


async def test_runs_and_what_their_units_were_served_are_added_up_by_unit(begun: Store) -> None:
    ran = a_run("u1", success=False, response_time=2.0, metadata={"call": {"failure": "timeout"}})
    for event in (
        ran,
        a_run("u1", success=True, response_time=3.0, cost=0.5),
        a_run("u2", success=False),
        a_run("u1", feedback_on=ran.event_id, user_rating=4.0),
        a_run("u9", of=OTHER.experiment_id, success=True),
        a_served("u1", success=True, response_time=1.0),
        a_served("u1", success=None, kind="outcome", user_rating=5.0),
        a_served("u2", "b", success=True),
        a_served("u3", success=True),
        an_event(VERSION, experiment_id=EXPERIMENT.experiment_id, user_id="u1", success=True),
        an_event(VERSION, user_id="u1", success=True),
    ):
        await begun.record(event)
    # the unit was shown a: an event of b is flagged, and left out of comparisons
    assert (await begun.record(a_served("u1", "b", success=True))).flagged
    found = await totals(begun)
    assert told([*found.runs], "success_rate") == [("u1", "c", 0, 2, 2.0, 1.0), ("u2", "c", 0, 1, 1.0, 0.0)]
    assert told([*found.runs], "response_time") == [("u1", "c", 0, 2, 2.0, 5.0), ("u2", "c", 0, 1, 0.0, 0.0)]
    assert told([*found.runs], "rating")[0] == ("u1", "c", 0, 2, 1.0, 4.0)
    assert told([*found.served["c"]], "success_rate") == [
        ("u1", "a", 0, 1, 1.0, 1.0),
        ("u2", "b", 0, 1, 1.0, 1.0),
    ]
    assert told([*found.served["c"]], "rating")[0] == ("u1", "a", 0, 1, 1.0, 5.0)
    assert found.failures == {"c": {"": 1, "timeout": 1}}


async def test_totals_are_apart_before_and_after_each_moment(begun: Store) -> None:
    for hour in range(4):
        at = NOON + timedelta(hours=hour)
        await begun.record(a_run("u1", success=True, timestamp=at))
        await begun.record(a_served("u1", success=True, timestamp=at))
    found = await totals(begun, NOON + timedelta(hours=1), NOON + timedelta(hours=3))
    assert told([*found.runs], "success_rate") == [("u1", "c", k, n, n, n) for k, n in enumerate((1, 2, 1))]
    assert [row[2:4] for row in told([*found.served["c"]], "success_rate")] == [(0, 1), (1, 2), (2, 1)]


async def test_sums_of_large_whole_numbers_do_not_overflow(begun: Store) -> None:
    for _ in range(3):
        await begun.record(a_run("u1", tokens=Tokens(total=2**62)))
    ((*_, n, total),) = told([*(await totals(begun)).runs], "tokens")
    assert (n, total) == (3.0, 3 * 2.0**62)


async def test_costs_of_shadows_stand_apart(begun: Store) -> None:
    for cost in (0.5, 0.25, None):
        await begun.record(a_run("u1", cost=cost, tokens=Tokens(input=1, output=2)))
    await begun.record(a_run("u1", feedback_on=new_id(), user_rating=4.0))
    await begun.record(a_served("u1", cost=8.0))

    async def look(tx: Transaction) -> list[Any]:
        return [
            [
                (row.key, row.calls, row.cost, row.unknown)
                for row in await tx.costs.by("variant", in_shadow=beside)
            ]
            for beside in (True, False)
        ]

    assert await begun.read(look) == [[(("tone", "c"), 3, 0.75, 1)], [(("tone", "a"), 1, 8.0, 0)]]


async def test_a_call_without_a_run_beside_it_is_counted_and_not_measured(begun: Store) -> None:
    calls = [a_served("u", response_time=time) for time in (1.0, 10.0, 100.0)]
    for call in (*calls, a_served("v", response_time=1_000.0)):
        await begun.record(call)
    place = ShadowPlace(EXPERIMENT.experiment_id, "c", "u", VERSION, beside=calls[1].event_id)
    await begun.record(an_event(None, kind="shadow", metadata=place.metadata(), response_time=9.0))
    await begun.record(a_run("v", response_time=8.0))
    found = await totals(begun)
    assert told(list(found.runs), "response_time") == [("u", "c", 0, 1, 1, 9.0), ("v", "c", 0, 1, 1, 8.0)]
    assert told(list(found.served["c"]), "response_time") == [
        ("u", "a", 0, 3, 1, 10.0),
        ("v", "a", 0, 1, 1, 1_000.0),
    ]


def served_by_hand(events: list[MetricEvent]) -> list[tuple[Any, ...]]:
    """Add up in plain Python what the units with runs were served; measured are the calls with a run beside them, and
    all of units whose runs do not say beside which call they were.
    """
    places = [(event, event.shadow) for event in events if event.shadow is not None]
    beside = {place.beside for _, place in places} - {None}
    unsaid = {place.unit for _, place in places if place.beside is None and place.feedback_on is None}
    units = {place.unit for _, place in places}
    found: dict[tuple[str, str], list[float]] = {}
    for event in events:
        if event.kind == "shadow" or event.user_id not in units or event.variant is None:
            continue
        row = found.setdefault((event.user_id, event.variant), [0, 0.0, 0.0])
        row[0] += event.kind == "use"
        measured = event.event_id in beside or event.user_id in unsaid
        if measured and event.response_time is not None:
            row[1] += 1.0
            row[2] += event.response_time
    return sorted((unit, variant, 0, *row) for (unit, variant), row in found.items())


async def test_whatever_ran_beside_what_it_is_added_up_as_by_hand(begun: Store) -> None:
    generator = random.Random(6)
    events: list[MetricEvent] = []
    for number in range(60):
        unit = f"u{generator.randrange(12)}"
        variant = "ab"[int(unit[1:]) % 2]
        call = a_served(unit, variant, response_time=float(number))
        events.append(call)
        if generator.random() < 0.2:
            events.append(a_served(unit, variant, kind="outcome", response_time=0.5))
        # none, one or two runs beside the same call, and feedback on them
        for _ in range(generator.choice((0, 0, 1, 2))):
            place = ShadowPlace(EXPERIMENT.experiment_id, "c", unit, VERSION, beside=call.event_id)
            events.append(an_event(None, kind="shadow", metadata=place.metadata(), response_time=1.0))
            if generator.random() < 0.3:
                events.append(a_run(unit, feedback_on=events[-1].event_id, user_rating=4.0))
        if generator.random() < 0.05:
            events.append(a_run(unit, response_time=2.0))
    for event in events:
        await begun.record(event)
    found = await totals(begun)
    assert told([*found.served["c"]], "response_time") == served_by_hand(events)
    runs = [event for event in events if event.shadow is not None]
    assert sum(row.use.totals["response_time"][1] for row in found.runs) == sum(
        event.response_time or 0.0 for event in runs
    )
