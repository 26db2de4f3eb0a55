"""What an event may carry: the checks of its measures, and which of them have an argument of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from promptab.checks import MAX_METRICS_PER_EVENT, check_count, check_name, check_number
from promptab.errors import InvalidInputError
from promptab.models import Tokens

TokensInput = int | Mapping[str, int | None] | Tokens | None

_OWN_ARGUMENTS = {
    "success": "success",
    "success_rate": "success",
    "error_rate": "success",
    "response_time": "response_time",
    "p95_response_time": "response_time",
    "tokens": "tokens",
    "cost": "cost",
    "rating": "user_rating",
    "user_rating": "user_rating",
}
"""Metrics that have an argument of their own, and so no second place among the named ones."""


def check_success(success: object) -> bool | None:
    if success is None or isinstance(success, bool):
        return success
    raise InvalidInputError("success", success, "True, False or None")


def check_optional(field: str, value: object, *, low: float, high: float = float("inf")) -> float | None:
    return None if value is None else check_number(field, value, low=low, high=high)


def check_tokens(tokens: TokensInput) -> Tokens | None:
    if tokens is None:
        return None
    if isinstance(tokens, int):
        return Tokens(total=check_count("tokens", tokens))
    if not isinstance(tokens, (Tokens, Mapping)):
        raise InvalidInputError("tokens", tokens, "a whole number, or the parts input, cached_input, output")
    given = tokens.model_dump() if isinstance(tokens, Tokens) else dict(tokens)
    if unknown := sorted(set(given) - set(Tokens.model_fields)):
        raise InvalidInputError("tokens", unknown[0], f"one of {', '.join(Tokens.model_fields)}")
    counts = {
        part: check_count(f"tokens.{part}", count) for part, count in given.items() if count is not None
    }
    parts = sum(count for part, count in counts.items() if part != "total")
    if "total" not in counts and {"input", "output"} <= set(counts):
        counts["total"] = parts
    if counts.get("total", parts) < parts:
        raise InvalidInputError("tokens.total", counts["total"], f"at least {parts}, the sum of its parts")
    return Tokens(**counts)


def check_metrics(metrics: Mapping[str, float] | None) -> dict[str, float]:
    if not metrics:
        return {}
    if len(metrics) > MAX_METRICS_PER_EVENT:
        raise InvalidInputError(
            "metrics", f"{len(metrics)} metrics", f"at most {MAX_METRICS_PER_EVENT} metrics"
        )
    for name in metrics:
        if (own := _OWN_ARGUMENTS.get(check_name("metrics", name))) is not None:
            raise InvalidInputError("metrics", name, "a named metric", f"pass it as the argument {own}")
    return {name: check_number(f"metrics[{name}]", value) for name, value in metrics.items()}


def outcome_fields(metric: str, value: float) -> dict[str, Any]:
    """Return the fields of the event that carries this one outcome."""
    match _OWN_ARGUMENTS.get(check_name("metric_name", metric)):
        case None:
            return {"metrics": {metric: value}}
        case "success":
            if value not in {0.0, 1.0} or metric == "error_rate":
                raise InvalidInputError(
                    "metric_value",
                    value,
                    f"1 or 0 for {metric}",
                    "record `success`; rates are worked out from it",
                )
            return {"success": value == 1.0}
        case "response_time":
            return {"response_time": check_number("metric_value", value, low=0.0)}
        case "cost":
            return {"cost": check_number("metric_value", value, low=0.0)}
        case "user_rating":
            return {"user_rating": check_number("metric_value", value, low=1.0, high=5.0)}
        case _:
            return {
                "tokens": Tokens(
                    total=check_count("metric_value", int(value) if value == int(value) else value)
                )
            }
