"""The conditions without which nothing wins: what would make the numbers mean something else than they say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from promptab.analysis.evidence import ArmCounts, Evidence, SegmentEvidence
from promptab.analysis.result import Check, Method, MetricAnalysis
from promptab.stats.interaction import assignment_independence
from promptab.stats.sample_ratio import EpochUnits, sample_ratio

ALARM_LEVEL = 0.001
"""Of the tests whose alarm means that something is broken: nobody should see one in a sound experiment."""

MOST_SWITCHED = 0.01
"""Share of a variant's units that may have events of another variant before the comparison is blurred."""


def validity_checks(
    evidence: Evidence, method: Method, metrics: Mapping[str, MetricAnalysis]
) -> tuple[Check, ...]:
    """Return every check, passed or not."""
    checks = [
        _sample_ratio(evidence, method),
        _minimum_units(evidence),
        _switched_units(evidence),
        _missing_outcomes(evidence),
    ]
    guardrails = [metric for metric in metrics.values() if metric.role == "guardrail"]
    if guardrails:
        checks.append(_guardrails(guardrails))
    return tuple(checks)


def segment_sample_ratio(
    arms: Mapping[str, Mapping[int, ArmCounts]],
    weights: Mapping[int, Mapping[str, float]],
    segments: int,
    method: Method,
) -> float | None:
    """Return the p-value of the dealing within one segment, times the number of segments (Bonferroni).

    For a sequential analysis that of the Bayes factor, which holds at every look too.
    """
    found = sample_ratio(_epoch_units(arms, weights))
    if found.p_value is None:
        return None
    p_value = math.exp(-max(0.0, found.log_bayes_factor)) if method == "sequential" else found.p_value
    return min(1.0, p_value * segments)


def _sample_ratio(evidence: Evidence, method: Method) -> Check:
    found = sample_ratio(
        _epoch_units(evidence.arms, evidence.weights),
        gate="fixed" if method == "fixed" else "sequential",
        alpha=ALARM_LEVEL,
    )
    dealt = ", ".join(
        f"{key} {count} (planned {found.expected.get(key, 0.0):.0f})" for key, count in found.observed.items()
    )
    if found.impossible:
        verdict = f"; {found.impossible} units are in a variant whose weight was zero"
    elif found.mismatch:
        verdict = (
            "; chance does not deal like that: look for what loses or moves units before believing anything"
        )
    else:
        verdict = ""
    return Check(
        name="sample_ratio",
        passed=not found.mismatch,
        detail=f"units per variant: {dealt or 'none'}{verdict}",
        p_value=found.p_value,
    )


def _minimum_units(evidence: Evidence) -> Check:
    needed = evidence.experiment.plan.minimum_units
    have = {variant.key: units_of(evidence, variant.key) for variant in evidence.experiment.variants}
    few = [f"{key} has {count}" for key, count in have.items() if count < needed]
    metric = evidence.primary.definition.name
    return Check(
        name="minimum_units",
        passed=not few,
        detail=f"{', '.join(few)} of the {needed} units with {metric} that each variant needs"
        if few
        else f"every variant has at least {needed} units with {metric}",
    )


def units_of(evidence: Evidence, variant: str) -> int:
    """Return how many units the primary metric of a variant is over."""
    if evidence.primary.definition.kind == "quantile":
        return sum(arm.units for arm in evidence.primary.quantiles.get(variant, {}).values())
    return evidence.primary.pooled(variant).units


def _switched_units(evidence: Evidence) -> Check:
    shares = {}
    for variant in evidence.experiment.variants:
        exposed, switched = (
            sum(getattr(counts, field) for counts in evidence.arms.get(variant.key, {}).values())
            for field in ("exposed", "switched")
        )
        shares[variant.key] = (switched, switched / exposed if exposed else 0.0)
    blurred = {key: found for key, found in shares.items() if found[1] > MOST_SWITCHED}
    told = ", ".join(f"{count} of {key} ({100 * share:.1f} %)" for key, (count, share) in blurred.items())
    return Check(
        name="switched_units",
        passed=not blurred,
        detail=f"units with events of two variants: {told}; at most {100 * MOST_SWITCHED:g} % is tolerated: "
        "is one unit's variant looked up in two ways?"
        if blurred
        else f"{sum(count for count, _ in shares.values())} units have events of two variants",
    )


def _missing_outcomes(evidence: Evidence) -> Check:
    missing, exposed = {}, {}
    for variant in evidence.experiment.variants:
        counts = evidence.arms.get(variant.key, {}).values()
        exposed[variant.key] = sum(count.exposed for count in counts)
        missing[variant.key] = exposed[variant.key] - sum(count.reporting for count in counts)
    found = assignment_independence(
        [[list(missing.values()), [exposed[key] - count for key, count in missing.items()]]]
    )
    p_value = None if found is None else found.p_value
    passed = p_value is None or p_value >= ALARM_LEVEL
    told = ", ".join(
        f"{key} {count} of {exposed[key]} ({100 * count / exposed[key]:.1f} %)"
        for key, count in missing.items()
        if exposed[key]
    )
    return Check(
        name="missing_outcomes",
        passed=passed,
        detail=f"exposed and nothing recorded: {told or 'no unit was exposed'}"
        + ("" if passed else "; a variant that loses its outcomes is compared by what it did not lose"),
        p_value=p_value,
    )


def _guardrails(guardrails: Sequence[MetricAnalysis]) -> Check:
    # all of them have to pass, so none of their alpha is shared (intersection-union)
    open_ones = [
        difference.sentence
        for metric in guardrails
        for difference in metric.differences.values()
        if difference.safety != "pass"
    ]
    names = ", ".join(metric.metric for metric in guardrails)
    return Check(
        name="guardrails",
        passed=not open_ones,
        detail="; ".join(open_ones) if open_ones else f"{names}: safe",
    )


def _epoch_units(
    arms: Mapping[str, Mapping[int, ArmCounts]], weights: Mapping[int, Mapping[str, float]]
) -> list[EpochUnits]:
    return [
        EpochUnits({key: counts[epoch].exposed for key, counts in arms.items() if epoch in counts}, shares)
        for epoch, shares in sorted(weights.items())
    ]


def planned_shares(evidence: Evidence) -> dict[str, float]:
    """Return the share of the exposed units that the weights of their epochs gave each variant."""
    expected = dict.fromkeys((variant.key for variant in evidence.experiment.variants), 0.0)
    for epoch, shares in evidence.weights.items():
        units = sum(counts[epoch].exposed for counts in evidence.arms.values() if epoch in counts)
        for key in expected:
            expected[key] += units * shares.get(key, 0.0)
    total = sum(expected.values())
    if not total:
        return dict(evidence.experiment.traffic_split)
    return {key: units / total for key, units in expected.items()}


def segments_by_attribute(segments: Sequence[SegmentEvidence]) -> dict[str, int]:
    """Return how many values each attribute has."""
    counts: dict[str, int] = {}
    for segment in segments:
        counts[segment.attribute] = counts.get(segment.attribute, 0) + 1
    return counts
