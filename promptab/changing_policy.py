"""Putting another policy in the place of an experiment's, inside an open write."""

from __future__ import annotations

from typing import Any

from promptab.alerting import raise_applied
from promptab.decision_keeping import keep_by_hand
from promptab.decisions.decision import Decision
from promptab.errors import StateError
from promptab.experiment_rules import reached_step, settled
from promptab.lifecycle import ENDED_STATUSES
from promptab.models import PromptExperiment
from promptab.moving import at_step, moved
from promptab.pointing import Occasion, keep, live_version
from promptab.policy import Policy
from promptab.spelling import check_policy_names
from promptab.stores.base import Transaction


async def with_policy(
    tx: Transaction, current: PromptExperiment, policy: Policy | None, occasion: Occasion
) -> PromptExperiment:
    """Return the experiment with this policy: of one that has started with a new analysis, and a word about it."""
    if current.status in ENDED_STATUSES:
        raise StateError(
            f"experiment {current.name!r} is {current.status}: its policy cannot change any more"
        )
    if policy == current.policy:
        return current
    changed = current.model_copy(update={"policy": policy})
    await check_policy_names(tx, changed)
    if current.started_at is None:
        settled(changed, changed.plan)
        return await moved(tx, changed)
    changed = await _on_running(tx, current, changed, occasion)
    decision = _told(current, changed, occasion)
    stored = await keep_by_hand(tx, decision)
    effects: dict[str, Any] = {}
    if changed.prompt_name is not None:
        live = await live_version(tx, changed.prompt_type, changed.prompt_name, "production")
        if live is not None:
            evidence = {"decision_id": stored.decision_id, "policy_digest": changed.policy_digest}
            entry = await keep(tx, live, Occasion(occasion.at, occasion.actor, decision.sentence, evidence))
            effects["deployment"] = entry.sequence
    done = stored.settled(
        "applied", at=occasion.at, actor=occasion.actor, detail="A new analysis has begun", effects=effects
    )
    await tx.decisions.settle([done])
    await raise_applied(tx, done)
    return changed


async def _on_running(
    tx: Transaction, current: PromptExperiment, changed: PromptExperiment, occasion: Occasion
) -> PromptExperiment:
    update = settled(changed, current.declared_plan or current.plan)
    update["policy_since"] = None if changed.policy is None else occasion.at
    if changed.policy is None or not changed.policy.ramp:
        progress = await at_step(tx, changed.model_copy(update=update), 0, now=occasion.at)
    else:
        step = reached_step(changed.policy.ramp, current.traffic)
        traffic = changed.policy.ramp[step].traffic
        update["traffic"] = traffic
        if traffic != current.traffic:
            update["traffic_history"] = (*current.traffic_history, (occasion.at, traffic))
        progress = await at_step(tx, changed.model_copy(update=update), step, now=occasion.at)
    changed = changed.model_copy(update=update)
    progress = progress.model_copy(update={"paused_for": ()})
    if await tx.retention.pruned_before(changed.experiment_id) is not None:
        _check_metrics(current, changed)
    return await moved(tx, changed, progress)


def _check_metrics(current: PromptExperiment, changed: PromptExperiment) -> None:
    # their order counts as well: it is a part of what the totals rest on
    before, after = (
        [metric.name for metric in plan.metrics if metric.kind != "quantile"]
        for plan in (current.plan, changed.plan)
    )
    if before != after:
        raise StateError(
            f"events of experiment {current.name!r} have been pruned, so its totals cannot be made anew for the "
            f"metrics {', '.join(after) or 'none'} in the place of {', '.join(before) or 'none'}: keep to those, in "
            "their order, or create a new experiment"
        )


def _told(current: PromptExperiment, changed: PromptExperiment, occasion: Occasion) -> Decision:
    digest, before = changed.policy_digest, current.policy_digest
    if digest is None:
        sentence = "Its policy was taken away: nothing is decided about it by itself any more"
    else:
        was = "it had none before" if before is None else f"before it was {before[:12]}"
        sentence = f"Policy {digest[:12]} is in force ({was}): only units first exposed from now on are read"
    if occasion.reason:
        sentence += f"; {occasion.reason}"
    return Decision(
        experiment_id=changed.experiment_id,
        experiment=changed.name,
        at=occasion.at,
        action="continue",
        rule="policy",
        numbers={},
        sentence=sentence,
        policy_digest=digest,
        inputs=None,
    )
