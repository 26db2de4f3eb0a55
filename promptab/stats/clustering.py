"""How the events of a metric lie in its units, and what that costs: ten events of one user are not ten users.

References:
    Eldridge, Ashby & Kerry, "Sample size for cluster randomized trials: effect of coefficient of variation of
        cluster size and analysis method", International Journal of Epidemiology 35, 2006 (design effect)
    Deng, Knoblich & Lu, KDD 2018, https://arxiv.org/abs/1803.06336 (the variance that knows the units)
"""

from __future__ import annotations

import math
from typing import NamedTuple

from promptab.checks import check_number
from promptab.stats.ratio import ratio_mean
from promptab.stats.summary import UnitSums


class Clustering(NamedTuple):
    """How the events lie in the units."""

    events_per_unit: float
    """Mean over units that have events."""
    cv: float
    """Coefficient of variation of the events per unit; 0 where all have equally many."""
    intra_unit_correlation: float
    """Of two events of one unit, 0 to 1."""

    @property
    def design_effect(self) -> float:
        """How many times the events are needed that would do if they were independent.

        1 + ((CV² + 1) m - 1) r with m events per unit and intra-unit correlation r (Eldridge, Ashby &
        Kerry 2006, for an analysis in which every event counts alike, as it does in a ratio of sums). Raises
        `InvalidInputError` for fewer than one event per unit, a negative `cv`, a correlation outside 0 to 1.
        """
        check_number("events_per_unit", self.events_per_unit, low=1.0)
        check_number("cv", self.cv, low=0.0)
        check_number("intra_unit_correlation", self.intra_unit_correlation, low=0.0, high=1.0)
        largest = (self.cv * self.cv + 1.0) * self.events_per_unit
        return 1.0 + (largest - 1.0) * self.intra_unit_correlation

    @property
    def variance_factor(self) -> float:
        """The variance that a unit adds, over that of a single event: the design effect over events per unit."""
        return self.design_effect / self.events_per_unit


def measured_clustering(sums: UnitSums, *, event_variance: float | None = None) -> Clustering | None:
    """Estimate from recorded history how the events lie in the units.

    The design effect is the variance of the mean by the delta method, which knows the units, over that of
    independent events; the intra-unit correlation is the one that the formula of Eldridge, Ashby & Kerry
    (2006) turns into that design effect, within 0 to 1. `event_variance` is the variance of single events, in
    the metric's own unit squared; leave it out where they are 0 or 1. Assumes that how many events a unit has
    does not depend on how they turn out: where it does, the correlation takes that in too.

    None where it cannot be known: fewer than two units, no unit with two events, events that do not vary, or
    sums that overflow. A few dozen units give a rough value.
    """
    if event_variance is not None:
        check_number("event_variance", event_variance, low=0.0)
    arm = ratio_mean(sums)
    if arm is None or not math.isfinite(arm.variance):
        return None
    independent = arm.value * (1.0 - arm.value) if event_variance is None else event_variance
    # Σn²/Σn, which is (CV² + 1) m
    largest = sums.nn / sums.n
    if independent <= 0.0 or largest <= 1.0:
        return None
    correlation = (arm.variance * sums.n / independent - 1.0) / (largest - 1.0)
    mean = sums.n / sums.units
    cv = math.sqrt(max(0.0, largest / mean - 1.0))
    return Clustering(mean, cv, min(1.0, max(0.0, correlation)))
