"""What an event may carry: the checks of its measures, and which of them have an argument of their own."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from promptab.checks import (
    MAX_MEASURE,
    MAX_METRICS_PER_EVENT,
    check_count,
    check_event_time,
    check_json_object,
    check_label,
    check_mapping,
    check_name,
    check_number,
    check_unit,
    check_uuid,
)
from promptab.errors import InvalidInputError
from promptab.event_ids import new_event_id
from promptab.models import Tokens
from promptab.shadow_place import SHADOW_KEY, ShadowPlace
from promptab.stats.metric import MEASURE_ALIASES

TokensInput = int | Mapping[str, int | None] | Tokens | None

_DERIVED = {"p95_response_time": "response_time", "cost_per_success": "cost and success"}
"""Metrics that no event carries -> what to record for them."""

MAX_TOKENS = 10**12
"""Of one event: the sums of millions of events still fit into the 63 bits of a database."""

_NO_TOKENS: dict[str, int | None] = {"input": None, "cached_input": None, "output": None, "total": None}

_OWN_ARGUMENTS = {
    "success_rate": "success",
    "error_rate": "success",
    "response_time": "response_time",
    "tokens": "tokens",
    "cost": "cost",
    "rating": "user_rating",
}
"""Metrics that have an argument of their own, and so no second place among the named ones."""


def canonical_metric(field: str, name: object) -> str:
    """Return the one name of a metric: `success` is `success_rate`, and `user_rating` is `rating`.

    Raises `InvalidInputError` for what is no name of a metric.
    """
    checked = check_name(field, name)
    return MEASURE_ALIASES.get(checked, checked)


def measured_metric(field: str, name: object) -> str:
    """Return the canonical name of a metric that events carry themselves.

    Raises `InvalidInputError` as `canonical_metric` does, and for what is worked out from other measures.
    """
    canonical = canonical_metric(field, name)
    if canonical in _DERIVED:
        raise InvalidInputError(
            field,
            canonical,
            "a metric of its own",
            f"record {_DERIVED[canonical]}; it is worked out from that",
        )
    return canonical


def check_success(success: object) -> bool | None:
    if success is None or success is True or success is False:
        return success
    raise InvalidInputError("success", success, "True, False or None")


def check_measure(field: str, value: object, low: float = 0.0, high: float = MAX_MEASURE) -> float:
    # nearly every value is such a float, and passes by itself; NaN is in no range
    if type(value) is float and low <= value <= high:
        return value
    return check_number(field, value, low=low, high=high)


def check_tokens(tokens: TokensInput) -> Tokens:
    if isinstance(tokens, int):
        return _total_tokens(check_count("tokens", tokens, high=MAX_TOKENS))
    if not isinstance(tokens, (Tokens, Mapping)):
        raise InvalidInputError("tokens", tokens, "a whole number, or the parts input, cached_input, output")
    given = vars(tokens) if isinstance(tokens, Tokens) else dict(tokens)
    if unknown := [part for part in given if part not in _NO_TOKENS]:
        raise InvalidInputError("tokens", unknown[0], f"one of {', '.join(_NO_TOKENS)}")
    counts = {
        part: check_count(f"tokens.{part}", count, high=MAX_TOKENS)
        for part, count in given.items()
        if count is not None
    }
    if counts.keys() == {"total"}:
        return _total_tokens(counts["total"])
    parts = sum(count for part, count in counts.items() if part != "total")
    if "total" not in counts and {"input", "output"} <= set(counts):
        counts["total"] = parts
    if counts.get("total", parts) < parts:
        raise InvalidInputError("tokens.total", counts["total"], f"at least {parts}, the sum of its parts")
    return Tokens.of_checked({**_NO_TOKENS, **counts})


@lru_cache(maxsize=8_192)
def _total_tokens(total: int) -> Tokens:
    return Tokens.of_checked({**_NO_TOKENS, "total": total})


def check_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    given = check_mapping("metrics", metrics)
    if len(given) > MAX_METRICS_PER_EVENT:
        raise InvalidInputError(
            "metrics", f"{len(given)} metrics", f"at most {MAX_METRICS_PER_EVENT} metrics"
        )
    for name in given:
        if (own := _OWN_ARGUMENTS.get(measured_metric("metrics", name))) is not None:
            raise InvalidInputError("metrics", name, "a named metric", f"pass it as the argument {own}")
    return {name: _check_value(f"metrics[{name}]", value) for name, value in given.items()}


def _version(version_id: object) -> str | None:
    return None if version_id is None else check_uuid("version_id", version_id)


_known_version = lru_cache(maxsize=1_024)(_version)
"""The few versions that are in use are told with nearly every event."""


def use_fields(
    version_id: object,
    success: object = None,
    response_time: object = None,
    tokens: TokensInput = None,
    user_rating: object = None,
    metadata: Mapping[str, Any] | None = None,
    *,
    now: datetime,
    cost: object = None,
    metrics: Mapping[str, float] | None = None,
    user_id: object = None,
    event_id: object = None,
    timestamp: object = None,
    shadow: ShadowPlace | None = None,
) -> dict[str, Any]:
    """Return the fields of the event of one use, which are those of `MetricEvent` in their order.

    Experiment and variant are left to who knows them. With `shadow` it is a run in the shadow, and no other field
    says whose.
    """
    if shadow is not None:
        if version_id is not None or user_id is not None:
            raise InvalidInputError("shadow", shadow, "given alone", "it says whose run it is by itself")
        metadata = shadow_metadata(shadow, metadata)
    return {
        "event_id": new_event_id(now) if event_id is None else check_uuid("event_id", event_id),
        "kind": "use" if shadow is None else "shadow",
        "version_id": _known_version(version_id) if type(version_id) is str else _version(version_id),
        "success": success if success is True or success is False else check_success(success),
        "response_time": None if response_time is None else check_measure("response_time", response_time),
        "tokens": None if tokens is None else check_tokens(tokens),
        "user_rating": None if user_rating is None else check_measure("user_rating", user_rating, 1.0, 5.0),
        "cost": None if cost is None else check_measure("cost", cost),
        "metrics": {} if metrics is None else check_metrics(metrics),
        "metadata": {} if metadata is None or metadata == {} else check_json_object("metadata", metadata),
        "experiment_id": None,
        "variant": None,
        "user_id": None if user_id is None else check_unit("user_id", user_id),
        "timestamp": now if timestamp is None else check_event_time("timestamp", timestamp),
        "recorded_at": now,
        "flagged": False,
    }


def shadow_metadata(shadow: ShadowPlace, metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the caller's metadata with whose run it is. Raises `InvalidInputError` where that would hide a key."""
    own = check_json_object("metadata", {} if metadata is None else metadata)
    if SHADOW_KEY in own:
        raise InvalidInputError(
            "metadata", SHADOW_KEY, "a key of your own", "whose run it is is stored there: take another name"
        )
    return {**own, **shadow.metadata()}


def check_shadow(metadata: Mapping[str, Any]) -> None:
    """Refuse the metadata of an event of the kind "shadow" that do not say whose it is."""
    told = check_mapping(f"metadata.{SHADOW_KEY}", metadata.get(SHADOW_KEY))
    if unknown := sorted(map(str, told.keys() - set(ShadowPlace._fields))):
        raise InvalidInputError(
            f"metadata.{SHADOW_KEY}", unknown[0], f"one of {', '.join(ShadowPlace._fields)}"
        )
    for name in ("experiment_id", "version_id", "feedback_on", "beside"):
        if name == "experiment_id" or told.get(name) is not None:
            check_uuid(f"metadata.{SHADOW_KEY}.{name}", told.get(name))
    check_label(f"metadata.{SHADOW_KEY}.variant", told.get("variant"))
    check_unit(f"metadata.{SHADOW_KEY}.unit", told.get("unit"))


def outcome_fields(metric: object, value: object) -> dict[str, Any]:
    """Return the fields of the event that carries this one outcome."""
    name = measured_metric("metric_name", metric)
    number = _check_value("metric_value", value)
    match name:
        case "error_rate":
            raise InvalidInputError(
                "metric_name", name, "a metric of its own", "record success as 0 for an error and 1 for none"
            )
        case "success_rate":
            if number not in {0.0, 1.0}:
                raise InvalidInputError(
                    "metric_value",
                    number,
                    f"1 or 0 for {metric}",
                    "record success; rates are worked out from it",
                )
            return {"success": number == 1.0}
        case "response_time" | "cost":
            return {name: _check_value("metric_value", number, low=0.0)}
        case "rating":
            return {"user_rating": check_number("metric_value", number, low=1.0, high=5.0)}
        case "tokens":
            whole = int(number) if number == int(number) else number
            return {"tokens": Tokens(total=check_count("metric_value", whole, high=MAX_TOKENS))}
        case _:
            return {"metrics": {name: number}}


def _check_value(field: str, value: object, *, low: float = -MAX_MEASURE) -> float:
    return check_number(field, value, low=low, high=MAX_MEASURE)
