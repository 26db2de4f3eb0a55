"""What is settled about an analysis before it starts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from promptab.errors import InvalidInputError
from promptab.plan import MINIMUM_UNITS, TUNING_UNITS, AnalysisPlan
from promptab.stats.metric import BUILT_IN_METRICS, MetricDefinition

turns = MetricDefinition(name="turns", direction="decrease", role="guardrail", largest_regression=0.1)


def test_a_plan_that_says_nothing_has_defaults_that_are_safe() -> None:
    plan = AnalysisPlan()
    assert (plan.metrics, plan.window_hours, plan.confidence) == ((), None, 0.95)
    assert (plan.tuning_units, plan.minimum_units) == (TUNING_UNITS, MINIMUM_UNITS)
    assert 0.0 < plan.acceptable_loss < 0.05


def test_a_plan_survives_json() -> None:
    plan = AnalysisPlan(
        metrics=(turns, MetricDefinition(name="p50", kind="quantile", quantile=0.5)),
        window_hours=24.0,
        confidence=0.99,
        tuning_units=800,
        minimum_units=30,
        acceptable_loss=0.01,
    )
    assert AnalysisPlan.model_validate_json(plan.model_dump_json()) == plan
    assert AnalysisPlan.model_validate(plan.model_dump(mode="json")) == plan


def test_metrics_may_be_written_as_plain_mappings() -> None:
    written: Any = [{"name": "calls", "kind": "ratio", "denominator": "success"}]
    plan = AnalysisPlan(metrics=written)
    assert plan.metrics == (MetricDefinition(name="calls", kind="ratio", denominator="success_rate"),)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("confidence", 0.0),
        ("confidence", 1.0),
        ("confidence", 95.0),
        ("confidence", -0.1),
        ("confidence", math.nan),
        ("window_hours", 0.0),
        ("window_hours", -1.0),
        ("window_hours", math.inf),
        ("tuning_units", 1),
        ("tuning_units", 10**13),
        ("minimum_units", 1),
        ("minimum_units", -5),
        ("acceptable_loss", 0.0),
        ("acceptable_loss", 1.5),
        ("acceptable_loss", math.nan),
    ],
)
def test_a_number_beyond_its_bounds_is_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(InvalidInputError) as caught:
        AnalysisPlan(**{field: value})  # type: ignore[arg-type]
    assert caught.value.field == f"plan.{field}"
    assert caught.value.value is value or caught.value.value == value


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"tuning_units": 2.5}, "AnalysisPlan.tuning_units"),
        ({"confidence": "high"}, "AnalysisPlan.confidence"),
        ({"window_hours": True}, "AnalysisPlan.window_hours"),
        ({"minimum_units": True}, "plan.minimum_units"),
        ({"metrics": 5}, "AnalysisPlan.metrics"),
        ({"alpha": 0.05}, "AnalysisPlan.alpha"),
    ],
    ids=str,
)
def test_what_is_no_plan_is_refused_by_name(values: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        AnalysisPlan(**values)
    assert caught.value.field == field


@pytest.mark.parametrize("read", [AnalysisPlan.model_validate, lambda plan: AnalysisPlan(**plan)])
def test_a_fault_in_a_metric_is_told_as_the_metrics_own(
    read: Callable[[dict[str, Any]], AnalysisPlan],
) -> None:
    with pytest.raises(InvalidInputError, match=r"^metrics\[calls\]\.denominator is not given"):
        read({"metrics": [{"name": "calls", "kind": "ratio"}]})


@pytest.mark.parametrize("again", ["turns", "success"])
def test_a_metric_declared_twice_is_refused(again: str) -> None:
    metrics = turns, MetricDefinition(name="success_rate"), MetricDefinition(name=again)
    with pytest.raises(InvalidInputError) as caught:
        AnalysisPlan(metrics=metrics)
    assert (caught.value.field, caught.value.value) == ("plan.metrics", metrics[-1].name)


def test_a_plan_does_not_change() -> None:
    plan = AnalysisPlan()
    with pytest.raises(ValidationError, match="frozen"):
        plan.confidence = 0.5


def test_a_metric_is_what_was_declared() -> None:
    assert AnalysisPlan(metrics=(turns,)).definition("turns") == turns


def test_a_declaration_replaces_a_built_in_metric() -> None:
    longer = MetricDefinition(name="tokens", direction="increase")
    plan = AnalysisPlan(metrics=(longer,))
    assert plan.definition("tokens") == longer
    assert plan.definition("cost") == BUILT_IN_METRICS["cost"]


@pytest.mark.parametrize(
    ("name", "measure"),
    [("success", "success_rate"), ("success_rate", "success_rate"), ("user_rating", "rating")],
)
def test_a_built_in_metric_needs_no_declaration_by_either_of_its_names(name: str, measure: str) -> None:
    assert AnalysisPlan().definition(name) == BUILT_IN_METRICS[measure]


def test_any_other_metric_is_a_mean_that_is_better_when_it_increases() -> None:
    assert AnalysisPlan(metrics=(turns,)).definition("warmth") == MetricDefinition(name="warmth")


def test_a_metric_that_nobody_could_record_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"^metric\.name: 'two words'"):
        AnalysisPlan().definition("two words")
