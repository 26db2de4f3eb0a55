"""What is said beside an analysis: how large an experiment has to be, how often its method errs on recorded units, and
whether two experiments disturb each other. Light: `sizing`, `replaying` and `crossing` bring scipy along.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from promptab.analysis.result import Method
from promptab.records import Record
from promptab.stats.clustering import measured_clustering
from promptab.stats.covariate_sums import CovariateSums
from promptab.stats.cuped import cuped_contrast
from promptab.stats.metric import Direction, MetricDefinition, MetricFormat
from promptab.stats.ratio import ratio_mean
from promptab.stats.summary import UnitSums


class MetricHistory(Record):
    """One metric in the events recorded so far: what the size of an experiment is worked out from.

    What cannot be known is None: everything but the counts with fewer than two units.
    """

    source: str
    """Whose events these are, in words."""
    metric: str
    direction: Direction
    format: MetricFormat
    is_share: bool
    """Whether it is a share, of events or of units, and so planned as a proportion."""
    units: int
    """Units that the metric is over."""
    units_per_day: float | None
    """Units with the metric that come for the first time, with all traffic enrolled; None for a history of less than a
    day."""
    events_per_unit: float | None
    """None for metrics that are not over events."""
    event_cv: float | None
    """Coefficient of variation of the events per unit."""
    mean: float | None
    variance_per_unit: float | None
    """By the delta method: the variance of the mean times the units."""
    correlation: float | None
    """Of two events of one unit, 0 to 1; None where no unit has two events, or the events do not vary."""
    design_effect: float | None
    """How many times the events are needed that would do if they were independent."""
    history_correlation: float | None
    """Of a unit's outcomes with those before its first exposure, where the metric has `history_days`."""
    tuning_units: int | None
    """Of the experiment's plan; None for a prompt's history."""

    @classmethod
    def of(
        cls,
        source: str,
        definition: MetricDefinition,
        sums: UnitSums,
        *,
        event_variance: float | None,
        units_per_day: float | None,
        before: tuple[Mapping[int, CovariateSums], Mapping[int, CovariateSums]] | None = None,
        tuning_units: int | None = None,
    ) -> MetricHistory:
        """Work it out from the sums over units.

        `event_variance` is that of single events, and None for events of 0 and 1; `before` are two arms with the past
        of their units.
        """
        arm = ratio_mean(sums)
        known = arm is not None and math.isfinite(arm.variance)
        over_events = definition.kind in {"proportion", "mean"}
        zeros_and_ones = definition.kind == "proportion"
        measurable = over_events and (zeros_and_ones or event_variance is not None)
        spread = None if zeros_and_ones else event_variance
        clustering = measured_clustering(sums, event_variance=spread) if measurable else None
        events_per_unit = sums.n / sums.units if over_events and sums.units else None
        cv = None
        if events_per_unit is not None:
            cv = math.sqrt(max(0.0, sums.nn / sums.units / events_per_unit**2 - 1.0))
        return cls(
            source=source,
            metric=definition.name,
            direction=definition.direction,
            format=definition.format,
            is_share=definition.kind in {"proportion", "share_of_units"},
            units=sums.units,
            units_per_day=units_per_day,
            events_per_unit=events_per_unit,
            event_cv=cv,
            mean=arm.value if known and arm is not None else None,
            variance_per_unit=arm.variance * arm.units if known and arm is not None else None,
            correlation=None if clustering is None else clustering.intra_unit_correlation,
            design_effect=None if clustering is None else clustering.design_effect,
            history_correlation=None if before is None else cuped_contrast(*before).correlation,
            tuning_units=tuning_units,
        )


class PlannedTest(Record):
    """The size of an experiment by one method."""

    method: Literal["sequential", "fixed"]
    control_units: int
    treatment_units: int
    """Of each treatment."""
    units: int
    """In all variants together."""
    events: int | None
    """In all variants together; None where the events per unit are not known."""
    days: int | None
    """None where the traffic is not known."""
    power: float
    effect: float | None
    """Treatment minus control, in the metric's own unit; None where no effect is found with so few units."""
    lift: float | None
    """`effect` relative to the control; None where that is not known, or not above zero."""


class SampleSizePlan(Record):
    """How many units an experiment needs, or what it finds with those that it gets."""

    question: Literal["units", "power", "effect"]
    """Which of the three was asked for; the other two were given."""
    format: MetricFormat
    direction: Direction
    baseline: float | None
    """The control's value, where it is known."""
    margin: float | None
    """Non-inferiority: how much worse is tolerated, in the metric's own unit."""
    variants: int
    alpha: float
    """Of each comparison with the control."""
    variance_factor: float
    """What several events per unit and the units' history make of a unit's variance."""
    tests: tuple[PlannedTest, ...]
    """The sequential analysis, which promptab uses unless told otherwise, and the fixed horizon beside it."""
    sentence: str


class ReplayResult(Record):
    """How often an analysis finds a difference between units that were all served the same."""

    experiment_id: str
    experiment: str
    variant: str
    """Whose units were dealt: the control, as a real effect would be no false positive."""
    metric: str
    method: Method
    confidence: float
    units: int
    runs: int
    false_positives: int
    share: float
    """False positives per run."""
    low: float
    high: float
    """The share's 95 % interval: of dealing these units, not of others that might come."""
    sentence: str


class VariantInteraction(Record):
    """How much the effect of a variant differs between two groups of units: those with a variant of the other
    experiment, and those with its control. None where a group has fewer than two units in a variant.
    """

    variant: str
    """Of the first experiment."""
    other_variant: str
    """Of the second."""
    effect_with: float | None
    """The variant minus the first experiment's control, among the units with `other_variant`."""
    effect_without: float | None
    """The same among the units with the second experiment's control."""
    value: float | None
    """`effect_with` minus `effect_without`."""
    se: float | None
    low: float | None
    high: float | None
    p_value: float | None
    """Two-sided, of no interaction."""
    units: int
    """In the four groups together."""
    sentence: str


class InteractionResult(Record):
    """Whether the effect of one experiment depends on another one on the same units."""

    first_id: str
    first: str
    second_id: str
    second: str
    metric: str
    """Of the first experiment; the events are those recorded in it."""
    confidence: float
    units: int
    """Units that are in both experiments."""
    contrasts: tuple[VariantInteraction, ...]
    """One for every pair of variants that are no controls."""
    p_value: float | None
    """Of no interaction at all, all variants taken together (Wald)."""
    independence_p: float | None
    """Of the two experiments having been dealt independently of each other."""
    sentence: str
