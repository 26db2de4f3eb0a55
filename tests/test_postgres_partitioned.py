"""Events in partitions, as README.md proposes for a server that has very many of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

import promptab
from promptab import ConflictError, Lab, PromptVariant, PromptVersion
from promptab.managed import utc_now
from tests.postgres import connected, fetched

PARTITION = """
    ALTER TABLE promptab_events RENAME TO promptab_events_0;
    CREATE TABLE promptab_events (LIKE promptab_events_0 INCLUDING DEFAULTS, PRIMARY KEY (sequence))
        PARTITION BY RANGE (sequence);
    ALTER SEQUENCE promptab_events_sequence_seq OWNED BY promptab_events.sequence;
    ALTER TABLE promptab_events ATTACH PARTITION promptab_events_0 FOR VALUES FROM (MINVALUE) TO ({border});
    CREATE TABLE promptab_events_1 PARTITION OF promptab_events FOR VALUES FROM ({border}) TO (MAXVALUE);
    CREATE UNIQUE INDEX ON promptab_events_1 (event_id);
"""
UNITS = 40


@pytest.fixture
async def lab(postgres_url: str) -> AsyncIterator[Lab]:
    """A lab with an experiment and the events of half the units, before the table was partitioned."""
    async with promptab.open(postgres_url) as opened:
        versions = [await opened.versions.create_version("tone", "system", text) for text in ("A", "B")]
        await opened.experiments.create_experiment(
            "tone", "system", [PromptVariant(version.version) for version in versions]
        )
        await record(opened, versions, range(UNITS // 2))
        [newest] = fetched(postgres_url, "SELECT max(sequence) AS sequence FROM promptab_events")
        async with connected(postgres_url) as connection:
            await connection.execute(PARTITION.format(border=newest["sequence"] + 1))
        yield opened


async def record(lab: Lab, versions: list[PromptVersion], units: range) -> None:
    await asyncio.gather(
        *(
            lab.metrics.record_event(
                versions[unit % 2].version_id,
                unit % 3 == 0,
                experiment_id="tone",
                variant=versions[unit % 2].version,
                user_id=f"u{unit}",
            )
            for unit in units
        )
    )


async def test_events_go_on_in_a_new_partition_and_are_analysed_with_the_old(
    lab: Lab, postgres_url: str
) -> None:
    versions = await lab.versions.get_version_history("tone", "system")
    await record(lab, versions, range(UNITS // 2, UNITS))
    result = await lab.analyze("tone")
    assert sum(result.units.values()) == UNITS
    successes = [(await lab.metrics.get_metrics(version.version_id)).success_count for version in versions]
    assert sum(successes) == len(range(0, UNITS, 3))
    assert fetched(postgres_url, "SELECT count(*) FROM promptab_events_1")[0]["count"] == UNITS // 2


async def test_an_event_that_is_told_again_is_one_event_and_with_other_content_a_conflict(lab: Lab) -> None:
    [version, _] = await lab.versions.get_version_history("tone", "system")
    told = await lab.metrics.record_event(version.version_id, True)
    again, fresh = await asyncio.gather(
        lab.metrics.record_event(version.version_id, True, event_id=told.event_id),
        lab.metrics.record_event(version.version_id, True),
    )
    assert again.event_id == told.event_id
    with pytest.raises(ConflictError):
        await lab.metrics.record_event(version.version_id, False, event_id=told.event_id)
    events = await lab.metrics.get_events(version.version_id)
    assert {told.event_id, fresh.event_id} <= {event.event_id for event in events}
    assert len({event.event_id for event in events}) == len(events) == UNITS // 4 + 2


async def test_a_partition_that_pruning_has_emptied_can_be_dropped(lab: Lab, postgres_url: str) -> None:
    versions = await lab.versions.get_version_history("tone", "system")
    before = await lab.analyze("tone")
    # one more, as the newest event of all is never dropped
    await lab.metrics.record_event(versions[0].version_id)
    await lab.metrics.prune_events(utc_now())
    assert fetched(postgres_url, "SELECT count(*) FROM promptab_events_0")[0]["count"] == 0
    fetched(postgres_url, "DROP TABLE promptab_events_0")
    after = await lab.analyze("tone")
    assert after.metrics["success_rate"].estimates == before.metrics["success_rate"].estimates
    assert after.units == before.units
    async with promptab.open(postgres_url) as reopened:
        assert len(await reopened.versions.list_versions()) == 2
