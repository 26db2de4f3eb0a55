"""The difference of two independent rates that have beta distributions, by quadrature.

On the scale of the log odds every beta density is smooth and has one peak, so a double exponential rule is
exact to about eleven digits, with a handful of trials and with millions. The integral always runs over the
rate that is narrower, against the distribution function of the wider one, which is smooth on that scale.

References:
    Takahasi & Mori, "Double exponential formulas for numerical integration", Publ. RIMS 9, 1974
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betainc, betaincc, expit, logit

_Floats = NDArray[np.float64]

# A density this much below its peak, in logarithms, adds nothing to sixteen digits.
_NEGLIGIBLE = 40.0

# Of the log odds that a rate may have, for integrals over several rates at once, and the nodes in each of them.
_PIECES = 12
_NODES = 16


class BetaRate(NamedTuple):
    """A rate between 0 and 1 with the distribution Beta(alpha, beta), both at least 0.1."""

    alpha: float
    beta: float

    @property
    def mean(self) -> float:
        return self.alpha / (self.alpha + self.beta)

    @property
    def sd(self) -> float:
        total = self.alpha + self.beta
        return math.sqrt(self.alpha / total * (self.beta / total) / (total + 1.0))

    def below(self, rate: _Floats, rest: _Floats) -> _Floats:
        """Return P(this < rate); `rest` is 1 - rate, which keeps the digits of rates near 1."""
        below = np.empty_like(rate)
        near_zero = rate < 0.5
        below[near_zero] = betainc(self.alpha, self.beta, rate[near_zero])
        below[~near_zero] = betaincc(self.beta, self.alpha, rest[~near_zero])
        return below

    def mean_above(self, rate: _Floats, rest: _Floats) -> _Floats:
        """Return E[max(0, this - rate)], with the rate times its density as a beta density again."""
        larger = BetaRate(self.alpha + 1.0, self.beta)
        partial = self.mean * (1.0 - larger.below(rate, rest)) - rate * (1.0 - self.below(rate, rest))
        return np.asarray(np.maximum(partial, 0.0))

    def log_density(self, t: _Floats) -> _Floats:
        """Return the logarithm of the density of the log odds at their mode + t, relative to the mode.

        From the mode, log(alpha / beta), each side is a product in which nothing cancels but terms of the
        size of the square root of the trials.
        """
        total = self.alpha + self.beta
        left, right = np.minimum(t, 0.0), np.maximum(t, 0.0)
        rising = self.alpha * left - total * np.log1p(self.alpha / total * np.expm1(left))
        falling = -self.beta * right - total * np.log1p(self.beta / total * np.expm1(-right))
        return np.asarray(rising + falling)

    def reach(self) -> float:
        """Return how far to the left of the mode of the log odds the density becomes negligible."""
        farthest = math.sqrt(1.0 / self.alpha + 1.0 / self.beta)
        total = self.alpha + self.beta
        share = self.alpha / total

        def excess(t: float) -> float:
            # the rising part of `log_density`, without arrays of one number
            return _NEGLIGIBLE - self.alpha * t - total * math.log1p(share * math.expm1(-t))

        while excess(farthest) > 0.0:
            farthest *= 2.0
        return float(brentq(excess, 0.0, farthest))


class RateDifference:
    """The difference of two independent beta rates, by integrals over the narrower one's log odds."""

    def __init__(self, treatment: BetaRate, control: BetaRate) -> None:
        self.treatment = treatment
        self.control = control
        self.over_control = control.sd <= treatment.sd
        self.narrow, self.wide = (control, treatment) if self.over_control else (treatment, control)
        self.mode = math.log(self.narrow.alpha / self.narrow.beta)
        self.low = self.mode - self.narrow.reach()
        self.high = self.mode + BetaRate(self.narrow.beta, self.narrow.alpha).reach()
        self.mass = 1.0
        # the density is relative to its mode until its own integral is known
        self.mass = self.integral(lambda rate, _: np.ones_like(rate))

    def integral(
        self,
        function: Callable[[_Floats, _Floats], _Floats],
        *,
        low: float = -math.inf,
        high: float = math.inf,
    ) -> float:
        """Return the mean over the narrow rate of `function(rate, 1 - rate)`, 0 outside log odds low..high."""
        low, high = max(low, self.low), min(high, self.high)
        if low >= high:
            return 0.0
        shares, weights = _double_exponential(_level(high - low))
        odds = low + (high - low) * shares
        weights = weights * np.exp(self.narrow.log_density(odds - self.mode))
        # the function is what takes time, and is never large
        counts = weights > 1e-20 * np.max(weights)
        values = function(expit(odds[counts]), expit(-odds[counts]))
        return (high - low) * float(np.sum(weights[counts] * values)) / self.mass

    def probability_above(self) -> float:
        """Return P(treatment > control)."""
        wide_below = self.integral(self.wide.below)
        return min(1.0, max(0.0, 1.0 - wide_below if self.over_control else wide_below))

    def expected_shortfall(self) -> float:
        """Return E[max(0, control - treatment)].

        E[max(0, treatment - control)] is larger by the difference of the means.
        """
        wide_above = self.integral(self.wide.mean_above)
        if not self.over_control:
            return wide_above
        return max(0.0, wide_above - (self.treatment.mean - self.control.mean))

    def probability_at_most(self, difference: float) -> float:
        """Return P(treatment - control <= difference)."""
        if self.over_control:
            return self._wide_below_shifted(difference)
        return 1.0 - self._wide_below_shifted(-difference)

    def _wide_below_shifted(self, shift: float) -> float:
        """Return P(wide < narrow + shift), cut where narrow + shift leaves 0..1: there is a corner."""
        low = float(logit(-shift)) if shift < 0.0 else -math.inf
        high = -float(logit(shift)) if shift > 0.0 else math.inf
        certain = self.integral(lambda rate, _: np.ones_like(rate), low=high) if shift > 0.0 else 0.0
        return certain + self.integral(
            lambda rate, rest: self.wide.below(
                np.clip(rate + shift, 0.0, 1.0), np.clip(rest - shift, 0.0, 1.0)
            ),
            low=low,
            high=high,
        )

    def quantile(self, probability: float) -> float:
        """Return the difference that `probability`, between 1e-5 and 1 - 1e-5, of the distribution is below."""
        mean = self.treatment.mean - self.control.mean
        sd = math.hypot(self.treatment.sd, self.control.sd)
        # no quantile is farther from the mean (Cantelli's inequality), and the margin is for rounding
        below = 1.01 * sd * math.sqrt((1.0 - probability) / probability)
        above = 1.01 * sd * math.sqrt(probability / (1.0 - probability))
        return float(
            brentq(
                lambda difference: self.probability_at_most(difference) - probability,
                max(-1.0, mean - below),
                min(1.0, mean + above),
                xtol=1e-11 * sd,
                rtol=1e-14,
            )
        )


def probabilities_highest(rates: Sequence[BetaRate]) -> list[float]:
    """Return for each of some independent rates the probability that it is the highest; they sum to 1.

    P(k) = ∫ f_k(x) Π_j F_j(x) dx, by Gauss-Legendre over pieces of the log odds in which none of the rates varies much,
    then shared out so that rounding leaves nothing over. A single rate is the highest.
    """
    modes = [math.log(rate.alpha / rate.beta) for rate in rates]
    lows = np.array([mode - rate.reach() for mode, rate in zip(modes, rates, strict=True)])
    highs = np.array(
        [mode + BetaRate(rate.beta, rate.alpha).reach() for mode, rate in zip(modes, rates, strict=True)]
    )
    edges = _pieces(lows, highs)
    nodes, weights = legendre(_NODES)
    halves = np.diff(edges)[:, None] / 2.0
    odds = (edges[:-1, None] + halves * (nodes + 1.0)).ravel()
    steps = (halves * weights).ravel()
    below = np.stack(
        [_below_within(rate, odds, low, high) for rate, low, high in zip(rates, lows, highs, strict=True)]
    )
    found = []
    for arm, rate in enumerate(rates):
        density = steps * np.exp(rate.log_density(odds - modes[arm]))
        others = np.prod(np.delete(below, arm, axis=0), axis=0)
        found.append(float(np.sum(density * others) / np.sum(density)))
    total = math.fsum(found)
    return [share / total for share in found]


def _level(length: float) -> int:
    """Return how often to halve the step of the quadrature over a range of log odds of this length.

    Steps are to be short beside the scale on which beta densities of log odds change: 1 for few successes,
    less for many, but then the range is as much shorter.
    """
    return max(6, math.ceil(math.log2(2.0 * length)))


def _below_within(rate: BetaRate, odds: _Floats, low: float, high: float) -> _Floats:
    """Return P(log odds of the rate < odds); the incomplete beta function, which takes long, only from low to high."""
    below = np.where(odds < low, 0.0, 1.0)
    within = (low <= odds) & (odds <= high)
    below[within] = rate.below(expit(odds[within]), expit(-odds[within]))
    return below


def _pieces(lows: _Floats, highs: _Floats) -> _Floats:
    """Return log odds between which no rate has more than a few parts of its mass, which is from its low to its high.

    Each rate asks for pieces of its own length where it has mass; rates that are alike ask for the same ones.
    """
    lengths = (highs - lows) / _PIECES
    wanted = np.unique(np.linspace(lows, highs, _PIECES + 1))
    kept = [float(wanted[0])]
    for edge in wanted[1:]:
        here = (lows <= edge) & (edge <= highs)
        if edge - kept[-1] >= 0.5 * float(np.min(lengths[here], initial=math.inf)) or edge == wanted[-1]:
            kept.append(float(edge))
    return np.array(kept)


@functools.cache
def legendre(count: int) -> tuple[_Floats, _Floats]:
    """Return so many nodes between -1 and 1, and their weights, of Gauss-Legendre; not to be changed in place."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return nodes, weights


@functools.lru_cache(maxsize=16)
def _double_exponential(level: int) -> tuple[_Floats, _Floats]:
    """Return nodes in 0..1 and weights of the double exponential rule with step 2^-level (Takahasi & Mori)."""
    step = 2.0**-level
    count = math.ceil(math.asinh(_NEGLIGIBLE / math.pi) / step)
    t = step * np.arange(-count, count + 1)
    shares = expit(math.pi * np.sinh(t))
    weights = step * math.pi * np.cosh(t) * shares * expit(-math.pi * np.sinh(t))
    return shares, weights
