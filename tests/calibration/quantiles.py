"""Whole experiments on the 95th percentile of response times, read at the end and at every look."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from promptab.analysis.evidence import MetricEvidence
from promptab.analysis.inference import Arms, arms_of, critical, find
from promptab.plan import AnalysisPlan
from promptab.stats.metric import BUILT_IN_METRICS
from promptab.stats.quantile import QuantileArm, quantile_arm
from tests.calibration.experiments import (
    CONFIDENCE,
    ENOUGH,
    PLANS,
    Setting,
    drawn,
    named,
    sequential_findings,
)
from tests.calibration.outcomes import Bools, Events, Floats, Integers, quantile_se
from tests.calibration.schedule import DAYS
from tests.calibration.sums import ARMS, CONTROL, TREATMENT
from tests.calibration.tally import Tally

_SCREENED_FEW, _SCREENED = 0.2, 0.4
"""A look is left out where it would have to come to a standard error of less than this share of the true one to find
anything, below `_SETTLED` units in an arm and from there on: most looks are like that, and a bootstrap is dear."""
_SETTLED = 100
_CHECKED = 0.01
"""Share of the looks left out that are worked out all the same, to see that nothing was missed."""

_METRIC = "p95_response_time"
_SHARE = 0.95


class _Stream(NamedTuple):
    """The events of one arm and epoch in the order of their days."""

    values: Floats
    units: Integers
    events_by_day: Integers
    """Up to the end of each day."""
    units_by_day: Integers

    def arm(self, day: int) -> QuantileArm:
        n = self.events_by_day[day]
        return quantile_arm(self.values[:n], self.units[:n], _SHARE)

    def arm_of_events(self) -> QuantileArm:
        """The arm at the end, were each event a unit."""
        return quantile_arm(self.values, np.arange(self.values.size), _SHARE)

    def value(self, day: int) -> float:
        n = int(self.events_by_day[day])
        rank = math.ceil(n * _SHARE)
        return float(np.partition(self.values[:n], rank - 1)[rank - 1])


_Streams = dict[str, dict[int, _Stream]]


def simulate_quantile(setting: Setting, runs: int, seed: int) -> Tally:
    """Run experiments and count as `experiments.simulate` does, but for "peeking".

    "checked" counts looks that were screened and worked out all the same, "wrongly screened" those of them that
    would have found a difference or missed the effect.
    """
    generator = np.random.default_rng([seed, 1])
    single_se = quantile_se(setting.population, _SHARE)
    tally = Tally()
    for events, treated, days in drawn(setting, runs, seed):
        ends = events.per_unit(np.ones_like(events.values)).sum(axis=1).cumsum().astype(np.int64)
        for experiment, end in enumerate(ends):
            start = ends[experiment - 1] if experiment else 0
            streams = _streams(setting, events, treated, days, experiment, slice(start, end))
            arms = _arms(streams, DAYS - 1)
            found = named("fixed", find("fixed", arms, AnalysisPlan(), CONFIDENCE), setting.effect)
            found |= _taken_wrong(streams, setting)
            # from the last day back: the looks that find most come first, and fewer are worth the work after them
            for day in reversed(range(DAYS)):
                hopeless = _is_hopeless(streams, day, setting, single_se, found)
                if hopeless and generator.random() >= _CHECKED:
                    continue
                at_look = sequential_findings(
                    _arms(streams, day), _fewest_units(streams, day), setting.effect
                )
                if hopeless:
                    tally.counts.update(["checked"] + ["wrongly screened"] * bool(at_look - found))
                found |= at_look
            tally.add(found, arms.contrast.se or 0.0)
    return tally


def _streams(
    setting: Setting, events: Events, treated: Bools, days: Integers, experiment: int, place: slice
) -> _Streams:
    counts = events.counts[experiment]
    owners = np.repeat(np.arange(counts.size), counts)
    first = np.zeros(owners.size, dtype=np.bool_)
    first[counts.cumsum() - counts] = True
    epochs = setting.schedule.epoch_of_units()[owners]
    order = np.argsort(days[place], kind="stable")
    by_arm = {CONTROL: ~treated[experiment][owners], TREATMENT: treated[experiment][owners]}
    streams: _Streams = {arm: {} for arm in ARMS}
    for arm, dealt in by_arm.items():
        for epoch in setting.schedule.epoch_numbers:
            chosen = order[(dealt & (epochs == epoch))[order]]
            until = np.searchsorted(days[place][chosen], np.arange(DAYS), side="right")
            running = np.append(0, first[chosen].cumsum())
            streams[arm][epoch] = _Stream(events.values[place][chosen], owners[chosen], until, running[until])
    return streams


def _taken_wrong(streams: _Streams, setting: Setting) -> set[str]:
    """Read the end as if each event were a unit, and as if all epochs were one."""
    wrong: dict[str, dict[str, dict[int, QuantileArm]]] = {}
    if setting.population.events > 1:
        wrong["events"] = {
            arm: {epoch: stream.arm_of_events() for epoch, stream in by_epoch.items()}
            for arm, by_epoch in streams.items()
        }
    if len(setting.schedule.epoch_numbers) > 1:
        wrong["pooled"] = {arm: {0: _mixed(list(by_epoch.values()))} for arm, by_epoch in streams.items()}
    found = set()
    for name, quantiles in wrong.items():
        arms = _side_by_side(quantiles)
        found |= named(name, find("fixed", arms, AnalysisPlan(), CONFIDENCE), setting.effect)
    return found


def _mixed(streams: Sequence[_Stream]) -> QuantileArm:
    values, units = (
        np.concatenate([getattr(stream, part) for stream in streams]) for part in ("values", "units")
    )
    return quantile_arm(values, units, _SHARE)


def _is_hopeless(streams: _Streams, day: int, setting: Setting, single_se: float, found: set[str]) -> bool:
    """Say whether a look is left out: all that it might find was found already, or an arm has nobody yet.

    `single_se` over the square root of a number of events is the true standard error of their quantile.
    """
    used = [
        pair
        for epoch in setting.schedule.epoch_numbers
        for pair in [(streams[TREATMENT][epoch], streams[CONTROL][epoch])]
        if all(stream.events_by_day[day] for stream in pair)
    ]
    if not used:
        return True
    units = [sum(int(stream.units_by_day[day]) for stream in pair) for pair in used]
    difference = variance = 0.0
    for pair, of_epoch in zip(used, units, strict=True):
        weight = of_epoch / sum(units)
        for sign, stream in zip((1.0, -1.0), pair, strict=True):
            difference += sign * weight * stream.value(day)
            variance += (weight * single_se) ** 2 / float(stream.events_by_day[day])
    settled = min(int(stream.units_by_day[day]) for pair in used for stream in pair) >= _SETTLED
    possible = set()
    for name, plan in PLANS.items():
        reach = critical("sequential", plan, CONFIDENCE, units=sum(units), df=math.inf)
        needed = (_SCREENED if settled else _SCREENED_FEW) * reach * math.sqrt(variance)
        for suffix, distance in (("", difference), (" missed", difference - setting.effect)):
            if abs(distance) > needed:
                possible |= {f"{name}{suffix}", f"{name}{ENOUGH}{suffix}"}
    return possible <= found


def _fewest_units(streams: _Streams, day: int) -> int:
    return min(sum(int(stream.units_by_day[day]) for stream in streams[arm].values()) for arm in ARMS)


def _arms(streams: _Streams, day: int) -> Arms:
    return _side_by_side(
        {
            arm: {epoch: stream.arm(day) for epoch, stream in by_epoch.items()}
            for arm, by_epoch in streams.items()
        }
    )


def _side_by_side(quantiles: Mapping[str, Mapping[int, QuantileArm]]) -> Arms:
    return arms_of(MetricEvidence(BUILT_IN_METRICS[_METRIC], quantiles=quantiles), TREATMENT, CONTROL)
