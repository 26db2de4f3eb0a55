"""The rules of an experiment: what is refused when one is made or changed, and its epochs of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, get_args

from promptab.allocation import AllocationMap, allocate, normalise, reallocate
from promptab.checks import check_items, check_mapping, check_name
from promptab.criteria import read_criteria
from promptab.errors import InvalidInputError
from promptab.models import UNIFORM_EPOCH, Epoch, PromptExperiment, PromptVariant, UnitKind
from promptab.plan import AnalysisPlan
from promptab.policy import Policy, RampStep


def first_epoch(experiment: PromptExperiment, starts_at: datetime) -> Epoch:
    """Deal the whole space by the experiment's weights."""
    return Epoch(
        experiment_id=experiment.experiment_id,
        number=1,
        starts_at=starts_at,
        weights=experiment.traffic_split,
        segments=allocate(experiment.traffic_split).to_json(),
    )


def uniform_epoch(experiment: PromptExperiment, starts_at: datetime) -> Epoch | None:
    """Deal the whole space alike, for the uniform slice; None where the experiment has none."""
    if experiment.uniform_salt is None:
        return None
    alike = _alike(experiment.traffic_split)
    return Epoch(
        experiment_id=experiment.experiment_id,
        number=UNIFORM_EPOCH,
        starts_at=starts_at,
        weights=alike,
        segments=allocate(alike).to_json(),
    )


def next_uniform_epoch(
    epochs: Sequence[Epoch], shares: Mapping[str, float], *, starts_at: datetime
) -> Epoch | None:
    """Deal the uniform slice alike among the variants that these shares deal to.

    None where that is for an earlier epoch of the slice to do, which then goes on: as long as variants are dealt alike
    they are alike at any time, and a pause biases nothing. None too where fewer than two are left, and without a slice.
    """
    slices = [epoch for epoch in epochs if epoch.is_uniform]
    alike = _alike(shares)
    if not slices or len(alike) < 2 or any(each.weights.keys() == alike.keys() for each in slices):
        return None
    last = slices[0]
    return Epoch(
        experiment_id=last.experiment_id,
        number=last.number - 1,
        starts_at=starts_at,
        weights=alike,
        segments=reallocate(
            AllocationMap.from_json(last.segments), dict.fromkeys(shares, 0.0) | alike
        ).to_json(),
    )


def _alike(shares: Mapping[str, float]) -> dict[str, float]:
    return normalise(dict.fromkeys((key for key, share in shares.items() if share > 0.0), 1.0), positive=True)


def prompt_of(name: str, prompt_name: str | None) -> str | None:
    """Return the prompt that the variants' versions belong to; a name that no prompt can have names none."""
    if prompt_name is not None:
        return check_name("prompt_name", prompt_name)
    try:
        return check_name("name", name)
    except InvalidInputError:
        return None


def check_plan(plan: object) -> AnalysisPlan:
    """Return the plan; a mapping of its fields is one as well, None the plan that says nothing special."""
    if isinstance(plan, AnalysisPlan):
        return plan
    return AnalysisPlan(**check_mapping("plan", {} if plan is None else plan))


def check_policy(policy: object) -> Policy | None:
    """Return the policy; a mapping of its fields, or of the criteria that `read_criteria` reads, is one as well."""
    if policy is None or isinstance(policy, Policy):
        return policy
    return read_criteria(check_mapping("policy", policy)).policy


def settled(experiment: PromptExperiment, declared: AnalysisPlan) -> dict[str, Any]:
    """Return the fields of an experiment that its policy settles, on the plan that was declared.

    Raises `InvalidInputError` where the policy and the plan do not fit together.
    """
    policy = experiment.policy
    if policy is None:
        return {"plan": declared, "declared_plan": None, "policy_digest": None}
    plan = policy.planned(declared, primary_metric=experiment.primary_metric)
    return {"plan": plan, "declared_plan": declared, "policy_digest": policy.digest}


def reached_step(ramp: Sequence[RampStep], traffic: float) -> int:
    """Return the last step of a ramp whose traffic is not above this, else the first."""
    return max((index for index, step in enumerate(ramp) if step.traffic <= traffic), default=0)


class Variants(NamedTuple):
    served: tuple[PromptVariant, ...]
    shadows: tuple[PromptVariant, ...]


def check_variants(variants: Sequence[PromptVariant | Mapping[str, Any]]) -> Variants:
    given = check_items("variants", variants)
    arms = tuple(v if isinstance(v, PromptVariant) else _variant_of(v) for v in given)
    if len(arms) < 2:
        raise InvalidInputError(
            "variants", len(arms), "at least two variants", "an experiment compares something"
        )
    served = tuple(variant for variant in arms if variant.shadow is None)
    if not served:
        raise InvalidInputError(
            "variants",
            arms[0].key,
            "a variant that is served among them",
            "a shadow runs beside what is served",
        )
    keys = [variant.key for variant in arms]
    if repeated := next((key for key in keys if keys.count(key) > 1), None):
        raise InvalidInputError(
            "variants", repeated, "used once", "give variants of the same version keys of their own"
        )
    return Variants(served, tuple(variant for variant in arms if variant.shadow is not None))


def _variant_of(fields: object) -> PromptVariant:
    if not isinstance(fields, Mapping):
        raise InvalidInputError("variants", fields, "a PromptVariant or a mapping of its fields")
    try:
        return PromptVariant(**fields)
    except TypeError as error:
        raise InvalidInputError(
            "variants",
            dict(fields),
            "a variant",
            f"its fields are version, weight, description, key, config, metadata, shadow ({error})",
        ) from None


def check_split(split: Mapping[str, float] | None, arms: Sequence[PromptVariant]) -> dict[str, float]:
    keys = [variant.key for variant in arms]
    if split is None:
        return normalise({variant.key: variant.weight for variant in arms}, positive=True)
    for key in check_mapping("traffic_split", split):
        check_key("traffic_split", key, keys)
    if missing := [key for key in keys if key not in split]:
        raise InvalidInputError("traffic_split", missing[0], "given a weight", "name every variant")
    return normalise({key: split[key] for key in keys}, positive=True)


def check_key(field: str, key: str, keys: Sequence[str]) -> str:
    if key not in keys:
        raise InvalidInputError(field, key, f"one of the variants {', '.join(keys)}")
    return key


def check_shadow_key(experiment: PromptExperiment, key: str) -> None:
    if experiment.shadow(key) is None:
        keys = ", ".join(shadow.key for shadow in experiment.shadows) or "none"
        raise InvalidInputError("variant", key, f"one of the experiment's shadows: {keys}")


def check_unit_kind(unit: str) -> UnitKind:
    for kind in get_args(UnitKind):
        if unit == kind:
            return kind  # type: ignore[no-any-return]
    raise InvalidInputError("unit", unit, f"one of {', '.join(get_args(UnitKind))}")


def check_where(where: str | None) -> str | None:
    if where is not None:
        from promptab.templates import compile_condition  # noqa: PLC0415 - see promptab.templates

        compile_condition(where)
    return where


def check_schedule(experiment: PromptExperiment, now: datetime) -> None:
    if experiment.ends_at is not None and experiment.ends_at <= max(experiment.starts_at or now, now):
        raise InvalidInputError(
            "ends_at", experiment.ends_at.isoformat(), "later than its start and than now"
        )


def with_shadow_share(
    experiment: PromptExperiment, key: str, share: float, now: datetime
) -> PromptExperiment:
    """Return the experiment with a shadow on another share from now on; before its start, from the start on."""
    if experiment.started_at is None:
        history: tuple[tuple[datetime, float], ...] = ((now, share),)
    else:
        history = (*experiment.shadow_history.get(key, ()), (now, share))
    return experiment.model_copy(update={"shadow_history": {**experiment.shadow_history, key: history}})


def next_epoch(
    epochs: Sequence[Epoch], shares: Mapping[str, float], *, evict: bool, starts_at: datetime
) -> Epoch:
    last = epochs[-1]
    empty = {key for key, share in shares.items() if share == 0.0}
    return Epoch(
        experiment_id=last.experiment_id,
        number=last.number + 1,
        starts_at=starts_at,
        weights=shares,
        segments=reallocate(AllocationMap.from_json(last.segments), shares).to_json(),
        evicted=tuple(sorted(empty if evict else empty & set(last.evicted))),
    )
