"""A lab: one store, the managers on it, and choosing what a request is served."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from promptab.analysing import Period
from promptab.analysis.planned import InteractionResult, ReplayResult
from promptab.analysis.result import AnalysisResult, Method
from promptab.bandit import Rebalancing
from promptab.choice import Choice
from promptab.choosing import Chooser, Request
from promptab.completing import Completing
from promptab.content import check_prompt
from promptab.decisions.decision import Action
from promptab.decisions.stored import StoredDecision
from promptab.delivering.channels import AlertCallback
from promptab.delivering.outbox import AlertOutbox, WantedAlerts
from promptab.delivering.passes import DeliveryReport
from promptab.deploying import check_environment
from promptab.errors import NotFoundError, StateError, StoreUnavailableError
from promptab.experiments import ABTestManager
from promptab.fallback import Fallback, fallback_choice
from promptab.managed import Clock, utc_now
from promptab.metrics import MetricsCollector
from promptab.models import Deployment, PromptVersion
from promptab.policy import Policy
from promptab.rebalancing import rebalance
from promptab.rollout import Rollout
from promptab.shadowing import DEFAULT_SHADOWS, Shadows, ShadowSettings
from promptab.stats.metric import MetricDefinition
from promptab.stores.base import Store
from promptab.versions import VersionManager
from promptab.watching import Watch, WatchUpdate

if TYPE_CHECKING:
    from promptab.trying import CaseReport, Trying


class Lab(Completing):
    """An open store with its managers: `versions`, `experiments`, `metrics`, `rollout`, `alerts`. Made by
    `promptab.open`.
    """

    def __init__(
        self, store: Store, *, clock: Clock = utc_now, shadows: ShadowSettings = DEFAULT_SHADOWS
    ) -> None:
        self.store = store
        self._clock = clock
        self.versions = VersionManager(store, clock=clock)
        self.experiments = ABTestManager(store, clock=clock)
        self.metrics = MetricsCollector(store, clock=clock)
        self.alerts = AlertOutbox(store, clock=clock)
        self.rollout = Rollout(store, clock=clock)
        self.shadows = Shadows(shadows)
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
        uniform: bool = False,
    ) -> AnalysisResult:
        """Say what an experiment shows, and which variant wins or why none does; see
        `MetricsCollector.analyze`.
        """
        return await self.metrics.analyze(
            experiment,
            method,
            metrics,
            segments,
            since,
            series=series,
            confidence=confidence,
            policy=policy,
            uniform=uniform,
        )

    async def rebalance(self, experiment: str) -> Rebalancing:
        """Take one batch step of a bandit: change its weights where that is due, and say what was done or why not.

        Nothing is done before enough units are counted and enough time has passed (see `Bandit`), so it may be called
        at any time, as often as one likes, and by several at once: of those that see the same state one changes the
        weights. New units are dealt by the new weights 2 seconds later where other processes may share the store; all
        others keep what they have. A variant with weight zero keeps that.

        Raises `NotFoundError`, and `StateError` for an experiment that is no bandit, or a draft.
        """
        return await rebalance(self.store, experiment, clock=self._clock)

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

    def watch(
        self,
        experiments: Iterable[str] | None = None,
        *,
        interval: float = 30.0,
        apply: bool = True,
        once: bool = False,
        actor: str = "watch",
    ) -> AsyncGenerator[WatchUpdate]:
        """Look at everything that has a policy, again and again, and do what is decided: `async for update in ...`.

        Each round, `interval` seconds apart (0.1 to a week), decides about every running or paused experiment with a
        policy and about every guarded version, applies what needs nobody's consent, and yields an update for each.
        `experiments` are names or ids, and names of prompts with a guard; what is not there yet is watched when it
        comes. Of all who watch a store one leads and applies, in whichever process; another one takes over within two
        intervals of its end. A store that is away is told and waited for. With `apply=False` nothing is applied, and
        nobody has to lead. `once` ends after a round.

        Beside the looks alerts are delivered to whatever channels there are (`lab.on_alert`, `lab.alerts`).

        Whoever stops iterating, is cancelled or closes the iterator (`contextlib.aclosing`) leads no longer, and leaves
        nothing half-applied.
        """
        watch = Watch(
            self.rollout,
            self.store,
            self._clock,
            names=experiments,
            interval=interval,
            apply=apply,
            once=once,
            actor=actor,
        )
        return self.alerts.beside(watch.updates(), once=once)

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

    def on_alert(
        self, callback: AlertCallback, *, name: str = "callback", **wanted: Unpack[WantedAlerts]
    ) -> None:
        """Call, or await, this function with each alert that is delivered; see `AlertOutbox.on_alert`."""
        self.alerts.on_alert(callback, name=name, **wanted)

    async def deliver_alerts(self) -> DeliveryReport:
        """Try every alert that is due, to every channel; see `AlertOutbox.deliver`."""
        return await self.alerts.deliver()

    async def close(self) -> None:
        """Let go of what runs in the shadow, write what is queued and close the store. A second time does nothing."""
        try:
            await self.shadows.close()
        finally:
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
