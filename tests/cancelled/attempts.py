"""One call to be cancelled, and what may be found afterwards; and the things that calls are made on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from promptab import Lab, PromptVariant, PromptVersion

T = TypeVar("T")

FIRST, SECOND = "1.0.0", "1.0.1"


class Stage(NamedTuple):
    """Where a call is made."""

    lab: Lab
    url: str
    folder: Path
    """Empty, and of this attempt alone."""
    name: str
    """Of the prompts and experiments of this attempt alone."""


class Attempt(NamedTuple):
    """One call, and a look at everything that it may change."""

    call: Callable[[], Coroutine[Any, Any, object]]
    look: Callable[[], Awaitable[object]]
    none: object
    """What the look finds where the call had no effect."""
    whole: object
    """What it finds after the whole call."""
    between: Sequence[object] = ()
    """What it may find where a call of several transactions was cut short: the same call again completes it."""


Preparation = Callable[[Stage], Coroutine[Any, Any, Attempt]]


def reads(
    call: Callable[[], Coroutine[Any, Any, T]], expected: object, shown: Callable[[T], object]
) -> Attempt:
    """A call that changes nothing that anybody could see, and has the same answer afterwards."""

    async def look() -> object:
        return shown(await call())

    return Attempt(call, look, none=expected, whole=expected)


async def pair(stage: Stage) -> tuple[PromptVersion, PromptVersion]:
    return (
        await stage.lab.versions.create_version(stage.name, "system", "Be kind."),
        await stage.lab.versions.create_version(stage.name, "system", "Be kinder."),
    )


class Running(NamedTuple):
    """A running experiment on two versions."""

    experiment_id: str
    first: PromptVersion
    second: PromptVersion


async def running(stage: Stage, **options: Any) -> Running:
    first, second = await pair(stage)
    experiment = await stage.lab.experiments.create_experiment(
        stage.name, "system", [PromptVariant(FIRST), PromptVariant(SECOND)], **options
    )
    return Running(experiment.experiment_id, first, second)


async def recorded(stage: Stage, units: int = 6, **options: Any) -> Running:
    """Start an experiment and record one event for each unit: half of them got the second version, which is better.

    Of the first version's events every third succeeded, of the second's every one.
    """
    begun = await running(stage, **options)
    await stage.lab.metrics.record_many(
        {
            "version_id": version.version_id,
            "success": version is begun.second or number % 3 == 0,
            "response_time": 1.0 + number % 5,
            "metrics": {"m": 1.0},
            "experiment_id": begun.experiment_id,
            "variant": version.version,
            "user_id": f"u{number}-{version.version}",
        }
        for number in range(units // 2)
        for version in (begun.first, begun.second)
    )
    return begun


async def moved_away(stage: Stage) -> str:
    """Start an experiment in which everybody is in a range that changed hands, so that the store is asked."""
    begun = await running(stage)
    for weights in ({FIRST: 0.0, SECOND: 1.0}, {FIRST: 1.0, SECOND: 0.0}):
        await stage.lab.experiments.update_weights(begun.experiment_id, weights, lead_seconds=0)
    return begun.experiment_id


async def dealt(stage: Stage, units: int = 6) -> tuple[str, dict[str, str]]:
    """Start an experiment and deal units, whose exposures are still queued; return the id, and unit -> variant."""
    begun = await running(stage)
    answers = {}
    for number in range(units):
        assignment = await stage.lab.experiments.assign(begun.experiment_id, f"u{number}")
        assert assignment.variant is not None
        answers[f"u{number}"] = assignment.variant
    return begun.experiment_id, answers
