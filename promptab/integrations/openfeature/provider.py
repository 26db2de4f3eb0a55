"""The provider: OpenFeature's interface on a lab, from whichever thread it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import GeneralError, ProviderNotReadyError
from openfeature.flag_evaluation import FlagResolutionDetails, FlagType, FlagValueType
from openfeature.provider import AbstractProvider, Metadata
from openfeature.track import TrackingEventDetails

from promptab.errors import StoreError
from promptab.integrations.openfeature.evaluating import Asker, details_of, told_in_openfeatures_words
from promptab.integrations.openfeature.flags import FlagKey, Flags
from promptab.integrations.openfeature.outcomes import Outcomes
from promptab.integrations.openfeature.watching import Watch
from promptab.lab import Lab
from promptab.snapshot import Snapshot

T = TypeVar("T")

Object = Sequence[FlagValueType] | Mapping[str, FlagValueType]

WAIT_SECONDS = 5.0
"""How long a caller in another thread waits for the lab's event loop."""


async def provider(lab: Lab) -> PromptabProvider:
    """Return a provider on the lab, in whose event loop this has to be awaited.

    It takes the first snapshot. Where the store is away it is made all the same, and is not ready until the store is
    back.
    """
    with suppress(StoreError):
        await lab.store.snapshot()
    return PromptabProvider(lab)


class PromptabProvider(AbstractProvider):
    """Made by `provider`. It may be asked in any thread."""

    def __init__(self, lab: Lab) -> None:
        super().__init__()
        self._lab = lab
        self._loop = asyncio.get_running_loop()
        self._flags: Flags | None = None
        self._outcomes = Outcomes(lab)
        self._watching: asyncio.Task[None] | None = None

    def get_metadata(self) -> Metadata:
        return Metadata(name="promptab")

    @property
    def outcomes_not_recorded(self) -> int:
        """Of what was tracked, how much was refused; each is in the log with its reason."""
        return self._outcomes.not_recorded

    async def flush(self) -> None:
        """Return when all that was tracked so far is recorded or refused."""
        await self._outcomes.flush()

    def initialize(self, evaluation_context: EvaluationContext) -> None:
        """Begin to watch. Raises `ProviderNotReadyError` where there is no snapshot; readiness is told later then."""
        if self._at_home():
            self._begin()
        else:
            self._sent_home(self._begun()).result(WAIT_SECONDS)

    def shutdown(self) -> None:
        """Watch no more. What was tracked is still recorded; the lab stays open."""
        if self._at_home():
            self._end()
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end)

    def track(
        self,
        tracking_event_name: str,
        evaluation_context: EvaluationContext | None = None,
        tracking_event_details: TrackingEventDetails | None = None,
    ) -> None:
        with told_in_openfeatures_words():
            asker = Asker.of(evaluation_context)
        if self._at_home():
            self._outcomes.add(tracking_event_name, asker, tracking_event_details)
        else:
            self._check_loop()
            self._loop.call_soon_threadsafe(
                self._outcomes.add, tracking_event_name, asker, tracking_event_details
            )

    def resolve_boolean_details(
        self,
        flag_key: str,
        default_value: bool,  # noqa: FBT001 - the interface's
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[bool]:
        return self._resolve(flag_key, FlagType.BOOLEAN, evaluation_context)

    async def resolve_boolean_details_async(
        self,
        flag_key: str,
        default_value: bool,  # noqa: FBT001 - the interface's
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[bool]:
        return await self._resolve_async(flag_key, FlagType.BOOLEAN, evaluation_context)

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        return self._resolve(flag_key, FlagType.STRING, evaluation_context)

    async def resolve_string_details_async(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        return await self._resolve_async(flag_key, FlagType.STRING, evaluation_context)

    def resolve_integer_details(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        return self._resolve(flag_key, FlagType.INTEGER, evaluation_context)

    async def resolve_integer_details_async(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        return await self._resolve_async(flag_key, FlagType.INTEGER, evaluation_context)

    def resolve_float_details(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        return self._resolve(flag_key, FlagType.FLOAT, evaluation_context)

    async def resolve_float_details_async(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        return await self._resolve_async(flag_key, FlagType.FLOAT, evaluation_context)

    def resolve_object_details(
        self, flag_key: str, default_value: Object, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[Object]:
        return self._resolve(flag_key, FlagType.OBJECT, evaluation_context)

    async def resolve_object_details_async(
        self, flag_key: str, default_value: Object, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[Object]:
        return await self._resolve_async(flag_key, FlagType.OBJECT, evaluation_context)

    def _resolve(
        self, flag_key: str, wanted: FlagType, context: EvaluationContext | None
    ) -> FlagResolutionDetails[Any]:
        if not self._at_home():
            return self._sent_home(self._evaluated(flag_key, wanted, context)).result(WAIT_SECONDS)
        with told_in_openfeatures_words():
            key, asker = FlagKey.parse(flag_key), Asker.of(context)
            kind, name = self._at_hand().prompt(key, self._lab.calls.clock())
            choice = self._lab.choose_nowait(name, kind, **asker.how)
            return details_of(choice, key, wanted, asker, away=self._lab.store.away)

    async def _resolve_async(
        self, flag_key: str, wanted: FlagType, context: EvaluationContext | None
    ) -> FlagResolutionDetails[Any]:
        evaluated = self._evaluated(flag_key, wanted, context)
        return await (evaluated if self._at_home() else asyncio.wrap_future(self._sent_home(evaluated)))

    async def _evaluated(
        self, flag_key: str, wanted: FlagType, context: EvaluationContext | None
    ) -> FlagResolutionDetails[Any]:
        with told_in_openfeatures_words():
            key, asker = FlagKey.parse(flag_key), Asker.of(context)
            flags = self._of(await self._lab.store.snapshot())
            kind, name = flags.prompt(key, self._lab.calls.clock())
            choice = await self._lab.choose(name, kind, **asker.how)
            return details_of(choice, key, wanted, asker, away=self._lab.store.away)

    def _at_hand(self) -> Flags:
        snapshot = self._lab.store.latest_snapshot()
        if snapshot is None:
            raise ProviderNotReadyError(
                "there is no snapshot to evaluate from: the store has not been reached"
            )
        return self._of(snapshot)

    def _of(self, snapshot: Snapshot) -> Flags:
        if self._flags is None or self._flags.snapshot is not snapshot:
            self._flags = Flags(snapshot)
        return self._flags

    async def _begun(self) -> None:
        with suppress(StoreError):
            await self._lab.store.snapshot()
        self._begin()

    def _begin(self) -> None:
        self._end()
        self._watching = self._loop.create_task(Watch(self._lab.store, self.emit).run())
        self._at_hand()

    def _end(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

    def _at_home(self) -> bool:
        """Whether this is the thread of the lab's event loop, while that runs."""
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def _sent_home(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run it in the lab's event loop."""
        try:
            self._check_loop()
        except GeneralError:
            work.close()
            raise
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _check_loop(self) -> None:
        if not self._loop.is_running():
            raise GeneralError("the event loop of the lab has ended, or is not running")
