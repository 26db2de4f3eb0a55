"""Analyses to be shown, written by hand: what they say is for looks, not worked out from anything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from promptab.analysis.histogram import Histogram
from promptab.analysis.result import (
    AnalysisResult,
    Check,
    CovariateAdjustment,
    Method,
    MetricAnalysis,
    Role,
    Safety,
    SegmentAnalysis,
    SeriesPoint,
    VariantDifference,
    VariantEstimate,
    Verdict,
)
from promptab.stats.metric import BUILT_IN_METRICS, MetricDefinition

NOON = datetime(2026, 3, 14, 12, tzinfo=UTC)
GUARDRAIL = BUILT_IN_METRICS["response_time"].model_copy(
    update={"role": "guardrail", "largest_regression": 0.05}
)


def difference(
    variant: str,
    value: float | None,
    half: float | None,
    control: float,
    *,
    verdict: Verdict = "undecided",
    safety: Safety | None = None,
    adjusted: CovariateAdjustment | None = None,
    method: Method = "sequential",
) -> VariantDifference:
    """Return value ± half, of a control with this value; the lift's interval is that over the control."""
    known = value is not None and half is not None
    low, high = (value - half, value + half) if value is not None and half is not None else (None, None)
    bayesian = method == "bayesian"
    return VariantDifference(
        variant=variant,
        value=value,
        se=None if half is None else half / 2.0,
        low=low,
        high=high,
        df=None,
        p_value=None if bayesian or not known else 0.00021 if verdict != "undecided" else 0.21,
        adjusted_p=None if bayesian or not known else 0.00063 if verdict != "undecided" else 0.42,
        technique="confidence sequence" if known else "not enough data",
        lift=None if value is None else value / control,
        lift_low=None if low is None else low / control,
        lift_high=None if high is None else high / control,
        adjusted=adjusted,
        probability_better=0.9996 if bayesian else None,
        expected_loss=0.00012 if bayesian else None,
        verdict=verdict,
        size="large enough" if verdict == "better" else None,
        safety=safety,
        left_out=(),
        sentence=f"{variant} is {verdict} by {value}",
    )


def metric(
    definition: MetricDefinition,
    control: tuple[str, float],
    differences: Sequence[VariantDifference],
    *,
    role: Role = "secondary",
) -> MetricAnalysis:
    estimates = {control[0]: _estimate(control[0], control[1])}
    for one in differences:
        estimates[one.variant] = _estimate(one.variant, None if one.value is None else control[1] + one.value)
    return MetricAnalysis(
        metric=definition.name,
        label=definition.heading,
        direction=definition.direction,
        format=definition.format,
        role=role,
        largest_regression=definition.largest_regression,
        smallest_effect=definition.smallest_effect,
        relative=definition.relative,
        estimates=estimates,
        differences={one.variant: one for one in differences},
    )


def _estimate(variant: str, value: float | None) -> VariantEstimate:
    if value is None:
        return VariantEstimate(variant=variant, value=None, se=None, low=None, high=None, units=0, events=0)
    half = 0.04 * abs(value)
    return VariantEstimate(
        variant=variant,
        value=value,
        se=half / 2,
        low=value - half,
        high=value + half,
        units=1_988,
        events=8_120,
    )


def two_variants(*, experiment: str = "support_reply", method: Method = "sequential") -> AnalysisResult:
    """Return a clear winner, with a guardrail, a metric adjusted for history, one without data, and a series."""
    history = CovariateAdjustment(
        value=-0.00002,
        se=0.000015,
        low=-0.00005,
        high=0.00001,
        p_value=0.19,
        correlation=0.61,
        variance_reduction=0.37,
        units_with_history=1_200,
    )
    metrics = (
        metric(
            BUILT_IN_METRICS["success_rate"],
            ("1.0.0", 0.612),
            [difference("1.1.0", 0.164, 0.081, 0.612, verdict="better", method=method)],
            role="primary",
        ),
        metric(
            GUARDRAIL,
            ("1.0.0", 0.812),
            [difference("1.1.0", 0.011, 0.019, 0.812, safety="pass", method=method)],
            role="guardrail",
        ),
        metric(
            BUILT_IN_METRICS["cost"],
            ("1.0.0", 0.00041),
            [difference("1.1.0", -0.00001, 0.00006, 0.00041, adjusted=history, method=method)],
        ),
        metric(
            BUILT_IN_METRICS["rating"],
            ("1.0.0", 4.1),
            [difference("1.1.0", None, None, 4.1, method=method)],
        ),
    )
    series = tuple(
        SeriesPoint(
            at=NOON + timedelta(days=day - 28),
            variant="1.1.0",
            value=0.164 + 0.4 / day * (-1) ** day,
            low=0.164 + 0.4 / day * (-1) ** day - 0.43 / day**0.5,
            high=0.164 + 0.4 / day * (-1) ** day + 0.43 / day**0.5,
            units=140 * day,
        )
        for day in range(1, 29)
    )
    return AnalysisResult(
        experiment_id="0192f0c1-7b1e-7cc3-98c4-dc0c0c07398f",
        experiment=experiment,
        at=NOON,
        since=None,
        method=method,
        confidence=0.95,
        control="1.0.0",
        primary_metric="success_rate",
        units={"1.0.0": 2_012, "1.1.0": 1_988},
        planned_shares={"1.0.0": 0.5, "1.1.0": 0.5},
        metrics={one.metric: one for one in metrics},
        checks=(
            Check(
                name="sample_ratio",
                passed=True,
                detail="units per variant: 1.0.0 2012 (planned 2000), 1.1.0 1988 (planned 2000)",
                p_value=0.7,
            ),
            Check(name="minimum_units", passed=True, detail="every variant has at least 100 units"),
            Check(name="guardrails", passed=True, detail="response_time: safe"),
        ),
        series=series,
        approximate=True,
        winner="1.1.0",
        reason="1.1.0 is 16.4 points better (95 % interval 8.3 to 24.5) on success_rate",
        caution="These intervals hold at every look: look whenever you like, and stop when you have seen enough. "
        "Approximate: later outcomes of a unit change what it was counted with; a measurement window in the plan "
        "(window_hours) makes it exact.",
    )


LONG_NAMES = (
    "baseline-gpt-4.1-mini-with-long-instructions",
    "b",
    "shorter-instructions-and-examples",
    "d-tools",
)


def four_variants(method: Method = "sequential") -> AnalysisResult:
    """Return variants with long names, none of which wins; segments, and a check that failed."""
    control, *others = LONG_NAMES
    values = (0.05, -0.09, 0.01)
    verdicts: tuple[Verdict, ...] = ("better", "worse", "undecided")
    success = metric(
        BUILT_IN_METRICS["success_rate"],
        (control, 0.612),
        [
            difference(key, value, 0.04, 0.612, verdict=verdict, method=method)
            for key, value, verdict in zip(others, values, verdicts, strict=True)
        ],
        role="primary",
    )
    safeties: tuple[Safety, ...] = ("pass", "fail", "undecided")
    times = metric(
        GUARDRAIL,
        (control, 0.812),
        [
            difference(key, value, 0.02, 0.812, safety=safety, method=method)
            for key, value, safety in zip(others, (-0.01, 0.09, 0.03), safeties, strict=True)
        ],
        role="guardrail",
    )
    return two_variants(method=method).model_copy(
        update={
            "control": control,
            "units": dict(zip(LONG_NAMES, (2_012, 1_500, 1_988, 402), strict=True)),
            "planned_shares": dict(zip(LONG_NAMES, (0.3, 0.3, 0.3, 0.1), strict=True)),
            "metrics": {"success_rate": success, "response_time": times},
            "checks": (
                Check(
                    name="sample_ratio",
                    passed=False,
                    detail="units per variant: b 1500 (planned 1771); chance does not deal like that: look for what "
                    "loses or moves units before believing anything",
                    p_value=1e-9,
                ),
            ),
            "segments": tuple(
                SegmentAnalysis(
                    attribute="plan",
                    value=value,
                    units=dict.fromkeys(LONG_NAMES, 700),
                    analysis=success.model_copy(update={"role": "secondary"}),
                    sample_ratio_p=0.8,
                    sample_ratio_mismatch=False,
                )
                for value in ("free", "")
            ),
            "series": tuple(
                point.model_copy(
                    update={
                        "variant": key,
                        "value": point.value - 0.1 * at,
                        "low": point.low - 0.1 * at,
                        "high": point.high - 0.1 * at,
                    }
                )
                for point in two_variants().series
                for at, key in enumerate(others)
            ),
            "winner": None,
            "reason": "The dealing is not what the weights say: units per variant: b 1500 (planned 1771); chance does "
            "not deal like that: look for what loses or moves units before believing anything",
        }
    )


def histograms(*variants: str) -> list[Histogram]:
    """Return two dozen bins of a twentieth second per variant, each a little later than the one before."""
    edges = [0.2 + 0.05 * at for at in range(25)]
    return [
        Histogram(key, edges, [0] * late + [round(900 * at * 0.72**at) for at in range(24 - late)])
        for late, key in enumerate(variants)
    ]


HOSTILE = "<script>alert('x')</script>&amp;"


def hostile() -> AnalysisResult:
    """Return an analysis in which every text that comes from outside tries to be markup."""
    result = two_variants(experiment=HOSTILE)
    document = json.loads(result.model_dump_json())
    document["reason"] = document["caution"] = HOSTILE
    text = json.dumps(document).replace("1.1.0", json.dumps(HOSTILE)[1:-1])
    return AnalysisResult.model_validate_json(text)
