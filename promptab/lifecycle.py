"""Which status may follow which, and what a history of deployments says: tables and pure functions.

Production is a pointer, not a status of its own: a version is `production` exactly while the environment
points at it. So the tables speak of the status a version has *beside* that pointer, and moves of the pointer
are planned here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from promptab.errors import StateError
from promptab.models import Deployment, ExperimentStatus, PromptVersion, VersionStatus

VERSION_TRANSITIONS: dict[VersionStatus, frozenset[VersionStatus]] = {
    VersionStatus.DRAFT: frozenset(
        {VersionStatus.ACTIVE, VersionStatus.PRODUCTION, VersionStatus.DEPRECATED, VersionStatus.ARCHIVED}
    ),
    VersionStatus.ACTIVE: frozenset(
        {VersionStatus.PRODUCTION, VersionStatus.DEPRECATED, VersionStatus.ARCHIVED}
    ),
    VersionStatus.PRODUCTION: frozenset({VersionStatus.ACTIVE, VersionStatus.DEPRECATED}),
    VersionStatus.DEPRECATED: frozenset(
        {VersionStatus.ACTIVE, VersionStatus.PRODUCTION, VersionStatus.ARCHIVED}
    ),
    VersionStatus.ARCHIVED: frozenset({VersionStatus.ACTIVE}),
}

EXPERIMENT_TRANSITIONS: dict[ExperimentStatus, frozenset[ExperimentStatus]] = {
    ExperimentStatus.DRAFT: frozenset({ExperimentStatus.RUNNING, ExperimentStatus.STOPPED}),
    ExperimentStatus.RUNNING: frozenset(
        {ExperimentStatus.PAUSED, ExperimentStatus.COMPLETED, ExperimentStatus.STOPPED}
    ),
    ExperimentStatus.PAUSED: frozenset(
        {ExperimentStatus.RUNNING, ExperimentStatus.COMPLETED, ExperimentStatus.STOPPED}
    ),
    ExperimentStatus.COMPLETED: frozenset(),
    ExperimentStatus.STOPPED: frozenset(),
}

LIVE_STATUSES = frozenset({ExperimentStatus.RUNNING, ExperimentStatus.PAUSED})
ENDED_STATUSES = frozenset({ExperimentStatus.COMPLETED, ExperimentStatus.STOPPED})

SERVED_STATUSES = frozenset({VersionStatus.ACTIVE, VersionStatus.PRODUCTION})
"""The statuses that `latest` and ranges look at."""


def check_version_transition(version: PromptVersion, status: VersionStatus) -> None:
    """Raise `StateError` unless the version may take that status. Staying as it is is always allowed."""
    if status == version.status or status in VERSION_TRANSITIONS[version.status]:
        return
    allowed = ", ".join(sorted(VERSION_TRANSITIONS[version.status]))
    raise StateError(
        f"{version.label} is {version.status} and cannot become {status}; from {version.status} it can become {allowed}"
    )


def check_experiment_transition(name: str, current: ExperimentStatus, status: ExperimentStatus) -> None:
    if status == current or status in EXPERIMENT_TRANSITIONS[current]:
        return
    allowed = (
        ", ".join(sorted(EXPERIMENT_TRANSITIONS[current])) or "nothing: it has ended; create a new experiment"
    )
    raise StateError(
        f"experiment {name!r} is {current} and cannot become {status}; from {current} it can become {allowed}"
    )


class Former(NamedTuple):
    """A version that was live before, as the history names it."""

    version_id: str
    version: str


def rollback_candidates(history: Iterable[Deployment]) -> list[Former]:
    """Return the versions a rollback may go back to, best first, from an environment's history in its order.

    The history is replayed as a stack: a promotion puts its version on top, a rollback or a withdrawal takes
    the version it left out for good, so that a rollback never returns to it unless it is promoted again. What
    is live now is not a candidate.
    """
    stack: list[Former] = []
    live: str | None = None
    for move in history:
        if move.action in {"rollback", "withdraw"} and move.previous_version_id is not None:
            stack = [former for former in stack if former.version_id != move.previous_version_id]
        if move.action == "rollback":
            # a rollback may have passed over versions that were gone or archived: they are left behind as
            # well
            while stack and stack[-1].version_id != move.version_id:
                stack.pop()
        if move.version_id is not None and (not stack or stack[-1].version_id != move.version_id):
            stack.append(Former(move.version_id, move.version or ""))
        live = move.version_id
    candidates: list[Former] = []
    for former in reversed(stack):
        if former.version_id != live and former not in candidates:
            candidates.append(former)
    return candidates


def deployed_at(history: Sequence[Deployment], time: datetime) -> Deployment | None:
    """Return the last entry at or before `time`, or None where nothing was live then."""
    live: Deployment | None = None
    for move in history:
        if move.at <= time:
            live = move
    return live if live is not None and live.version_id is not None else None
