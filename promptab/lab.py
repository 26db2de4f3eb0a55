"""`promptab.open()`: one store, the managers on it, and choosing what a request is served."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from promptab.access import OPEN_SECONDS, Access
from promptab.analysing import Period
from promptab.analysis.planned import InteractionResult, ReplayResult
from promptab.analysis.result import AnalysisResult, Method
from promptab.choice import Choice
from promptab.choosing import Chooser, Request
from promptab.completing import Completing
from promptab.content import check_prompt
from promptab.decisions.decision import Action
from promptab.decisions.stored import StoredDecision
from promptab.deploying import check_environment
from promptab.errors import NotFoundError, StateError, StoreUnavailableError
from promptab.experiments import ABTestManager
from promptab.fallback import Fallback, fallback_choice
from promptab.managed import Clock, utc_now
from promptab.metrics import MetricsCollector
from promptab.models import Deployment, PromptVersion
from promptab.policy import Policy
from promptab.queueing import DEFAULT_QUEUE, Durability, QueueSettings
from promptab.rollout import Rollout
from promptab.stats.metric import MetricDefinition
from promptab.stores.base import Store
from promptab.stores.opening import open_until_the_loop_ends
from promptab.versions import VersionManager

if TYPE_CHECKING:
    from promptab.trying import CaseReport, Trying


class Lab(Completing):
    """An open store with its managers: `versions`, `experiments`, `metrics`, `rollout`. Made by `promptab.open`."""

    def __init__(self, store: Store, *, clock: Clock = utc_now) -> None:
        self.store = store
        self.versions = VersionManager(store, clock=clock)
        self.experiments = ABTestManager(store, clock=clock)
        self.metrics = MetricsCollector(store, clock=clock)
        self.rollout = Rollout(store, clock=clock)
        self._chooser = Chooser(store, self.metrics, clock)

    async def choose(
        self,
        name: str,
        prompt_type: str = "system",
        *,
        user_id: str | int | None = None,
        session_id: str | None = None,
        features: Mapping[str, Any] | None = None,
        attributes: Mapping[str, Any] | None = None,
        version: str | None = None,
        environment: str | None = None,
        fallback: Fallback | None = None,
    ) -> Choice:
        """Return what this request is served, and why.

        `version` (a number, range, tag or `latest`) and `environment` are taken at their word. Without them
        the running experiment on the prompt that the unit is in decides; then what is in production; then the
        latest active version. A unit that an experiment leaves out gets production, or the control where
        nothing is in production.

        `fallback`, a template or a version, is served where the store has not been reached even once.

        Raises `NotFoundError` where there is nothing to serve.
        """
        if version is None and environment is None and not attributes:
            known = self._chooser.known(self.store.fresh_snapshot(), name, prompt_type, user_id)
            if known is not None:
                return known
        request = Request(user_id, session_id, features, attributes, version, environment)
        try:
            return await self._chooser.choose(name, prompt_type, request)
        except StoreUnavailableError as error:
            if fallback is None or self.store.latest_snapshot() is not None:
                raise
            kind, name = check_prompt(name, prompt_type)
            return fallback_choice(kind, name, fallback, self.metrics, reason=str(error))

    def choose_nowait(
        self,
        name: str,
        prompt_type: str = "system",
        *,
        user_id: str | int | None = None,
        session_id: str | None = None,
        features: Mapping[str, Any] | None = None,
        attributes: Mapping[str, Any] | None = None,
        version: str | None = None,
        environment: str | None = None,
    ) -> Choice:
        """Return what `choose` would, at once and without I/O; call it in the thread of the lab's event loop.

        It answers from the snapshot at hand, however old: `Choice.stale` tells. Raises `NeedsStoreError` where
        only the store knows the answer (no snapshot has been taken yet; the unit's range has changed hands; the
        version asked for is not in the snapshot), and what `choose` raises.
        """
        if version is None and environment is None and not attributes:
            known = self._chooser.known(self.store.latest_snapshot(), name, prompt_type, user_id)
            if known is not None:
                return known
        request = Request(user_id, session_id, features, attributes, version, environment)
        return self._chooser.choose_nowait(name, prompt_type, request)

    async def analyze(
        self,
        experiment: str,
        method: Method = "sequential",
        metrics: Iterable[str | MetricDefinition] | None = None,
        segments: Iterable[str] = (),
        since: datetime | None = None,
        *,
        series: Period | None = None,
        confidence: float | None = None,
        policy: Policy | None = None,
    ) -> AnalysisResult:
        """Say what an experiment shows, and which variant wins or why none does; see
        `MetricsCollector.analyze`.
        """
        return await self.metrics.analyze(
            experiment, method, metrics, segments, since, series=series, confidence=confidence, policy=policy
        )

    async def compare(self, experiment: str) -> AnalysisResult:
        """Analyse at a fixed horizon: right for one look, at a moment planned before the start."""
        return await self.metrics.compare(experiment)

    async def promote_winner(
        self,
        experiment: str,
        method: Method = "sequential",
        *,
        allow_approximate: bool = False,
        actor: str | None = None,
    ) -> Deployment:
        """Analyse, put the winner's version into production with the analysis as evidence, and complete the
        experiment. Safe to run again: what is live already is not moved twice.

        `allow_approximate` accepts a sequential analysis without a measurement window, whose alpha is then not
        exact. Raises `StateError` where there is no winner, where it serves no version, and where the analysis
        is approximate and that is not allowed; nothing has changed then.
        """
        result = await self.analyze(experiment, method)
        version = await self._winning_version(result, allow_approximate=allow_approximate)
        deployment = await self.versions.promote(
            version.version_id, reason=result.reason, actor=actor, evidence=result.evidence()
        )
        await self.experiments.complete(result.experiment_id, winner=result.winner)
        return deployment

    async def decide(self, experiment: str) -> StoredDecision:
        """Decide about an experiment by its policy, and store that; see `Rollout.decide`."""
        return await self.rollout.decide(experiment)

    async def apply(self, decision: str | StoredDecision, *, actor: str | None = None) -> StoredDecision:
        """Do what was decided, unless something has moved since; see `Rollout.apply`."""
        return await self.rollout.apply(decision, actor=actor)

    async def decisions(self, experiment: str, *, limit: int | None = None) -> list[StoredDecision]:
        """Return what was decided about an experiment, newest first; see `Rollout.decisions`."""
        return await self.rollout.decisions(experiment, limit=limit)

    async def approve(self, experiment: str, *, reason: str = "", actor: str | None = None) -> StoredDecision:
        """Apply the decision that waits for a person; see `Rollout.approve`."""
        return await self.rollout.approve(experiment, reason=reason, actor=actor)

    async def override(
        self,
        experiment: str,
        action: Action,
        *,
        reason: str,
        variant: str | None = None,
        actor: str | None = None,
    ) -> StoredDecision:
        """Do what a person wants, for a reason of their own; see `Rollout.override`."""
        return await self.rollout.override(experiment, action, reason=reason, variant=variant, actor=actor)

    async def test(
        self,
        name: str,
        prompt_type: str = "system",
        version: str = "latest",
        *,
        against: str | None = "production",
        **how: Unpack[Trying],
    ) -> CaseReport:
        """Try a version on the cases of its prompt, by `client=AsyncOpenAI()` or `AsyncAnthropic()`.

        The cases are tried on what is live in `against` too (None: on nothing else), as far as their results there are
        not kept, so that `promote(..., gate=True)` can compare. Nothing of it counts as a use of the version. `model`
        and `max_tokens` go over the versions' own; `max_cost` is a limit in US dollars which is not exceeded: what did
        not fit was not run, and the report says so. `allow_python` lets cases call functions that they name.

        Raises `NotFoundError`, `StateError` for a prompt without cases, and `InvalidInputError` for what cannot be
        asked.
        """
        from promptab.trying import Trial, try_cases  # noqa: PLC0415 - most programs try nothing

        trial = Trial(**how)
        kind, name = check_prompt(name, prompt_type)
        found = await self.versions.get_version(name, kind, version)
        if found is None:
            raise NotFoundError("version", f"{kind}/{name}@{version}")
        live = None
        if against is not None:
            live = await self.versions.get_version(name, kind, check_environment(against))
        if live is not None and live.version_id == found.version_id:
            live = None
        return await try_cases(self, found, live, trial)

    async def replay(
        self,
        experiment: str,
        *,
        metric: str | None = None,
        runs: int = 1_000,
        seed: int = 0,
        method: Method = "fixed",
        confidence: float | None = None,
    ) -> ReplayResult:
        """Deal the control's units anew, many times, and count how often the analysis finds a difference; see
        `MetricsCollector.replay`.
        """
        return await self.metrics.replay(
            experiment, metric=metric, runs=runs, seed=seed, method=method, confidence=confidence
        )

    async def interaction(
        self, first: str, second: str, *, metric: str | None = None, confidence: float | None = None
    ) -> InteractionResult:
        """Say whether the effect of `first` depends on what units got in `second`; see
        `MetricsCollector.interaction`.
        """
        return await self.metrics.interaction(first, second, metric=metric, confidence=confidence)

    async def close(self) -> None:
        """Write what is queued and close the store. A second time does nothing."""
        await self.metrics.calls.settle()
        await self.store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _winning_version(self, result: AnalysisResult, *, allow_approximate: bool) -> PromptVersion:
        if result.winner is None:
            raise StateError(f"experiment {result.experiment!r} has no winner: {result.reason}")
        if result.approximate and not allow_approximate:
            raise StateError(
                f"the analysis of experiment {result.experiment!r} is approximate: it has no measurement window; "
                "declare one in the plan (window_hours) before the start, or allow that (allow_approximate=True, "
                "--allow-approximate)"
            )
        experiment = await self.experiments.get_experiment(result.experiment_id)
        variant = None if experiment is None else experiment.variant(result.winner)
        if experiment is None or variant is None or variant.version is None or experiment.prompt_name is None:
            raise StateError(f"variant {result.winner} of experiment {result.experiment!r} serves no version")
        version = await self.versions.get_version(
            experiment.prompt_name, experiment.prompt_type, variant.version
        )
        if version is None:
            raise NotFoundError(
                "version", f"{experiment.prompt_name}@{variant.version}", "it has been deleted"
            )
        return version


class Opening:
    """What `promptab.open` returns: for `async with`, or to be awaited where nothing closes the lab but the
    program's end.
    """

    def __init__(self, clock: Clock, access: Access) -> None:
        self._clock = clock
        self._access = access
        self._lab: Lab | None = None

    def __await__(self) -> Generator[Any, None, Lab]:
        return self._open_for_good().__await__()

    async def __aenter__(self) -> Lab:
        self._lab = Lab(await self._open(), clock=self._clock)
        return self._lab

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lab is not None:
            await self._lab.close()

    async def _open_for_good(self) -> Lab:
        return Lab(await open_until_the_loop_ends(self._open), clock=self._clock)

    async def _open(self) -> Store:
        return await self._access.open(self._clock)


def open(  # noqa: A001 - `promptab.open` is the name users write
    url: str | None = None,
    *,
    clock: Clock = utc_now,
    timeout: float = OPEN_SECONDS,
    snapshot_file: str | Path | None = None,
    may_be_away: bool = False,
    durability: Durability = "normal",
    queue: QueueSettings = DEFAULT_QUEUE,
) -> Opening:
    """Open a store and its managers: `async with promptab.open() as lab`.

    The URL is the argument, else `PROMPTAB_URL`, else `sqlite:///promptab.db`; `sqlite:///:memory:` is gone
    when closed. `clock` tells the time everywhere. With `durability="full"` what was written survives a loss of
    power too, and not only the end of the process; `queue` bounds what waits to be written.

    Opening takes `timeout` seconds at most, 0.1 to 3600; a long migration may need more than the default of 60. Where
    the store cannot be reached in that time and `snapshot_file` holds a snapshot, `choose` serves from that, says so
    by its age, and goes over to the store when that is back; the file is written anew with every change that is seen.
    With `may_be_away` there is a lab also without a snapshot: `choose` and `complete` serve their `fallback` until
    the store is there, and raise `StoreUnavailableError` where they have none. Otherwise opening raises that error
    after the time; and what `open_store` raises in any case.
    """
    return Opening(clock, Access(url, timeout, snapshot_file, may_be_away, durability, queue))
