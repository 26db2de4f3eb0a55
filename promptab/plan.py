"""What is settled about an analysis before the first unit: settled later, it would be settled by the result."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from promptab.checks import check_confidence, check_count, check_number
from promptab.errors import InvalidInputError
from promptab.records import Declared, Number
from promptab.stats.metric import BUILT_IN_METRICS, MEASURE_ALIASES, MetricDefinition

TUNING_UNITS = 5_000
"""Where a confidence sequence is narrowest compared with a fixed horizon, unless the plan says otherwise."""

MINIMUM_UNITS = 100
"""Per variant, before anything wins: fewer units are too few for a normal mean of skewed outcomes."""


class AnalysisPlan(Declared):
    """How an experiment is analysed. Stored with the experiment, and frozen when it starts.

    Raises `InvalidInputError` for what does not fit together.
    """

    metrics: tuple[MetricDefinition, ...] = ()
    """Metrics beside the built-in ones, or in their place."""
    window_hours: Number | None = None
    """Measurement window: only outcomes in this many hours from a unit's first exposure count, and the unit counts
    once they have passed. None: all outcomes count at once, and the sequential analysis is approximate."""
    confidence: Number = 0.95
    tuning_units: int = TUNING_UNITS
    """Units of two arms together at which the sequential analysis is sharpest."""
    minimum_units: int = MINIMUM_UNITS
    """Units per variant below which nothing wins."""
    power: Number = 0.8
    """The chance with which the smallest effect worth having is to be found: by how many units are told to be enough.
    No decision waits for it."""
    acceptable_loss: Number = 0.005
    """Bayesian: a variant is better when choosing it is expected to cost at most this share of the larger
    of both values (of a rate: of its rarer outcome), and choosing the control more."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [metric.name for metric in self.metrics]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise InvalidInputError("plan.metrics", repeated[0], "each metric declared once")
        if self.window_hours is not None:
            check_number("plan.window_hours", self.window_hours, above=0.0, high=24.0 * 366)
        check_confidence("plan.confidence", self.confidence)
        check_count("plan.tuning_units", self.tuning_units, low=2, high=10**12)
        check_number("plan.acceptable_loss", self.acceptable_loss, above=0.0, high=1.0)
        check_number("plan.power", self.power, above=0.0, below=1.0)
        check_count("plan.minimum_units", self.minimum_units, low=2, high=10**12)
        return self

    def definition(self, name: str) -> MetricDefinition:
        """Return what this metric is: as declared, else as built in, else a mean that is better when it
        increases.
        """
        name = MEASURE_ALIASES.get(name, name)
        declared = next((metric for metric in self.metrics if metric.name == name), None)
        return declared or BUILT_IN_METRICS.get(name) or MetricDefinition(name=name)
