"""Guardrails: is the treatment not worse than the control by more than a margin?

"No significant difference" is no answer to that: a small experiment finds none whatever the harm. What is tested
is the harm itself, so that only data can make a guardrail pass.

References:
    Blackwelder, "'Proving the null hypothesis' in clinical trials", Controlled Clinical Trials 3, 1982
    FDA, "Non-Inferiority Clinical Trials to Establish Effectiveness", guidance for industry, 2016
    Schuirmann, "A comparison of the two one-sided tests procedure ...", Journal of Pharmacokinetics and
        Biopharmaceutics 15, 1987 (why two one-sided bounds)
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from promptab.checks import check_number
from promptab.errors import InvalidInputError
from promptab.stats.fixed import t_interval, t_p_value
from promptab.stats.interval import Alternative, Interval
from promptab.stats.metric import Direction

GuardrailVerdict = Literal["pass", "fail", "undecided"]
"""No worse than the margin allows; worse than it allows; or the data do not say which."""


class NonInferiority(NamedTuple):
    """Whether the treatment is no worse than the margin allows; all but `verdict` None where nothing varies."""

    verdict: GuardrailVerdict
    interval: Interval | None
    """Of the effect; each end is a one-sided bound by itself, so both hold with 2 * confidence - 1."""
    p_value: float | None
    """One-sided, of the treatment being worse by the margin or more."""


class MarginEffect(NamedTuple):
    """How far the treatment is from what a relative margin allows; to be tested with a margin of 0."""

    value: float
    se: float


class NonInferiorityTest(NamedTuple):
    """The null hypothesis of a guardrail: the effect at the margin, and the side that is claimed instead."""

    null: float
    alternative: Alternative


def guardrail_verdict(interval: Interval | None, *, margin: float, direction: Direction) -> GuardrailVerdict:
    """Judge an effect (treatment - control) by one-sided bounds of any kind: t, Newcombe, sequential.

    Each end of `interval` is a one-sided bound at level alpha: pass when the worst that the effect may be is
    within the margin, fail when even the best is beyond it, and undecided otherwise or without an interval.
    Each of the two errors then has probability at most alpha; over all looks where the bounds are sequential.

    `margin` is in the effect's own unit, at least 0 (the largest regression that is tolerated; 0 asks for an
    improvement). Raises `InvalidInputError` for any other.
    """
    null, _ = non_inferiority_test(margin, direction)
    if interval is None:
        return "undecided"
    above, below = interval.low > null, interval.high < null
    safe, harmed = (above, below) if direction == "increase" else (below, above)
    if safe:
        return "pass"
    return "fail" if harmed else "undecided"


def non_inferiority_test(margin: float, direction: Direction) -> NonInferiorityTest:
    """Return what a p-value of any method tests: effect > -margin where an increase is better, else < margin.

    Raises `InvalidInputError` for a margin that is negative or not finite.
    """
    if not 0.0 <= margin < math.inf:
        remedy = "give the largest regression that is tolerated, without a sign"
        raise InvalidInputError("margin", margin, "a finite number of at least 0", remedy)
    if direction == "increase":
        return NonInferiorityTest(-margin, "greater")
    return NonInferiorityTest(margin, "less")


def non_inferiority(
    value: float | None,
    se: float | None,
    *,
    margin: float,
    direction: Direction,
    df: float | None = None,
    confidence: float = 0.95,
) -> NonInferiority:
    """Test an effect (treatment - control) against a margin at a fixed horizon, each side at 1 - confidence.

    z = (effect + margin) / se where an increase is better, against Student's t with `df` degrees of freedom, or
    the normal (Wald) without them; `margin` as in `guardrail_verdict`. Assumes an effect that is normal over
    repetitions. Passes exactly where p < 1 - confidence.

    Undecided, with no interval and no p-value, where the effect or its standard error is unknown, and where
    nothing varies (se = 0): what never varied does not tell how much it varies. Raises `InvalidInputError` for a
    margin that is negative or not finite, and for a confidence outside (0.5, 1).
    """
    check_number("confidence", confidence, above=0.5, below=1.0)
    null, alternative = non_inferiority_test(margin, direction)
    if value is None or se is None or se == 0.0 or not math.isfinite(value + se):
        return NonInferiority("undecided", None, None)
    df = math.inf if df is None else df
    low = t_interval(value, se, df, confidence=confidence, alternative="greater").low
    high = t_interval(value, se, df, confidence=confidence, alternative="less").high
    interval = Interval(low, high)
    return NonInferiority(
        verdict=guardrail_verdict(interval, margin=margin, direction=direction),
        interval=interval,
        p_value=t_p_value(value, se, df, null=null, alternative=alternative),
    )


def relative_margin_effect(
    treatment: float,
    treatment_variance: float,
    control: float,
    control_variance: float,
    *,
    margin: float,
    direction: Direction,
) -> MarginEffect:
    """Return R_t - (1 - m) R_c where an increase is better, R_t - (1 + m) R_c otherwise, with its standard error.

    For a margin m that is a share of the control's mean (0.02: two percent worse is tolerated), which is itself
    uncertain: the variance is v_t + (1 ∓ m)² v_c for independent arms (FDA 2016, fixed-fraction margins). To be
    tested with `margin=0`. Variances are those of the means. Where the control's mean is negative the factor is
    the other one, so that worse means worse: the margin is m |R_c|. Assumes that the control's sign is not in
    doubt; a mean of 0 leaves no margin.

    Raises `InvalidInputError` for a margin that is negative or not finite.
    """
    null, _ = non_inferiority_test(margin, direction)
    factor = 1.0 + (math.copysign(null, null * control) if control else 0.0)
    return MarginEffect(
        treatment - factor * control,
        math.sqrt(treatment_variance + factor * factor * control_variance),
    )
