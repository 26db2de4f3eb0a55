"""Whether cases let a version take the place of the one that is live. Pure: results in, evidence or a refusal out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from promptab.cases.case import Case, digest_of
from promptab.cases.results import CaseResult
from promptab.errors import GateError

_NAMED = 10
"""Cases that a refusal names."""


class Tried(NamedTuple):
    """A version, and what came of cases on it."""

    label: str
    """`type/name@version`."""
    results: Mapping[str, CaseResult]
    """By digest; passed or failed."""


def check_gate(cases: Sequence[Case], candidate: Tried, live: Tried | None) -> dict[str, Any]:
    """Return what is to be remembered of the gate beside the move.

    Raises `GateError` where there are no cases, where a case was not tried on the candidate, and where one fails on it
    that passed on what is live, or was not tried there. A case that fails on both is no step back.
    """
    if not cases:
        prompt = candidate.label.partition("@")[0]
        raise GateError(
            f"{prompt} has no cases, so a gate has nothing to go by; declare some under `tests:` in its file and push "
            "it, or promote without the gate"
        )
    results = {case.name: candidate.results.get(digest_of(case)) for case in cases}
    before = {} if live is None else {case.name: live.results.get(digest_of(case)) for case in cases}
    failed = [name for name, result in results.items() if result is not None and result.status == "failed"]
    _refuse_steps_back(results, failed, before, candidate, live)
    if untried := [name for name, result in results.items() if result is None]:
        raise GateError(
            f"not tried on {candidate.label}: {_listed(untried)}; {_try(candidate)}", cases=tuple(untried)
        )
    if live is not None and (unknown := [name for name in failed if before[name] is None]):
        raise GateError(
            f"fails on {candidate.label}, and was not tried on {live.label}, which is live: {_listed(unknown)}; "
            f"{_try(candidate)}, which tries both",
            cases=tuple(unknown),
        )
    return {"against": None if live is None else live.label, "cases": len(cases), "failed": failed}


def _refuse_steps_back(
    results: Mapping[str, CaseResult | None],
    failed: Sequence[str],
    before: Mapping[str, CaseResult | None],
    candidate: Tried,
    live: Tried | None,
) -> None:
    def passed(name: str) -> bool:
        result = before.get(name)
        return result is not None and result.status == "passed"

    worse = [name for name in failed if passed(name)]
    if live is not None and worse:
        told = [f"{name} ({_reason(results[name])})" for name in worse]
        raise GateError(
            f"passed on {live.label}, which is live, and fails on {candidate.label}: {_listed(told)}",
            cases=tuple(worse),
        )


def _reason(result: CaseResult | None) -> str:
    return "; ".join(result.reasons) if result is not None else ""


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _try(version: Tried) -> str:
    return f"run `promptab test {version.label}`"
