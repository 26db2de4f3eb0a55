"""`promptab.open()`: one store, the managers on it, and choosing what a request is served."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from promptab.analysing import Period
from promptab.analysis.planned import InteractionResult, ReplayResult
from promptab.analysis.result import AnalysisResult, Method
from promptab.assigning import unit_of
from promptab.checks import check_json_object
from promptab.choice import Choice, Source
from promptab.completing import Completing
from promptab.content import check_prompt, compile_version
from promptab.deploying import check_environment
from promptab.errors import InvalidInputError, NotFoundError, StateError, StoreUnavailableError
from promptab.experiments import ABTestManager
from promptab.fallback import Fallback, fallback_choice
from promptab.live_experiment import LiveExperiment
from promptab.managed import Clock, utc_now
from promptab.metrics import MetricsCollector
from promptab.models import ENVIRONMENTS, Assignment, Deployment, PromptType, PromptVersion
from promptab.resolving import find_version
from promptab.semver import check_reference, is_exact
from promptab.snapshot import Snapshot
from promptab.stats.metric import MetricDefinition
from promptab.stores.base import Store, Transaction
from promptab.stores.opening import open_store, open_until_the_loop_ends
from promptab.versions import VersionManager

if TYPE_CHECKING:
    from promptab.templates import CompiledPrompt

COMPILED_VERSIONS = 4_096
"""Compiled templates kept in memory; past that all are compiled afresh as they are needed."""


class Lab(Completing):
    """An open store with its managers: `versions`, `experiments`, `metrics`. Made by `promptab.open`."""

    def __init__(self, store: Store, *, clock: Clock = utc_now) -> None:
        self.store = store
        self.versions = VersionManager(store, clock=clock)
        self.experiments = ABTestManager(store, clock=clock)
        self.metrics = MetricsCollector(store, clock=clock)
        self._compiled: dict[str, CompiledPrompt] = {}
        self._asked: dict[tuple[PromptType, str, str], tuple[PromptVersion, Mapping[str, PromptVersion]]] = {}
        """What was asked for by number, range or tag, and found, in the snapshot of revision `_asked_of`."""
        self._asked_of = -1

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
        kind, name = check_prompt(name, prompt_type)
        try:
            snapshot = await self.store.snapshot()
        except StoreUnavailableError as error:
            if fallback is None:
                raise
            return fallback_choice(kind, name, fallback, self.metrics, reason=str(error))
        if version is not None and environment is not None:
            raise InvalidInputError(
                "environment", environment, "left out beside version", "name one of the two"
            )
        if version in ENVIRONMENTS:
            version, environment = None, version
        if version is not None:
            return await self._asked_for(snapshot, kind, name, check_reference("version", version))
        if environment is not None:
            where = check_environment(environment)
            live = _required(snapshot.deployed(kind, name, where), kind, name, f"nothing is live in {where}")
            return self._choice(snapshot, kind, name, _Pick(live, "environment", f"live in {where}"))
        served = await self._served(snapshot, kind, name, (user_id, session_id, features), attributes)
        return self._choice(snapshot, kind, name, served)

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
    ) -> AnalysisResult:
        """Say what an experiment shows, and which variant wins or why none does; see
        `MetricsCollector.analyze`.
        """
        return await self.metrics.analyze(
            experiment, method, metrics, segments, since, series=series, confidence=confidence
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
        await self.metrics.calls.flush()
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
                "declare one in the plan (window_hours) before the start, or pass allow_approximate=True"
            )
        experiment = await self.experiments.get_experiment(result.experiment_id)
        variant = None if experiment is None else experiment.variant(result.winner)
        if experiment is None or variant is None or variant.version is None or experiment.prompt_name is None:
            raise StateError(f"variant {result.winner} of experiment {result.experiment!r} serves no version")
        version = await self.versions.get_version(
            experiment.prompt_name, experiment.prompt_type, variant.version
        )
        return _required(
            version, experiment.prompt_type, experiment.prompt_name, f"{variant.version} is gone"
        )

    async def _served(
        self,
        snapshot: Snapshot,
        kind: PromptType,
        name: str,
        unit: tuple[str | int | None, str | None, Mapping[str, Any] | None],
        attributes: Mapping[str, Any] | None,
    ) -> _Pick:
        """Return what the experiments on the prompt, its environment or its latest version serve."""
        checked = check_json_object("attributes", attributes or {}) if attributes else {}
        left_out: list[tuple[LiveExperiment, str]] = []
        for live in snapshot.on_prompt(kind, name):
            if missing := _missing_version(snapshot, live):
                # before anybody is assigned: a unit is exposed only to what it is really served
                left_out.append((live, f"version {missing} of a variant does not exist"))
                continue
            unit_id = snapshot.known_unit(unit_of(live.experiment, *unit))
            assignment = await self.experiments.assign_unit(snapshot, live, unit_id, checked)
            if assignment.variant is None:
                left_out.append((live, assignment.detail))
                continue
            return _assigned(live, assignment, _variant_version(snapshot, live, assignment.version))
        return _default(snapshot, kind, name, left_out)

    async def _asked_for(self, snapshot: Snapshot, kind: PromptType, name: str, version: str) -> Choice:
        if self._asked_of != snapshot.revision:
            # what a range or a tag means may have changed
            self._asked_of = snapshot.revision
            self._asked.clear()
        key = (kind, name, version)
        if key not in self._asked:
            self._asked[key] = await self._look_up(snapshot, kind, name, version)
        found, versions = self._asked[key]
        source: Source = "pin" if is_exact(version) else "range"
        return self._choice(snapshot, kind, name, _Pick(found, source, f"asked for as {version}"), versions)

    async def _look_up(
        self, snapshot: Snapshot, kind: PromptType, name: str, version: str
    ) -> tuple[PromptVersion, Mapping[str, PromptVersion]]:
        """Return the version that is meant, and by id what it includes."""
        found = snapshot.numbered(kind, name, version)
        if version == "latest":
            found = snapshot.latest_active(kind, name)
        if found is not None:
            return found, snapshot.versions

        async def work(tx: Transaction) -> tuple[PromptVersion | None, dict[str, PromptVersion]]:
            wanted = await find_version(tx, kind, name, version)
            return wanted, {} if wanted is None else await tx.versions.with_includes(wanted)

        found, versions = await self.store.read(work)
        return _required(found, kind, name, f"no version matches {version!r}"), versions

    def _choice(
        self,
        snapshot: Snapshot,
        kind: PromptType,
        name: str,
        pick: _Pick,
        versions: Mapping[str, PromptVersion] | None = None,
    ) -> Choice:
        assignment = pick.assignment
        return Choice(
            name=name,
            prompt_type=kind,
            source=pick.source,
            reason=pick.reason,
            experiment_id=None if assignment is None else assignment.experiment_id,
            variant=None if assignment is None else assignment.variant,
            unit=None if assignment is None else assignment.unit,
            snapshot_age=self.store.snapshot_age(),
            _version=pick.version,
            _variant_config=(assignment.config if assignment is not None else None) or {},
            _compiled=self._compile(pick.version, snapshot.versions if versions is None else versions),
            _collector=self.metrics,
        )

    def _compile(
        self, version: PromptVersion | None, versions: Mapping[str, PromptVersion]
    ) -> CompiledPrompt | None:
        if version is None or not version.prompt_type.has_template:
            return None
        compiled = self._compiled.get(version.version_id)
        if compiled is None:
            if len(self._compiled) >= COMPILED_VERSIONS:
                self._compiled.clear()
            compiled = self._compiled[version.version_id] = compile_version(version, versions)
        return compiled


class _Pick(NamedTuple):
    version: PromptVersion | None
    source: Source
    reason: str
    assignment: Assignment | None = None


class Opening:
    """What `promptab.open` returns: for `async with`, or to be awaited where nothing closes the lab but the
    program's end.
    """

    def __init__(self, url: str | None, clock: Clock) -> None:
        self._url = url
        self._clock = clock
        self._lab: Lab | None = None

    def __await__(self) -> Generator[Any, None, Lab]:
        return self._open_for_good().__await__()

    async def __aenter__(self) -> Lab:
        self._lab = Lab(await open_store(self._url), clock=self._clock)
        return self._lab

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lab is not None:
            await self._lab.close()

    async def _open_for_good(self) -> Lab:
        return Lab(await open_until_the_loop_ends(self._url), clock=self._clock)


def open(url: str | None = None, *, clock: Clock = utc_now) -> Opening:  # noqa: A001 - `promptab.open` is the name users write
    """Open a store and its managers: `async with promptab.open() as lab`.

    The URL is the argument, else `PROMPTAB_URL`, else `sqlite:///promptab.db`; `sqlite:///:memory:` is gone
    when closed. `clock` tells the time everywhere. Raises what `open_store` raises.
    """
    return Opening(url, clock)


def _assigned(live: LiveExperiment, assignment: Assignment, version: PromptVersion | None) -> _Pick:
    source: Source = "override" if assignment.reason == "override" else "experiment"
    reason = f"variant {assignment.variant} of experiment {live.experiment.name!r}: {assignment.detail}"
    return _Pick(version, source, reason, assignment)


def _missing_version(snapshot: Snapshot, live: LiveExperiment) -> str | None:
    numbers = (variant.version for variant in live.experiment.variants if variant.version is not None)
    return next((number for number in numbers if _variant_version(snapshot, live, number) is None), None)


def _variant_version(snapshot: Snapshot, live: LiveExperiment, number: str | None) -> PromptVersion | None:
    experiment = live.experiment
    if number is None or experiment.prompt_name is None:
        return None
    return snapshot.numbered(experiment.prompt_type, experiment.prompt_name, number)


def _default(
    snapshot: Snapshot, kind: PromptType, name: str, left_out: list[tuple[LiveExperiment, str]]
) -> _Pick:
    """Return what is served without an experiment's say. `left_out`: experiments that the unit is not in, and
    why.
    """
    source: Source = "excluded" if left_out else "environment"
    why = f" (not in experiment {left_out[0][0].experiment.name!r}: {left_out[0][1]})" if left_out else ""
    production = snapshot.deployed(kind, name, "production")
    if production is not None:
        return _Pick(production, source, f"live in production{why}")
    for live, _ in left_out:
        # the latest version may well be the candidate under test, so the control stands in for production
        control = live.experiment.variant(live.experiment.control)
        if control is not None and control.version is not None:
            version = snapshot.numbered(kind, name, control.version)
            if version is not None:
                return _Pick(version, source, f"the control, since nothing is in production{why}")
    latest = snapshot.latest_active(kind, name)
    if latest is None and left_out:
        return _Pick(None, source, f"no version exists{why}")
    required = _required(latest, kind, name, "it has no active version")
    return _Pick(
        required,
        "excluded" if left_out else "range",
        f"the latest active version, since nothing is in production{why}",
    )


def _required(version: PromptVersion | None, kind: PromptType, name: str, why: str) -> PromptVersion:
    if version is None:
        raise NotFoundError(
            "prompt to serve", f"{kind}/{name}", f"{why}; list what there is with `promptab list`"
        )
    return version
