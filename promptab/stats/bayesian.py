"""The Bayesian reading of an effect: how probable it is, and what choosing wrongly is expected to cost.

All of it is closed forms and quadrature: the same numbers give the same answer, to the last digit. Nothing
here makes looking free: stopping as soon as P(better) passes 0.95 under a flat prior names a false winner in
38 of 100 experiments with 14 daily looks. An informative prior on the lift, and a threshold on the expected
loss that was declared before the start, are what keep it honest.

References:
    Gelman, Carlin, Stern, Dunson, Vehtari & Rubin, "Bayesian Data Analysis", 3rd ed., 2013, sections 2.4
        (beta prior for a binomial rate) and 2.5 (normal prior for a normal mean)
    Stucchio, "Bayesian A/B Testing at VWO", 2015 (expected loss)
    Miller, "Formulas for Bayesian A/B Testing", https://www.evanmiller.org/bayesian-ab-testing.html
    GrowthBook, "Statistics at GrowthBook", https://docs.growthbook.io/statistics/details (prior on the lift)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfcx, ndtr, ndtri

from promptab.checks import MAX_MEASURE, check_number
from promptab.errors import InvalidInputError
from promptab.stats.beta import BetaRate, RateDifference, legendre
from promptab.stats.metric import Direction

_Floats = NDArray[np.float64]

# Below this a beta prior keeps much of its mass at rates that are too near 0 or 1 for a double.
_SMALLEST_SHAPE = 0.1
# With more, the incomplete beta function is slow and loses digits, and the normal posterior lacks none.
_MOST_TRIALS = 1e9
# The tails outside are then still large beside the error of the quadrature.
_LARGEST_CREDIBILITY = 0.9999
# Normal tails beyond this many standard deviations hold less than 1e-18.
_TAIL = 9.0
_CORNERS = np.linspace(-_TAIL, _TAIL, 7)


class NormalPrior(NamedTuple):
    """What is believed of an effect before the data.

    On the scale of the effect as it is measured: for `direction="decrease"` a negative mean expects an
    improvement.
    """

    mean: float
    sd: float


LIFT_PRIOR = NormalPrior(0.0, 0.3)
"""On a relative lift: most changes do little, and one in twenty moves a metric by more than 60 %."""


class BetaPrior(NamedTuple):
    """Of a rate, the same for both arms: worth `alpha` successes and `beta` failures. (1, 1) is flat."""

    alpha: float = 1.0
    beta: float = 1.0


class Posterior(NamedTuple):
    """What is believed of an effect, treatment minus control, after the data."""

    mean: float
    sd: float
    low: float
    high: float
    """The credible interval, with equal tails."""
    probability_better: float
    """That the treatment is better than the control, in the metric's direction."""
    loss_treatment: float
    """Expected loss of choosing the treatment: the mean over the posterior of what the control would have
    been better by, which is 0 where the treatment is better. On the scale of the effect, never negative."""
    loss_control: float
    """Expected loss of staying with the control."""

    def scaled(self, factor: float) -> Posterior:
        """Return the same belief on another scale, `factor` (above 0) times this one.

        A lift times the control's value is the effect in the metric's own unit; a difference over the
        control's value is relative. The control's value counts as known exactly here.
        """
        check_number("factor", factor, above=0.0)
        return Posterior(
            mean=self.mean * factor,
            sd=self.sd * factor,
            low=self.low * factor,
            high=self.high * factor,
            probability_better=self.probability_better,
            loss_treatment=self.loss_treatment * factor,
            loss_control=self.loss_control * factor,
        )


def normal_posterior(
    value: float,
    se: float,
    *,
    prior: NormalPrior | None = None,
    direction: Direction = "increase",
    credibility: float = 0.95,
) -> Posterior | None:
    """Combine an effect that is normal about the truth with a normal prior; None is a flat prior.

    Precisions add, and the mean is weighted by them (Gelman et al. 2013, section 2.5). With mean m and sd s of
    the improvement, P(better) = Φ(m/s), the loss of the treatment is s φ(m/s) - m Φ(-m/s), and that of the
    control is larger by m. On a lift with the delta method's standard error this is GrowthBook's analysis.

    `value` and `se` are of the difference or of the lift, and `prior` is on the same scale. Assumes units
    enough for a normal effect. A standard error of 0 gives None: what never varied does not tell how much it
    varies. Refuses numbers that are not finite, a negative `se`, a prior whose sd is not above 0 and a
    `credibility` that is not above 0 and at most 0.9999.
    """
    check_number("value", value)
    check_number("se", se, low=0.0)
    _check_credibility(credibility)
    if prior is not None:
        check_number("prior.mean", prior.mean)
        check_number("prior.sd", prior.sd, above=0.0)
    if se == 0.0:
        return None
    mean, sd = value, se
    if prior is not None:
        # as shares of a total, since squares of a cost per token would underflow
        together = math.hypot(se, prior.sd)
        from_data, from_prior = (prior.sd / together) ** 2, (se / together) ** 2
        mean = from_data * value + from_prior * prior.mean
        sd = min(se, prior.sd) * (max(se, prior.sd) / together)
    half = float(ndtri((1.0 + credibility) / 2.0)) * sd
    improvement = mean if direction == "increase" else -mean
    smaller = sd * _unit_normal_loss(abs(mean) / sd)
    return Posterior(
        mean=mean,
        sd=sd,
        low=mean - half,
        high=mean + half,
        probability_better=float(ndtr(improvement / sd)),
        loss_treatment=smaller + max(0.0, -improvement),
        loss_control=smaller + max(0.0, improvement),
    )


def proportion_posterior(
    treatment: tuple[float, float],
    control: tuple[float, float],
    *,
    prior: BetaPrior = BetaPrior(),  # noqa: B008 - a tuple cannot change
    direction: Direction = "increase",
    credibility: float = 0.95,
) -> Posterior:
    """Compare two rates, each given as (successes, trials), by their beta posteriors.

    A rate has the posterior Beta(alpha + successes, beta + failures) (Gelman et al. 2013, section 2.4). The
    probability, the losses (Miller; Stucchio 2015) and the interval of the difference are integrals, good to
    better than 1e-9 from no trials at all to ten millions (see `promptab.stats.beta`).

    Assumes independent trials, so one trial is one unit: the events of a unit are alike, and for rates over
    events there is `normal_posterior`. Assumes one epoch, or weights that never changed. No trials leave the
    prior. Refuses fewer than 0 successes or more than trials, a prior below 0.1, which is mostly at rates that
    no float tells from 0, more than 1e9 trials (`normal_posterior` serves there), and a `credibility` as above.
    """
    _check_credibility(credibility)
    for field, shape in (("prior.alpha", prior.alpha), ("prior.beta", prior.beta)):
        check_number(field, shape, low=_SMALLEST_SHAPE)
    difference = RateDifference(
        _posterior_rate("treatment", treatment, prior), _posterior_rate("control", control, prior)
    )
    above, below = difference.probability_above(), difference.expected_shortfall()
    mean = difference.treatment.mean - difference.control.mean
    losses = below, max(0.0, below + mean)
    tail = (1.0 - credibility) / 2.0
    return Posterior(
        mean=mean,
        sd=math.hypot(difference.treatment.sd, difference.control.sd),
        low=difference.quantile(tail),
        high=difference.quantile(1.0 - tail),
        probability_better=above if direction == "increase" else 1.0 - above,
        loss_treatment=losses[0] if direction == "increase" else losses[1],
        loss_control=losses[1] if direction == "increase" else losses[0],
    )


def probability_best(
    means: Sequence[float], sds: Sequence[float], *, direction: Direction = "increase"
) -> list[float]:
    """Return for each arm the probability that it is the best, from independent normal posteriors.

    P(k) = ∫ φ(t) Π_j Φ((m_k + s_k t - m_j) / s_j) dt, by Gauss-Legendre over pieces that none of the arms
    varies much in, so that a wide posterior beside a narrow one loses no digit. They add up to 1 within
    rounding; arms that are alike share alike. No arms give no numbers, a single one is the best. Refuses sds
    that are not above 0 (an arm that never varied has no normal posterior), and numbers beyond 1e18.
    """
    if len(means) != len(sds):
        raise InvalidInputError("sds", len(sds), f"{len(means)} numbers, one for each mean")
    for mean, sd in zip(means, sds, strict=True):
        check_number("means", mean, low=-MAX_MEASURE, high=MAX_MEASURE)
        check_number("sds", sd, above=0.0, high=MAX_MEASURE)
    centers = np.array(means, dtype=float) * (1.0 if direction == "increase" else -1.0)
    scales = np.array(sds, dtype=float)
    return [_probability_above_all(arm, centers, scales) for arm in range(len(means))]


def _probability_above_all(arm: int, centers: _Floats, scales: _Floats) -> float:
    # a far arm may be more standard deviations away than a float holds, and is cut off
    with np.errstate(over="ignore"):
        corners = (centers[:, None] - centers[arm] + scales[:, None] * _CORNERS) / scales[arm]
        edges = np.unique(np.clip(corners, -_TAIL, _TAIL))
        nodes, weights = legendre(24)
        halves = np.diff(edges)[:, None] / 2.0
        t = (edges[:-1, None] + halves * (nodes + 1.0)).ravel()
        ahead = (centers[arm] - centers[:, None] + scales[arm] * t) / scales[:, None]
    below = np.prod(np.delete(ndtr(ahead), arm, axis=0), axis=0)
    density = np.exp(-0.5 * t * t) / math.sqrt(2.0 * math.pi)
    return min(1.0, float(np.sum((halves * weights).ravel() * density * below)))


def _check_credibility(credibility: float) -> None:
    if not 0.0 < credibility <= _LARGEST_CREDIBILITY:
        bound = f"greater than 0 and at most {_LARGEST_CREDIBILITY}"
        raise InvalidInputError("credibility", credibility, bound, "0.95 is usual")


def _unit_normal_loss(z: float) -> float:
    """Return φ(z) - z Φ(-z), the mean of max(0, -x) for x normal about z with sd 1, for z of 0 and more."""
    density = math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
    if density == 0.0:
        return 0.0
    # the two terms nearly cancel far out; their ratio, unlike themselves, does not underflow
    return max(0.0, density * (1.0 - z * math.sqrt(math.pi / 2.0) * float(erfcx(z / math.sqrt(2.0)))))


def _posterior_rate(field: str, successes_of_trials: tuple[float, float], prior: BetaPrior) -> BetaRate:
    successes, trials = successes_of_trials
    check_number(f"{field}.trials", trials, low=0.0, high=_MOST_TRIALS)
    check_number(f"{field}.successes", successes, low=0.0, high=trials)
    return BetaRate(prior.alpha + successes, prior.beta + (trials - successes))
