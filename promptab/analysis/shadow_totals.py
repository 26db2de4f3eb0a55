"""What the runs of shadows, and what their units were served, add up to: totals of each unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

MEASURED = ("success_rate", "response_time", "tokens", "cost", "rating")
"""The measures that runs are compared by."""


class Use(NamedTuple):
    """What the events of one unit add up to."""

    calls: int
    totals: Mapping[str, tuple[float, float]]
    """Of each measure in `MEASURED`: how many events carried it, and their sum."""


class UnitUse(NamedTuple):
    unit: str
    """Aliases followed: what is one observation."""
    recorded: str
    """As the events have it: what was in the shadow or not."""
    variant: str
    """The shadow's, or the one that was served."""
    stretch: int
    """How many of the moments that were asked for had come when it happened."""
    use: Use


class ShadowTotals(NamedTuple):
    runs: Sequence[UnitUse]
    served: Mapping[str, Sequence[UnitUse]]
    """Shadow -> what the units that have runs of it were served. What a call without a run beside it measured is in no
    total, unless the unit has runs that do not say beside which call they were.
    """
    failures: Mapping[str, Mapping[str, int]]
    """Shadow -> kind of failure -> runs that failed so; "" for those of which nobody said how."""
