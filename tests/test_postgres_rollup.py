"""Rolling up while events are being written: PostgreSQL gives out numbers in one order and commits them in another."""

from __future__ import annotations

import asyncio
import os
import random
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import asyncpg
import pytest

import promptab
from promptab import Lab, PromptExperiment, PromptVariant
from promptab.stores.base import Transaction
from promptab.stores.queries import unit_totals
from promptab.stores.queries.rolled_up import Summaries
from tests.postgres import connected

RACE_SECONDS = float(os.environ.get("PROMPTAB_RACE_SECONDS", "3"))
"""How long the race goes on; as long as one likes."""
UNITS = 20

ANOTHER = """
    INSERT INTO promptab_events (event_id, kind, experiment_id, variant, unit, success, cost, at, recorded_at, flagged)
    SELECT $1, kind, experiment_id, variant, unit, success, cost, at, recorded_at, flagged
    FROM promptab_events WHERE unit = $2 ORDER BY sequence LIMIT 1
    RETURNING sequence
"""
"""One more event like the first of a unit, with the next number."""

OF_SOMETHING_ELSE = """
    INSERT INTO promptab_events (event_id, kind, at, recorded_at, flagged) VALUES ($1, 'use', 1, 1, false)
"""
WINDOW_SECONDS = 0.5


@pytest.fixture
async def lab(postgres_url: str) -> AsyncIterator[Lab]:
    async with promptab.open(postgres_url) as opened:
        yield opened


async def begun(lab: Lab) -> PromptExperiment:
    """Begin an experiment in which every unit has one event, a success that cost 1."""
    experiment = await lab.experiments.create_experiment(
        "tone", "system", [PromptVariant(key="a", config={}), PromptVariant(key="b", config={})]
    )
    for unit in range(UNITS):
        variant = await lab.experiments.assign(experiment.experiment_id, f"u{unit}")
        await lab.metrics.record_event(
            None,
            True,
            cost=1.0,
            experiment_id=experiment.experiment_id,
            variant=variant.variant,
            user_id=f"u{unit}",
        )
    return experiment


async def one_more(connection: asyncpg.Connection[asyncpg.Record], unit: str) -> int:
    number = await connection.fetchval(ANOTHER, uuid.uuid4().bytes, unit)
    assert isinstance(number, int)
    return number


async def looked_at(lab: Lab, experiment: PromptExperiment) -> Summaries:
    """Analyse, and return what has been summed up."""
    await lab.analyze(experiment.experiment_id)

    async def work(tx: Transaction) -> Summaries:
        return await tx.rolled_up.summaries(experiment)

    return await lab.store.read(work)


def costs(summaries: Summaries) -> tuple[float, float]:
    """Return how many events carried a cost, and what they add up to."""
    sums = [sums for by_epoch in summaries.sums["cost"].values() for sums in by_epoch.values()]
    return sum(part.n for part in sums), sum(part.s for part in sums)


def flat(summaries: Summaries) -> dict[str, float]:
    """Return every single sum under a name of its own."""
    return {
        f"{metric} {variant} {epoch} {name}": value
        for metric, by_variant in summaries.sums.items()
        for variant, by_epoch in by_variant.items()
        for epoch, sums in by_epoch.items()
        for name, value in sums._asdict().items()
    }


async def test_an_event_that_commits_after_later_ones_were_rolled_up_is_counted_once(
    lab: Lab, postgres_url: str
) -> None:
    experiment = await begun(lab)
    assert costs(await looked_at(lab, experiment)) == (UNITS, UNITS)
    async with connected(postgres_url) as slow, connected(postgres_url) as quick:
        held_open = slow.transaction()
        await held_open.start()
        early = await one_more(slow, "u0")
        late = await one_more(quick, "u1")
        assert early < late

        summaries = await looked_at(lab, experiment)
        assert summaries.watermark < early
        assert costs(summaries) == (UNITS, UNITS)

        await held_open.commit()
        summaries = await looked_at(lab, experiment)
        assert summaries.watermark == late
        assert costs(summaries) == (UNITS + 2, UNITS + 2)
        assert costs(await looked_at(lab, experiment)) == (UNITS + 2, UNITS + 2)


async def test_a_window_that_has_closed_waits_for_events_that_cannot_be_taken_yet(
    lab: Lab, postgres_url: str
) -> None:
    variants = [PromptVariant(key="a", config={}), PromptVariant(key="b", config={})]
    experiment = await lab.experiments.create_experiment(
        "tone", "system", variants, plan={"window_hours": WINDOW_SECONDS / 3600}
    )
    async with connected(postgres_url) as slow:
        held_open = slow.transaction()
        await held_open.start()
        await slow.execute(OF_SOMETHING_ELSE, uuid.uuid4().bytes)
        for unit in ("u0", "u1"):
            assigned = await lab.experiments.assign(experiment.experiment_id, unit)
            await lab.metrics.record_event(
                None,
                True,
                cost=1.0,
                experiment_id=experiment.experiment_id,
                variant=assigned.variant,
                user_id=unit,
            )
        await asyncio.sleep(WINDOW_SECONDS)
        summaries = await looked_at(lab, experiment)
        assert (summaries.arms, summaries.late) == ({}, 0)
        await held_open.commit()
    summaries = await looked_at(lab, experiment)
    assert (costs(summaries), summaries.late) == ((2, 2), 0)


async def test_an_event_that_is_rolled_back_is_not_waited_for(lab: Lab, postgres_url: str) -> None:
    experiment = await begun(lab)
    async with connected(postgres_url) as slow, connected(postgres_url) as quick:
        held_open = slow.transaction()
        await held_open.start()
        await one_more(slow, "u0")
        late = await one_more(quick, "u1")
        looking = asyncio.create_task(looked_at(lab, experiment))
        await held_open.rollback()
        await looking
        summaries = await looked_at(lab, experiment)
        assert summaries.watermark == late
        assert costs(summaries) == (UNITS + 1, UNITS + 1)


async def test_numbers_that_are_given_out_again_after_a_crash_are_waited_for_again(
    lab: Lab, postgres_url: str
) -> None:
    """Those that were given up, and never reached the disk; also after a backup was restored."""
    experiment = await begun(lab)
    async with connected(postgres_url) as slow, connected(postgres_url) as quick:
        last = await quick.fetchval("SELECT last_value FROM promptab_events_sequence_seq")
        await quick.execute("SELECT setval('promptab_events_sequence_seq', $1)", last + 100)
        await looked_at(lab, experiment)
        await quick.execute("SELECT setval('promptab_events_sequence_seq', $1)", last)

        held_open = slow.transaction()
        await held_open.start()
        early = await one_more(slow, "u0")
        await one_more(quick, "u1")
        assert (await looked_at(lab, experiment)).watermark < early
        await held_open.commit()
        assert costs(await looked_at(lab, experiment)) == (UNITS + 2, UNITS + 2)


async def test_a_transaction_on_other_tables_holds_nothing_up(lab: Lab, postgres_url: str) -> None:
    """Whatever else a server does for hours, such as a load into somebody's tables."""
    experiment = await begun(lab)
    async with connected(postgres_url) as busy, connected(postgres_url) as quick:
        held_open = busy.transaction()
        await held_open.start()
        await busy.execute("CREATE TABLE somebodys (n int)")
        late = await one_more(quick, "u1")
        summaries = await looked_at(lab, experiment)
        assert summaries.watermark == late
        assert costs(summaries) == (UNITS + 1, UNITS + 1)
        await held_open.rollback()


async def test_every_event_is_counted_once_while_writers_and_roll_ups_race(
    lab: Lab, postgres_url: str
) -> None:
    experiment = await begun(lab)
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + RACE_SECONDS

    async def write(writer: int) -> int:
        """Hold numbers for a while before they are committed, or given up; return how many were committed."""
        chance, written = random.Random(writer), 0
        async with connected(postgres_url) as connection:
            while loop.time() < ends_at:
                transaction = connection.transaction()
                await transaction.start()
                events = chance.randint(1, 3)
                for _ in range(events):
                    await one_more(connection, f"u{chance.randrange(UNITS)}")
                    await asyncio.sleep(chance.random() * 0.02)
                if chance.random() < 0.1:
                    await transaction.rollback()
                else:
                    await transaction.commit()
                    written += events
        return written

    async def record() -> int:
        written = 0
        while loop.time() < ends_at:
            unit = f"u{written % UNITS}"
            assigned = await lab.experiments.assign(experiment.experiment_id, unit)
            await lab.metrics.record_event(
                None,
                True,
                cost=1.0,
                experiment_id=experiment.experiment_id,
                variant=assigned.variant,
                user_id=unit,
            )
            written += 1
        return written

    async def look() -> int:
        looks, seen = 0, 0.0
        async with promptab.open(postgres_url) as other:
            while loop.time() < ends_at:
                counted, _ = costs(await looked_at(other, experiment))
                assert counted >= seen
                looks, seen = looks + 1, counted
        return looks

    *written, _, _ = await asyncio.gather(*(write(writer) for writer in range(5)), record(), look(), look())
    events = UNITS + sum(written)
    assert costs(await looked_at(lab, experiment)) == (events, events)


async def test_a_long_backlog_is_rolled_up_once_however_many_look_at_it(
    lab: Lab, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step after the other is taken, by whom is free; nobody is told that others were in the way."""
    experiment = await begun(lab)
    shown = {
        f"u{unit}": await lab.experiments.assign(experiment.experiment_id, f"u{unit}")
        for unit in range(UNITS)
    }
    more = [
        {"version_id": None, "success": True, "cost": 1.0, "user_id": unit}
        | {"experiment_id": experiment.experiment_id, "variant": assigned.variant}
        for unit, assigned in shown.items()
        for _ in range(100)
    ]
    await lab.metrics.record_many(more)
    monkeypatch.setattr(unit_totals, "EVENTS_PER_STEP", 50)
    async with AsyncExitStack() as opened:
        labs = [await opened.enter_async_context(promptab.open(postgres_url)) for _ in range(6)]
        results = await asyncio.gather(*(looked_at(one, experiment) for one in labs))
    events = UNITS + len(more)
    assert [costs(summaries) for summaries in results] == [(events, events)] * len(labs)


async def test_what_was_recorded_before_an_analysis_is_in_it_while_others_write(
    lab: Lab, postgres_url: str
) -> None:
    experiment = await begun(lab)
    stopping = asyncio.Event()

    async def write() -> None:
        async with connected(postgres_url) as connection:
            while not stopping.is_set():
                async with connection.transaction():
                    await one_more(connection, "u0")
                    await asyncio.sleep(0.003)

    writing = [asyncio.create_task(write()) for _ in range(3)]
    for _ in range(20):
        assigned = await lab.experiments.assign(experiment.experiment_id, "u1")
        await lab.metrics.record_event(
            None,
            True,
            cost=1.0,
            experiment_id=experiment.experiment_id,
            variant=assigned.variant,
            user_id="u1",
        )
        async with connected(postgres_url) as connection:
            newest = await connection.fetchval("SELECT max(sequence) FROM promptab_events WHERE unit = 'u1'")
        assert (await looked_at(lab, experiment)).watermark >= newest
    stopping.set()
    await asyncio.gather(*writing)


async def test_what_is_summed_up_stays_true_while_sessions_become_users_and_users_are_left_out(
    lab: Lab, postgres_url: str
) -> None:
    """Folding runs beside recording, but never beside what changes how a unit counts."""
    experiment = await begun(lab)
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + RACE_SECONDS

    async def act(actor: Lab, name: str) -> None:
        """Meet sessions; let some of them become users, old and new, and leave some users out."""
        chance, number = random.Random(name), 0
        while loop.time() < ends_at:
            number += 1
            session = f"{name}-{number}"
            met = await actor.experiments.assign(experiment.experiment_id, session_id=session)
            await actor.metrics.record_event(
                None,
                chance.random() < 0.5,
                cost=chance.random(),
                experiment_id=experiment.experiment_id,
                variant=met.variant,
                user_id=met.unit,
            )
            if chance.random() < 0.5:
                await actor.experiments.alias(session, f"user-{name}-{chance.randrange(30)}")
            if chance.random() < 0.1:
                await actor.experiments.set_override(
                    experiment.experiment_id, f"user-{name}-{chance.randrange(30)}", "a"
                )

    async def look(looker: Lab) -> None:
        while loop.time() < ends_at:
            await looked_at(looker, experiment)

    async with promptab.open(postgres_url) as other:
        await asyncio.gather(
            *(act(actor, name) for actor, name in ((lab, "x"), (lab, "y"), (other, "z"))),
            look(lab),
            look(other),
        )
    summaries = await looked_at(lab, experiment)

    async def work(tx: Transaction) -> Summaries:
        found = await tx.experiments.by_id(experiment.experiment_id)
        assert found is not None
        return await tx.rolled_up.recomputed(found)

    recomputed = await lab.store.read(work)
    assert summaries.arms == recomputed.arms
    assert flat(summaries) == pytest.approx(flat(recomputed), rel=1e-9, abs=1e-9)
