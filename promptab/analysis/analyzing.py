"""Evidence in, a result with its reasons out. Pure: no store, no clock."""

from __future__ import annotations

from collections.abc import Sequence

from promptab.analysis import sentences
from promptab.analysis.checks import planned_shares, segment_dealings, validity_checks
from promptab.analysis.difference import compared_metric
from promptab.analysis.evidence import Evidence
from promptab.analysis.guarding import guard_readings
from promptab.analysis.result import (
    AnalysisResult,
    DealtUnits,
    Method,
    MetricAnalysis,
    SegmentAnalysis,
    SeriesPoint,
)
from promptab.analysis.winning import winner_of
from promptab.policy import Policy
from promptab.stats.multiplicity import benjamini_hochberg
from promptab.stats.sample_ratio import SampleRatio


def analyze(
    evidence: Evidence,
    method: Method = "sequential",
    *,
    confidence: float | None = None,
    policy: Policy | None = None,
) -> AnalysisResult:
    """Say what the evidence shows by one method, and where the guardrails of a policy stand.

    `confidence` is the plan's unless given. The primary metric is judged at it, shared among the variants
    (Holm); each guardrail by one-sided bounds at it, unshared, as all have to pass; secondary metrics and
    segments by Benjamini-Hochberg.
    """
    experiment = evidence.experiment
    level = experiment.plan.confidence if confidence is None else confidence
    primary = compared_metric(evidence.primary, experiment, method, level, role="primary")
    others = [
        compared_metric(metric, experiment, method, level, role=metric.definition.role)
        for metric in evidence.others
    ]
    others = [metric for metric in others if metric.role == "guardrail"] + adjusted_for_many(
        [metric for metric in others if metric.role != "guardrail"], level
    )
    metrics = {metric.metric: metric for metric in (primary, *others)}
    dealings = segment_dealings(evidence, method)
    checks = validity_checks(evidence, method, metrics, dealings)
    dealt: DealtUnits = "as planned"
    if experiment.bandit is not None:
        dealt = "uniform slice" if evidence.primary.weights is None else "adaptively"
    approximate = (
        method == "sequential" and experiment.plan.window_hours is None and experiment.unit != "request"
    )
    winner, reason = winner_of(primary, checks, experiment.control)
    return AnalysisResult(
        experiment_id=experiment.experiment_id,
        experiment=experiment.name,
        at=evidence.at,
        since=evidence.since,
        method=method,
        confidence=level,
        control=experiment.control,
        primary_metric=primary.metric,
        units={variant.key: evidence.exposed(variant.key) for variant in experiment.variants},
        planned_shares=planned_shares(evidence),
        metrics=metrics,
        checks=checks,
        guards=() if policy is None else guard_readings(evidence, policy, metrics),
        segments=_segments(evidence, method, level, dealings),
        series=_series(evidence, method, level),
        dealt=dealt,
        approximate=approximate,
        winner=winner,
        reason=reason,
        caution=sentences.caution(
            method,
            approximate=approximate,
            few_units=min(_primary_units(evidence)) < 30,
            metrics=metrics,
            dealt=dealt,
        ),
    )


def adjusted_for_many(metrics: Sequence[MetricAnalysis], confidence: float) -> list[MetricAnalysis]:
    """Judge all these differences together: Benjamini-Hochberg over every metric and variant."""
    cells = [(metric, key) for metric in metrics for key in metric.differences]
    found = [metric.differences[key] for metric, key in cells]
    # of the difference that the verdict goes by
    adjusted = benjamini_hochberg([(each.adjusted or each).p_value for each in found])
    by_cell = {(metric.metric, key): p for (metric, key), p in zip(cells, adjusted, strict=True)}
    judged = []
    for metric in metrics:
        differences = {}
        for key, difference in metric.differences.items():
            p_value = by_cell[metric.metric, key]
            changes: dict[str, object] = {"adjusted_p": p_value}
            if p_value is not None and p_value > 1.0 - confidence and difference.verdict != "undecided":
                changes |= {
                    "verdict": "undecided",
                    "sentence": sentences.not_after_correction(difference, len(cells), p_value),
                }
            differences[key] = difference.model_copy(update=changes)
        judged.append(metric.model_copy(update={"differences": differences}))
    return judged


def _primary_units(evidence: Evidence) -> list[int]:
    return [evidence.units_of(variant.key) for variant in evidence.experiment.variants]


def _segments(
    evidence: Evidence, method: Method, confidence: float, dealings: Sequence[SampleRatio]
) -> tuple[SegmentAnalysis, ...]:
    """Analyse the primary metric within each segment, all judged together and marked exploratory."""
    named = [
        (segment, compared_metric(segment.primary, evidence.experiment, method, confidence, role="secondary"))
        for segment in evidence.segments
    ]
    # names that tell the cells apart while they are judged together
    cells = [analysis.model_copy(update={"metric": str(index)}) for index, (_, analysis) in enumerate(named)]
    judged = adjusted_for_many(cells, confidence)
    return tuple(
        SegmentAnalysis(
            attribute=segment.attribute,
            value=segment.value,
            units={
                variant.key: sum(counts.exposed for counts in segment.arms.get(variant.key, {}).values())
                for variant in evidence.experiment.variants
            },
            analysis=analysis.model_copy(update={"metric": original.metric}),
            sample_ratio_p=dealing.p_value,
            sample_ratio_mismatch=dealing.mismatch,
        )
        for (segment, original), analysis, dealing in zip(named, judged, dealings, strict=True)
    )


def _series(evidence: Evidence, method: Method, confidence: float) -> tuple[SeriesPoint, ...]:
    points = []
    for moment in evidence.series:
        metric = compared_metric(moment.primary, evidence.experiment, method, confidence, role="primary")
        for key, difference in metric.differences.items():
            if difference.value is None or difference.low is None or difference.high is None:
                continue
            units = metric.estimates[key].units + metric.estimates[evidence.experiment.control].units
            points.append(
                SeriesPoint(
                    at=moment.at,
                    variant=key,
                    value=difference.value,
                    low=difference.low,
                    high=difference.high,
                    units=units,
                )
            )
    return tuple(points)
