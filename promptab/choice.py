"""What one request was given: the exact version, why, and the means to render it and to record what came of
it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from promptab.calls.call import Call
from promptab.calls.finished import Subject
from promptab.errors import InvalidInputError
from promptab.measures import TokensInput
from promptab.metrics import MetricsCollector
from promptab.models import Message, MetricEvent, PromptType, PromptVersion

if TYPE_CHECKING:
    from promptab.templates import CompiledPrompt

Source = Literal["pin", "range", "environment", "experiment", "override", "fallback", "excluded"]


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer of `Lab.choose`."""

    name: str
    prompt_type: PromptType
    source: Source
    """How it was chosen: by a pinned number, a range or tag, an environment, an experiment, an override, or
    by the experiment's default because the unit is not in it (`excluded`).
    """
    reason: str
    experiment_id: str | None
    variant: str | None
    unit: str | None
    snapshot_age: float
    """Seconds since the store last confirmed what this choice was made from."""
    _version: PromptVersion | None = field(repr=False)
    _variant_config: Mapping[str, Any] = field(repr=False)
    _compiled: CompiledPrompt | None = field(repr=False)
    _collector: MetricsCollector = field(repr=False)

    @property
    def version(self) -> PromptVersion | None:
        """The version, as a copy that is the caller's to change; None where a variant serves a configuration alone."""
        return None if self._version is None else self._version.model_copy(deep=True)

    @property
    def content_hash(self) -> str | None:
        return None if self._version is None else self._version.content_hash

    @property
    def config(self) -> dict[str, Any]:
        """The version's configuration with the variant's own over it; a copy that is the caller's to change."""
        base = {} if self._version is None else self._version.config
        return copy.deepcopy({**base, **self._variant_config})

    def render(self, /, **variables: Any) -> str:
        """Return the text. Raises `VariableError` for a missing, unknown or ill-typed variable.

        A list of messages is rendered by `messages`, since its roles are structure and would be lost in a
        text.
        """
        compiled = self._renderable()
        if self._version is not None and self._version.messages:
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
            None if self._version is None else self._version.version_id,
            success,
            response_time,
            tokens,
            user_rating,
            metadata,
            cost=cost,
            metrics=metrics,
            experiment_id=self.experiment_id,
            variant=self.variant,
            user_id=self.unit if self.experiment_id is not None else None,
            event_id=event_id,
            timestamp=timestamp,
        )

    def call(self, *, metadata: Mapping[str, Any] | None = None) -> Call:
        """Track one call of a model that your own code makes: `async with choice.call() as call`, then
        `call.observe(response)`; it records one event, whatever comes of it.
        """
        return Call(self._collector.calls, self._subject(), metadata=metadata)

    @property
    def has_template(self) -> bool:
        """Whether there is something to render; a model or a configuration has none."""
        return self._compiled is not None

    def _subject(self) -> Subject:
        version = self._version
        return Subject(
            name=self.name,
            prompt_type=self.prompt_type,
            source=self.source,
            version_id=None if version is None else version.version_id,
            version=None if version is None else version.version,
            content_hash=self.content_hash,
            experiment_id=self.experiment_id,
            variant=self.variant,
            unit=self.unit if self.experiment_id is not None else None,
            stands_in_for=f"{self.prompt_type}/{self.name}" if self.source == "fallback" else None,
        )

    def _renderable(self) -> CompiledPrompt:
        if self._compiled is None:
            raise InvalidInputError(
                "prompt_type",
                self.prompt_type.value,
                "a prompt with a template",
                "a configuration is read from .config",
            )
        return self._compiled
