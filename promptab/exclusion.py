"""Which experiment a unit is in where several may not share it: by layer, or because they are on one prompt.

The earliest claim holds: with constant traffic that of the experiment that started first. One whose traffic
grows later claims the units it gains from then on, and takes none away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from promptab.live_experiment import LiveExperiment, off_schedule, overridden

_ALWAYS = datetime.min.replace(tzinfo=UTC)
_Claim = tuple[datetime, int]
"""Since when an experiment claims a unit, and the experiment's place among those of one moment."""


class Exclusion:
    """The experiments of one snapshot, in the order of their start."""

    def __init__(self, experiments: Sequence[LiveExperiment]) -> None:
        self._place = {live.experiment.experiment_id: place for place, live in enumerate(experiments)}
        self._rivals = _rivals(experiments)
        self._unsteady = _unsteady(experiments)

    def rivals(self, live: LiveExperiment) -> Sequence[LiveExperiment]:
        """Return the other experiments that never share a unit with this one."""
        return self._rivals.get(live.experiment.experiment_id, ())

    def steady(self, live: LiveExperiment) -> bool:
        """Whether neither time nor attributes have a say in whether a unit is in the experiment or a rival of it."""
        return live.experiment.experiment_id not in self._unsteady

    def holder(
        self, live: LiveExperiment, unit: str, attributes: Mapping[str, Any], now: datetime
    ) -> LiveExperiment | None:
        """Return the other experiment that the unit is in at this time, if any."""
        claim = self._claim(live, unit, attributes, now)
        if claim is None:
            return None
        before = (r for r in self.rivals(live) if self._goes_before(r, claim, unit, attributes, now))
        return next(before, None)

    def _claim(
        self, live: LiveExperiment, unit: str, attributes: Mapping[str, Any], now: datetime
    ) -> _Claim | None:
        """A paused experiment keeps its units; one outside its schedule claims none."""
        experiment = live.experiment
        place = self._place[experiment.experiment_id]
        if off_schedule(experiment, now) is not None:
            return None
        if overridden(experiment, unit) is not None:
            return (_ALWAYS, place)
        since = live.claimed_since(unit)
        if since is None or live.left_out(unit, attributes) is not None:
            return None
        return (max(since, experiment.starts_at or since), place)

    def _goes_before(
        self,
        rival: LiveExperiment,
        claim: _Claim,
        unit: str,
        attributes: Mapping[str, Any],
        now: datetime,
    ) -> bool:
        """Whether the rival holds the unit by an earlier claim, and no third one holds it before the rival."""
        theirs = self._claim(rival, unit, attributes, now)
        if theirs is None or theirs >= claim:
            return False
        return not any(
            self._goes_before(third, theirs, unit, attributes, now) for third in self.rivals(rival)
        )


def _rivals(experiments: Sequence[LiveExperiment]) -> dict[str, tuple[LiveExperiment, ...]]:
    sharing: dict[str, list[LiveExperiment]] = {}
    for live in experiments:
        for key in live.exclusive_keys:
            sharing.setdefault(key, []).append(live)
    found: dict[str, tuple[LiveExperiment, ...]] = {}
    for live in experiments:
        own = live.experiment.experiment_id
        others = {o.experiment.experiment_id for key in live.exclusive_keys for o in sharing[key]} - {own}
        if others:
            found[own] = tuple(o for o in experiments if o.experiment.experiment_id in others)
    return found


def _unsteady(experiments: Sequence[LiveExperiment]) -> frozenset[str]:
    """Return the ids of experiments with a schedule or a condition, and of all that these reach by what they share."""
    reached: set[str] = set()
    unsteady: set[str] = set()
    waiting = list(experiments)
    while True:
        found = [
            live
            for live in waiting
            if live.scheduled or live.condition is not None or not reached.isdisjoint(live.exclusive_keys)
        ]
        if not found:
            return frozenset(unsteady)
        for live in found:
            unsteady.add(live.experiment.experiment_id)
            reached |= live.exclusive_keys
        waiting = [live for live in waiting if live.experiment.experiment_id not in unsteady]
