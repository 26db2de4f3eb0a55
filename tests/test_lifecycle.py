"""The tables of statuses, and what a history of deployments says, without a store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from promptab import Deployment, ExperimentStatus, PromptType, PromptVersion, StateError, VersionStatus
from promptab.lifecycle import (
    check_experiment_transition,
    check_version_transition,
    deployed_at,
    rollback_candidates,
)

START = datetime(2026, 1, 5, 12, tzinfo=UTC)


def version(status: VersionStatus) -> PromptVersion:
    return PromptVersion(
        version_id="00000000-0000-0000-0000-000000000001",
        name="greeting",
        prompt_type=PromptType.SYSTEM,
        version="1.0.0",
        content_hash="0" * 64,
        status=status,
        created_at=START,
    )


def history(*moves: str) -> list[Deployment]:
    """`+a` promotes a, `-` withdraws, `<a` rolls back to a; an hour apart."""
    entries: list[Deployment] = []
    live: str | None = None
    for number, move in enumerate(moves):
        target = move[1:] or None
        entries.append(
            Deployment(
                sequence=number + 1,
                name="greeting",
                prompt_type=PromptType.SYSTEM,
                environment="production",
                action={"+": "promote", "<": "rollback", "-": "withdraw"}[move[0]],  # type: ignore[arg-type]
                version_id=target,
                version=target,
                previous_version_id=live,
                previous_version=live,
                at=START + timedelta(hours=number),
            )
        )
        live = target
    return entries


VERSION_STEPS = {
    ("draft", "active"),
    ("draft", "production"),
    ("draft", "deprecated"),
    ("draft", "archived"),
    ("active", "production"),
    ("active", "deprecated"),
    ("active", "archived"),
    ("production", "active"),
    ("production", "deprecated"),
    ("deprecated", "active"),
    ("deprecated", "production"),
    ("deprecated", "archived"),
    ("archived", "active"),
}

EXPERIMENT_STEPS = {
    ("draft", "running"),
    ("draft", "stopped"),
    ("running", "paused"),
    ("running", "completed"),
    ("running", "stopped"),
    ("paused", "running"),
    ("paused", "completed"),
    ("paused", "stopped"),
}


@pytest.mark.parametrize(("current", "status"), list(product(VersionStatus, repeat=2)))
def test_version_status_follows_the_table(current: VersionStatus, status: VersionStatus) -> None:
    if current == status or (current.value, status.value) in VERSION_STEPS:
        check_version_transition(version(current), status)
        return
    with pytest.raises(StateError, match=rf"system/greeting@1\.0\.0 is {current} and cannot become {status}"):
        check_version_transition(version(current), status)


@pytest.mark.parametrize(("current", "status"), list(product(ExperimentStatus, repeat=2)))
def test_experiment_status_follows_the_table(current: ExperimentStatus, status: ExperimentStatus) -> None:
    if current == status or (current.value, status.value) in EXPERIMENT_STEPS:
        check_experiment_transition("greeting", current, status)
        return
    with pytest.raises(StateError, match=rf"'greeting' is {current} and cannot become {status}"):
        check_experiment_transition("greeting", current, status)


def test_a_refused_transition_says_what_is_possible() -> None:
    with pytest.raises(StateError, match="from archived it can become active"):
        check_version_transition(version(VersionStatus.ARCHIVED), VersionStatus.PRODUCTION)
    with pytest.raises(StateError, match="it has ended; create a new experiment"):
        check_experiment_transition("greeting", ExperimentStatus.STOPPED, ExperimentStatus.RUNNING)


@pytest.mark.parametrize(
    ("moves", "candidates"),
    [
        ([], []),
        (["+a"], []),
        (["+a", "+b", "+c"], ["b", "a"]),
        (["+a", "+b", "<a"], []),
        (["+a", "+b", "+c", "<b"], ["a"]),
        (["+a", "+b", "<a", "+c"], ["a"]),
        (["+a", "+b", "<a", "+b", "+c"], ["b", "a"]),
        (["+a", "+b", "+a"], ["b"]),
        (["+a", "+b", "+a", "+b"], ["a"]),
        (["+a", "-"], []),
        (["+a", "+b", "-"], ["a"]),
        (["+a", "+b", "-", "+c"], ["a"]),
        (["+a", "+b", "+c", "<a"], []),
    ],
    ids=lambda value: " ".join(value) or "none",
)
def test_rollback_candidates_are_what_was_live_before_best_first(
    moves: list[str], candidates: list[str]
) -> None:
    assert [former.version for former in rollback_candidates(history(*moves))] == candidates


def test_deployed_at_is_the_last_entry_at_or_before_the_time() -> None:
    entries = history("+a", "+b", "-", "+c")
    found = [
        deployed_at(entries, START + timedelta(minutes=minutes)) for minutes in (-1, 0, 59, 60, 120, 900)
    ]
    assert [None if move is None else move.version for move in found] == [None, "a", "a", "b", None, "c"]
