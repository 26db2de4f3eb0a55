"""What was measured, as a page: the promises and whether they were held, then every number."""

from __future__ import annotations

from collections.abc import Sequence

from tests.calibration import bandit_tables, experiment_tables, prose, rollout_tables, rule_tables
from tests.calibration.cells import Found, Runs
from tests.calibration.checks import FIXED_TOLERANCE, Check, Promise, chance_of_as_many_outside
from tests.calibration.markdown import Section, table

CHANCE = 0.01
"""What happens less often than this is not put down to chance."""

TABLES = (
    experiment_tables.steady,
    experiment_tables.ramped,
    experiment_tables.returning,
    rule_tables.dealing,
    rule_tables.guardrails,
    rule_tables.histories,
    rule_tables.few,
    rule_tables.beliefs,
    bandit_tables.bandits,
    bandit_tables.earning,
    rollout_tables.rollouts,
    rollout_tables.detections,
)


def page(found: Found, runs: Runs) -> str:
    sections = [of(found) for of in TABLES]
    parts = [
        prose.INTRODUCTION.format(**runs._asdict(), dealt=runs.dealt, tolerance=100.0 * FIXED_TOLERANCE),
        verdict(sections),
        *(section.text for section in sections),
    ]
    return "\n\n".join(parts) + "\n"


def verdict(sections: Sequence[Section]) -> str:
    """Say in one sentence, one table and a list what was held and what was not, and what chance might do."""
    checks = [one for section in sections for one in section.checks]
    outside = [one for one in checks if not one.held]
    if not outside:
        words = f"**Every number that has a bound is within it: {len(checks)} of {len(checks)}.**"
    else:
        words = f"**Outside their bounds: {len(outside)} of the {len(checks)} numbers that have one.**"
    parts = [f"## {prose.VERDICT_TITLE}\n\n{words}", _standings(sections)]
    if outside:
        parts += ["\n".join(_fault(one) for one in outside), prose.CHANCE]
        parts += [_by_chance(promise, checks) for promise in dict.fromkeys(one.promise for one in outside)]
    return "\n\n".join(parts)


def _standings(sections: Sequence[Section]) -> str:
    rows = []
    for section in sections:
        for promise in dict.fromkeys(one.promise for one in section.checks):
            kept = [one.held for one in section.checks if one.promise == promise]
            rows.append(
                [
                    section.title,
                    promise.sentence,
                    str(len(kept)),
                    str(kept.count(False)),
                    "held" if all(kept) else "**not held**",
                ]
            )
    return table(["experiments", "promise", "numbers", "outside", ""], rows)


def _fault(one: Check) -> str:
    return f"- {one.where}: {one.told.rstrip('.')} (p = {one.p_value:.2g})"


def _by_chance(promise: Promise, checks: Sequence[Check]) -> str:
    of_promise = [one for one in checks if one.promise == promise]
    outside = sum(not one.held for one in of_promise)
    chance = chance_of_as_many_outside(of_promise)
    return (
        f'"{promise.sentence}": {outside} of {len(of_promise)} outside. Were all of them only just kept, as many or '
        f"more would be outside in {100.0 * chance:.2g} % of such pages: "
        + ("chance alone may do that." if chance >= CHANCE else "chance alone does not do that.")
    )
