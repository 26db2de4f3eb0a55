"""Policies as people have written them down before: criteria with guardrails, test criteria, an `ab_testing` block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from promptab.checks import check_mapping, check_number
from promptab.errors import InvalidInputError
from promptab.guardrails import Flag, Guardrail
from promptab.models import UnitKind
from promptab.plan import MINIMUM_UNITS, AnalysisPlan
from promptab.policy import Count, Policy
from promptab.records import Declared, Number
from promptab.stats.metric import BUILT_IN_METRICS, Direction

_UNITS: Mapping[str, UnitKind] = {"user_hash": "user", "feature_hash": "features", "random": "request"}
_LATENCY = "response_time"


class Criteria(NamedTuple):
    """What such a document says: what is done, and how it is analysed."""

    policy: Policy
    plan: AnalysisPlan


class AbTesting(NamedTuple):
    """What an `ab_testing` block says: the defaults of every experiment."""

    enabled: bool
    policy: Policy
    plan: AnalysisPlan
    unit: UnitKind
    """What is randomised: `user_hash` is a user, `feature_hash` a set of features, and `random` a request."""
    hash_seed: str
    """Part of every experiment's salt; empty for none."""
    check_interval_hours: float | None
    """Between two looks of `promptab watch`; None: as often as it looks by itself."""
    alert_on_significant_result: bool
    alert_on_sample_size_reached: bool


def read_criteria(document: Mapping[str, Any]) -> Criteria:
    """Read a policy in its own fields, or in one of two shapes that are read as they stand:

    - `{"primary_metric": {"name", "threshold", "direction"}, "guardrails": [{"name", "max_regression" or
      "max_increase" or "max_decrease"}]}`: amounts are shares of the control's value, `latency` is `response_time`
    - `{"criteria": {"min_requests", "max_error_rate", "max_latency_ms", "min_improvement"}}`: the success rate
      decides, the mean response time and the error rate have absolute bounds, and each variant needs so many requests

    Raises `InvalidInputError` for anything else.
    """
    given = check_mapping("policy", document)
    if "criteria" in given:
        return Criteria(TestCriteriaDocument.model_validate(given).criteria.policy(), AnalysisPlan())
    if isinstance(given.get("primary_metric"), Mapping):
        return Criteria(DecisionCriteria.model_validate(given).policy(), AnalysisPlan())
    return Criteria(Policy.model_validate(given), AnalysisPlan())


def read_ab_testing(document: Mapping[str, Any]) -> AbTesting:
    """Read an `ab_testing` block, with or without that key around it; what it leaves out has the defaults shown there,
    and looks are as frequent as without it.

    `significance_level` is alpha, `effect_size_threshold` the smallest effect as a share of the control's value,
    `min_sample_size_per_group` the plan's `minimum_units`, and `power` the plan's. A winner is promoted where
    `auto_promote_winner` is true, ends its experiment where only `auto_stop_on_significance` is, and is told otherwise;
    without `early_stopping_enabled` nothing is promoted or stopped for its results before `max_duration_days` have
    passed.

    Raises `InvalidInputError` for unknown keys and values.
    """
    given = check_mapping("ab_testing", document)
    return AbTestingBlock.model_validate(given.get("ab_testing", given)).settled()


class PrimaryMetric(Declared):
    name: str
    threshold: Number | None = None
    direction: Direction | None = None


class GuardrailCriterion(Declared):
    name: str
    max_regression: Number | None = None
    max_increase: Number | None = None
    max_decrease: Number | None = None

    def guardrail(self) -> Guardrail:
        amounts: dict[str, tuple[float | None, Direction | None]] = {
            "max_regression": (self.max_regression, None),
            "max_increase": (self.max_increase, "decrease"),
            "max_decrease": (self.max_decrease, "increase"),
        }
        given = [(amount, direction) for amount, direction in amounts.values() if amount is not None]
        if len(given) != 1:
            raise InvalidInputError(
                f"guardrails[{self.name}]", None, f"given exactly one of {', '.join(amounts)}"
            )
        amount, direction = given[0]
        metric = _known_name(self.name)
        if direction is None and metric not in BUILT_IN_METRICS:
            remedy = "write max_increase or max_decrease, whichever is the change for the worse"
            raise InvalidInputError(
                f"guardrails[{self.name}].max_regression", self.name, "a built-in metric", remedy
            )
        return Guardrail(metric=metric, largest_regression=amount, direction=direction)


class DecisionCriteria(Declared):
    primary_metric: PrimaryMetric
    guardrails: tuple[GuardrailCriterion, ...] = ()

    def policy(self) -> Policy:
        return Policy(
            primary_metric=_known_name(self.primary_metric.name),
            direction=self.primary_metric.direction,
            smallest_effect=self.primary_metric.threshold or None,
            guardrails=tuple(each.guardrail() for each in self.guardrails),
        )


class TestCriteria(Declared):
    min_requests: Count = 0
    max_error_rate: Number | None = None
    max_latency_ms: Number | None = None
    min_improvement: Number | None = None

    def policy(self) -> Policy:
        guardrails = []
        if self.max_error_rate is not None:
            guardrails.append(Guardrail(metric="error_rate", at_most=self.max_error_rate))
        if self.max_latency_ms is not None:
            guardrails.append(Guardrail(metric=_LATENCY, at_most=self.max_latency_ms / 1000.0))
        return Policy(
            smallest_effect=self.min_improvement or None,
            guardrails=tuple(guardrails),
            minimum_events=self.min_requests,
        )


class TestCriteriaDocument(Declared):
    criteria: TestCriteria


class DefaultSettings(Declared):
    significance_level: Number = 0.05
    power: Number = 0.8
    min_sample_size_per_group: Count = MINIMUM_UNITS
    max_duration_days: Number | None = None


class TrafficAllocation(Declared):
    method: Literal["user_hash", "feature_hash", "random"] = "user_hash"
    hash_seed: str = ""


class StatisticalTests(Declared):
    multiple_testing_correction: Literal["bonferroni", "holm"] = "holm"
    """Either keeps alpha for all variants together: Holm's, which is used, is never the stricter."""
    effect_size_threshold: Number | None = None


class Automation(Declared):
    auto_stop_on_significance: Flag = False
    auto_promote_winner: Flag = False
    early_stopping_enabled: Flag = True


class Monitoring(Declared):
    check_interval_hours: Annotated[Number, Field(gt=0.0, le=24.0 * 7)] | None = None
    alert_on_significant_result: Flag = True
    alert_on_sample_size_reached: Flag = True


class AbTestingBlock(Declared):
    enabled: Flag = True
    default_settings: DefaultSettings = Field(default_factory=DefaultSettings)
    traffic_allocation: TrafficAllocation = Field(default_factory=TrafficAllocation)
    statistical_tests: StatisticalTests = Field(default_factory=StatisticalTests)
    automation: Automation = Field(default_factory=Automation)
    monitoring: Monitoring = Field(default_factory=Monitoring)

    def settled(self) -> AbTesting:
        defaults, automation, monitoring = self.default_settings, self.automation, self.monitoring
        longest = None if defaults.max_duration_days is None else 24.0 * defaults.max_duration_days
        if longest is None and not automation.early_stopping_enabled:
            field = "ab_testing.default_settings.max_duration_days"
            raise InvalidInputError(
                field, None, "given where early_stopping_enabled is false", "say when it ends"
            )
        policy = Policy(
            alpha=defaults.significance_level,
            guardrail_alpha=defaults.significance_level,
            smallest_effect=self.statistical_tests.effect_size_threshold or None,
            shortest_hours=0.0 if automation.early_stopping_enabled or longest is None else longest,
            longest_hours=longest,
            on_win="promote"
            if automation.auto_promote_winner
            else "stop"
            if automation.auto_stop_on_significance
            else "notify",
        )
        return AbTesting(
            enabled=self.enabled,
            policy=policy,
            plan=AnalysisPlan(
                minimum_units=defaults.min_sample_size_per_group,
                power=check_number("ab_testing.default_settings.power", defaults.power, above=0.0, below=1.0),
            ),
            unit=_UNITS[self.traffic_allocation.method],
            hash_seed=self.traffic_allocation.hash_seed,
            check_interval_hours=monitoring.check_interval_hours,
            alert_on_significant_result=monitoring.alert_on_significant_result,
            alert_on_sample_size_reached=monitoring.alert_on_sample_size_reached,
        )


def _known_name(name: str) -> str:
    return {"latency": _LATENCY}.get(name, name)
