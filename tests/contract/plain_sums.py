"""The sums over units once more, in the plainest way: from the events, one by one, in Python."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import pytest

from promptab.models import Exposure, MetricEvent
from promptab.stats.metric import MetricDefinition
from promptab.stats.summary import UnitSums

ANALYSED = {"assigned", "reported", "alias"}


class Pair(NamedTuple):
    """A unit that counts in a metric, and its (n, s)."""

    exposure: Exposure
    n: float
    s: float


class History(NamedTuple):
    """Everything that was told: what the sums are made from."""

    events: Sequence[MetricEvent]
    exposures: Sequence[Exposure]
    aliases: Mapping[str, str]
    overrides: Mapping[str, str]

    def members(self) -> list[Exposure]:
        """The units that are analysed, in the order of exposure."""
        found = [
            exposure
            for exposure in self.exposures
            if exposure.source in ANALYSED
            and exposure.unit not in self.aliases
            and not {exposure.unit, "*"} & set(self.overrides)
        ]
        return sorted(found, key=lambda exposure: (exposure.at, exposure.unit))

    def events_of(self, unit: str) -> list[MetricEvent]:
        """All events of a unit and of the sessions that turned out to be it."""
        return [
            event
            for event in self.events
            if event.user_id is not None and self.aliases.get(event.user_id, event.user_id) == unit
        ]


def own_events(history: History, exposure: Exposure) -> list[MetricEvent]:
    return [
        event
        for event in history.events_of(exposure.unit)
        if event.experiment_id == exposure.experiment_id and event.variant in {None, exposure.variant}
    ]


def carried(events: Iterable[MetricEvent], measure: str, cap: float | None = None) -> list[float]:
    found = []
    for event in events:
        values = {
            "success_rate": event.success,
            "error_rate": None if event.success is None else not event.success,
            "response_time": event.response_time,
            "tokens": event.tokens.total if event.tokens else None,
            "cost": event.cost,
            "rating": event.user_rating,
        }
        value = values[measure] if measure in values else event.metrics.get(measure)
        if value is not None:
            found.append(float(value) if cap is None else min(float(value), cap))
    return found


def unit_pair(events: Sequence[MetricEvent], metric: MetricDefinition) -> tuple[float, float] | None:
    """Return a unit's (n, s), or None where it does not count."""
    source = metric.source
    match metric.kind:
        case "mean_per_unit":
            total = sum(carried(events, source))
            return 1.0, total if metric.cap is None else min(total, metric.cap)
        case "share_of_units":
            return 1.0, float(sum(carried(events, source)) > 0)
        case "ratio":
            over = carried(events, source, metric.cap)
            under = carried(events, metric.denominator or "")
            return (sum(under), sum(over)) if over or under else None
        case _:
            values = carried(events, source, metric.cap)
            return (float(len(values)), sum(values)) if values else None


EventsOf = Callable[[History, Exposure], list[MetricEvent]]


def pairs(history: History, metric: MetricDefinition, *, events_of: EventsOf = own_events) -> list[Pair]:
    """Return the units that count in the metric, in the order of exposure."""
    found = []
    for exposure in history.members():
        pair = unit_pair(events_of(history, exposure), metric)
        if pair is not None:
            found.append(Pair(exposure, *pair))
    return found


def unit_sums(counted: Iterable[Pair]) -> dict[str, dict[int, UnitSums]]:
    """Add up by variant and epoch."""
    groups: dict[tuple[str, int], list[Pair]] = {}
    for pair in counted:
        groups.setdefault((pair.exposure.variant, pair.exposure.epoch), []).append(pair)
    sums: dict[str, dict[int, UnitSums]] = {}
    for (variant, epoch), group in groups.items():
        # a unit with n = s = 0 may count, and adds to nothing but the count
        part = UnitSums.of(((pair.n, pair.s) for pair in group), center=0.0)
        sums.setdefault(variant, {})[epoch] = part._replace(units=len(group))
    return sums


def assert_same(
    measured: Mapping[str, Mapping[int, UnitSums]], expected: Mapping[str, Mapping[int, UnitSums]]
) -> None:
    """Compare whatever they are about.

    Rounding: a few dozen events of up to 1e6 leave a residual off by about 1e-9, and its square by that times
    the residual.
    """
    assert {v: set(epochs) for v, epochs in measured.items()} == {v: set(e) for v, e in expected.items()}
    for variant, by_epoch in expected.items():
        for epoch, sums in by_epoch.items():
            found = measured[variant][epoch]
            about = sums.recentered(found.center)
            assert found.units == about.units
            assert found.n == pytest.approx(about.n, rel=1e-12, abs=1e-9)
            assert found.s == pytest.approx(about.s, rel=1e-12, abs=1e-9)
            scale = abs(about.rr) + abs(found.center) ** 2 * about.nn
            assert found.nn == pytest.approx(about.nn, rel=1e-9, abs=1e-6)
            assert found.rr == pytest.approx(about.rr, rel=1e-9, abs=1e-9 * scale + 1e-6)
            assert found.rn == pytest.approx(about.rn, rel=1e-9, abs=1e-9 * scale + 1e-6)
