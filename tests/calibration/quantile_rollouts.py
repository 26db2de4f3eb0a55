"""Whole streams guarded by the 95th percentile of response times."""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.special import betainc

from promptab.analysis.analyzing import analyze
from promptab.analysis.inference import FEW_SEQUENTIAL_UNITS
from promptab.decisions.deciding import decide
from promptab.decisions.decision import Action, DecisionState
from promptab.stats.quantile import _UNITS_BEYOND, QuantileArm, quantile_arm
from promptab.stats.sequential import half_width
from tests.calibration.outcomes import BASE, Bools, Events, Floats, Integers, Population, draw, quantile_se
from tests.calibration.rollouts import Watched
from tests.calibration.streams import CORRELATION, PLAN, Stream, Totals
from tests.calibration.sums import ARMS
from tests.calibration.tally import ALPHA, Tally
from tests.calibration.verdicts import CARELESS_UNITS, CARELESS_Z, CONTROL, TREATMENT, Watch
from tests.outcomes import NOON, START, evidence_of

UNITS = 20_000
"""Of both arms at the end of a stream."""
EVERY, SPARSE, DENSE_UNITS = 5, 50, 1_000
"""A look after every 5 units, and after every 50 once there are 1,000: a percentile takes long."""

_METRIC = "p95_response_time"
_SHARE, _LARGE = 0.95, 0.8
_SCREENED = 0.4
"""A look is left out where the standard error would have to be less than this share of the true one for a failure."""
_DRAWN, _NEAR = 0.8, 0.97
"""So is one where the estimate is less than _NEAR times what a failure takes, by the standard error that the analysis
has; where that is by 1,000 bootstrap draws, by _DRAWN times what infinitely many would come to."""

BEHIND_BOUND = Watched("response_time", (f"{_METRIC} <= {BASE[_METRIC]:g}",))
BESIDE_CONTROL = Watched("response_time", (f"{_METRIC} <= control",))


class _Percentiles(NamedTuple):
    """The response times of one arm in order of arrival."""

    values: Floats
    owners: Integers
    events: Integers
    """Up to each look."""
    large: Floats
    """Those of the response times that are among the largest fifth of all: the percentile nearly always is."""
    large_events: Integers
    """Up to each look."""
    is_single: bool
    """Whether each unit has one."""
    worked_out: dict[int, QuantileArm]
    """By look: both guardrails ask for the same."""

    def value(self, look: int) -> float:
        n = int(self.events[look])
        from_above = n - math.ceil(n * _SHARE) + 1
        largest = self.large[: self.large_events[look]]
        values = largest if from_above <= largest.size else self.values[:n]
        return float(np.partition(values, values.size - from_above)[values.size - from_above])

    def arm(self, look: int) -> QuantileArm:
        n = self.events[look]
        if look not in self.worked_out:
            self.worked_out[look] = quantile_arm(self.values[:n], self.owners[:n], _SHARE)
        return self.worked_out[look]

    def least_variance(self, look: int) -> float:
        """Return what the analysis takes the variance for, or less where that takes long to work out."""
        n = int(self.events[look])
        if self.is_single and n - math.ceil(n * _SHARE) + 1 < _UNITS_BEYOND:
            return _DRAWN * _DRAWN * resampled_variance(self.values[:n])
        return self.arm(look).variance or 0.0


def resampled_variance(values: Floats) -> float:
    """Return the variance that the percentile of independent values has by the bootstrap, without drawing: of an order
    statistic of values drawn with replacement (Maritz & Jarrett, JASA 73, 1978).
    """
    n = values.size
    weights, ordered = _order_weights(n), np.sort(values)
    deviations = ordered - weights @ ordered
    return float(weights @ (deviations * deviations)) * n / (n - 1)


@cache
def _order_weights(n: int) -> Floats:
    rank = math.ceil(n * _SHARE)
    weights: Floats = np.diff(betainc(rank, n - rank + 1, np.arange(n + 1) / n))
    return weights


def quantile_rollouts(events: int, *, runs: int, seed: int, units: int = UNITS) -> Tally:
    """Count the wrong rollbacks and promotions where both arms are alike, under a bound and beside the control.

    "LABEL: careless" are those in which a one-sided z test with the true standard error alarms at any look.
    """
    generator = np.random.default_rng(seed)
    population = Population(_METRIC, events, CORRELATION if events > 1 else 0.0)
    single_se = quantile_se(population, _SHARE)
    tally = Tally()
    for _ in range(runs):
        watched = WatchedPercentile.drawn(generator, population, units)
        found: set[str] = set()
        for one in (BEHIND_BOUND, BESIDE_CONTROL):
            z = watched.true_z(single_se, bounded=one is BEHIND_BOUND)
            acted = watched.first_action(one, z)
            if acted is not None:
                found.add(f"{one.label}: {acted[1]}")
            enough = watched.stream.sums["response_time"].units.min(axis=0) >= CARELESS_UNITS
            if (enough & (z >= CARELESS_Z)).any():
                found.add(f"{one.label}: careless")
        tally.add(found)
    return tally


def looks(stream: Stream) -> list[int]:
    """Return the looks that are taken."""
    every = range(stream.looks)
    return [look for look in every if (look + 1) * EVERY <= DENSE_UNITS or (look + 1) * EVERY % SPARSE == 0]


def _percentiles(drawn: Events, dealt: Bools, stream: Stream) -> _Percentiles:
    counts = drawn.counts[0]
    owners = np.repeat(np.arange(counts.size), counts)
    chosen = dealt[owners]
    values = drawn.values[chosen]
    events = (counts * dealt).cumsum()[stream.every - 1 :: stream.every]
    is_large = values >= np.quantile(values, _LARGE)
    large_events = np.concatenate([[0], is_large.cumsum()])[events]
    is_single = bool(counts.max() == 1)
    return _Percentiles(values, owners[chosen], events, values[is_large], large_events, is_single, {})


class WatchedPercentile:
    """One stream, and at which of its looks to ask."""

    def __init__(self, stream: Stream, arms: list[_Percentiles]) -> None:
        self.stream = stream
        self.arms = arms
        self.values = np.full((len(arms), stream.looks), np.nan)
        """The percentile of each arm at each look that is taken, arms by looks."""
        for look in looks(stream):
            if all(arm.events[look] for arm in arms):
                self.values[:, look] = [arm.value(look) for arm in arms]

    @classmethod
    def drawn(
        cls, generator: np.random.Generator, population: Population, units: int, *, slower: float = 1.0
    ) -> WatchedPercentile:
        """Deal units at 50/50; response times of the treatment are `slower` times as long."""
        treated = generator.random(units) < 0.5
        expected = BASE[_METRIC] * np.where(treated, slower, 1.0)[np.newaxis]
        drawn = draw(generator, population, expected)
        totals = Totals(drawn.per_unit(drawn.weights)[0], drawn.per_unit(drawn.values)[0])
        stream = Stream.of(treated, {"response_time": totals}, share=0.5, every=EVERY)
        return cls(stream, [_percentiles(drawn, dealt, stream) for dealt in (~treated, treated)])

    def true_z(self, single_se: float, *, bounded: bool) -> Floats:
        """Return how many true standard errors the treatment is beyond what it is held against; -inf at other looks."""
        of_control, of_treatment = (arm.events.astype(np.float64) for arm in self.arms)
        with np.errstate(divide="ignore"):
            shares = 1.0 / of_treatment + (0.0 if bounded else 1.0 / of_control)
            z = self._beyond(bounded=bounded) / (single_se * np.sqrt(shares))
        return np.where(np.isnan(z), -np.inf, z)

    def first_action(self, one: Watched, true_z: Floats) -> tuple[int, Action] | None:
        """Return the first look at which something is rolled back or promoted, and which of the two it is."""
        bounded = one is BEHIND_BOUND
        better = Watch(self.stream).better("response_time")
        reach = self._reach(bounded=bounded)
        for look in looks(self.stream):
            hopeful = true_z[look] >= _SCREENED * reach[look] and self._is_near(look, reach, bounded=bounded)
            if better[look] or hopeful:
                action = action_at(self.stream, self.arms, one, look)
                if action in {"rollback", "promote"}:
                    return look, action
        return None

    def _beyond(self, *, bounded: bool) -> Floats:
        beyond: Floats = self.values[TREATMENT] - (BASE[_METRIC] if bounded else self.values[CONTROL])
        return beyond

    def _reach(self, *, bounded: bool) -> Floats:
        """Return how many standard errors a failure takes, at each look; infinitely many where units are too few."""
        units = self.stream.sums["response_time"].units
        reach = [
            half_width(1.0, max(count, 1.0), tuning_units=PLAN.tuning_units, alpha=ALPHA, one_sided=True)
            for count in (units[TREATMENT] if bounded else units.sum(axis=0)).tolist()
        ]
        # fewer units than that are never read
        enough = (units[TREATMENT] if bounded else units.min(axis=0)) >= FEW_SEQUENTIAL_UNITS
        return np.where(enough, reach, np.inf)

    def _is_near(self, look: int, reach: Floats, *, bounded: bool) -> bool:
        variances = [arm.least_variance(look) for arm in (self.arms[TREATMENT:] if bounded else self.arms)]
        # an arm without a spread, or of which none is known, takes another's: then the analysis is asked
        se = math.sqrt(sum(variances)) if all(variances) else 0.0
        return bool(self._beyond(bounded=bounded)[look] >= _NEAR * reach[look] * se)


def action_at(stream: Stream, arms: list[_Percentiles], one: Watched, look: int) -> Action:
    """Analyse and decide as at this look."""
    sums = {key: {0: stream.sums["response_time"].at(arm, look)} for arm, key in enumerate(ARMS)}
    quantiles = {key: {0: arm.arm(look)} for key, arm in zip(ARMS, arms, strict=True)}
    evidence = evidence_of(
        {"response_time": sums},
        one.policy,
        primary_metric="response_time",
        plan=PLAN,
        exposed=dict(zip(ARMS, stream.exposed(look).tolist(), strict=True)),
        quantiles={_METRIC: quantiles},
    )
    return decide(
        analyze(evidence, policy=one.policy), one.policy, NOON, DecisionState(started_at=START)
    ).action
