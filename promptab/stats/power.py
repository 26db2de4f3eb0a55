"""How many units an experiment needs, what it can find with those it gets, and how long that takes.

Three functions for every kind of metric and test: `sample_size`, `achieved_power` and `detectable_effect`.
What is measured is a `Proportion`, a `Mean` or a `Ratio`; how it is tested is a `Design`. Where a unit has
several events, the `variance_factor` of their `promptab.stats.clustering` goes into the design.

References:
    Fleiss, Levin & Paik, "Statistical Methods for Rates and Proportions", 3rd ed., 2003, ch. 4 (two
        proportions, the variance pooled under the null; R's power.prop.test)
    Chow, Shao & Wang, "Sample Size Calculations in Clinical Research", 2nd ed., 2008, p. 90
        (non-inferiority)
    Cohen, "Statistical Power Analysis for the Behavioral Sciences", 2nd ed., 1988, ch. 2 (noncentral t)
    Deng, Knoblich & Lu, KDD 2018, https://arxiv.org/abs/1803.06336 (variance of a ratio per unit)
    GrowthBook, "Power analysis, technical details", https://docs.growthbook.io/statistics/power-technical
        (sequential)
    Deng, Xu, Kohavi & Walker, WSDM 2013 (CUPED)
    Schultzberg, Ankargren & Frånberg, "Risk-aware product decisions in A/B tests with multiple metrics", 2024,
        https://arxiv.org/abs/2402.11609 (power of each guardrail)
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from scipy.optimize import brentq
from scipy.special import nctdtr, ndtr, ndtri, stdtrit

from promptab.checks import MAX_MEASURE, check_number
from promptab.errors import InvalidInputError
from promptab.stats.metric import Direction
from promptab.stats.sequential import half_width

# A variance takes two units.
_FEWEST_UNITS = 2.0
_MOST_UNITS = 1e15
_MOST_UNEQUAL = 1000.0
# Student's t on two degrees of freedom goes no further.
_LEAST_ALPHA = 1e-9
# Solved units that are above a whole number by less than this are that number.
_SOLVED = 1e-7


class Proportion(NamedTuple):
    """A share of units, or of the events of units (then with the clustering's factor), tested by z."""

    baseline: float
    """The control's, between 0 and 1."""


class Mean(NamedTuple):
    """A mean over units, tested by Student's t."""

    sd: float
    """Standard deviation of the value of one unit."""


class Ratio(NamedTuple):
    """A ratio of sums over units, or another mean whose standard deviation counts as known, tested by z."""

    sd: float
    """Standard deviation of one unit by the delta method: the ratio's standard error times √units."""


Measured = Proportion | Mean | Ratio


class Design(NamedTuple):
    """How an effect is tested."""

    alpha: float = 0.05
    """From 1e-9 to below 0.5."""
    sides: Literal[1, 2] = 2
    """One: only an effect in the metric's own direction is looked for, at alpha."""
    direction: Direction = "increase"
    allocation: float = 1.0
    """Units of the treatment for each unit of the control, 0.001 to 1000."""
    margin: float | None = None
    """Non-inferiority, with one side: the treatment is shown not to be worse by more than this, 0 or more,
    in the metric's own unit. The variance of proportions is not pooled then, as they differ under the null."""
    sequential: bool = False
    """By the asymptotic confidence sequence; the power is that of a single look at the end, and so at most
    that of looking all the way."""
    tuning_units: float | None = None
    """N* of the confidence sequence; None for the units of both arms at that look."""
    variance_factor: float = 1.0
    """What the variance of a unit is multiplied by: `Clustering.variance_factor`, `cuped_factor`, their
    product."""


class SampleSize(NamedTuple):
    """Units that an experiment needs."""

    exact: float
    """Of the control, before rounding up; at least 2 in each arm."""
    control: int
    treatment: int
    effect: float
    """What is to be found: treatment minus control."""
    power: float
    """With the whole units; at least what was asked for."""

    @property
    def total(self) -> int:
        return self.control + self.treatment


def cuped_factor(correlation: float) -> float:
    """Return the share of the variance that CUPED leaves, 1 - r² (Deng, Xu, Kohavi & Walker 2013).

    `correlation`, between -1 and 1, both excluded, is that of a unit's outcome with its own before the start.
    """
    check_number("correlation", correlation, above=-1.0, below=1.0)
    return (1.0 - correlation) * (1.0 + correlation)


def guardrail_power(power: float, guardrails: int) -> float:
    """Return the power that each of several guardrails needs so that all pass together with `power`.

    1 - β/G by Bonferroni (Schultzberg, Ankargren & Frånberg 2024): no independence is assumed. Alpha is not
    shared where all have to pass. `power` is between 0 and 1, `guardrails` at least 1.
    """
    _check_power(power)
    if guardrails < 1:
        raise InvalidInputError("guardrails", guardrails, "at least 1")
    return 1.0 - (1.0 - power) / guardrails


def achieved_power(
    measured: Measured,
    effect: float,
    *,
    control_units: float,
    design: Design = Design(),  # noqa: B008
) -> float:
    """Return the probability of finding `effect`, treatment minus control, with so many units (at least 2).

    With z the quantile of alpha: proportions and ratios have Φ((|effect| - z se_null) / se), with the null's
    variance pooled for proportions (Fleiss, Levin & Paik 2003); as in R's power.prop.test, being significant
    on the wrong side does not count. Means have the noncentral t with both tails (Cohen 1988; R's pwr), so
    without an effect it is alpha. With a margin M the distance is effect + M (Chow, Shao & Wang 2008). The
    sequential design has Φ((|effect| - half width) / se) (GrowthBook).

    Raises `InvalidInputError` for a proportion, or proportion plus effect, not between 0 and 1, an sd not
    above 0, and whatever in the design is outside its range.
    """
    _check(measured, design)
    _check_effect(measured, effect)
    fewest = _fewest(design)
    check_number("control_units", control_units, low=fewest, high=_MOST_UNITS)
    return _power(measured, effect, control_units, control_units * design.allocation, design)


def sample_size(
    measured: Measured,
    effect: float,
    *,
    power: float = 0.8,
    design: Design = Design(),  # noqa: B008
) -> SampleSize:
    """Return the units with which `effect`, treatment minus control, is found with probability `power`.

    Solves `achieved_power` for the units. `effect` is in the metric's own unit: a relative one is to be
    multiplied by the control's value first. It may be 0 with a margin.

    Raises `InvalidInputError` as `achieved_power` does, for an effect of 0, one that is on the wrong side of
    what is tested, one so small that it takes more than 1e15 units, and a power that is not above alpha.
    """
    _check(measured, design)
    _check_effect(measured, effect)
    _check_power(power, above=design.alpha)
    if _distance(effect, design) <= 0.0:
        if design.margin is not None:
            bound = f"within the margin of {design.margin!r}"
            raise InvalidInputError("effect", effect, bound, "tolerate more, or expect less harm")
        bound = "different from 0" if effect == 0.0 else f"an improvement where an {design.direction} is one"
        raise InvalidInputError("effect", effect, bound, "give the smallest effect that is worth finding")

    def surplus(units: float) -> float:
        return _power(measured, effect, units, units * design.allocation, design) - power

    fewest = _fewest(design)
    exact = fewest
    if surplus(fewest) < 0.0:
        most = fewest
        while surplus(most) < 0.0:
            most *= 4.0
            if most > _MOST_UNITS:
                bound = f"found with {_MOST_UNITS:g} units of the control"
                raise InvalidInputError("effect", effect, bound, "give an effect that is worth finding")
        exact = float(brentq(surplus, most / 4.0, most, xtol=1e-9, rtol=1e-14))
    control, treatment = _whole(exact), _whole(exact * design.allocation)
    return SampleSize(exact, control, treatment, effect, _power(measured, effect, control, treatment, design))


def detectable_effect(
    measured: Measured,
    *,
    control_units: float,
    power: float = 0.8,
    design: Design = Design(),  # noqa: B008
) -> float | None:
    """Return the smallest improvement, treatment minus control, that is found with probability `power`.

    Solves `achieved_power` for the effect, which is below 0 where a decrease is an improvement; with a margin
    it is the smallest effect that is shown to be non-inferior, often a loss. None where the units are so few
    that no proportion up to 1 would be found (or down to 0). A proportion below its own margin is
    non-inferior whatever it does: its largest loss is returned.

    Raises `InvalidInputError` as `achieved_power` does, and for a power that is not above alpha.
    """
    _check(measured, design)
    _check_power(power, above=design.alpha)
    check_number("control_units", control_units, low=_fewest(design), high=_MOST_UNITS)
    sign = 1.0 if design.direction == "increase" else -1.0

    def surplus(improvement: float) -> float:
        treatment_units = control_units * design.allocation
        return _power(measured, sign * improvement, control_units, treatment_units, design) - power

    least = -(design.margin or 0.0)
    if isinstance(measured, Proportion):
        room = 1.0 - measured.baseline if design.direction == "increase" else measured.baseline
        least, most = max(least, room - 1.0), room
    else:
        most = least + measured.sd * math.sqrt(design.variance_factor)
        while surplus(most) < 0.0:
            most += 2.0 * (most - least)
    if surplus(least) >= 0.0:
        return sign * least
    if surplus(most) < 0.0:
        return None
    return sign * float(brentq(surplus, least, most, xtol=1e-12 * (most - least), rtol=1e-14))


def days_needed(
    size: SampleSize,
    *,
    units_per_day: float,
    traffic: float = 1.0,
    control_share: float = 0.5,
    treatment_share: float = 0.5,
) -> int:
    """Return after how many whole days both arms have their units.

    `units_per_day` are units that come for the first time: one that returns adds nothing. `traffic` is the
    share of them that is enrolled, above 0 and at most 1. The shares are those of the enrolled that each of
    the two arms gets, above 0 and together at most 1; the rest goes to other arms. Days are taken to be alike:
    plan whole weeks where weekends differ.
    """
    check_number("units_per_day", units_per_day, above=0.0)
    check_number("traffic", traffic, above=0.0, high=1.0)
    check_number("control_share", control_share, above=0.0, below=1.0)
    check_number("treatment_share", treatment_share, above=0.0, below=1.0)
    if control_share + treatment_share > 1.0 + 1e-9:
        bound = f"at most {1.0 - control_share!r}, what the control leaves"
        raise InvalidInputError("treatment_share", treatment_share, bound)
    enrolled = units_per_day * traffic
    days = max(size.control / (enrolled * control_share), size.treatment / (enrolled * treatment_share))
    return _whole(days)


def _power(
    measured: Measured, effect: float, control_units: float, treatment_units: float, design: Design
) -> float:
    null_se, se = _standard_errors(measured, effect, control_units, treatment_units, design)
    distance = _distance(effect, design)
    if design.sequential:
        units = control_units + treatment_units
        tuning_units = design.tuning_units or units
        half = half_width(
            se, units, tuning_units=tuning_units, alpha=design.alpha, one_sided=design.sides == 1
        )
        return float(ndtr((distance - half) / se))
    level = design.alpha / design.sides
    if isinstance(measured, Mean):
        return _t_power(distance / se, control_units + treatment_units - 2.0, level, design.sides)
    return float(ndtr((distance + float(ndtri(level)) * null_se) / se))


def _t_power(noncentrality: float, df: float, level: float, sides: int) -> float:
    critical = -float(stdtrit(df, level))
    power = 1.0 - _noncentral_t_below(critical, df, noncentrality)
    if sides == 2:
        power += _noncentral_t_below(-critical, df, noncentrality)
    return min(1.0, power)


def _noncentral_t_below(t: float, df: float, noncentrality: float) -> float:
    below = float(nctdtr(df, noncentrality, t))
    if math.isnan(below):
        # scipy gives up in places where one of the two sides holds less than 1e-10
        return 0.0 if noncentrality > 0.0 else 1.0
    return below


def _standard_errors(
    measured: Measured, effect: float, control_units: float, treatment_units: float, design: Design
) -> tuple[float, float]:
    """Return the standard error of the difference under the null and with the effect."""
    factor = math.sqrt(design.variance_factor)
    if not isinstance(measured, Proportion):
        se = factor * measured.sd * math.sqrt(1.0 / control_units + 1.0 / treatment_units)
        return se, se
    control = measured.baseline
    treatment = min(1.0, max(0.0, control + effect))  # at the bounds rounding may step over them
    se = factor * math.sqrt(
        control * (1.0 - control) / control_units + treatment * (1.0 - treatment) / treatment_units
    )
    if design.margin is not None:
        return se, se
    share = control_units / (control_units + treatment_units)
    pooled = share * control + (1.0 - share) * treatment
    spread = math.sqrt(pooled * (1.0 - pooled))
    return factor * spread * math.sqrt(1.0 / control_units + 1.0 / treatment_units), se


def _distance(effect: float, design: Design) -> float:
    """Return how far the effect is on the side that is tested from the null hypothesis."""
    improvement = effect if design.direction == "increase" else -effect
    if design.margin is not None:
        return improvement + design.margin
    return abs(improvement) if design.sides == 2 else improvement


def _fewest(design: Design) -> float:
    return max(_FEWEST_UNITS, _FEWEST_UNITS / design.allocation)


def _whole(exact: float) -> int:
    return math.ceil(exact - _SOLVED)


def _check(measured: Measured, design: Design) -> None:
    if isinstance(measured, Proportion):
        check_number("baseline", measured.baseline, above=0.0, below=1.0)
    else:
        check_number("sd", measured.sd, above=0.0, high=MAX_MEASURE)
    check_number("alpha", design.alpha, low=_LEAST_ALPHA, below=0.5)
    if design.sides not in {1, 2}:
        raise InvalidInputError("sides", design.sides, "1 or 2")
    check_number("allocation", design.allocation, low=1.0 / _MOST_UNEQUAL, high=_MOST_UNEQUAL)
    check_number("variance_factor", design.variance_factor, above=0.0, high=MAX_MEASURE)
    if design.margin is not None:
        check_number("margin", design.margin, low=0.0, high=MAX_MEASURE)
        if design.sides != 1:
            raise InvalidInputError("sides", design.sides, "1 with a margin", "non-inferiority has one side")
    if design.tuning_units is not None:
        check_number("tuning_units", design.tuning_units, above=0.0)


def _check_effect(measured: Measured, effect: float) -> None:
    check_number("effect", effect, low=-MAX_MEASURE, high=MAX_MEASURE)
    if isinstance(measured, Proportion) and not 0.0 < measured.baseline + effect < 1.0:
        bound = f"between {-measured.baseline:g} and {1.0 - measured.baseline:g}, where the proportion is"
        remedy = "a relative effect has to be multiplied by the baseline first"
        raise InvalidInputError("effect", effect, bound, remedy)


def _check_power(power: float, *, above: float = 0.0) -> None:
    check_number("power", power, above=above, below=1.0)
