"""Analysis where the events outgrew the store: the same sums, computed by ibis wherever the tables are.

import ibis
from promptab.integrations import warehouse

con = ibis.duckdb.connect()
result = warehouse.analyze(
experiment,
exposures=con.read_parquet("exported/exposures/*/*.parquet"),
outcomes=con.read_parquet("exported/events/*/*.parquet"),
method="fixed",
)
"""

from __future__ import annotations

import importlib.util

from promptab.errors import MissingExtraError

for _package in ("ibis", "pyarrow"):
    if importlib.util.find_spec(_package) is None:
        raise MissingExtraError(_package, "warehouse")

from promptab.integrations.warehouse.asking import analyze, evidence  # noqa: E402 - what is missing is said first
from promptab.integrations.warehouse.columns import ExposureColumns, OutcomeColumns  # noqa: E402

__all__ = ["ExposureColumns", "OutcomeColumns", "analyze", "evidence"]
