"""Recording events and outcomes: awaited, in passing, or many at once."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import islice
from typing import Any

from promptab.assigning import session_unit
from promptab.checks import check_mapping, check_number, check_unit
from promptab.errors import ConflictError, InvalidInputError
from promptab.managed import Managed
from promptab.measures import TokensInput, check_shadow, outcome_fields, use_fields
from promptab.models import MetricEvent
from promptab.placing import (
    Place,
    check_variant,
    find_place,
    is_news,
    look_up_first_meetings,
    placed,
    placed_nowait,
)
from promptab.queueing import QueueStats
from promptab.shadow_place import ShadowPlace
from promptab.stores.base import Store

EVENTS_AT_ONCE = 2_000
"""Of `record_many`, in one transaction: preparing them holds up the event loop for some milliseconds."""

_ARGUMENTS = frozenset(inspect.signature(use_fields).parameters) - {"now"} | {"experiment_id", "variant"}


class Recording(Managed):
    """Takes events at the door; all that waits for the store is in the store's queue."""

    async def record_event(
        self,
        version_id: str | None,
        success: bool | None = None,  # noqa: FBT001 - the second thing everyone says of a call
        response_time: float | None = None,
        tokens: TokensInput = None,
        user_rating: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        cost: float | None = None,
        metrics: Mapping[str, float] | None = None,
        experiment_id: str | None = None,
        variant: str | None = None,
        user_id: str | int | None = None,
        event_id: str | None = None,
        timestamp: datetime | None = None,
        shadow: ShadowPlace | None = None,
    ) -> MetricEvent:
        """Store one use of a version and return it after the commit. What is left out is unknown, not zero.

        `response_time` is in seconds, `cost` in US dollars, `user_rating` from 1 to 5; `tokens` is a total,
        or the parts `input` (not from a cache), `cached_input` and `output`. `experiment_id` is an id or the
        name of a running experiment. The same `event_id` twice is one event; with other content it raises
        `ConflictError`. `version_id` is None for a variant that serves a configuration alone. `shadow` says whose a run
        in the shadow is, in the place of version, experiment and unit: the choices in `Choice.shadows` know it.

        Raises `InvalidInputError` and stores nothing. While the store is away the event waits in the queue; when
        the patience of the queue's settings ends first, it raises `StoreUnavailableError` and the event goes on
        waiting.
        """
        now = self._clock()
        fields = use_fields(
            version_id,
            success,
            response_time,
            tokens,
            user_rating,
            metadata,
            now=now,
            cost=cost,
            metrics=metrics,
            user_id=user_id,
            event_id=event_id,
            timestamp=timestamp,
            shadow=shadow,
        )
        store = self._given if self._given is not None else await self._store()
        if experiment_id is not None or variant is not None:
            unit = fields["user_id"]
            fields["experiment_id"] = await placed(store, experiment_id, variant, unit=unit, now=now)
            fields["variant"] = variant
        return await store.record(MetricEvent.of_checked(fields))

    def record_nowait(
        self,
        version_id: str | None,
        success: bool | None = None,  # noqa: FBT001 - as in record_event
        response_time: float | None = None,
        tokens: TokensInput = None,
        user_rating: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        cost: float | None = None,
        metrics: Mapping[str, float] | None = None,
        experiment_id: str | None = None,
        variant: str | None = None,
        user_id: str | int | None = None,
        event_id: str | None = None,
        timestamp: datetime | None = None,
        shadow: ShadowPlace | None = None,
    ) -> bool:
        """Queue one use of a version and return at once, to be called in the thread of the event loop.

        The window: what is queued is lost where the process is killed. In a store that can be reached that is
        what came in the last `QueueSettings.delay_seconds` (5 ms by default) and during one commit; while it is
        away, all that has come since. Closing the lab, and on SQLite also the end of a program that forgot to,
        write it. What the store refuses is logged, and counted in `stats`.

        Returns False where the queue was full and the event was dropped, as `QueueSettings.when_full` may have
        it; otherwise a full queue raises `StoreUnavailableError`. Raises `InvalidInputError` as `record_event`
        does, and `NeedsStoreError` where the experiment is not in the snapshot at hand, or the unit has to be
        looked up first: await `record_event` then. A canonical id of an experiment that is not live is taken as it
        is.
        """
        now = self._clock()
        fields = use_fields(
            version_id,
            success,
            response_time,
            tokens,
            user_rating,
            metadata,
            now=now,
            cost=cost,
            metrics=metrics,
            user_id=user_id,
            event_id=event_id,
            timestamp=timestamp,
            shadow=shadow,
        )
        store = self._store_at_hand()
        if experiment_id is not None or variant is not None:
            unit = fields["user_id"]
            fields["experiment_id"] = placed_nowait(store, experiment_id, variant, unit=unit, now=now)
            fields["variant"] = variant
        return store.record_nowait(MetricEvent.of_checked(fields))

    async def record_many(self, events: Iterable[MetricEvent | Mapping[str, Any]]) -> int:
        """Store many events, each a `MetricEvent` or the arguments of `record_event`; return how many they were.

        For imports: they take no room in the queue, but go after what waits there in transactions of 2,000, in their
        order. What raises
        ends it: `InvalidInputError`, or `NotFoundError` for an experiment, before the transaction of the event in
        question, `ConflictError` after it. What was stored stays, and is stored once however often it is told:
        give the events ids, and an import that broke off can be run again from its beginning.
        """
        store = await self._store()
        imported = _Import(store, self._clock())
        if not isinstance(events, Iterable):
            raise InvalidInputError("events", events, "an iterable of events", "write a list")
        remaining = iter(events)
        total = 0
        while chunk := [await imported.event(given) for given in islice(remaining, EVENTS_AT_ONCE)]:
            outcome = await store.record_many(chunk)
            if outcome.conflicts:
                first = chunk[min(outcome.conflicts)]
                raise ConflictError(
                    f"{len(outcome.conflicts)} of the events {total + 1} to {total + len(chunk)} exist already with "
                    f"other content, the first of them {first.event_id}; all before and beside them are stored"
                )
            total += len(chunk)
        return total

    async def record_result(
        self,
        experiment_name: str,
        metric_name: str,
        metric_value: float,
        user_id: str | int | None = None,
        session_id: str | None = None,
        *,
        event_id: str | None = None,
        timestamp: datetime | None = None,
    ) -> MetricEvent:
        """Store an outcome that came later, for a user or an anonymous session of an experiment.

        `success` (1 or 0), `response_time`, `tokens`, `cost` and `rating` are the built-in metrics; any other
        name is a metric of its own. It counts for the variant that the unit was exposed to; of a unit that never was it
        is kept, and compared nowhere.

        Raises `NotFoundError` for an unknown experiment, `InvalidInputError` where no unit is given.
        """
        if user_id is None and session_id is None:
            raise InvalidInputError(
                "user_id", None, "given", "say whose result it is by user_id or session_id"
            )
        unit = check_unit("user_id", user_id) if user_id is not None else session_unit(session_id)
        now = self._clock()
        fields = use_fields(None, now=now, event_id=event_id, timestamp=timestamp)
        fields |= {"kind": "outcome", "user_id": unit, **outcome_fields(metric_name, metric_value)}
        store = await self._store()
        fields["experiment_id"] = await placed(store, experiment_name, None, unit=unit, now=now)
        return await store.record(MetricEvent.of_checked(fields))

    async def flush(self, timeout: float | None = None) -> None:
        """Return when all that has been queued so far is written or refused.

        Raises `StoreUnavailableError` after `timeout` seconds, by default the patience of the queue's settings;
        what was not written stays queued.
        """
        limit = None if timeout is None else check_number("timeout", timeout, low=0.0)
        await (await self._store()).flush(limit)

    def stats(self) -> QueueStats:
        """Return what waits in the queue of this process, and what has come of the rest; without I/O.

        Raises `NeedsStoreError` where no store is open yet.
        """
        return self._store_at_hand().queue_stats()


class _Import:
    """Checks events one after the other; the experiments that they name are each looked up once."""

    def __init__(self, store: Store, now: datetime) -> None:
        self._store = store
        self._now = now
        self._places: dict[str, Place] = {}

    async def event(self, given: MetricEvent | Mapping[str, Any]) -> MetricEvent:
        """Return the event as it is to be stored."""
        if isinstance(given, MetricEvent):
            fields = _checked_again(given)
            experiment, variant = given.experiment_id, given.variant
        else:
            told = _arguments(given)
            experiment, variant = told.pop("experiment_id", None), told.pop("variant", None)
            fields = use_fields(told.pop("version_id", None), now=self._now, **told)
        if fields["kind"] == "shadow" and not (
            experiment is variant is fields["version_id"] is fields["user_id"] is None
        ):
            raise InvalidInputError(
                "shadow",
                given,
                "without version, experiment, variant and unit",
                "its metadata say whose it is",
            )
        if experiment is not None or variant is not None:
            place = await self._place(experiment, variant)
            fields["experiment_id"], fields["variant"] = place.experiment.experiment_id, variant
            if variant is not None and is_news(place, variant, fields["user_id"], self._now):
                await look_up_first_meetings(self._store, place)
                self._places.clear()
        if isinstance(given, MetricEvent) and fields == vars(given):
            # nothing was spelled another way: the caller's own record lives already, and is not another one for the
            # garbage collector to look through
            return given
        return MetricEvent.of_checked(fields)

    async def _place(self, experiment: object, variant: object) -> Place:
        known = self._places.get(experiment) if isinstance(experiment, str) else None
        place = known or await find_place(self._store, experiment, variant, self._now)
        check_variant(variant, place.experiment)
        if isinstance(experiment, str):
            self._places[experiment] = place
        return place


def _checked_again(event: MetricEvent) -> dict[str, Any]:
    """Return the fields of an event that somebody made, after the checks that its class does not know."""
    fields = use_fields(
        event.version_id,
        event.success,
        event.response_time,
        event.tokens,
        event.user_rating,
        event.metadata,
        now=event.recorded_at,
        cost=event.cost,
        metrics=event.metrics,
        user_id=event.user_id,
        event_id=event.event_id,
        timestamp=event.timestamp,
    )
    fields["kind"] = event.kind
    if event.kind == "shadow":
        check_shadow(fields["metadata"])
    return fields


def _arguments(given: object) -> dict[str, Any]:
    told = dict(check_mapping("events", given))
    if unknown := told.keys() - _ARGUMENTS:
        name = min(map(str, unknown))
        raise InvalidInputError("events", name, f"one of the arguments {', '.join(sorted(_ARGUMENTS))}")
    return told
