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
from datetime import datetime
from typing import Any, NamedTuple

from promptab.allocation import point_of
from promptab.errors import StateError
from promptab.exclusion import Exclusion
from promptab.live_experiment import Dealing, LiveExperiment, not_serving, off_schedule, overridden
from promptab.models import (
    Assignment,
    AssignmentReason,
    Environment,
    ExperimentStatus,
    PromptType,
    PromptVariant,
    PromptVersion,
)

PromptKey = tuple[PromptType, str]
_BY_HASH = "dealt by the hash of the unit"
_ALIKE = "dealt by the hash of the unit, in the slice in which variants are dealt alike"


class Dealt(NamedTuple):
    """What an experiment has for a unit, and why."""

    live: LiveExperiment
    unit: str | None
    variant: PromptVariant | None
    """None where the unit is not in the experiment."""
    reason: AssignmentReason
    detail: str
    """The reason as a sentence."""
    epoch: int | None = None
    sure: bool = True
    """False where the store was away, and the unit may have been dealt another variant before."""
    propensity: float | None = None
    """The probability of this variant, for a unit that is dealt now; None where nothing was dealt."""

    @property
    def key(self) -> str | None:
        return None if self.variant is None else self.variant.key

    @property
    def experiment_id(self) -> str:
        return self.live.experiment.experiment_id

    def assignment(self) -> Assignment:
        """Return it as a record that is the caller's to keep."""
        variant = self.variant
        return Assignment.model_construct(
            experiment_id=self.experiment_id,
            unit=self.unit,
            variant=self.key,
            version=None if variant is None else variant.version,
            # the caller's to change; the snapshot is everybody's
            config=None if variant is None else copy.deepcopy(variant.config),
            reason=self.reason,
            detail=self.detail,
            epoch=self.epoch,
        )


class Lookup(NamedTuple):
    """The unit may hold a variant from before; `fresh` is what it gets if it holds none."""

    fresh: Dealt
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
    _exclusion: Exclusion = field(init=False, compare=False, repr=False)
    _named: Mapping[str, Sequence[LiveExperiment]] = field(init=False, compare=False, repr=False)
    """Experiments by id, and by name."""
    plain: Mapping[str, LiveExperiment] = field(init=False, compare=False, repr=False)
    """By id, and by a name that no other has: those that deal every user by one map that has never changed, and ask
    nothing else. So a user gets `plain_variant`, now and for all of this snapshot's life.
    """

    def __post_init__(self) -> None:
        named: dict[str, list[LiveExperiment]] = {}
        for live in self.experiments:
            named.setdefault(live.experiment.name, []).append(live)
        # an id goes before a name that looks like one
        named.update({live.experiment.experiment_id: [live] for live in self.experiments})
        object.__setattr__(self, "_named", named)
        exclusion = Exclusion(self.experiments)
        plain = {
            name: lives[0]
            for name, lives in named.items()
            if len(lives) == 1 and lives[0].plain and not exclusion.rivals(lives[0])
        }
        object.__setattr__(self, "_exclusion", exclusion)
        object.__setattr__(self, "plain", plain)

    def deployed(self, prompt_type: PromptType, name: str, environment: Environment) -> PromptVersion | None:
        version_id = self.live.get((prompt_type, name, environment))
        return None if version_id is None else self.versions.get(version_id)

    def latest_active(self, prompt_type: PromptType, name: str) -> PromptVersion | None:
        version_id = self.latest.get((prompt_type, name))
        return None if version_id is None else self.versions.get(version_id)

    def numbered(self, prompt_type: PromptType, name: str, version: str) -> PromptVersion | None:
        version_id = self.numbers.get((prompt_type, name, version))
        return None if version_id is None else self.versions.get(version_id)

    def variant_version(self, live: LiveExperiment, number: str | None) -> PromptVersion | None:
        """Return the version of the experiment's prompt that a variant names; None where there is none."""
        experiment = live.experiment
        if number is None or experiment.prompt_name is None:
            return None
        return self.numbered(experiment.prompt_type, experiment.prompt_name, number)

    def experiment(self, name_or_id: str, now: datetime) -> LiveExperiment | None:
        """Return the live experiment with this id, or the one with this name; of several names, the running one.

        One that has ended on schedule goes behind those that have not. Raises `StateError` where several of that
        name are running.
        """
        try:
            named = self._named.get(name_or_id, ())
        except TypeError:  # what cannot be hashed is no name
            return None
        if len(named) == 1:
            return named[0]
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

    def settled(self, live: LiveExperiment, now: datetime) -> bool:
        """Whether what a user gets of the experiment is the same for all of this snapshot's life, whatever is asked."""
        experiment = live.experiment
        if experiment.unit != "user":
            return False
        in_force = live.dealings[-1].starts_at <= now
        return experiment.experiment_id in self.plain or (in_force and self._exclusion.steady(live))

    def assign(
        self, live: LiveExperiment, unit: str | None, attributes: Mapping[str, Any], now: datetime
    ) -> Dealt | Lookup:
        """Return the unit's variant with the reason, or `Lookup` where the store may know an earlier one."""
        if unit is not None and live.experiment.experiment_id in self.plain:
            dealing, variant = live.dealings[0], live.plain_variant(unit)
            return Dealt(
                live,
                unit,
                variant,
                "allocated",
                _BY_HASH,
                dealing.number,
                propensity=dealing.weights[variant.key],
            )
        return self._looked_at(live, unit, attributes, now)

    def _looked_at(
        self, live: LiveExperiment, unit: str | None, attributes: Mapping[str, Any], now: datetime
    ) -> Dealt | Lookup:
        """Return the answer for a unit that may have to be left out, or be in another experiment."""
        experiment = live.experiment
        if (idle := not_serving(experiment, now)) is not None:
            return Dealt(live, unit, None, "not_running", idle)
        if unit is None:
            return Dealt(live, unit, None, "no_unit", f"no {experiment.unit} was given to assign by")
        if (shown := overridden(experiment, unit)) is not None:
            detail = "shown by hand; left out of the analysis"
            return Dealt(live, unit, live.variants[shown], "override", detail)
        if (outside := live.left_out(unit, attributes)) is not None:
            return Dealt(live, unit, None, *outside)
        if not live.once_enrolled(unit) or (not experiment.sticky and live.claimed_since(unit) is None):
            return _not_enrolled(live, unit)
        return self._enrolled(live, unit, attributes, now)

    def _enrolled(
        self, live: LiveExperiment, unit: str, attributes: Mapping[str, Any], now: datetime
    ) -> Dealt | Lookup:
        """Return the answer for a unit that is, or once was, enrolled and may be in another experiment instead."""
        taken_by = self._exclusion.holder(live, unit, attributes, now)
        answer = _dealt(live, unit, now)
        fresh = answer.fresh if isinstance(answer, Lookup) else answer
        sticky = live.experiment.sticky
        may_hold = sticky and live.enrolment_was_broken(unit)
        if taken_by is not None and not may_hold:
            return _in_other_experiment(live, unit, taken_by)
        past = tuple(
            rival
            for rival in self._exclusion.rivals(live)
            if rival.enrolment_was_broken(unit) and off_schedule(rival.experiment, now) is None
        )
        if sticky and (isinstance(answer, Lookup) or may_hold or past):
            return Lookup(fresh, past, taken_by)
        return fresh


def kept_by(live: LiveExperiment, unit: str, held: str, now: datetime) -> Dealt | None:
    """Return the variant that the unit holds; None where that was evicted and the unit is dealt anew."""
    dealing = live.dealing_at(now)
    variant = live.variants.get(held)
    if held in dealing.evicted or variant is None:
        return None
    return Dealt(live, unit, variant, "kept", "keeps the variant of its first exposure", dealing.number)


def first_dealt(lookup: Lookup, live: LiveExperiment, held_by: LiveExperiment | None) -> Dealt:
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
    return isinstance(answer, Dealt) and answer.key != variant


def _dealt(live: LiveExperiment, unit: str, now: datetime) -> Dealt | Lookup:
    dealing = live.dealing_at(now)
    if (kept := live.kept.get(unit)) is not None and kept not in dealing.evicted:
        detail = "keeps the variant of its anonymous session"
        return Dealt(live, unit, live.variants[kept], "kept", detail, dealing.number)
    position = point_of(live.seed, unit)
    part = live.slice_of(unit)
    alike = None if part is None else part.in_force.get(dealing.number)
    if alike is not None:
        fresh = _allocated(live, unit, alike, position, _ALIKE)
    else:
        fresh = _allocated(live, unit, dealing, position, _BY_HASH)
    # by the newest map: before it takes effect, what moves under it is dealt as carefully as afterwards
    may_hold = (live.dealings[-1] if part is None else part).moved.contains(position)
    evicted = kept is not None
    return Lookup(fresh) if live.experiment.has_reported or evicted or may_hold else fresh


def _allocated(live: LiveExperiment, unit: str, dealing: Dealing, position: int, detail: str) -> Dealt:
    variant = live.variants[dealing.map.key_at(position)]
    return Dealt(
        live, unit, variant, "allocated", detail, dealing.number, propensity=dealing.weights[variant.key]
    )


def _not_enrolled(live: LiveExperiment, unit: str) -> Dealt:
    detail = f"outside the {live.experiment.traffic:.4%} of units that are enrolled"
    return Dealt(live, unit, None, "not_enrolled", detail)


def _in_other_experiment(live: LiveExperiment, unit: str, other: LiveExperiment) -> Dealt:
    experiment = other.experiment
    detail = f"already in {experiment.name!r} ({experiment.experiment_id}), which claimed it first"
    return Dealt(live, unit, None, "other_experiment", detail)
