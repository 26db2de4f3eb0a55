"""A running or paused experiment with everything worked out that can be known before a unit comes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from promptab.allocation import AllocationMap, Intervals, enrolled, moved, point_of, seed
from promptab.errors import InvalidInputError, NotFoundError
from promptab.models import (
    EVERY_UNIT,
    AssignmentReason,
    Epoch,
    ExperimentStatus,
    PromptExperiment,
    PromptVariant,
)

if TYPE_CHECKING:
    from promptab.templates import Condition


class HeldOut(NamedTuple):
    """A share of the units, by a salt of its own, that is in no experiment."""

    name: str
    seed: int
    share: float

    def holds(self, unit: str) -> bool:
        return enrolled(point_of(self.seed, unit), self.share)


class UniformSlice(NamedTuple):
    """The share of a bandit's units, by a salt of its own, that is dealt alike for the whole run."""

    seed: int
    share: float
    dealings: tuple[Dealing, ...]
    """Each among other variants."""
    in_force: Mapping[int, Dealing]
    """By the number of the epoch beside them, what they are dealt by: alike among the same variants. While there is
    none, as where one variant is left, they are dealt as all others are."""
    moved: Intervals
    """Where the owner of a unit of the slice was, or will be, another than in some earlier epoch."""

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
    weights: Mapping[str, float] = field(init=False)
    """What the map gives each variant that takes new units, as a share."""

    def __post_init__(self) -> None:
        shares = {key: float(share) for key, share in self.map.shares().items()}
        object.__setattr__(self, "weights", shares)


class LiveShadow(NamedTuple):
    """A variant that runs beside what is served, and the share of units that it runs for by a salt of its own."""

    variant: PromptVariant
    seed: int
    share: float


@dataclass(frozen=True, slots=True)
class LiveExperiment:
    """A running or paused experiment with everything that assignment needs already worked out."""

    experiment: PromptExperiment
    dealings: tuple[Dealing, ...]
    seed: int
    enrolment_seed: int
    condition: Condition | None = field(compare=False)
    """What `experiment.where` says, compiled."""
    held_out: HeldOut | None
    uniform: UniformSlice | None = None
    kept: Mapping[str, str] = field(default_factory=dict)
    """Unit -> variant, for users who brought the variant of an anonymous session with them."""
    variants: Mapping[str, PromptVariant] = field(init=False, compare=False, repr=False)
    """By key."""
    shadows: tuple[LiveShadow, ...] = field(init=False, compare=False, repr=False)
    peak_traffic: float = field(init=False, compare=False, repr=False)
    scheduled: bool = field(init=False, compare=False, repr=False)
    """Whether it is for a time whether it serves."""
    plain: bool = field(init=False, compare=False, repr=False)
    """Whether every user gets, at every time, what the user's point in the one map gives."""

    def __post_init__(self) -> None:
        experiment = self.experiment
        scheduled = experiment.starts_at is not None or experiment.ends_at is not None
        shares = [share for _, share in experiment.traffic_history]
        plain = (
            experiment.status == ExperimentStatus.RUNNING
            and experiment.unit == "user"
            and not (scheduled or self.kept or experiment.overrides or experiment.has_reported)
            and len(self.dealings) == 1
            and self.held_out is None
            and self.uniform is None
            and self.condition is None
            and min(shares, default=0.0) >= 1.0
        )
        object.__setattr__(self, "variants", {variant.key: variant for variant in experiment.variants})
        shadows = (
            LiveShadow(shadow, seed(shadow_salt(experiment, shadow.key)), experiment.shadow_share(shadow.key))
            for shadow in experiment.shadows
        )
        object.__setattr__(self, "shadows", tuple(shadows))
        object.__setattr__(self, "peak_traffic", experiment.peak_traffic)
        object.__setattr__(self, "scheduled", scheduled)
        object.__setattr__(self, "plain", plain)

    def plain_variant(self, unit: str) -> PromptVariant:
        """Return what the unit gets of the first map."""
        return self.variants[self.dealings[0].map.key_at(point_of(self.seed, unit))]

    def claimed_since(self, unit: str) -> datetime | None:
        """Return since when the unit has been enrolled without a break; None where it is not."""
        since = None
        position = point_of(self.enrolment_seed, unit)
        for at, share in self.experiment.traffic_history:
            since = (since or at) if enrolled(position, share) else None
        return self.experiment.started_at if unit in self.kept else since

    def enrolment_was_broken(self, unit: str) -> bool:
        """Whether the unit was enrolled at a time before it was left out: it may have been exposed then."""
        position = point_of(self.enrolment_seed, unit)
        first = next((at for at, share in self.experiment.traffic_history if enrolled(position, share)), None)
        return first is not None and first != self.claimed_since(unit)

    def once_enrolled(self, unit: str) -> bool:
        """Whether the unit is or was enrolled."""
        return unit in self.kept or enrolled(point_of(self.enrolment_seed, unit), self.peak_traffic)

    def left_out(self, unit: str, attributes: Mapping[str, Any]) -> tuple[AssignmentReason, str] | None:
        """Return why the unit is not one that the experiment is about, or None where it is."""
        # a user who was let in as an anonymous session has taken over that session's place
        if self.held_out is not None and unit not in self.kept and self.held_out.holds(unit):
            return "holdout", f"held out of all experiments that respect {self.held_out.name!r}"
        if self.condition is not None:
            try:
                if not self.condition.holds(attributes):
                    return "not_targeted", f"does not satisfy {self.experiment.where!r}"
            except (
                InvalidInputError
            ) as error:  # an attribute that is missing, or of a type that does not compare
                return "not_targeted", str(error)
        return None

    def dealing_at(self, now: datetime) -> Dealing:
        """Return the epoch in force; before its first has begun, the first."""
        for dealing in reversed(self.dealings):
            if dealing.starts_at <= now:
                return dealing
        return self.dealings[0]

    def slice_of(self, unit: str) -> UniformSlice | None:
        """Return the uniform slice where the unit is in it."""
        return self.uniform if self.uniform is not None and self.uniform.holds(unit) else None

    @property
    def exclusive_keys(self) -> frozenset[str]:
        """Experiments that have one of these in common never share a unit: their layer, and their prompt."""
        keys = {f"layer {self.experiment.layer}"}
        if self.experiment.prompt_name is not None:
            keys.add(f"prompt {self.experiment.prompt_type}/{self.experiment.prompt_name}")
        return frozenset(keys)


def build_live_experiment(
    experiment: PromptExperiment, epochs: Iterable[Epoch], held_out: HeldOut | None, kept: Mapping[str, str]
) -> LiveExperiment:
    """Work out everything that can be known before a unit comes; `epochs` in their order."""
    dealings: list[Dealing] = []
    alike: list[Dealing] = []
    once_moved = Intervals(())
    for epoch in epochs:
        allocation = AllocationMap.from_json(epoch.segments)
        for _, key in allocation.segments:
            if experiment.variant(key) is None:
                raise NotFoundError("variant", key, f"epoch {epoch.number} of {experiment.name!r} deals it")
        if epoch.is_uniform:
            alike.append(Dealing(epoch.number, epoch.starts_at, allocation, Intervals(()), frozenset()))
            continue
        if dealings:
            once_moved |= moved(dealings[-1].map, allocation)
        dealings.append(
            Dealing(epoch.number, epoch.starts_at, allocation, once_moved, frozenset(epoch.evicted))
        )
    if not dealings:
        raise NotFoundError("epoch of experiment", experiment.experiment_id)
    for key in {*experiment.overrides.values(), *kept.values()}:
        if experiment.variant(key) is None:
            raise NotFoundError("variant", key, f"a unit of {experiment.name!r} holds it")
    return LiveExperiment(
        experiment=experiment,
        dealings=tuple(dealings),
        seed=seed(experiment.salt),
        enrolment_seed=seed(experiment.enrolment_salt),
        condition=None if experiment.where is None else _condition(experiment.where),
        held_out=held_out,
        uniform=_uniform_slice(experiment, alike, dealings) if alike else None,
        kept=kept,
    )


def _uniform_slice(
    experiment: PromptExperiment, alike: Sequence[Dealing], dealings: Sequence[Dealing]
) -> UniformSlice:
    if experiment.bandit is None or experiment.uniform_salt is None:
        raise NotFoundError("bandit", experiment.name, "an epoch of its uniform slice is there")
    in_force = {
        dealing.number: one
        for dealing in dealings
        for one in alike
        if one.starts_at <= dealing.starts_at and one.weights.keys() == dealing.weights.keys()
    }
    maps = [in_force.get(dealing.number, dealing).map for dealing in dealings]
    once_moved = Intervals(())
    for earlier, later in pairwise(maps):
        once_moved |= moved(earlier, later)
    share = experiment.bandit.uniform
    return UniformSlice(seed(experiment.uniform_salt), share, tuple(alike), in_force, once_moved)


def shadow_salt(experiment: PromptExperiment, key: str) -> str:
    """Return the salt of a shadow's units: neither those that are enrolled nor those of a variant, and sticky."""
    return f"{experiment.salt}/shadow/{key}"


def _condition(where: str) -> Condition:
    from promptab.templates import compile_condition  # noqa: PLC0415 - see promptab.templates

    return compile_condition(where)


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
    if experiment.ends_at is not None and experiment.has_ended(now):
        return f"the experiment ended on schedule at {experiment.ends_at.isoformat()}"
    return None
