"""A call that has ended, as observers are told and as it is recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol

from promptab.calls.answer import Answer
from promptab.calls.failures import Failure
from promptab.checks import check_json_object
from promptab.errors import InvalidInputError
from promptab.models import MetricEvent, PromptType
from promptab.shadow_place import ShadowPlace

Status = Literal["ok", "error", "partial", "cancelled", "unobserved"]
"""How a call ended.

`ok`: the answer is whole. `error`: there is none. `partial`: it broke off after some of it had come. `cancelled`:
whoever waited for it, or was reading it, stopped; that is no failure of the version. `unobserved`: nobody said.
"""

METADATA_KEY = "call"
"""Under this key of an event's metadata are the facts of `FinishedCall.event_metadata`."""


def check_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return metadata of the caller's own. Raises `InvalidInputError` where they would be lost under `METADATA_KEY`."""
    checked = check_json_object("metadata", {} if metadata is None else metadata)
    if METADATA_KEY in checked:
        raise InvalidInputError(
            "metadata",
            METADATA_KEY,
            "a key of your own",
            "facts of the call are stored there: take another name",
        )
    return checked


_SUCCESS: Mapping[Status, bool] = {"ok": True, "error": False, "partial": False}
"""`success` of the event; unknown for the others."""


class Subject(NamedTuple):
    """What is called: the version, and for whom. A fallback has no version, experiment or unit of its own."""

    name: str
    prompt_type: PromptType
    source: str
    """As in `Choice.source`; `fallback` also for a model that stands in for the version's own."""
    version_id: str | None = None
    version: str | None = None
    content_hash: str | None = None
    experiment_id: str | None = None
    experiment_name: str | None = None
    variant: str | None = None
    unit: str | None = None
    stands_in_for: str | None = None
    """`type/name@version` whose place a fallback took."""
    beside: str | None = None
    """Of a run in the shadow: the id of the served call that it is to be compared with."""

    @property
    def label(self) -> str:
        return f"{self.prompt_type}/{self.name}" + (f"@{self.version}" if self.version is not None else "")

    @property
    def place(self) -> dict[str, Any]:
        """Return the arguments of `MetricsCollector.record_event` that say whose an outcome is."""
        if self.source == "shadow" and self.experiment_id and self.variant and self.unit:
            place = ShadowPlace(
                self.experiment_id, self.variant, self.unit, self.version_id, beside=self.beside
            )
            return {"version_id": None, "shadow": place}
        return {
            "version_id": self.version_id,
            "experiment_id": self.experiment_id,
            "variant": self.variant,
            "user_id": self.unit,
        }

    @property
    def in_shadow(self) -> bool:
        """Whether nothing of it was served."""
        return self.source == "shadow"

    @property
    def fallback(self) -> Subject:
        """What stands in for this: nothing that it does counts for the version or the variant."""
        return Subject(
            self.name, self.prompt_type, "fallback", stands_in_for=self.stands_in_for or self.label
        )


@dataclass(frozen=True, slots=True)
class FinishedCall:
    """One call, ended. What is None is not known."""

    call_id: str
    subject: Subject
    status: Status
    failure: Failure | None
    """Also of a cancelled call; None for one that is ok or unobserved."""
    started_at: datetime
    seconds: float | None
    """From the request to the last of the answer; None where nothing was sent."""
    seconds_to_first_token: float | None
    """Of a stream, to the first piece of the answer."""
    vendor: str | None
    """`openai` or `anthropic`: whose protocol it was."""
    api: str | None
    """`chat`, `responses` or `messages`."""
    url: str | None
    """Where the client sends its requests; known of `complete` and `stream`."""
    model: str | None
    """The model that was asked for; `answer.model` is the one that answered."""
    parameters: Mapping[str, Any]
    """Of the model, as they were sent."""
    streamed: bool
    attempts: int | None
    """Requests that the client sent, its retries included."""
    answer: Answer
    cost: float | None
    """US dollars."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """The caller's own."""

    @property
    def success(self) -> bool | None:
        return _SUCCESS.get(self.status)

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers of a call that have no field of their own in an event."""
        usage = self.answer.usage
        named = {
            "attempts": self.attempts,
            "time_to_first_token": self.seconds_to_first_token,
            "cache_write_tokens": usage.cache_write,
            "reasoning_tokens": usage.reasoning,
        }
        return {name: float(value) for name, value in named.items() if value is not None}

    def event_metadata(self) -> dict[str, Any]:
        """Return the caller's metadata with what is known of the call beside its numbers, under `call`."""
        answer, failure = self.answer, self.failure
        facts: dict[str, Any] = {
            "prompt": self.subject.label,
            "experiment": self.subject.experiment_name,
            "status": self.status,
            "vendor": self.vendor,
            "api": self.api,
            "model": self.model,
            "response_model": answer.model,
            "response_id": answer.response_id,
            "finish_reasons": list(answer.finish_reasons),
            "streamed": self.streamed,
            "failure": None if failure is None else failure.kind,
            "error_type": None if failure is None else failure.error_type,
            "status_code": None if failure is None else failure.status_code,
            "stands_in_for": self.subject.stands_in_for,
        }
        told = {name: fact for name, fact in facts.items() if fact not in (None, [], False)}
        return {**self.metadata, METADATA_KEY: told}


class CallObserver(Protocol):
    """Is told of every call that ends and of what users say of one later, such as to export a span or a counter.

    It is called in the thread of the event loop, so it returns at once and does no I/O. What it raises is logged
    and counted, and reaches nobody.
    """

    def call_finished(self, call: FinishedCall) -> None:
        """A call has ended; the context (`contextvars`) is the one that it began in."""

    def feedback_given(self, feedback: MetricEvent, call: MetricEvent) -> None:
        """Feedback is stored; `call` is the event of the call that it is about, with the facts in its metadata."""
