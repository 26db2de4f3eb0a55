"""Guarded promotions: a version that is watched for a while after it was promoted, and rolled back by itself.

The watch of a guard is a look every now and then: what was recorded of the version since the promotion is added to
what the guard has of it, and weighed against its guardrails. A look is safe at any time and by anybody; whichever look
finds that a guardrail has failed takes the version out, provided that it is still what is live.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from promptab.alerting import raise_applied, raise_guard_alerts
from promptab.analysis.result import GuardReading
from promptab.criteria import read_criteria
from promptab.decision_keeping import keep_by_hand, keep_unmoved
from promptab.decisions.decision import Decision
from promptab.decisions.guard import GUARD, Guard, GuardEvidence, GuardStatus, Weighed, definition_of
from promptab.decisions.stored import StoredDecision
from promptab.errors import InvalidInputError, StateError
from promptab.managed import Clock
from promptab.models import Deployment, Environment, PromptVersion
from promptab.pointing import Occasion, existing_version, roll_back, rollback_target
from promptab.policy import Policy
from promptab.spelling import check_guard_names
from promptab.stores.base import Store, Transaction, Work
from promptab.totalling import add_up, fold_all

GUARD_ACTOR = "guard"
"""Who rolls back where nobody says who looks."""


def check_guard(given: Policy | Mapping[str, Any]) -> Policy:
    """Return the policy of a guard, from its own fields or a shape that `read_criteria` reads.

    Its guardrails, `guardrail_alpha` and `longest_hours` count; the rest is about experiments. Raises
    `InvalidInputError` for one without guardrails, and for one that pauses.
    """
    policy = given if isinstance(given, Policy) else read_criteria(given).policy
    if not policy.guardrails:
        remedy = "say what must not get worse: guardrails=['success_rate >= 0.8']"
        raise InvalidInputError("guard.guardrails", None, "given", remedy)
    if policy.on_failed_guardrail != "rollback":
        remedy = "there is no experiment that could be paused"
        raise InvalidInputError("guard.on_failed_guardrail", policy.on_failed_guardrail, "rollback", remedy)
    for guardrail in policy.guardrails:
        known = definition_of(guardrail)
        if guardrail.is_absolute or guardrail.direction is not None:
            continue
        if known.name == guardrail.metric and known.kind == "mean" and not known.label:
            remedy = f"write '{guardrail.metric} >= control - ...' or '<= control + ...'"
            raise InvalidInputError("guard.guardrails", guardrail.text, "with a direction", remedy)
    return policy


async def begin_guard(
    tx: Transaction, version: PromptVersion, environment: Environment, policy: Policy, *, now: datetime
) -> Guard:
    """Begin to watch a version that is live, inside an open write; the same guard that watches it already goes on.

    Raises `StateError` where nothing was live before that could be gone back to, and `InvalidInputError` for a
    guardrail on what is probably a slip in a metric's name.
    """
    await check_guard_names(tx, policy)
    before = await rollback_target(tx, version.prompt_type, version.name, environment)
    if before is None:
        raise StateError(
            f"{version.label} cannot be guarded: nothing was live in {environment} before that could be gone back to; "
            "promote it without a guard"
        )
    there = (version.prompt_type, version.name, environment)
    for guard in await tx.guards.listing(watching=True, prompt_type=version.prompt_type, name=version.name):
        if (guard.environment, guard.version_id) == (environment, version.version_id) and (
            guard.policy_digest == policy.digest
        ):
            return guard
    await tx.guards.end_of(*there, at=now, detail="another guard took its place")
    until = None if policy.longest_hours is None else now + timedelta(hours=policy.longest_hours)
    return await tx.guards.add(
        Guard(
            guard_id=str(uuid.uuid4()),
            prompt_type=version.prompt_type,
            name=version.name,
            environment=environment,
            version_id=version.version_id,
            version=version.version,
            previous_version_id=before.version_id,
            previous_version=before.version,
            policy=policy,
            policy_digest=policy.digest,
            since=now,
            until=until,
            watermark=0,
        )
    )


async def look_at_guard(
    store: Store,
    guard: Guard,
    clock: Clock,
    *,
    actor: str = GUARD_ACTOR,
    apply: bool = True,
    first: Work[None] | None = None,
) -> StoredDecision | None:
    """Weigh what was recorded of the version until now; return what was decided, stored and, if `apply`, done.

    None where the guard has ended meanwhile. What is not applied is pending: `Lab.apply` does it. `first` is awaited in
    the transaction that applies, before anything is changed, and may refuse.

    Raises `StateError` where what was live before is gone; the decision is pending then.
    """
    from promptab.decisions.guarded import decide_guard  # noqa: PLC0415 - brings scipy, as an analysis does

    await store.flush()
    if guard.bounds is None:
        await _draw_bounds(store, guard)
    guard = await _tallied(store, guard)
    if guard.status != "watching":
        return None
    decision = decide_guard(GuardEvidence.of(guard), guard.policy, clock(), since=guard.since)

    async def note(tx: Transaction) -> StoredDecision:
        stored = await keep_unmoved(tx, decision)
        await _raise_alerts(tx, guard, stored)
        return stored

    if decision.action == "continue" or not apply:
        return await store.write(note, shown=False)

    async def act(tx: Transaction) -> StoredDecision | None:
        if first is not None:
            await first(tx)
        current = await tx.guards.by_id(guard.guard_id)
        if current is None or current.status != "watching":
            return None
        stored = await keep_by_hand(tx, decision)
        await _raise_alerts(tx, guard, stored)
        return await apply_to_guard(tx, stored, Occasion(decision.at, actor))

    try:
        return await store.write(act)
    except StateError:
        # whoever has to act in its place is told, though nothing could be done
        await store.write(note, shown=False)
        raise


async def _draw_bounds(store: Store, guard: Guard) -> None:
    """Settle where the guardrails draw their lines, by what the version before had until the promotion."""
    from promptab.decisions.drawing_bounds import drawn_bounds  # noqa: PLC0415 - as above

    await add_up(store, "versions")

    async def work(tx: Transaction) -> None:
        past = {
            guardrail.metric: await tx.guard_tallies.past(
                guard.previous_version_id, definition_of(guardrail), before=guard.since
            )
            for guardrail in guard.policy.guardrails
            if not guardrail.is_absolute
        }
        await tx.guards.settle(
            guard.guard_id, drawn_bounds(guard.policy, past, previous=guard.previous_version)
        )

    await store.write(work, shown=False)


async def _tallied(store: Store, guard: Guard) -> Guard:
    """Add to the guard's tallies what was recorded since the last look; return it as it is then."""

    async def current(tx: Transaction) -> Guard:
        found = await tx.guards.by_id(guard.guard_id)
        assert found is not None  # noqa: S101 - guards are never deleted
        return found

    settled = await store.read(current)
    weighed = [
        Weighed(bound, definition_of(guardrail))
        for bound, guardrail in zip(settled.bounds or (), settled.policy.guardrails, strict=True)
    ]

    async def fold(tx: Transaction) -> bool | None:
        return await tx.guard_tallies.fold(guard.guard_id, weighed)

    await fold_all(store, fold)
    return await store.read(current)


async def apply_to_guard(tx: Transaction, stored: StoredDecision, occasion: Occasion) -> StoredDecision:
    """Take the version out, or end the guard; superseded where the guard has ended or the environment was moved.

    One that was applied or superseded already is returned as it is. Raises `StateError` where what was live before is
    gone; nothing has changed then.
    """
    if stored.status != "pending":
        return stored
    guard = await tx.guards.by_id(stored.decision.experiment_id)
    assert guard is not None  # noqa: S101 - guards are never deleted
    live_id = await tx.deployments.pointer(guard.prompt_type, guard.name, guard.environment)
    if guard.status != "watching" or live_id != guard.version_id:
        moved = guard.detail or f"{guard.environment} was moved without an entry in its history"
        await tx.guards.end(guard.guard_id, "moved", at=occasion.at, detail=moved)
        settled = stored.settled("superseded", at=occasion.at, detail=moved)
        await tx.decisions.settle([settled])
        return settled
    settled = await _acted(tx, guard, stored, occasion)
    await tx.decisions.settle([settled])
    await raise_applied(tx, settled)
    return settled


async def _acted(tx: Transaction, guard: Guard, stored: StoredDecision, occasion: Occasion) -> StoredDecision:
    decision, effects = stored.decision, {}
    status: GuardStatus = "rolled_back" if decision.action == "rollback" else "kept"
    await tx.guards.end(guard.guard_id, status, at=occasion.at, detail=decision.sentence)
    detail = f"The guard of {guard.label} has ended"
    if decision.action == "rollback":
        move = await _taken_back(tx, guard, stored, occasion)
        detail = f"{guard.environment} is back at {move.version}"
        effects = {"deployment": move.sequence, "moved": move.action}
    return stored.settled("applied", at=occasion.at, detail=detail, actor=occasion.actor, effects=effects)


async def _taken_back(
    tx: Transaction, guard: Guard, stored: StoredDecision, occasion: Occasion
) -> Deployment:
    decision = stored.decision
    target = await rollback_target(tx, guard.prompt_type, guard.name, guard.environment)
    if target is None:
        raise StateError(
            f"{guard.label} has failed a guardrail, but what was live before is gone; promote the version that should "
            f"be live. {decision.sentence}"
        )
    evidence = {
        "decision_id": stored.decision_id,
        "action": decision.action,
        "rule": decision.rule,
        "guard": guard.guard_id,
        "policy_digest": guard.policy_digest,
        "since": guard.since.isoformat(),
        "guardrails": [reading.model_dump(mode="json") for reading in _readings(guard, decision)],
    }
    left = await existing_version(tx, guard.version_id)
    told = Occasion(occasion.at, occasion.actor, decision.sentence, evidence, stored.decision_id)
    return await roll_back(tx, target, left, guard.environment, told)


async def _raise_alerts(tx: Transaction, guard: Guard, stored: StoredDecision) -> None:
    readings = _readings(guard, stored.decision)
    await raise_guard_alerts(
        tx,
        stored.decision,
        readings,
        uncarried=guard.uncarried,
        events=max((tally.events for tally in guard.tallies), default=0),
        decision_id=stored.decision_id,
    )


def _readings(guard: Guard, decision: Decision) -> Sequence[GuardReading]:
    """Return where the guardrails stood at the look that decided this."""
    from promptab.decisions.guarded import guard_readings  # noqa: PLC0415 - as above

    assert decision.inputs is not None  # noqa: S101 - a look has decided it
    return guard_readings(GuardEvidence.model_validate(decision.inputs.analysis[GUARD]), guard.policy)
