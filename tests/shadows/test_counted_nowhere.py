"""What runs in the shadow counts in nothing that adds up what was served: two labs that differ in it alone agree."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import ibis
import pyarrow.dataset as ds
import pytest
from sqlalchemy import Table, select

import promptab
from promptab import Lab, PromptExperiment, PromptVariant, PromptVersion, retention
from promptab.integrations import warehouse
from promptab.stores.base import Transaction
from promptab.stores.schema import arms, exposures, metadata, moments, unit_metric_totals, unit_totals
from promptab.stores.totals_schema import (
    unit_days,
    unit_metric_days,
    version_hours,
    version_metric_hours,
)
from tests.clock import SettableClock

PLAN: dict[str, Any] = {
    "minimum_units": 20,
    "metrics": [
        {"name": "success_rate", "kind": "proportion", "history_days": 3},
        {"name": "capped_cost", "measure": "cost", "cap_percentile": 0.9},
        {"name": "cost", "history_days": 3, "direction": "decrease", "largest_regression": 0.2},
        {"name": "m_per_unit", "kind": "mean_per_unit", "measure": "m", "cap_percentile": 0.9},
        {"name": "slowest", "kind": "quantile", "measure": "response_time", "quantile": 0.9},
    ],
}
TOTALS: tuple[Table, ...] = (
    arms,
    exposures,
    moments,
    unit_days,
    unit_metric_days,
    unit_metric_totals,
    unit_totals,
    version_hours,
    version_metric_hours,
)
_OF_THE_LOG = frozenset({"rolled_up", "first_sequence", "last_sequence"})
"""Positions in the log of events, which has the shadow's too."""


class World(NamedTuple):
    lab: Lab
    versions: tuple[PromptVersion, ...]
    experiment: PromptExperiment
    named: dict[str, str]
    """Ids, which differ between two labs -> what they are called here."""


@pytest.fixture(params=["file", "memory", "postgres"])
def twin_urls(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """URLs of two new stores of a kind."""
    match request.param:
        case "file":
            yield f"sqlite:///{tmp_path / 'a.db'}", f"sqlite:///{tmp_path / 'b.db'}"
        case "memory":
            yield "sqlite:///:memory:", "sqlite:///:memory:"
        case _:
            databases = request.getfixturevalue("postgres")
            urls = databases.new(), databases.new()
            yield urls
            for url in urls:
                databases.drop(url)


async def lived(url: str, *, shadow: bool, plan: dict[str, Any] = PLAN) -> World:
    """Live through the same days, with a shadow whose numbers would spoil every total or without it."""
    clock, chance = SettableClock(), random.Random(6)
    lab = await promptab.open(url, clock=clock).__aenter__()
    versions = tuple(
        [
            await lab.versions.create_version("reply", "system", f"Be kind {number}.", version=number)
            for number in ("1.0.0", "1.1.0", "2.0.0")
        ]
    )
    users = [f"u{number}" for number in range(60)]
    for _ in range(4):
        for user in users:
            assert lab.metrics.record_nowait(
                versions[chance.randrange(3)].version_id,
                chance.random() < 0.7,
                user_id=user,
                **_amounts(chance),
            )
        clock.advance(days=1)
    variants = [PromptVariant("1.0.0"), PromptVariant("1.1.0")]
    beside = [PromptVariant("2.0.0", key="candidate", shadow=0.5)] if shadow else []
    experiment = await lab.experiments.create_experiment(
        "reply", "system", [*variants, *beside], plan=plan, salt="s"
    )
    for _ in range(2):
        for user in users:
            choice = await lab.choose("reply", user_id=user)
            assert bool(choice.shadows) <= shadow
            for run in choice.shadows:
                # told before the served one, and so before the unit's exposure is written
                event = await run.record(
                    False, 3_000.0, 10**9, 1.0, cost=9e5, metrics={"m": 1e9, "only": 1.0}
                )
                await lab.feedback(event.event_id, rating=1, metrics={"said": 1.0})
            assert choice.record_nowait(chance.random() < 0.8, **_amounts(chance))
        clock.advance(hours=5)
    await lab.metrics.record_result("reply", "m", 3.0, user_id="u1")
    named = {version.version_id: version.version for version in versions}
    return World(lab, versions, experiment, {**named, experiment.experiment_id: "experiment"})


def _amounts(chance: random.Random) -> dict[str, Any]:
    return {
        "response_time": chance.random(),
        "tokens": {"input": chance.randrange(90), "output": 5},
        "cost": chance.random() / 8,
        "metrics": {"m": chance.gauss(0.0, 1.0)},
    }


def alike(world: World, value: Any) -> Any:
    """Return a document with names in place of ids, and numbers without what the order of adding up leaves."""
    match value:
        case float():
            return float(f"{value:.9g}")
        case dict():
            return {alike(world, key): alike(world, inner) for key, inner in value.items()}
        case list() | tuple():
            return [alike(world, inner) for inner in value]
        case _:
            return world.named.get(value, value) if isinstance(value, str) else value


async def asked(world: World) -> dict[str, Any]:
    """Return every answer that adds up what was served."""
    lab, experiment = world.lab, world.experiment.experiment_id
    ids = [version.version_id for version in world.versions]
    found: dict[str, Any] = {
        "frozen plan": world.experiment.plan.model_dump(mode="json"),
        "metrics": [(await lab.metrics.get_metrics(one)).model_dump(mode="json") for one in ids],
        "summary": (await lab.metrics.get_summary()).model_dump(mode="json"),
        "course": [
            period.model_dump(mode="json")
            for one in ids
            for period in await lab.metrics.get_version_performance_over_time(one, 1.0)
        ],
        "events": [len(await lab.metrics.get_events(one)) for one in ids],
        "units": await lab.experiments.get_variant_distribution(experiment),
        "distribution": await lab.metrics.distribution(experiment),
        "compared": (await lab.compare(experiment)).model_dump(mode="json"),
    }
    for method in ("sequential", "fixed", "bayesian"):
        found[method] = (await lab.analyze(experiment, method, segments=["plan"], series="hour")).model_dump(
            mode="json"
        )
    for by in ("version", "prompt", "model", "variant"):
        found[f"cost by {by}"] = await lab.costs(by)
    return {name: alike(world, answer) for name, answer in found.items()}


async def totals(world: World) -> dict[str, list[Any]]:
    """Return what the store keeps of it, row by row."""

    async def work(tx: Transaction) -> dict[str, list[Any]]:
        found = {}
        for table in TOTALS:
            columns = [column for column in table.columns if column.name not in _OF_THE_LOG]
            rows = (await tx.events._connection.execute(select(*columns))).all()
            found[table.name] = sorted(map(repr, alike(world, [list(row) for row in rows])))
        return found

    return await world.lab.store.read(work)


async def test_a_lab_with_a_shadow_says_of_what_was_served_what_its_twin_without_one_says(
    twin_urls: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # few events are enough for a reader to fold them
    monkeypatch.setattr(retention, "TAIL_EVENTS", 1)
    with_shadow = await lived(twin_urls[0], shadow=True)
    without = await lived(twin_urls[1], shadow=False)
    async with with_shadow.lab as lab, without.lab as twin:
        assert await asked(with_shadow) == await asked(without)
        kept = await totals(with_shadow)
        assert kept == await totals(without)
        assert [name for name, rows in kept.items() if not rows] == [], "every table can be spoilt"
        assert {"only", "said"}.isdisjoint("".join(map(str, kept.values())).replace("'", " ").split())

        (run,) = (await lab.shadow_report("reply")).shadows
        assert (run.runs, run.cost) == (2 * run.units, 9e5 * 2 * run.units)
        assert 15 < run.units < 45
        assert (await twin.shadow_report("reply")).shadows == ()

        for one, folder in ((lab, "a"), (twin, "b")):
            await one.metrics.export_events(tmp_path / folder)
        marked = exported(tmp_path / "a", "shadow")
        assert len(marked) == 2 * run.runs
        whose = ("version_id", "experiment_id", "variant", "unit")
        assert {row[name] for row in marked for name in whose} == {None}
        assert all("candidate" in row["metadata"] for row in marked)
        for kind in ("use", "outcome"):
            ours, theirs = exported(tmp_path / "a", kind), exported(tmp_path / "b", kind)
            assert [row["cost"] for row in ours] == [row["cost"] for row in theirs]


def exported(folder: Path, kind: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = ds.dataset(folder / "events", partitioning=None).to_table().to_pylist()
    return sorted((row for row in rows if row["kind"] == kind), key=lambda row: int(row["sequence"]))


async def runs_and_calls(lab: Lab) -> tuple[int, int]:
    (shadow,) = (await lab.shadow_report("reply")).shadows
    return shadow.runs, sum(comparison.calls for comparison in shadow.comparisons)


async def test_what_a_shadow_left_is_reset_with_all_events_and_not_with_those_of_a_version() -> None:
    world = await lived("sqlite:///:memory:", shadow=True)
    async with world.lab as lab:
        found = await runs_and_calls(lab)
        assert found[0] == found[1] > 0
        assert await lab.metrics.reset_metrics(world.versions[2].version_id) > 0
        assert await runs_and_calls(lab) == found
        await lab.metrics.reset_metrics()
        assert await runs_and_calls(lab) == (0, 0)


async def test_a_pruning_keeps_what_a_shadow_is_compared_by_until_the_experiment_has_ended() -> None:
    world = await lived("sqlite:///:memory:", shadow=True, plan={})
    async with world.lab as lab:
        found = await runs_and_calls(lab)
        await lab.metrics.record_event(None)
        now = (await lab.shadow_report("reply")).at
        report = await lab.metrics.prune_events(now)
        assert report.dropped > 0, "what was before the experiment"
        assert await runs_and_calls(lab) == found
        await lab.experiments.stop("reply")
        await lab.metrics.prune_events(now)
        assert (await runs_and_calls(lab))[0] == 0


@pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")
async def test_a_warehouse_that_was_given_everything_says_what_the_store_says(tmp_path: Path) -> None:
    world = await lived("sqlite:///:memory:", shadow=True, plan={"minimum_units": 10})
    async with world.lab as lab:
        await lab.metrics.export_events(tmp_path)
        expected = await lab.analyze("reply", "fixed")
    read = ibis.duckdb.connect().read_parquet
    found = warehouse.analyze(
        world.experiment,
        method="fixed",
        exposures=read(str(tmp_path / "exposures" / "*" / "*.parquet"), hive_partitioning=False),
        outcomes=read(str(tmp_path / "events" / "*" / "*.parquet"), hive_partitioning=False),
        aliases=read(str(tmp_path / "aliases.parquet")),
    )
    assert found.units == expected.units
    assert found.metrics.keys() == expected.metrics.keys()
    for name, metric in expected.metrics.items():
        for key, estimate in metric.estimates.items():
            assert found.metrics[name].estimates[key].value == pytest.approx(estimate.value)
            assert found.metrics[name].estimates[key].events == estimate.events


async def test_events_of_shadows_can_be_taken_over_into_another_lab(tmp_path: Path) -> None:
    world = await lived("sqlite:///:memory:", shadow=True)
    async with world.lab as lab:
        choice = next(
            beside
            for beside in [(await lab.choose("reply", user_id=f"u{number}")).shadows for number in range(60)]
            if beside
        )[0]
        event = await choice.record(True, 0.5)
        async with promptab.open("sqlite:///:memory:") as other:
            assert await other.metrics.record_many([event, event]) == 2
            again = await other.metrics.record_many([event])
            assert again == 1
            for wrong in (
                event.model_copy(update={"metadata": {}}),
                event.model_copy(update={"version_id": world.versions[0].version_id}),
                event.model_copy(update={"metadata": {"shadow": {**event.metadata["shadow"], "unit": ""}}}),
                event.model_copy(update={"metadata": {"shadow": {**event.metadata["shadow"], "more": 1}}}),
            ):
                with pytest.raises(promptab.InvalidInputError, match="shadow"):
                    await other.metrics.record_many([wrong])


def test_every_table_of_totals_is_compared() -> None:
    kept_apart = {
        name.removeprefix("promptab_") for name in metadata.tables if metadata.tables[name] not in TOTALS
    }
    assert kept_apart >= {"events", "rollups", "total_watermarks", "quantiles"}
    assert not {name for name in kept_apart if "totals" in name or "hours" in name or "days" in name}
