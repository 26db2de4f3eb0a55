"""Putting alerts into the outbox, in the transaction of what they are about: nothing is sent here.

`raise_alerts` belongs where a decision is stored, `raise_applied` where one is applied, and `raise_moved` where
production is moved without one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from promptab.alerts.alert import Alert, Severity, alert_id
from promptab.alerts.facts import Fact, facts_of, guardrail_facts, uncarried_facts
from promptab.alerts.traffic import SOURCES, Source, beaten, rested, silence_of
from promptab.analysis.result import AnalysisResult, GuardReading
from promptab.decisions.decision import Action, Decision
from promptab.decisions.stored import StoredDecision
from promptab.models import Deployment, ExperimentStatus, PromptExperiment
from promptab.stores.base import Transaction

_APPLIED_SEVERITY: dict[Action, Severity] = {"rollback": "warning", "pause": "warning"}
_SILENT = {"units": "No unit has come", "outcomes": "Units come, and nothing of them has been recorded"}


async def raise_alerts(
    tx: Transaction,
    decision: Decision,
    analysis: AnalysisResult,
    experiment: PromptExperiment,
    *,
    decision_id: str,
) -> list[Alert]:
    """Put an alert of every fact that begins with this look into the outbox; return those.

    `decision` was made on `analysis`. Every look comes here, also one whose decision is the same as before: a fact is
    told when it begins, and its end has to be noticed as well.
    """
    facts = facts_of(decision, analysis, experiment.plan)
    facts += await _silences(tx, analysis, experiment, decision.at)
    return await _raise(tx, decision, facts, decision_id)


async def raise_guard_alerts(
    tx: Transaction,
    decision: Decision,
    readings: Sequence[GuardReading],
    *,
    uncarried: Sequence[str],
    events: int,
    decision_id: str,
) -> list[Alert]:
    """Do as much for a version that is guarded without an experiment; `decision` was made on these readings, and none
    of its events carries the metrics in `uncarried`.
    """
    facts = guardrail_facts(readings) + uncarried_facts(uncarried, events, "events")
    return await _raise(tx, decision, facts, decision_id)


async def raise_applied(tx: Transaction, stored: StoredDecision) -> list[Alert]:
    """Put the alert that this decision was carried out into the outbox, whoever did so; again, it is the same."""
    decision, at = stored.decision, stored.settled_at or stored.seen_at
    by = "" if stored.actor is None else f" (by {stored.actor})"
    detail = f". {stored.detail}" if stored.detail else ""
    return await _put(
        tx,
        [
            Alert(
                alert_id=alert_id(decision.experiment_id, "applied", stored.decision_id),
                kind="applied",
                severity=_APPLIED_SEVERITY.get(decision.action, "info"),
                at=at,
                subject=decision.experiment_id,
                name=decision.experiment,
                sentence=f"{decision.sentence}{by}{detail}",
                numbers=decision.numbers,
                decision_id=stored.decision_id,
            )
        ],
    )


async def raise_moved(tx: Transaction, move: Deployment, *, paused: Sequence[str] = ()) -> list[Alert]:
    """Put the alert that somebody has moved production by hand into the outbox, with the experiments that this has
    paused. Other environments are nobody's alarm.
    """
    if move.environment != "production":
        return []
    subject = move.version_id or move.previous_version_id
    assert subject is not None  # noqa: S101 - every move is to a version or from one
    return await _put(
        tx,
        [
            Alert(
                # of the moment too: stores that were copied number their moves alike, and may tell the same people
                alert_id=alert_id(subject, "moved", move.sequence, move.at.isoformat()),
                kind="moved",
                severity="info" if move.action == "promote" else "warning",
                at=move.at,
                subject=subject,
                name=f"{move.prompt_type}/{move.name}",
                sentence=_move_sentence(move, paused),
                numbers={"deployment": move.sequence},
            )
        ],
    )


def _move_sentence(move: Deployment, paused: Sequence[str]) -> str:
    before = "nothing was live before" if move.previous_version is None else f"it was {move.previous_version}"
    by = "" if move.actor is None else f" by {move.actor}"
    match move.action:
        case "rollback":
            told = f"Rolled back by hand{by}: production is {move.version} again, {before}"
        case "withdraw":
            told = f"Withdrawn by hand{by}: nothing is live in production, {before}"
        case _:
            told = f"Promoted by hand{by}: production is {move.version} now, {before}"
    why = f". {move.reason}" if move.reason else ""
    stopped = f". Paused, as they serve {move.previous_version}: {', '.join(paused)}" if paused else ""
    return f"{told}{why}{stopped}"


async def _raise(tx: Transaction, decision: Decision, facts: Sequence[Fact], decision_id: str) -> list[Alert]:
    begun = await tx.alerts.settle(
        decision.experiment_id,
        holding=[fact.key for fact in facts if fact.holds],
        lingering=[fact.key for fact in facts if not fact.holds],
        at=decision.at,
    )
    return await _put(
        tx,
        [
            Alert(
                alert_id=alert_id(decision.experiment_id, fact.key, begun[fact.key]),
                kind=fact.kind,
                severity=fact.severity,
                at=decision.at,
                subject=decision.experiment_id,
                name=decision.experiment,
                sentence=fact.sentence,
                numbers=fact.numbers,
                decision_id=decision_id,
            )
            for fact in facts
            if fact.holds and fact.key in begun
        ],
    )


async def _put(tx: Transaction, alerts: Sequence[Alert]) -> list[Alert]:
    return [alert for alert in alerts if await tx.alerts.put(alert)]


async def _silences(
    tx: Transaction, analysis: AnalysisResult, experiment: PromptExperiment, now: datetime
) -> list[Fact]:
    """Note how the counts have moved since the last look, and return which of them have stopped."""
    newest = await tx.exposures.newest_waiting(experiment.experiment_id)
    events = sum(found.events for found in analysis.metrics[analysis.primary_metric].estimates.values())
    # with a measurement window units are counted late, and those that wait tell sooner that they come
    marks = {"units": f"{sum(analysis.units.values())} {newest}", "outcomes": str(events)}
    runs = experiment.status == ExperimentStatus.RUNNING
    silent: dict[Source, timedelta] = {}
    for source in SOURCES:
        before = await tx.alerts.pulse(experiment.experiment_id, source)
        pulse = (beaten if runs else rested)(before, marks[source], now)
        await tx.alerts.keep_pulse(experiment.experiment_id, source, pulse)
        silence = silence_of(pulse, now) if runs else None
        if silence is not None:
            silent[source] = silence
    if "units" in silent:
        # where nobody comes nothing is recorded either
        silent.pop("outcomes", None)
    return [_silence(source, silence) for source, silence in silent.items()]


def _silence(source: Source, silence: timedelta) -> Fact:
    hours = silence / timedelta(hours=1)
    told = f"{_SILENT[source]} for {hours:.3g} hours, longer than ever before"
    return Fact("stalled", source, "warning", told, {"hours": hours})
