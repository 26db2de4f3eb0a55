"""What must hold between processes: races have one winner, nothing acknowledged is lost, nothing hangs at the end."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable

import pytest

import promptab
from promptab import Lab, PromptVariant, PromptVersion
from tests.processes import WORKERS, environment, race, start

FULL = os.environ.get("PROMPTAB_FULL_RACES") == "1"
"""Race for minutes, and with as many processes and rounds as the promises name."""

ROUND_PROCESSES, ROUNDS = (16, 100) if FULL else (8, 5)
MOVING_SECONDS = 30.0 if FULL else 3.0
USERS = 2_000 if FULL else 100
ASSIGNING_ROUNDS = [10, *[60] * 7] if FULL else [30, 140, 140]

KILLS = 100 if FULL else 10
ACKNOWLEDGED_BEFORE_A_KILL = 150


async def two_versions(lab: Lab) -> tuple[PromptVersion, PromptVersion]:
    return (
        await lab.versions.create_version("tone", "system", "Be kind."),
        await lab.versions.create_version("tone", "system", "Be kinder."),
    )


async def assert_one_production_explained_by_history(lab: Lab) -> None:
    production = await lab.versions.list_versions("tone", status="production")
    history = await lab.versions.deployments("tone", "system")
    assert [version.version_id for version in production] == [history[-1].version_id]
    # every move began where the one before had ended
    assert [move.previous_version_id for move in history] == [
        None,
        *(move.version_id for move in history[:-1]),
    ]


@pytest.mark.parametrize(("processes", "each"), [(2, 20), (8, 5)])
async def test_processes_that_create_the_next_version_at_once_get_numbers_without_a_gap(
    lasting_url: str, processes: int, each: int
) -> None:
    results = race(
        lasting_url, [("create_next", {"count": each, "who": f"p{number}"}) for number in range(processes)]
    )
    given = [number for result in results for number in result]
    expected = [f"1.0.{patch}" for patch in range(processes * each)]
    assert sorted(given, key=expected.index) == expected
    async with promptab.open(lasting_url) as lab:
        history = await lab.versions.get_version_history("tone", "system")
        assert sorted((version.version for version in history), key=expected.index) == expected
        for number, result in enumerate(results):
            # each process finds its own text under the numbers that it was given
            for turn, version in enumerate(result):
                found = await lab.versions.get_version("tone", "system", version)
                assert found is not None
                assert found.template == f"Be kind, p{number} {turn}."


async def test_one_process_wins_when_all_create_the_same_version(lasting_url: str) -> None:
    results = race(
        lasting_url,
        [
            ("create_exact_in_rounds", {"rounds": ROUNDS, "who": f"p{number}"})
            for number in range(ROUND_PROCESSES)
        ],
    )
    async with promptab.open(lasting_url) as lab:
        stored = {
            version.version: version.template
            for version in await lab.versions.get_version_history("tone", "system")
        }
    assert len(stored) == ROUNDS
    for turn in range(ROUNDS):
        winners = [f"Be kind, p{number}." for number, won in enumerate(results) if won[turn]]
        assert winners == [stored[f"1.0.{turn}"]]


async def test_of_two_processes_that_promote_from_what_both_saw_one_moves_and_one_is_told(
    lasting_url: str,
) -> None:
    async with promptab.open(lasting_url) as lab:
        first, second = await two_versions(lab)
        live = await lab.versions.create_version("tone", "system", "Be as you were.")
        await lab.versions.promote(live.version_id)
    results = race(
        lasting_url,
        [
            ("promote", {"version_id": version.version_id, "expected": live.version_id})
            for version in (first, second)
        ],
    )
    assert sorted(results) == ["ConflictError", "moved"]
    winner = (first, second)[results.index("moved")]
    async with promptab.open(lasting_url) as lab:
        await assert_one_production_explained_by_history(lab)
        history = await lab.versions.deployments("tone", "system")
        assert [move.version_id for move in history] == [live.version_id, winner.version_id]


async def test_there_is_always_one_production_version_while_processes_promote(lasting_url: str) -> None:
    async with promptab.open(lasting_url) as lab:
        version_ids = [version.version_id for version in await two_versions(lab)]
        await lab.versions.promote(version_ids[0])
    promoting = [
        ("promote_in_turn", {"version_ids": order, "turns": 15}) for order in (version_ids, version_ids[::-1])
    ]
    *_, seen = race(lasting_url, [*promoting, *promoting, ("count_production", {"turns": 60})])
    assert seen == [1]
    async with promptab.open(lasting_url) as lab:
        await assert_one_production_explained_by_history(lab)
        assert len(await lab.versions.deployments("tone", "system")) > 1


async def test_there_is_always_one_production_version_while_processes_promote_and_roll_back(
    lasting_url: str,
) -> None:
    async with promptab.open(lasting_url) as lab:
        version_ids = [version.version_id for version in await two_versions(lab)]
        await lab.versions.promote(version_ids[0])
    moving = ("move_about", {"version_ids": version_ids, "seconds": MOVING_SECONDS})
    watching = ("watch_production", {"seconds": MOVING_SECONDS})
    *_, one, other = race(lasting_url, [*[moving] * 4, *[watching] * 2])
    assert (one, other) == ([1], [1])
    async with promptab.open(lasting_url) as lab:
        await assert_one_production_explained_by_history(lab)
        actions = {move.action for move in await lab.versions.deployments("tone", "system")}
        assert actions == {"promote", "rollback"}


async def test_processes_that_assign_the_same_users_at_once_agree(lasting_url: str) -> None:
    async with promptab.open(lasting_url) as lab:
        first, second = await two_versions(lab)
        await lab.experiments.create_experiment(
            "tone", "system", [PromptVariant(first.version), PromptVariant(second.version)]
        )
    one, other = race(lasting_url, [("assign", {"experiment": "tone", "users": 300, "rounds": 2})] * 2)
    assert one == other
    await assert_every_user_kept_one_variant(lasting_url, [one, other])


async def test_processes_agree_on_every_user_while_weights_change(lasting_url: str) -> None:
    async with promptab.open(lasting_url) as lab:
        first, second = await two_versions(lab)
        await lab.experiments.create_experiment(
            "tone", "system", [PromptVariant(first.version, 0.9), PromptVariant(second.version, 0.1)]
        )
    splits = [{first.version: 1 - share, second.version: share} for share in (0.5, 0.9, 0.2)]
    *answers, steps = race(
        lasting_url,
        [
            # the longest assigns past the moment at which the last weights take effect
            *[
                ("assign", {"experiment": "tone", "users": USERS, "rounds": rounds})
                for rounds in ASSIGNING_ROUNDS
            ],
            ("reweigh", {"experiment": "tone", "splits": splits}),
        ],
    )
    assert steps == 3
    await assert_every_user_kept_one_variant(lasting_url, answers)
    late = race(lasting_url, [("assign", {"experiment": "tone", "users": 200, "rounds": 1})] * 2)
    await assert_every_user_kept_one_variant(lasting_url, [*answers, *late])


async def assert_every_user_kept_one_variant(url: str, answers: list[dict[str, list[str]]]) -> None:
    told: dict[str, set[str]] = {}
    for answer in answers:
        for user, variants in answer.items():
            told.setdefault(user, set()).update(variants)
    assert {user: variants for user, variants in told.items() if len(variants) != 1} == {}
    async with promptab.open(url) as lab:
        stored = await lab.experiments.get_experiment_assignments("tone")
    assert {user: {variant} for user, variant in stored.items()} == told
    assert len({frozenset(variants) for variants in told.values()}) == 2


async def test_every_acknowledged_event_survives_a_kill_and_none_is_there_twice(
    lasting_url: str, assert_whole: Callable[[str], None]
) -> None:
    acknowledged: dict[str, tuple[str, int]] = {}
    for run in range(KILLS):
        worker = start("recording.py", lasting_url, f"run{run}")
        assert worker.stdout is not None
        # the kills come after ever more lines, so that they fall into different moments of a batch
        lines = [worker.stdout.readline() for _ in range(ACKNOWLEDGED_BEFORE_A_KILL + 7 * run)]
        worker.kill()
        # by the stream that was read so far, which may hold the beginning of the next line already
        lines += worker.stdout.readlines()
        _, errors = worker.communicate(timeout=60)
        assert worker.returncode == -9, errors
        # a line that the kill cut short was not told
        for line in lines:
            if line.endswith("\n"):
                name, number, event_id = line.split()
                acknowledged[event_id] = (name, int(number))
    assert len(acknowledged) >= KILLS * ACKNOWLEDGED_BEFORE_A_KILL

    async with promptab.open(lasting_url) as lab:
        [version_id] = (await lab.metrics.get_summary()).by_version
        stored = await lab.metrics.get_events(version_id)
        told = Counter((event.metadata["run"], event.metadata["number"]) for event in stored)
        by_id = {event.event_id: (event.metadata["run"], event.metadata["number"]) for event in stored}
        assert {
            event_id for event_id in acknowledged if by_id.get(event_id) != acknowledged[event_id]
        } == set()
        assert max(told.values()) == 1
        assert len(by_id) == len(stored)
        # telling everything again, as a client does that never heard the answer, adds nothing
        await asyncio.gather(*map(lab.store.record, stored))
        assert (await lab.metrics.get_metrics(version_id)).total_events == len(stored)
    assert_whole(lasting_url)


@pytest.mark.parametrize("how", ["managers", "lab", "both"])
async def test_a_script_that_never_closes_ends_cleanly_and_loses_nothing(lasting_url: str, how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-Xdev", "-Werror::ResourceWarning", str(WORKERS / "never_closing.py"), how],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment(PROMPTAB_URL=lasting_url),
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
    async with promptab.open(lasting_url) as lab:
        versions = await lab.versions.get_version_history("tone", "system")
        assert [version.template for version in versions] == ["Be kind.", "Be kinder."]
        assert (await lab.metrics.get_metrics(versions[0].version_id)).total_events == 1
        assert set(await lab.experiments.get_experiment_assignments("tone")) == {
            str(user) for user in range(50)
        }
