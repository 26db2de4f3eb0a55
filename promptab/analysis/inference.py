"""What a difference shows, in each of the three ways of reading it: at every look, at one look, as a belief."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from scipy.special import ndtri

from promptab.analysis.evidence import MetricEvidence
from promptab.analysis.result import Method, Role, Technique
from promptab.plan import AnalysisPlan
from promptab.stats import sequential
from promptab.stats.adaptive import weighted_contrast
from promptab.stats.bayesian import (
    LIFT_PRIOR,
    NormalPrior,
    Posterior,
    normal_posterior,
    proportion_posterior,
)
from promptab.stats.betting import BoundedDifference, bernoulli_difference, betting_difference
from promptab.stats.contrast import Contrast
from promptab.stats.fixed import t_critical, t_interval, t_p_value
from promptab.stats.interval import Interval
from promptab.stats.metric import Direction
from promptab.stats.multiplicity import simultaneous_confidence
from promptab.stats.permutation import EpochUnits, permutation_interval, permutation_p
from promptab.stats.proportion import proportion_difference
from promptab.stats.quantile import quantile_contrast
from promptab.stats.ratio import ratio_contrast
from promptab.stats.summary import UnitSums

FEW_UNITS = 30
"""Below this a mean over units is not near enough to normal for a t interval to be taken at its word."""

FEW_SEQUENTIAL_UNITS = 100
"""Below this an asymptotic confidence sequence is not read where there is an exact one."""


class Reading(NamedTuple):
    """How the differences of one metric are read."""

    method: Method
    plan: AnalysisPlan
    confidence: float
    """Of the metric as a whole."""
    comparisons: int
    """Variants compared with the control at once."""
    role: Role

    @property
    def level(self) -> float:
        """The confidence of a single interval: those on the primary metric hold together; beliefs need not."""
        if self.role != "primary" or self.method == "bayesian":
            return self.confidence
        return simultaneous_confidence(max(self.comparisons, 1), self.confidence)


class Finding(NamedTuple):
    """What one way of reading says of a difference; None where it says nothing."""

    technique: Technique
    interval: Interval | None = None
    p_value: float | None = None
    posterior: Posterior | None = None
    """Of the difference, in the metric's own unit."""


class Arms(NamedTuple):
    """Both arms of one comparison, as far as each way of reading may want to see them."""

    contrast: Contrast
    direction: Direction
    is_rate: bool = False
    trials: tuple[UnitSums, UnitSums] | None = None
    """Where each unit is one trial with the outcome 0 or 1, all in one epoch; of a bandit where no unit varies."""
    strata: Sequence[EpochUnits] | None = None
    """The single units by epoch, where they are few."""
    scores: tuple[Sequence[float], Sequence[float]] | None = None
    """Each unit's one bounded value in the order of exposure, where they are few and all in one epoch."""
    bounds: tuple[float, float] = (0.0, 1.0)
    """Of a score."""
    is_adaptive: bool = False
    """Whether the weights followed outcomes, and the contrast is weighted for that."""


def arms_of(evidence: MetricEvidence, variant: str, control: str) -> Arms:
    """Put a variant and the control side by side."""
    definition = evidence.definition
    if definition.kind == "quantile":
        quantiles = evidence.quantiles
        return Arms(
            quantile_contrast(quantiles.get(variant, {}), quantiles.get(control, {})), definition.direction
        )
    if evidence.weights is not None:
        return _adaptive_arms(evidence, evidence.weights, variant, control)
    treatment, untreated = evidence.arm(variant), evidence.arm(control)
    contrast = ratio_contrast(treatment, untreated)
    arms = Arms(contrast, definition.direction, definition.is_rate)
    alone = contrast.epochs[0] if len(contrast.epochs) == 1 and not contrast.left_out else None
    if alone is not None and definition.is_rate:
        pair = treatment[alone], untreated[alone]
        if all(are_trials(arm) for arm in pair):
            arms = arms._replace(trials=pair)
    if evidence.units is None:
        return arms
    strata = {
        epoch: EpochUnits(*(evidence.units.get(key, {}).get(epoch, ()) for key in (variant, control)))
        for epoch in contrast.epochs
    }
    # what a ratio divides by may be any measure: permuting is for counts of events
    if all(n >= 0.0 for units in strata.values() for arm in units for n, _ in arm):
        arms = arms._replace(strata=list(strata.values()))
    if alone is not None and definition.lowest is not None and definition.highest is not None:
        units, low, high = strata[alone], definition.lowest, definition.highest
        # a value beyond them shows that the declared bounds are wrong, and nothing can rest on them
        if all(n == 1.0 and low <= s <= high for arm in units for n, s in arm):
            scores = [s for _, s in units.treatment], [s for _, s in units.control]
            arms = arms._replace(scores=scores, bounds=(low, high))
    return arms


def _adaptive_arms(
    evidence: MetricEvidence, weights: Mapping[int, Mapping[str, float]], variant: str, control: str
) -> Arms:
    """Leave out what methods want that look at single units: they take them to be dealt by weights that follow
    nothing.
    """
    definition = evidence.definition
    weighted = weighted_contrast(evidence.sums, weights, variant, control)
    arms = Arms(weighted, definition.direction, definition.is_rate, is_adaptive=True)
    if definition.is_rate and weighted.se == 0.0:
        pair = evidence.pooled(variant), evidence.pooled(control)
        if all(are_trials(arm) for arm in pair):
            # no spread to weigh, and what holds for each arm's own units at every look holds however many it is dealt
            return arms._replace(trials=pair)
    return arms


def are_trials(sums: UnitSums) -> bool:
    """Whether every unit has one event, of 0 or 1: only of these the squares add up to what the values do."""
    squares = sums.rr + 2.0 * sums.center * sums.rn + sums.center**2 * sums.nn
    return sums.nn == sums.n == sums.units and math.isclose(squares, sums.s, rel_tol=1e-9, abs_tol=1e-9)


def find(method: Method, arms: Arms, plan: AnalysisPlan, confidence: float) -> Finding:
    """Read the difference by one method at this confidence."""
    contrast = arms.contrast
    if not contrast.epochs:
        return Finding("not enough data")
    if contrast.value is None or contrast.se is None:
        return Finding("not computable")
    finding = _READINGS[method](arms, contrast.value, contrast.se, plan, confidence)
    if arms.is_adaptive:
        return finding._replace(technique=_ADAPTIVE.get(finding.technique, finding.technique))
    return finding


def critical(
    method: Method, plan: AnalysisPlan, confidence: float, *, units: int, df: float, one_sided: bool = False
) -> float:
    """Return how many standard errors an interval, or a one-sided bound, of this method reaches."""
    if method == "sequential":
        return sequential.half_width(
            1.0, units, tuning_units=plan.tuning_units, alpha=1.0 - confidence, one_sided=one_sided
        )
    if method == "fixed":
        return t_critical(df, confidence, "greater" if one_sided else "two-sided")
    return float(ndtri(confidence if one_sided else (1.0 + confidence) / 2.0))


def _sequential(arms: Arms, value: float, se: float, plan: AnalysisPlan, confidence: float) -> Finding:
    few = se == 0.0 or arms.contrast.units < 2 * FEW_SEQUENTIAL_UNITS
    if arms.scores is not None and few:
        low, high = arms.bounds
        found = betting_difference(*arms.scores, low=low, high=high, confidence=confidence)
        return Finding("betting confidence sequence", Interval(found.low, found.high), found.p_value)
    if se == 0.0 and arms.trials is not None:
        exact = _exact_difference(arms.trials, plan, confidence)
        return Finding("beta-binomial confidence sequence", Interval(exact.low, exact.high), exact.p_value)
    if se == 0.0:
        # a sequence measures evidence by a spread, and permutation is for one look
        return Finding("confidence sequence")
    units, alpha = arms.contrast.units, 1.0 - confidence
    half = sequential.half_width(se, units, tuning_units=plan.tuning_units, alpha=alpha)
    p_value = sequential.p_value(value, se, units, tuning_units=plan.tuning_units, alpha=alpha)
    return Finding("confidence sequence", Interval(value - half, value + half), p_value)


def _fixed(arms: Arms, value: float, se: float, plan: AnalysisPlan, confidence: float) -> Finding:
    # exact at any size, where permuted zeros and ones give intervals that miss a real effect too often
    if arms.trials is not None:
        treatment, control = arms.trials
        found = proportion_difference(
            round(treatment.s), treatment.units, round(control.s), control.units, confidence=confidence
        )
        if found is not None:
            return Finding("proportions", Interval(found.low, found.high), found.p_value)
    if arms.strata is not None and _smaller_arm(arms.strata) < FEW_UNITS:
        interval = permutation_interval(arms.strata, confidence=confidence)
        return Finding("permutation", interval, permutation_p(arms.strata))
    df = arms.contrast.df
    if df is None:
        return Finding("permutation", None, arms.contrast.exact_p)
    return Finding("t", t_interval(value, se, df, confidence=confidence), t_p_value(value, se, df))


def _bayesian(arms: Arms, value: float, se: float, plan: AnalysisPlan, confidence: float) -> Finding:
    if arms.trials is not None:
        treatment, control = arms.trials
        believed = proportion_posterior(
            (treatment.s, treatment.n),
            (control.s, control.n),
            direction=arms.direction,
            credibility=confidence,
        )
        return Finding("beta posterior", Interval(believed.low, believed.high), None, believed)
    whole = whole_of(arms.contrast, is_rate=arms.is_rate)
    prior = NormalPrior(LIFT_PRIOR.mean * whole, LIFT_PRIOR.sd * whole) if whole > 0.0 else None
    posterior = normal_posterior(value, se, prior=prior, direction=arms.direction, credibility=confidence)
    if posterior is None:
        return Finding("not computable")
    return Finding("normal posterior", Interval(posterior.low, posterior.high), None, posterior)


def one_sided(
    method: Method, trials: tuple[UnitSums, UnitSums], plan: AnalysisPlan, confidence: float
) -> Interval | None:
    """Return bounds of the difference of two rates that need no spread, each end at the whole confidence."""
    both = 2.0 * confidence - 1.0
    (won, tried), (kept, untreated) = ((round(arm.s), arm.units) for arm in trials)
    if method == "sequential":
        return Interval(*_exact_difference(trials, plan, both)[1:3])
    if method == "fixed":
        found = proportion_difference(won, tried, kept, untreated, confidence=both)
        return None if found is None else Interval(found.low, found.high)
    believed = proportion_posterior((won, tried), (kept, untreated), credibility=both)
    return Interval(believed.low, believed.high)


def whole_of(contrast: Contrast, *, is_rate: bool) -> float:
    """Return what a relative amount is a share of: the larger of both arms' values, so that a control near zero does
    no harm; of rates the rarer outcome's, so that what is said of successes is said of failures too.
    """
    values = [abs(arm) for arm in (contrast.treatment, contrast.control) if arm is not None]
    return max((min(value, max(0.0, 1.0 - value)) if is_rate else value for value in values), default=0.0)


def _exact_difference(
    trials: tuple[UnitSums, UnitSums], plan: AnalysisPlan, confidence: float
) -> BoundedDifference:
    treatment, control = trials
    return bernoulli_difference(
        (round(treatment.s), treatment.units),
        (round(control.s), control.units),
        tuning_trials=max(1.0, plan.tuning_units / 2.0),
        confidence=confidence,
    )


def _smaller_arm(strata: Sequence[EpochUnits]) -> int:
    return min(sum(n > 0.0 for stratum in strata for n, _ in stratum[arm]) for arm in (0, 1))


_ADAPTIVE: Mapping[Technique, Technique] = {
    "confidence sequence": "weighted confidence sequence",
    "t": "weighted t",
}
"""Beside the posterior, which is of the same weighted difference."""

_READINGS: Mapping[Method, Callable[[Arms, float, float, AnalysisPlan, float], Finding]] = {
    "sequential": _sequential,
    "fixed": _fixed,
    "bayesian": _bayesian,
}
