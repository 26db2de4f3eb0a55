"""Summaries in, a comparison with its reasons out: each variant against the control, metric by metric.

The intervals are fixed-horizon (`promptab.stats.ratio`), and every comparison says so in its `caution`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal

from promptab.errors import InvalidInputError, NotFoundError
from promptab.models import PromptExperiment, Record
from promptab.stats.metric import BUILT_IN_METRICS, Direction, MetricDefinition, MetricFormat
from promptab.stats.ratio import Difference, ratio_difference, ratio_estimate
from promptab.stats.summary import UnitSums

Verdict = Literal["better", "worse", "undecided"]
Ground = Literal["interval", "permutation", "not enough data", "not computable"]

_FIXED_HORIZON = (
    "Fixed-horizon intervals are right for one look, at a moment planned before the start; looking again and "
    "again and stopping when they please names winners that are none."
)
# Below this a mean over units is not near enough to normal for a t interval to be taken at its word.
_FEW_UNITS = 30
_UNIT_WORDS: Mapping[MetricFormat, str] = {
    "percent": " points",
    "seconds": " s",
    "dollars": " dollars",
    "tokens": " tokens",
    "number": "",
}


class VariantEstimate(Record):
    """The mean over events of one variant, over all epochs together."""

    variant: str
    value: float | None
    """None where no event carried the metric."""
    se: float | None
    low: float | None
    high: float | None
    """None with fewer than two units, or where no unit varies."""
    units: int
    """Units with at least one event that carried the metric."""
    events: int


class VariantDifference(Record):
    """One variant minus the control, combined over epochs; None where it cannot be known."""

    variant: str
    value: float | None
    se: float | None
    low: float | None
    high: float | None
    df: float | None
    p_value: float | None
    lift: float | None
    """`value` relative to the control, epochs weighted alike; None unless the control's mean is positive."""
    left_out: tuple[int, ...]
    """Epochs that could not be used: fewer than two units in the variant or in the control."""
    verdict: Verdict
    ground: Ground
    """What the verdict rests on: "permutation" where no unit of either variant varies."""
    sentence: str


class MetricComparison(Record):
    """One metric: every variant's estimate, and the difference to the control of every other variant."""

    metric: str
    label: str
    direction: Direction
    format: MetricFormat
    estimates: Mapping[str, VariantEstimate]
    """By variant key, in the experiment's order, the control included."""
    differences: Mapping[str, VariantDifference]
    """By variant key, in the experiment's order, without the control."""

    def better(self) -> str | None:
        """Return the variant that is better than the control, with several the best estimate, if any is."""
        sign = 1.0 if self.direction == "increase" else -1.0
        gains = {
            key: sign * difference.value
            for key, difference in self.differences.items()
            if difference.verdict == "better" and difference.value is not None
        }
        return max(gains, key=gains.__getitem__, default=None)


class Comparison(Record):
    """Every variant of an experiment against its control at one moment."""

    experiment_id: str
    experiment: str
    """The experiment's name."""
    control: str
    primary_metric: str
    units: Mapping[str, int]
    """Exposed units by variant key, whether anything was recorded for them or not."""
    method: Literal["fixed"] = "fixed"
    confidence: float
    caution: str
    """When, and how far, these numbers may be believed."""
    metrics: Mapping[str, MetricComparison]
    """By metric name: the primary first, then the built-in ones, then the others by name."""
    leader: str | None
    """The variant that is better than the control on the primary metric, with several the best estimate."""
    reason: str
    """Why it leads, or why none does."""

    def better(self, metric: str | None = None) -> str | None:
        """Return the variant that is better than the control on `metric` (default: the primary), if any is.

        Raises `NotFoundError` for a metric that was not compared.
        """
        name = self.primary_metric if metric is None else metric
        if name not in self.metrics:
            raise NotFoundError("metric", name, f"compared are {', '.join(self.metrics)}")
        return self.metrics[name].better()


def compare(
    sums: Mapping[str, Mapping[str, Mapping[int, UnitSums]]],
    *,
    experiment: PromptExperiment,
    exposed_units: Mapping[str, int],
    definitions: Iterable[MetricDefinition] = (),
    confidence: float = 0.95,
) -> Comparison:
    """Compare every variant with the control.

    `sums` is by metric name, variant key and epoch number; `exposed_units` by variant key. What is missing
    has no units. `definitions` add to the built-in metrics or replace them; a metric with neither is better
    when it increases. A variant is better, or worse, when its interval excludes zero; with fewer than two
    units in it or in the control it is undecided.
    """
    if not 0.0 < confidence < 1.0:
        raise InvalidInputError("confidence", confidence, "between 0 and 1", "95 % is 0.95")
    if experiment.primary_metric == "error_rate" and "success_rate" in sums:
        sums = {**sums, "error_rate": _complements(sums["success_rate"])}
    known = {**BUILT_IN_METRICS, **{definition.name: definition for definition in definitions}}
    names = dict.fromkeys(
        (experiment.primary_metric, *(name for name in known if name in sums), *sorted(sums))
    )
    metrics = {
        name: _compared_metric(
            known.get(name, MetricDefinition(name=name)), sums.get(name, {}), experiment, confidence
        )
        for name in names
    }
    primary = metrics[experiment.primary_metric]
    leader = primary.better()
    return Comparison(
        experiment_id=experiment.experiment_id,
        experiment=experiment.name,
        control=experiment.control,
        primary_metric=experiment.primary_metric,
        units={variant.key: exposed_units.get(variant.key, 0) for variant in experiment.variants},
        confidence=confidence,
        caution=_caution(metrics, primary, confidence),
        metrics=metrics,
        leader=leader,
        reason=_leader_reason(primary, leader, experiment.control),
    )


def _complements(sums: Mapping[str, Mapping[int, UnitSums]]) -> dict[str, dict[int, UnitSums]]:
    return {key: {epoch: of.complement() for epoch, of in by_epoch.items()} for key, by_epoch in sums.items()}


def _compared_metric(
    definition: MetricDefinition,
    sums: Mapping[str, Mapping[int, UnitSums]],
    experiment: PromptExperiment,
    confidence: float,
) -> MetricComparison:
    keys = [variant.key for variant in experiment.variants]
    control = experiment.control
    estimates = {key: _estimate(key, definition, sums.get(key, {}), confidence) for key in keys}
    return MetricComparison(
        metric=definition.name,
        label=definition.label or definition.name,
        direction=definition.direction,
        format=definition.format,
        estimates=estimates,
        differences={
            key: _difference(
                definition,
                ratio_difference(sums.get(key, {}), sums.get(control, {}), confidence=confidence),
                estimates[key],
                estimates[control],
                confidence,
            )
            for key in keys
            if key != control
        },
    )


def _estimate(
    key: str, definition: MetricDefinition, epochs: Mapping[int, UnitSums], confidence: float
) -> VariantEstimate:
    estimate = ratio_estimate(UnitSums.pooled(epochs.values()), confidence=confidence)
    low, high = estimate.low, estimate.high
    # never cut off the estimate itself, should the declared bounds be wrong
    if low is not None and definition.lowest is not None and estimate.value is not None:
        low = max(low, min(definition.lowest, estimate.value))
    if high is not None and definition.highest is not None and estimate.value is not None:
        high = min(high, max(definition.highest, estimate.value))
    return VariantEstimate(
        variant=key,
        value=estimate.value,
        se=estimate.se,
        low=low,
        high=high,
        units=estimate.units,
        events=round(estimate.events),
    )


def _difference(
    definition: MetricDefinition,
    difference: Difference,
    variant: VariantEstimate,
    control: VariantEstimate,
    confidence: float,
) -> VariantDifference:
    verdict, ground = _verdict(difference, definition.direction, confidence)
    return VariantDifference(
        variant=variant.variant,
        value=difference.value,
        se=difference.se,
        low=difference.low,
        high=difference.high,
        df=difference.df,
        p_value=difference.p_value,
        lift=_lift(difference),
        left_out=difference.left_out,
        verdict=verdict,
        ground=ground,
        sentence=_sentence(
            definition,
            difference,
            verdict=verdict,
            ground=ground,
            variant=variant,
            control=control,
            confidence=confidence,
        ),
    )


def _verdict(difference: Difference, direction: Direction, confidence: float) -> tuple[Verdict, Ground]:
    if not difference.epochs:
        return "undecided", "not enough data"
    if difference.value is None or difference.p_value is None:
        return "undecided", "not computable"
    if difference.low is not None and difference.high is not None:
        ground: Ground = "interval"
        decided = difference.low > 0.0 or difference.high < 0.0
    else:
        ground = "permutation"
        decided = difference.p_value < 1.0 - confidence
    if not decided:
        return "undecided", ground
    return ("better" if (difference.value > 0.0) == (direction == "increase") else "worse"), ground


def _lift(difference: Difference) -> float | None:
    if difference.value is None or difference.baseline is None or difference.baseline <= 0.0:
        return None
    lift = difference.value / difference.baseline
    return lift if math.isfinite(lift) else None


def _caution(metrics: Mapping[str, MetricComparison], primary: MetricComparison, confidence: float) -> str:
    sentences = [_FIXED_HORIZON]
    comparisons = sum(len(metric.differences) for metric in metrics.values())
    if comparisons > 1:
        sentences.append(
            f"Each of the {comparisons} differences is judged alone: where nothing differs, about "
            f"{100 * (1 - confidence):g} in 100 look decided all the same."
        )
    if min(estimate.units for estimate in primary.estimates.values()) < _FEW_UNITS:
        sentences.append(
            f"A variant has fewer than {_FEW_UNITS} units with {primary.metric}: its intervals are rough."
        )
    return " ".join(sentences)


def _leader_reason(primary: MetricComparison, leader: str | None, control: str) -> str:
    if leader is None:
        why = "; ".join(difference.sentence for difference in primary.differences.values())
        return f"No variant is shown to be better than {control}: {why}"
    rivals = sum(difference.verdict == "better" for difference in primary.differences.values())
    best = (
        f"; of the {rivals} variants that are better than {control} it has the best estimate"
        if rivals > 1
        else ""
    )
    return primary.differences[leader].sentence + best


def _sentence(
    definition: MetricDefinition,
    difference: Difference,
    *,
    verdict: Verdict,
    ground: Ground,
    variant: VariantEstimate,
    control: VariantEstimate,
    confidence: float,
) -> str:
    skipped = _left_out_clause(difference.left_out) if difference.epochs else ""
    names = f"{variant.variant} and {control.variant}"
    if ground == "not enough data":
        units = (
            f"{variant.variant} has {_units(variant.units)} and {control.variant} has {_units(control.units)}"
        )
        return f"not enough data on {definition.name}: {units}; each needs at least 2 in one epoch"
    if ground == "not computable" or difference.value is None:
        return f"{names} cannot be compared on {definition.name}: the values are too large to add up"
    if verdict == "undecided":
        amount = _amount(definition.format, difference, confidence, sign=1.0)
        return f"{names} cannot be told apart on {definition.name}: the difference is {amount}{skipped}"
    sign = math.copysign(1.0, difference.value)
    amount = _amount(definition.format, difference, confidence, sign=sign, word=f" {verdict}")
    return f"{variant.variant} is {amount} on {definition.name}{skipped}"


def _amount(
    format_: MetricFormat, difference: Difference, confidence: float, *, sign: float, word: str = ""
) -> str:
    """Return "61.0 points better (95 % interval 56.3 to 65.7)"; `sign` turns all three numbers round."""
    value, low, high = difference.value or 0.0, difference.low, difference.high
    scale = 100.0 * sign if format_ == "percent" else sign
    if low is None or high is None:
        shown = _number(scale * value, spread=abs(scale * value), at_least=1 if format_ == "percent" else 0)
        return (
            f"{shown}{_UNIT_WORDS[format_]}{word} (no unit of either varies, so there is no interval; "
            f"by permutation p = {difference.p_value:.2g})"
        )
    numbers = [
        _number(
            scale * number, spread=(high - low) / 2 * abs(scale), at_least=1 if format_ == "percent" else 0
        )
        for number in (value, *sorted((low, high), key=lambda end: scale * end))
    ]
    return (
        f"{numbers[0]}{_UNIT_WORDS[format_]}{word} "
        f"({100 * confidence:g} % interval {numbers[1]} to {numbers[2]})"
    )


def _number(value: float, *, spread: float, at_least: int) -> str:
    """Show the decimals that `spread` deserves: down to its second digit, and `at_least` that many."""
    decimals = max(at_least, 1 - math.floor(math.log10(spread))) if spread > 0.0 else at_least
    if decimals > 8 or abs(value) >= 1e9:
        return f"{value:.3g}"
    return f"{round(value, decimals) + 0.0:.{decimals}f}"  # + 0.0: no "-0.0"


def _units(count: int) -> str:
    return "1 unit" if count == 1 else f"{count} units"


def _left_out_clause(epochs: tuple[int, ...]) -> str:
    if not epochs:
        return ""
    which = f"epoch {epochs[0]}" if len(epochs) == 1 else f"epochs {', '.join(map(str, epochs))}"
    return f"; without {which}, where a variant has fewer than 2 units"
