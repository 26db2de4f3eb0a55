"""Whole experiments on metrics that are sums over units, read at the end and at every look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import numpy as np

from promptab.analysis.evidence import MetricEvidence
from promptab.analysis.inference import Arms, Finding, arms_of, find
from promptab.plan import AnalysisPlan
from promptab.stats.metric import BUILT_IN_METRICS
from promptab.stats.summary import UnitSums
from tests.calibration.outcomes import BASE, Bools, Events, Integers, Population, draw
from tests.calibration.schedule import DAYS, Schedule
from tests.calibration.sums import (
    ARMS,
    CONTROL,
    TREATMENT,
    UnitTotals,
    has_few_units,
    looks_of,
    pooled_over_epochs,
    sums_of_events,
)
from tests.calibration.tally import ALPHA, Tally

Visits = Literal["once", "again", "all along"]
"""A unit comes once, with all its events; or comes again with the later ones; or, like every other unit, is
there from the first day to the last."""

CONFIDENCE = 1.0 - ALPHA
# 1 - 0.95 is a little more than 0.05 in doubles.
_LEVEL = ALPHA * (1.0 + 1e-12)

PLANS: Mapping[str, AnalysisPlan] = {
    "anytime": AnalysisPlan(),
    "anytime, tuned": AnalysisPlan(tuning_units=1_000),
}
"""The default, and one that is sharpest at the size that these experiments come to."""

ENOUGH = " from 100 units"
"""Only looks at which both arms have the units that a winner needs."""

# Held in memory at a time.
_EVENTS = 1_500_000


class Setting(NamedTuple):
    """One kind of experiment."""

    population: Population
    schedule: Schedule
    effect: float = 0.0
    """Treatment minus control, in the metric's own unit."""
    visits: Visits = "once"


def simulate(setting: Setting, runs: int, seed: int) -> Tally:
    """Run experiments and count in how many of them a difference was found.

    "fixed" is at the end, by the fixed horizon; the names of `PLANS` are at any of the 28 looks, with `ENOUGH` at
    fewer; "peeking" is a t test at any look; "events" is the fixed horizon were each event a unit, and "pooled"
    were all epochs one. With " missed" a name counts the experiments in which an interval was beside the effect.
    """
    definition = BUILT_IN_METRICS[setting.population.metric]
    center = BASE[setting.population.metric]
    tally = Tally()
    for events, treated, days in drawn(setting, runs, seed):
        totals = (
            UnitTotals.on_arrival(events, treated)
            if setting.visits == "once"
            else UnitTotals.spread(events, days, treated)
        )
        every = looks_of(totals.sums(setting.schedule, center))
        by_event = looks_of(sums_of_events(events, treated, setting.schedule, center))
        for experiment, looks in enumerate(every):
            found: set[str] = set()
            for day, look in enumerate(looks):
                units = (
                    totals.single_units(setting.schedule, experiment, day) if has_few_units(look) else None
                )
                arms = arms_of(MetricEvidence(definition, look, units), TREATMENT, CONTROL)
                fewest = min(UnitSums.pooled(look[arm].values()).units for arm in ARMS)
                found |= sequential_findings(arms, fewest, setting.effect)
                found |= named("peeking", _t_test(arms), setting.effect)
            found |= named("fixed", find("fixed", arms, AnalysisPlan(), CONFIDENCE), setting.effect)
            taken_wrong = {"events": by_event[experiment][0]}
            if len(setting.schedule.epoch_numbers) > 1:
                taken_wrong["pooled"] = pooled_over_epochs(looks[-1])
            for name, look in taken_wrong.items():
                wrong = arms_of(MetricEvidence(definition, look), TREATMENT, CONTROL)
                found |= named(name, _t_test(wrong), setting.effect)
            tally.add(found, arms.contrast.se or 0.0)
    return tally


def drawn(setting: Setting, runs: int, seed: int) -> Iterator[tuple[Events, Bools, Integers]]:
    """Yield experiments by the batch: their events, who is treated, and the day of each event."""
    generator = np.random.default_rng(seed)
    population, schedule = setting.population, setting.schedule
    batch = max(1, _EVENTS // (schedule.units * population.events))
    for start in range(0, runs, batch):
        treated = schedule.deal(generator, min(batch, runs - start))
        expected = schedule.expected(BASE[population.metric], setting.effect, treated)
        events = draw(generator, population, expected)
        yield events, treated, _days_of_events(generator, events.counts, setting)


def sequential_findings(arms: Arms, fewest_units: int, effect: float) -> set[str]:
    """Return what one look at the confidence sequences comes to; the smaller arm has `fewest_units`."""
    found: set[str] = set()
    for name, plan in PLANS.items():
        finding = find("sequential", arms, plan, CONFIDENCE)
        found |= named(name, finding, effect)
        if fewest_units >= plan.minimum_units:
            found |= named(name + ENOUGH, finding, effect)
    return found


def named(name: str, finding: Finding, effect: float) -> set[str]:
    """Return the name if a difference is found, and with " missed" if the interval is beside the effect."""
    found = set()
    if finding.p_value is not None and finding.p_value <= _LEVEL:
        found.add(name)
    if finding.interval is not None and finding.interval.excludes(effect):
        found.add(f"{name} missed")
    return found


def _t_test(arms: Arms) -> Finding:
    """Read the difference as a large experiment is read, whatever its size."""
    return find("fixed", Arms(arms.contrast, arms.direction), AnalysisPlan(), CONFIDENCE)


def _days_of_events(generator: np.random.Generator, counts: Integers, setting: Setting) -> Integers:
    """Deal the events of a unit to the days from its arrival on, the first one to that day itself."""
    arrivals = np.broadcast_to(setting.schedule.arrivals, counts.shape).ravel()
    if setting.visits == "all along":
        arrivals = np.zeros_like(arrivals)
    days = np.repeat(arrivals, counts.ravel())
    if setting.visits == "once":
        return days
    waited: Integers = (generator.random(days.size) * (DAYS - days)).astype(np.int64)
    waited[counts.ravel().cumsum() - counts.ravel()] = 0
    return days + waited
