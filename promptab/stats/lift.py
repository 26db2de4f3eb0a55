"""Lift: how much larger the treatment's mean is than the control's, as a share of the control's.

References:
    Fieller, "Some problems in interval estimation", JRSS-B 16, 1954
    Deng, Knoblich & Lu, KDD 2018, https://arxiv.org/abs/1803.06336 (delta method for the percent change)
"""

from __future__ import annotations

import math
from typing import NamedTuple

from promptab.stats.contrast import Contrast
from promptab.stats.interval import Interval

# Beyond this coefficient of variation the logarithm of a mean is no longer near enough to normal.
_LOG_SCALE_CV = 0.1


class Lift(NamedTuple):
    """(treatment - control) / control; 0.1 is ten percent more."""

    value: float
    low: float
    high: float


class LiftEffect(NamedTuple):
    """A lift with a standard error by the delta method: an effect like any other, for an inference on it."""

    value: float
    se: float


def lift_interval(contrast: Contrast, critical: float) -> Lift | None:
    """Return the lift with an interval that reaches `critical` standard errors (from a t quantile or a
    confidence sequence); None where the interval would mean nothing.

    On the log scale, exp(log(R_t/R_c) ± critical·sqrt(v_t/R_t² + v_c/R_c²)) - 1, while both means are positive,
    known to 10 % and with intervals clear of zero; else by Fieller's theorem. None where the control's mean is
    not positive, where its own interval reaches zero, or where nothing varies.
    """
    treatment, control = contrast.treatment, contrast.control
    v_t, v_c = contrast.treatment_variance, contrast.control_variance
    if treatment is None or control is None or v_t is None or v_c is None or v_t + v_c == 0.0:
        return None
    if control <= 0.0 or not math.isfinite(treatment / control):
        return None
    # in units of the control: squares of costs as small as 1e-200 underflow
    ratio, sd_t, sd_c = treatment / control, math.sqrt(v_t) / control, math.sqrt(v_c) / control
    if critical * sd_c >= 1.0:
        return None
    clear_of_zero = ratio > 0.0 and critical * sd_t / ratio < 1.0
    if clear_of_zero and max(sd_t / ratio, sd_c) <= _LOG_SCALE_CV:
        half = critical * math.hypot(sd_t / ratio, sd_c)
        interval = Interval(ratio * math.exp(-half), ratio * math.exp(half))
    else:
        interval = _fieller(ratio, sd_t, sd_c, critical)
    lift = Lift(ratio - 1.0, interval.low - 1.0, interval.high - 1.0)
    return lift if all(map(math.isfinite, lift)) else None


def delta_lift(contrast: Contrast) -> LiftEffect | None:
    """Return (R_t - R_c) / |R_c| with Var = v_t/R_c² + R_t² v_c/R_c⁴ (delta method); None where R_c is 0.

    Deng, Knoblich & Lu 2018. Symmetric about the lift, so it suits a normal prior; an interval for people is
    better from `lift_interval`. With a negative control a positive lift is still a change upwards.
    """
    treatment, control = contrast.treatment, contrast.control
    v_t, v_c = contrast.treatment_variance, contrast.control_variance
    if treatment is None or control is None or v_t is None or v_c is None or control == 0.0:
        return None
    size, ratio = abs(control), treatment / control
    se = math.hypot(math.sqrt(v_t) / size, ratio * math.sqrt(v_c) / size)
    return (
        LiftEffect(math.copysign(ratio - 1.0, treatment - control), se) if math.isfinite(ratio + se) else None
    )


def _fieller(ratio: float, sd_t: float, sd_c: float, critical: float) -> Interval:
    """Return the interval of R_t/R_c for independent arms, whose g = (critical·sd_c)² is below 1."""
    g = (critical * sd_c) ** 2
    spread = critical * math.sqrt(sd_t**2 * (1.0 - g) + (ratio * sd_c) ** 2)
    return Interval((ratio - spread) / (1.0 - g), (ratio + spread) / (1.0 - g))
