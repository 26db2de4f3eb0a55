"""Evidence that a rate is on the wrong side of a bound, as "success rate at least 0.8", right at every look.

Whoever bets on a rate below the bound does not get rich while the rate is at least the bound: the chance that the
capital ever grows by the factor 1/alpha is at most alpha (Ville's inequality). Exact from the first unit on, also
where units have several outcomes, which resemble each other.

References:
    Robbins, "Statistical methods related to the law of the iterated logarithm", Annals of Mathematical
        Statistics 41, 1970 (mixtures)
    Howard, Ramdas, McAuliffe & Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences",
        Annals of Statistics 49, 2021, https://arxiv.org/abs/1810.08240 (section 3.2: beta mixtures)
    Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting", JRSS-B 86, 2024,
        https://arxiv.org/abs/2010.09686 (bets on a bounded number; here a unit's outcomes together)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import betainc, betaln, logsumexp

from promptab.checks import check_count, check_share
from promptab.errors import InvalidInputError
from promptab.stats.interval import Side

# How many trials the mixing distribution is worth, and the fewest of the rarer outcome among them. Simulated at bounds
# from 0.05 to 0.99 and alpha 0.05, the median time to an alarm is 0.9 to 1.3 times log(1/alpha)/KL; 20 trials are
# slower where the rate is far beyond the bound, 5 where it is near.
_MIXTURE_TRIALS = 10.0
_LEAST_SHAPE = 0.5

# The numbers of outcomes up to which units are bet on, and the same part of the capital for each: 4, 8, ... 1024. Who
# bets on units with many can lose more on one, and so stakes less on all.
_MOST_OUTCOMES = 4.0 * 2.0 ** np.arange(9.0)


def rate_log_e_value(successes: int, trials: int, *, bound: float, claim: Side) -> float:
    """Return the logarithm of the evidence that a rate is beyond `bound`, on the side of `claim`.

    For "less", against all rates p >= b, with S successes and F failures:

        M = ∫ (q/b)^S ((1-q)/(1-b))^F dB(q),    B = Beta(κ b, κ (1-b)) given q < b

    with κ of 10 trials. Each factor q/b or (1-q)/(1-b) has mean 1 where p = b and less where p > b, also where p
    differs from trial to trial, so M is a supermartingale of mean 1 under all these rates at once. "greater" is the
    same of failures.

    0 without trials. -inf where the evidence is too small for a float, and inf where the bound itself is excluded: a
    failure where the rate is to be 1, a success where it is to be 0. Nothing is below 0 or above 1: 0 there.

    Assumes trials of different units; several of one unit resemble each other, and are for `unit_rate_log_e_value`.
    Raises `InvalidInputError` for a bound outside [0, 1], and counts that are negative or do not fit together.
    """
    check_share("bound", bound)
    check_count("trials", trials)
    check_count("successes", successes)
    if successes > trials:
        raise InvalidInputError("successes", successes, f"at most the number of trials, {trials}")
    if claim == "greater":
        return _log_below(trials - successes, successes, 1.0 - bound)
    return _log_below(successes, trials - successes, bound)


def unit_rate_log_e_value(units: Sequence[tuple[float, float]], *, bound: float, claim: Side) -> float:
    """Return the logarithm of the evidence that a rate over the outcomes of units is beyond `bound`.

    `units` are (n, s): how many outcomes a unit has, and how many of them are successes. For "less", against all
    ratios of expectations E[s]/E[n] >= b, the capital is the mean over c = 4, 8, ... 1024 of

        Π (1 + (b n - s) / (2 c (1 - b)))    while no unit has more than c outcomes; lost once one has

    A unit of up to c outcomes never loses more than half of it. A unit's factor has a mean of at most

        1 - P(n > c) + E[n; n > c] / (2c)

    so of at most 1 where units with more than c outcomes have on average no more than 2c of them: it is a
    supermartingale of mean 1, whatever the outcomes of a unit have to do with one another and with their number. (So
    it is where n is bounded by c, where P(n > x) falls as 1/x² or faster from c on, and, of geometric counts, from
    their mean on. No test of this ratio does without such an assumption: any can be led astray by a few units of huge
    n.) "greater" is the same of failures. The order of the units does not matter.

    0 without units, and -inf where one has more than 1024 outcomes; bounds of 0 and 1 are as in `rate_log_e_value`,
    which sees more in units of one outcome. Assumes independent units whose outcomes are all in. Raises
    `InvalidInputError` for a bound outside [0, 1], and for a unit without 0 <= s <= n.
    """
    check_share("bound", bound)
    totals = np.asarray(units, dtype=np.float64).reshape(-1, 2)
    n, s = totals.T
    broken = np.flatnonzero(~((s >= 0.0) & (n >= s) & (n < math.inf)))
    if len(broken):
        at = broken[0]
        remedy = "a unit's successes are some of its outcomes"
        raise InvalidInputError(
            f"units[{at}]", (float(n[at]), float(s[at])), "(n, s) with 0 <= s <= n", remedy
        )
    if claim == "greater":
        s, bound = n - s, 1.0 - bound
    if bound == 0.0 or not len(n):
        return 0.0
    if bound == 1.0:
        return math.inf if (s < n).any() else 0.0
    caps = _MOST_OUTCOMES[n.max() <= _MOST_OUTCOMES]
    if not len(caps):
        return -math.inf
    gained = (bound * n - s) / (1.0 - bound)
    capitals = np.log1p(gained / (2.0 * caps[:, np.newaxis])).sum(axis=1)
    return float(logsumexp(capitals)) - math.log(len(_MOST_OUTCOMES))


def _log_below(successes: int, failures: int, bound: float) -> float:
    if bound == 0.0 or successes + failures == 0:
        return 0.0
    if bound == 1.0:
        return math.inf if failures else 0.0
    a = max(_LEAST_SHAPE, _MIXTURE_TRIALS * bound)
    b = max(_LEAST_SHAPE, _MIXTURE_TRIALS * (1.0 - bound))
    below = float(betainc(a + successes, b + failures, bound))
    if below == 0.0:
        return -math.inf
    mixed = float(betaln(a + successes, b + failures) - betaln(a, b)) + math.log(below)
    claimed = successes * math.log(bound) + failures * math.log1p(-bound)
    return mixed - math.log(float(betainc(a, b, bound))) - claimed
