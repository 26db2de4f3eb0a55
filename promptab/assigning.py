"""Which variant a unit gets, and keeping it: the serving half of `ABTestManager`."""

from __future__ import annotations

import random
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from promptab.allocation import feature_unit
from promptab.checks import (
    MAX_SESSION_CHARS,
    SESSION_PREFIX,
    check_json_object,
    check_label,
    check_unit,
)
from promptab.errors import InvalidInputError, NotFoundError, StateError
from promptab.exposing import expose, look_up
from promptab.live_experiment import LiveExperiment, not_serving
from promptab.managed import Clock, Managed, utc_now
from promptab.models import Assignment, ExperimentStatus, Exposure, PromptExperiment
from promptab.snapshot import Lookup, Snapshot
from promptab.stores.base import Store, Transaction

KNOWN_UNITS = 100_000
"""Users whose variant is remembered beside a snapshot, over all its experiments."""


class _Known:
    """The version or key that users get in one snapshot, where nothing but the next snapshot can change it."""

    __slots__ = ("_count", "by_experiment", "snapshot")

    def __init__(self, snapshot: Snapshot | None) -> None:
        self.snapshot = snapshot
        self.by_experiment: dict[str, dict[str, str]] = {}
        """By id or name, as callers say it; then by user."""
        self._count = 0

    def put(self, experiment: str, user_id: str, served: str) -> None:
        if self._count >= KNOWN_UNITS:
            # all at once: to work an answer out again takes little
            self._count, self.by_experiment = 0, {}
        self._count += 1
        self.by_experiment.setdefault(experiment, {})[user_id] = served


class Assigning(Managed):
    """Assignment by a snapshot in memory; the store is asked only about units whose range has changed hands."""

    def __init__(self, store: Store | None = None, *, clock: Clock = utc_now) -> None:
        super().__init__(store, clock=clock)
        self._known = _Known(None)

    async def get_variant_for_user(
        self, experiment: str, user_id: str | int, attributes: Mapping[str, Any] | None = None
    ) -> str | None:
        """Return the version string that the user gets (the variant's key where it serves a configuration
        alone).

        None where the user is not in the experiment, or it is not running; `assign` says why. `experiment` is
        an id, or the name of the one running experiment.
        """
        store = self._given
        if store is not None and type(user_id) is str and type(experiment) is str and not attributes:
            # the path of nearly every call, and so without a step that it can do without
            snapshot, known = store.fresh_snapshot(), self._known
            if snapshot is known.snapshot and (units := known.by_experiment.get(experiment)) is not None:
                served = units.get(user_id)
                if served is not None:
                    return served
            if snapshot is not None and (live := snapshot.plain.get(experiment)) is not None:
                return self._plain_variant(store, snapshot, live, experiment, user_id)
        return await self._variant_for_user(experiment, user_id, attributes)

    async def assign(
        self,
        experiment: str,
        user_id: str | int | None = None,
        *,
        session_id: str | None = None,
        features: Mapping[str, Any] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> Assignment:
        """Return the variant of a unit with its configuration and the reason; the exposure is written soon
        after.

        Which argument is the unit depends on the experiment: the user, or the session where there is no user;
        the session; the request (each call a new one); or the features. `attributes` are what targeting looks
        at.

        Raises `NotFoundError`, and `StateError` where several experiments have that name.
        """
        store = await self._store()
        snapshot, now = await store.snapshot(), self._clock()
        live = snapshot.experiment(experiment, now)
        checked = check_json_object("attributes", attributes) if attributes else {}
        if live is None:
            ended = await find_experiment(store, experiment, now=now)
            return _not_live(ended, unit_of(ended, user_id, session_id, features))
        unit = snapshot.known_unit(unit_of(live.experiment, user_id, session_id, features))
        dealt = snapshot.assign(live, unit, checked, now)
        if isinstance(dealt, Lookup):
            dealt = await look_up(store, dealt, checked, now)
        else:
            expose(store, dealt, checked, now)
        return dealt.assignment()

    def _plain_variant(
        self, store: Store, snapshot: Snapshot, live: LiveExperiment, called: str, user_id: str
    ) -> str:
        """Deal to a user that is new to this snapshot, in an experiment that asks no more than who it is."""
        unit = check_unit("user_id", user_id)
        unit = snapshot.aliases.get(unit, unit)
        variant, dealing = live.plain_variant(unit), live.dealings[0]
        store.enqueue(
            Exposure(
                live.experiment.experiment_id,
                unit,
                variant.key,
                dealing.number,
                self._clock(),
                propensity=dealing.weights[variant.key],
            )
        )
        served = variant.version or variant.key
        self._remember(snapshot, called, user_id, served)
        return served

    def _remember(self, snapshot: Snapshot, experiment: str, user_id: str, served: str) -> None:
        if self._known.snapshot is not snapshot:
            self._known = _Known(snapshot)
        self._known.put(experiment, user_id, served)

    async def _variant_for_user(
        self, experiment: str, user_id: str | int, attributes: Mapping[str, Any] | None
    ) -> str | None:
        store = self._given or await self._store()
        snapshot = store.fresh_snapshot() or await store.snapshot()
        now = self._clock()
        live = snapshot.experiment(experiment, now)
        if live is None:
            # the same checks and answers as everybody's
            assignment = await self.assign(experiment, user_id, attributes=attributes)
            return assignment.version or assignment.variant
        checked = check_json_object("attributes", attributes) if attributes else {}
        unit = snapshot.known_unit(unit_of(live.experiment, user_id, None, None))
        dealt = snapshot.assign(live, unit, checked, now)
        if isinstance(dealt, Lookup):
            dealt = await look_up(store, dealt, checked, now)
        else:
            expose(store, dealt, checked, now)
        if dealt.variant is None:
            return None
        served = dealt.variant.version or dealt.variant.key
        if type(user_id) is str and dealt.sure and not attributes and snapshot.settled(live, now):
            self._remember(snapshot, experiment, user_id, served)
        return served

    async def get_random_variant(self, experiment: str, rng: random.Random | None = None) -> str:
        """Return a version string (or key) drawn by the current weights, remembered for nobody.

        Raises `NotFoundError`, and `StateError` where the experiment is not running.
        """
        snapshot = await (await self._store()).snapshot()
        live = snapshot.experiment(experiment, self._clock())
        if live is None:
            ended = await find_experiment(await self._store(), experiment, now=self._clock())
            raise StateError(f"experiment {ended.name!r} is {ended.status}: nothing is drawn from it")
        if (idle := not_serving(live.experiment, self._clock())) is not None:
            raise StateError(f"nothing is drawn from {live.experiment.name!r}: {idle}")
        keys = list(live.experiment.traffic_split)
        source = rng or random.SystemRandom()
        key = source.choices(keys, [live.experiment.traffic_split[key] for key in keys])[0]
        variant = live.experiment.variant(key)
        return (variant.version if variant is not None else None) or key

    async def get_user_assignment(self, experiment: str, user_id: str | int) -> str | None:
        """Return the key of the variant that the user was first exposed to; None before the first exposure."""
        unit = check_unit("user_id", user_id)
        store, found = await self._flushed(experiment)
        if found is None:
            return None
        experiment_id = found.experiment_id

        async def work(tx: Transaction) -> str | None:
            exposure = await tx.exposures.get(experiment_id, unit)
            return None if exposure is None else exposure.variant

        return await store.read(work)

    async def get_experiment_assignments(self, experiment: str) -> dict[str, str]:
        """Return unit -> variant key for every exposed unit, in the order of first exposure; empty if
        unknown.
        """
        store, found = await self._flushed(experiment)
        if found is None:
            return {}
        experiment_id = found.experiment_id

        async def work(tx: Transaction) -> dict[str, str]:
            return {exposure.unit: exposure.variant for exposure in await tx.exposures.listing(experiment_id)}

        return await store.read(work)

    async def get_variant_distribution(self, experiment: str) -> dict[str, int]:
        """Return how many units have been exposed to each variant, zeros included; empty if unknown."""
        store, found = await self._flushed(experiment)
        if found is None:
            return {}
        known = found

        async def work(tx: Transaction) -> dict[str, int]:
            counts = await tx.exposures.counts(known.experiment_id)
            return {variant.key: counts.get(variant.key, 0) for variant in known.variants}

        return await store.read(work)

    async def alias(self, session_id: str, user_id: str | int) -> None:
        """Say that an anonymous session is this user: the variants of the session's first exposures are kept.

        The two are one unit from now on, with the events of both, in every experiment that runs now or was
        running when it was said; one that begins later deals a session by itself. A user who was exposed
        before keeps the user's own variant; telling it again changes nothing. Raises `StateError` where the
        session is somebody else.
        """
        session, unit = session_unit(session_id), check_unit("user_id", user_id)
        store = await self._store()
        await store.flush()
        now = self._clock()

        async def work(tx: Transaction) -> None:
            owner = await tx.experiments.unit_of_alias(session)
            if owner is not None and owner != unit:
                raise StateError(f"session {session_id!r} is user {owner!r} already; a session is one user's")
            if owner is not None:
                return
            await tx.rollup.withdraw([session, unit])
            await tx.experiments.add_alias(session, unit, now)
            live = [experiment.experiment_id for experiment in await tx.experiments.live()]
            for exposure in await tx.exposures.of_unit(session, live):
                by_hand = exposure.source == "override"
                await tx.exposures.keep(
                    exposure._replace(unit=unit, source="override" if by_hand else "alias")
                )

        await store.write(work)

    async def _flushed(self, experiment: str) -> tuple[Store, PromptExperiment | None]:
        store = await self._store()
        await store.flush()
        try:
            return store, await find_experiment(store, experiment, now=self._clock())
        except NotFoundError:
            return store, None


async def find_experiment(
    store: Store, name_or_id: str, *, now: datetime, prefer: ExperimentStatus | None = None
) -> PromptExperiment:
    """Return the experiment with this id, or with this name: the one of status `prefer`, the live one, the
    newest.

    Raises `NotFoundError`, and `StateError` where several live experiments, or several of the status that is
    preferred, have the name.
    """
    if not _may_name_an_experiment(name_or_id):
        raise NotFoundError("experiment", repr(name_or_id), "list them with `promptab experiment list`")
    live = (await store.snapshot()).experiment(name_or_id, now) if prefer is None else None

    async def work(tx: Transaction) -> PromptExperiment:
        wanted = name_or_id if live is None else live.experiment.experiment_id
        found = await tx.experiments.by_id(wanted)
        return found or _of_that_name(await tx.experiments.listing(name=name_or_id), name_or_id, prefer)

    found = await store.read(work)
    if prefer is not None and found.status != prefer and found.experiment_id != name_or_id:
        return await find_experiment(store, name_or_id, now=now)
    return found


def _may_name_an_experiment(name_or_id: object) -> bool:
    try:
        check_label("experiment", name_or_id)
    except InvalidInputError:
        return False
    return True


def _of_that_name(
    named: Sequence[PromptExperiment], name: str, prefer: ExperimentStatus | None
) -> PromptExperiment:
    """Return the one of the preferred status, else the newest; `named` is newest first."""
    if not named:
        raise NotFoundError("experiment", name, "list them with `promptab experiment list`")
    preferred = [experiment for experiment in named if experiment.status == prefer]
    if len(preferred) > 1:
        ids = ", ".join(experiment.experiment_id for experiment in preferred)
        raise StateError(
            f"{len(preferred)} experiments called {name!r} are {prefer}; name one by its id: {ids}"
        )
    return preferred[0] if preferred else named[0]


def session_unit(session_id: object) -> str:
    """Return the unit of an anonymous session: apart from a user of the same id."""
    return SESSION_PREFIX + check_unit("session_id", session_id, limit=MAX_SESSION_CHARS)


def unit_of(
    experiment: PromptExperiment,
    user_id: str | int | None,
    session_id: str | None,
    features: Mapping[str, Any] | None,
) -> str | None:
    if experiment.unit == "request":
        return f"request:{uuid.uuid4()}"
    if experiment.unit == "features":
        return None if features is None else feature_unit(features)
    if experiment.unit == "user" and user_id is not None:
        return check_unit("user_id", user_id)
    return None if session_id is None else session_unit(session_id)


def _not_live(experiment: PromptExperiment, unit: str | None) -> Assignment:
    return Assignment(
        experiment_id=experiment.experiment_id,
        unit=unit,
        variant=None,
        version=None,
        config=None,
        reason="not_running",
        detail=f"the experiment is {experiment.status}",
    )
