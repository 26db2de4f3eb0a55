"""From what a guarded version has had since its promotion to a decision: go on, roll back, or let it be.

Pure, and right at every look: rates of which every unit has one outcome, and quantiles of one value each, are weighed
by exact e-processes; few units with several outcomes of a rate, or of bounded scores, by betting; and everything else
by one-sided asymptotic confidence sequences, which wait for 100 units.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from promptab.analysis.inference import FEW_SEQUENTIAL_UNITS, are_trials
from promptab.analysis.result import GuardReading, GuardTechnique
from promptab.analysis.uncarried import TOLD_AFTER, uncarried_clause
from promptab.decisions.decision import Action, Decision, DecisionInputs, DecisionState, Rule
from promptab.decisions.guard import GUARD, GuardBound, GuardEvidence, GuardTally, definition_of
from promptab.errors import InvalidInputError
from promptab.guardrails import Guardrail
from promptab.plan import TUNING_UNITS
from promptab.policy import Policy
from promptab.stats import sequential
from promptab.stats.metric import MetricDefinition
from promptab.stats.rate_bound import rate_log_e_value, unit_rate_log_e_value
from promptab.stats.ratio import rate_variance, ratio_mean
from promptab.stats.score_bound import score_log_e_value


def decide_guard(evidence: GuardEvidence, policy: Policy, now: datetime, *, since: datetime) -> Decision:
    """Say what is to be done about the version that is guarded since `since`, and why.

    Raises `InvalidInputError` for evidence that is not about the policy's guardrails.
    """
    told = [bound.guardrail for bound in evidence.bounds]
    if told != [guardrail.text for guardrail in policy.guardrails] or len(evidence.tallies) != len(told):
        raise InvalidInputError("evidence.bounds", ", ".join(told), "those of the policy's guardrails")
    readings = guard_readings(evidence, policy)
    found = _found(evidence, readings, now, since)
    return Decision(
        experiment_id=evidence.guard_id,
        experiment=evidence.prompt,
        at=now,
        action=found.action,
        rule=found.rule,
        variants=(evidence.version,) if found.action == "rollback" else (),
        numbers=_numbers(readings),
        sentence=found.sentence,
        policy_digest=policy.digest,
        inputs=DecisionInputs(
            analysis={GUARD: evidence.model_dump(mode="json")},
            policy=policy.model_dump(mode="json"),
            now=now,
            state=DecisionState(started_at=since),
        ),
    )


def redecide_guard(inputs: DecisionInputs) -> Decision:
    """Make a decision about a guard again from the inputs that it was stored with."""
    evidence = GuardEvidence.model_validate(inputs.analysis[GUARD])
    policy = Policy.model_validate(inputs.policy)
    return decide_guard(evidence, policy, inputs.now, since=inputs.state.started_at)


def guard_readings(evidence: GuardEvidence, policy: Policy) -> tuple[GuardReading, ...]:
    """Read every guardrail for the version that is guarded; `control` is what the version before had."""
    return tuple(
        _reading(guardrail, bound, tally, evidence.version)
        for guardrail, bound, tally in zip(policy.guardrails, evidence.bounds, evidence.tallies, strict=True)
    )


class _Found(NamedTuple):
    action: Action
    rule: Rule
    sentence: str


def _found(
    evidence: GuardEvidence, readings: Sequence[GuardReading], now: datetime, since: datetime
) -> _Found:
    if failed := [reading for reading in readings if reading.verdict == "fail"]:
        told = "; ".join(reading.sentence for reading in failed)
        # not where to: what was live before may be gone by the time it is done, and then it is another one
        return _Found("rollback", "guardrail", f"Rollback: {told}")
    told = "; ".join(reading.sentence for reading in readings)
    if evidence.until is not None and now >= evidence.until:
        hours = (evidence.until - since).total_seconds() / 3600.0
        return _Found(
            "stop", "deadline", f"Kept: its {hours:g} hours have passed, and no guardrail has failed: {told}"
        )
    return _Found("continue", "undecided", told)


def _numbers(readings: Sequence[GuardReading]) -> dict[str, float | int | None]:
    """Return those of the guardrail that is nearest to its failure."""
    worst = min(
        readings, key=lambda reading: (1.0 if reading.p_value is None else reading.p_value) / reading.alpha
    )
    return {
        "value": worst.value,
        "previous": worst.control,
        "units": worst.units,
        "p_value": worst.p_value,
        "alpha": worst.alpha,
    }


class _Test(NamedTuple):
    technique: GuardTechnique
    alpha: float
    p_value: float | None = None


def _reading(guardrail: Guardrail, bound: GuardBound, tally: GuardTally, version: str) -> GuardReading:
    definition = definition_of(guardrail)
    found = _weighed(definition, bound, tally)
    sums = tally.sums
    failed = found.p_value is not None and found.p_value <= found.alpha
    reading = GuardReading(
        guardrail=bound.guardrail,
        metric=bound.metric,
        variant=version,
        value=sums.s / sums.n if sums.n else None,
        # a quantile is weighed as a share, which what the version before had is none of
        control=bound.previous if bound.threshold is None else None,
        units=sums.units,
        p_value=found.p_value,
        alpha=found.alpha,
        technique=found.technique,
        verdict="fail" if failed else "undecided",
        needed=False,
        sentence="",
    )
    return reading.model_copy(update={"sentence": _sentence(reading, bound, tally)})


def _weighed(definition: MetricDefinition, bound: GuardBound, tally: GuardTally) -> _Test:
    """Test that the version is beyond the bound."""
    sums = tally.sums
    if bound.bound is None:
        return _Test("not enough data", bound.alpha)
    is_rate = definition.is_rate or bound.threshold is not None
    if is_rate and are_trials(sums):
        log_e = rate_log_e_value(round(sums.s), sums.units, bound=bound.bound, claim=bound.claim)
        return _Test("exact rates", bound.alpha, math.exp(-max(0.0, log_e)))
    scores = not is_rate and definition.lowest is not None and definition.highest is not None
    # a bet, and the confidence sequence that takes its place, have a half each
    alpha = bound.alpha / 2.0 if scores or is_rate else bound.alpha
    if is_rate and tally.units is not None and all(0.0 <= s <= n for n, s in tally.units):
        log_e = unit_rate_log_e_value(tally.units, bound=bound.bound, claim=bound.claim)
        return _Test("betting", alpha, math.exp(-max(0.0, log_e)))
    if scores and tally.scores is not None:
        log_e = score_log_e_value(
            tally.scores,
            bound=bound.bound,
            claim=bound.claim,
            low=definition.lowest or 0.0,
            high=definition.highest or 0.0,
            alpha=alpha,
        )
        return _Test("betting", alpha, math.exp(-max(0.0, log_e)))
    mean = ratio_mean(sums) if sums.units >= FEW_SEQUENTIAL_UNITS else None
    if mean is None or not (mean.variance > 0.0 and math.isfinite(mean.variance)):
        # what never varied does not tell how much it varies
        return _Test("not enough data", alpha)
    variance = rate_variance(mean, at=bound.bound) if is_rate else mean.variance
    p_value = sequential.p_value(
        mean.value,
        math.sqrt(variance),
        mean.units,
        null=bound.bound,
        tuning_units=TUNING_UNITS,
        alpha=alpha,
        alternative=bound.claim,
    )
    return _Test("confidence sequence", alpha, p_value)


def _sentence(reading: GuardReading, bound: GuardBound, tally: GuardTally) -> str:
    if bound.bound is None:
        return f"{reading.guardrail}: {bound.detail}"
    if reading.value is None and tally.events >= TOLD_AFTER:
        return f"{reading.guardrail}: {uncarried_clause(reading.metric, f'{tally.events} events')}"
    if reading.value is None:
        return f"{reading.guardrail}: nothing of {reading.variant} carried {reading.metric} yet"
    said = "has failed it" if reading.verdict == "fail" else "is not shown to have failed it"
    beyond = "" if bound.threshold is None else f" of the values beyond {bound.threshold:.4g}"
    doubt = "" if reading.p_value is None else f" (p = {reading.p_value:.2g}, fails at {reading.alpha:.2g})"
    history = f"; {bound.detail}" if bound.detail else ""
    return (
        f"{reading.guardrail}: {reading.variant} {said}; it has {reading.value:.4g}{beyond} over "
        f"{_counted(tally)}{doubt}{history}"
    )


def _counted(tally: GuardTally) -> str:
    """Say what was counted: an event that names no unit is one by itself."""
    units, alone = tally.sums.units, tally.single_events
    if alone == units:
        return f"{units} {'event' if units == 1 else 'events'}"
    counted = f"{units} {'unit' if units == 1 else 'units'}"
    return f"{counted}, {alone} of them single events" if alone else counted
