"""Confidence sequences without asymptotics, for scores within known bounds and for rates: few units suffice.

They hold at every look and at every sample size, one unit included. The price is that scores must come one
per unit, in their order of arrival, and be complete when they arrive; sums over units are not enough.

The idea: whoever bets on the scores against the claim "their mean is m", at stakes fixed before each score,
does not get rich while the claim is true: the chance that the capital ever grows by the factor 1/alpha is at
most alpha (Ville's inequality). The confidence sequence at level alpha is the set of all m against which
nobody got that rich.

References:
    Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting", JRSS-B 86, 2024,
        https://arxiv.org/abs/2010.09686
    Howard, Ramdas, McAuliffe & Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences",
        Annals of Statistics 49, 2021, https://arxiv.org/abs/1810.08240
    Robbins, "Statistical methods related to the law of the iterated logarithm", Annals of Mathematical
        Statistics 41, 1970 (mixtures)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import betaln

from promptab.checks import check_count, check_number, check_share
from promptab.errors import InvalidInputError
from promptab.stats.interval import Interval
from promptab.stats.sequential import tuning

Floats = npt.NDArray[np.float64]

# No bet may cost more than this share of the capital: the c of the paper.
_TRUNCATION = 0.5
# Half of the capital bets on a higher mean, half on a lower one: the theta of the paper.
_HEDGE = 0.5
# Ends are known to 2^-40 of the range that is searched, and the end that is reported is the one farther out.
_HALVINGS = 40
# The fewest pseudo-trials of a mixture: as in confseq, for tuning at so few trials that none would be left.
_LEAST_CONCENTRATION = 1e-3
_LEAST_RATE = 1e-300


class BoundedDifference(NamedTuple):
    """Treatment minus control of two means of bounded scores, in the unit of the scores."""

    value: float | None
    """The difference of the sample means; None where an arm has no scores."""
    low: float
    high: float
    p_value: float
    """Two-sided, of no difference."""


def betting_interval(
    scores: Sequence[float] | Floats, *, low: float, high: float, confidence: float = 0.95
) -> Interval:
    """Return the hedged betting confidence sequence for the mean of `scores` after the last of them.

    `scores` are one per unit, in their order of arrival, each within [low, high]. Brought to [0, 1], they have
    the capitals K+(m) = Π(1 + λ(x - m)) and K-(m) = Π(1 - λ(x - m)), and m is kept while both of K+/2 and
    K-/2 are below 1/alpha (Waudby-Smith & Ramdas 2024, the hedged capital, c = 1/2, theta = 1/2). The stake on
    score i is λ = √(2 log(2/alpha) / (σ² i log(i + 1))), capped at c/m for K+ and at c/(1 - m) for K-, where
    σ² is the variance of the scores before i, with one imagined score of mean 1/2 and variance 1/4.

    The interval is that after the last score, as confseq's `betting_cs` has it by default, and not its
    intersection with those after each earlier score: that would hold as well, and be a little narrower, but
    it remembers for ever a mean that scores have since drifted away from.

    K+ falls and K- rises with m, cap included, so what is kept is an interval, found by bisection; it is
    never reported narrower than it is.

    Assumes that every score has the same mean, given those before it; neither a shape nor a variance. Without
    scores the interval is [low, high], and scores that do not vary narrow it like any others. It is [low,
    high] too where no mean is kept, which scores without a drift bring about with probability at most alpha:
    then the one mean that is asked for does not exist, and nothing is said about it.

    Raises `InvalidInputError` for bounds that are not finite or not in order, for a score outside them, and
    for a confidence that is not between 0 and 1.
    """
    span = _span(low, high)
    alpha = _alpha(confidence)
    kept = _kept(_arm(scores, low, high, alpha), alpha) or Interval(0.0, 1.0)
    return Interval(max(low, low + kept.low * span), min(high, low + kept.high * span))


def betting_difference(
    treatment: Sequence[float] | Floats,
    control: Sequence[float] | Floats,
    *,
    low: float,
    high: float,
    confidence: float = 0.95,
) -> BoundedDifference:
    """Return treatment minus control, with an interval out of one betting confidence sequence per arm.

    Each arm has an interval at alpha/2, so both cover their means at all times with probability 1 - alpha
    (union bound), and so does the interval from the least to the greatest difference between them. No
    independence of the arms is needed, and either may be ahead of the other; the price is an interval wider
    than one for the difference itself would be.

    `p_value` is the smallest level at which, with the stakes of *this* confidence, the two arms have no mean
    in common: 4 / max over m of min(K+ of the one arm, K- of the other), at most 1. So it is at most 1 -
    confidence exactly where the interval excludes 0, and valid at every look. Stakes depend on the level, so
    another confidence has another p-value; the level is to be fixed before the first look.

    Where an arm has no scores, or keeps no mean (see `betting_interval`), its interval is [low, high], and
    the p-value is 1. Arguments, assumptions and errors are those of `betting_interval`.
    """
    span = _span(low, high)
    share = _alpha(confidence) / 2.0
    treated, untreated = _arm(treatment, low, high, share), _arm(control, low, high, share)
    value = None
    if len(treated.scores) and len(untreated.scores):
        value = float(treated.scores.mean() - untreated.scores.mean()) * span
    kept = _kept(treated, share), _kept(untreated, share)
    above, below = (one or Interval(0.0, 1.0) for one in kept)
    p_value = 1.0
    if None not in kept:
        evidence = max(_log_apart(treated, untreated), _log_apart(untreated, treated))
        # 1/HEDGE for the two directions in each arm, and 2 for the two arms
        p_value = math.exp(min(0.0, math.log(2.0 / _HEDGE) - evidence))
    return BoundedDifference(value, (above.low - below.high) * span, (above.high - below.low) * span, p_value)


def bernoulli_interval(
    successes: int, trials: int, *, tuning_trials: float, confidence: float = 0.95
) -> Interval:
    """Return the beta-binomial confidence sequence for a rate after `trials` independent tries.

    All rates p whose `bernoulli_log_e_value` is below log(1/alpha). That logarithm is convex in p, as it is a
    constant plus sums of log(κ + j/p) and log(κ + j/(1 - p)), so they are an interval, found by bisection and
    never reported narrower than it is. Agrees with confseq's `bernoulli_confidence_interval`, where the level
    and the level of its tuning are the same.

    `tuning_trials` is the number of trials at which the interval is to be narrowest, fixed before the first
    look. Assumes one try per unit: the success of one tells nothing about that of another. [0, 1] without
    trials; the lower end is 0 without successes, the upper end 1 without failures.

    Raises `InvalidInputError` for counts that are negative, broken or more than the trials, for
    `tuning_trials` under 1 and for a confidence that is not between 0 and 1.
    """
    alpha = _alpha(confidence)
    _check_counts(successes, trials)
    concentration = _concentration(tuning_trials, alpha)
    if not trials:
        return Interval(0.0, 1.0)

    def excluded(rate: float) -> bool:
        return _log_mixture(successes, trials - successes, rate, concentration) >= -math.log(alpha)

    # the observed rate is never excluded: no mixture of rates makes what was seen more likely
    observed = successes / trials
    return Interval(
        low=_edge(excluded, outside=0.0, inside=observed) if successes else 0.0,
        high=_edge(excluded, outside=1.0, inside=observed) if successes < trials else 1.0,
    )


def bernoulli_difference(
    treatment: tuple[int, int], control: tuple[int, int], *, tuning_trials: float, confidence: float = 0.95
) -> BoundedDifference:
    """Return treatment minus control of two rates, each given as (successes, trials), for any number of looks.

    Each arm has the sequence of `bernoulli_interval` at alpha/2, tuned to `tuning_trials` of its own, so both
    cover their rates at all times with probability 1 - alpha, and so does the interval between them (union
    bound). `p_value` is the smallest level at which, with this tuning, no rate is left to both arms: 2 / min
    over p of the greater of the arms' e-values, at most 1. So it is at most 1 - confidence exactly where the
    interval excludes 0.

    Exact also where no trial failed, or none succeeded. Arguments, assumptions and errors are those of
    `bernoulli_interval`; an arm without trials has [0, 1], and the p-value is then 1.
    """
    share = (1.0 + confidence) / 2.0
    (above, below), alpha = (
        [
            bernoulli_interval(*arm, tuning_trials=tuning_trials, confidence=share)
            for arm in (treatment, control)
        ],
        _alpha(share),
    )
    if not (treatment[1] and control[1]):
        return BoundedDifference(None, above.low - below.high, above.high - below.low, 1.0)
    value = treatment[0] / treatment[1] - control[0] / control[1]
    weight = _concentration(tuning_trials, alpha)
    evidence = _least_evidence(treatment, control, weight)
    p_value = math.exp(min(0.0, math.log(2.0) - evidence))
    return BoundedDifference(value, above.low - below.high, above.high - below.low, p_value)


def bernoulli_log_e_value(
    successes: int, trials: int, *, rate: float, tuning_trials: float, alpha: float
) -> float:
    """Return the logarithm of the evidence against the claim that the rate of success is `rate`, p.

    M = ∫ q^S (1-q)^F dBeta(q; κp, κ(1-p)) / (p^S (1-p)^F) for S successes and F failures: a martingale of
    mean 1 under the claim, so the chance that M ever reaches 1/alpha is at most alpha. The mixing distribution
    has mean p and the weight of κ = 1/rho² - 1 trials, at least 0.001, with the rho of `tuning(tuning_trials,
    alpha)`. (Howard et al. 2021, section 3.2: the two-sided beta-binomial mixture for sub-Bernoulli
    increments with g = p and h = 1 - p; its r is κ p(1-p) here.)

    0 without trials; inf for a rate of 0 once there is a success, and for a rate of 1 once there is a
    failure. `rate` is 0, or from 1e-300 to 1. Assumptions and other errors are those of `bernoulli_interval`.
    """
    _check_counts(successes, trials)
    check_share("rate", rate)
    if 0.0 < rate < _LEAST_RATE:
        raise InvalidInputError("rate", rate, f"0 or at least {_LEAST_RATE:g}")
    return _log_mixture(successes, trials - successes, rate, _concentration(tuning_trials, alpha))


def betting_log_capital(
    scores: Sequence[float] | Floats, *, mean: float, low: float, high: float, alpha: float
) -> float:
    """Return log K+(mean) of `betting_interval`: the evidence that the mean of the scores is above `mean`.

    Of mean 1 at most while every score, given those before it, has a mean of `mean` or less. `alpha`, between 0 and
    1, is the level that the stakes are for; the capital is evidence at any level. 0 without scores and for a mean
    of `high`; `mean` is in [low, high]. Errors are those of `betting_interval`.
    """
    span = _span(low, high)
    check_number("mean", mean, low=low, high=high)
    # one direction alone is bet on, where the stakes of two share their alpha
    return _log_capital(_arm(scores, low, high, 2.0 * _alpha(1.0 - alpha)), (mean - low) / span)


class _Arm(NamedTuple):
    """The scores of one arm, brought to [0, 1], and the stake on each of them before it is capped."""

    scores: Floats
    stakes: Floats

    def mirrored(self) -> _Arm:
        """Return the arm of 1 - x. The stakes know no direction."""
        return _Arm(1.0 - self.scores, self.stakes)


def _arm(scores: Sequence[float] | Floats, low: float, high: float, alpha: float) -> _Arm:
    given = np.asarray(scores, dtype=np.float64)
    if given.ndim != 1:
        raise InvalidInputError("scores", given.shape, "one number per unit, in their order of arrival")
    outside = np.flatnonzero(~((given >= low) & (given <= high)))
    if len(outside):
        bound = f"a number from {low:g} to {high:g}"
        raise InvalidInputError(
            f"scores[{outside[0]}]", float(given[outside[0]]), bound, "declare the bounds that scores have"
        )
    moved = (given - low) / (high - low)
    return _Arm(moved, _stakes(moved, alpha))


def _stakes(scores: Floats, alpha: float) -> Floats:
    """Return the predictable plug-in stakes: that on score i knows the scores before i alone."""
    order = np.arange(1.0, len(scores) + 1.0)
    means = (0.5 + np.cumsum(scores)) / (order + 1.0)
    variances = (0.25 + np.cumsum(np.square(scores - means))) / (order + 1.0)
    before = np.concatenate(([0.25], variances))[: len(scores)]
    stakes: Floats = np.sqrt(2.0 * math.log(2.0 / alpha) / (before * order * np.log1p(order)))
    return stakes


def _log_capital(arm: _Arm, mean: float) -> float:
    """Return log K+(mean): what betting on a higher mean has grown to. It falls with `mean`."""
    stakes = np.minimum(arm.stakes, _TRUNCATION / mean) if mean > 0.0 else arm.stakes
    return float(np.log1p(stakes * (arm.scores - mean)).sum())


def _kept(arm: _Arm, alpha: float) -> Interval | None:
    """Return the means within [0, 1] that are kept at level `alpha`; None if there are none."""
    low = _lower_end(arm, alpha)
    high = 1.0 - _lower_end(arm.mirrored(), alpha)
    return Interval(low, high) if low <= high else None


def _lower_end(arm: _Arm, alpha: float) -> float:
    threshold = -math.log(_HEDGE * alpha)
    if _log_capital(arm, 0.0) < threshold:
        return 0.0
    # at a mean of 1 no score is above the mean, so that end is never excluded
    return _edge(lambda mean: _log_capital(arm, mean) >= threshold, outside=0.0, inside=1.0)


def _log_apart(higher: _Arm, lower: _Arm) -> float:
    """Return log max over m of min(K+(m) of `higher`, K-(m) of `lower`), rounded down.

    The one falls and the other rises with m, so the maximum is where they meet.
    """
    mirrored = lower.mirrored()
    left, right = 0.0, 1.0
    best = max(min(_log_capital(higher, mean), _log_capital(mirrored, 1.0 - mean)) for mean in (left, right))
    for _ in range(_HALVINGS):
        middle = (left + right) / 2.0
        up, down = _log_capital(higher, middle), _log_capital(mirrored, 1.0 - middle)
        best = max(best, min(up, down))
        left, right = (middle, right) if up > down else (left, middle)
    return best


def _log_mixture(successes: int, failures: int, rate: float, concentration: float) -> float:
    if rate == 0.0:
        return math.inf if successes else 0.0
    if rate == 1.0:
        return math.inf if failures else 0.0
    a, b = concentration * rate, concentration * (1.0 - rate)
    claimed = successes * math.log(rate) + failures * math.log1p(-rate)
    return float(betaln(a + successes, b + failures) - betaln(a, b)) - claimed


def _least_evidence(one: tuple[int, int], other: tuple[int, int], concentration: float) -> float:
    """Return log min over p of the greater of both arms' e-values, rounded down.

    Both are smallest at an observed rate of their own and convex, so the minimum lies between the two.
    """
    lower, higher = sorted((one, other), key=lambda arm: arm[0] / arm[1])

    def of(arm: tuple[int, int], rate: float) -> float:
        return _log_mixture(arm[0], arm[1] - arm[0], rate, concentration)

    left, right = lower[0] / lower[1], higher[0] / higher[1]
    least = min(max(of(lower, rate), of(higher, rate)) for rate in (left, right))
    for _ in range(_HALVINGS):
        middle = (left + right) / 2.0
        up, down = of(lower, middle), of(higher, middle)
        least = min(least, max(up, down))
        left, right = (left, middle) if up > down else (middle, right)
    return least


def _concentration(tuning_trials: float, alpha: float) -> float:
    check_number("tuning_trials", tuning_trials, low=1.0)
    return max(tuning(tuning_trials, alpha) ** -2 - 1.0, _LEAST_CONCENTRATION)


def _edge(excluded: Callable[[float], bool], *, outside: float, inside: float) -> float:
    """Return a point at the border between an excluded and a kept end, on the excluded side of it."""
    for _ in range(_HALVINGS):
        middle = (outside + inside) / 2.0
        outside, inside = (middle, inside) if excluded(middle) else (outside, middle)
    return outside


def _span(low: float, high: float) -> float:
    check_number("low", low)
    check_number("high", high)
    if not (low < high and math.isfinite(high - low)):
        raise InvalidInputError("high", high, f"greater than the low bound, {low:g}, by a finite amount")
    return high - low


def _alpha(confidence: float) -> float:
    if not 0.0 < confidence < 1.0:
        raise InvalidInputError("confidence", confidence, "greater than 0 and less than 1", "0.95 is usual")
    return 1.0 - confidence


def _check_counts(successes: int, trials: int) -> None:
    check_count("trials", trials)
    check_count("successes", successes)
    if successes > trials:
        raise InvalidInputError("successes", successes, f"at most the number of trials, {trials}")
