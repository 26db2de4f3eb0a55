"""From an analysis and a policy to a decision. Pure: no store, no clock, nothing at random.

Rules are asked in one order, and the first that has an answer decides: is the experiment valid, has a guardrail
failed, what does the primary metric show, may traffic grow. Secondary metrics decide nothing: those that are shown to
be worse are named beside a winner.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from promptab.analysis.result import AnalysisResult, Check, GuardReading, MetricAnalysis, VariantDifference
from promptab.analysis.winning import winner_of
from promptab.checks import check_time
from promptab.decisions.checking import check_inputs
from promptab.decisions.decision import Action, Consent, Decision, DecisionInputs, DecisionState, Rule
from promptab.decisions.guard import GUARD
from promptab.policy import OnWin, Policy

_MISMATCHES = frozenset({"sample_ratio", "missing_outcomes"})
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
    case = _Case(analysis, policy, moment, state)
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
        sentence=found.sentence,
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


def grounds_of_pause(analysis: AnalysisResult, rule: Rule) -> list[str]:
    """Return the name of everything in an analysis that an experiment is paused for by this rule."""
    if rule == "guardrail":
        return [_ground(guard) for guard in analysis.guards if guard.verdict == "fail"]
    return [check.name for check in analysis.checks if check.name in _MISMATCHES and not check.passed]


def _ground(guard: GuardReading) -> str:
    return f"{guard.variant}: {guard.guardrail}"


class _Found(NamedTuple):
    """What a rule answers."""

    action: Action
    rule: Rule
    sentence: str
    numbers: Mapping[str, float | int | None] = {}
    variants: tuple[str, ...] = ()
    consent: Consent = "none"
    step: int | None = None


class _Case(NamedTuple):
    analysis: AnalysisResult
    policy: Policy
    now: datetime
    state: DecisionState

    @property
    def candidates(self) -> list[str]:
        """The variants that may still be promoted, in the experiment's order."""
        out = {self.analysis.control, *self.state.withdrawn}
        return [key for key in self.analysis.units if key not in out]

    @property
    def primary(self) -> MetricAnalysis:
        """The primary metric, as it compares the candidates."""
        primary = self.analysis.metrics[self.analysis.primary_metric]
        return primary.model_copy(
            update={"differences": {key: primary.differences[key] for key in self.candidates}}
        )

    @property
    def guards(self) -> list[GuardReading]:
        return [guard for guard in self.analysis.guards if guard.variant in self.candidates]

    def hours(self, since: datetime) -> float:
        return (self.now - since) / timedelta(hours=1)

    @property
    def age_hours(self) -> float:
        return self.hours(self.state.started_at)

    @property
    def is_over(self) -> bool:
        longest = self.policy.longest_hours
        return self.state.off_schedule or (longest is not None and self.age_hours >= longest)

    def failed_checks(self, *names: str) -> list[Check]:
        """Return those that fail for the experiment as a whole, for its control or for a candidate."""
        among = {self.analysis.control, *self.candidates}
        return [
            check
            for check in self.analysis.checks
            if not check.passed and check.name in names and (not check.variants or among & {*check.variants})
        ]

    @property
    def mismatches(self) -> list[Check]:
        return self.failed_checks(*_MISMATCHES)

    def pauses_for(self, ground: str) -> bool:
        """Whether this is anything to pause for: not what somebody has let it go on in spite of."""
        return self.is_over or not (self.state.paused or ground in self.state.paused_for)


def _mismatch(case: _Case) -> _Found | None:
    """The validity gate. Where a mismatch is only told, guardrails go on being watched."""
    failed = [check for check in case.mismatches if case.pauses_for(check.name)]
    if not failed or case.policy.on_mismatch == "notify":
        return None
    told = "; ".join(check.detail for check in failed)
    numbers = {f"{check.name}_p_value": check.p_value for check in failed}
    if case.is_over:
        return _Found("stop", "deadline", f"{_over(case)}, and no number can be believed: {told}", numbers)
    return _Found("pause", "mismatch", f"Pause: {told}", numbers)


def _failed_guardrail(case: _Case) -> _Found | None:
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
        return _Found("rollback", "guardrail", f"Rollback: {told}", numbers, variants)
    if case.is_over:
        return _Found("stop", "guardrail", f"{_over(case)}, and a guardrail has failed: {told}", numbers)
    return _Found("pause", "guardrail", f"Pause: {told}", numbers, variants)


def _nothing_left(case: _Case) -> _Found | None:
    if case.candidates:
        return None
    if len(case.analysis.units) == 1:
        told = f"{case.analysis.control} is the only variant that is served, so there is nothing to promote"
        if case.is_over:
            return _Found("stop", "deadline", f"{_over(case)}, and {told}")
        return _Found("continue", "undecided", f"Goes on: {told}")
    return _Found("stop", "all_withdrawn", f"Every variant but {case.analysis.control} has been taken out")


def _paused(case: _Case) -> _Found | None:
    if not case.state.paused or case.is_over:
        return None
    return _Found("continue", "paused", "The experiment is paused: nothing grows, and nothing is promoted")


def _won(case: _Case) -> _Found | None:
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
    told = f"{case.primary.differences[winner].sentence}{beside}"
    numbers = _primary_numbers(case, winner)
    # whoever paused it, or only wanted to be told, has the last word, also where the time is over
    if on_win == "stop" or case.state.paused or (on_win == "notify" and case.is_over):
        return _Found("stop", "won", f"Stop with a winner: {told}", numbers, (winner,))
    if on_win == "promote" and case.state.live_beside is not None:
        # it may be better than the winner: somebody has promoted it, or another experiment
        consents = (
            f"{_PROMOTED['require_approval']}, as {case.state.live_beside} is live and no variant of this"
        )
        return _Found("promote", "won", f"{consents}: {told}", numbers, (winner,), "approval")
    return _Found("promote", "won", f"{_PROMOTED[on_win]}: {told}", numbers, (winner,), _CONSENT[on_win])


_PROMOTED: Mapping[OnWin, str] = {
    "promote": "Promote",
    "require_approval": "Promote, once somebody approves",
    "notify": "Promote by hand",
}


def _worse(case: _Case) -> _Found | None:
    differences = case.primary.differences
    if not _may_conclude(case) or any(found.verdict != "worse" for found in differences.values()):
        return None
    told = "; ".join(found.sentence for found in differences.values())
    return _Found("stop", "worse", f"Stop: {told}", _primary_numbers(case, case.candidates[0]))


def _no_effect(case: _Case) -> _Found | None:
    primary = case.primary
    if not _may_conclude(case) or not all(
        _too_small(primary, found, case.analysis.control) for found in primary.differences.values()
    ):
        return None
    told = "; ".join(found.sentence for found in primary.differences.values())
    numbers = _primary_numbers(case, case.candidates[0]) | {"smallest_effect": primary.smallest_effect}
    return _Found("stop", "no_effect", f"Stop, as no effect that is worth having is left: {told}", numbers)


def _deadline(case: _Case) -> _Found | None:
    if not case.is_over:
        return None
    numbers = {"hours": case.age_hours, "longest_hours": case.policy.longest_hours}
    return _Found("stop", "deadline", f"{_over(case)} without a winner: {_winner(case)[1]}", numbers)


def _ramp(case: _Case) -> _Found | None:
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
    return _Found("ramp", "ramp", told, numbers, step=following)


def _undecided(case: _Case) -> _Found:
    failed = case.mismatches
    if failed:
        return _Found("continue", "mismatch", "; ".join(check.detail for check in failed))
    waiting = _step_lacks(case)
    lacking = [waiting] if waiting is not None and case.state.step + 1 < len(case.policy.ramp) else []
    return _Found("continue", "undecided", "; ".join([*lacking, _winner(case)[1]]))


_RULES: tuple[Callable[[_Case], _Found | None], ...] = (
    _mismatch,
    _failed_guardrail,
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


def _winner(case: _Case) -> tuple[str | None, str]:
    """Return the candidate that may be promoted now, or None and what is lacking."""
    analysis, policy = case.analysis, case.policy
    winner, reason = winner_of(case.primary, analysis.checks, analysis.control)
    if winner is None:
        return None, reason
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
    told = [what for what, lacks in lacking.items() if lacks]
    return (None, f"{winner} is ahead, but {'; '.join(told)}") if told else (winner, reason)


def _may_conclude(case: _Case) -> bool:
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


def _ramp_lacks(case: _Case) -> str | None:
    """Return what is left of the ramp; None without one, and when its last step is done."""
    if not case.policy.ramp:
        return None
    if case.state.step + 1 < len(case.policy.ramp):
        return f"it is in step {case.state.step + 1} of {len(case.policy.ramp)} of its ramp"
    return _step_lacks(case)


def _step_lacks(case: _Case) -> str | None:
    """Return what the step in force has yet to have before it is done."""
    if not case.policy.ramp:
        return None
    step, units, hours = case.policy.ramp[case.state.step], _step_units(case), _step_hours(case)
    if units < step.minimum_units:
        return f"this step of the ramp has {units} of {step.minimum_units} units of each variant"
    if hours < step.minimum_hours:
        return f"this step of the ramp has lasted {hours:.3g} of {step.minimum_hours:g} hours"
    return None


def _step_units(case: _Case) -> int:
    """Return the fewest units that a variant which gets new ones had exposed since the step began."""
    before, resting = case.state.step_units, case.state.resting
    served = [key for key in case.candidates if key not in resting] or case.candidates
    keys = [*served, *({case.analysis.control} - {*resting})]
    # with a measurement window units are counted later than they were exposed
    return max(0, min(case.analysis.units[key] - before.get(key, 0) for key in keys))


def _step_hours(case: _Case) -> float:
    return case.hours(case.state.step_since or case.state.started_at)


def _primary_numbers(case: _Case, key: str) -> dict[str, float | int | None]:
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


def _over(case: _Case) -> str:
    if case.state.off_schedule:
        return "Its schedule has ended"
    return f"The longest duration, {case.policy.longest_hours or 0.0:g} hours, has passed"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
