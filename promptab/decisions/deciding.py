"""From an analysis and a policy to a decision. Pure: no store, no clock, nothing at random.

Rules are asked in one order, and the first that has an answer decides: is the experiment valid, has a guardrail
failed, what does the primary metric show, may traffic grow. Secondary metrics decide nothing: those that are shown to
be worse are named beside a winner.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from promptab.analysis.result import AnalysisResult, GuardReading, MetricAnalysis, VariantDifference
from promptab.analysis.uncarried import uncarried_clause, uncarried_metrics
from promptab.analysis.winning import winner_of
from promptab.checks import check_time
from promptab.decisions.case import MISMATCHES, Case, Found
from promptab.decisions.checking import check_inputs
from promptab.decisions.decision import Consent, Decision, DecisionInputs, DecisionState
from promptab.decisions.guard import GUARD
from promptab.policy import OnWin, Policy

_CONSENT: Mapping[OnWin, Consent] = {"promote": "none", "require_approval": "approval", "notify": "by_hand"}


def decide(analysis: AnalysisResult, policy: Policy, now: datetime, state: DecisionState) -> Decision:
    """Say what is to be done at `now`, and why.

    The analysis is sequential, at the policy's alpha and with the readings of its guardrails: `analyze(evidence,
    policy=policy)`, on a plan that was settled with `policy.planned(...)`. Once `longest_hours` have passed, or the
    schedule has ended, the answer is to promote, to roll back or to stop. Raises `InvalidInputError` for an analysis by
    another method, of another primary metric, at another alpha or without the guardrails, and for a state that does not
    fit.
    """
    moment = check_time("now", now)
    check_inputs(analysis, policy, moment, state)
    case = Case(analysis, policy, moment, state)
    found = next(found for rule in _RULES if (found := rule(case)) is not None)
    return Decision(
        experiment_id=analysis.experiment_id,
        experiment=analysis.experiment,
        at=moment,
        action=found.action,
        rule=found.rule,
        variants=found.variants,
        consent=found.consent,
        step=found.step,
        traffic=None if found.step is None else policy.ramp[found.step].traffic,
        numbers={name: _finite(value) for name, value in found.numbers.items()},
        sentence="; ".join([found.sentence, *_uncarried(analysis)]),
        policy_digest=policy.digest,
        inputs=DecisionInputs(
            # what is drawn or explored is no ground of a decision
            analysis=analysis.model_copy(update={"segments": (), "series": ()}).model_dump(mode="json"),
            policy=policy.model_dump(mode="json"),
            now=moment,
            state=state,
        ),
    )


def redecide(document: DecisionInputs | Mapping[str, Any]) -> Decision:
    """Make the decision again from the inputs that it was stored with: the same, wherever the rules are the same.

    Raises `InvalidInputError` for what are no such inputs.
    """
    inputs = document if isinstance(document, DecisionInputs) else DecisionInputs.model_validate(document)
    if GUARD in inputs.analysis:
        from promptab.decisions.guarded import redecide_guard  # noqa: PLC0415 - brings scipy, as an analysis does

        return redecide_guard(inputs)
    analysis = AnalysisResult.model_validate(inputs.analysis)
    return decide(analysis, Policy.model_validate(inputs.policy), inputs.now, inputs.state)


def grounds_of_pause(analysis: AnalysisResult, decision: Decision) -> list[str]:
    """Return the name of everything in an analysis that an experiment is paused for by this decision on it."""
    if decision.rule == "guardrail":
        return [_ground(guard) for guard in analysis.guards if guard.verdict == "fail"]
    if decision.rule == "worse":
        return [_ground_of_worse(key) for key in decision.variants]
    return [check.name for check in analysis.checks if check.name in MISMATCHES and not check.passed]


def _ground(guard: GuardReading) -> str:
    return f"{guard.variant}: {guard.guardrail}"


def _ground_of_worse(key: str) -> str:
    return f"{key}: worse in production"


def _mismatch(case: Case) -> Found | None:
    """The validity gate. Where a mismatch is only told, guardrails go on being watched."""
    failed = [check for check in case.mismatches if case.pauses_for(check.name)]
    if not failed or case.policy.on_mismatch == "notify":
        return None
    told = "; ".join(check.detail for check in failed)
    numbers = {f"{check.name}_p_value": check.p_value for check in failed}
    if case.is_over:
        return Found("stop", "deadline", f"{case.over}, and no number can be believed: {told}", numbers)
    return Found("pause", "mismatch", f"Pause: {told}", numbers)


def _failed_guardrail(case: Case) -> Found | None:
    pauses = case.policy.on_failed_guardrail == "pause"
    failed = [
        guard
        for guard in case.guards
        if guard.verdict == "fail" and not (pauses and not case.pauses_for(_ground(guard)))
    ]
    if not failed:
        return None
    worst = min(failed, key=lambda guard: (guard.p_value or 0.0) / guard.alpha)
    numbers: dict[str, float | int | None] = {
        "value": worst.value,
        "control": worst.control,
        "units": worst.units,
        "p_value": worst.p_value,
        "alpha": worst.alpha,
    }
    variants = tuple(key for key in case.candidates if any(guard.variant == key for guard in failed))
    told = "; ".join(guard.sentence for guard in failed)
    if not pauses:
        return Found("rollback", "guardrail", f"Rollback: {told}", numbers, variants)
    if case.is_over:
        return Found("stop", "guardrail", f"{case.over}, and a guardrail has failed: {told}", numbers)
    return Found("pause", "guardrail", f"Pause: {told}", numbers, variants)


def _worse_in_production(case: Case) -> Found | None:
    """What somebody has promoted meanwhile is served to everybody: it is taken back as soon as it is shown to be worse,
    without the units and hours that ending an experiment waits for.
    """
    found = [case.primary.differences[key] for key in case.live]
    doubted = case.mismatches or case.failed_checks("switched_units")
    if not found or doubted or any(difference.verdict != "worse" for difference in found):
        return None
    told = f"{'; '.join(difference.sentence for difference in found)}, and live in production"
    numbers = _primary_numbers(case, case.live[0])
    if case.policy.on_failed_guardrail == "rollback":
        return Found("rollback", "worse", f"Rollback: {told}", numbers, tuple(case.live))
    if not any(case.pauses_for(_ground_of_worse(key)) for key in case.live):
        return None
    if case.is_over:
        return Found("stop", "worse", f"{case.over}, and {told}", numbers)
    return Found("pause", "worse", f"Pause: {told}", numbers, tuple(case.live))


def _nothing_left(case: Case) -> Found | None:
    if case.candidates:
        return None
    if len(case.analysis.units) == 1:
        told = f"{case.analysis.control} is the only variant that is served, so there is nothing to promote"
        if case.is_over:
            return Found("stop", "deadline", f"{case.over}, and {told}")
        return Found("continue", "undecided", f"Goes on: {told}")
    return Found("stop", "all_withdrawn", f"Every variant but {case.analysis.control} has been taken out")


def _paused(case: Case) -> Found | None:
    if not case.state.paused or case.is_over:
        return None
    return Found("continue", "paused", "The experiment is paused: nothing grows, and nothing is promoted")


def _won(case: Case) -> Found | None:
    winner, _ = _winner(case)
    if winner is None:
        return None
    on_win = case.policy.on_win
    worse = [
        metric.metric
        for metric in case.analysis.metrics.values()
        if metric.role == "secondary" and metric.differences[winner].verdict == "worse"
    ]
    beside = f"; it is worse on {', '.join(worse)}" if worse else ""
    beside += f"; {rested}" if (rested := _rested(case)) else ""
    told = f"{case.primary.differences[winner].sentence}{beside}"
    numbers = _primary_numbers(case, winner)
    # whoever paused it, or only wanted to be told, has the last word, also where the time is over
    if on_win == "stop" or case.state.paused or (on_win == "notify" and case.is_over):
        return Found("stop", "won", f"Stop with a winner: {told}", numbers, (winner,))
    if on_win == "promote" and case.state.live_beside is not None:
        # it may be better than the winner: somebody has promoted it, or another experiment
        consents = (
            f"{_PROMOTED['require_approval']}, as {case.state.live_beside} is live and no variant of this"
        )
        return Found("promote", "won", f"{consents}: {told}", numbers, (winner,), "approval")
    return Found("promote", "won", f"{_PROMOTED[on_win]}: {told}", numbers, (winner,), _CONSENT[on_win])


_PROMOTED: Mapping[OnWin, str] = {
    "promote": "Promote",
    "require_approval": "Promote, once somebody approves",
    "notify": "Promote by hand",
}


def _worse(case: Case) -> Found | None:
    differences = case.primary.differences
    if not _may_conclude(case) or any(found.verdict != "worse" for found in differences.values()):
        return None
    told = "; ".join(found.sentence for found in differences.values())
    return Found("stop", "worse", f"Stop: {told}", _primary_numbers(case, case.candidates[0]))


def _no_effect(case: Case) -> Found | None:
    primary = case.primary
    if not _may_conclude(case) or not all(
        _too_small(primary, found, case.analysis.control) for found in primary.differences.values()
    ):
        return None
    told = "; ".join(found.sentence for found in primary.differences.values())
    numbers = _primary_numbers(case, case.candidates[0]) | {"smallest_effect": primary.smallest_effect}
    return Found("stop", "no_effect", f"Stop, as no effect that is worth having is left: {told}", numbers)


def _deadline(case: Case) -> Found | None:
    if not case.is_over:
        return None
    numbers = {"hours": case.age_hours, "longest_hours": case.policy.longest_hours}
    return Found("stop", "deadline", f"{case.over} without a winner: {_winner(case)[1]}", numbers)


def _ramp(case: Case) -> Found | None:
    following = case.state.step + 1
    barred = case.mismatches or case.failed_checks("switched_units")
    if barred or following >= len(case.policy.ramp) or _step_lacks(case) is not None:
        return None
    step = case.policy.ramp[case.state.step]
    numbers = {"traffic": step.traffic, "units": _step_units(case), "hours": _step_hours(case)}
    grown = case.policy.ramp[following].traffic
    lasted = f" in {_step_hours(case):.3g} hours" if step.minimum_hours else ""
    told = f"Traffic grows from {step.traffic:.3g} to {grown:.3g}: {_step_units(case)} units of each variant{lasted}"
    told += ", and no guardrail has failed"
    return Found("ramp", "ramp", told, numbers, step=following)


def _undecided(case: Case) -> Found:
    failed = case.mismatches
    if failed:
        return Found("continue", "mismatch", "; ".join(check.detail for check in failed))
    waiting = _step_lacks(case)
    lacking = [waiting] if waiting is not None and case.state.step + 1 < len(case.policy.ramp) else []
    return Found("continue", "undecided", "; ".join([*lacking, _winner(case)[1]]))


_RULES: tuple[Callable[[Case], Found | None], ...] = (
    _mismatch,
    _failed_guardrail,
    _worse_in_production,
    _nothing_left,
    _paused,
    _won,
    _worse,
    _no_effect,
    _deadline,
    _ramp,
    _undecided,
)
"""In the order in which they are asked; the last one always has an answer."""


def _winner(case: Case) -> tuple[str | None, str]:
    """Return the candidate that may be promoted now, or None and what is lacking."""
    analysis, policy = case.analysis, case.policy
    if case.candidates and not case.served:
        names = " and ".join(case.candidates)
        gets = (
            "gets no new units, as its weight is" if len(case.candidates) == 1 else "get no new units: weight"
        )
        return None, f"Nothing is promoted: {_rested(case) or f'{names} {gets} 0'}"
    winner, reason = winner_of(case.primary_of(case.served), analysis.checks, analysis.control)
    if winner is None:
        return None, "; ".join(filter(None, [reason, _rested(case)]))
    open_guards = [
        guard.sentence
        for guard in case.guards
        if guard.variant == winner and (guard.verdict == "fail" or (guard.needed and guard.verdict != "pass"))
    ]
    events = min(case.primary.estimates[key].events for key in (winner, analysis.control))
    lacking = {
        "; ".join(open_guards): bool(open_guards),
        f"{events} of {policy.minimum_events} events of each variant": events < policy.minimum_events,
        "the analysis is approximate: declare a measurement window, or allow that (allow_approximate)": (
            analysis.approximate and not policy.allow_approximate
        ),
        f"it is to run for {policy.shortest_hours:g} hours": case.age_hours < policy.shortest_hours,
        _ramp_lacks(case) or "": _ramp_lacks(case) is not None,
    }
    waiting = [what for what, lacks in lacking.items() if lacks]
    return (None, f"{winner} is ahead, but {'; '.join(waiting)}") if waiting else (winner, reason)


def _rested(case: Case) -> str:
    """Name the candidates that are ahead, but get no new units because somebody wants it so; empty for none."""
    ahead = [
        key
        for key, difference in case.primary.differences.items()
        if key not in case.served and difference.verdict == "better"
    ]
    if not ahead:
        return ""
    is_one = len(ahead) == 1
    return (
        f"{' and '.join(ahead)} {'is' if is_one else 'are'} ahead of {case.analysis.control}, but not promoted while "
        f"{'its weight is' if is_one else 'their weights are'} 0: give {'it' if is_one else 'them'} weight again, or "
        "promote by hand"
    )


def _may_conclude(case: Case) -> bool:
    """Whether it is time to end the experiment because of what the primary metric shows against the variants."""
    invalid = case.mismatches or case.failed_checks("switched_units", "minimum_units")
    return not invalid and case.age_hours >= case.policy.shortest_hours


def _too_small(primary: MetricAnalysis, found: VariantDifference, control: str) -> bool:
    """Whether even the best that the difference may be is not worth having."""
    smallest, beside = primary.smallest_effect, primary.estimates[control].value
    shown = found.adjusted or found
    if smallest is None or shown.low is None or shown.high is None or beside is None:
        return False
    worth = smallest * abs(beside) if primary.relative else smallest
    return (shown.high if primary.direction == "increase" else -shown.low) < worth


def _ramp_lacks(case: Case) -> str | None:
    """Return what is left of the ramp; None without one, and when its last step is done."""
    if not case.policy.ramp:
        return None
    if case.state.step + 1 < len(case.policy.ramp):
        return f"it is in step {case.state.step + 1} of {len(case.policy.ramp)} of its ramp"
    return _step_lacks(case)


def _step_lacks(case: Case) -> str | None:
    """Return what the step in force has yet to have before it is done."""
    if not case.policy.ramp:
        return None
    step, units, hours = case.policy.ramp[case.state.step], _step_units(case), _step_hours(case)
    if units < step.minimum_units:
        return f"this step of the ramp has {units} of {step.minimum_units} units of each variant"
    if hours < step.minimum_hours:
        return f"this step of the ramp has lasted {hours:.3g} of {step.minimum_hours:g} hours"
    return None


def _step_units(case: Case) -> int:
    """Return the fewest units that a variant which gets new ones had exposed since the step began."""
    before, resting = case.state.step_units, case.state.resting
    keys = [*(case.served or case.candidates), *({case.analysis.control} - {*resting})]
    # with a measurement window units are counted later than they were exposed
    return max(0, min(case.analysis.units[key] - before.get(key, 0) for key in keys))


def _step_hours(case: Case) -> float:
    return case.hours(case.state.step_since or case.state.started_at)


def _primary_numbers(case: Case, key: str) -> dict[str, float | int | None]:
    primary = case.primary
    found = primary.differences[key]
    shown = found.adjusted or found
    return {
        "value": shown.value,
        "low": shown.low,
        "high": shown.high,
        "p_value": found.adjusted_p,
        "units": primary.estimates[key].units,
        "control_units": primary.estimates[case.analysis.control].units,
    }


def _uncarried(analysis: AnalysisResult) -> list[str]:
    """Say what is asked about and never recorded: it bars a promotion, or it can never fail."""
    units = sum(analysis.units.values())
    return [uncarried_clause(name, f"{units} units") for name in uncarried_metrics(analysis)]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
