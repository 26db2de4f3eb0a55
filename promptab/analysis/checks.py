"""The conditions without which nothing wins: what would make the numbers mean something else than they say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from promptab.analysis.evidence import ArmCounts, Evidence
from promptab.analysis.result import Check, Method, MetricAnalysis
from promptab.stats.interaction import assignment_independence
from promptab.stats.sample_ratio import EpochUnits, SampleRatio, sample_ratio, sequential_bayes_factor

Arms = Mapping[str, Mapping[int, ArmCounts]]
Weights = Mapping[int, Mapping[str, float]]

ALARM_LEVEL = 0.001
"""Of the tests whose alarm means that something is broken: nobody should see one in a sound experiment."""

BAYES_FACTOR = 100.0
"""The same for a test that holds at every look: a sound experiment ever reaches it with a chance of 1 % at most."""

MOST_SWITCHED = 0.01
"""Share of a variant's units that may have events of another variant before the comparison is blurred."""


def validity_checks(
    evidence: Evidence,
    method: Method,
    metrics: Mapping[str, MetricAnalysis],
    segments: Sequence[SampleRatio] = (),
) -> tuple[Check, ...]:
    """Return every check, passed or not; `segments` are the dealings within the segments of the evidence."""
    checks = [
        _sample_ratio(evidence, method, segments),
        _minimum_units(evidence),
        _switched_units(evidence),
        _missing_outcomes(evidence, method),
    ]
    guardrails = [metric for metric in metrics.values() if metric.role == "guardrail"]
    if guardrails:
        checks.append(_guardrails(guardrails))
    return tuple(checks)


def segment_dealings(evidence: Evidence, method: Method) -> list[SampleRatio]:
    """Test the dealing within each segment, as one of so many (Bonferroni)."""
    tests = len(evidence.segments)
    return [_dealing(segment.arms, evidence.weights, method, tests=tests) for segment in evidence.segments]


def _dealing(arms: Arms, weights: Weights, method: Method, *, tests: int = 1) -> SampleRatio:
    """Test by chi-square for one look, and by the Bayes factor, which holds at every look, for the other methods.

    The p-value is that of the test which decides, times the number of tests.
    """
    found = sample_ratio(
        _epoch_units(arms, weights),
        gate="fixed" if method == "fixed" else "sequential",
        alpha=ALARM_LEVEL / tests,
        bayes_factor=BAYES_FACTOR * tests,
    )
    if found.p_value is None:
        return found
    p_value = found.p_value if method == "fixed" else math.exp(-max(0.0, found.log_bayes_factor))
    return found._replace(p_value=min(1.0, tests * p_value))


def _sample_ratio(evidence: Evidence, method: Method, segments: Sequence[SampleRatio]) -> Check:
    whole = _dealing(evidence.arms, evidence.weights, method)
    told = [f"units per variant: {_dealt(whole) or 'none'}"]
    told += [
        f"with {segment.attribute} = {segment.value or '(not given)'}: {_dealt(dealing)}"
        for segment, dealing in zip(evidence.segments, segments, strict=True)
        if dealing.mismatch
    ]
    passed = not any(dealing.mismatch for dealing in (whole, *segments))
    if whole.impossible:
        told.append(f"{whole.impossible} units are in a variant whose weight was zero")
    elif not passed:
        told.append(
            "chance does not deal like that: look for what loses or moves units before believing anything"
        )
    return Check(name="sample_ratio", passed=passed, detail="; ".join(told), p_value=whole.p_value)


def _dealt(dealing: SampleRatio) -> str:
    return ", ".join(
        f"{key} {count} (planned {dealing.expected.get(key, 0.0):.0f})"
        for key, count in dealing.observed.items()
    )


def _minimum_units(evidence: Evidence) -> Check:
    needed = evidence.experiment.plan.minimum_units
    have = {variant.key: evidence.units_of(variant.key) for variant in evidence.experiment.variants}
    few = [f"{key} has {count}" for key, count in have.items() if count < needed]
    metric = evidence.primary.definition.name
    undealt = (
        f"; {evidence.undealt} more were reported and not dealt, so that a bandit cannot weigh them: let choose or "
        "assign deal them"
        if evidence.undealt
        else ""
    )
    return Check(
        name="minimum_units",
        passed=not few,
        variants=tuple(key for key, count in have.items() if count < needed),
        detail=f"{', '.join(few)} of the {needed} units with {metric} that each variant needs{undealt}"
        if few
        else f"every variant has at least {needed} units with {metric}",
    )


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
        variants=tuple(blurred),
        detail=f"units with events of two variants: {told}; at most {100 * MOST_SWITCHED:g} % is tolerated: "
        "is one unit's variant looked up in two ways?"
        if blurred
        else f"{sum(count for count, _ in shares.values())} units have events of two variants",
    )


def _missing_outcomes(evidence: Evidence, method: Method) -> Check:
    """Compare the shares of units for which nothing was recorded, epoch by epoch.

    For one look by chi-square on these shares. For any number of looks the units without an outcome have to be dealt
    otherwise than the weights say, too: the Bayes factor bounds the chance of an alarm at any look, and chi-square
    leaves a crooked dealing to the check on that. Exact where a unit's measurement window has closed; before that an
    outcome may still come. Of units that were evicted none comes any more, so these are not compared.
    """
    epochs = [
        {
            key: by_epoch.get(epoch, ArmCounts())
            for key, by_epoch in evidence.arms.items()
            if key not in evidence.cut_short.get(epoch, ())
        }
        for epoch in evidence.weights
    ]
    found = assignment_independence(
        [[[arm.missing for arm in of.values()], [arm.reporting for arm in of.values()]] for of in epochs]
    )
    p_value = None if found is None else found.p_value
    lost = p_value is not None and p_value < ALARM_LEVEL
    if p_value is not None and method != "fixed":
        without = [{key: arm.missing for key, arm in of.items()} for of in epochs]
        shares = [
            {key: share for key, share in weights.items() if key not in evidence.cut_short.get(epoch, ())}
            for epoch, weights in evidence.weights.items()
        ]
        split = sequential_bayes_factor(map(EpochUnits, without, shares))
        lost = lost and split >= math.log(BAYES_FACTOR)
        p_value = max(p_value, math.exp(-max(0.0, split)))
    totals = {
        key: (sum(arm.missing for arm in by_epoch.values()), sum(arm.exposed for arm in by_epoch.values()))
        for key, by_epoch in evidence.arms.items()
    }
    told = ", ".join(
        f"{key} {missing} of {exposed} ({100 * missing / exposed:.1f} %)"
        for key, (missing, exposed) in totals.items()
        if exposed
    )
    return Check(
        name="missing_outcomes",
        passed=not lost,
        detail=f"exposed and nothing recorded: {told or 'no unit was exposed'}"
        + ("; a variant that loses its outcomes is compared by what it did not lose" if lost else "")
        + _late_clause(evidence.late),
        p_value=p_value,
    )


def _late_clause(late: int) -> str:
    if not late:
        return ""
    came = "1 outcome came after its" if late == 1 else f"{late} outcomes came after their"
    return f"; {came} unit's window had closed and been counted, and {'is' if late == 1 else 'are'} left out"


def _guardrails(guardrails: Sequence[MetricAnalysis]) -> Check:
    # all of them have to pass, so none of their alpha is shared (intersection-union)
    open_ones = [
        difference.sentence
        for metric in guardrails
        for difference in metric.differences.values()
        if difference.safety != "pass"
    ]
    harmed = {
        key
        for metric in guardrails
        for key, difference in metric.differences.items()
        if difference.safety != "pass"
    }
    names = ", ".join(metric.metric for metric in guardrails)
    return Check(
        name="guardrails",
        passed=not open_ones,
        variants=tuple(sorted(harmed)),
        detail="; ".join(open_ones) if open_ones else f"{names}: safe",
    )


def _epoch_units(arms: Arms, weights: Weights) -> list[EpochUnits]:
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
