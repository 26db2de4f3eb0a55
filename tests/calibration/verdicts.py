"""What `decide` goes by, at all looks of a stream at once: when a guardrail has failed or passed, and what is better.

The formulas of `analysis.guarding` and of the statistics below it, by arrays. They only say at which looks to ask:
whatever is counted was decided by `analyze` and `decide`, and a test holds both together at every look.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from promptab.analysis.inference import FEW_SEQUENTIAL_UNITS
from promptab.gathering import FEW_UNITS as FEW_SINGLE_UNITS
from promptab.guardrails import Guardrail
from promptab.stats.interval import Side
from promptab.stats.metric import MetricDefinition
from promptab.stats.rate_bound import rate_log_e_value, unit_rate_log_e_value
from promptab.stats.rate_regression import _gains, _points
from promptab.stats.score_bound import score_log_e_value, score_regression_log_e_value
from promptab.stats.sequential import tuning
from tests.calibration.outcomes import Bools, Floats, Integers
from tests.calibration.streams import PLAN, Stream, Sums
from tests.calibration.tally import ALPHA

# A number of arrays may differ from that of the analysis by rounding: such looks are asked about as well.
_ROUNDING = 1e-9
CONTROL, TREATMENT = 0, 1

CARELESS_Z = 1.6448536269514722
CARELESS_UNITS = 30


class Claim(NamedTuple):
    """What is tested at each look: that a number is beyond 0, and how far it is in standard errors."""

    z: Floats
    units: Floats


class Watch:
    """One stream as the analysis reads it."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._dealt: dict[Guardrail, Floats] = {}
        self._means: dict[tuple[str, int], tuple[Floats, Floats]] = {}

    def fails(self, guardrail: Guardrail, alpha: float) -> Bools:
        """Say at which looks it fails at a share `alpha` of the budget."""
        definition = self._definition(guardrail)
        if _is_score(definition):
            alpha /= 2.0
        beyond = _worse_side(guardrail, definition)
        if guardrail.is_absolute and definition.is_rate:
            return self._rate_fails(guardrail, beyond, alpha)
        if guardrail.is_absolute:
            return self._beyond_bound(guardrail, beyond, alpha)
        return self._beyond_control(guardrail, definition, alpha)

    def passes(self, guardrail: Guardrail) -> Bools:
        """Say at which looks nothing is lacking of it for a promotion."""
        definition = self._definition(guardrail)
        other: Side = "greater" if _worse_side(guardrail, definition) == "less" else "less"
        if guardrail.is_absolute:
            return self._beyond_bound(guardrail, other, ALPHA)
        if guardrail.amount == 0.0:
            return np.ones(self.stream.looks, dtype=np.bool_)
        claim = self._against_control(guardrail, definition)
        return is_shown(_one_sided_log_e(claim._replace(z=-claim.z), ALPHA), ALPHA)

    def better(self, metric: str) -> Bools:
        """Say at which looks the primary metric is shown to be better, with the units that this needs."""
        sums = self.stream.sums[metric]
        value, se = self._difference(metric, 1.0)
        units = sums.units.sum(axis=0)
        sign = PLAN.definition(metric).sign
        with np.errstate(divide="ignore", invalid="ignore"):
            log_e = _two_sided_log_e(Claim(value / se, units), ALPHA)
        found: Bools = is_shown(log_e, ALPHA) & (sign * value > 0.0)
        found &= sums.units.min(axis=0) >= PLAN.minimum_units
        return found

    def careless(self, guardrail: Guardrail) -> Bools:
        """Say at which looks a one-sided z test at 5 %, unshared, would have it fail, from 30 units an arm on."""
        definition = self._definition(guardrail)
        if guardrail.is_absolute:
            claim = self._against_bound(guardrail, _worse_side(guardrail, definition))
        else:
            claim = self._against_control(guardrail, definition)
        enough = self.stream.sums[definition.name].units.min(axis=0) >= CARELESS_UNITS
        found: Bools = enough & (claim.z >= CARELESS_Z)
        return found

    def _definition(self, guardrail: Guardrail) -> MetricDefinition:
        return PLAN.definition(guardrail.metric)

    def _rate_fails(self, guardrail: Guardrail, beyond: Side, alpha: float) -> Bools:
        """Say at which looks a rate behind a bound fails: by trials with all of `alpha`, else by bets and later by a
        confidence sequence with half of it each.
        """
        sums = self.stream.sums[guardrail.metric]
        units, single = sums.units[TREATMENT], sums.are_trials[TREATMENT]
        found = self._beyond_bound(guardrail, beyond, alpha / 2.0)
        if single.any():
            found = np.where(single, bound_broken(self.stream, guardrail, beyond, alpha), found)
        for look in np.flatnonzero(~single & (units < FEW_SEQUENTIAL_UNITS)):
            totals = self.stream.single_units(guardrail.metric, int(look))["treatment"][0]
            log_e = unit_rate_log_e_value(totals, bound=guardrail.amount, claim=beyond)
            found[look] = log_e >= -math.log(alpha / 2.0) - _ROUNDING
        return found

    def _beyond_bound(self, guardrail: Guardrail, beyond: Side, alpha: float) -> Bools:
        definition = self._definition(guardrail)
        sums = self.stream.sums[definition.name]
        log_e = _one_sided_log_e(self._against_bound(guardrail, beyond), alpha)
        enough = sums.units[TREATMENT] >= FEW_SEQUENTIAL_UNITS
        single = sums.are_trials[TREATMENT]
        if _is_score(definition):
            for look in np.flatnonzero(_has_few(sums) & single):
                log_e[look] = self._bet_against_bound(guardrail, beyond, int(look), alpha)
                enough[look] = True
        found: Bools = is_shown(log_e, alpha) & enough
        if definition.is_rate and single.any():
            found = np.where(single, bound_broken(self.stream, guardrail, beyond, alpha), found)
        return found

    def _bet_against_bound(self, guardrail: Guardrail, beyond: Side, look: int, alpha: float) -> float:
        low, high = _bounds(self._definition(guardrail))
        scores = [s for _, s in self.stream.single_units(guardrail.metric, look)["treatment"][0]]
        return score_log_e_value(
            scores, bound=guardrail.amount, claim=beyond, low=low, high=high, alpha=alpha
        )

    def _beyond_control(self, guardrail: Guardrail, definition: MetricDefinition, alpha: float) -> Bools:
        sums = self.stream.sums[definition.name]
        log_e = _one_sided_log_e(self._against_control(guardrail, definition), alpha)
        enough = sums.units.min(axis=0) >= FEW_SEQUENTIAL_UNITS
        single = sums.are_trials.all(axis=0)
        if _is_score(definition):
            for look in np.flatnonzero(_has_few(sums) & single & (sums.units.min(axis=0) >= 2)):
                log_e[look] = self._bet_against_control(guardrail, definition, int(look), alpha)
                enough[look] = True
        found: Bools = is_shown(log_e, alpha) & enough
        if definition.is_rate:
            # once a unit has brought two events they are trials no more
            looks = int(single.sum())
            if guardrail not in self._dealt:
                self._dealt[guardrail] = dealt_rates_log_e(self.stream, guardrail, looks=looks)
            found[:looks] = is_shown(self._dealt[guardrail], alpha)
        return found

    def _bet_against_control(
        self, guardrail: Guardrail, definition: MetricDefinition, look: int, alpha: float
    ) -> float:
        units = self.stream.single_units(definition.name, look)
        low, high = _bounds(definition)
        return score_regression_log_e_value(
            [s for _, s in units["treatment"][0]],
            [s for _, s in units["control"][0]],
            margin=guardrail.amount,
            relative=guardrail.relative,
            direction=definition.direction,
            low=low,
            high=high,
            alpha=alpha,
        )

    def _against_bound(self, guardrail: Guardrail, beyond: Side) -> Claim:
        """Weigh the claim that the variant's own value is beyond the bound."""
        sums = self.stream.sums[guardrail.metric]
        value, variance = self._mean(guardrail.metric, TREATMENT)
        if self._definition(guardrail).is_rate:
            variance = _rate_variance(value, variance, guardrail.amount)
        sign = 1.0 if beyond == "greater" else -1.0
        with np.errstate(divide="ignore", invalid="ignore"):
            return Claim(sign * (value - guardrail.amount) / np.sqrt(variance), sums.units[TREATMENT])

    def _against_control(self, guardrail: Guardrail, definition: MetricDefinition) -> Claim:
        """Weigh the claim that the variant is worse than the control by more than the margin."""
        sums = self.stream.sums[guardrail.metric]
        worse = -definition.sign
        factor = 1.0 + worse * guardrail.amount if guardrail.relative else 1.0
        null = 0.0 if guardrail.relative else worse * guardrail.amount
        value, se = self._difference(guardrail.metric, factor)
        with np.errstate(divide="ignore", invalid="ignore"):
            return Claim(worse * (value - null) / se, sums.units.sum(axis=0))

    def _difference(self, metric: str, factor: float) -> tuple[Floats, Floats]:
        """Return treatment minus `factor` times control, and its standard error; an arm that never varied borrows."""
        (treatment, treated), (control, untreated) = (self._mean(metric, arm) for arm in (TREATMENT, CONTROL))
        units = self.stream.sums[metric].units
        with np.errstate(divide="ignore", invalid="ignore"):
            lent = (
                np.where(treated == 0.0, untreated * units[CONTROL] / units[TREATMENT], treated),
                np.where(untreated == 0.0, treated * units[TREATMENT] / units[CONTROL], untreated),
            )
            return treatment - factor * control, np.sqrt(lent[0] + factor * factor * lent[1])

    def _mean(self, metric: str, arm: int) -> tuple[Floats, Floats]:
        if (metric, arm) not in self._means:
            self._means[metric, arm] = _mean(self.stream.sums[metric], arm)
        return self._means[metric, arm]


def bound_broken(stream: Stream, guardrail: Guardrail, beyond: Side, alpha: float) -> Bools:
    """Say at which looks a rate of single trials is shown to be beyond its bound."""
    sums = stream.sums[guardrail.metric]
    trials, successes = (np.rint(column[TREATMENT]).astype(np.int64) for column in (sums.units, sums.s))
    unwanted = trials - successes if beyond == "less" else successes
    broken: Bools = unwanted >= fewest_unwanted(guardrail.amount, beyond, alpha, len(stream.treated))[trials]
    return broken


def dealt_rates_log_e(stream: Stream, guardrail: Guardrail, *, looks: int) -> Floats:
    """Return `regression_log_e_value` at so many looks from the first on.

    Where no single alternative has gained enough for a level of 5 %, it is what the best one of them has: a mixture
    never has more, as its weights add up to 1.
    """
    definition = PLAN.definition(guardrail.metric)
    sums, margin = stream.sums[guardrail.metric], guardrail.amount
    more = definition.direction == "increase"
    slope = 1.0 - definition.sign * margin if guardrail.relative else 1.0
    drop = margin if not guardrail.relative or not more else 0.0
    good = sums.s if more else sums.units - sums.s
    bad = sums.units - good
    counts = np.stack([good[TREATMENT], bad[TREATMENT], good[CONTROL], bad[CONTROL]], axis=1)[:looks]
    gained = counts @ _gains(stream.share, slope, drop)
    log_e: Floats = gained.max(axis=1, initial=-np.inf)
    near = log_e >= -math.log(ALPHA) - _ROUNDING
    log_e[near] = logsumexp(gained[near] + np.log(_points(slope, drop).weights), axis=1)
    return log_e


@cache
def fewest_unwanted(bound: float, beyond: Side, alpha: float, most: int) -> Integers:
    """Return for each number of trials, 0 to `most`, the fewest unwanted outcomes that show a rate beyond the bound.

    "Unwanted" are failures for a rate that is claimed to be less, else successes. With one more of them in place of
    another outcome the evidence grows: each factor of the mixture does, as all its rates are beyond the bound.
    So the border is one number, and that of n trials is looked for from that of n - 1.
    """
    border = np.zeros(most + 1, dtype=np.int64)
    border[0] = 1
    at = 0
    for trials in range(1, most + 1):
        while at > 0 and _is_beyond(at - 1, trials, bound, beyond, alpha):
            at -= 1
        while at <= trials and not _is_beyond(at, trials, bound, beyond, alpha):
            at += 1
        border[trials] = at
    return border


def _is_beyond(unwanted: int, trials: int, bound: float, beyond: Side, alpha: float) -> bool:
    successes = trials - unwanted if beyond == "less" else unwanted
    log_e = rate_log_e_value(successes, trials, bound=bound, claim=beyond)
    return math.exp(-max(0.0, log_e)) <= alpha


def _is_score(definition: MetricDefinition) -> bool:
    return not definition.is_rate and definition.lowest is not None and definition.highest is not None


def _bounds(definition: MetricDefinition) -> tuple[float, float]:
    assert definition.lowest is not None
    assert definition.highest is not None
    return definition.lowest, definition.highest


def _has_few(sums: Sums) -> Bools:
    """Say at which looks the store sends the single units along."""
    few: Bools = np.any((sums.units > 0) & (sums.units < FEW_SINGLE_UNITS), axis=0)
    return few


def _worse_side(guardrail: Guardrail, definition: MetricDefinition) -> Side:
    if guardrail.is_absolute:
        return "less" if guardrail.kind == "at_least" else "greater"
    return "less" if definition.direction == "increase" else "greater"


def _mean(sums: Sums, arm: int) -> tuple[Floats, Floats]:
    """Return the ratio and its variance, as `ratio_mean` does."""
    units, n, s, rr, nn, rn = (column[arm] for column in sums[1:])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = s / n
        offset = ratio - sums.center
        residual = rr - 2.0 * offset * rn + offset * offset * nn
        rounding = 1e-12 * (rr + offset * offset * nn)
        residual = np.where(residual <= rounding, 0.0, residual)
        return ratio, units / (units - 1.0) * residual / n / n


def _rate_variance(rate: Floats, variance: Floats, at: float) -> Floats:
    """Return the variance of a rate where it is `at`, as `rate_variance` does."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return variance * np.maximum(1.0, at * (1.0 - at) / (rate * (1.0 - rate)))


def _one_sided_log_e(claim: Claim, alpha: float) -> Floats:
    growth = claim.units * tuning(PLAN.tuning_units, 2.0 * alpha) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        exponent = claim.z**2 * growth / (2.0 * (growth + 1.0))
        log_e = math.log(2.0) + exponent + np.log(-np.expm1(-exponent)) - 0.5 * np.log1p(growth)
    return np.where(np.isfinite(claim.z) & (claim.z > 0.0), log_e, -np.inf)


def _two_sided_log_e(claim: Claim, alpha: float) -> Floats:
    growth = claim.units * tuning(PLAN.tuning_units, alpha) ** 2
    log_e = claim.z**2 * growth / (2.0 * (growth + 1.0)) - 0.5 * np.log1p(growth)
    return np.where(np.isfinite(claim.z), log_e, -np.inf)


def is_shown(log_e: Floats, alpha: float) -> Bools:
    """Say where the evidence is at least 1/alpha, or so near it that rounding might have it so."""
    return log_e >= -math.log(alpha) - _ROUNDING
