"""The fixed horizon: intervals and p-values for one look, at a moment planned before the start.

Right for that look, and wrong when somebody looks again and again and stops at a look that pleases.
"""

from __future__ import annotations

import math

from scipy.special import ndtri, stdtr, stdtrit

from promptab.stats.interval import Alternative, Interval


def t_critical(df: float, confidence: float, alternative: Alternative = "two-sided") -> float:
    """Return how many standard errors an interval reaches: Student's t; the normal's for an infinite `df`."""
    level = (1.0 + confidence) / 2.0 if alternative == "two-sided" else confidence
    return float(ndtri(level) if math.isinf(df) else stdtrit(df, level))


def t_interval(
    value: float, se: float, df: float, *, confidence: float = 0.95, alternative: Alternative = "two-sided"
) -> Interval:
    """Return the t interval of an effect; for "greater" only its lower end is finite, for "less" its upper.

    With the Welch-Satterthwaite `df` of a `Contrast` this is Welch's interval (Biometrika 34, 1947).
    """
    half = t_critical(df, confidence, alternative) * se
    low = value - half if alternative != "less" else -math.inf
    high = value + half if alternative != "greater" else math.inf
    return Interval(low, high)


def t_p_value(
    value: float, se: float, df: float, *, null: float = 0.0, alternative: Alternative = "two-sided"
) -> float:
    """Return the p-value of the effect being `null`; at most alpha exactly where the interval excludes it.

    Zero standard error: 0.0 where the effect is on the claimed side of the null value, else 1.0.
    """
    if se == 0.0:
        apart = value - null if alternative != "less" else null - value
        return 0.0 if apart > 0.0 or (alternative == "two-sided" and apart) else 1.0
    t = (value - null) / se
    if alternative == "two-sided":
        return float(2.0 * stdtr(df, -abs(t)))
    return float(stdtr(df, -t if alternative == "greater" else t))
