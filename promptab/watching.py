"""The loop that closes itself: one leader looks at everything that has a policy, again and again, and acts on it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Literal

from promptab.bandit import Rebalancing
from promptab.checks import check_items, check_label, check_number
from promptab.decisions.guard import Guard
from promptab.decisions.stored import StoredDecision
from promptab.errors import NotFoundError, NotLeadingError, PromptabError, StateError, StoreError
from promptab.guarding import look_at_guard
from promptab.leading import Leading
from promptab.lifecycle import LIVE_STATUSES
from promptab.managed import Clock
from promptab.models import ExperimentStatus, PromptExperiment
from promptab.rebalancing import rebalance
from promptab.records import Record, Utc
from promptab.rollout import Rollout
from promptab.stores.base import Store, Transaction

LEADERSHIP = "watch"
"""What the one that applies decisions leads in."""
LONGEST_CLAIM_SECONDS = 30.0
"""A claim lasts as long as an interval, and never longer than this: another one follows a leader that is gone within
one and a third of that time.
"""
FIRST_PAUSE_SECONDS = 1.0
"""After a look at a store that is away; twice as long each time, up to the interval."""

WatchState = Literal["leading", "standing_by", "looking", "away"]
"""- `leading`: this one applies what is decided
- `standing_by`: another one does, and this one looks at nothing
- `looking`: nothing is to be applied, so nobody has to lead
- `away`: the store does not answer
"""

logger = logging.getLogger("promptab")


class WatchUpdate(Record):
    """What one look came to: about one experiment or guard, or about the watch itself."""

    at: Utc
    state: WatchState
    subject: str = ""
    """The experiment's name, or the prompt of a guarded version; empty where it is about the watch itself."""
    decision: StoredDecision | None = None
    """As it is after the look; None where there is none."""
    error: str | None = None
    """Why the look failed; what else is watched goes on."""
    detail: str = ""

    @property
    def applied(self) -> bool:
        return self.decision is not None and self.decision.status == "applied"

    @property
    def sentence(self) -> str:
        if self.error is not None:
            return self.error
        if self.decision is None:
            return self.detail
        if self.applied or self.decision.status == "superseded":
            return f"{self.decision.decision.sentence}: {self.decision.detail}"
        return self.decision.decision.sentence


@dataclass(frozen=True, slots=True)
class Round:
    """One round of looks."""

    store: Store
    rollout: Rollout
    clock: Clock
    names: tuple[str, ...] | None
    """Names or ids of experiments and prompts; None for all."""
    state: WatchState
    actor: str
    leading: Leading | None
    """None where nothing is applied."""
    term: int | None

    @property
    def goes_on(self) -> bool:
        """Whether this one may still act."""
        return self.leading is None or self.leading.term == self.term

    @property
    def applies(self) -> bool:
        return self.leading is not None

    async def check_leading(self, tx: Transaction) -> None:
        """Refuse the transaction's changes where another one has begun to lead; nothing where nobody has to."""
        if self.term is not None:
            await tx.leases.check(LEADERSHIP, self.term)

    def wants(self, *called: str) -> bool:
        return self.names is None or not set(called).isdisjoint(self.names)

    def update(self, subject: str = "", **found: object) -> WatchUpdate:
        return WatchUpdate.model_validate(
            {"at": self.clock(), "state": self.state, "subject": subject, **found}
        )

    async def reported(
        self, subject: str, look: Callable[[], Awaitable[StoredDecision | Rebalancing | None]]
    ) -> WatchUpdate | None:
        """Return what a look came to, also where it failed; None where there was nothing to look at any more."""
        try:
            found = await look()
        except (StoreError, NotLeadingError):
            raise
        except Exception as error:  # one experiment must not keep the others from being looked at
            if not isinstance(error, PromptabError):
                logger.exception("watch: the look at %s failed", subject)
            return self.update(subject, error=f"the look failed: {str(error) or type(error).__name__}")
        if isinstance(found, Rebalancing):
            return self.update(subject, detail=found.reason)
        return None if found is None else self.update(subject, decision=found)


Duty = Callable[[Round], AsyncGenerator[WatchUpdate]]
"""Something that the leader does in each round, and says what came of it. A `StoreError` or a `NotLeadingError` ends
the round; whatever else goes wrong is its own to report.
"""


async def look_at_experiments(looks: Round) -> AsyncGenerator[WatchUpdate]:
    """Decide about every running or paused experiment that has a policy, and apply what needs nobody's consent."""

    async def listing(tx: Transaction) -> list[PromptExperiment]:
        return await tx.experiments.listing(statuses=LIVE_STATUSES)

    for experiment in await looks.store.read(listing):
        called = (experiment.name, experiment.experiment_id)
        if experiment.policy is None or not looks.goes_on or not looks.wants(*called):
            continue
        update = await looks.reported(experiment.name, partial(_decided, looks, experiment))
        if update is not None:
            yield update


async def look_at_guards(looks: Round) -> AsyncGenerator[WatchUpdate]:
    """Weigh what is recorded of every version that was promoted with a guard, and take back those that fail."""

    async def listing(tx: Transaction) -> list[Guard]:
        return await tx.guards.listing(watching=True)

    for guard in await looks.store.read(listing):
        if not looks.goes_on or not looks.wants(guard.prompt, guard.name):
            continue
        update = await looks.reported(guard.label, partial(_guarded, looks, guard))
        if update is not None:
            yield update


async def move_bandits(looks: Round) -> AsyncGenerator[WatchUpdate]:
    """Take a batch step of every running bandit for which one is due; nothing where nothing is to be applied."""

    async def listing(tx: Transaction) -> list[PromptExperiment]:
        return await tx.experiments.listing(statuses=frozenset({ExperimentStatus.RUNNING}))

    for experiment in await looks.store.read(listing) if looks.applies else []:
        called = (experiment.name, experiment.experiment_id)
        if experiment.bandit is None or not looks.goes_on or not looks.wants(*called):
            continue
        update = await looks.reported(experiment.name, partial(_rebalanced, looks, experiment))
        if update is not None:
            yield update


DUTIES: tuple[Duty, ...] = (look_at_experiments, look_at_guards, move_bandits)
"""What a round consists of, in this order: the place for whatever else has to be done again and again by one alone."""


async def _decided(looks: Round, experiment: PromptExperiment) -> StoredDecision | None:
    try:
        stored = await looks.rollout.decide(experiment.experiment_id)
        if looks.applies and stored.status == "pending":
            stored = await looks.rollout.apply(stored, actor=looks.actor, first=looks.check_leading)
    except (NotFoundError, StateError):
        if await _is_over(looks.store, experiment):
            return None
        raise
    return stored


async def _guarded(looks: Round, guard: Guard) -> StoredDecision | None:
    return await look_at_guard(
        looks.store,
        guard,
        looks.clock,
        actor=looks.actor,
        apply=looks.applies,
        first=looks.check_leading,
    )


async def _rebalanced(looks: Round, experiment: PromptExperiment) -> Rebalancing | None:
    try:
        found = await rebalance(looks.store, experiment.experiment_id, clock=looks.clock)
    except NotFoundError:  # deleted since it was listed
        return None
    return found if found.changed else None


async def _is_over(store: Store, experiment: PromptExperiment) -> bool:
    """Whether the experiment has ended, lost its policy or been deleted since it was listed."""

    async def work(tx: Transaction) -> PromptExperiment | None:
        return await tx.experiments.by_id(experiment.experiment_id)

    found = await store.read(work)
    return found is None or found.status not in LIVE_STATUSES or found.policy is None


class Watch:
    """Rounds of looks, an interval apart."""

    def __init__(
        self,
        rollout: Rollout,
        store: Store,
        clock: Clock,
        *,
        names: Iterable[str] | None,
        interval: float,
        apply: bool,
        once: bool,
        actor: str,
    ) -> None:
        self._rollout = rollout
        self._store = store
        self._clock = clock
        self._names = None if names is None else tuple(check_items("experiments", names))
        self._interval = check_number("interval", interval, low=0.1, high=7 * 24 * 3600.0)
        self._apply = apply
        self._once = once
        self._actor = check_label("actor", actor)
        self._pause = min(FIRST_PAUSE_SECONDS, self._interval)
        self._waited = False
        """Whether the last round was spent standing by, or without a store."""

    async def updates(self) -> AsyncGenerator[WatchUpdate]:
        async with AsyncExitStack() as stack:
            leading = None
            if self._apply:
                seconds = min(self._interval, LONGEST_CLAIM_SECONDS)
                leadership = self._store.leadership(LEADERSHIP, seconds=seconds)
                leading = await stack.enter_async_context(Leading(leadership, seconds=seconds))
            while True:
                began = monotonic()
                is_away = False
                async with aclosing(self._round(leading)) as updates:
                    async for update in updates:
                        is_away = update.state == "away"
                        yield update
                if self._once:
                    return
                await self._wait(leading, began, is_away=is_away)

    async def _round(self, leading: Leading | None) -> AsyncGenerator[WatchUpdate]:
        term = None if leading is None else leading.term
        had_waited, self._waited = self._waited, True
        if leading is not None and leading.failure is not None:
            yield self._away(leading.failure)
            return
        if leading is not None and term is None:
            yield self._about("standing_by", "another one leads; this one takes over when it is gone")
            return
        state: WatchState = "looking" if leading is None else "leading"
        if had_waited:
            yield self._about(state, "this one leads from now on" if leading else "the store is back")
        looks = Round(self._store, self._rollout, self._clock, self._names, state, self._actor, leading, term)
        subjects = 0
        try:
            for duty in DUTIES:
                async with aclosing(duty(looks)) as updates:
                    async for update in updates:
                        subjects += 1
                        yield update
        except StoreError as error:
            yield self._away(error)
            return
        except NotLeadingError as error:
            yield self._about("standing_by", str(error))
            return
        self._waited = False
        if not subjects:
            what = "that has a policy or a guard is running" if self._names is None else "of these is running"
            yield self._about(state, f"nothing {what}")

    async def _wait(self, leading: Leading | None, began: float, *, is_away: bool) -> None:
        if is_away:
            pause, self._pause = self._pause, min(2.0 * self._pause, self._interval)
        else:
            pause = max(0.0, self._interval - (monotonic() - began))
            self._pause = min(FIRST_PAUSE_SECONDS, self._interval)
        if leading is None:
            await asyncio.sleep(pause)
        else:
            await leading.wait(pause)

    def _about(self, state: WatchState, detail: str) -> WatchUpdate:
        return WatchUpdate(at=self._clock(), state=state, detail=detail)

    def _away(self, error: StoreError) -> WatchUpdate:
        again = "" if self._once else f", and is looked at again in {self._pause:.3g} seconds"
        return WatchUpdate(at=self._clock(), state="away", error=f"the store is away{again}: {error}")
