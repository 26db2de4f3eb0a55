"""Few units: permutation, Barnard's test with Newcombe's interval, and betting on bounded scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.stats import binom

from promptab.analysis.evidence import MetricEvidence
from promptab.analysis.inference import FEW_UNITS, Arms, arms_of, find
from promptab.plan import AnalysisPlan
from promptab.stats.betting import betting_difference
from promptab.stats.fixed import t_p_value
from promptab.stats.metric import BUILT_IN_METRICS
from promptab.stats.proportion import newcombe_interval
from promptab.stats.ratio import ratio_contrast, ratio_mean
from promptab.stats.summary import UnitSums
from tests.calibration.experiments import CONFIDENCE, named
from tests.calibration.outcomes import BASE, Floats, Population, draw
from tests.calibration.schedule import DAYS
from tests.calibration.sums import ARMS, CONTROL, TREATMENT
from tests.calibration.tally import ALPHA, Tally


def few_units(
    population: Population, treated: int, untreated: int, *, runs: int, seed: int, effect: float = 0.0
) -> Tally:
    """Count the findings with this many units in the arms, at a fixed horizon.

    "fixed" is what the analysis does, with " missed" where its interval is beside the effect; "t" is the t test
    that it does not trust at this size; "plain Welch" is Welch's, to which an arm of equal units is certain.
    """
    generator = np.random.default_rng(seed)
    definition = BUILT_IN_METRICS[population.metric]
    tally = Tally()
    for _ in range(runs):
        totals = {}
        for arm, units in ((CONTROL, untreated), (TREATMENT, treated)):
            level = BASE[population.metric] + (effect if arm == TREATMENT else 0.0)
            events = draw(generator, population, np.full((1, units), level))
            n, s = events.per_unit(events.weights)[0], events.per_unit(events.values)[0]
            totals[arm] = list(zip(n.tolist(), s.tolist(), strict=True))
        sums = {arm: {0: UnitSums.of(of_arm)} for arm, of_arm in totals.items()}
        single = {arm: {0: of_arm} for arm, of_arm in totals.items()}
        look = MetricEvidence(definition, sums, single if min(treated, untreated) < FEW_UNITS else None)
        arms = arms_of(look, TREATMENT, CONTROL)
        found = named("fixed", find("fixed", arms, AnalysisPlan(), CONFIDENCE), effect)
        by_t = Arms(arms.contrast, arms.direction)
        found |= named("t", find("fixed", by_t, AnalysisPlan(), CONFIDENCE), effect)
        if _plain_welch_p(sums[TREATMENT][0], sums[CONTROL][0]) <= ALPHA:
            found.add("plain Welch")
        tally.add(found, arms.contrast.se or 0.0)
    return tally


def exact_coverage(treated: int, untreated: int, *, effect: float) -> float:
    """Return the chance that Newcombe's interval holds the effect, with one event per unit: over all outcomes."""
    rate = BASE["success_rate"]
    chances = np.outer(
        binom.pmf(np.arange(treated + 1), treated, rate + effect),
        binom.pmf(np.arange(untreated + 1), untreated, rate),
    )
    covered = 0.0
    for (x1, x2), chance in np.ndenumerate(chances):
        interval = newcombe_interval(x1, treated, x2, untreated, confidence=CONFIDENCE)
        assert interval is not None
        covered += 0.0 if interval.excludes(effect) else float(chance)
    return covered


def _plain_welch_p(treatment: UnitSums, control: UnitSums) -> float:
    """Test with each arm's own variance, also where it is zero."""
    means = ratio_mean(treatment), ratio_mean(control)
    if means[0] is None or means[1] is None:
        return 1.0
    variance = means[0].variance + means[1].variance
    df = math.inf
    if variance > 0.0:
        df = variance**2 / sum(mean.variance**2 / (mean.units - 1) for mean in means if mean is not None)
    return t_p_value(means[0].value - means[1].value, math.sqrt(variance), df)


class Scores(NamedTuple):
    """What one unit may score, and how likely each score is in each arm."""

    values: tuple[float, ...]
    control: tuple[float, ...]
    treatment: tuple[float, ...]

    def draw(self, generator: np.random.Generator, arm: str, count: int) -> Floats:
        shares = self.control if arm == CONTROL else self.treatment
        scores: Floats = generator.choice(np.array(self.values), size=count, p=shares)
        return scores

    @property
    def effect(self) -> float:
        pairs = zip(self.values, self.treatment, self.control, strict=True)
        return sum(value * (treated - untreated) for value, treated, untreated in pairs)


STARS = (0.05, 0.05, 0.15, 0.35, 0.40)
SCORES: Mapping[str, tuple[Scores, Scores]] = {
    "success, 60 %": (
        Scores((0.0, 1.0), (0.4, 0.6), (0.4, 0.6)),
        Scores((0.0, 1.0), (0.4, 0.6), (0.1, 0.9)),
    ),
    "success, 95 %": (
        Scores((0.0, 1.0), (0.05, 0.95), (0.05, 0.95)),
        Scores((0.0, 1.0), (0.05, 0.95), (0.3, 0.7)),
    ),
    "rating, 1 to 5": (
        Scores((1.0, 2.0, 3.0, 4.0, 5.0), STARS, STARS),
        Scores((1.0, 2.0, 3.0, 4.0, 5.0), STARS, (0.25, 0.25, 0.20, 0.20, 0.10)),
    ),
}
"""Without an effect, and with one."""


def bets(scores: Scores, *, per_day: int, runs: int, seed: int) -> Tally:
    """Count the findings of betting confidence sequences at any of 28 daily looks, and of a t test at any.

    `per_day` units arrive in each arm each day, with one score each.
    """
    generator = np.random.default_rng(seed)
    low, high = scores.values[0], scores.values[-1]
    tally = Tally()
    for _ in range(runs):
        seen = {arm: scores.draw(generator, arm, per_day * DAYS) for arm in ARMS}
        found = set()
        for day in range(1, DAYS + 1):
            control, treatment = (seen[arm][: per_day * day] for arm in ARMS)
            difference = betting_difference(treatment, control, low=low, high=high, confidence=CONFIDENCE)
            if difference.p_value <= ALPHA:
                found.add("betting")
            if not difference.low <= scores.effect <= difference.high:
                found.add("betting missed")
            if _t_p(treatment, control) <= ALPHA:
                found.add("t")
        tally.add(found)
    return tally


def _t_p(treatment: Floats, control: Floats) -> float:
    sums = [{0: UnitSums.of([(1.0, score) for score in arm.tolist()])} for arm in (treatment, control)]
    contrast = ratio_contrast(*sums)
    if contrast.value is None or not contrast.se or contrast.df is None:
        return 1.0
    return t_p_value(contrast.value, contrast.se, contrast.df)
