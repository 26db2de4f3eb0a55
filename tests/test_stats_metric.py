"""What a metric may be declared to be, and the metrics that need no declaration."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from promptab.errors import InvalidInputError
from promptab.stats.metric import BUILT_IN_METRICS, MEASURES, MetricDefinition

KINDS: dict[str, dict[str, Any]] = {
    "proportion": {},
    "mean": {},
    "mean_per_unit": {},
    "share_of_units": {},
    "ratio": {"denominator": "calls"},
    "quantile": {"quantile": 0.99},
}
"""What each kind cannot do without."""


def refused(**values: Any) -> InvalidInputError:
    with pytest.raises(InvalidInputError) as caught:
        MetricDefinition(**{"name": "turns", **values})
    return caught.value


def test_a_name_alone_declares_a_mean_that_is_better_when_it_increases() -> None:
    definition = MetricDefinition(name="turns")
    assert (definition.kind, definition.direction, definition.role) == ("mean", "increase", "secondary")
    assert (definition.source, definition.heading, definition.format) == ("turns", "turns", "number")


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_declared_with_what_it_needs(kind: str) -> None:
    definition = MetricDefinition(name="turns", **{"kind": kind, **KINDS[kind]})
    assert definition.kind == kind
    assert MetricDefinition.model_validate_json(definition.model_dump_json()) == definition


@pytest.mark.parametrize("kind", ["ratio", "quantile"])
def test_a_kind_without_what_it_needs_is_refused(kind: str) -> None:
    (needed,) = KINDS[kind]
    error = refused(kind=kind)
    assert (error.field, error.value) == (f"metrics[turns].{needed}", None)
    assert error.bound == f"given for the kind {kind}"
    assert error.remedy


@pytest.mark.parametrize(
    ("kind", "extra"),
    [(kind, extra) for kind in KINDS for extra in ("ratio", "quantile") if kind != extra],
)
def test_what_belongs_to_another_kind_is_refused(kind: str, extra: str) -> None:
    ((field, value),) = KINDS[extra].items()
    error = refused(**{"kind": kind, **KINDS[kind], field: value})
    assert (error.field, error.value) == (f"metrics[turns].{field}", value)
    assert error.bound == f"left out for the kind {kind}"


@pytest.mark.parametrize("cap", [{"cap": 5.0}, {"cap": 0.0}, {"cap_percentile": 0.99}], ids=str)
@pytest.mark.parametrize("kind", ["proportion", "share_of_units", "quantile"])
def test_what_one_huge_value_does_not_move_has_no_cap(kind: str, cap: dict[str, float]) -> None:
    error = refused(**{"kind": kind, **KINDS[kind], **cap})
    assert (error.field, error.value) == ("metrics[turns].cap", *cap.values())


@pytest.mark.parametrize("cap", [{"cap": 5.0}, {"cap": 0.0}, {"cap_percentile": 1.0}], ids=str)
@pytest.mark.parametrize("kind", ["mean", "mean_per_unit", "ratio"])
def test_what_one_huge_value_moves_may_have_a_cap(kind: str, cap: dict[str, float]) -> None:
    definition = MetricDefinition(name="turns", **{"kind": kind, **KINDS[kind], **cap})
    assert {field: getattr(definition, field) for field in cap} == cap


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("quantile", 0.0),
        ("quantile", 1.0),
        ("quantile", 95.0),
        ("quantile", math.nan),
        ("largest_regression", 0.0),
        ("largest_regression", -0.05),
        ("smallest_effect", 0.0),
        ("smallest_effect", math.inf),
        ("history_days", 0.0),
        ("history_days", math.nan),
        ("cap", math.inf),
        ("cap", 1e19),
        ("cap_percentile", 0.0),
        ("cap_percentile", 99.0),
        ("lowest", -math.inf),
        ("highest", math.nan),
    ],
)
def test_a_number_beyond_its_bounds_is_refused_by_name(field: str, value: float) -> None:
    kind = {"kind": "quantile"} if field == "quantile" else {}
    error = refused(**{**kind, field: value})
    assert error.field == f"metrics[turns].{field}"
    assert error.value is value or error.value == value
    assert str(error).startswith(f"metrics[turns].{field}: ")


@pytest.mark.parametrize("bounds", [(1.0, 0.0), (1.0, 1.0)], ids=str)
def test_bounds_in_the_wrong_order_are_refused(bounds: tuple[float, float]) -> None:
    error = refused(lowest=bounds[0], highest=bounds[1])
    assert (error.field, error.value) == ("metrics[turns].highest", bounds[1])
    assert "1" in error.bound, "the other bound is named"


def test_a_guardrail_says_how_much_worse_is_tolerated() -> None:
    error = refused(role="guardrail")
    assert (error.field, error.value, error.bound) == (
        "metrics[turns].largest_regression",
        None,
        "given for a guardrail",
    )
    definition = MetricDefinition(name="turns", role="guardrail", largest_regression=0.02)
    assert definition.relative


@pytest.mark.parametrize(
    ("values", "field", "said"),
    [
        ({"name": ""}, "metric.name", "1 to 128 characters"),
        ({"name": "two words"}, "metric.name", "1 to 128 characters"),
        ({"name": 3}, "MetricDefinition.name", "valid string"),
        ({"kind": "average"}, "MetricDefinition.kind", "'mean'"),
        ({"direction": "down"}, "MetricDefinition.direction", "'decrease'"),
        ({"role": "primary"}, "MetricDefinition.role", "'guardrail'"),
        ({"measure": "a b"}, "metrics[turns].measure", "1 to 128 characters"),
        ({"kind": "ratio", "denominator": "-"}, "metrics[turns].denominator", "1 to 128 characters"),
        ({"label": "a\x00b"}, "metrics[turns].label", "control"),
        ({"smallest_effect": "much"}, "MetricDefinition.smallest_effect", "valid number"),
        ({"smallest_effect": True}, "MetricDefinition.smallest_effect", "valid number"),
        ({"unit": "calls"}, "MetricDefinition.unit", "is not known: MetricDefinition has name, kind"),
    ],
    ids=str,
)
def test_what_is_no_declaration_is_refused_by_name(values: dict[str, Any], field: str, said: str) -> None:
    error = refused(**values)
    assert error.field == field
    assert said in str(error)


def test_a_declaration_without_a_name_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"^MetricDefinition\.name: .* field required$"):
        MetricDefinition(kind="mean")  # type: ignore[call-arg]


def test_a_stored_declaration_is_refused_like_a_written_one() -> None:
    with pytest.raises(InvalidInputError, match=r"^metrics\[x\]\.denominator is not given"):
        MetricDefinition.model_validate({"name": "x", "kind": "ratio"})


def test_a_declaration_does_not_change() -> None:
    definition = MetricDefinition(name="turns")
    with pytest.raises(ValidationError, match="frozen"):
        definition.direction = "decrease"


@pytest.mark.parametrize(("alias", "measure"), [("success", "success_rate"), ("user_rating", "rating")])
def test_what_an_event_calls_it_is_the_measure(alias: str, measure: str) -> None:
    assert measure in MEASURES
    assert MetricDefinition(name=alias).name == measure
    assert MetricDefinition(name="mine", measure=alias).source == measure
    assert (
        MetricDefinition(name="mine", kind="ratio", measure="cost", denominator=alias).denominator == measure
    )


def test_a_metric_is_computed_from_its_own_measure_or_the_one_it_names() -> None:
    assert MetricDefinition(name="turns").source == "turns"
    assert MetricDefinition(name="slow_turns", measure="turns").source == "turns"


def test_the_sign_turns_what_is_better_upwards() -> None:
    assert MetricDefinition(name="turns").sign == 1.0
    assert MetricDefinition(name="turns", direction="decrease").sign == -1.0


def test_a_label_is_the_heading() -> None:
    assert MetricDefinition(name="turns", label="Turns until solved").heading == "Turns until solved"


def test_built_in_metrics_know_which_way_is_better() -> None:
    assert {name: metric.direction for name, metric in BUILT_IN_METRICS.items()} == {
        "success_rate": "increase",
        "error_rate": "decrease",
        "response_time": "decrease",
        "p95_response_time": "decrease",
        "tokens": "decrease",
        "cost": "decrease",
        "cost_per_success": "decrease",
        "rating": "increase",
    }


def test_built_in_metrics_are_made_of_measures_that_events_have() -> None:
    for name, metric in BUILT_IN_METRICS.items():
        assert metric.name == name
        assert metric.source in MEASURES or name == "error_rate"
        assert metric.denominator is None or metric.denominator in MEASURES
        assert metric.heading != name, "people are shown a heading"


def test_built_in_metrics_are_of_the_kinds_that_their_names_say() -> None:
    kinds = {name: metric.kind for name, metric in BUILT_IN_METRICS.items()}
    assert (kinds["success_rate"], kinds["error_rate"]) == ("proportion", "proportion")
    assert (kinds["cost"], kinds["cost_per_success"]) == ("mean", "ratio")
    p95 = BUILT_IN_METRICS["p95_response_time"]
    assert (p95.kind, p95.quantile, p95.source) == ("quantile", 0.95, "response_time")
