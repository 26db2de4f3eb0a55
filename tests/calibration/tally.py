"""Counts of what happened in simulated experiments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from scipy.stats import beta

ALPHA = 0.05


class Tally:
    """How many of the simulated experiments came to what, by name."""

    def __init__(self, runs: int = 0, counts: Iterable[tuple[str, int]] = (), se_sum: float = 0.0) -> None:
        self.runs = runs
        self.counts: Counter[str] = Counter(dict(counts))
        self.se_sum = se_sum

    def add(self, events: Iterable[str], se: float = 0.0) -> None:
        """Count one experiment, in which `events` happened and whose effect had this standard error."""
        self.runs += 1
        self.counts.update(set(events))
        self.se_sum += se

    def __add__(self, other: Tally) -> Tally:
        counts = self.counts + other.counts
        return Tally(self.runs + other.runs, counts.items(), self.se_sum + other.se_sum)

    @property
    def mean_se(self) -> float:
        return self.se_sum / self.runs

    def share(self, name: str) -> float:
        return self.counts[name] / self.runs

    def limits(self, name: str, confidence: float) -> tuple[float, float]:
        """Return Clopper and Pearson's interval; each end is a one-sided limit at (1 + confidence)/2."""
        count, tail = self.counts[name], (1.0 - confidence) / 2.0
        low = float(beta.ppf(tail, count, self.runs - count + 1)) if count else 0.0
        high = float(beta.ppf(1.0 - tail, count + 1, self.runs - count)) if count < self.runs else 1.0
        return low, high
