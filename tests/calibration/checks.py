"""What the numbers are held to, and how far chance alone would carry them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.stats import binom

from tests.calibration.outcomes import Bools, Integers
from tests.calibration.tally import ALPHA, Tally

FIXED_TOLERANCE = 0.016
"""How far a row of 2,000 experiments may be from 5 %: chance takes one in a thousand that far."""

_ALARMS = 0.01
# A one-sided limit at 99.9 % is beyond the bound exactly where the bound makes so much so unlikely.
_LIMIT = 0.001
# Each end of a 95 % interval is a one-sided limit at 97.5 %.
_INTERVAL_TAIL = 0.025


class Promise(NamedTuple):
    """A bound for the share of experiments in which something happened."""

    sentence: str
    share: float
    """The true share that just keeps it."""
    kept_by: Callable[[Integers, int], Bools]
    """Whether counts of so many experiments keep it."""
    two_sided: bool = False


class Check(NamedTuple):
    """One number of the page against its bound."""

    promise: Promise
    where: str
    told: str
    held: bool
    p_value: float
    """Of a count so far off or farther, were the share exactly the one that just keeps the promise."""
    by_chance: float
    """How likely a number would be outside then."""


def _near_alpha(counts: Integers, runs: int) -> Bools:
    return (counts / runs >= ALPHA - _tolerance(runs)) & _not_above_alpha(counts, runs)


def _not_above_alpha(counts: Integers, runs: int) -> Bools:
    kept: Bools = counts / runs <= ALPHA + _tolerance(runs)
    return kept


def _tolerance(runs: int) -> float:
    """Return 1.6 points, or with fewer experiments as many standard errors as these are of 2,000."""
    return FIXED_TOLERANCE * math.sqrt(max(1.0, 2_000 / runs))


def _alpha_inside(counts: Integers, runs: int) -> Bools:
    inside: Bools = binom.cdf(counts, runs, ALPHA) >= _INTERVAL_TAIL
    return inside & _alpha_not_below(counts, runs)


def _alpha_not_below(counts: Integers, runs: int) -> Bools:
    inside: Bools = binom.sf(counts - 1, runs, ALPHA) >= _INTERVAL_TAIL
    return inside


def _at_most_alpha(counts: Integers, runs: int) -> Bools:
    kept: Bools = binom.sf(counts - 1, runs, ALPHA) >= _LIMIT
    return kept


def _few_alarms(counts: Integers, runs: int) -> Bools:
    kept: Bools = counts / runs < _ALARMS
    return kept


_NEAR = f"fixed horizon: false positives within 5 % +- {100.0 * FIXED_TOLERANCE:g} points"
_AROUND = "fixed horizon, all rows of a metric: 5 % within the 95 % interval of false positives"

FIXED = Promise(_NEAR, ALPHA, _near_alpha, two_sided=True)
FIXED_OR_BELOW = Promise(f"{_NEAR}, or below", ALPHA, _not_above_alpha)
POOLED = Promise(_AROUND, ALPHA, _alpha_inside, two_sided=True)
POOLED_OR_BELOW = Promise(f"{_AROUND}, or above it", ALPHA, _alpha_not_below)
LOOKS = Promise("28 looks: lower 99.9 % limit of false positives at most 5 %", ALPHA, _at_most_alpha)
COVERAGE = Promise("coverage: upper 99.9 % limit at least 95 %", ALPHA, _at_most_alpha)
ALARM = Promise("28 looks: sample-ratio alarms below 1 %", _ALARMS, _few_alarms)
SAFETY = Promise("wrong verdicts at the margin: lower 99.9 % limit at most 5 %", ALPHA, _at_most_alpha)

WRONG = Promise(
    "looks after every 5 and every 50 units: lower 99.9 % limit of wrong rollbacks, or promotions, at most 5 %",
    ALPHA,
    _at_most_alpha,
)
FALSE_ALARM = Promise(
    "looks after every 5 units: lower 99.9 % limit of rollbacks without a fall at most 5 %",
    ALPHA,
    _at_most_alpha,
)


def check(promise: Promise, tally: Tally, name: str, *, where: str, told: str) -> Check:
    """Hold the share of `name` to the promise; `where` and `told` are how the page shows it."""
    count, runs = tally.counts[name], tally.runs
    above = float(binom.sf(count - 1, runs, promise.share))
    below = float(binom.cdf(count, runs, promise.share))
    p_value = min(1.0, 2.0 * min(above, below)) if promise.two_sided else above
    held = bool(promise.kept_by(np.array([count]), runs)[0])
    return Check(promise, where, told, held, p_value, _outside_by_chance(promise, runs))


def chance_of_as_many_outside(checks: Sequence[Check]) -> float:
    """Return how likely at least as many are outside where every share just keeps its promise.

    The numbers are taken for independent; those of one row are of the same experiments, and are not quite.
    """
    of_counts = np.array([1.0])
    for one in checks:
        of_counts = np.convolve(of_counts, [1.0 - one.by_chance, one.by_chance])
    outside = sum(not one.held for one in checks)
    return float(min(1.0, of_counts[outside:].sum()))


@cache
def _outside_by_chance(promise: Promise, runs: int) -> float:
    counts = np.arange(runs + 1)
    return float(binom.pmf(counts, runs, promise.share)[~promise.kept_by(counts, runs)].sum())
