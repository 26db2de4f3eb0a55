"""An alert: one fact that somebody should hear of, with an id that is the same whoever finds it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal, get_args

from promptab.records import Record, Utc

AlertKind = Literal[
    "significant",
    "sample_size",
    "guardrail_near",
    "guardrail_failed",
    "mismatch",
    "stalled",
    "uncarried",
    "awaiting",
    "applied",
    "moved",
]
"""What it is about:

- `significant`: a variant is shown to be better or worse than the control on the primary metric
- `sample_size`: every variant has the units that the plan, and the smallest effect worth having, ask for
- `guardrail_near`: the evidence against a guardrail is past half of its way, on the log scale
- `guardrail_failed`: a variant is shown to have failed a guardrail
- `mismatch`: units were not dealt as the weights say, or outcomes are lost unevenly
- `stalled`: no unit, or no outcome, has come for much longer than ever before
- `uncarried`: no event of 200 units and more carries a metric that decides or is guarded
- `awaiting`: a decision waits for a person
- `applied`: a decision was carried out, by the machine or by a person
- `moved`: production of a prompt was moved by hand, without a decision
"""
KINDS: tuple[AlertKind, ...] = get_args(AlertKind)

Severity = Literal["info", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")
"""From the least to the greatest."""

Numbers = Mapping[str, float | int | None]


class Alert(Record):
    """What somebody should hear of."""

    alert_id: str
    """Of the fact: found twice, by two watchers or at two looks, it is the same."""
    kind: AlertKind
    severity: Severity
    at: Utc
    """When it was found."""
    subject: str
    """The id of the experiment, or of whatever else it is about: a guard; a version that was put live or taken out."""
    name: str
    """The name of that, or of the prompt, as in system/greeting."""
    sentence: str
    numbers: Numbers
    decision_id: str | None = None
    """Of the decision that it came with, where there is one."""


def alert_id(subject: str, *facts: object) -> str:
    """Return the id of the alert that says this of `subject`: the same for the same facts."""
    # lengths, so that no two lists of facts are one text
    text = "".join(f"{len(part)}:{part}" for part in (subject, *map(str, facts)))
    return f"alert_{hashlib.sha256(text.encode()).hexdigest()[:32]}"
