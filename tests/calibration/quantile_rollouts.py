"""Whole streams guarded by the 95th percentile of response times."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from promptab.analysis.analyzing import analyze
from promptab.analysis.inference import FEW_SEQUENTIAL_UNITS
from promptab.decisions.deciding import decide
from promptab.decisions.decision import Action, DecisionState
from promptab.stats.quantile import QuantileArm, quantile_arm
from promptab.stats.sequential import half_width
from tests.calibration.outcomes import BASE, Bools, Events, Floats, Integers, Population, draw, quantile_se
from tests.calibration.rollouts import Watched
from tests.calibration.streams import CORRELATION, PLAN, Stream, Totals
from tests.calibration.sums import ARMS
from tests.calibration.tally import ALPHA, Tally
from tests.calibration.verdicts import CARELESS_UNITS, CARELESS_Z, CONTROL, TREATMENT, Watch
from tests.outcomes import NOON, START, evidence_of

UNITS = 5_000
"""Of both arms at the end of a stream."""
EVERY, SPARSE, DENSE_UNITS = 5, 50, 1_000
"""A look after every 5 units, and after every 50 once there are 1,000: a percentile takes long."""

_METRIC = "p95_response_time"
_SHARE = 0.95
_LARGE = 0.8
_SCREENED = 0.4
"""A look is left out where the standard error would have to be less than this share of the true one for a failure."""

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


def quantile_rollouts(events: int, *, runs: int, seed: int, units: int = UNITS) -> Tally:
    """Count the wrong rollbacks and promotions where both arms are alike, under a bound and beside the control.

    "LABEL: careless" are those in which a one-sided z test with the true standard error alarms at any look.
    """
    generator = np.random.default_rng(seed)
    population = Population(_METRIC, events, CORRELATION if events > 1 else 0.0)
    single_se = quantile_se(population, _SHARE)
    tally = Tally()
    for _ in range(runs):
        treated = generator.random(units) < 0.5
        drawn = draw(generator, population, np.full((1, units), BASE[_METRIC]))
        totals = Totals(drawn.per_unit(drawn.weights)[0], drawn.per_unit(drawn.values)[0])
        stream = Stream.of(treated, {"response_time": totals}, share=0.5, every=EVERY)
        arms = [_percentiles(drawn, dealt, stream) for dealt in (~treated, treated)]
        better = Watch(stream).better("response_time")
        found: set[str] = set()
        values = _values(stream, arms)
        for one in (BEHIND_BOUND, BESIDE_CONTROL):
            z = _true_z(stream, arms, values, single_se, bounded=one is BEHIND_BOUND)
            action = _first_action(
                stream, arms, one, better | _is_hopeful(stream, z, bounded=one is BEHIND_BOUND)
            )
            if action is not None:
                found.add(f"{one.label}: {action}")
            enough = stream.sums["response_time"].units.min(axis=0) >= CARELESS_UNITS
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
    return _Percentiles(values, owners[chosen], events, values[is_large], large_events, {})


def _values(stream: Stream, arms: list[_Percentiles]) -> Floats:
    """Return the percentile of each arm at each look that is taken, arms by looks; nan elsewhere."""
    values = np.full((len(arms), stream.looks), np.nan)
    for look in looks(stream):
        if all(arm.events[look] for arm in arms):
            values[:, look] = [arm.value(look) for arm in arms]
    return values


def _true_z(
    stream: Stream, arms: list[_Percentiles], values: Floats, single_se: float, *, bounded: bool
) -> Floats:
    """Return how many true standard errors the treatment is beyond what it is held against; -inf at other looks."""
    against = BASE[_METRIC] if bounded else values[CONTROL]
    of_control, of_treatment = (arm.events.astype(np.float64) for arm in arms)
    with np.errstate(divide="ignore"):
        shares = 1.0 / of_treatment + (0.0 if bounded else 1.0 / of_control)
        z = (values[TREATMENT] - against) / (single_se * np.sqrt(shares))
    return np.where(np.isnan(z), -np.inf, z)


def _is_hopeful(stream: Stream, z: Floats, *, bounded: bool) -> Bools:
    units = stream.sums["response_time"].units
    reach = [
        half_width(1.0, max(count, 1.0), tuning_units=PLAN.tuning_units, alpha=ALPHA, one_sided=True)
        for count in (units[TREATMENT] if bounded else units.sum(axis=0)).tolist()
    ]
    # fewer units than that are never read
    enough = (units[TREATMENT] if bounded else units.min(axis=0)) >= FEW_SEQUENTIAL_UNITS
    hopeful: Bools = enough & (z >= _SCREENED * np.array(reach))
    return hopeful


def _first_action(stream: Stream, arms: list[_Percentiles], one: Watched, hopeful: Bools) -> Action | None:
    for look in looks(stream):
        if hopeful[look]:
            action = action_at(stream, arms, one, look)
            if action in {"rollback", "promote"}:
                return action
    return None


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
