"""What a request is served: by a version asked for, an environment, an experiment, or the latest version."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from promptab.assigning import unit_of
from promptab.checks import check_json_object
from promptab.choice import Choice, Served, Source
from promptab.content import check_prompt, compile_version
from promptab.deploying import check_environment
from promptab.errors import (
    InvalidInputError,
    NeedsStoreError,
    NotFoundError,
    PromptabError,
    StoreError,
)
from promptab.exposing import expose, look_up
from promptab.live_experiment import LiveExperiment
from promptab.managed import Clock
from promptab.metrics import MetricsCollector
from promptab.models import ENVIRONMENTS, Environment, PromptType, PromptVersion
from promptab.recent import Recent
from promptab.resolving import find_version
from promptab.running_beside import run_beside
from promptab.semver import check_reference, is_exact
from promptab.snapshot import Dealt, Lookup, Snapshot
from promptab.stores.base import Store, Transaction

if TYPE_CHECKING:
    from promptab.templates import CompiledPrompt

COMPILED_VERSIONS = 4_096
"""Compiled templates kept in memory, those that were used last."""

KNOWN_UNITS = 100_000
"""Users whose choice is remembered beside a snapshot, over all its prompts."""

ASKED_VERSIONS = 4_096
"""Versions asked for by number, range or tag that are remembered beside a snapshot."""

_Ask = Callable[[], Awaitable[Any]]
_Found = tuple[Served, str | None]
"""What is served, and the unit that it is served to where an experiment decided."""

_Steps = Generator[_Ask, Any, _Found]
"""A choice in the making: yields what has to be asked of the store, is sent the answer, and returns what it found."""


class Request(NamedTuple):
    """What `choose` is asked."""

    user_id: str | int | None = None
    session_id: str | None = None
    features: Mapping[str, Any] | None = None
    attributes: Mapping[str, Any] | None = None
    version: str | None = None
    environment: str | None = None


class _Offer:
    """What one prompt may serve in one snapshot."""

    __slots__ = ("by_default", "experiments", "known", "served")

    def __init__(self) -> None:
        self.experiments: list[tuple[LiveExperiment, str | None]] = []
        """Those on the prompt; and beside each a version that it lacks, if there is one."""
        self.by_default: Served | None = None
        """What is served where there are none."""
        self.served: dict[tuple[str, str | None, str], Served] = {}
        """By experiment, variant and reason."""
        self.known: dict[str | int, _Found] = {}
        """What users get, where nothing but the next snapshot can change it."""


class _Offers:
    """Everything that is remembered beside one snapshot."""

    __slots__ = ("_count", "asked", "by_prompt", "snapshot")

    def __init__(self, snapshot: Snapshot | None) -> None:
        self.snapshot = snapshot
        self.by_prompt: dict[tuple[str, str], _Offer] = {}
        self.asked: Recent[tuple[str, str, str], Served] = Recent(ASKED_VERSIONS)
        self._count = 0

    def remember(self, offer: _Offer, user_id: str | int, found: _Found) -> None:
        if self._count >= KNOWN_UNITS:
            # all at once: to work a choice out again takes little
            self._count = 0
            for other in self.by_prompt.values():
                other.known = {}
        self._count += 1
        offer.known[user_id] = found


class Chooser:
    """Chooses from a store's snapshot."""

    def __init__(self, store: Store, collector: MetricsCollector, clock: Clock) -> None:
        self._store = store
        self._collector = collector
        self._clock = clock
        self._offers = _Offers(None)
        self._compiled: Recent[str, CompiledPrompt] = Recent(COMPILED_VERSIONS)
        store.prepare_snapshots(self.prepare)

    def known(
        self, snapshot: Snapshot | None, name: str, prompt_type: str, user_id: str | int | None
    ) -> Choice | None:
        """Return what was found before in this snapshot for a request that names no more than this; or None.

        The path of nearly every call, and so without a step that it can do without.
        """
        offers = self._offers
        try:
            offer = offers.by_prompt.get((prompt_type, name))
        except TypeError:  # what cannot be hashed is no name, and is refused with its name
            return None
        if offer is None or snapshot is not offers.snapshot:
            return None
        if offer.by_default is not None:
            return Choice(offer.by_default, None, self._store.snapshot_age(), self._collector)
        if type(user_id) is not str and type(user_id) is not int:
            return None
        found = offer.known.get(user_id)
        if found is None:
            return None
        served, unit = found
        return Choice(served, unit, self._store.snapshot_age(), self._collector)

    async def choose(self, name: str, prompt_type: str, request: Request) -> Choice:
        steps = self._steps(await self._store.snapshot(), name, prompt_type, request)
        answer = None
        while True:
            try:
                ask = steps.send(answer)
            except StopIteration as end:
                return self._choice(end.value)
            answer = await ask()

    def choose_nowait(self, name: str, prompt_type: str, request: Request) -> Choice:
        snapshot = self._store.latest_snapshot()
        if snapshot is None:
            raise NeedsStoreError(
                "there is no snapshot to choose from yet; `await lab.choose(...)` once, or keep a snapshot file"
            )
        try:
            next(self._steps(snapshot, name, prompt_type, request))
        except StopIteration as end:
            return self._choice(end.value)
        raise NeedsStoreError(
            f"what {prompt_type}/{name} serves to this request is known to the store alone; "
            "`await lab.choose(...)` asks it"
        )

    async def prepare(self, snapshot: Snapshot) -> None:
        """Compile what the prompts in use will serve, before the first request that gets it."""
        in_use = {(str(PromptType.parse(kind)), name) for kind, name in self._offers.by_prompt}
        for version in snapshot.versions.values():
            if (version.prompt_type.value, version.name) in in_use:
                # whoever asks for what cannot be compiled is told
                with suppress(PromptabError):
                    self._compile(version, snapshot.versions)
                await asyncio.sleep(0)

    def _choice(self, found: _Found) -> Choice:
        served, unit = found
        return Choice(served, unit, self._store.snapshot_age(), self._collector)

    def _steps(self, snapshot: Snapshot, name: str, prompt_type: str, request: Request) -> _Steps:
        kind, name = check_prompt(name, prompt_type)
        if self._offers.snapshot is not snapshot:
            self._offers = _Offers(snapshot)
        offers, version, environment = self._offers, request.version, request.environment
        if version is not None and environment is not None:
            raise InvalidInputError(
                "environment", environment, "left out beside version", "name one of the two"
            )
        if version in ENVIRONMENTS:
            version, environment = None, version
        if version is not None:
            found = yield from self._asked_for(
                offers, snapshot, kind, name, check_reference("version", version)
            )
            return found, None
        if environment is not None:
            where = check_environment(environment)
            live = _required(_live(snapshot, kind, name, where), kind, name, f"nothing is live in {where}")
            return self._served(snapshot.versions, kind, name, live, "environment", f"live in {where}"), None
        offer = offers.by_prompt.get((prompt_type, name))
        if offer is None:
            offer = offers.by_prompt[prompt_type, name] = self._offer(snapshot, kind, name)
        if offer.by_default is not None:
            return offer.by_default, None
        return (yield from self._offered(offers, offer, snapshot, kind, name, request))

    def _offer(self, snapshot: Snapshot, kind: PromptType, name: str) -> _Offer:
        offer = _Offer()
        # before anybody is assigned: a unit is exposed only to what it is really served
        offer.experiments = [
            (live, _missing_version(snapshot, live)) for live in snapshot.on_prompt(kind, name)
        ]
        if not offer.experiments:
            offer.by_default = self._default(snapshot, kind, name, [])
        return offer

    def _offered(
        self,
        offers: _Offers,
        offer: _Offer,
        snapshot: Snapshot,
        kind: PromptType,
        name: str,
        request: Request,
    ) -> _Steps:
        """Find what the experiments on the prompt, its environment or its latest version serve."""
        user_id, attributes = request.user_id, request.attributes
        checked = check_json_object("attributes", attributes) if attributes else {}
        now = self._clock()
        lasting = type(user_id) in {str, int} and not attributes
        left_out: list[tuple[LiveExperiment, str]] = []
        found: _Found | None = None
        for live, missing in offer.experiments:
            if missing is not None:
                left_out.append((live, f"version {missing} of a variant does not exist"))
                continue
            unit = snapshot.known_unit(
                unit_of(live.experiment, user_id, request.session_id, request.features)
            )
            answer = snapshot.assign(live, unit, checked, now)
            if isinstance(answer, Lookup):
                answer = yield partial(look_up, self._store, answer, checked, now)
            else:
                expose(self._store, answer, checked, now)
            lasting = lasting and answer.sure and snapshot.settled(live, now)
            if answer.variant is not None:
                found = self._dealt(snapshot, offer, kind, name, answer), answer.unit
                break
            left_out.append((live, answer.detail))
        if found is None:
            found = self._default(snapshot, kind, name, left_out), None
        if lasting and user_id is not None:
            offers.remember(offer, user_id, found)
        return found

    def _dealt(self, snapshot: Snapshot, offer: _Offer, kind: PromptType, name: str, dealt: Dealt) -> Served:
        key = (dealt.experiment_id, dealt.key, dealt.detail)
        served = offer.served.get(key)
        if served is None:
            variant = dealt.variant
            version = None if variant is None else snapshot.variant_version(dealt.live, variant.version)
            source: Source = "override" if dealt.reason == "override" else "experiment"
            reason = f"variant {dealt.key} of experiment {dealt.live.experiment.name!r}: {dealt.detail}"
            served = offer.served[key] = self._served(
                snapshot.versions, kind, name, version, source, reason
            )._replace(
                experiment_id=dealt.experiment_id,
                experiment_name=dealt.live.experiment.name,
                variant=dealt.key,
                variant_config=(None if variant is None else variant.config) or {},
            )
            # who is shown a variant by hand is in no analysis, and so in no comparison with a shadow either
            if source == "experiment":
                beside = run_beside(snapshot, served, dealt.live, self._compile)
                served = offer.served[key] = served._replace(shadows=beside)
        return served

    def _asked_for(
        self, offers: _Offers, snapshot: Snapshot, kind: PromptType, name: str, version: str
    ) -> Generator[_Ask, Any, Served]:
        key = (kind.value, name, version)
        served = offers.asked.get(key)
        if served is None:
            found, versions = snapshot.numbered(kind, name, version), snapshot.versions
            if version == "latest":
                found = snapshot.latest_active(kind, name)
            if found is None:
                found, versions = yield partial(self._look_up, kind, name, version)
            found = _required(found, kind, name, f"no version matches {version!r}")
            source: Source = "pin" if is_exact(version) else "range"
            served = self._served(versions, kind, name, found, source, f"asked for as {version}")
            offers.asked.put(key, served)
        return served

    async def _look_up(
        self, kind: PromptType, name: str, version: str
    ) -> tuple[PromptVersion | None, Mapping[str, PromptVersion]]:
        """Return the version that is meant, and by id what it includes."""

        async def work(tx: Transaction) -> tuple[PromptVersion | None, dict[str, PromptVersion]]:
            wanted = await find_version(tx, kind, name, version)
            return wanted, {} if wanted is None else await tx.versions.with_includes(wanted)

        return await self._store.read(work)

    def _default(
        self, snapshot: Snapshot, kind: PromptType, name: str, left_out: list[tuple[LiveExperiment, str]]
    ) -> Served:
        """Return what is served without an experiment's say. `left_out`: experiments that the unit is not in, and
        why.
        """
        version, source, reason = _default(snapshot, kind, name, left_out)
        return self._served(snapshot.versions, kind, name, version, source, reason)

    def _served(
        self,
        versions: Mapping[str, PromptVersion],
        kind: PromptType,
        name: str,
        version: PromptVersion | None,
        source: Source,
        reason: str,
    ) -> Served:
        return Served(name, kind, source, reason, version, self._compile(version, versions))

    def _compile(
        self, version: PromptVersion | None, versions: Mapping[str, PromptVersion]
    ) -> CompiledPrompt | None:
        if version is None or not version.prompt_type.has_template:
            return None
        compiled = self._compiled.get(version.version_id)
        if compiled is None:
            compiled = compile_version(version, versions)
            self._compiled.put(version.version_id, compiled)
        return compiled


def _missing_version(snapshot: Snapshot, live: LiveExperiment) -> str | None:
    numbers = (variant.version for variant in live.experiment.variants if variant.version is not None)
    return next((number for number in numbers if snapshot.variant_version(live, number) is None), None)


def _default(
    snapshot: Snapshot, kind: PromptType, name: str, left_out: list[tuple[LiveExperiment, str]]
) -> tuple[PromptVersion | None, Source, str]:
    source: Source = "excluded" if left_out else "environment"
    why = f" (not in experiment {left_out[0][0].experiment.name!r}: {left_out[0][1]})" if left_out else ""
    production = _live(snapshot, kind, name, "production")
    if production is not None:
        return production, source, f"live in production{why}"
    for live, _ in left_out:
        # the latest version may well be the candidate under test, so the control stands in for production
        control = live.experiment.variant(live.experiment.control)
        if control is not None and control.version is not None:
            version = snapshot.numbered(kind, name, control.version)
            if version is not None:
                return version, source, f"the control, since nothing is in production{why}"
    latest = snapshot.latest_active(kind, name)
    if latest is None and (kind, name) in snapshot.latest:
        raise _unsound(kind, name, "the latest active version")
    if latest is None and left_out:
        return None, source, f"no version exists{why}"
    return (
        _required(latest, kind, name, "it has no active version"),
        "excluded" if left_out else "range",
        f"the latest active version, since nothing is in production{why}",
    )


def _live(snapshot: Snapshot, kind: PromptType, name: str, where: Environment) -> PromptVersion | None:
    """Return what is live there. Where that was left out as damaged, another version is no stand-in for it."""
    version = snapshot.deployed(kind, name, where)
    if version is None and (kind, name, where) in snapshot.live:
        raise _unsound(kind, name, f"what is live in {where}")
    return version


def _unsound(kind: PromptType, name: str, what: str) -> StoreError:
    return StoreError(
        f"{kind}/{name}: {what} was left out since it is damaged, as the log says with the reason; promote a sound "
        "version, or bring back the store where a snapshot file stands in for it"
    )


def _required(version: PromptVersion | None, kind: PromptType, name: str, why: str) -> PromptVersion:
    if version is None:
        raise NotFoundError(
            "prompt to serve", f"{kind}/{name}", f"{why}; list what there is with `promptab list`"
        )
    return version
