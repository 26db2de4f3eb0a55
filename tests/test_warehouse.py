"""Summaries by ibis over exported Parquet, held against those that the store makes of the same events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pytest

from promptab import InvalidInputError, Lab, MetricDefinition, NotFoundError
from promptab.integrations import warehouse
from promptab.integrations.warehouse import ExposureColumns, OutcomeColumns
from promptab.models import UNIFORM_EPOCH
from tests.clock import SettableClock
from tests.test_bandit import ABC, EAGER, create, epochs, serve
from tests.warehouse_history import SEGMENTS, Recorded, assert_same, record_history

# ibis still calls what DuckDB has renamed
pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")


class Tables:
    """What was exported, in DuckDB."""

    def __init__(self, folder: Path) -> None:
        self.backend = ibis.duckdb.connect()
        read = self.backend.read_parquet
        self.exposures = read(str(folder / "exposures" / "*" / "*.parquet"), hive_partitioning=False)
        self.outcomes = read(str(folder / "events" / "*" / "*.parquet"), hive_partitioning=False)
        self.aliases = read(str(folder / "aliases.parquet"))

    def given(self) -> dict[str, Any]:
        return {"exposures": self.exposures, "outcomes": self.outcomes, "aliases": self.aliases}


async def exported(recorded: Recorded, folder: Path) -> Tables:
    await recorded.lab.metrics.export_events(folder)
    return Tables(folder)


@pytest.mark.parametrize(
    ("window_hours", "since"), [(None, False), (30.0, False), (None, True)], ids=["always", "window", "since"]
)
async def test_summaries_equal_those_of_the_store(
    lab: Lab, clock: SettableClock, tmp_path: Path, window_hours: float | None, since: bool
) -> None:
    recorded = await record_history(lab, clock, units=60, window_hours=window_hours, since=since)
    tables = await exported(recorded, tmp_path / "out")
    expected = await recorded.evidence()
    found = warehouse.evidence(
        recorded.experiment,
        **tables.given(),
        segments=SEGMENTS,
        since=recorded.since,
        weights=expected.weights,
        now=recorded.now,
    )
    assert len(found.others) > 14
    assert {epoch for by_epoch in found.arms.values() for epoch in by_epoch} == ({2} if since else {1, 2})
    assert_same(found, expected)


async def test_an_analysis_says_what_the_store_s_says(lab: Lab, clock: SettableClock, tmp_path: Path) -> None:
    recorded = await record_history(lab, clock, units=40, window_hours=None)
    tables = await exported(recorded, tmp_path / "out")
    own = await lab.analyze(recorded.experiment.experiment_id, "fixed", segments=SEGMENTS)
    weights = (await recorded.evidence()).weights
    given = {**tables.given(), "weights": weights, "now": recorded.now, "segments": SEGMENTS}
    result = warehouse.analyze(recorded.experiment, method="fixed", **given)
    assert (result.units, result.winner, result.checks) == (own.units, own.winner, own.checks)
    assert set(result.metrics) == set(own.metrics)
    for name, metric in own.metrics.items():
        for key, difference in metric.differences.items():
            same = result.metrics[name].differences[key]
            assert (same.verdict, same.technique) == (difference.verdict, difference.technique)
            # of few units an interval of a quantile is drawn by lot, by the order in which the units come
            drawn = recorded.experiment.plan.definition(name).kind == "quantile"
            for of in ("value",) if drawn else ("value", "low", "high"):
                number = getattr(difference, of)
                near = None if number is None else pytest.approx(number, rel=1e-6)
                assert getattr(same, of) == near, (name, key, of)
    assert [(one.attribute, one.value, one.units) for one in result.segments] == [
        (one.attribute, one.value, one.units) for one in own.segments
    ]
    with pytest.raises(InvalidInputError, match="weights"):
        warehouse.analyze(recorded.experiment, **tables.given())
    with pytest.raises(NotFoundError, match="metric"):
        warehouse.analyze(recorded.experiment, **given, metrics=["nowhere"])
    with pytest.raises(InvalidInputError, match="method"):
        warehouse.analyze(recorded.experiment, **given, method="peeking")  # type: ignore[arg-type]


async def test_units_of_a_bandit_count_by_the_weights_that_followed_outcomes(
    lab: Lab, clock: SettableClock, tmp_path: Path
) -> None:
    bandit = EAGER.model_copy(update={"uniform": 0.5})
    made = await create(lab, bandit, variants=ABC, primary_metric="success_rate")
    rates = {"a": 0.4, "b": 0.6, "c": 0.5}
    await serve(lab, range(200), rates)
    await lab.experiments.update_weights("tone", {"a": 1, "b": 4, "c": 0}, lead_seconds=0)
    clock.advance(seconds=1)
    await serve(lab, range(200, 400), rates)
    told = {"experiment_id": "tone", "variant": "b", "success": True}
    await lab.metrics.record_many(told | {"user_id": f"reported{number}"} for number in range(50))
    await lab.metrics.export_events(tmp_path / "out")
    weights = {number: epoch.weights for number, epoch in (await epochs(lab, made)).items()}
    assert min(weights) < UNIFORM_EPOCH
    own = await lab.analyze("tone")
    found = warehouse.analyze(made, **Tables(tmp_path / "out").given(), weights=weights, now=clock())
    assert found.units == own.units
    for key, difference in own.metrics["success_rate"].differences.items():
        same = found.metrics["success_rate"].differences[key]
        assert same.sentence == difference.sentence
        assert (same.value, same.low) == pytest.approx((difference.value, difference.low))


async def test_a_metric_may_be_defined_afterwards(lab: Lab, clock: SettableClock, tmp_path: Path) -> None:
    """Single events are at hand, so even another cap than the plan's can be asked for."""
    recorded = await record_history(lab, clock, units=30, window_hours=None)
    tables = await exported(recorded, tmp_path / "out")
    weights = (await recorded.evidence()).weights
    capped = MetricDefinition(name="capped_cost", measure="cost", cap=1.0)
    share = MetricDefinition(name="answered", kind="share_of_units", measure="success")
    found = warehouse.evidence(
        recorded.experiment,
        **tables.given(),
        metrics=[capped, share, "cost"],
        weights=weights,
        now=recorded.now,
    )
    by_name = {metric.definition.name: metric for metric in found.others}
    assert set(by_name) == {"capped_cost", "answered", "cost"}
    for variant in ("a", "b"):
        one, other = by_name["capped_cost"].pooled(variant), by_name["cost"].pooled(variant)
        assert (one.units, one.n) == (other.units, other.n)
        assert 0.0 < one.s < other.s
        assert one.s <= one.n


def hours(*values: float) -> list[datetime]:
    midnight = datetime(2026, 1, 5, tzinfo=UTC).replace(tzinfo=None)
    return [midnight + timedelta(hours=value) for value in values]


@pytest.fixture
def own_tables() -> dict[str, Any]:
    """Tables of somebody else's making: other names, times without a zone, no epochs, one column per measure."""
    backend = ibis.duckdb.connect()
    exposures = pa.table(
        {
            "who": ["x", "y", "x", "z"],
            "arm": ["a", "b", "b", "a"],
            "first_seen": pa.array(hours(8, 9, 10, 9), pa.timestamp("us")),
            "country": ["de", None, "fr", "de"],
        }
    )
    outcomes = pa.table(
        {
            "who": ["x", "x", "y", "y", "w", None],
            "when_it_was": pa.array(hours(9, 11.5, 9.5, 10, 10, 10), pa.timestamp("us")),
            "solved": [1, 0, 1, None, 1, 1],
            "euros": pa.array([1.5, None, 2.0, 3.0, 9.0, 9.0], pa.float32()),
        }
    )
    return {
        "exposures": backend.create_table("met", exposures),
        "outcomes": backend.create_table("told", outcomes),
        "exposure_columns": ExposureColumns(
            unit="who",
            variant="arm",
            at="first_seen",
            experiment_id=None,
            epoch=None,
            source=None,
            attributes=None,
        ),
        "outcome_columns": OutcomeColumns(
            unit="who",
            at="when_it_was",
            experiment_id=None,
            variant=None,
            measures={"success_rate": "solved", "euros": "euros"},
            metrics=None,
        ),
    }


async def test_tables_of_other_shapes_are_read_by_their_columns(
    lab: Lab, clock: SettableClock, own_tables: dict[str, Any]
) -> None:
    variants = [{"key": "a", "config": {"t": 0}}, {"key": "b", "config": {"t": 1}}]
    experiment = await lab.experiments.create_experiment(
        "e", "config", variants, plan={"metrics": [{"name": "euros"}], "window_hours": 2}
    )
    clock.advance(days=1)
    found = warehouse.evidence(experiment, **own_tables, segments=["country"], now=clock())
    # x came twice, and stays with the first; half past eleven is after its window
    assert {key: by_epoch[1] for key, by_epoch in found.arms.items()} == {"a": (2, 1, 0), "b": (1, 1, 0)}
    assert [
        (sums.units, sums.n, sums.s) for sums in (found.primary.pooled("a"), found.primary.pooled("b"))
    ] == [
        (1, 1.0, 1.0),
        (1, 1.0, 1.0),
    ]
    (euros,) = found.others
    assert [(sums.units, sums.n, sums.s) for sums in (euros.pooled("a"), euros.pooled("b"))] == [
        (1, 1.0, 1.5),
        (1, 2.0, 5.0),
    ]
    assert {segment.value: set(segment.arms) for segment in found.segments} == {"de": {"a"}, "": {"b"}}
    with pytest.raises(InvalidInputError, match="tokens"):
        warehouse.evidence(
            experiment, **own_tables, metrics=[MetricDefinition(name="tokens", cap=2.0)], now=clock()
        )


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"exposure_columns": ExposureColumns(unit="nobody")}, "nobody"),
        ({"outcome_columns": OutcomeColumns(metrics="never")}, "never"),
        ({"segments": ["colour"]}, "colour"),
    ],
    ids=["exposures", "outcomes", "segments"],
)
async def test_a_column_that_is_not_there_is_named(
    lab: Lab, clock: SettableClock, own_tables: dict[str, Any], changed: dict[str, Any], told: str
) -> None:
    variants = [{"key": "a", "config": {"t": 0}}, {"key": "b", "config": {"t": 1}}]
    experiment = await lab.experiments.create_experiment("e", "config", variants)
    with pytest.raises(InvalidInputError, match=told):
        warehouse.evidence(experiment, **{**own_tables, **changed}, now=clock())
