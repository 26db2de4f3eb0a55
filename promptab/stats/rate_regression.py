"""Evidence that a treatment's rate is worse than that of the control beside it by more than a margin, at every look.

A bet on each unit as it comes, treated or not, against "no worse than the margin allows": the chance that the capital
ever grows by the factor 1/alpha is at most alpha, while that is true (Ville's inequality). Exact from the first
unit on; a base rate that moves harms nothing, as both arms move with it.

References:
    Turner, Ly & Grünwald, "Generic e-variables for exact sequential k-sample tests that allow for optional stopping",
        Journal of Statistical Planning and Inference 230, 2024, https://arxiv.org/abs/2106.02693
    Grünwald, de Heide & Koolen, "Safe testing", JRSS-B 86, 2024, https://arxiv.org/abs/1906.07801 (theorem 1: the
        likelihood ratio to the projection on a convex null hypothesis is an e-variable)
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit, logsumexp

from promptab.checks import check_count, check_number
from promptab.errors import InvalidInputError
from promptab.stats.metric import Direction

Floats = npt.NDArray[np.float64]

# The alternatives that the capital is spread over: rates of the control, on the scale of the log odds, and how far
# the treatment is beyond the margin on it. Most of it is on what a rollback is for: at 0.9, these are 0.886, 0.87,
# 0.84, 0.81, 0.74, 0.64 and 0.45. Simulated at alpha 0.05, a fall from 0.9 to 0.85, 0.8 and 0.7 has then a median
# time to an alarm of 1.2 to 1.6 times the bound of information, with a share of 0.1 or 0.5 treated.
_CONTROL_LOG_ODDS = np.linspace(-7.0, 7.0, 21)
_EFFECTS = np.array([0.15, 0.3, 0.55, 0.75, 1.15, 1.6, 2.4])
_EFFECT_WEIGHTS = np.array([0.06, 0.16, 0.22, 0.16, 0.18, 0.14, 0.08])
_HALVINGS = 60


class DealtRates(NamedTuple):
    """The units of two arms that were dealt with one set of weights, each with an outcome of 0 or 1."""

    share: float
    """Of the treatment among both, by the weights: between 0 and 1."""
    treatment: tuple[int, int]
    """(successes, trials)"""
    control: tuple[int, int]


def regression_log_e_value(
    epochs: Sequence[DealtRates], *, margin: float, relative: bool = False, direction: Direction
) -> float:
    """Return the logarithm of the evidence that the treatment is worse by more than `margin`.

    Where more successes are better, the claim that is bet against is p >= c - margin for the treatment's rate p and
    the control's c, or p >= (1 - margin) c where the margin is `relative`; where fewer are, p <= c + margin, or
    p <= (1 + margin) c. For alternatives (p', c') beyond the margin the capital is the mixture of

        Π f(outcome; p' or c') / f(outcome; p° or c°)

    over units, with f the probability of an outcome and (p°, c°) the point of the claim that is nearest to (p', c')
    in Kullback-Leibler divergence, weighted by the shares of the arms. The claim is a convex set of rates, so each
    factor has a mean of at most 1 under all of it, given that a unit is treated with probability `share` whatever
    its outcome (Grünwald et al. 2024, theorem 1); without a margin p° = c° = share p' + (1 - share) c', and the
    factors are those of Turner et al. 2024. Epochs, in which the weights differ, multiply.

    0 without units. Exact as long as units are dealt, and outcomes recorded, as the weights say, and one outcome
    per unit: what the checks on the dealing and on missing outcomes are for.

    Raises `InvalidInputError` for a margin that is negative or not finite, a share that is not between 0 and 1, and
    counts that are negative or do not fit together.
    """
    check_number("margin", margin, low=0.0)
    slope = 1.0 + (-margin if direction == "increase" else margin) if relative else 1.0
    drop = margin if not relative or direction == "decrease" else 0.0
    if slope - drop <= 0.0 or not epochs:
        return 0.0  # with such a margin no rate is too low
    log_capitals = np.log(_points(slope, drop).weights)
    for epoch in epochs:
        _check(epoch)
        counts = [*_outcomes(epoch.treatment, direction), *_outcomes(epoch.control, direction)]
        log_capitals += np.array(counts, dtype=np.float64) @ _gains(epoch.share, slope, drop)
    return float(logsumexp(log_capitals))


def _outcomes(arm: tuple[int, int], direction: Direction) -> tuple[int, int]:
    """Return how often the better outcome came, and how often the worse one."""
    successes, trials = arm
    return (successes, trials - successes) if direction == "increase" else (trials - successes, successes)


class _Points(NamedTuple):
    """Alternatives: rates of the better outcome, and how the capital is spread over them."""

    treatment: Floats
    control: Floats
    weights: Floats


@functools.lru_cache(maxsize=256)
def _points(slope: float, drop: float) -> _Points:
    """Return points beyond the line on which the treatment's rate is slope c - drop, for rates c of the control."""
    lowest = drop / slope
    # where the line is at 0 no treatment is beyond it, so the controls are those above that
    control, effect = np.meshgrid(lowest + (1.0 - lowest) * expit(_CONTROL_LOG_ODDS), _EFFECTS, indexing="ij")
    treatment = expit(logit(slope * control - drop) - effect)
    weights = np.broadcast_to(_EFFECT_WEIGHTS / _CONTROL_LOG_ODDS.size, control.shape)
    return _Points(treatment.ravel(), control.ravel(), weights.ravel())


@functools.lru_cache(maxsize=256)
def _gains(share: float, slope: float, drop: float) -> Floats:
    """Return what each alternative gains by each outcome (better and worse, treated and not), in logarithms."""
    treatment, control, _ = _points(slope, drop)
    nearest = _nearest(treatment, control, share=share, slope=slope, drop=drop)
    claimed = slope * nearest - drop
    return np.array(
        [
            np.log(treatment / claimed),
            np.log((1.0 - treatment) / (1.0 - claimed)),
            np.log(control / nearest),
            np.log((1.0 - control) / (1.0 - nearest)),
        ]
    )


def _nearest(treatment: Floats, control: Floats, *, share: float, slope: float, drop: float) -> Floats:
    """Return the control's rate c of the point (slope c - drop, c) that is nearest to (treatment, control).

    The weighted divergence is convex along the line, and its derivative grows from -inf to inf between the ends:
    bisection.
    """
    low, high = np.full(control.shape, drop / slope), np.ones(control.shape)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        claimed = slope * middle - drop
        rise = share * slope * (claimed - treatment) / (claimed * (1.0 - claimed))
        rise += (1.0 - share) * (middle - control) / (middle * (1.0 - middle))
        low, high = np.where(rise < 0.0, middle, low), np.where(rise < 0.0, high, middle)
    return (low + high) / 2.0


def _check(epoch: DealtRates) -> None:
    check_number("share", epoch.share, above=0.0, below=1.0)
    for arm, (successes, trials) in zip(("treatment", "control"), epoch[1:], strict=True):
        check_count(f"{arm}.trials", trials)
        check_count(f"{arm}.successes", successes)
        if successes > trials:
            bound = f"at most the number of trials, {trials}"
            raise InvalidInputError(f"{arm}.successes", successes, bound)
