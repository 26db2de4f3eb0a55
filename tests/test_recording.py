"""Recording at the door: in passing, many at once, and what the queue does while the store is away."""

from __future__ import annotations

import asyncio
import itertools
import os
import sqlite3
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import promptab
from promptab import (
    ConflictError,
    InvalidInputError,
    Lab,
    MetricEvent,
    MetricsCollector,
    NeedsStoreError,
    NotFoundError,
    PromptVariant,
    Tokens,
)
from promptab.event_ids import new_event_id
from promptab.models import Exposure
from promptab.recording import EVENTS_AT_ONCE
from promptab.stores import sqlite
from promptab.stores.base import Transaction
from tests.clock import SettableClock
from tests.contract.records import an_event

V1 = "11111111-1111-4111-8111-111111111111"
V2 = "22222222-2222-4222-8222-222222222222"


@pytest.fixture
async def experiment_id(lab: Lab) -> str:
    variants = [PromptVariant(key="a", config={"t": 0}), PromptVariant(key="b", config={"t": 1})]
    created = await lab.experiments.create_experiment("tone", "config", variants)
    return created.experiment_id


async def all_of(lab: Lab, version_id: str = V1) -> list[MetricEvent]:
    await lab.metrics.flush()
    return await lab.metrics.get_events(version_id)


async def test_an_event_recorded_in_passing_is_the_same_as_an_awaited_one(lab: Lab) -> None:
    told: dict[str, Any] = {
        "success": True,
        "response_time": 0.25,
        "tokens": {"input": 3},
        "user_rating": 4.5,
        "metadata": {"trace": "ü\n"},
        "cost": 0.001,
        "metrics": {"resolved": 0.5},
        "user_id": 17,
    }
    awaited = await lab.metrics.record_event(V1, **told)
    assert lab.metrics.record_nowait(V1, **told) is True
    passing, first = await all_of(lab)
    assert first == awaited
    assert passing.event_id != first.event_id
    assert passing.model_copy(update={"event_id": first.event_id}) == first


async def test_what_is_recorded_in_passing_is_refused_at_the_door_like_everything(lab: Lab) -> None:
    with pytest.raises(InvalidInputError, match="cost"):
        lab.metrics.record_nowait(V1, cost=-1.0)
    with pytest.raises(InvalidInputError, match="variant"):
        lab.metrics.record_nowait(V1, variant="a")
    assert await all_of(lab) == []


async def test_a_choice_records_in_passing(lab: Lab) -> None:
    version = await lab.versions.create_version("tone", "system", "Be kind.")
    kinder = await lab.versions.create_version("tone", "system", "Be kinder.")
    await lab.experiments.create_experiment(
        "tone", "system", [PromptVariant(version.version), PromptVariant(kinder.version)]
    )
    choice = await lab.choose("tone", user_id="ada")
    assert choice.record_nowait(success=True, cost=0.5)
    assert choice.version is not None
    [event] = await all_of(lab, choice.version.version_id)
    assert (event.experiment_id, event.variant, event.user_id) == (
        choice.experiment_id,
        choice.variant,
        "ada",
    )
    assert (event.success, event.cost, event.flagged) == (True, 0.5, False)


async def test_an_experiment_is_named_in_passing_by_its_name_or_id(lab: Lab, experiment_id: str) -> None:
    dealt = await lab.experiments.assign(experiment_id, "ada")
    for name in ("tone", experiment_id):
        lab.metrics.record_nowait(V1, experiment_id=name, variant=dealt.variant, user_id="ada")
    assert {event.experiment_id for event in await all_of(lab)} == {experiment_id}
    with pytest.raises(NeedsStoreError, match="'other' is not in the snapshot"):
        lab.metrics.record_nowait(V1, experiment_id="other")
    with pytest.raises(InvalidInputError, match="one of the variants a, b"):
        lab.metrics.record_nowait(V1, experiment_id="tone", variant="c")


async def test_an_ended_experiment_is_taken_by_its_id(lab: Lab, experiment_id: str) -> None:
    await lab.experiments.stop(experiment_id)
    await lab.store.snapshot()
    assert lab.metrics.record_nowait(V1, experiment_id=experiment_id, user_id="ada")
    assert [event.experiment_id for event in await all_of(lab)] == [experiment_id]


async def test_a_unit_that_was_shown_what_its_hash_does_not_give_has_to_be_awaited(
    lab: Lab, experiment_id: str
) -> None:
    dealt = await lab.experiments.assign(experiment_id, "ada")
    other = {"a": "b", "b": "a"}[str(dealt.variant)]
    with pytest.raises(NeedsStoreError, match="await record_event"):
        lab.metrics.record_nowait(V1, experiment_id=experiment_id, variant=other, user_id="ada")
    await lab.metrics.record_event(V1, experiment_id=experiment_id, variant=other, user_id="ada")
    await lab.store.snapshot()
    assert lab.metrics.record_nowait(V1, experiment_id=experiment_id, variant=other, user_id="ada") is True
    assert [event.flagged for event in await all_of(lab)] == [True, True]


async def test_many_such_units_at_once_are_noted_in_one_transaction(lab: Lab, experiment_id: str) -> None:
    before = (await lab.store.snapshot()).revision
    for variant in ("a", "b"):
        await asyncio.gather(
            *(
                lab.metrics.record_event(V1, experiment_id=experiment_id, variant=variant, user_id=unit)
                for unit in range(200)
            )
        )
    assert (await lab.store.snapshot()).revision == before + 1
    assert len(await all_of(lab)) == 400


async def test_managers_of_the_default_store_record_in_passing_once_it_is_open(
    lasting_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMPTAB_URL", lasting_url)
    metrics = MetricsCollector()
    with pytest.raises(NeedsStoreError, match="no store is open yet"):
        metrics.record_nowait(V1)
    with pytest.raises(NeedsStoreError):
        metrics.stats()
    await metrics.flush()
    assert metrics.record_nowait(V1)
    assert metrics.stats().queued == 1
    await metrics.flush()
    assert (metrics.stats().queued, metrics.stats().written) == (0, 1)


async def test_a_conflict_in_passing_is_logged_and_counted(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    event_id = str(uuid.uuid4())
    await lab.metrics.record_event(V1, True, event_id=event_id)
    lab.metrics.record_nowait(V1, False, event_id=event_id)
    assert [event.success for event in await all_of(lab)] == [True]
    assert lab.metrics.stats().refused == 1
    assert f"event {event_id} exists already with other content" in caplog.text


async def test_many_events_are_stored_in_their_order_and_counted(lab: Lab, clock: SettableClock) -> None:
    count = EVENTS_AT_ONCE + 5
    told = ({"version_id": V1, "success": True, "cost": float(number)} for number in range(count))
    assert await lab.metrics.record_many(told) == count
    events = await lab.metrics.get_events(V1)
    assert [event.cost for event in events] == [float(number) for number in reversed(range(count))]
    assert {event.recorded_at for event in events} == {clock.now}
    assert await lab.metrics.record_many([]) == 0


async def test_records_come_back_as_they_were_given(lab: Lab, clock: SettableClock) -> None:
    earlier = clock.now - timedelta(days=3)
    given = [
        an_event(V1, kind="outcome", user_id="ada", metrics={"b": 1.0, "a": 2.0}, timestamp=earlier),
        an_event(V1, tokens=Tokens(input=1, output=2, total=3), metadata={"k": [1]}, recorded_at=earlier),
    ]
    assert await lab.metrics.record_many(given) == 2
    events = await lab.metrics.get_events(V1)
    assert sorted(events, key=lambda event: event.event_id) == sorted(given, key=lambda event: event.event_id)


async def test_an_import_that_is_run_again_adds_nothing(lab: Lab) -> None:
    given = [an_event(V1, cost=float(number)) for number in range(50)]
    await lab.metrics.record_many(given[:30])
    assert await lab.metrics.record_many(given) == 50
    assert (await lab.metrics.get_metrics(V1)).total_events == 50


async def test_imported_events_make_the_exposures_that_are_missing(lab: Lab, experiment_id: str) -> None:
    dealt = {str(number): await lab.experiments.assign(experiment_id, number) for number in range(20)}
    other = {"a": "b", "b": "a"}
    told = [
        {"version_id": V1, "experiment_id": "tone", "variant": dealt[unit].variant, "user_id": unit}
        for unit in dealt
    ]
    contrary = {**told[0], "variant": other[str(told[0]["variant"])]}
    fresh = {**told[0], "user_id": "a new one", "variant": "b"}
    assert await lab.metrics.record_many([*told, contrary, fresh]) == 22
    flagged = [event for event in await lab.metrics.get_events(V1) if event.flagged]
    assert [event.user_id for event in flagged] == [told[0]["user_id"]]
    assert (await lab.experiments.get_experiment_assignments(experiment_id))["a new one"] == "b"
    assert (await lab.experiments.assign(experiment_id, "a new one")).variant == "b"


async def test_imported_events_go_after_the_exposures_of_their_units(lab: Lab, experiment_id: str) -> None:
    dealt = await lab.experiments.assign(experiment_id, "ada", attributes={"plan": "free"})
    told = {"version_id": V1, "experiment_id": experiment_id, "variant": dealt.variant, "user_id": "ada"}
    await lab.metrics.record_many([told])

    async def work(tx: Transaction) -> Exposure | None:
        return await tx.exposures.get(experiment_id, "ada")

    exposure = await lab.store.read(work)
    assert exposure is not None
    assert (exposure.source, exposure.attributes) == ("assigned", {"plan": "free"})


@pytest.mark.parametrize("events", [None, 5])
async def test_an_import_of_what_holds_no_events_is_refused(lab: Lab, events: Any) -> None:
    with pytest.raises(InvalidInputError, match="events"):
        await lab.metrics.record_many(events)


@pytest.mark.parametrize(
    ("bad", "error", "match"),
    [
        ({"cost": -1.0}, InvalidInputError, "cost"),
        ({"costs": 1.0}, InvalidInputError, "costs"),
        ({"version_id": "v1"}, InvalidInputError, "version_id"),
        ({"experiment_id": "nothing"}, NotFoundError, "nothing"),
        ({"experiment_id": 7}, NotFoundError, "7"),
        ({"variant": "a"}, InvalidInputError, "variant"),
        (7, InvalidInputError, "mapping"),
        (an_event("no id"), InvalidInputError, "version_id"),
        (an_event(V1, user_id="a\x00b"), InvalidInputError, "user_id"),
        (an_event(V1, response_time=float("nan")), InvalidInputError, "response_time"),
    ],
    ids=["bound", "unknown", "id", "experiment", "number", "variant", "kind", "record", "unit", "nan"],
)
async def test_an_import_stops_before_the_transaction_of_an_event_that_is_refused(
    lab: Lab, bad: Any, error: type[Exception], match: str
) -> None:
    good = [{"version_id": V1}] * EVENTS_AT_ONCE
    with pytest.raises(error, match=match):
        await lab.metrics.record_many([*good, {"version_id": V1}, bad, {"version_id": V1}])
    assert (await lab.metrics.get_metrics(V1)).total_events == EVENTS_AT_ONCE


async def test_an_import_with_a_conflict_says_which_and_keeps_what_is_beside_it(lab: Lab) -> None:
    taken = an_event(V1, success=True)
    await lab.metrics.record_many([taken])
    contrary = taken.model_copy(update={"success": False})
    with pytest.raises(ConflictError, match=f"1 of the events 1 to 3 exist .* {taken.event_id}"):
        await lab.metrics.record_many([an_event(V1), contrary, an_event(V1)])
    assert (await lab.metrics.get_metrics(V1)).total_events == 3


async def test_a_flush_takes_a_limit_in_seconds(lab: Lab) -> None:
    await lab.metrics.flush(0)
    with pytest.raises(InvalidInputError, match="timeout"):
        await lab.metrics.flush(-1)


@pytest.mark.parametrize(("durability", "synchronous"), [("normal", 1), ("full", 2)])
async def test_durability_is_what_both_connections_of_a_file_write_with(
    tmp_path: Path, durability: Any, synchronous: int
) -> None:
    async with promptab.open(f"sqlite:///{tmp_path / 'store.db'}", durability=durability) as lab:
        await lab.metrics.record_event(V1)
        store = lab.store
        assert isinstance(store, sqlite.SqliteFileStore)
        async with store._connection(writes=True) as connection:
            assert (await connection.exec_driver_sql("PRAGMA synchronous")).scalar_one() == synchronous
        writer = store._events.new_writer()
        assert writer._connect().execute("PRAGMA synchronous").fetchone() == (synchronous,)
        writer.close()


async def test_events_have_one_index_on_their_id_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with promptab.open(f"sqlite:///{path}"):
        pass
    with closing(sqlite3.connect(path)) as connection:
        [(name, unique)] = connection.execute(
            "SELECT name, \"unique\" FROM pragma_index_list('promptab_events')"
        )
        columns = connection.execute("SELECT name FROM pragma_index_info(?)", [name]).fetchall()
    assert (columns, unique) == ([("event_id",)], 1)


async def test_a_durability_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="durability: 'some' is not one of normal, full"):
        await promptab.open("sqlite:///:memory:", durability="some")  # type: ignore[arg-type]


async def test_ids_go_up_with_time_and_are_version_7(clock: SettableClock, metrics: MetricsCollector) -> None:
    first = uuid.UUID((await metrics.record_event(V2)).event_id)
    clock.advance(seconds=0.001)
    second = uuid.UUID((await metrics.record_event(V2)).event_id)
    assert (first.version, first.variant) == (7, uuid.RFC_4122)
    assert first < second
    assert first.int >> 80 == int(clock.now.timestamp() * 1000) - 1


def test_ids_of_one_moment_are_all_different_and_go_up_until_the_counter_runs_out() -> None:
    moment = SettableClock().now
    ids = [new_event_id(moment) for _ in range(3 * 4_096)]
    assert len(set(ids)) == len(ids)
    assert all(uuid.UUID(event_id).version == 7 for event_id in ids)
    rising = sum(before < after for before, after in itertools.pairwise(ids))
    assert rising >= len(ids) - 1 - 3
    before_the_epoch = uuid.UUID(new_event_id(moment.replace(year=1900)))
    assert before_the_epoch.int >> 80 == 0


def test_threads_make_ids_of_their_own() -> None:
    moment = SettableClock().now
    with ThreadPoolExecutor(8) as threads:
        made = threads.map(lambda _: [new_event_id(moment) for _ in range(5_000)], range(8))
        ids = [event_id for each in made for event_id in each]
    assert len(set(ids)) == len(ids)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")
def test_the_child_of_a_fork_makes_ids_of_its_own() -> None:
    moment = SettableClock().now
    new_event_id(moment)
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, new_event_id(moment).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        assert answer.read() != new_event_id(moment)
    os.wait()
