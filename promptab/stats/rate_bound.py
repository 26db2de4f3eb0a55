"""Evidence that a rate is on the wrong side of a bound, as "success rate at least 0.8", right at every look.

Whoever bets on a rate below the bound does not get rich while the rate is at least the bound: the chance that the
capital ever grows by the factor 1/alpha is at most alpha (Ville's inequality). Exact from the first unit on.

References:
    Robbins, "Statistical methods related to the law of the iterated logarithm", Annals of Mathematical
        Statistics 41, 1970 (mixtures)
    Howard, Ramdas, McAuliffe & Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences",
        Annals of Statistics 49, 2021, https://arxiv.org/abs/1810.08240 (section 3.2: beta mixtures)
"""

from __future__ import annotations

import math

from scipy.special import betainc, betaln

from promptab.checks import check_count, check_share
from promptab.errors import InvalidInputError
from promptab.stats.interval import Side

# How many trials the mixing distribution is worth, and the fewest of the rarer outcome among them. Simulated at bounds
# from 0.05 to 0.99 and alpha 0.05, the median time to an alarm is 0.9 to 1.3 times log(1/alpha)/KL; 20 trials are
# slower where the rate is far beyond the bound, 5 where it is near.
_MIXTURE_TRIALS = 10.0
_LEAST_SHAPE = 0.5


def rate_log_e_value(successes: int, trials: int, *, bound: float, claim: Side) -> float:
    """Return the logarithm of the evidence that a rate is beyond `bound`, on the side of `claim`.

    For "less", against all rates p >= b, with S successes and F failures:

        M = ∫ (q/b)^S ((1-q)/(1-b))^F dB(q),    B = Beta(κ b, κ (1-b)) given q < b

    with κ of 10 trials. Each factor q/b or (1-q)/(1-b) has mean 1 where p = b and less where p > b, also where p
    differs from trial to trial, so M is a supermartingale of mean 1 under all these rates at once. "greater" is the
    same of failures.

    0 without trials. -inf where the evidence is too small for a float, and inf where the bound itself is excluded: a
    failure where the rate is to be 1, a success where it is to be 0. Nothing is below 0 or above 1: 0 there.

    Assumes trials of different units; several of one unit resemble each other, and are no evidence of this kind.
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
