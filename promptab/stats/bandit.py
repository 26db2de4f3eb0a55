"""From what is known of the arms to the shares that they are dealt next.

Probabilities are integrals, not draws: the same numbers give the same weights. Each direction is the mirror image of
the other: weights on x to be decreased are those on 1 - x to be increased.

References:
    Thompson, "On the likelihood that one unknown probability exceeds another", Biometrika 25, 1933
    Russo, "Simple Bayesian algorithms for best arm identification", Operations Research 68, 2020,
        https://arxiv.org/abs/1602.08448 (top-two Thompson sampling)
    Auer, Cesa-Bianchi & Fischer, "Finite-time analysis of the multiarmed bandit problem", Machine Learning 47, 2002
        (epsilon-greedy, UCB1; here with the standard error of each arm instead of a bound for all)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from promptab.checks import MAX_MEASURE
from promptab.stats.bayesian import probability_best
from promptab.stats.beta import BetaRate, probabilities_highest
from promptab.stats.contrast import ArmMean
from promptab.stats.metric import Direction

if TYPE_CHECKING:
    from promptab.bandit import Algorithm

# Estimates nearer than this, as a share of the larger one's size, are told apart by rounding alone.
_TIED = 1e-12


class Shares(NamedTuple):
    """By arm."""

    weights: dict[str, float]
    """They sum to 1 within rounding."""
    best: dict[str, float]
    """The probability of each arm that it is the best, which sum to 1 within rounding; empty where the algorithm does
    not ask."""


def bandit_shares(
    means: Mapping[str, ArmMean],
    *,
    algorithm: Algorithm = "thompson",
    direction: Direction = "increase",
    floor: float = 0.0,
    challenger: float = 0.0,
    are_trials: bool = False,
) -> Shares:
    """Return the shares that K arms are to be dealt: floor + (1 - K floor) times what the algorithm gives each.

    `are_trials` says that the means are shares of units with one outcome of 0 or 1 each: these are believed by beta
    posteriors. Refuses nothing: arms of which nothing is known to vary are dealt alike.
    """
    arms = list(means.values())
    if not all(_is_usable(arm) for arm in arms):
        alike = dict.fromkeys(means, 1.0 / len(means))
        return Shares(alike, alike)
    best: list[float] = []
    if algorithm == "thompson":
        best = best_probabilities(arms, direction=direction, are_trials=are_trials)
        shares = with_challenger(best, challenger)
    else:
        shares = _to_the_best(_INDICES[algorithm](arms, 1.0 if direction == "increase" else -1.0))
    rest = 1.0 - floor * len(arms)
    weights = {key: floor + rest * share for key, share in zip(means, shares, strict=True)}
    return Shares(weights, dict(zip(means, best, strict=False)))


def best_probabilities(
    arms: Sequence[ArmMean], *, direction: Direction = "increase", are_trials: bool = False
) -> list[float]:
    """Return the probability of each arm that it is the best, from independent flat posteriors; they sum to 1.

    Of trials: Beta(1 + p n, 1 + (1 - p) n), with as many trials n as the estimate p is worth by its variance, which
    are the arm's units where they were all dealt alike. Else normal; an arm whose units are all alike takes the
    largest unit variance of the others, and where none varies all are alike.
    """
    if are_trials:
        rates = [_rate(arm) for arm in arms]
        if direction == "decrease":
            rates = [BetaRate(rate.beta, rate.alpha) for rate in rates]
        return probabilities_highest(rates)
    lent = max(arm.variance * arm.units for arm in arms)
    if lent == 0.0:
        return [1.0 / len(arms)] * len(arms)
    sds = [math.sqrt(arm.variance or lent / arm.units) for arm in arms]
    found = probability_best([arm.value for arm in arms], sds, direction=direction)
    total = math.fsum(found)
    return [share / total for share in found]


def with_challenger(probabilities: Sequence[float], challenger: float) -> list[float]:
    """Mix the best with the best of the others: top-two Thompson sampling (Russo 2020, section 3.4), in closed form.

    Where arm j would be drawn, with the chance `challenger` another is drawn instead, again and again until it is not
    j: arm k with the chance P_k / (1 - P_j).
    """
    if challenger == 0.0 or len(probabilities) < 2:
        return list(probabilities)
    mixed = []
    for k, own in enumerate(probabilities):
        # 1 - P_j as the sum of the others keeps the digits of a P_j near 1
        rests = [
            other * own / rest
            for j, other in enumerate(probabilities)
            if j != k and (rest := math.fsum(p for i, p in enumerate(probabilities) if i != j)) > 0.0
        ]
        mixed.append((1.0 - challenger) * own + challenger * math.fsum(rests))
    total = math.fsum(mixed)
    return [share / total for share in mixed]


def _is_usable(mean: ArmMean) -> bool:
    return abs(mean.value) <= MAX_MEASURE and mean.variance <= MAX_MEASURE


def _rate(arm: ArmMean) -> BetaRate:
    value = min(1.0, max(0.0, arm.value))
    spread = value * (1.0 - value)
    trials = float(arm.units)
    if arm.variance > 0.0 and spread > 0.0:
        # the variance of n trials about their own mean is spread / (n - 1)
        trials = min(trials, spread / arm.variance + 1.0)
    return BetaRate(1.0 + value * trials, 1.0 + (1.0 - value) * trials)


def _estimates(arms: Sequence[ArmMean], sign: float) -> list[float]:
    return [sign * arm.value for arm in arms]


def _upper_bounds(arms: Sequence[ArmMean], sign: float) -> list[float]:
    """UCB1 with each arm's own standard error in the place of its bound (Auer et al. 2002, figure 4)."""
    reach = math.sqrt(2.0 * math.log(sum(arm.units for arm in arms)))
    return [sign * arm.value + reach * math.sqrt(arm.variance) for arm in arms]


_INDICES: Mapping[Algorithm, Callable[[Sequence[ArmMean], float], list[float]]] = {
    "epsilon_greedy": _estimates,
    "ucb": _upper_bounds,
}


def _to_the_best(index: Sequence[float]) -> list[float]:
    """Return everything for the largest, and equal parts for several that rounding alone tells apart."""
    top = max(index)
    tied = [top - each <= _TIED * max(1.0, abs(top)) for each in index]
    return [1.0 / sum(tied) if is_top else 0.0 for is_top in tied]
