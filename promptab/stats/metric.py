"""What a metric is: computed from which measures, which way is better, and how people read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, model_validator

from promptab.checks import MAX_MEASURE, check_name, check_number, check_text
from promptab.errors import InvalidInputError
from promptab.records import Declared, Number

Direction = Literal["increase", "decrease"]
MetricKind = Literal["proportion", "mean", "mean_per_unit", "share_of_units", "ratio", "quantile"]
MetricRole = Literal["secondary", "guardrail"]
MetricFormat = Literal["percent", "seconds", "dollars", "tokens", "number"]

MEASURES = ("success_rate", "response_time", "tokens", "cost", "rating")
"""The measures that events have a place of their own for; any other is one of their named metrics."""


MEASURE_ALIASES: Mapping[str, str] = {"success": "success_rate", "user_rating": "rating"}
"""What an event's argument is called -> the measure that it gives."""

MeasureName = Annotated[str, AfterValidator(lambda name: MEASURE_ALIASES.get(name, name))]


class MetricDefinition(Declared):
    """A metric of an experiment. `kind` says how the units' events become one number per variant:

    - `proportion`: share of events, of those that carried the measure, in which it was 1 (it is 0 or 1)
    - `mean`: mean over the events that carried the measure
    - `mean_per_unit`: total per unit, over all exposed units, those without events counting 0
    - `share_of_units`: share of exposed units with at least one event in which the measure was above zero
    - `ratio`: total of the measure over the total of `denominator`, as in cost per success
    - `quantile`: the quantile `quantile` of the single events

    Raises `InvalidInputError` for what does not fit together.
    """

    name: MeasureName
    kind: MetricKind = "mean"
    measure: MeasureName = ""
    """What events carry; empty for the metric's own name."""
    denominator: MeasureName | None = None
    quantile: Number | None = None
    """Between 0 and 1; 0.5 is the median."""
    direction: Direction = "increase"
    """The change that is an improvement."""
    role: MetricRole = "secondary"
    """A guardrail has to be shown not to be worse by more than `largest_regression` before anything wins. The
    primary metric is named by the experiment."""
    largest_regression: Number | None = None
    """The largest change for the worse that is tolerated."""
    smallest_effect: Number | None = None
    """The smallest improvement that is worth having."""
    relative: bool = True
    """Whether the two amounts above are shares of the control's value (0.05 is 5 % of it), or in the metric's
    own unit."""
    cap: Number | None = None
    """A single event's value (of `mean_per_unit`: a unit's total) counts at most this."""
    cap_percentile: Number | None = None
    """Between 0 and 1: `cap` is this percentile of the prompt's earlier events that carried the measure, frozen at the
    start. Of `mean_per_unit` it is that of its units' totals, over the measurement window where there is one."""
    history_days: Number | None = None
    """CUPED: a unit's outcomes of so many full days (UTC) before the day of its first exposure are its covariate; None
    for none. A part of a day counts as one."""
    label: str = ""
    """A heading for people; empty for the name itself."""
    format: MetricFormat = "number"
    lowest: Number | None = None
    highest: Number | None = None
    """Bounds of a single value, where there are any: no interval is shown beyond them."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_name("metric.name", self.name)
        field = f"metrics[{self.name}]"
        check_text(f"{field}.label", self.label)
        if self.measure:
            check_name(f"{field}.measure", self.measure)
        self._check_kind(field)
        for amount in ("largest_regression", "smallest_effect", "history_days"):
            value = getattr(self, amount)
            if value is not None:
                check_number(f"{field}.{amount}", value, above=0.0, high=MAX_MEASURE)
        if self.role == "guardrail" and self.largest_regression is None:
            raise InvalidInputError(
                f"{field}.largest_regression",
                None,
                "given for a guardrail",
                "say how much worse is tolerated: 0.02 is 2 % of the control's value",
            )
        for bound in ("cap", "lowest", "highest"):
            value = getattr(self, bound)
            if value is not None:
                check_number(f"{field}.{bound}", value, low=-MAX_MEASURE, high=MAX_MEASURE)
        if self.lowest is not None and self.highest is not None and self.lowest >= self.highest:
            raise InvalidInputError(f"{field}.highest", self.highest, f"greater than lowest, {self.lowest:g}")
        if self.cap_percentile is not None:
            check_number(f"{field}.cap_percentile", self.cap_percentile, above=0.0, high=1.0)
        return self

    def _check_kind(self, field: str) -> None:
        if (self.kind == "ratio") != (self.denominator is not None):
            raise InvalidInputError(
                f"{field}.denominator",
                self.denominator,
                f"{'given' if self.kind == 'ratio' else 'left out'} for the kind {self.kind}",
                "a ratio divides the total of its measure by that of its denominator",
            )
        if self.denominator is not None:
            check_name(f"{field}.denominator", self.denominator)
        if (self.kind == "quantile") != (self.quantile is not None):
            raise InvalidInputError(
                f"{field}.quantile",
                self.quantile,
                f"{'given' if self.kind == 'quantile' else 'left out'} for the kind {self.kind}",
                "0.95 is the 95th percentile",
            )
        if self.quantile is not None:
            check_number(f"{field}.quantile", self.quantile, above=0.0, below=1.0)
        if self.kind in {"proportion", "share_of_units", "quantile"} and (
            self.cap is not None or self.cap_percentile is not None
        ):
            raise InvalidInputError(
                f"{field}.cap",
                self.cap if self.cap is not None else self.cap_percentile,
                f"left out for the kind {self.kind}",
                "only sums and means are moved by one huge value",
            )

    @property
    def source(self) -> str:
        """The measure that it is computed from."""
        return self.measure or self.name

    @property
    def is_rate(self) -> bool:
        """Whether it is a share, so that 1 - x says the same as x, in the other direction."""
        return self.kind in {"proportion", "share_of_units"}

    @property
    def sign(self) -> float:
        """1.0 where more is better, -1.0 where less is."""
        return 1.0 if self.direction == "increase" else -1.0

    @property
    def heading(self) -> str:
        return self.label or self.name


def _built_in(*definitions: MetricDefinition) -> Mapping[str, MetricDefinition]:
    return {definition.name: definition for definition in definitions}


BUILT_IN_METRICS: Mapping[str, MetricDefinition] = _built_in(
    MetricDefinition(
        name="success_rate",
        kind="proportion",
        label="Success rate",
        format="percent",
        lowest=0.0,
        highest=1.0,
    ),
    MetricDefinition(
        name="error_rate",
        kind="proportion",
        direction="decrease",
        label="Error rate",
        format="percent",
        lowest=0.0,
        highest=1.0,
    ),
    MetricDefinition(
        name="response_time", direction="decrease", label="Response time", format="seconds", lowest=0.0
    ),
    MetricDefinition(
        name="p95_response_time",
        kind="quantile",
        measure="response_time",
        quantile=0.95,
        direction="decrease",
        label="Response time, 95th percentile",
        format="seconds",
        lowest=0.0,
    ),
    MetricDefinition(name="tokens", direction="decrease", label="Tokens", format="tokens", lowest=0.0),
    MetricDefinition(name="cost", direction="decrease", label="Cost", format="dollars", lowest=0.0),
    MetricDefinition(
        name="cost_per_success",
        kind="ratio",
        measure="cost",
        denominator="success_rate",
        direction="decrease",
        label="Cost per success",
        format="dollars",
        lowest=0.0,
    ),
    MetricDefinition(name="rating", label="Rating", lowest=1.0, highest=5.0),
)
"""The metrics that need no declaration, in the order in which they are shown. `error_rate` is what
`success_rate` lacks to 1; `p95_response_time` and `cost_per_success` are computed where they are asked for."""
