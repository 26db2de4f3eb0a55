"""From a name to an answer: choose, render, call, record. What `Lab` does with a client of a provider."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack, get_args

from promptab.analysis.shadow_totals import ShadowTotals
from promptab.analysis.shadows import ShadowReport, shadow_report, share_changes
from promptab.assigning import find_experiment
from promptab.calls.apis import Client, client_of
from promptab.calls.asking import Turn
from promptab.calls.call import Call
from promptab.calls.failures import RETRYABLE, failure_of
from promptab.calls.finished import METADATA_KEY, FinishedCall, check_metadata
from promptab.calls.log import CallLog
from promptab.calls.stream import ObservedStream
from promptab.calls.usage import Usage
from promptab.checks import check_event_time, check_flag, check_items, check_time, check_uuid
from promptab.choice import Choice
from promptab.errors import InvalidInputError, NotFoundError
from promptab.event_ids import new_event_id
from promptab.fallback import Fallback
from promptab.measures import check_measure, check_metrics, shadow_metadata
from promptab.metrics import MetricsCollector
from promptab.models import Message, MetricEvent
from promptab.sending import CallPlan, Send, whole_answer
from promptab.shadowing import Shadows
from promptab.stores.base import CostKey, Store, Transaction

if TYPE_CHECKING:
    from promptab.stores.queries.costs import CostRow

T = TypeVar("T")

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Choosing(TypedDict, total=False):
    """What `Lab.choose` takes beside name and type."""

    user_id: str | int | None
    session_id: str | None
    features: Mapping[str, Any] | None
    attributes: Mapping[str, Any] | None
    version: str | None
    environment: str | None
    fallback: Fallback | None


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer, and what it took."""

    text: str
    """Of the first choice; "" for an answer that is a tool call."""
    response: Any
    """What the client returned, untouched."""
    choice: Choice
    call: FinishedCall
    tried: tuple[FinishedCall, ...]
    """The calls of models that failed before this one answered, in their order."""

    @property
    def call_id(self) -> str:
        """What `Lab.feedback` takes."""
        return self.call.call_id

    @property
    def usage(self) -> Usage:
        return self.call.answer.usage

    @property
    def cost(self) -> float | None:
        """US dollars, or None where it is not known."""
        return self.call.cost


class Completing:
    """The part of a lab that calls models."""

    store: Store
    metrics: MetricsCollector
    shadows: Shadows
    """What runs in the shadow of `complete` and `stream`."""

    @property
    def calls(self) -> CallLog:
        """Counts of this process's calls, their observers and prices."""
        return self.metrics.calls

    @abstractmethod
    async def choose(self, name: str, prompt_type: str = "system", **how: Unpack[Choosing]) -> Choice: ...

    async def complete(
        self,
        name: str,
        prompt_type: str = "system",
        *,
        client: object,
        variables: Mapping[str, Any] = _NOTHING,
        messages: Iterable[Turn | Message] = (),
        api: str | None = None,
        model: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] = _NOTHING,
        options: Mapping[str, Any] = _NOTHING,
        metadata: Mapping[str, Any] | None = None,
        **how: Unpack[Choosing],
    ) -> Completion:
        """Choose a version as `choose` does, render it, ask the model of its configuration, and record one event.

        `client` is `AsyncOpenAI` or `AsyncAnthropic`, or several of them where `config` names a `provider`.
        `messages` is the conversation that follows the prompt. `api` is `chat` or `responses` for OpenAI. `model`
        and `parameters` go over the configuration, and so do other keys of it in `config`, such as `tools`;
        `options` are the client's own for one request, such as `timeout`. Models of `config.fallbacks` are asked in
        their order where a failure is not the request's: each has an event of its own, and none of them counts for
        the version. Shadows of the experiment are asked afterwards, in the background.

        What the client raises comes out unchanged, and the event says what kind it was. Raises what `choose` and
        rendering raise, and `InvalidInputError` for a configuration that the protocol has no place for.
        """
        clients = _clients(client, api)
        await self.calls.prices.ready()
        choice = await self.choose(name, prompt_type, **how)
        plan = CallPlan(choice, clients, variables, messages, model, parameters, config, options)
        call = choice.call(metadata=metadata)
        with self.shadows.beside(plan, metadata, call.call_id) as beside:
            call, tried, response = await _first_answer(call, beside.plan, whole_answer)
        finished = call.finish()
        return Completion(finished.answer.text, response, choice, finished, tried)

    @asynccontextmanager
    async def stream(
        self,
        name: str,
        prompt_type: str = "system",
        *,
        client: object,
        variables: Mapping[str, Any] = _NOTHING,
        messages: Iterable[Turn | Message] = (),
        api: str | None = None,
        model: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] = _NOTHING,
        options: Mapping[str, Any] = _NOTHING,
        metadata: Mapping[str, Any] | None = None,
        **how: Unpack[Choosing],
    ) -> AsyncIterator[ObservedStream[Any]]:
        """As `complete`, piece by piece: `async with lab.stream(...) as stream`, and in it `async for chunk in stream`
        for the client's own chunks or `async for text in stream.text`.

        One event is recorded when the stream ends, breaks off, or nobody reads on. Another model is asked only
        before the first chunk.
        """
        clients = _clients(client, api)
        await self.calls.prices.ready()
        choice = await self.choose(name, prompt_type, **how)
        plan = CallPlan(choice, clients, variables, messages, model, parameters, config, options)
        call = choice.call(metadata=metadata)
        with self.shadows.beside(plan, metadata, call.call_id) as beside:
            call, _, stream = await _first_answer(call, beside.plan, _opened_stream)
            beside.of(call)
            async with stream:
                yield stream

    async def feedback(
        self,
        call_id: str,
        *,
        rating: float | None = None,
        metrics: Mapping[str, float] | None = None,
        metadata: Mapping[str, Any] | None = None,
        event_id: str | None = None,
        timestamp: datetime | None = None,
    ) -> MetricEvent:
        """Store what is said of a call later: a rating from 1 to 5, named metrics, or both. Returns after the commit.

        It counts for the version, variant and unit of the call, in whichever process that was made; of one in the
        shadow, for the shadow alone. Raises
        `NotFoundError` for a call that is not in the store, and as `MetricsCollector.record_event` does.
        """
        named = {} if metrics is None else check_metrics(metrics)
        if rating is None and not named:
            raise InvalidInputError("rating", None, "given", "say a rating, metrics, or both")
        now = self.calls.clock()
        call = await self._recorded(check_uuid("call_id", call_id))
        said = {**check_metadata(metadata), METADATA_KEY: {"feedback_on": call.event_id}}
        if call.shadow is not None:
            said = shadow_metadata(call.shadow._replace(feedback_on=call.event_id), said)
        feedback = MetricEvent(
            event_id=new_event_id(now) if event_id is None else check_uuid("event_id", event_id),
            kind="outcome" if call.shadow is None else "shadow",
            version_id=call.version_id,
            user_rating=None if rating is None else check_measure("rating", rating, 1.0, 5.0),
            metrics=named,
            metadata=said,
            experiment_id=call.experiment_id,
            variant=call.variant,
            user_id=call.user_id,
            timestamp=now if timestamp is None else check_event_time("timestamp", timestamp),
            recorded_at=now,
        )
        # what is said again under the same id is one event, and told once
        told = event_id is not None and await self._event(feedback.event_id) is not None
        stored = await self.store.record(feedback)
        if not told:
            self.calls.add_feedback(stored, call)
        return stored

    async def costs(
        self, by: CostKey = "version", *, since: datetime | None = None, in_shadow: bool = False
    ) -> list[CostRow]:
        """Return what the recorded calls since then cost, by `version`, `prompt`, `model` or `variant`, the costliest
        first: what was served, or with `in_shadow` what was run in the shadow. Of events that are still stored: what
        was pruned is not counted.
        """
        if by not in get_args(CostKey):
            raise InvalidInputError("by", by, f"one of {', '.join(get_args(CostKey))}")
        start = None if since is None else check_time("since", since)
        await self.calls.flush()

        async def work(tx: Transaction) -> list[CostRow]:
            return await tx.costs.by(by, since=start, in_shadow=check_flag("in_shadow", in_shadow))

        return await self.store.read(work)

    async def shadow_report(self, experiment: str) -> ShadowReport:
        """Say what an experiment's shadows did, each beside what the same units were served: means over events, and
        the differences within units with intervals that hold at every look. Of events that are still stored: until the
        experiment has ended, a pruning keeps them.

        Raises `NotFoundError`, and `StateError` where several experiments have that name.
        """
        found = await find_experiment(self.store, experiment, now=self.calls.clock())
        await self.calls.flush()
        moments = share_changes(found)

        async def work(tx: Transaction) -> ShadowTotals:
            return await tx.shadows.totals(found, moments)

        totals = await self.store.read(work)
        # off the loop: a store may have a hundred thousand units
        return await asyncio.to_thread(shadow_report, found, totals, at=self.calls.clock())

    async def _recorded(self, call_id: str) -> MetricEvent:
        """Return the event of a call, waiting for one of this process that is on its way."""
        await self.calls.settle()
        await self.store.flush()
        found = await self._event(call_id)
        if found is None or found.kind == "outcome" or (found.shadow and found.shadow.feedback_on):
            raise NotFoundError(
                "call", call_id, "take call_id from what complete, stream or choice.call() gave"
            )
        return found

    async def _event(self, event_id: str) -> MetricEvent | None:
        async def work(tx: Transaction) -> MetricEvent | None:
            return await tx.events.by_id(event_id)

        return await self.store.read(work)


async def _first_answer(
    call: Call, plan: CallPlan, answer: Callable[[Call, Send], Awaitable[T]]
) -> tuple[Call, tuple[FinishedCall, ...], T]:
    """Ask one model after the other until one answers; return its call, the failed ones before it, and the answer."""
    sends: list[Send] = []
    tried: list[FinishedCall] = []
    while True:
        try:
            await call.begin()
            # within the call: a prompt that does not render is an outcome of its version
            sends = sends or plan.requests()
            answered = await answer(call, sends[len(tried)])
            if call.reported not in RETRYABLE or len(tried) + 1 == len(sends):
                return call, tuple(tried), answered
            tried.append(call.finish())
        except BaseException as error:
            call.fail(error)
            tried.append(call.finish())
            if len(tried) >= len(sends) or failure_of(error).kind not in RETRYABLE:
                raise
        call = call.fallback()


async def _opened_stream(call: Call, send: Send) -> ObservedStream[Any]:
    create = send.client.resource.create
    with call.sending(send.request._replace(streamed=True)):
        stream = await create(**send.arguments, **send.client.api.streaming)
    return call.observe_stream(stream)


def _clients(given: object, api: str | None) -> list[Client]:
    several = check_items("client", given) if isinstance(given, (list, tuple)) else (given,)
    if not several:
        raise InvalidInputError("client", given, "one client or more")
    return [client_of(client, api if index == 0 else None) for index, client in enumerate(several)]
