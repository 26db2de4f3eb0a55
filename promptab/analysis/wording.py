"""How the numbers of an analysis are written for people, in a terminal, a notebook and a report alike."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from promptab.analysis.result import (
    AnalysisResult,
    CheckName,
    CovariateAdjustment,
    Method,
    MetricAnalysis,
    Role,
    SegmentAnalysis,
    Size,
    VariantDifference,
)
from promptab.stats.metric import MetricFormat

NOTHING = "-"
"""Stands where a number cannot be known."""

ADJUSTED_MARK = "*"
ADJUSTED_NOTE = f"{ADJUSTED_MARK} with the other comparisons of its kind taken into account"
EXPLORATORY = (
    "Segments are exploratory: they were looked at because they are there. A finding here is a question for an "
    "experiment of its own."
)

Tone = Literal["good", "bad", "open"]
"""What a row is coloured by."""

_CHECKS: dict[CheckName, str] = {
    "sample_ratio": "Sample ratio",
    "minimum_units": "Minimum units",
    "switched_units": "Switched units",
    "missing_outcomes": "Missing outcomes",
    "guardrails": "Guardrails",
}
_SIZES: dict[Size | None, str] = {
    None: "",
    "large enough": "",
    "too small": ", but too little",
    "unclear": ", perhaps too little",
}
_UNITS: dict[MetricFormat, str] = {
    "percent": "points",
    "seconds": "s",
    "dollars": "$",
    "tokens": "tokens",
    "number": "",
}
_ROLES: dict[Role, str] = {"primary": "primary, ", "secondary": "", "guardrail": "guardrail, "}


class Change(NamedTuple):
    """A change with its interval, as texts without the unit."""

    value: str
    interval: str
    """Empty where there is none."""

    def told(self, unit: str) -> str:
        """Return all of it: +16.4 points (+8.3 to +24.6)."""
        value = f"{self.value} {unit}" if unit and self.value != NOTHING else self.value
        return f"{value} ({self.interval})" if self.interval else value


class ComparisonRow(NamedTuple):
    """What stands in the row of one difference."""

    note: str
    """What is special about it; mostly empty."""
    ends: tuple[float | None, float | None, float | None]
    """Low, value and high of the difference."""
    lift: str
    evidence: tuple[str, ...]
    """The numbers under `evidence_headers`; a p-value that others changed bears `ADJUSTED_MARK`."""
    verdict: str
    """Empty in a row that the verdict does not go by."""
    tone: Tone


def headline(result: AnalysisResult) -> str:
    return "No winner" if result.winner is None else f"Winner: {result.winner}"


def circumstances(result: AnalysisResult) -> str:
    """Return what the numbers are of: how they were worked out, over how many units, and when."""
    units = sum(result.units.values())
    since = "" if result.since is None else f", units first exposed since {result.since:%Y-%m-%d %H:%M} UTC"
    return (
        f"{result.method} analysis of {units:,} {'unit' if units == 1 else 'units'} "
        f"as of {result.at:%Y-%m-%d %H:%M} UTC{since}; "
        f"{100 * result.confidence:g} % intervals of differences to {result.control} (control)"
    )


def metric_note(metric: MetricAnalysis) -> str:
    """Return what is to be known of a metric before its numbers are read: primary, higher is better."""
    better = "higher" if metric.direction == "increase" else "lower"
    return f"{_ROLES[metric.role]}{better} is better"


def best_of_all(metric: MetricAnalysis) -> str | None:
    """Return how likely each variant is the best of all; None of two variants, of which P(better) says as much, and
    where it is not known.
    """
    known = {key: found.probability_best for key, found in metric.estimates.items()}
    if len(known) < 3 or all(chance is None for chance in known.values()):
        return None
    told = ", ".join(f"{key} {probability(chance)}" for key, chance in known.items())
    return f"P(best of all): {told}"


def variant_name(key: str, control: str) -> str:
    return f"{key} (control)" if key == control else key


def check_title(name: CheckName) -> str:
    return _CHECKS[name]


def segment_title(segment: SegmentAnalysis) -> str:
    return f"{segment.attribute} = {segment.value or '(not given)'}"


def segment_note(segment: SegmentAnalysis) -> str:
    """Return how many units it has, and whether chance dealt them."""
    units = f"{sum(segment.units.values()):,} units"
    if segment.sample_ratio_p is None:
        return units
    ratio = f"sample ratio {p_told(segment.sample_ratio_p)}"
    return (
        f"{units}, not dealt by the weights: {ratio}"
        if segment.sample_ratio_mismatch
        else f"{units}, {ratio}"
    )


def measure(value: float | None, unit: MetricFormat, *, width: float | None = None) -> str:
    """Return a value with its unit, 78.7 % or 0.812 s, with the digits that an uncertainty of `width` deserves.

    Without a width, four significant digits.
    """
    if value is None:
        return NOTHING
    scale = _scale(unit)
    shown = _digits(scale * value, None if width is None else scale * width)
    return {"percent": f"{shown} %", "seconds": f"{shown} s", "dollars": f"${shown}"}.get(unit, shown)


def change_unit(unit: MetricFormat) -> str:
    """Return what a difference of this kind is counted in; empty for a plain number."""
    return _UNITS[unit]


def change(value: float | None, low: float | None, high: float | None, unit: MetricFormat) -> Change:
    """Return a difference with its sign, in `change_unit`: 0.164 percent is +16.4 (points)."""
    return _change(value, low, high, _scale(unit))


def lift_change(difference: VariantDifference) -> Change:
    """Return the lift in percent: +26.8."""
    return _change(difference.lift, difference.lift_low, difference.lift_high, 100.0)


def lift(difference: VariantDifference) -> str:
    """Return the lift without its interval: +26.8 %."""
    shown = lift_change(difference).value
    return shown if difference.lift is None else f"{shown} %"


def probability(value: float | None) -> str:
    """Return a probability with two digits that tell something, and no certainty that is none: 0.032, >0.999."""
    if value is None:
        return NOTHING
    if value < 0.001:
        return "<0.001"
    if value > 0.999:
        return ">0.999"
    return f"{value:.3f}" if value < 0.1 or value > 0.9 else f"{value:.2f}"


def p_told(value: float | None) -> str:
    """Return a p-value in a sentence: p = 0.032, p < 0.001."""
    shown = probability(value)
    return f"p {shown[0]} {shown[1:]}" if shown[0] in "<>" else f"p = {shown}"


def evidence_headers(method: Method) -> tuple[str, ...]:
    """Return what the numbers are called that a verdict rests on beside the interval."""
    return ("P(better)", "loss") if method == "bayesian" else ("p",)


def comparison_rows(difference: VariantDifference, unit: MetricFormat, method: Method) -> list[ComparisonRow]:
    """Return the row of a difference; where it is adjusted for history the raw one, and below it the adjusted."""
    raw = (difference.low, difference.value, difference.high)
    judged = (verdict(difference), tone(difference))
    adjusted = difference.adjusted
    if adjusted is None:
        numbers = _evidence(difference, difference.p_value, unit, method)
        return [ComparisonRow("", raw, lift(difference), numbers, *judged)]
    unjudged = ("", "") if method == "bayesian" else (probability(difference.p_value),)
    numbers = _evidence(difference, adjusted.p_value, unit, method)
    history = (adjusted.low, adjusted.value, adjusted.high)
    return [
        ComparisonRow("", raw, lift(difference), unjudged, "", "open"),
        ComparisonRow(_adjustment_note(adjusted), history, "", numbers, *judged),
    ]


def has_adjusted_p(result: AnalysisResult) -> bool:
    """Whether a p-value of any metric or segment bears the mark."""
    metrics = (*result.metrics.values(), *(segment.analysis for segment in result.segments))
    return result.method != "bayesian" and any(
        _is_corrected(difference, (difference.adjusted or difference).p_value)
        for metric in metrics
        for difference in metric.differences.values()
    )


def verdict(difference: VariantDifference) -> str:
    """Return the verdict in words: better; better, but too little; undecided; of a guardrail whether it is safe."""
    if difference.safety == "pass":
        return "safe"
    if difference.safety == "fail":
        return "harmed"
    if difference.safety == "undecided":
        return "not shown safe"
    return difference.verdict + (_SIZES[difference.size] if difference.verdict == "better" else "")


def tone(difference: VariantDifference) -> Tone:
    """Return what colour a row deserves; a guardrail's by whether it is safe."""
    if difference.safety is not None:
        safe: dict[str, Tone] = {"pass": "good", "fail": "bad", "undecided": "open"}
        return safe[difference.safety]
    found: dict[str, Tone] = {"better": "good", "worse": "bad", "undecided": "open"}
    return found[difference.verdict]


def _evidence(
    difference: VariantDifference, p_value: float | None, unit: MetricFormat, method: Method
) -> tuple[str, ...]:
    if method == "bayesian":
        low, high = difference.low, difference.high
        # one digit more than the difference has: what is smaller is as good as nothing
        width = None if low is None or high is None else (high - low) / 20.0
        return probability(difference.probability_better), measure(
            difference.expected_loss, unit, width=width
        )
    if _is_corrected(difference, p_value):
        return (probability(difference.adjusted_p) + ADJUSTED_MARK,)
    return (probability(p_value),)


def _is_corrected(difference: VariantDifference, p_value: float | None) -> bool:
    return difference.adjusted_p is not None and difference.adjusted_p != p_value


def _adjustment_note(adjusted: CovariateAdjustment) -> str:
    gained = adjusted.variance_reduction
    return f"adjusted for history: {100 * abs(gained):.0f} % {'less' if gained >= 0.0 else 'more'} variance"


def _scale(unit: MetricFormat) -> float:
    return 100.0 if unit == "percent" else 1.0


def _change(value: float | None, low: float | None, high: float | None, scale: float) -> Change:
    if value is None:
        return Change(NOTHING, "")
    if low is None or high is None:
        return Change(_signed(scale * value, None), "")
    # the second digit of the half width: the digits that the sentences have
    width = scale * (high / 2 - low / 2)
    ends = " to ".join(_signed(scale * end, width) for end in (low, high))
    return Change(_signed(scale * value, width), ends)


def _signed(value: float, width: float | None) -> str:
    shown = _digits(value, width)
    if float(shown.replace(",", "")) == 0.0:
        return shown.removeprefix("-")
    return shown if shown.startswith("-") else f"+{shown}"


def _digits(value: float, width: float | None) -> str:
    if not width or not math.isfinite(width):
        return f"{value:.4g}"
    decimals = max(0, 1 - math.floor(math.log10(width)))
    return f"{value:,.{decimals}f}" if decimals <= 8 and abs(value) < 1e9 else f"{value:.4g}"
