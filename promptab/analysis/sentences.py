"""What the numbers say, as a person would say it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from promptab.analysis.result import (
    CheckName,
    DealtUnits,
    GuardReading,
    Method,
    MetricAnalysis,
    VariantDifference,
    VariantEstimate,
)
from promptab.models import UNIFORM_EPOCH
from promptab.stats.metric import MetricDefinition, MetricFormat

CHECK_WORDS: Mapping[CheckName, str] = {
    "sample_ratio": "The dealing is not what the weights say",
    "minimum_units": "Not enough units yet",
    "switched_units": "Units changed variants",
    "missing_outcomes": "Outcomes are missing unevenly",
    "guardrails": "A guardrail is not shown to be safe",
}
"""What it means that a check failed."""

_HOW_TO_READ: Mapping[Method, str] = {
    "sequential": "These intervals hold at every look: look whenever you like, and stop when you have seen enough.",
    "fixed": "Fixed-horizon intervals are right for one look, at a moment planned before the start; looking again "
    "and again and stopping when they please names winners that are none.",
    "bayesian": "Probabilities are beliefs, given the prior: read them at a planned moment. Stopping at the first "
    "look that pleases names winners that are none.",
}
_APPROXIMATE = (
    "Approximate: later outcomes of a unit change what it was counted with; a measurement window in the plan "
    "(window_hours) makes it exact."
)
_DEALT: Mapping[DealtUnits, str] = {
    "adaptively": "The weights followed the outcomes: every unit counts by the probability of what it got (adaptively "
    "weighted AIPW), as plain means would be biased.",
    "uniform slice": "Only the units of the uniform slice, which were dealt alike from the start.",
}
_UNIT_WORDS: Mapping[MetricFormat, str] = {
    "percent": " points",
    "seconds": " s",
    "dollars": " dollars",
    "tokens": " tokens",
    "number": "",
}


def of_difference(
    definition: MetricDefinition,
    difference: VariantDifference,
    variant: VariantEstimate,
    control: VariantEstimate,
    *,
    confidence: float,
) -> str:
    """Return the difference with its interval, and what is lacking: reality, size, or safety."""
    names = f"{variant.variant} and {control.variant}"
    if difference.technique == "not enough data":
        units = (
            f"{variant.variant} has {_units(variant.units)} and {control.variant} has {_units(control.units)}"
        )
        if definition.kind == "ratio" and min(variant.units, control.units) >= 2:
            return f"no difference on {definition.name}: {units}, and nothing to divide by was recorded for one of them"
        return f"not enough data on {definition.name}: {units}; each needs at least 2 in one epoch"
    if difference.technique == "not computable" or difference.value is None:
        return f"{names} cannot be compared on {definition.name}: the values are too large, or do not vary"
    amount = _Amount(definition, difference, confidence)
    skipped = _left_out_clause(difference.left_out)
    if difference.safety is not None:
        return f"{names} on {definition.name}: {_safety(definition, difference)}; the difference is {amount}{skipped}"
    if difference.verdict == "undecided":
        return f"{names} cannot be told apart on {definition.name}: the difference is {amount}{skipped}"
    said = amount.with_word(difference.verdict)
    return f"{variant.variant} is {said} on {definition.name}{_size(definition, difference)}{skipped}"


def not_after_correction(difference: VariantDifference, comparisons: int, adjusted_p: float) -> str:
    """Return the sentence of a difference that does not stand among so many."""
    return f"{difference.sentence}; not after correcting for {comparisons} comparisons (p = {adjusted_p:.2g})"


def of_guard(reading: GuardReading) -> str:
    """Return where a guardrail stands: kept, failed, or not known yet, with the numbers."""
    said = {
        "pass": "is shown to keep it",
        "fail": "has failed it",
        "undecided": "is not shown to keep it or to have failed it",
    }[reading.verdict]
    if reading.value is None:
        return f"{reading.guardrail}: nothing of {reading.variant} carried {reading.metric} yet"
    beside = "" if reading.control is None else f", the control {reading.control:.4g}"
    doubt = "" if reading.p_value is None else f" (p = {reading.p_value:.2g}, fails at {reading.alpha:.2g})"
    return (
        f"{reading.guardrail}: {reading.variant} {said}; "
        f"it has {reading.value:.4g} over {_units(reading.units)}{beside}{doubt}"
    )


def caution(
    method: Method,
    *,
    approximate: bool,
    few_units: bool,
    metrics: Mapping[str, MetricAnalysis],
    dealt: DealtUnits = "as planned",
) -> str:
    """Return when, and how far, the numbers may be believed."""
    said = [_HOW_TO_READ[method]]
    if dealt in _DEALT:
        said.append(_DEALT[dealt])
    if approximate:
        said.append(_APPROXIMATE)
    if few_units:
        said.append("A variant has fewer than 30 units: its intervals are rough.")
    secondary = sum(len(metric.differences) for metric in metrics.values() if metric.role == "secondary")
    if secondary > 1 and method != "bayesian":
        said.append(f"The {secondary} secondary differences are judged together (Benjamini-Hochberg).")
    elif secondary > 1:
        said.append(f"Each of the {secondary} secondary differences is judged alone.")
    return " ".join(said)


def number(value: float, *, spread: float, at_least: int) -> str:
    """Show the decimals that `spread` deserves: down to its second digit, and `at_least` that many."""
    decimals = max(at_least, 1 - math.floor(math.log10(spread))) if spread > 0.0 else at_least
    if decimals > 8 or abs(value) >= 1e9:
        return f"{value:.3g}"
    return f"{round(value, decimals) + 0.0:.{decimals}f}"  # + 0.0: no "-0.0"


class _Amount:
    """A difference in the unit that people read, with its interval."""

    def __init__(
        self, definition: MetricDefinition, difference: VariantDifference, confidence: float
    ) -> None:
        self.format = definition.format
        self.confidence = confidence
        self.believed = difference.probability_better
        self.p_value = difference.p_value
        shown = difference.adjusted or difference
        self.value, self.low, self.high = shown.value or 0.0, shown.low, shown.high
        self.adjusted = difference.adjusted is not None

    def __str__(self) -> str:
        return self._told(1.0, "")

    def with_word(self, word: str) -> str:
        """Return "61.0 points better (95 % interval 56.3 to 65.7)": the amount without its sign."""
        return self._told(math.copysign(1.0, self.value), f" {word}")

    def _told(self, sign: float, word: str) -> str:
        scale = 100.0 * sign if self.format == "percent" else sign
        at_least = 1 if self.format == "percent" else 0
        if self.low is None or self.high is None:
            shown = number(scale * self.value, spread=abs(scale * self.value), at_least=at_least)
            p_value = "" if self.p_value is None else f"; by permutation p = {self.p_value:.2g}"
            return f"{shown}{_UNIT_WORDS[self.format]}{word} (no interval: the units do not vary enough{p_value})"
        spread = (self.high - self.low) / 2 * abs(scale)
        shown, low, high = (
            number(scale * end, spread=spread, at_least=at_least)
            for end in (self.value, *sorted((self.low, self.high), key=lambda end: scale * end))
        )
        kind = "credible interval" if self.believed is not None else "interval"
        history = ", adjusted for history" if self.adjusted else ""
        chance = "" if self.believed is None else f", better with probability {_probability(self.believed)}"
        return (
            f"{shown}{_UNIT_WORDS[self.format]}{word} "
            f"({100 * self.confidence:.3g} % {kind} {low} to {high}{history}{chance})"
        )


def _probability(value: float) -> str:
    """Show no certainty that is none."""
    if value > 0.999:
        return "above 0.999"
    return "below 0.001" if value < 0.001 else f"{value:.3f}"


def _size(definition: MetricDefinition, difference: VariantDifference) -> str:
    worth = _declared(definition, definition.smallest_effect)
    match difference.size:
        case "too small":
            return f"; it is real, but too small to matter: worth having is {worth}"
        case "unclear":
            return f"; it is real, but not shown to be enough: worth having is {worth}"
        case _:
            return ""


def _safety(definition: MetricDefinition, difference: VariantDifference) -> str:
    tolerated = _declared(definition, definition.largest_regression)
    return {
        "pass": f"safe, not worse by {tolerated} or more",
        "fail": f"not safe, worse by more than the {tolerated} that are tolerated",
        "undecided": f"not yet shown to be safe: it may be worse by more than the {tolerated} that are tolerated",
    }[difference.safety or "undecided"]


def _declared(definition: MetricDefinition, amount: float | None) -> str:
    if amount is None:
        return "nothing"
    if definition.relative:
        return f"{100 * amount:g} %"
    if definition.format == "percent":
        return f"{100 * amount:g} points"
    return f"{amount:g}{_UNIT_WORDS[definition.format]}"


def _units(count: int) -> str:
    return "1 unit" if count == 1 else f"{count} units"


def _left_out_clause(epochs: tuple[int, ...]) -> str:
    if not epochs:
        return ""
    numbers = [str(epoch) for epoch in epochs if epoch > UNIFORM_EPOCH]
    named = [f"epoch{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}"] if numbers else []
    if len(numbers) < len(epochs):
        named.append("a part of the uniform slice")
    return f"; without {' and '.join(named)}, where a variant has fewer than 2 units"
