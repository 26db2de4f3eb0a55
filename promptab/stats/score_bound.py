"""Evidence that the mean of bounded scores is beyond a bound, or worse than that of a control, at every look.

By betting, so without any assumption on their shape and from the first unit on; the price is that scores come one
per unit and in their order of arrival. See `betting`, where the stakes and their sources are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptab.checks import check_number
from promptab.stats.betting import Floats, betting_log_capital
from promptab.stats.interval import Side
from promptab.stats.metric import Direction


def score_log_e_value(
    scores: Sequence[float] | Floats, *, bound: float, claim: Side, low: float, high: float, alpha: float
) -> float:
    """Return the logarithm of the evidence that the mean is beyond `bound`, on the side of `claim`.

    The capital of a bet on `claim` against all means on the other side; `alpha` is the level that the stakes are
    for. 0 without scores, and for a bound outside [low, high]. Assumes that every score has the same mean, or one
    that is not beyond the bound, given those before it. Errors are those of `betting_interval`.
    """
    if not low <= bound <= high:
        return 0.0
    given = np.asarray(scores, dtype=np.float64)
    if claim == "greater":
        return betting_log_capital(given, mean=bound, low=low, high=high, alpha=alpha)
    return betting_log_capital(-given, mean=-bound, low=-high, high=-low, alpha=alpha)


def score_regression_log_e_value(
    treatment: Sequence[float] | Floats,
    control: Sequence[float] | Floats,
    *,
    margin: float,
    relative: bool = False,
    direction: Direction,
    low: float,
    high: float,
    alpha: float,
) -> float:
    """Return the logarithm of the evidence that the treatment's mean is worse than the control's by over `margin`.

    The first unit of the treatment is paired with the first of the control and so on, whatever their scores are;
    units of the larger arm that have no partner yet are left out. A pair is one bounded score: treatment minus
    control, or minus (1 ∓ margin) times the control where the margin is `relative`. So the worth of the larger arm
    is not used up, and nothing is assumed of its share.

    0 without a pair. Assumes scores of one mean per arm, and means that are not below 0 for a relative margin.
    `low`, `high` and errors are those of `betting_interval`; raises `InvalidInputError` for a margin that is
    negative or not finite.
    """
    check_number("margin", margin, low=0.0)
    sign = 1.0 if direction == "increase" else -1.0
    factor = 1.0 - sign * margin if relative else 1.0
    pairs = min(len(treatment), len(control))
    treated, untreated = (np.asarray(arm[:pairs], dtype=np.float64) for arm in (treatment, control))
    ends = factor * low, factor * high
    return score_log_e_value(
        treated - factor * untreated,
        bound=0.0 if relative else -sign * margin,
        claim="less" if direction == "increase" else "greater",
        low=low - max(ends),
        high=high - min(ends),
        alpha=alpha,
    )
