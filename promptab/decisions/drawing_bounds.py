"""Where the guardrails of a guarded promotion draw the line, once and before the first outcome is weighed.

A guardrail that names its bound is taken at its word. One that is relative is held against what the version before
had until the promotion. That record is history: nobody dealt units to the two versions at once. So this takes what
was recorded before for a sample of what the same traffic would have had since, and is as right as that is. What the
sample leaves open is paid for: a fifth of the guardrail's alpha goes into a one-sided confidence bound on what the
version before is worth, and that bound, less the margin, is the line; the other four fifths are for the sequence that
weighs the new version against it at every look. Both together are wrong at most with probability alpha.

A quantile is behind a bound b exactly where the share of values beyond b is small enough, so that one is weighed as a
rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy.special import betaincinv

from promptab.analysis.inference import FEW_SEQUENTIAL_UNITS, are_trials
from promptab.decisions.guard import GuardBound, PastEvent, definition_of
from promptab.guardrails import Guardrail
from promptab.policy import Policy
from promptab.stats.contrast import ArmMean
from promptab.stats.fixed import t_interval
from promptab.stats.interval import Side
from promptab.stats.metric import MetricDefinition
from promptab.stats.quantile import quantile_arm
from promptab.stats.ratio import ratio_mean
from promptab.stats.summary import UnitSums

HISTORY_SHARE = 0.2
"""Of alpha: what was recorded before is usually much, so that little of alpha already gives a narrow bound."""


def drawn_bounds(
    policy: Policy, past: Mapping[str, Sequence[PastEvent]], *, previous: str
) -> tuple[GuardBound, ...]:
    """Return where each guardrail draws its line; `past` is what `previous`, the version before, had by metric."""
    alpha = policy.guardrail_alpha / len(policy.guardrails)
    return tuple(
        _absolute(guardrail, alpha)
        if guardrail.is_absolute
        else _relative(guardrail, alpha, past[guardrail.metric], previous)
        for guardrail in policy.guardrails
    )


def _absolute(guardrail: Guardrail, alpha: float) -> GuardBound:
    claim: Side = "less" if guardrail.kind == "at_least" else "greater"
    return _bound(guardrail, claim, guardrail.amount, alpha)


def _bound(guardrail: Guardrail, claim: Side, amount: float, alpha: float) -> GuardBound:
    definition = definition_of(guardrail)
    drawn = GuardBound(
        guardrail=guardrail.text, metric=definition.name, claim=claim, bound=amount, alpha=alpha
    )
    if definition.quantile is None:
        return drawn
    share = 1.0 - definition.quantile if claim == "greater" else definition.quantile
    return drawn.model_copy(update={"threshold": amount, "beyond": claim, "bound": share, "claim": "greater"})


class _Past(NamedTuple):
    """What the version before had, and the worst that it is worth on the side of the new version's favour."""

    value: float | None
    units: int
    worth: float | None = None
    lacking: str = ""


def _relative(guardrail: Guardrail, alpha: float, events: Sequence[PastEvent], previous: str) -> GuardBound:
    definition = definition_of(guardrail)
    claim: Side = "less" if definition.direction == "increase" else "greater"
    past = _worth(definition, events, claim, HISTORY_SHARE * alpha)
    told = {"previous": past.value, "previous_units": past.units}
    if past.worth is None:
        none = GuardBound(
            guardrail=guardrail.text, metric=definition.name, claim=claim, bound=None, alpha=alpha
        )
        detail = f"not watched: {previous} had {past.lacking} before"
        return none.model_copy(update={**told, "detail": detail})
    margin = guardrail.amount * abs(past.worth) if guardrail.relative else guardrail.amount
    amount = past.worth - margin if claim == "less" else past.worth + margin
    if definition.is_rate:
        # a margin may reach past what a rate can be, and then no version is beyond it
        amount = min(1.0, max(0.0, amount))
    drawn = _bound(guardrail, claim, amount, (1.0 - HISTORY_SHARE) * alpha)
    side = "at least" if claim == "less" else "at most"
    detail = (
        f"{previous} had {past.value:.4g} over {past.units} units before, so {side} {past.worth:.4g} "
        f"with confidence {1.0 - HISTORY_SHARE * alpha:.4g}; the line is at {amount:.4g}"
    )
    return drawn.model_copy(update={**told, "detail": detail})


def _worth(definition: MetricDefinition, events: Sequence[PastEvent], claim: Side, alpha: float) -> _Past:
    if definition.quantile is not None:
        arm = quantile_arm(
            [event.s for event in events], [event.unit for event in events], definition.quantile
        )
        return _asymptotic(arm.value, arm.units, arm.mean, claim, alpha)
    sums = _sums(events)
    value = sums.s / sums.n if sums.n else None
    if definition.is_rate and are_trials(sums) and sums.units:
        return _Past(value, sums.units, _exact(round(sums.s), sums.units, claim, alpha))
    return _asymptotic(value, sums.units, ratio_mean(sums), claim, alpha)


def _exact(successes: int, trials: int, claim: Side, alpha: float) -> float:
    """Return the one-sided bound of Clopper and Pearson (Biometrika 26, 1934), exact for independent trials."""
    if claim == "less":
        return float(betaincinv(successes, trials - successes + 1, alpha)) if successes else 0.0
    failures = trials - successes
    return float(betaincinv(successes + 1, failures, 1.0 - alpha)) if failures else 1.0


def _asymptotic(value: float | None, units: int, mean: ArmMean | None, claim: Side, alpha: float) -> _Past:
    if value is None or units < FEW_SEQUENTIAL_UNITS:
        lacking = f"{units} units with it, and {FEW_SEQUENTIAL_UNITS} are needed"
        return _Past(value, units, lacking=lacking if units else "nothing recorded of it")
    if mean is None:
        return _Past(value, units, lacking="too little beyond that quantile")
    interval = t_interval(
        value,
        mean.variance**0.5,
        units - 1.0,
        confidence=1.0 - alpha,
        alternative="greater" if claim == "less" else "less",
    )
    return _Past(value, units, interval.low if claim == "less" else interval.high)


def _sums(events: Sequence[PastEvent]) -> UnitSums:
    totals: dict[int, tuple[float, float]] = {}
    for event in events:
        n, s = totals.get(event.unit, (0.0, 0.0))
        totals[event.unit] = (n + event.n, s + event.s)
    return UnitSums.of(totals.values())
