"""Summaries by ibis on a Spark cluster of two workers, held against those that the store makes of the same events."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ibis
import pyspark
import pytest
from pyspark.sql import SparkSession

from promptab import Lab, gathering
from promptab.integrations import warehouse
from tests.clock import SettableClock
from tests.conftest import REQUIRE_SHARED
from tests.warehouse_history import SEGMENTS, assert_same, record_history

# Spark warns of what its own client and pandas do
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    """A cluster of one master and two workers, each a process of its own."""
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        if os.environ.get(REQUIRE_SHARED) == "1":
            pytest.fail(f"{REQUIRE_SHARED}=1, but there is no java, which Spark needs (17 or later)")
        pytest.skip("Spark needs java, 17 or later, which is not here")
    os.environ.setdefault("SPARK_HOME", str(Path(pyspark.__file__).parent))
    settings = {
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.executor.memory": "512m",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.session.timeZone": "America/New_York",
    }
    builder = SparkSession.builder.master("local-cluster[2,1,1024]").appName("promptab")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()


@pytest.fixture
def store_url() -> str:
    """One store is enough here: that all stores say the same is tested elsewhere."""
    return "sqlite:///:memory:"


async def test_summaries_on_two_workers_equal_those_of_the_store(
    spark: Any, lab: Lab, clock: SettableClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a query for each metric's single units would make most of the time, and DuckDB has them
    monkeypatch.setattr(gathering, "FEW_UNITS", 0)
    recorded = await record_history(lab, clock, units=60, window_hours=30.0)
    await lab.metrics.export_events(tmp_path / "out")
    # the driver is no worker
    assert spark.sparkContext._jsc.sc().getExecutorMemoryStatus().size() == 3
    backend = ibis.pyspark.connect(spark)
    expected = await recorded.evidence()
    found = warehouse.evidence(
        recorded.experiment,
        exposures=backend.read_parquet(str(tmp_path / "out" / "exposures")),
        outcomes=backend.read_parquet(str(tmp_path / "out" / "events")),
        aliases=backend.read_parquet(str(tmp_path / "out" / "aliases.parquet")),
        segments=SEGMENTS,
        weights=expected.weights,
        now=recorded.now,
    )
    assert len(found.others) > 14
    assert_same(found, expected)
