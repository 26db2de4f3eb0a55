"""An analysis as a report: charts, and one file with everything in it. Needs `promptab[charts]`."""

from __future__ import annotations

import importlib.util

from promptab.errors import MissingExtraError

for _package in ("altair", "vl_convert"):
    if importlib.util.find_spec(_package) is None:
        raise MissingExtraError(_package, "charts")

from promptab.analysis.histogram import Histogram  # noqa: E402 - what is missing is said first
from promptab.report.writing import check_report_path, write_report  # noqa: E402

__all__ = ["Histogram", "check_report_path", "write_report"]
