"""What is done on the evidence: when traffic grows, what is promoted, and what is rolled back."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, model_validator

from promptab.checks import MAX_MEASURE, check_count, check_name, check_number
from promptab.errors import InvalidInputError
from promptab.guardrails import Flag, Guardrail
from promptab.plan import AnalysisPlan
from promptab.records import Declared, Number
from promptab.stats.metric import BUILT_IN_METRICS, Direction, MeasureName, MetricDefinition

OnWin = Literal["promote", "notify", "require_approval", "stop"]
OnFailedGuardrail = Literal["rollback", "pause"]
OnMismatch = Literal["pause", "notify"]

Count = Annotated[int, Field(strict=True)]

T = TypeVar("T")

MOST_HOURS = 24.0 * 366 * 10


class RampStep(Declared):
    """A step of the ramp. May be written as its traffic alone: 0.1."""

    traffic: Number
    """The share of all units that are in the experiment, above 0 and at most 1. Weights stay as they are, so at
    50/50 half of them meet the candidate."""
    minimum_units: Count = 100
    """Units of each variant, control included, that have to be exposed during this step before the next."""
    minimum_hours: Number = 0.0
    """Hours that this step lasts at least."""

    @model_validator(mode="before")
    @classmethod
    def _of_share(cls, given: Any) -> Any:
        return {"traffic": given} if isinstance(given, (int, float)) else given

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_number("ramp.traffic", self.traffic, above=0.0, high=1.0)
        check_count("ramp.minimum_units", self.minimum_units)
        check_number("ramp.minimum_hours", self.minimum_hours, low=0.0, high=MOST_HOURS)
        return self


class Policy(Declared):
    """How an experiment is acted upon. Frozen, with its digest, when the experiment starts.

    The plan says how outcomes are measured and analysed, the policy what is done about it; `planned` puts what the
    policy says of metrics and of alpha into the plan, where the analysis reads it. So each idea is declared once: in
    either of the two, or in both alike. Metrics, the measurement window and the units that are needed before anything
    wins (`minimum_units`) are the plan's; guardrails that the plan declares are watched as well.

    Raises `InvalidInputError` for what does not fit together.
    """

    primary_metric: MeasureName | None = None
    """What decides; None: the experiment's."""
    direction: Direction | None = None
    """Of the primary metric; None: as the plan has it."""
    smallest_effect: Number | None = None
    """The smallest improvement of the primary metric that is worth having: with less, nothing is promoted, and once
    as much is excluded the experiment ends. None: as the plan has it."""
    relative: Flag = True
    """Whether `smallest_effect` is a share of the control's value, or in the metric's own unit."""
    guardrails: tuple[Guardrail, ...] = ()
    alpha: Number = 0.05
    """The chance that a variant is promoted, or called worse, on the primary metric where none differs, over all
    looks: what the plan's confidence leaves to 1."""
    guardrail_alpha: Number = 0.05
    """The chance that any guardrail fails where none is broken, over all looks. Shared alike among guardrails and
    variants."""
    ramp: tuple[RampStep, ...] = ()
    """Ascending by traffic; empty: traffic stays as it is. Promotion comes after the last one."""
    shortest_hours: Number = 0.0
    """From the start: before, nothing is promoted and nothing is stopped for its results. Guardrails do not wait."""
    longest_hours: Number | None = None
    """From the start: then the experiment ends, with what is shown or without; None: never by itself."""
    minimum_events: Count = 0
    """Events of each variant that carried the primary metric, before anything is promoted."""
    allow_approximate: Flag = False
    """Promote on a sequential analysis without a measurement window, whose alpha is not exact."""
    on_win: OnWin = "promote"
    """`notify`: it is said, and a person acts; `require_approval`: it is promoted once a person has approved;
    `stop`: the experiment ends, with a winner, and production stays as it is."""
    on_failed_guardrail: OnFailedGuardrail = "rollback"
    on_mismatch: OnMismatch = "pause"
    """When units were not dealt as the weights say, or outcomes are lost unevenly. `notify`: it is said, and nothing
    grows or is promoted while it lasts."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.primary_metric is not None:
            check_name("policy.primary_metric", self.primary_metric)
        if self.smallest_effect is not None:
            check_number("policy.smallest_effect", self.smallest_effect, above=0.0, high=MAX_MEASURE)
        check_number("policy.alpha", self.alpha, low=0.0001, high=0.49)
        check_number("policy.guardrail_alpha", self.guardrail_alpha, low=0.0001, high=0.49)
        check_count("policy.minimum_events", self.minimum_events)
        self._check_guardrails()
        self._check_times()
        return self

    def _check_guardrails(self) -> None:
        kinds = [(guardrail.metric, guardrail.kind) for guardrail in self.guardrails]
        if repeated := [kind for kind in kinds if kinds.count(kind) > 1]:
            metric, kind = repeated[0]
            raise InvalidInputError("policy.guardrails", metric, f"declared once with {kind}")

    def _check_times(self) -> None:
        check_number("policy.shortest_hours", self.shortest_hours, low=0.0, high=MOST_HOURS)
        if self.longest_hours is not None:
            check_number("policy.longest_hours", self.longest_hours, above=0.0, high=MOST_HOURS)
            if self.shortest_hours > self.longest_hours:
                bound = f"at most longest_hours, {self.longest_hours:g}"
                raise InvalidInputError("policy.shortest_hours", self.shortest_hours, bound)
        for before, after in zip(self.ramp, self.ramp[1:], strict=False):
            if after.traffic <= before.traffic:
                bound = f"above that of the step before, {before.traffic:g}"
                raise InvalidInputError("policy.ramp.traffic", after.traffic, bound)

    @property
    def digest(self) -> str:
        """The SHA-256 of everything that is not left at its default, in hex; the same for the same policy."""
        # of the defaults too, it would change with each release that adds a field
        declared = self.model_dump(mode="json", exclude_defaults=True)
        canonical = json.dumps(declared, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def planned(self, plan: AnalysisPlan, *, primary_metric: str) -> AnalysisPlan:
        """Return the plan with what this policy says of its metrics and of alpha.

        `primary_metric` is the experiment's. Raises `InvalidInputError` for another primary metric, and where both
        say something, and not the same; and for an `at_least` of what a unit has in all, without a measurement window.
        """
        if self.primary_metric not in {None, primary_metric}:
            bound = f"the experiment's primary metric, {primary_metric}"
            raise InvalidInputError("policy.primary_metric", self.primary_metric, bound, "name it once")
        metrics = {metric.name: metric for metric in plan.metrics}
        known = metrics.keys() | BUILT_IN_METRICS.keys()
        if self.direction is not None or self.smallest_effect is not None:
            metrics[primary_metric] = self._primary(
                plan.definition(primary_metric), is_known=primary_metric in known
            )
        for guardrail in self.guardrails:
            name = guardrail.metric
            definition = metrics.get(name) or plan.definition(name)
            _check_settles(definition, guardrail, plan)
            metrics[name] = _guarded(
                definition, guardrail, is_known=name in known, is_primary=name == primary_metric
            )
        confidence = self._confidence(plan)
        return plan.model_copy(update={"confidence": confidence, "metrics": tuple(metrics.values())})

    def watched(self, plan: AnalysisPlan, *, primary_metric: str) -> tuple[Guardrail, ...]:
        """Return all guardrails: this policy's, then those that only the plan declares."""
        own = {guardrail.metric for guardrail in self.guardrails if not guardrail.is_absolute}
        declared = [
            Guardrail(
                metric=metric.name,
                largest_regression=metric.largest_regression,
                relative=metric.relative,
                direction=metric.direction,
            )
            for metric in plan.metrics
            if metric.role == "guardrail" and metric.name not in own | {primary_metric}
        ]
        return (*self.guardrails, *declared)

    def _confidence(self, plan: AnalysisPlan) -> float:
        confidence = 1.0 - self.alpha
        is_free = plan.confidence == AnalysisPlan.model_fields["confidence"].default
        if not is_free and not math.isclose(plan.confidence, confidence):
            bound = f"1 - plan.confidence, {1.0 - plan.confidence:.4g}"
            raise InvalidInputError("policy.alpha", self.alpha, bound, "declare it once")
        return confidence

    def _primary(self, definition: MetricDefinition, *, is_known: bool) -> MetricDefinition:
        said: dict[str, Any] = {}
        if self.direction is not None:
            said["direction"] = _agreed(
                "policy.direction", self.direction, None if not is_known else definition.direction
            )
        if self.smallest_effect is not None:
            said["smallest_effect"] = _agreed(
                "policy.smallest_effect", self.smallest_effect, definition.smallest_effect
            )
            said["relative"] = _agreed("policy.relative", self.relative, _planned_relative(definition))
        return definition.model_copy(update=said)


def _check_settles(definition: MetricDefinition, guardrail: Guardrail, plan: AnalysisPlan) -> None:
    """Refuse a least total of units that count before anything can have come of them: it would fail for that."""
    if plan.window_hours is not None or definition.kind not in {"mean_per_unit", "share_of_units"}:
        return
    if guardrail.kind == "at_least":
        remedy = (
            "declare one, as plan={'window_hours': 24}: without it a unit that has only just come counts as one that "
            "never will have more; or hold it against the control, whose units are as new"
        )
        raise InvalidInputError(
            f"policy.guardrails[{guardrail.metric}]",
            guardrail.text,
            "given with a measurement window",
            remedy,
        )


def _guarded(
    definition: MetricDefinition, guardrail: Guardrail, *, is_known: bool, is_primary: bool
) -> MetricDefinition:
    """Return the metric as the analysis has to know it, for the guardrail to be watched."""
    field = f"policy.guardrails[{guardrail.metric}]"
    said: dict[str, Any] = {}
    if guardrail.direction is not None:
        said["direction"] = _agreed(
            f"{field}.direction", guardrail.direction, None if not is_known else definition.direction
        )
    # a primary metric that wins has no regression, and with a margin of 0 there is none to exclude
    if not guardrail.is_absolute and guardrail.amount > 0.0 and not is_primary:
        said["role"] = "guardrail"
        said["largest_regression"] = _agreed(
            f"{field}.largest_regression", guardrail.amount, definition.largest_regression
        )
        said["relative"] = _agreed(f"{field}.relative", guardrail.relative, _planned_relative(definition))
    return definition.model_copy(update=said)


def _planned_relative(definition: MetricDefinition) -> bool | None:
    """Return how the plan's amounts are meant; None where it has none."""
    has_amounts = definition.largest_regression is not None or definition.smallest_effect is not None
    return definition.relative if has_amounts else None


def _agreed(field: str, said: T, planned: T | None) -> T:
    """Return what is said here, unless the plan says something else."""
    if planned is not None and planned != said:
        raise InvalidInputError(field, said, f"what the plan has, {planned}", "declare it once")
    return said
