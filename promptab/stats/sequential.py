"""Asymptotic confidence sequences: intervals that hold at every look, for one effect and its standard error.

An interval of this kind covers the truth at all sample sizes at once with probability 1 - alpha, so whoever
looks daily and stops at a look that pleases is wrong no more often than alpha. The price is width: at the
sample size that it is tuned for, 1.55 times that of a fixed horizon at alpha 0.05.

It is tuned by `tuning_units`, N*: the number of units of the pair at which it is to be narrowest. N* is to be
fixed before the first look; choosing it by what was seen breaks the promise. Its value changes the width
little: at a half or twice N* the interval is 1 or 2 % wider than one that is tuned for that size.

Every function assumes an effect that is asymptotically a mean over units, a consistent standard error, and
that a unit's own value no longer changes once it has been counted; where units go on collecting events, the
sequence is an approximation. It is asymptotic: do not read it below about 100 units an arm.

References:
    Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, "Time-uniform central limit theory and asymptotic
        confidence sequences", Annals of Statistics 52, 2024, https://arxiv.org/abs/2103.06476
    Howard, Ramdas, McAuliffe & Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences",
        Annals of Statistics 49, 2021, https://arxiv.org/abs/1810.08240 (section 3.2, normal mixtures; its rho
        is 1/rho² here, its intrinsic time v the number of units)
    GrowthBook, "Sequential testing", https://docs.growthbook.io/statistics/sequential
"""

from __future__ import annotations

import math
from typing import get_args

from promptab.checks import check_number
from promptab.errors import InvalidInputError
from promptab.stats.interval import Alternative

# Far beyond any experiment, and small enough that nothing below overflows or vanishes.
_MAX_UNITS = 1e18


def tuning(tuning_units: float, alpha: float) -> float:
    """Return rho, the width of the mixture that makes the two-sided sequence narrowest at `tuning_units`.

    rho² = (-2 log alpha + log(1 - 2 log alpha)) / N*, where an approximation stands for the Lambert function
    of the exact optimum (Howard et al. 2021, section 3.2; Waudby-Smith et al. 2024, appendix on optimizing
    the normal mixture). `tuning_units` is from 1 to 1e18, `alpha` between 0 and 1, both excluded. The
    one-sided sequence at alpha has the rho of 2 alpha.
    """
    check_number("tuning_units", tuning_units, low=1.0, high=_MAX_UNITS)
    if not 0.0 < alpha < 1.0:
        raise InvalidInputError("alpha", alpha, "greater than 0 and less than 1", "0.05 is usual")
    doubled = -2.0 * math.log(alpha)
    return math.sqrt((doubled + math.log1p(doubled)) / tuning_units)


def half_width(
    se: float, units: float, *, tuning_units: float, alpha: float, one_sided: bool = False
) -> float:
    """Return how far the confidence sequence reaches from the effect, in the effect's own unit.

    Two-sided: effect ± this. One-sided: effect - this is a lower bound, or effect + this an upper one; each
    of the two alone is wrong with probability alpha at most.

    With N `units` of both arms and A = N rho² + 1: se √(2A/(N rho²) log(√A/alpha)); one-sided, log(1 +
    √A/(2 alpha)) takes the place of the logarithm and rho is that of 2 alpha. The one-sided form is closed,
    and at alpha 0.05 at most 2 % wider than the exact boundary of the one-sided mixture (Waudby-Smith et al.
    2024, appendix on one-sided sequences).

    Raises `InvalidInputError` unless `se` is finite and above 0, `units` and `tuning_units` are from 1 to
    1e18, and `alpha` is between 0 and 1, for one side between 0 and 0.5. A standard error of 0 is refused:
    an effect that never varied does not tell how much it varies, so it has no interval.
    """
    _check_se(se)
    growth = _growth(units, tuning_units, alpha, one_sided=one_sided)
    spread = growth + 1.0
    log_ratio = 0.5 * math.log(spread) - math.log(alpha)
    if one_sided:
        # log(1 + x) = log x + log(1 + 1/x), as x may be too large for a float
        log_ratio -= math.log(2.0)
        log_ratio += math.log1p(math.exp(-log_ratio))
    return se * math.sqrt(2.0 * spread / growth * log_ratio)


def p_value(
    value: float,
    se: float,
    units: float,
    *,
    null: float = 0.0,
    tuning_units: float,
    alpha: float,
    alternative: Alternative = "two-sided",
) -> float:
    """Return the anytime-valid p-value of the effect being `null`: 1 / e-value, at most 1.

    It is at most `alpha` exactly where the confidence sequence at `alpha` excludes `null`: the two-sided one
    for "two-sided", the lower bound for "greater" (against an effect of `null` or less) and the upper bound
    for "less". An effect on the null's own side has a one-sided p-value of 1.

    Note that rho comes from `alpha`, so `alpha` is the level at which the decision is taken, fixed like
    `tuning_units`. The number is valid at every other level too (it is the smallest level at which the
    sequence *with this rho* excludes the null), but a sequence tuned for another level is another sequence.

    It may rise again from one look to the next; the smallest one so far is a valid p-value as well.
    Assumptions and errors are those of `half_width`.
    """
    log_e = log_e_value(
        value, se, units, null=null, tuning_units=tuning_units, alpha=alpha, alternative=alternative
    )
    return math.exp(-max(0.0, log_e))


def log_e_value(
    value: float,
    se: float,
    units: float,
    *,
    null: float = 0.0,
    tuning_units: float,
    alpha: float,
    alternative: Alternative = "two-sided",
) -> float:
    """Return the logarithm of the evidence against `null`: the value of the mixture martingale.

    Under the null its expectation is at most 1 (asymptotically), and the chance that it ever reaches 1/alpha
    at most alpha (Ville's inequality). With A = N rho² + 1 and L = ((value - null)/se)² N rho² / (2A):

        two-sided   exp(L) / √A                       (Howard et al. 2021, section 3.2)
        one-sided   2 (exp(L) - 1) / √A

    The one-sided form is what the one-sided half width is the inversion of. It is at most the one-sided
    normal mixture 2 exp(L) Φ(√(2L)) / √A, as 1 - Φ(x) <= exp(-x²/2), so it keeps that one's guarantee.

    -inf where a one-sided effect is on the null's own side, and inf where it is too far away for a float.
    Assumptions and errors are those of `half_width`.
    """
    check_number("value", value)
    check_number("null", null)
    _check_se(se)
    if alternative not in get_args(Alternative):
        raise InvalidInputError("alternative", alternative, f"one of {', '.join(get_args(Alternative))}")
    one_sided = alternative != "two-sided"
    growth = _growth(units, tuning_units, alpha, one_sided=one_sided)
    spread = growth + 1.0
    z = (null - value) / se if alternative == "less" else (value - null) / se
    exponent = z * z * (growth / (2.0 * spread))
    if not one_sided:
        return exponent - 0.5 * math.log(spread)
    if z <= 0.0 or exponent == 0.0:
        return -math.inf
    # exp(L) overflows long before its logarithm does
    return math.log(2.0) + exponent + math.log(-math.expm1(-exponent)) - 0.5 * math.log(spread)


def _growth(units: float, tuning_units: float, alpha: float, *, one_sided: bool) -> float:
    """Return N rho², the units seen on the scale of the mixture."""
    check_number("units", units, low=1.0, high=_MAX_UNITS)
    if one_sided and not 0.0 < alpha < 0.5:
        bound = "greater than 0 and less than 0.5, for one side"
        raise InvalidInputError("alpha", alpha, bound, "0.05 is usual")
    rho = tuning(tuning_units, 2.0 * alpha if one_sided else alpha)
    return units * rho * rho


def _check_se(se: float) -> None:
    if not (se > 0.0 and math.isfinite(se)):
        raise InvalidInputError(
            "se", se, "a finite number greater than 0", "an effect that did not vary has no interval"
        )
