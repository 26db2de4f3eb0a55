"""What an analysis says: per metric and variant the numbers, the checks, and the winner or why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from promptab.errors import NotFoundError
from promptab.records import Record, Utc
from promptab.stats.metric import Direction, MetricFormat

Method = Literal["sequential", "fixed", "bayesian"]
METHODS: tuple[Method, ...] = ("sequential", "fixed", "bayesian")

Verdict = Literal["better", "worse", "undecided"]
Safety = Literal["pass", "fail", "undecided"]
Size = Literal["large enough", "too small", "unclear"]
Role = Literal["primary", "secondary", "guardrail"]

Technique = Literal[
    "confidence sequence",
    "betting confidence sequence",
    "beta-binomial confidence sequence",
    "weighted confidence sequence",
    "t",
    "weighted t",
    "proportions",
    "permutation",
    "normal posterior",
    "beta posterior",
    "not enough data",
    "not computable",
]
"""How an interval and its p-value were worked out; the last two have neither. Weighted are those of a bandit, whose
weights followed the outcomes: adaptively weighted scores in the place of means."""


DealtUnits = Literal["as planned", "adaptively", "uniform slice"]
"""By weights that followed nothing; by those of a bandit, so that every unit counts by the probability of what it got;
or only the units that a bandit dealt alike, which count as they are."""


class VariantEstimate(Record):
    """One metric of one variant: value, error and interval over the epochs that the variants have in common, weighted
    alike, as their differences are; over all its own where it shares none with the control.
    """

    variant: str
    value: float | None
    """None where nothing carried the metric."""
    se: float | None
    low: float | None
    high: float | None
    """None with fewer than two units, or where no unit varies."""
    units: int
    """Units that the metric is over, in all epochs."""
    events: int
    """Events that carried it (of a ratio: the total of its denominator)."""
    probability_best: float | None = None
    """Bayesian: that no other variant is better, by flat normal posteriors of all variants side by side; None where
    they have no epoch in common."""


class CovariateAdjustment(Record):
    """The same difference with what units did before their first exposure taken out (CUPED)."""

    value: float
    se: float
    low: float
    high: float
    p_value: float | None
    correlation: float
    """Of outcomes before and after, from -1 to 1."""
    variance_reduction: float
    """Share of the variance of the raw difference that is gone; below 0 where the adjustment did harm."""
    units_with_history: int


class VariantDifference(Record):
    """One variant minus the control, combined over epochs; None where it cannot be known."""

    variant: str
    value: float | None
    se: float | None
    low: float | None
    high: float | None
    df: float | None
    """Degrees of freedom, where the interval is a t interval."""
    p_value: float | None
    """Two-sided, of no difference; None in a Bayesian analysis."""
    adjusted_p: float | None = None
    """With the other comparisons of its kind taken into account: Holm for the variants on the primary metric,
    Benjamini-Hochberg for secondary metrics and segments."""
    technique: Technique
    lift: float | None
    """`value` relative to the control; None unless both means are positive."""
    lift_low: float | None
    lift_high: float | None
    """None where the interval of the lift would mean nothing."""
    adjusted: CovariateAdjustment | None
    """Beside the raw difference, where the metric has a history; the verdict goes by it."""
    probability_better: float | None
    """Bayesian: that the variant is the better of the two."""
    expected_loss: float | None
    """Bayesian: what choosing the variant costs on average if it is not the better, in the metric's unit."""
    verdict: Verdict
    size: Size | None
    """Whether the improvement is worth having; None where no smallest effect is declared."""
    safety: Safety | None
    """Of a guardrail: whether it is shown not to be worse than tolerated."""
    left_out: tuple[int, ...]
    """Epochs that could not be used: fewer than two units in the variant or in the control."""
    sentence: str


class MetricAnalysis(Record):
    """One metric: every variant's estimate, and the difference to the control of every other variant."""

    metric: str
    label: str
    direction: Direction
    format: MetricFormat
    role: Role
    largest_regression: float | None
    """Of a guardrail: the largest change for the worse that is tolerated."""
    smallest_effect: float | None
    """The smallest improvement that is worth having, where one is declared."""
    relative: bool
    """Whether these two are shares of the control's value, or in the metric's own unit."""
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


CheckName = Literal["sample_ratio", "minimum_units", "switched_units", "missing_outcomes", "guardrails"]


class Check(Record):
    """A condition without which nothing wins, or not those variants that fail it."""

    name: CheckName
    passed: bool
    variants: tuple[str, ...] = ()
    """The variants that fail, where the others may win all the same; with the control among them nobody may. Empty
    where it passed, and where it is about the experiment as a whole."""
    detail: str
    """The numbers, and what they mean, as a sentence."""
    p_value: float | None = None
    """Where the check is a test: by the fixed method for one look, else right at every look."""


class SegmentAnalysis(Record):
    """The primary metric among the units of which an attribute has one value. Exploratory."""

    attribute: str
    value: str
    """As text; empty for units without the attribute."""
    units: Mapping[str, int]
    """Exposed units by variant key."""
    analysis: MetricAnalysis
    sample_ratio_p: float | None
    """Bonferroni over all segments of the analysis; of a sequential one right at every look."""
    sample_ratio_mismatch: bool
    """Whether the dealing within the segment is not what the weights say; then nothing wins."""


class SeriesPoint(Record):
    """The primary metric as it stood at one moment, against the control."""

    at: Utc
    variant: str
    value: float
    low: float
    high: float
    units: int
    """Of both variants."""


GuardTechnique = Literal["exact rates", "betting", "confidence sequence", "not enough data"]


class GuardReading(Record):
    """One guardrail of a policy for one variant; that it failed is right at every look, whatever the method."""

    guardrail: str
    """As a line: "success_rate >= 0.8"."""
    metric: str
    variant: str
    value: float | None
    """Of the variant; None where nothing carried the metric. Of a quantile after a guarded promotion: the share of its
    single values that are beyond the line."""
    control: float | None
    """The control's value, of a guardrail that is relative to it; None where `value` is a share of values."""
    units: int
    """Of the variant, that the metric is over."""
    p_value: float | None
    """Of the guardrail being kept, at most 1; None where nothing can be said yet."""
    alpha: float
    """This reading's share of the policy's: the guardrail has failed where `p_value` is at most this."""
    technique: GuardTechnique
    verdict: Safety
    needed: bool
    """Whether nothing is promoted before the verdict is `pass`."""
    sentence: str


class AnalysisResult(Record):
    """What an experiment shows at one moment. In a notebook it shows itself."""

    experiment_id: str
    experiment: str
    """The experiment's name."""
    at: Utc
    since: Utc | None
    """Only units first exposed from then on; None for all."""
    method: Method
    confidence: float
    control: str
    primary_metric: str
    units: Mapping[str, int]
    """Exposed units by variant key, whether anything was recorded for them or not."""
    planned_shares: Mapping[str, float]
    """Share of those units that the weights in force gave each variant."""
    metrics: Mapping[str, MetricAnalysis]
    """By metric name: the primary first, then guardrails, then the others."""
    checks: tuple[Check, ...]
    guards: tuple[GuardReading, ...] = ()
    """Of the policy that was given: every guardrail for every variant but the control."""
    segments: tuple[SegmentAnalysis, ...] = ()
    series: tuple[SeriesPoint, ...] = ()
    """Oldest first; what a look at the end of each day (or hour) would have shown, before any adjustment for history.
    Where points with few units add up to more than 20,000 of them, those beyond are by the methods for sums."""
    dealt: DealtUnits = "as planned"
    """How the units were dealt that are analysed."""
    approximate: bool
    """The confidence sequence assumes that a unit's outcomes stay as they are: without a measurement window later
    events change them. Promoting on such a result has to be allowed by name."""
    winner: str | None
    """The variant that is better on the primary metric with every check passed; with several, the best."""
    reason: str
    """Why it wins, or why nothing does."""
    caution: str
    """When, and how far, these numbers may be believed."""

    def better(self, metric: str | None = None) -> str | None:
        """Return the variant that is better than the control on `metric` (default: the primary), if any is;
        whether the checks passed or not.

        Raises `NotFoundError` for a metric that was not analysed.
        """
        name = self.primary_metric if metric is None else metric
        if name not in self.metrics:
            raise NotFoundError("metric", name, f"analysed are {', '.join(self.metrics)}")
        return self.metrics[name].better()

    def evidence(self) -> dict[str, Any]:
        """Return what a decision on this result is stored with: the numbers, the checks and how they were read."""
        told = self.model_dump(mode="json", exclude={"segments", "series", "caution"})
        told["metrics"] = {
            name: metric
            for name, metric in told["metrics"].items()
            if name == self.primary_metric or metric["role"] == "guardrail"
        }
        return told

    def failed_checks(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if not check.passed)

    def _repr_html_(self) -> str:
        """What a notebook shows of it: the table, with its intervals drawn."""
        from promptab.analysis.notebook import result_html  # noqa: PLC0415 - only notebooks show it as HTML

        return result_html(self)
