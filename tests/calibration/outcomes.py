"""Simulated outcomes: how many events a unit has, and what they carry.

The events of one unit resemble each other by the intra-unit correlation, the share of an event's variance that
its unit explains.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri
from scipy.stats import multivariate_normal

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

BASE: Mapping[str, float] = {
    "success_rate": 0.6,
    "response_time": 1.2,
    "cost_per_success": 0.004,
    "p95_response_time": 3.0,
}
"""The control's value of each metric: a share, seconds, dollars, seconds."""

METRICS = tuple(BASE)

# Of the logarithm of an event's value; at 0.8 one event in a hundred is above 4.7 times the mean.
_LOG_SD: Mapping[str, float] = {"response_time": 0.6, "p95_response_time": 0.6, "cost_per_success": 0.8}
_SUCCESSES = BASE["success_rate"]


class Population(NamedTuple):
    """What is measured, and of whom."""

    metric: str
    events: int
    """Mean count of events per unit: geometric, or exactly 1."""
    correlation: float
    """Of two events of one unit. With one event per unit nobody can see it."""


class Events(NamedTuple):
    """The events of the units of several experiments: those of a unit side by side, units in order of arrival."""

    counts: Integers
    """Events of each unit, at least 1; experiments by units."""
    values: Floats
    """What each event adds to the metric's numerator."""
    weights: Floats
    """What each event adds to the metric's denominator."""

    def per_unit(self, of_events: Floats) -> Floats:
        """Add up a number of each event over the events of each unit."""
        ends = self.counts.ravel().cumsum()
        sums: Floats = np.add.reduceat(of_events, ends - self.counts.ravel()).reshape(self.counts.shape)
        return sums


def draw(generator: np.random.Generator, population: Population, expected: Floats) -> Events:
    """Draw the events of units of whom the metric is to come to `expected` (experiments by units)."""
    shape = expected.shape
    if population.events > 1:
        counts = generator.geometric(1.0 / population.events, shape)
    else:
        counts = np.ones(shape, dtype=np.int64)
    match population.metric:
        case "success_rate":
            values = _successes(generator, counts, expected, population.correlation)
            weights = np.ones_like(values)
        case "cost_per_success":
            weights = _successes(generator, counts, np.full(shape, _SUCCESSES), population.correlation)
            values = _amounts(generator, counts, population, np.log(expected * _SUCCESSES))
        case "response_time":
            values = _amounts(generator, counts, population, np.log(expected))
            weights = np.ones_like(values)
        case _:
            # the 95th percentile of a lognormal, and so its mean, from the standard deviation of the logarithm
            log_sd = _LOG_SD[population.metric]
            log_mean = np.log(expected) - log_sd * float(ndtri(0.95)) + log_sd**2 / 2.0
            values = _amounts(generator, counts, population, log_mean)
            weights = np.ones_like(values)
    return Events(counts, values, weights)


def _successes(generator: np.random.Generator, counts: Integers, rates: Floats, correlation: float) -> Floats:
    """Draw 0 or 1 per event; units have rates of their own, Beta with this mean and a + b = 1/correlation - 1."""
    if correlation > 0.0:
        concentration = 1.0 / correlation - 1.0
        rates = generator.beta(rates * concentration, (1.0 - rates) * concentration)
    of_events = np.repeat(rates.ravel(), counts.ravel())
    return (generator.random(of_events.size) < of_events).astype(np.float64)


def _amounts(
    generator: np.random.Generator, counts: Integers, population: Population, log_means: Floats
) -> Floats:
    """Draw a lognormal amount per event, with means exp(log_means) and a lognormal factor of each unit's own.

    The factor's log variance t² is such that (exp(t²) - 1)/(exp(s²) - 1) is the correlation of the amounts
    themselves, s being the standard deviation of an event's logarithm.
    """
    log_sd = _LOG_SD[population.metric]
    of_unit = math.sqrt(math.log1p(population.correlation * math.expm1(log_sd**2)))
    levels = log_means - log_sd**2 / 2.0 + of_unit * generator.standard_normal(counts.shape)
    of_events = np.repeat(levels.ravel(), counts.ravel())
    of_events += math.sqrt(log_sd**2 - of_unit**2) * generator.standard_normal(of_events.size)
    amounts: Floats = np.exp(of_events)
    return amounts


def quantile_se(population: Population, share: float) -> float:
    """Return sqrt(n) times the standard error of the quantile of n response times, in seconds.

    sqrt(p (1 - p) D) over the density there, D being the design effect of geometric counts (Eldridge, Ashby &
    Kerry 2006) for the correlation of "above the quantile", where logarithms are bivariate normal.
    """
    log_sd, z = _LOG_SD[population.metric], float(ndtri(share))
    correlation = math.log1p(population.correlation * math.expm1(log_sd**2)) / log_sd**2
    both = float(multivariate_normal([0.0, 0.0], [[1.0, correlation], [correlation, 1.0]]).cdf([z, z]))
    alike = (both - share**2) / (share * (1.0 - share))
    design_effect = 1.0 + (2.0 * population.events - 2.0) * alike
    density = math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi) / log_sd / BASE[population.metric]
    return math.sqrt(share * (1.0 - share) * design_effect) / density
