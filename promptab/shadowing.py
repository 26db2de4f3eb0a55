"""Runs in the shadow: what `Lab.complete` and `Lab.stream` ask beside the answer that the user gets.

A run is a task of its own. It renders its request while the served one is under way, sends it when that has ended, and
records what came of it as a shadow's. Nobody waits for it, and nothing that it raises reaches anybody.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import tee
from types import TracebackType
from typing import Any, NamedTuple, Self

from promptab.calls.call import Call
from promptab.calls.finished import FinishedCall
from promptab.checks import check_count, check_number
from promptab.choice import Choice
from promptab.errors import InvalidInputError
from promptab.sending import CallPlan, Send, whole_answer
from promptab.shadow_budget import ShadowBudget
from promptab.shadow_place import SHADOW_KEY

logger = logging.getLogger("promptab.shadows")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowSettings:
    """The bounds of what a process runs in the shadow. What is beyond them is left out and counted, never queued."""

    most_at_once: int = 16
    """Requests that are out at one time, 1 to 10,000."""
    timeout_seconds: float = 60.0
    """After which a run has failed, the client's retries included: above 0, up to 3600."""
    close_seconds: float = 5.0
    """How long closing the lab waits for runs before it cancels them: 0 to 3600. One whose client does not let itself
    be cancelled is left after 2 seconds more, with a word in the log."""
    max_cost: float | None = None
    """US dollars that the runs of this lab may cost in all; None for no limit. A run is sent where as much is left,
    beside what is out, as the dearest one of its shadow has cost so far; the first runs of a shadow are sent one at a
    time, until one was answered. So more is spent at most by the first run of each shadow, and by what runs that are
    out cost beyond the dearest one before them. A run whose cost is not known counts as nothing."""

    def __post_init__(self) -> None:
        check_count("shadows.most_at_once", self.most_at_once, low=1, high=10_000)
        check_number("shadows.timeout_seconds", self.timeout_seconds, above=0.0, high=3600.0)
        check_number("shadows.close_seconds", self.close_seconds, low=0.0, high=3600.0)
        if self.max_cost is not None:
            check_number("shadows.max_cost", self.max_cost, low=0.0)


LETTING_GO_SECONDS = 2.0
"""How long what was cancelled may take to end."""

DEFAULT_SHADOWS = ShadowSettings()


def check_shadow_settings(value: object) -> ShadowSettings:
    if isinstance(value, ShadowSettings):
        return value
    raise InvalidInputError(
        "shadows", value, "of ShadowSettings", "write shadows=promptab.ShadowSettings(...)"
    )


class ShadowStats(NamedTuple):
    """What has come of the runs of this lab so far."""

    pending: int
    """Waiting for the served answer to end, or for their own."""
    answered: int
    failed: int
    """Their events say why."""
    cancelled: int
    """By the closing of the lab, or left by it as they did not end."""
    over_capacity: int
    """Left out, since `most_at_once` were out."""
    over_cost: int
    """Left out, since they might have cost more than was left of `max_cost`."""
    cost: float
    """US dollars, as far as they are known."""


class Shadows:
    """The runs in the shadow of one lab. Belongs to the lab's event loop."""

    def __init__(self, settings: ShadowSettings) -> None:
        self.settings = settings
        self._tasks: set[asyncio.Task[None]] = set()
        self._inherited: list[set[asyncio.Task[None]]] = []
        """Of a process that was forked: its parent's tasks, which no loop of its own knows."""
        self._process = os.getpid()
        self._out = 0
        self._answered = self._failed = self._cancelled = self._over_capacity = self._over_cost = 0
        self._budget = ShadowBudget(settings.max_cost)
        self._closed = False
        self._left: set[asyncio.Task[None]] = set()
        """What did not end when it was cancelled. Nothing that comes of it is recorded."""

    def stats(self) -> ShadowStats:
        """Return counts, without I/O."""
        return ShadowStats(
            len(self._of_this_process()),
            self._answered,
            self._failed,
            self._cancelled,
            self._over_capacity,
            self._over_cost,
            self._budget.spent,
        )

    def beside(self, plan: CallPlan, metadata: Mapping[str, Any] | None, call_id: str) -> Beside:
        """Return what runs beside the served call of this id, to be entered around it."""
        shadows = plan.choice.shadows
        if not shadows or self._closed:
            return Beside(plan, None)
        loop, tasks = asyncio.get_running_loop(), self._of_this_process()
        served: asyncio.Future[bool] = loop.create_future()
        plan, *copies = _copies(plan, len(shadows))
        for shadow, copied in zip(shadows, copies, strict=True):
            run = self._run(copied, shadow, dict(metadata or {}), call_id, served)
            task = loop.create_task(run, name="promptab shadow")
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        return Beside(plan, served)

    async def settle(self) -> None:
        """Return when every run that has begun so far has ended. Runs wait for the served call that they belong to."""
        if tasks := set(self._of_this_process()):
            await asyncio.wait(tasks)

    async def close(self) -> None:
        """Begin nothing any more, wait `close_seconds` for what is out, and cancel the rest. What does not let itself
        be cancelled is left after `LETTING_GO_SECONDS`.
        """
        self._closed = True
        tasks: Sequence[asyncio.Task[None]] = tuple(self._of_this_process())
        if not tasks:
            return
        try:
            await asyncio.wait(tasks, timeout=self.settings.close_seconds)
        finally:
            for task in tasks:
                task.cancel()
            ended, left = await asyncio.wait(tasks, timeout=LETTING_GO_SECONDS)
            await asyncio.gather(*ended, return_exceptions=True)
            self._leave(left)

    def _leave(self, tasks: set[asyncio.Task[None]]) -> None:
        """Let runs be that do not end: closing the lab does not wait for them, and nothing that they do concerns it."""
        if not tasks:
            return
        self._left |= tasks
        self._cancelled += len(tasks)
        self._of_this_process().difference_update(tasks)
        told = "1 run in the shadow has" if len(tasks) == 1 else f"{len(tasks)} runs in the shadow have"
        logger.warning(
            "%s not ended %g s after being cancelled, and nothing is recorded of it any more: the client does not let "
            "itself be cancelled",
            told,
            LETTING_GO_SECONDS,
        )

    async def _run(
        self,
        plan: CallPlan,
        shadow: Choice,
        metadata: dict[str, Any],
        call_id: str,
        served: asyncio.Future[bool],
    ) -> None:
        request = _request(plan, shadow)
        key = (shadow.experiment_id, shadow.variant)
        if not await served or (aside := self._admitted(key)) is None:
            return
        metadata.pop(SHADOW_KEY, None)
        call = shadow.call(metadata=metadata, beside=call_id)
        self._out += 1
        self._budget.set_aside(key, aside)
        try:
            if isinstance(request, Exception):
                call.fail(request)
            else:
                await self._asked(call, request)
        finally:
            if asyncio.current_task() not in self._left:
                self._out -= 1
                finished = call.finish()
                answered = finished.status == "ok"
                self._budget.spend(key, aside, finished.cost, answered=answered)
                self._count(finished)

    async def _asked(self, call: Call, request: Send) -> None:
        try:
            await call.begin()
            async with asyncio.timeout(self.settings.timeout_seconds):
                await whole_answer(call, request)
        except Exception as error:  # noqa: BLE001 - anything: nobody waits for it, and the event says what kind it was
            call.fail(error)
        except asyncio.CancelledError as error:
            call.fail(error)
            raise

    def _admitted(self, shadow: object) -> float | None:
        """Return the share of the budget that one more request takes; None where there is no room, which is counted."""
        share = self._budget.share_of(shadow)
        if share is None:
            self._over_cost += 1
            return None
        if self._out >= self.settings.most_at_once:
            self._over_capacity += 1
            return None
        return share

    def _count(self, call: FinishedCall) -> None:
        if call.status == "ok":
            self._answered += 1
        elif call.status == "cancelled":
            self._cancelled += 1
        else:
            self._failed += 1
            subject, kind = call.subject, None if call.failure is None else call.failure.kind
            logger.warning(
                "shadow %s of experiment %r failed: %s", subject.variant, subject.experiment_name, kind
            )

    def _of_this_process(self) -> set[asyncio.Task[None]]:
        if self._process != os.getpid():
            self._process, self._out = os.getpid(), 0
            self._budget.forget_what_is_out()
            self._inherited.append(self._tasks)
            self._tasks = set()
        return self._tasks


class Beside:
    """What runs beside one served call: entered around it, and let go when that has ended.

    A request that was cancelled has no outcome to compare with, so its shadows are not sent; one that failed has.
    """

    __slots__ = ("_call", "_served", "plan")

    def __init__(self, plan: CallPlan, served: asyncio.Future[bool] | None) -> None:
        """`plan` is what to serve by; `served` is None where nothing runs beside it."""
        self.plan = plan
        self._served = served
        self._call: Call | None = None

    def of(self, call: Call) -> None:
        """Say which call gave the answer; what became of it decides."""
        self._call = call

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._served is None or self._served.done():
            return
        finished = None if self._call is None else self._call.finished
        has_outcome = kind is None or issubclass(kind, Exception)
        self._served.set_result(has_outcome and (finished is None or finished.status != "cancelled"))


def _copies(plan: CallPlan, count: int) -> list[CallPlan]:
    """Return the plan and so many copies of it: a conversation that can be read once is read by each."""
    if not isinstance(plan.messages, Iterator):
        return [plan] * (count + 1)
    return [plan._replace(messages=messages) for messages in tee(plan.messages, count + 1)]


def _request(plan: CallPlan, shadow: Choice) -> Send | Exception:
    """Return the shadow's request, or why there is none: that is an outcome of its version."""
    try:
        return plan.shadow_request(shadow)
    except Exception as error:  # noqa: BLE001 - anything: what a shadow cannot make is no failure of the served call
        return error
