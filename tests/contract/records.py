"""Records to put into a store, complete and valid, with what a test cares about given by keyword."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from promptab.models import (
    Deployment,
    Epoch,
    ExperimentStatus,
    Exposure,
    MetricEvent,
    PromptExperiment,
    PromptType,
    PromptVariant,
    PromptVersion,
)

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


def new_id() -> str:
    return str(uuid.uuid4())


def a_version(name: str = "tone", version: str = "1.0.0", **fields: Any) -> PromptVersion:
    given: dict[str, Any] = {
        "version_id": new_id(),
        "name": name,
        "prompt_type": PromptType.SYSTEM,
        "version": version,
        "template": "Be kind to {{ who }}.",
        "content_hash": "0" * 64,
        "created_at": NOON,
    }
    return PromptVersion(**{**given, **fields})


def a_move(to: PromptVersion | None, previous: PromptVersion | None = None, **fields: Any) -> Deployment:
    """Return a move of production to `to` (None: to nothing) from `previous`."""
    about = to or previous
    assert about is not None
    given: dict[str, Any] = {
        "sequence": 0,
        "name": about.name,
        "prompt_type": about.prompt_type,
        "environment": "production",
        "action": "promote" if to is not None else "withdraw",
        "version_id": None if to is None else to.version_id,
        "version": None if to is None else to.version,
        "previous_version_id": None if previous is None else previous.version_id,
        "previous_version": None if previous is None else previous.version,
        "at": NOON,
    }
    return Deployment(**{**given, **fields})


def an_experiment(name: str = "tone", **fields: Any) -> PromptExperiment:
    """Return an experiment of the variants `a` and `b`, which serve configurations."""
    given: dict[str, Any] = {
        "experiment_id": new_id(),
        "name": name,
        "prompt_type": PromptType.SYSTEM,
        "prompt_name": None,
        "variants": (PromptVariant(key="a", config={"t": 0}), PromptVariant(key="b", config={"t": 1})),
        "control": "a",
        "traffic_split": {"a": 0.5, "b": 0.5},
        "status": ExperimentStatus.RUNNING,
        "layer": "system/tone",
        "salt": "salt",
        "enrolment_salt": "enrolment",
        "created_at": NOON,
        "started_at": NOON,
    }
    return PromptExperiment(**{**given, **fields})


def an_epoch(experiment: PromptExperiment, number: int = 1, **fields: Any) -> Epoch:
    """Return an epoch in which `a` owns the first half of the hash space and `b` the second."""
    given: dict[str, Any] = {
        "experiment_id": experiment.experiment_id,
        "number": number,
        "starts_at": NOON,
        "weights": {"a": 0.5, "b": 0.5},
        "segments": (("8000000000000000", "a"), ("10000000000000000", "b")),
    }
    return Epoch(**{**given, **fields})


def an_exposure(experiment: PromptExperiment, unit: str = "u1", **fields: Any) -> Exposure:
    given: dict[str, Any] = {
        "experiment_id": experiment.experiment_id,
        "unit": unit,
        "variant": "a",
        "epoch": 1,
        "at": NOON,
    }
    return Exposure(**{**given, **fields})


def an_event(version_id: str | None = None, **fields: Any) -> MetricEvent:
    given: dict[str, Any] = {
        "event_id": new_id(),
        "version_id": version_id,
        "timestamp": NOON,
        "recorded_at": NOON,
    }
    return MetricEvent(**{**given, **fields})


def a_use(
    experiment: PromptExperiment, unit: str | None = "u1", variant: str | None = "a", **fields: Any
) -> MetricEvent:
    """Return an event that was part of an experiment."""
    return an_event(experiment_id=experiment.experiment_id, user_id=unit, variant=variant, **fields)
