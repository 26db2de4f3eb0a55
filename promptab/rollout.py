"""Deciding about experiments by their policies, and applying what was decided: at most once, on an unmoved state."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple, get_args

from promptab.acting import apply_decision
from promptab.alerting import raise_alerts
from promptab.analysing import Analysing
from promptab.assigning import find_experiment
from promptab.checks import check_count, check_label, check_text, required_id
from promptab.decision_keeping import keep_by_hand, keep_decision, standing_of
from promptab.decisions.deciding import decide
from promptab.decisions.decision import Action, Decision
from promptab.decisions.guard import is_about_guard
from promptab.decisions.stored import RolloutProgress, Standing, StoredDecision
from promptab.errors import ConflictError, InvalidInputError, NotFoundError, StateError
from promptab.experiment_rules import check_key
from promptab.guarding import apply_to_guard
from promptab.lifecycle import LIVE_STATUSES
from promptab.managed import Clock, Managed, utc_now
from promptab.models import ExperimentStatus, PromptExperiment
from promptab.moving import reread
from promptab.pointing import Occasion
from promptab.policy import Policy
from promptab.stores.base import Store, Transaction, Work

MACHINE = "promptab"
"""The actor of what nobody in particular applies."""

_ATTEMPTS = 5
"""How often an experiment may be moved while it is being looked at."""

_BY_HAND: Mapping[Action, str] = {
    "continue": "Goes on",
    "ramp": "Traffic grows",
    "promote": "Promoted",
    "rollback": "Rolled back",
    "pause": "Paused",
    "stop": "Stopped",
}


class _Look(NamedTuple):
    """An experiment as it was in one transaction."""

    experiment: PromptExperiment
    progress: RolloutProgress
    standing: Standing


class Rollout(Managed):
    """Decides about experiments that have a policy, and applies it."""

    def __init__(self, store: Store | None = None, *, clock: Clock = utc_now) -> None:
        super().__init__(store, clock=clock)
        self._analysing = Analysing(store, clock=clock)

    async def decide(self, experiment: str) -> StoredDecision:
        """Analyse the experiment by its policy, decide, and store the decision; nothing else changes.

        A look that decides the same from the same numbers as the one before it is the same decision, seen again. What
        was open before and is no longer right becomes superseded.

        Raises `NotFoundError`, `StateError` where the experiment has no policy, has not started or has ended, and
        `ConflictError` where it was moved again and again meanwhile.
        """
        store = await self._store()
        found = await find_experiment(store, experiment, now=self._clock())
        look = await store.read(lambda tx: _look(tx, found))
        for _ in range(_ATTEMPTS):
            policy = _check_decidable(look.experiment)
            analysis = await self._analysing.analyze(found.experiment_id, policy=policy)
            before, look = look, await store.read(lambda tx: _look(tx, found))
            if look.standing == before.standing:
                break
        else:
            raise ConflictError(f"experiment {found.name!r} is moved all the time; decide again later")
        now = self._clock()
        state = look.progress.decision_state(look.experiment, now, live=look.standing.production)
        # clocks of several machines differ a little
        decision = decide(analysis, policy, max(now, state.started_at), state)
        standing, looked_at = look.standing, look.experiment

        async def work(tx: Transaction) -> StoredDecision:
            stored = await keep_decision(tx, decision, standing)
            await raise_alerts(tx, decision, analysis, looked_at, decision_id=stored.decision_id)
            return stored

        return await store.write(work, shown=False)

    async def apply(
        self, decision: str | StoredDecision, *, actor: str | None = None, first: Work[None] | None = None
    ) -> StoredDecision:
        """Do what was decided, in one transaction, and return the decision with what became of it.

        Where the experiment, its weights, its policy or production have moved since it was made, nothing happens: it
        is superseded, and says by what. A second time changes nothing and returns what the first did. One that needs
        somebody's consent stays as it is: see `approve`. `first` is awaited in the transaction before anything is
        changed, and may refuse.

        Raises `NotFoundError`, and `StateError` where it cannot be done, as of an archived version.
        """
        key = decision.decision_id if isinstance(decision, StoredDecision) else decision
        decision_id = required_id("decision", key)
        who = MACHINE if actor is None else check_label("actor", actor)
        store = await self._store()
        known = await store.read(lambda tx: _existing(tx, decision_id))
        if known.status != "pending":
            return known
        # exposures that wait belong to the step of the ramp that ends now
        await store.flush()
        occasion = Occasion(self._clock(), who)

        async def work(tx: Transaction) -> StoredDecision:
            if first is not None:
                await first(tx)
            stored = await _existing(tx, decision_id)
            if is_about_guard(stored.decision):
                return await apply_to_guard(tx, stored, occasion)
            return await apply_decision(tx, stored, occasion)

        return await store.write(work)

    async def decisions(self, experiment: str, *, limit: int | None = None) -> list[StoredDecision]:
        """Return what was decided about an experiment, newest first: also of one that has been deleted, by its id or
        name, and about a prompt with guarded versions, as in system/greeting.

        Raises `NotFoundError` where nothing is known of it.
        """
        most = None if limit is None else check_count("limit", limit, low=1)
        store = await self._store()
        try:
            found = await find_experiment(store, experiment, now=self._clock())
        except NotFoundError:
            gone = await store.read(lambda tx: tx.decisions.of(experiment, limit=most))
            gone = gone or await store.read(lambda tx: tx.decisions.of_name(experiment, limit=most))
            if not gone:
                raise
            return gone
        return await store.read(lambda tx: tx.decisions.of(found.experiment_id, limit=most))

    async def decision(self, experiment: str, decision_id: str) -> StoredDecision:
        """Return one decision about an experiment, or a guarded prompt, by its id or the beginning of it.

        Raises `NotFoundError`, and `StateError` where several begin like that.
        """
        wanted = check_label("decision_id", decision_id)
        store = await self._store()
        try:
            found = await find_experiment(store, experiment, now=self._clock())
            named = await store.read(lambda tx: tx.decisions.beginning(found.experiment_id, wanted))
        except NotFoundError:
            known = await self.decisions(experiment)
            named = [stored for stored in known if stored.decision_id.startswith(wanted)]
        if not named:
            raise NotFoundError("decision", wanted, f"list them with `promptab decisions {experiment}`")
        if len(named) > 1:
            raise StateError(
                f"several decisions about {experiment!r} begin with {wanted}; give more of the id"
            )
        return named[0]

    async def progress(self, experiment: str) -> RolloutProgress:
        """Return how far decisions and people have brought an experiment. Raises `NotFoundError`."""
        store = await self._store()
        found = await find_experiment(store, experiment, now=self._clock())
        return await store.read(lambda tx: tx.rollouts.of(found.experiment_id))

    async def approve(self, experiment: str, *, reason: str = "", actor: str | None = None) -> StoredDecision:
        """Apply the decision about the experiment that waits for a person; superseded where something has moved.

        Raises `NotFoundError`, and `StateError` where none waits.
        """
        text = check_text("reason", reason)
        who = None if actor is None else check_label("actor", actor)
        store = await self._store()
        found = await find_experiment(store, experiment, now=self._clock())
        await store.flush()
        occasion = Occasion(self._clock(), who, f"approved: {text}" if text else "approved")

        async def work(tx: Transaction) -> StoredDecision:
            waiting = [
                stored
                for stored in await tx.decisions.open(found.experiment_id)
                if stored.status != "pending"
            ]
            if not waiting:
                raise StateError(
                    f"no decision about experiment {found.name!r} waits for approval; list them with "
                    f"`promptab decisions {found.name}`, or act for a reason of your own with `promptab override`"
                )
            return await apply_decision(tx, waiting[0], occasion, approved=True)

        return await store.write(work)

    async def override(
        self,
        experiment: str,
        action: Action,
        *,
        reason: str,
        variant: str | None = None,
        actor: str | None = None,
    ) -> StoredDecision:
        """Do what a person wants, whatever the policy says and whether there is one; it is a decision as well.

        `promote` and `rollback` are of `variant`, by default the only candidate; `stop` with a `variant` names the
        winner; `ramp` goes to the next step of the ramp; `continue` goes on after a pause. What was decided before
        and not applied is superseded. With `continue` a name means the paused experiment of that name, where there is
        one.

        Raises `NotFoundError`, `InvalidInputError` for a missing reason and a variant that does not fit, and
        `StateError` where the experiment is not running or paused, or is so already.
        """
        if action not in get_args(Action):
            raise InvalidInputError("action", action, f"one of {', '.join(get_args(Action))}")
        text = check_text("reason", reason)
        if not text.strip():
            raise InvalidInputError("reason", reason, "a text that says why", "it is kept in the history")
        who = None if actor is None else check_label("actor", actor)
        store = await self._store()
        # as `resume` has it: of those of the name the one that can go on
        prefer = ExperimentStatus.PAUSED if action == "continue" else None
        found = await find_experiment(store, experiment, now=self._clock(), prefer=prefer)
        await store.flush()
        now = self._clock()

        async def work(tx: Transaction) -> StoredDecision:
            look = await _look(tx, found)
            decision = _overriding(look, action, variant, reason=text, now=now)
            stored = await keep_by_hand(tx, decision, look.standing)
            return await apply_decision(tx, stored, Occasion(now, who))

        return await store.write(work)


async def _look(tx: Transaction, found: PromptExperiment) -> _Look:
    experiment = await reread(tx, found)
    progress = await tx.rollouts.of(experiment.experiment_id)
    return _Look(experiment, progress, await standing_of(tx, experiment))


async def _existing(tx: Transaction, decision_id: str) -> StoredDecision:
    stored = await tx.decisions.by_id(decision_id)
    if stored is None:
        raise NotFoundError("decision", decision_id, "list them with `promptab decisions NAME`")
    return stored


def _check_decidable(experiment: PromptExperiment) -> Policy:
    if experiment.policy is None:
        raise StateError(
            f"experiment {experiment.name!r} has no policy to decide by; give it one with set_policy "
            f"(`promptab experiment policy {experiment.name} NAME`)"
        )
    _check_live(experiment)
    return experiment.policy


def _check_live(experiment: PromptExperiment) -> None:
    if experiment.status not in LIVE_STATUSES:
        remedy = (
            "start it first" if experiment.status == ExperimentStatus.DRAFT else "nothing is left to decide"
        )
        raise StateError(f"experiment {experiment.name!r} is {experiment.status}: {remedy}")


def _overriding(look: _Look, action: Action, variant: str | None, *, reason: str, now: datetime) -> Decision:
    experiment = look.experiment
    _check_live(experiment)
    _check_not_so_already(experiment, action)
    variants = _overridden(look, action, variant)
    step = traffic = None
    if action == "ramp":
        step, traffic = _next_step(look)
    what = f"{_BY_HAND[action]} by hand"
    if variants:
        what += f", {', '.join(variants)}"
    return Decision(
        experiment_id=experiment.experiment_id,
        experiment=experiment.name,
        at=now,
        action=action,
        rule="override",
        variants=variants,
        step=step,
        traffic=traffic,
        numbers={},
        sentence=f"{what}: {reason}",
        policy_digest=experiment.policy_digest,
        inputs=None,
    )


def _check_not_so_already(experiment: PromptExperiment, action: Action) -> None:
    already = {("pause", ExperimentStatus.PAUSED), ("continue", ExperimentStatus.RUNNING)}
    if (action, experiment.status) in already:
        raise StateError(f"experiment {experiment.name!r} is {experiment.status} already")


def _overridden(look: _Look, action: Action, variant: str | None) -> tuple[str, ...]:
    """Return the variants that a person's decision is about."""
    experiment = look.experiment
    keys = [known.key for known in experiment.variants]
    if action not in {"promote", "rollback", "stop"}:
        if variant is not None:
            raise InvalidInputError("variant", variant, f"left out for {action}", "it is about all variants")
        return ()
    candidates = [key for key in keys if key not in {experiment.control, *look.progress.withdrawn}]
    if variant is None:
        if action == "stop":
            return ()
        if len(candidates) != 1:
            bound = f"given where there is not just one candidate ({', '.join(candidates) or 'none'})"
            raise InvalidInputError("variant", None, bound)
        return (candidates[0],)
    check_key("variant", variant, keys)
    if action == "rollback" and variant not in candidates:
        bound = f"one of the candidates ({', '.join(candidates) or 'none is left'})"
        raise InvalidInputError("variant", variant, bound, "the control and what was rolled back are none")
    return (variant,)


def _next_step(look: _Look) -> tuple[int, float]:
    ramp = () if look.experiment.policy is None else look.experiment.policy.ramp
    following = look.progress.step + 1
    if following >= len(ramp):
        where = f"is in the last of the {len(ramp)} steps of its ramp" if ramp else "has no ramp"
        raise StateError(
            f"experiment {look.experiment.name!r} {where}; set its traffic with update_traffic, or promote"
        )
    return following, ramp[following].traffic
