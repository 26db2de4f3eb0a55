"""Quantiles of events whose units were randomised: the median and the slow tail of response times.

A unit's events resemble each other, so the share of events at or below a value spreads as units do. That spread
is turned into one of the quantile by reading the data at either end of it (the outer interval), or, where units
are few, by drawing units again and again (the bootstrap).

References:
    Deng, Knoblich & Lu, "Applying the Delta Method in Metric Analytics", KDD 2018, section 4,
        https://arxiv.org/abs/1803.06336
    Yao, Li & Lu, "Fast quantile inference for large-scale clustered data", 2024, algorithm 1,
        https://arxiv.org/abs/2401.14549
    Rao & Wu, "Resampling inference with complex survey data", JASA 83, 1988 (the factor K/(K-1))
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from promptab.errors import InvalidInputError
from promptab.stats.contrast import ArmMean, Contrast, Stratum, combined
from promptab.stats.ratio import ratio_mean
from promptab.stats.summary import UnitSums

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

# The outer interval is read at 95 %, as in the papers: wide enough to hold many events, near enough to be local.
_Z = float(ndtri(0.975))
# Fewer units, or fewer of them on either side of the quantile: the bootstrap, which needs no normal share.
_UNITS_FOR_INTERVAL = 100
_UNITS_BEYOND = 24
# With one event beyond the quantile the bootstrap finds up to 9 % of differences where there are none, with no
# event beyond it up to 36 % (nominal 5 %, p95 and p99, 10 to 150 units; simulated).
_EVENTS_BEYOND = 2
_REPLICATES = 1000
# Of the largest tables that the bootstrap holds at a time.
_CELLS = 1_000_000
# n nu is a whole number more often than doubles say: 0.07 * 100 is above 7.
_ROUNDING = 1e-15


class QuantileArm(NamedTuple):
    """A quantile of the events of one variant and epoch."""

    value: float | None
    """The order statistic of rank ceil(n nu), so one of the values; None where there are none."""
    variance: float | None
    """Of `value`, between repetitions of the experiment; 0.0 where no unit varies. None with fewer than two
    units, with fewer than two events above or below the quantile's rank (what was never seen has no spread),
    and where it overflows."""
    units: int
    """Units with at least one event."""
    events: int
    method: Literal["interval", "bootstrap"] | None
    """What the variance comes from; None where there is none."""

    @property
    def mean(self) -> ArmMean | None:
        """As an arm that can be compared; None where the variance is not known."""
        if self.value is None or self.variance is None:
            return None
        return ArmMean(self.value, self.variance, self.units)


def quantile_arm(values: npt.ArrayLike, units: npt.ArrayLike, nu: float, *, seed: int = 0) -> QuantileArm:
    """Estimate the quantile at `nu`, with 0 < nu < 1, of the events of one arm and how much it varies by units.

    `values[i]` is the value of event i in the metric's own unit, `units[i]` an integer that names its unit; any
    order. The variance is ((U - L)/(2 z))² with L and U the order statistics at n (nu ± z d), one rank farther
    out, z = 1.96, and d² the delta-method variance of the share of events at or below the quantile (Deng,
    Knoblich & Lu 2018, section 4; Yao, Li & Lu 2024, algorithm 1). It is conservative for heavy tails. It needs
    an interval that ends inside the sample (for independent events: more than 4 nu/(1 - nu) of them, GrowthBook's
    rule), 100 units and 24 of them on either side; with less the variance is that of 1,000 samples of whole
    units drawn with replacement, times K/(K - 1) for K units (Rao & Wu 1988). `seed` makes those draws
    repeatable. Assumes independent units.

    Where many events share the quantile's value, as ratings do, neither sees the next value until chance
    reaches it; the distance to it, over the number of d that the quantile is away from it, is then the least
    standard error. That too is conservative.

    Raises `InvalidInputError` for `nu` outside (0, 1), arrays that are not of one length, and values that are
    not finite.
    """
    if not 0.0 < nu < 1.0:
        raise InvalidInputError("nu", nu, "between 0 and 1", "p95 is 0.95")
    events = _checked_values(values)
    codes, counts = _codes(units, events.size)
    n, k = events.size, counts.size
    if n == 0:
        return QuantileArm(None, None, 0, 0, None)
    rank = _rank(n, nu)
    value = float(np.partition(events, rank - 1)[rank - 1])
    if k < 2 or min(rank - 1, n - rank) < _EVENTS_BEYOND:
        return QuantileArm(value, None, k, n, None)
    below = np.bincount(codes[events < value], minlength=k)
    up_to = np.bincount(codes[events <= value], minlength=k)
    shares = _share(below, counts), _share(up_to, counts)
    outer = _outer(events, value, nu, shares)
    units_beyond = min(np.count_nonzero(up_to), np.count_nonzero(counts - below))
    if outer.inside and k >= _UNITS_FOR_INTERVAL and units_beyond >= _UNITS_BEYOND:
        return _arm(value, outer.se * outer.se, k, n, "interval")
    variance = _bootstrap_variance(events, codes, k, nu=nu, value=value, seed=seed)
    if outer.tied:
        variance = max(variance, outer.se * outer.se)
    return _arm(value, variance, k, n, "bootstrap")


def quantile_contrast(treatment: Mapping[int, QuantileArm], control: Mapping[int, QuantileArm]) -> Contrast:
    """Compare a quantile of two arms epoch by epoch (keys are epoch numbers) and combine the epochs.

    An epoch in which either arm's variance is not known is left out. The combined values are averages of the
    epochs' quantiles by units, not the quantile of all events.
    """
    nothing = QuantileArm(None, None, 0, 0, None)
    strata: list[Stratum] = []
    left_out: list[int] = []
    for epoch in sorted(treatment.keys() | control.keys()):
        arms = treatment.get(epoch, nothing), control.get(epoch, nothing)
        treated, untreated = (arm.mean for arm in arms)
        if treated is not None and untreated is not None:
            strata.append(Stratum(epoch, treated, untreated))
        elif any(arm.units for arm in arms):
            left_out.append(epoch)
    return combined(strata, tuple(left_out))


def clustered_quantile_variance(below: UnitSums, nu: float, *, lower: float, upper: float) -> float | None:
    """Return the variance of a quantile from sums over units, where the events themselves are elsewhere.

    `below` has as s_u the events of unit u at or below the quantile and as n_u all its events; `lower` and
    `upper` are the order statistics at n (nu ± 1.96 sqrt(nu (1 - nu)/n)), which independent events would
    reach. Their variance (n - 1)/n ((upper - lower)/(2 z))² is multiplied by that of the share of events at or
    below the quantile over nu (1 - nu)/n. GrowthBook's gbstats (QuantileClusteredStatistic), after Deng,
    Knoblich & Lu 2018; its documentation has the factor upside down, its code and simulations have not. None
    with fewer than two units; 0.0 where all units have the same share.

    Raises `InvalidInputError` for `nu` outside (0, 1) and `upper` below `lower`.
    """
    if not 0.0 < nu < 1.0:
        raise InvalidInputError("nu", nu, "between 0 and 1", "p95 is 0.95")
    if not lower <= upper:
        raise InvalidInputError("upper", upper, f"at or above lower, {lower!r}", "read both from one sample")
    share = ratio_mean(below)
    if share is None:
        return None
    half = (upper - lower) / (2.0 * _Z)
    independent = nu * (1.0 - nu) / below.n
    return (below.n - 1.0) / below.n * half * half * share.variance / independent


class _Outer(NamedTuple):
    """The standard error of a quantile, read from the data around it."""

    se: float
    tied: bool
    """An end of the interval is the quantile itself."""
    inside: bool
    """Neither end had to be cut to the sample."""


def _outer(events: Floats, value: float, nu: float, shares: tuple[ArmMean, ArmMean]) -> _Outer:
    """Read the outer interval; `shares` are those of the events below the quantile, and at or below it.

    The larger of their standard deviations counts: where the quantile's value is also the highest, all
    events are at or below it, which does not make that share certain at every repetition.
    """
    n = events.size
    sigmas = [math.sqrt(share.variance) for share in shares]
    reach = _Z * max(sigmas)
    low_rank, high_rank = math.floor(n * (nu - reach)), math.ceil(n * (nu + reach)) + 1
    places = max(low_rank, 1) - 1, min(high_rank, n) - 1
    ordered = np.partition(events, places)
    low, high = (float(ordered[place]) for place in places)
    inside = low_rank >= 1 and high_rank <= n
    if low < value < high:
        return _Outer((high - low) / (2.0 * _Z), tied=False, inside=inside)
    down, up = (value - low) / _Z, (high - value) / _Z
    if low == value and sigmas[0] > 0.0:
        next_below = float(events[events < value].max())
        down = (value - next_below) / max(_Z, (nu - shares[0].value) / sigmas[0])
    if high == value and sigmas[1] > 0.0:
        next_above = float(events[events > value].min())
        up = (next_above - value) / max(_Z, (shares[1].value - nu) / sigmas[1])
    return _Outer(max(down, up), tied=True, inside=inside)


def _bootstrap_variance(
    events: Floats, codes: Integers, k: int, *, nu: float, value: float, seed: int
) -> float:
    """Draw k units with replacement 1,000 times; return the variance of the quantile over the draws.

    A draw's quantile is found in two steps, so that a million events of few units need no table of draws by
    events: from the draw's count of events in each block of the ordered events, then inside one block.
    """
    order = np.argsort(events, kind="stable")
    ordered, owners = events[order], codes[order]
    n = ordered.size
    blocks = max(1, min(n, _CELLS // k, 1024))
    starts = -(-np.arange(blocks) * n // blocks)
    cells = np.arange(n) * blocks // n * k + owners
    table = np.bincount(cells, minlength=blocks * k).reshape(blocks, k).cumsum(axis=0).astype(np.float64)
    inside = np.arange(-(-n // blocks))
    generator = np.random.default_rng(seed)
    step = max(1, min(_REPLICATES, _CELLS // max(k, inside.size)))
    shifts = []
    for done in range(0, _REPLICATES, step):
        draws = min(step, _REPLICATES - done)
        rows = np.arange(draws)[:, np.newaxis]
        drawn = generator.integers(0, k, (draws, k)) + rows * k
        copies = np.bincount(drawn.ravel(), minlength=draws * k).reshape(draws, k).astype(np.float64)
        running = copies @ table.T
        ranks = np.ceil(running[:, -1:] * nu * (1.0 - _ROUNDING))
        block = np.count_nonzero(running < ranks, axis=1)
        before = np.where(block > 0, running[rows[:, 0], block - 1], 0.0)
        places = np.minimum(starts[block][:, np.newaxis] + inside, n - 1)
        reached = before[:, np.newaxis] + copies[rows, owners[places]].cumsum(axis=1)
        found = starts[block] + np.count_nonzero(reached < ranks, axis=1)
        # differences from the estimate: draws that all agree then have a variance of exactly 0
        with np.errstate(over="ignore"):
            shifts.append(ordered[found] - value)
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.concatenate(shifts).var(ddof=1)) * k / (k - 1)


def _arm(
    value: float, variance: float, units: int, events: int, method: Literal["interval", "bootstrap"]
) -> QuantileArm:
    if not math.isfinite(variance):
        return QuantileArm(value, None, units, events, None)
    return QuantileArm(value, variance, units, events, method)


def _share(part: Integers, counts: Integers) -> ArmMean:
    """Return the share of events that are in `part`, with its delta-method variance over units (two or more)."""
    n, s = float(counts.sum()), float(part.sum())
    center = s / n
    weights = counts.astype(np.float64)
    deviations = part - center * weights
    sums = UnitSums(
        units=counts.size,
        n=n,
        s=s,
        center=center,
        rr=float(deviations @ deviations),
        nn=float(weights @ weights),
        rn=float(deviations @ weights),
    )
    share = ratio_mean(sums)
    assert share is not None  # noqa: S101 - narrows the type: there are two units and an event of each
    return share


def _rank(n: int, nu: float) -> int:
    return min(n, max(1, math.ceil(n * nu * (1.0 - _ROUNDING))))


def _checked_values(values: npt.ArrayLike) -> Floats:
    events = np.asarray(values, dtype=np.float64)
    if events.ndim != 1:
        raise InvalidInputError("values", events.shape, "one-dimensional", "give one value per event")
    finite = np.isfinite(events)
    if not finite.all():
        raise InvalidInputError("values", float(events[~finite][0]), "finite", "leave such events out")
    return events


def _codes(units: npt.ArrayLike, events: int) -> tuple[Integers, Integers]:
    """Return each event's unit as a number from 0 without gaps, and the count of events of each unit."""
    codes = np.asarray(units)
    if codes.shape != (events,):
        raise InvalidInputError("units", codes.shape, f"of shape ({events},)", "name the unit of every event")
    if events == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    if not np.issubdtype(codes.dtype, np.integer):
        raise InvalidInputError("units", str(codes.dtype), "of integers", "number the units")
    if codes.min() == 0 and codes.max() < events:
        counts = np.bincount(codes)
        if counts.all():
            return codes.astype(np.int64, copy=False), counts
    _, dense, counts = np.unique(codes, return_inverse=True, return_counts=True)
    return dense, counts
