"""Which metrics there are, which way is better, and how people read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from promptab.models import Record

Direction = Literal["increase", "decrease"]
MetricFormat = Literal["percent", "seconds", "dollars", "tokens", "number"]


class MetricDefinition(Record):
    """What a metric means: which way is better, and how people read it."""

    name: str
    direction: Direction = "increase"
    """The change that is an improvement."""
    label: str = ""
    """A heading for people; empty for the name itself."""
    format: MetricFormat = "number"
    lowest: float | None = None
    highest: float | None = None
    """Bounds of a single value, where there are any: no interval is shown beyond them."""


BUILT_IN_METRICS: Mapping[str, MetricDefinition] = {
    definition.name: definition
    for definition in (
        MetricDefinition(
            name="success_rate", label="Success rate", format="percent", lowest=0.0, highest=1.0
        ),
        MetricDefinition(
            name="error_rate",
            direction="decrease",
            label="Error rate",
            format="percent",
            lowest=0.0,
            highest=1.0,
        ),
        MetricDefinition(
            name="response_time", direction="decrease", label="Response time", format="seconds", lowest=0.0
        ),
        MetricDefinition(name="tokens", direction="decrease", label="Tokens", format="tokens", lowest=0.0),
        MetricDefinition(name="cost", direction="decrease", label="Cost", format="dollars", lowest=0.0),
        MetricDefinition(name="rating", label="Rating", lowest=1.0, highest=5.0),
    )
}
"""The metrics that need no declaration, in the order in which they are shown."""
