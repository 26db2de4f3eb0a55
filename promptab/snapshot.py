"""What a request is answered from: an immutable picture of everything that is live, and assignment as a
function of it.

No I/O, no clock: the time is an argument. Only one answer is not final: a unit whose part of the hash space
has changed hands since the experiment began may have been dealt a variant before, which the store has to be
asked for (`Lookup`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from promptab.allocation import point_of
from promptab.errors import InvalidInputError, StateError
from promptab.live_experiment import LiveExperiment, not_serving, off_schedule, overridden
from promptab.models import (
    Assignment,
    AssignmentReason,
    Environment,
    ExperimentStatus,
    PromptType,
    PromptVersion,
)

PromptKey = tuple[PromptType, str]
_ALWAYS = datetime.min.replace(tzinfo=UTC)


class Lookup(NamedTuple):
    """The unit may hold a variant from before; `fresh` is what it gets if it holds none."""

    fresh: Assignment
    rivals: tuple[LiveExperiment, ...] = ()
    """Experiments that keep the unit if it was exposed to one of them before."""
    taken_by: LiveExperiment | None = None
    """The experiment that the unit is in if it holds no variant of this one."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Immutable; replaced as a whole when the store's revision has grown."""

    store_id: str
    revision: int
    experiments: tuple[LiveExperiment, ...]
    """Running and paused, in the order of their start."""
    live: Mapping[tuple[PromptType, str, str], str]
    """(prompt_type, name, environment) -> version_id."""
    latest: Mapping[PromptKey, str]
    """The highest active or production version of each prompt."""
    versions: Mapping[str, PromptVersion]
    """By id: everything live or latest, the variants of experiments, and what any of these include."""
    numbers: Mapping[tuple[PromptType, str, str], str]
    """(prompt_type, name, version) -> version_id, of the same versions."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Anonymous session -> the user it turned out to be, since the oldest live experiment began."""

    def deployed(self, prompt_type: PromptType, name: str, environment: Environment) -> PromptVersion | None:
        version_id = self.live.get((prompt_type, name, environment))
        return None if version_id is None else self.versions.get(version_id)

    def latest_active(self, prompt_type: PromptType, name: str) -> PromptVersion | None:
        version_id = self.latest.get((prompt_type, name))
        return None if version_id is None else self.versions.get(version_id)

    def numbered(self, prompt_type: PromptType, name: str, version: str) -> PromptVersion | None:
        version_id = self.numbers.get((prompt_type, name, version))
        return None if version_id is None else self.versions.get(version_id)

    def experiment(self, name_or_id: str, now: datetime) -> LiveExperiment | None:
        """Return the live experiment with this id, or the one with this name; of several names, the running one.

        One that has ended on schedule goes behind those that have not. Raises `StateError` where several of that
        name are running.
        """
        named = []
        for live in self.experiments:
            if live.experiment.experiment_id == name_or_id:
                return live
            if live.experiment.name == name_or_id:
                named.append(live)
        going_on = [live for live in named if not live.experiment.has_ended(now)] or named
        running = [live for live in going_on if live.experiment.status == ExperimentStatus.RUNNING]
        candidates = running or going_on
        if len(candidates) > 1:
            ids = ", ".join(live.experiment.experiment_id for live in candidates)
            raise StateError(
                f"{len(candidates)} experiments are called {name_or_id!r}; name one by its id: {ids}"
            )
        return candidates[0] if candidates else None

    def known_unit(self, unit: str | None) -> str | None:
        """Return the user that an anonymous session turned out to be, or the unit itself."""
        return None if unit is None else self.aliases.get(unit, unit)

    def on_prompt(self, prompt_type: PromptType, name: str) -> Sequence[LiveExperiment]:
        """Return the experiments that decide what a prompt, or a configuration of that name, serves."""
        return [
            live
            for live in self.experiments
            if live.experiment.prompt_type == prompt_type
            and name == (live.experiment.prompt_name or live.experiment.name)
        ]

    def assign(
        self, live: LiveExperiment, unit: str | None, attributes: Mapping[str, Any], now: datetime
    ) -> Assignment | Lookup:
        """Return the unit's variant with the reason, or `Lookup` where the store may know an earlier one."""
        experiment = live.experiment
        if (idle := not_serving(experiment, now)) is not None:
            return _left_out(live, unit, "not_running", idle)
        if unit is None:
            return _left_out(live, unit, "no_unit", f"no {experiment.unit} was given to assign by")
        if (shown := overridden(experiment, unit)) is not None:
            return _served(live, unit, shown, "override", "shown by hand; left out of the analysis", None)
        if (outside := _outside(live, unit, attributes)) is not None:
            return _left_out(live, unit, *outside)
        if not live.once_enrolled(unit) or (not experiment.sticky and live.claimed_since(unit) is None):
            return _not_enrolled(live, unit)
        return self._enrolled(live, unit, attributes, now)

    def _enrolled(
        self, live: LiveExperiment, unit: str, attributes: Mapping[str, Any], now: datetime
    ) -> Assignment | Lookup:
        """Return the answer for a unit that is, or once was, enrolled and may be in another experiment instead."""
        claim = self._claim(live, unit, attributes, now)
        rivals = self._rivals(live)
        taken_by = None
        if claim is not None:
            before = (r for r in rivals if self._goes_before(r, claim, unit, attributes, now))
            taken_by = next(before, None)
        answer = _dealt(live, unit, now)
        fresh = answer.fresh if isinstance(answer, Lookup) else answer
        sticky = live.experiment.sticky
        may_hold = sticky and live.enrolment_was_broken(unit)
        if taken_by is not None and not may_hold:
            return _in_other_experiment(live, unit, taken_by)
        past = tuple(
            rival
            for rival in rivals
            if rival.enrolment_was_broken(unit) and off_schedule(rival.experiment, now) is None
        )
        if sticky and (isinstance(answer, Lookup) or may_hold or past):
            return Lookup(fresh, past, taken_by)
        return fresh

    def _rivals(self, live: LiveExperiment) -> list[LiveExperiment]:
        """Return the other experiments that never share a unit with this one."""
        keys = live.exclusive_keys
        return [other for other in self.experiments if other is not live and other.exclusive_keys & keys]

    def _claim(
        self, live: LiveExperiment, unit: str, attributes: Mapping[str, Any], now: datetime
    ) -> tuple[datetime, int] | None:
        """Return since when the experiment claims the unit, and its place among those of one moment.

        The earliest claim holds: with constant traffic that of the experiment that started first. One whose traffic
        grows later claims the units it gains from then on, and takes none away. A paused experiment keeps its
        units; one outside its schedule claims none.
        """
        experiment = live.experiment
        place = self.experiments.index(live)
        if off_schedule(experiment, now) is not None:
            return None
        if overridden(experiment, unit) is not None:
            return (_ALWAYS, place)
        since = live.claimed_since(unit)
        if since is None or _outside(live, unit, attributes) is not None:
            return None
        return (max(since, experiment.starts_at or since), place)

    def _goes_before(
        self,
        rival: LiveExperiment,
        claim: tuple[datetime, int],
        unit: str,
        attributes: Mapping[str, Any],
        now: datetime,
    ) -> bool:
        """Whether the rival holds the unit by an earlier claim, and no third one holds it before the rival."""
        theirs = self._claim(rival, unit, attributes, now)
        if theirs is None or theirs >= claim:
            return False
        return not any(
            self._goes_before(third, theirs, unit, attributes, now) for third in self._rivals(rival)
        )


def kept_assignment(live: LiveExperiment, unit: str, held: str, now: datetime) -> Assignment | None:
    """Return the assignment to the variant that the unit holds; None where that was evicted and it is dealt anew."""
    dealing = live.dealing_at(now)
    if held in dealing.evicted or live.experiment.variant(held) is None:
        return None
    return _served(live, unit, held, "kept", "keeps the variant of its first exposure", dealing.number)


def first_assignment(lookup: Lookup, live: LiveExperiment, held_by: LiveExperiment | None) -> Assignment:
    """Return the answer for a unit that holds no variant of the experiment; `held_by` is a rival that it is in."""
    unit = lookup.fresh.unit or ""
    if live.claimed_since(unit) is None:
        return _not_enrolled(live, unit)
    other = held_by or lookup.taken_by
    return lookup.fresh if other is None else _in_other_experiment(live, unit, other)


def surprises(live: LiveExperiment, unit: str, variant: str, now: datetime) -> bool:
    """Whether a report that names this variant is news: the unit would be dealt another one without a look-up."""
    if live.experiment.has_reported or overridden(live.experiment, unit) is not None:
        return False
    answer = _dealt(live, unit, now)
    return isinstance(answer, Assignment) and answer.variant != variant


def _outside(
    live: LiveExperiment, unit: str, attributes: Mapping[str, Any]
) -> tuple[AssignmentReason, str] | None:
    """Return why the unit is not one that the experiment is about, or None where it is."""
    # a user who was let in as an anonymous session has taken over that session's place
    if live.held_out is not None and unit not in live.kept and live.held_out.holds(unit):
        return "holdout", f"held out of all experiments that respect {live.held_out.name!r}"
    if live.condition is not None:
        try:
            if not live.condition.holds(attributes):
                return "not_targeted", f"does not satisfy {live.experiment.where!r}"
        except InvalidInputError as error:  # an attribute that is missing, or of a type that does not compare
            return "not_targeted", str(error)
    return None


def _dealt(live: LiveExperiment, unit: str, now: datetime) -> Assignment | Lookup:
    dealing = live.dealing_at(now)
    if (kept := live.kept.get(unit)) is not None and kept not in dealing.evicted:
        return _served(live, unit, kept, "kept", "keeps the variant of its anonymous session", dealing.number)
    position = point_of(live.seed, unit)
    fresh = _served(
        live, unit, dealing.map.key_at(position), "allocated", "dealt by the hash of the unit", dealing.number
    )
    # by the newest map: before it takes effect, what moves under it is dealt as carefully as afterwards
    evicted = kept is not None
    if live.experiment.has_reported or evicted or live.dealings[-1].moved.contains(position):
        return Lookup(fresh)
    return fresh


def _not_enrolled(live: LiveExperiment, unit: str) -> Assignment:
    detail = f"outside the {live.experiment.traffic:.4%} of units that are enrolled"
    return _left_out(live, unit, "not_enrolled", detail)


def _in_other_experiment(live: LiveExperiment, unit: str, other: LiveExperiment) -> Assignment:
    experiment = other.experiment
    detail = f"already in {experiment.name!r} ({experiment.experiment_id}), which claimed it first"
    return _left_out(live, unit, "other_experiment", detail)


def _served(
    live: LiveExperiment, unit: str, key: str, reason: AssignmentReason, detail: str, epoch: int | None
) -> Assignment:
    variant = live.experiment.variant(key)
    assert variant is not None  # noqa: S101 - maps and overrides are checked against the variants when written
    return Assignment.model_construct(
        experiment_id=live.experiment.experiment_id,
        unit=unit,
        variant=key,
        version=variant.version,
        config=copy.deepcopy(variant.config),  # the caller's to change; the snapshot is everybody's
        reason=reason,
        detail=detail,
        epoch=epoch,
    )


def _left_out(live: LiveExperiment, unit: str | None, reason: AssignmentReason, detail: str) -> Assignment:
    return Assignment.model_construct(
        experiment_id=live.experiment.experiment_id,
        unit=unit,
        variant=None,
        version=None,
        config=None,
        reason=reason,
        detail=detail,
        epoch=None,
    )
