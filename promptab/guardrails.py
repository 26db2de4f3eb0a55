"""Guardrails: what must not get worse, as fields or as a line of text such as "p95_response_time <= 2.0"."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from promptab.checks import MAX_MEASURE, check_name, check_number
from promptab.errors import InvalidInputError
from promptab.records import Declared, Number
from promptab.stats.metric import BUILT_IN_METRICS, Direction, MeasureName

GuardrailKind = Literal["at_least", "at_most", "largest_regression"]
_KINDS: tuple[GuardrailKind, ...] = ("at_least", "at_most", "largest_regression")

_SPOKEN_METRICS = {"cost_per_call": "cost", "cost_per_request": "cost"}
"""What people say in words -> the metric's name, where that is not the words themselves."""

_BOUND = re.compile(r"(?P<metric>.+?)\s*(?P<sign>>=|<=)\s*(?P<amount>[^\s%]+)\s*(?P<percent>%?)")
_MARGIN = re.compile(
    r"(?P<metric>.+?)\s*(?P<sign>>=|<=)\s*control(?:\s*(?P<step>[-+])\s*(?P<amount>[^\s%]+)\s*(?P<percent>%?))?"
)
_FORMS = (
    "as 'success_rate >= 0.8', 'p95_response_time <= 2.0', 'success_rate >= control - 2%' "
    "or 'cost <= control + 0.01'"
)
_AWAY: Mapping[str, str] = {">=": "-", "<=": "+"}

Flag = Annotated[bool, Field(strict=True)]


class Guardrail(Declared):
    """A metric that a variant must not make worse: than a bound, or than the control by more than a margin.

    Exactly one of `at_least`, `at_most` and `largest_regression` is given. As text: "success_rate >= 0.8", "cost per
    call <= 0.01", "success_rate >= control - 2%" (of the control's value), "response_time <= control + 0.2" (in the
    metric's own unit), "error_rate <= control". Raises `InvalidInputError` for anything else.
    """

    metric: MeasureName
    at_least: Number | None = None
    at_most: Number | None = None
    """Absolute: where the variant's own value has to be. Fails once it is shown not to be there; nothing is promoted
    before it is shown to be there."""
    largest_regression: Number | None = None
    """Relative to the control at the same time: the largest change for the worse that is tolerated. Fails once a
    larger one is shown; nothing is promoted before a larger one is excluded. 0: fails once any regression is shown,
    and nothing has to be excluded, as no data could."""
    relative: Flag = True
    """Whether `largest_regression` is a share of the control's value, or in the metric's own unit."""
    direction: Direction | None = None
    """Of the metric, the change that is an improvement; None: as the plan has it."""

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, given: Any) -> Any:
        return _fields(given) if isinstance(given, str) else given

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_name("guardrail.metric", self.metric)
        field = f"guardrails[{self.metric}]"
        given = [kind for kind in _KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            bound = f"given exactly one of {', '.join(_KINDS)}"
            raise InvalidInputError(field, " and ".join(given) or None, bound, f"write it {_FORMS}")
        check_number(f"{field}.{self.kind}", self.amount, low=-MAX_MEASURE, high=MAX_MEASURE)
        if self.kind == "largest_regression":
            check_number(f"{field}.{self.kind}", self.amount, low=0.0)
        elif self.metric in BUILT_IN_METRICS:
            known = BUILT_IN_METRICS[self.metric]
            if (known.lowest is not None and self.amount < known.lowest) or (
                known.highest is not None and self.amount > known.highest
            ):
                ends = [f"at least {known.lowest:g}"] if known.lowest is not None else []
                ends += [f"at most {known.highest:g}"] if known.highest is not None else []
                remedy = "80 % is 0.8" if known.is_rate else "no value of it is beyond that"
                raise InvalidInputError(f"{field}.{self.kind}", self.amount, " and ".join(ends), remedy)
        return self

    @property
    def kind(self) -> GuardrailKind:
        return next(kind for kind in _KINDS if getattr(self, kind) is not None)

    @property
    def amount(self) -> float:
        """The bound, or the margin."""
        return float(getattr(self, self.kind))

    @property
    def is_absolute(self) -> bool:
        return self.kind != "largest_regression"

    @property
    def text(self) -> str:
        """The guardrail as a line; two with the same line are the same."""
        if self.is_absolute:
            return f"{self.metric} {'>=' if self.kind == 'at_least' else '<='} {self.amount:.12g}"
        margin = f"{100.0 * self.amount:.12g}%" if self.relative else f"{self.amount:.12g}"
        if self.direction is None:
            return f"{self.metric} at most {margin} worse than control"
        side = (">=", "-") if self.direction == "increase" else ("<=", "+")
        return f"{self.metric} {side[0]} control" + (f" {side[1]} {margin}" if self.amount else "")


def _fields(line: str) -> dict[str, Any]:
    """Read a guardrail that is written as a line."""
    margin = _MARGIN.fullmatch(line.strip())
    found = margin or _BOUND.fullmatch(line.strip())
    if found is None:
        raise _refused(line)
    metric = _metric(found["metric"])
    at_least = found["sign"] == ">="
    if margin is None:
        return {"metric": metric, "at_least" if at_least else "at_most": _amount(line, found)}
    if margin["step"] not in {None, _AWAY[margin["sign"]]}:
        raise _refused(line)
    return {
        "metric": metric,
        "largest_regression": 0.0 if margin["step"] is None else _amount(line, margin),
        "relative": margin["step"] is None or bool(margin["percent"]),
        "direction": "increase" if at_least else "decrease",
    }


def _metric(words: str) -> str:
    if " " not in words.strip():
        return words.strip()
    joined = "_".join(words.lower().split())
    return _SPOKEN_METRICS.get(joined, joined)


def _amount(line: str, found: re.Match[str]) -> float:
    try:
        amount = float(found["amount"])
    except ValueError:
        raise _refused(line) from None
    return amount / 100.0 if found["percent"] else amount


def _refused(line: str) -> InvalidInputError:
    return InvalidInputError("guardrail", line, "a guardrail", f"write it {_FORMS}")
