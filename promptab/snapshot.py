"""What a request is answered from: an immutable picture of everything that is live, and assignment as a
function of it.

No I/O, no clock: the time is an argument. Only one answer is not final: a unit whose part of the hash space
has changed hands since the experiment began may have been dealt a variant before, which the store has to be
asked for (`Lookup`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from promptab.allocation import AllocationMap, Intervals, enrolled, moved, point_of, seed
from promptab.errors import NotFoundError, StateError, VariableError
from promptab.models import (
    EVERY_UNIT,
    Assignment,
    AssignmentReason,
    Environment,
    Epoch,
    ExperimentStatus,
    PromptExperiment,
    PromptType,
    PromptVersion,
)

if TYPE_CHECKING:
    from promptab.templates import Condition

PromptKey = tuple[PromptType, str]


class Lookup(NamedTuple):
    """The unit may hold a variant from before; `fresh` is what it gets if it holds none."""

    fresh: Assignment


class HeldOut(NamedTuple):
    """A share of the units, by a salt of its own, that is in no experiment."""

    name: str
    seed: int
    share: float

    def holds(self, unit: str) -> bool:
        return enrolled(point_of(self.seed, unit), self.share)


@dataclass(frozen=True, slots=True)
class Dealing:
    """One epoch, ready for look-ups."""

    number: int
    starts_at: datetime
    map: AllocationMap
    moved: Intervals
    """Where the owner is, or once was, another than in some earlier epoch."""
    evicted: frozenset[str]


@dataclass(frozen=True, slots=True)
class LiveExperiment:
    """A running or paused experiment with everything that assignment needs already worked out."""

    experiment: PromptExperiment
    dealings: tuple[Dealing, ...]
    seed: int
    enrolment_seed: int
    condition: Condition | None
    held_out: HeldOut | None
    kept: Mapping[str, str] = field(default_factory=dict)
    """Unit -> variant, for users who brought the variant of an anonymous session with them."""

    def dealing_at(self, now: datetime) -> Dealing:
        """Return the epoch in force; before its first has begun, the first."""
        for dealing in reversed(self.dealings):
            if dealing.starts_at <= now:
                return dealing
        return self.dealings[0]

    @property
    def exclusive_keys(self) -> frozenset[str]:
        """Experiments that have one of these in common never share a unit: their layer, and their prompt."""
        keys = {f"layer {self.experiment.layer}"}
        if self.experiment.prompt_name is not None:
            keys.add(f"prompt {self.experiment.prompt_type}/{self.experiment.prompt_name}")
        return frozenset(keys)


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

    def deployed(self, prompt_type: PromptType, name: str, environment: Environment) -> PromptVersion | None:
        version_id = self.live.get((prompt_type, name, environment))
        return None if version_id is None else self.versions.get(version_id)

    def latest_active(self, prompt_type: PromptType, name: str) -> PromptVersion | None:
        version_id = self.latest.get((prompt_type, name))
        return None if version_id is None else self.versions.get(version_id)

    def numbered(self, prompt_type: PromptType, name: str, version: str) -> PromptVersion | None:
        version_id = self.numbers.get((prompt_type, name, version))
        return None if version_id is None else self.versions.get(version_id)

    def experiment(self, name_or_id: str) -> LiveExperiment | None:
        """Return the live experiment with this id, or the one with this name; of several names, the running
        one.

        Raises `StateError` where several of that name are running.
        """
        named = []
        for live in self.experiments:
            if live.experiment.experiment_id == name_or_id:
                return live
            if live.experiment.name == name_or_id:
                named.append(live)
        running = [live for live in named if live.experiment.status == ExperimentStatus.RUNNING]
        candidates = running or named
        if len(candidates) > 1:
            ids = ", ".join(live.experiment.experiment_id for live in candidates)
            raise StateError(
                f"{len(candidates)} experiments are called {name_or_id!r}; name one by its id: {ids}"
            )
        return candidates[0] if candidates else None

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
        if (idle := not_serving(live.experiment, now)) is not None:
            return _left_out(live, unit, "not_running", idle)
        if unit is None:
            return _left_out(live, unit, "no_unit", f"no {live.experiment.unit} was given to assign by")
        if (shown := overridden(live.experiment, unit)) is not None:
            return _served(live, unit, shown, "override", "shown by hand; left out of the analysis", None)
        if (outside := self._outside(live, unit, attributes, now)) is not None:
            return _left_out(live, unit, *outside)
        return _dealt(live, unit, now)

    def _outside(
        self, live: LiveExperiment, unit: str, attributes: Mapping[str, Any], now: datetime
    ) -> tuple[AssignmentReason, str] | None:
        """Return why the unit is not in the experiment, or None where it is."""
        # let in as an anonymous session, whose place it has taken over
        brought = unit in live.kept
        if live.held_out is not None and not brought and live.held_out.holds(unit):
            return "holdout", f"held out of all experiments that respect {live.held_out.name!r}"
        if live.condition is not None:
            try:
                if not live.condition.holds(attributes):
                    return "not_targeted", f"does not satisfy {live.experiment.where!r}"
            except VariableError as error:
                return "not_targeted", str(error)
        position = point_of(live.enrolment_seed, unit)
        if not brought and not enrolled(position, max(live.experiment.traffic, live.experiment.peak_traffic)):
            return "not_enrolled", f"outside the {live.experiment.traffic:.4%} of units that are enrolled"
        for earlier in self.experiments:
            if earlier is live:
                break
            if earlier.exclusive_keys & live.exclusive_keys and self._holds(earlier, unit, attributes, now):
                return "other_experiment", (
                    f"already in {earlier.experiment.name!r} ({earlier.experiment.experiment_id}), which started first"
                )
        return None

    def _holds(self, live: LiveExperiment, unit: str, attributes: Mapping[str, Any], now: datetime) -> bool:
        """Whether an experiment claims the unit: one that is paused does, one outside its schedule does not."""
        if off_schedule(live.experiment, now) is not None:
            return False
        return (
            overridden(live.experiment, unit) is not None
            or self._outside(live, unit, attributes, now) is None
        )


def overridden(experiment: PromptExperiment, unit: str) -> str | None:
    """Return the variant that the unit is shown by hand, if any."""
    return experiment.overrides.get(unit, experiment.overrides.get(EVERY_UNIT))


def not_serving(experiment: PromptExperiment, now: datetime) -> str | None:
    """Return why the experiment serves nobody at this time, or None where it does."""
    if experiment.status != ExperimentStatus.RUNNING:
        return f"the experiment is {experiment.status}"
    return off_schedule(experiment, now)


def off_schedule(experiment: PromptExperiment, now: datetime) -> str | None:
    """Return why the experiment's schedule has it serve nobody at this time, or None where it has it serve."""
    if experiment.starts_at is not None and now < experiment.starts_at:
        return f"the experiment is scheduled to start at {experiment.starts_at.isoformat()}"
    if experiment.ends_at is not None and now >= experiment.ends_at:
        return f"the experiment ended on schedule at {experiment.ends_at.isoformat()}"
    return None


def kept_assignment(lookup: Lookup, live: LiveExperiment, held: str | None, now: datetime) -> Assignment:
    """Return the final answer to a `Lookup`, given the variant that the store holds for the unit, if any."""
    fresh = lookup.fresh
    assert fresh.unit is not None  # noqa: S101 - a look-up is only ever made for a unit
    if held is None:
        if enrolled(point_of(live.enrolment_seed, fresh.unit), live.experiment.traffic):
            return fresh
        return _left_out(
            live,
            fresh.unit,
            "not_enrolled",
            f"outside the {live.experiment.traffic:.4%} of units that are enrolled",
        )
    if held in live.dealing_at(now).evicted or live.experiment.variant(held) is None:
        return fresh
    return _served(live, fresh.unit, held, "kept", "keeps the variant of its first exposure", fresh.epoch)


def build_live_experiment(
    experiment: PromptExperiment, epochs: Iterable[Epoch], held_out: HeldOut | None, kept: Mapping[str, str]
) -> LiveExperiment:
    """Work out everything that can be known before a unit comes; `epochs` in their order."""
    dealings: list[Dealing] = []
    once_moved = Intervals(())
    for epoch in epochs:
        allocation = AllocationMap.from_json(epoch.segments)
        if dealings:
            once_moved |= moved(dealings[-1].map, allocation)
        dealings.append(
            Dealing(epoch.number, epoch.starts_at, allocation, once_moved, frozenset(epoch.evicted))
        )
    if not dealings:
        raise NotFoundError("epoch of experiment", experiment.experiment_id)
    return LiveExperiment(
        experiment=experiment,
        dealings=tuple(dealings),
        seed=seed(experiment.salt),
        enrolment_seed=seed(experiment.enrolment_salt),
        condition=None if experiment.where is None else _condition(experiment.where),
        held_out=held_out,
        kept=kept,
    )


def _condition(where: str) -> Condition:
    from promptab.templates import compile_condition  # noqa: PLC0415 - see promptab.templates

    return compile_condition(where)


def _dealt(live: LiveExperiment, unit: str, now: datetime) -> Assignment | Lookup:
    dealing = live.dealing_at(now)
    if (kept := live.kept.get(unit)) is not None and kept not in dealing.evicted:
        return _served(live, unit, kept, "kept", "keeps the variant of its anonymous session", dealing.number)
    position = point_of(live.seed, unit)
    key = dealing.map.key_at(position)
    fresh = _served(live, unit, key, "allocated", "dealt by the hash of the unit", dealing.number)
    if live.experiment.sticky:
        was_enrolled = not enrolled(point_of(live.enrolment_seed, unit), live.experiment.traffic)
        if was_enrolled or dealing.moved.contains(position):
            return Lookup(fresh)
    elif not enrolled(point_of(live.enrolment_seed, unit), live.experiment.traffic):
        return _left_out(
            live,
            unit,
            "not_enrolled",
            f"outside the {live.experiment.traffic:.4%} of units that are enrolled",
        )
    return fresh


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
