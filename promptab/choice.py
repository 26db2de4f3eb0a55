"""What one request was given: the exact version, why, and the means to render it and to record what came of
it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from promptab.allocation import enrolled, point_of
from promptab.calls.call import Call
from promptab.calls.finished import Subject
from promptab.checks import check_uuid
from promptab.errors import InvalidInputError
from promptab.measures import TokensInput
from promptab.metrics import MetricsCollector
from promptab.models import Message, MetricEvent, PromptType, PromptVersion

if TYPE_CHECKING:
    from promptab.templates import CompiledPrompt

Source = Literal["pin", "range", "environment", "experiment", "override", "fallback", "excluded", "shadow"]

FLAG_REASONS: Mapping[str, str] = MappingProxyType(
    {
        "pin": "STATIC",
        "range": "STATIC",
        "environment": "STATIC",
        "experiment": "SPLIT",
        "override": "TARGETING_MATCH",
        "fallback": "DEFAULT",
        "excluded": "DEFAULT",
        "shadow": "SPLIT",
    }
)
"""What each source is called where choices are known as feature flags: in OpenFeature, and in OpenTelemetry's names."""

STALE_SECONDS = 1.0
"""A change reaches every process within this time; what was confirmed longer ago may have been overtaken."""


class Served(NamedTuple):
    """What all the units that get the same have in common: made once, and shared by their choices."""

    name: str
    prompt_type: PromptType
    source: Source
    reason: str
    version: PromptVersion | None
    compiled: CompiledPrompt | None
    experiment_id: str | None = None
    experiment_name: str | None = None
    variant: str | None = None
    variant_config: Mapping[str, Any] = MappingProxyType({})
    shadows: tuple[InShadow, ...] = ()
    """What is run beside it."""


class InShadow(NamedTuple):
    """What runs in the shadow of something served, and to which units."""

    shadow: Served
    seed: int
    share: float


class Choice:
    """One answer of `Lab.choose`. Nothing in it changes."""

    __slots__ = ("_collector", "_served", "_snapshot_age", "_unit")

    def __init__(
        self, served: Served, unit: str | None, snapshot_age: float, collector: MetricsCollector
    ) -> None:
        self._served = served
        self._unit = unit
        self._snapshot_age = snapshot_age
        self._collector = collector

    def __repr__(self) -> str:
        served, version = self._served, self._served.version
        number = None if version is None else version.version
        return (
            f"Choice({served.prompt_type}/{served.name}, version={number!r}, source={served.source!r}, "
            f"reason={served.reason!r}, variant={served.variant!r}, unit={self._unit!r})"
        )

    @property
    def name(self) -> str:
        return self._served.name

    @property
    def prompt_type(self) -> PromptType:
        return self._served.prompt_type

    @property
    def source(self) -> Source:
        """How it was chosen: by a pinned number, a range or tag, an environment, an experiment, an override, or
        by the experiment's default because the unit is not in it (`excluded`); `shadow` was not chosen to be served.
        """
        return self._served.source

    @property
    def reason(self) -> str:
        """How it was chosen, as a sentence."""
        return self._served.reason

    @property
    def experiment_id(self) -> str | None:
        return self._served.experiment_id

    @property
    def variant(self) -> str | None:
        return self._served.variant

    @property
    def unit(self) -> str | None:
        return self._unit

    @property
    def labels(self) -> dict[str, str]:
        """What `track_llm_call` and its like take: `version`, and `experiment` and `variant` where there are any."""
        subject = self._subject()
        named = {"experiment": subject.experiment_name, "variant": subject.variant, "version": subject.label}
        return {name: value for name, value in named.items() if value is not None}

    @property
    def snapshot_age(self) -> float:
        """Seconds since the store last confirmed what this choice was made from."""
        return self._snapshot_age

    @property
    def stale(self) -> bool:
        """Whether that is longer ago than a change takes to get here: the store is away, or nobody asked it."""
        return self._snapshot_age > STALE_SECONDS

    @property
    def version(self) -> PromptVersion | None:
        """The version, as a copy that is the caller's to change; None where a variant serves a configuration alone."""
        version = self._served.version
        return None if version is None else version.model_copy(deep=True)

    @property
    def content_hash(self) -> str | None:
        version = self._served.version
        return None if version is None else version.content_hash

    @property
    def config(self) -> dict[str, Any]:
        """The version's configuration with the variant's own over it; a copy that is the caller's to change."""
        version = self._served.version
        base = {} if version is None else version.config
        return copy.deepcopy({**base, **self._served.variant_config})

    @property
    def shadows(self) -> tuple[Choice, ...]:
        """The experiment's shadows that are to be run beside this one for this unit: each a choice to render, call and
        record, of which nothing is shown to the user. `Lab.complete` and `Lab.stream` run them by themselves.

        Empty for most units, and for whatever was not dealt by an experiment.
        """
        if not self._served.shadows or self._unit is None:
            return ()
        return tuple(
            Choice(beside.shadow, self._unit, self._snapshot_age, self._collector)
            for beside in self._served.shadows
            if enrolled(point_of(beside.seed, self._unit), beside.share)
        )

    def render(self, /, **variables: Any) -> str:
        """Return the text. Raises `VariableError` for a missing, unknown or ill-typed variable.

        A list of messages is rendered by `messages`, since its roles are structure and would be lost in a
        text.
        """
        compiled = self._renderable()
        version = self._served.version
        if version is not None and version.messages:
            raise InvalidInputError(
                "prompt_type",
                self.prompt_type.value,
                "a text prompt",
                "render a list of messages with messages(...)",
            )
        return compiled.text(variables)

    def messages(self, /, **variables: Any) -> tuple[Message, ...]:
        """Return the messages; a text prompt is one message in the role of its type."""
        return self._renderable().render(variables)

    async def record(
        self,
        success: bool | None = None,  # noqa: FBT001 - the second thing everyone says of a call
        response_time: float | None = None,
        tokens: TokensInput = None,
        user_rating: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        cost: float | None = None,
        metrics: Mapping[str, float] | None = None,
        event_id: str | None = None,
        timestamp: datetime | None = None,
    ) -> MetricEvent:
        """Record what came of it, as `MetricsCollector.record_event` does; version, experiment and unit are
        known.
        """
        return await self._collector.record_event(
            success=success,
            response_time=response_time,
            tokens=tokens,
            user_rating=user_rating,
            metadata=metadata,
            cost=cost,
            metrics=metrics,
            event_id=event_id,
            timestamp=timestamp,
            **self._place(),
        )

    def record_nowait(
        self,
        success: bool | None = None,  # noqa: FBT001 - as in record
        response_time: float | None = None,
        tokens: TokensInput = None,
        user_rating: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        cost: float | None = None,
        metrics: Mapping[str, float] | None = None,
        event_id: str | None = None,
        timestamp: datetime | None = None,
    ) -> bool:
        """Queue what came of it and return at once; see `MetricsCollector.record_nowait` for what may be lost."""
        return self._collector.record_nowait(
            success=success,
            response_time=response_time,
            tokens=tokens,
            user_rating=user_rating,
            metadata=metadata,
            cost=cost,
            metrics=metrics,
            event_id=event_id,
            timestamp=timestamp,
            **self._place(),
        )

    def call(self, *, metadata: Mapping[str, Any] | None = None, beside: str | None = None) -> Call:
        """Track one call of a model that your own code makes: `async with choice.call() as call`, then
        `call.observe(response)`; it records one event, whatever comes of it.

        `beside` is for one of `shadows`: the `call_id` of the served call that it is to be compared with. Without it a
        run is compared with all that its unit was served while in the shadow. Raises `InvalidInputError`.
        """
        subject = self._subject()
        if beside is not None:
            if not subject.in_shadow:
                raise InvalidInputError(
                    "beside", beside, "left out", "only a shadow runs beside a served call"
                )
            subject = subject._replace(beside=check_uuid("beside", beside))
        return Call(self._collector.calls, subject, metadata=metadata)

    @property
    def has_template(self) -> bool:
        """Whether there is something to render; a model or a configuration has none."""
        return self._served.compiled is not None

    def _place(self) -> dict[str, Any]:
        """Return whose an outcome is, as `MetricsCollector.record_event` takes it."""
        served = self._served
        if served.source == "shadow":
            return self._subject().place
        return {
            "version_id": None if served.version is None else served.version.version_id,
            "experiment_id": served.experiment_id,
            "variant": served.variant,
            "user_id": None if served.experiment_id is None else self._unit,
        }

    def _subject(self) -> Subject:
        version = self._served.version
        return Subject(
            name=self.name,
            prompt_type=self.prompt_type,
            source=self.source,
            version_id=None if version is None else version.version_id,
            version=None if version is None else version.version,
            content_hash=self.content_hash,
            experiment_id=self.experiment_id,
            experiment_name=self._served.experiment_name,
            variant=self.variant,
            unit=self.unit if self.experiment_id is not None else None,
            stands_in_for=f"{self.prompt_type}/{self.name}" if self.source == "fallback" else None,
        )

    def _renderable(self) -> CompiledPrompt:
        compiled = self._served.compiled
        if compiled is None:
            raise InvalidInputError(
                "prompt_type",
                self.prompt_type.value,
                "a prompt with a template",
                "a configuration is read from .config",
            )
        return compiled
