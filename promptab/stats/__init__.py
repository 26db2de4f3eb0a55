"""Statistics on plain numbers: sums over units in, named tuples out.

No rows, no store, no clock, no hidden randomness.
"""

from promptab.stats.metric import BUILT_IN_METRICS, MetricDefinition
from promptab.stats.ratio import Difference, Estimate, ratio_difference, ratio_estimate
from promptab.stats.summary import UnitSums

__all__ = [
    "BUILT_IN_METRICS",
    "Difference",
    "Estimate",
    "MetricDefinition",
    "UnitSums",
    "ratio_difference",
    "ratio_estimate",
]
