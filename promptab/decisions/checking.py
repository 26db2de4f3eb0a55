"""Whether an analysis, a policy and a state fit together, before anything is decided by them."""

from __future__ import annotations

import math
from datetime import datetime

from promptab.analysis.result import AnalysisResult
from promptab.decisions.decision import DecisionState
from promptab.errors import InvalidInputError
from promptab.policy import Policy


def check_inputs(analysis: AnalysisResult, policy: Policy, now: datetime, state: DecisionState) -> None:
    """Refuse what `decide` cannot go by, as its docstring says."""
    if analysis.method != "sequential":
        remedy = "only a sequential analysis may be acted on at every look"
        raise InvalidInputError("analysis.method", analysis.method, "sequential", remedy)
    if policy.primary_metric not in {None, analysis.primary_metric}:
        bound = f"what was analysed, {analysis.primary_metric}"
        raise InvalidInputError("policy.primary_metric", policy.primary_metric, bound)
    planned = "settle the plan with policy.planned(plan) before the start"
    if not math.isclose(analysis.confidence, 1.0 - policy.alpha):
        raise InvalidInputError(
            "analysis.confidence", analysis.confidence, f"{1.0 - policy.alpha:g}", planned
        )
    read = {guard.guardrail for guard in analysis.guards}
    # guardrails are read of what may be promoted: beside shadows alone there is nothing of the kind
    for guardrail in policy.guardrails if len(analysis.units) > 1 else ():
        if guardrail.text not in read:
            bound = f"among those that were read ({', '.join(sorted(read)) or 'none'})"
            raise InvalidInputError(
                "policy.guardrails", guardrail.text, bound, "use analyze(..., policy=policy)"
            )
    if now < state.started_at:
        raise InvalidInputError(
            "now", now.isoformat(), f"at or after the start, {state.started_at.isoformat()}"
        )
    if policy.ramp and not 0 <= state.step < len(policy.ramp):
        raise InvalidInputError("state.step", state.step, f"a step of the ramp, 0 to {len(policy.ramp) - 1}")
    if unknown := [key for key in state.withdrawn if key not in analysis.units]:
        raise InvalidInputError("state.withdrawn", unknown[0], f"one of {', '.join(analysis.units)}")
