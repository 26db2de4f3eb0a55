"""How single values are spread: counts between edges, one histogram per variant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from promptab.errors import InvalidInputError


class Histogram(NamedTuple):
    """Events of one variant by the size of one measure, such as the response time in seconds."""

    variant: str
    edges: Sequence[float]
    """Ascending, one more than `counts`."""
    counts: Sequence[int]
    """Events from each edge (included) up to the next."""

    def densities(self) -> list[float]:
        """Return the share of events per unit of the measure, bin by bin; zeros where there are no events.

        Shares, so that variants with different traffic lie over one another; per unit, so that bins of unequal
        width do. Raises `InvalidInputError` where edges and counts do not fit together.
        """
        self._check()
        total = sum(self.counts)
        widths = [high - low for low, high in pairwise(self.edges)]
        return [
            count / total / width if total else 0.0 for count, width in zip(self.counts, widths, strict=True)
        ]

    def _check(self) -> None:
        field = f"histograms[{self.variant}]"
        if len(self.edges) != len(self.counts) + 1 or not self.counts:
            raise InvalidInputError(
                f"{field}.edges", len(self.edges), f"one more than the {len(self.counts)} counts"
            )
        if not all(math.isfinite(edge) for edge in self.edges) or any(
            low >= high for low, high in pairwise(self.edges)
        ):
            raise InvalidInputError(f"{field}.edges", list(self.edges), "finite and ascending")
        if any(count < 0 for count in self.counts):
            raise InvalidInputError(f"{field}.counts", min(self.counts), "at least 0")
