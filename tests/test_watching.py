"""The watch in one process: what a look does, who leads, and what it survives."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import pytest

import promptab
from promptab import Bandit, InvalidInputError, Lab, Policy, PromptVariant
from promptab.decisions.stored import RolloutProgress
from promptab.stores import sqlite
from promptab.stores.base import Transaction
from promptab.watching import LEADERSHIP, WatchUpdate
from tests.conftest import url_of
from tests.rollouts import BETTER, CANDIDATE, CONTROL, PROMPT, WORSE, staged
from tests.steps import SteppingRunner

WINS = {"guardrails": ["error_rate <= 0.9"]}
INTERVAL = 0.3


@pytest.fixture(params=["file", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return url_of(request, tmp_path)


@pytest.fixture
async def other(store_url: str) -> AsyncIterator[Lab]:
    """Another process's lab, as far as that is possible."""
    async with promptab.open(store_url) as opened:
        yield opened


async def looked(lab: Lab, *names: str, apply: bool = True) -> list[WatchUpdate]:
    """Look once."""
    async with aclosing(lab.watch(names or None, interval=30.0, apply=apply, once=True)) as updates:
        return [update async for update in updates]


async def leads(lab: Lab) -> bool:
    """Whether it could lead now; it does not afterwards."""
    leadership = lab.store.leadership(LEADERSHIP, seconds=30.0)
    term = await leadership.claim()
    await leadership.release()
    return term is not None


async def test_a_look_promotes_what_has_won(lab: Lab) -> None:
    scene = await staged(lab, WINS)
    await scene.record(BETTER)
    [update] = await looked(lab)
    assert (update.state, update.subject, update.applied) == ("leading", scene.experiment.name, True)
    assert update.decision is not None
    assert (update.decision.decision.action, update.decision.actor) == ("promote", "watch")
    assert await scene.live() == CANDIDATE
    [after] = await looked(lab)
    assert (after.subject, after.sentence) == ("", "nothing that has a policy or a guard is running")


async def test_a_look_rolls_a_guarded_version_back(lab: Lab) -> None:
    scene = await staged(lab)
    guard = Policy.model_validate({"guardrails": ["success_rate >= 0.8"]})
    await lab.versions.promote(scene.versions[CANDIDATE].version_id, guard=guard)
    await lab.metrics.record_many(
        {"version_id": scene.versions[CANDIDATE].version_id, "success": number % 2 == 0}
        for number in range(60)
    )
    [update] = await looked(lab)
    assert update.subject == f"system/{PROMPT[0]}@{CANDIDATE}"
    assert (update.applied, await scene.live()) == (True, CONTROL)


async def test_without_applying_a_look_decides_and_nobody_leads(lab: Lab) -> None:
    scene = await staged(lab, WINS)
    await scene.record(WORSE)
    [update] = await looked(lab, apply=False)
    assert (update.state, update.applied) == ("looking", False)
    [stored] = await lab.decisions(scene.experiment_id)
    assert stored.status == "pending" or stored.decision.action == "continue"
    assert (await scene.now()).status == "running"


async def test_only_what_is_named_is_looked_at(lab: Lab) -> None:
    scene = await staged(lab, WINS)
    await scene.record(BETTER)
    [update] = await looked(lab, "another")
    assert update.sentence == "nothing of these is running"
    [update] = await looked(lab, scene.experiment_id)
    assert update.applied


async def test_an_experiment_without_a_policy_is_left_alone(lab: Lab) -> None:
    scene = await staged(lab)
    await scene.record(BETTER)
    [update] = await looked(lab)
    assert update.subject == ""
    assert await lab.decisions(scene.experiment_id) == []


async def test_an_experiment_whose_look_fails_is_reported_and_the_others_are_looked_at(lab: Lab) -> None:
    broken = await staged(lab, {**WINS, "ramp": [0.5, 1.0]})
    sound = await lab.experiments.create_experiment(
        "sound",
        "system",
        [{"version": CONTROL}, {"version": CANDIDATE}],
        prompt_name=PROMPT[0],
        policy={"allow_approximate": True, **WINS},
    )

    async def damage(tx: Transaction) -> None:
        await tx.rollouts.move(broken.experiment_id, RolloutProgress(step=99))

    await lab.store.write(damage)
    updates = {update.subject: update for update in await looked(lab)}
    assert set(updates) == {broken.experiment.name, sound.name}
    assert updates["sound"].error is None
    told = updates[broken.experiment.name].error
    assert told is not None
    assert told.startswith("the look failed: state.step: 99")


async def test_one_leads_and_another_stands_by_until_it_ends(lab: Lab, other: Lab) -> None:
    async with AsyncExitStack() as stack:
        # long enough for a busy machine to claim again in time
        first = await stack.enter_async_context(aclosing(lab.watch(interval=6.0)))
        second = await stack.enter_async_context(aclosing(other.watch(interval=6.0)))
        assert (await anext(first)).state == "leading"
        assert (await anext(second)).state == "standing_by"
        await first.aclose()
        while (update := await asyncio.wait_for(anext(second), 30)).state != "leading":
            assert update.state == "standing_by"


async def test_experiments_are_watched_when_they_come_and_forgotten_when_they_go(lab: Lab) -> None:
    async with aclosing(lab.watch(interval=INTERVAL)) as updates:
        assert (await anext(updates)).subject == ""
        scene = await staged(lab, WINS)
        while (update := await asyncio.wait_for(anext(updates), 30)).subject == "":
            pass
        assert update.subject == scene.experiment.name
        await lab.experiments.delete_experiment(scene.experiment_id)
        while (update := await asyncio.wait_for(anext(updates), 30)).subject != "":
            assert update.error is None


async def test_whoever_stops_looking_leads_no_longer(lab: Lab, other: Lab) -> None:
    async with aclosing(lab.watch(interval=30.0)) as updates:
        assert (await anext(updates)).state == "leading"
        assert not await leads(other)
    assert await leads(other)
    task = asyncio.ensure_future(iterated(lab))
    for _ in range(1_000):
        if not await leads(other):
            break
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await leads(other)


async def iterated(lab: Lab) -> None:
    async with aclosing(lab.watch(interval=30.0)) as updates:
        async for _ in updates:
            pass


@pytest.mark.parametrize("interval", [0.0, -1.0, float("nan"), 1e9])
async def test_an_interval_that_is_none_is_refused(lab: Lab, interval: float) -> None:
    with pytest.raises(InvalidInputError, match="interval"):
        lab.watch(interval=interval)


@pytest.mark.parametrize("actor", ["", "wa\ntch", 7])
async def test_an_actor_that_is_none_is_refused_before_the_first_look(lab: Lab, actor: Any) -> None:
    with pytest.raises(InvalidInputError, match="actor"):
        lab.watch(actor=actor)


@pytest.mark.parametrize("store_url", ["file"], indirect=True)
async def test_a_locked_file_is_told_and_waited_for(
    lab: Lab, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.2)
    scene = await staged(lab, WINS)
    await scene.record(BETTER)
    # a connection of its own, as another program would hold the file
    holder = sqlite3.connect(store_url.removeprefix("sqlite:///"), isolation_level=None)
    async with aclosing(lab.watch(interval=INTERVAL)) as updates:
        holder.execute("BEGIN IMMEDIATE")
        first = await asyncio.wait_for(anext(updates), 30)
        assert first.state == "away"
        assert first.error is not None
        assert first.error.startswith("the store is away, and is looked at again in 0.3 seconds: ")
        holder.execute("ROLLBACK")
        holder.close()
        while not (update := await asyncio.wait_for(anext(updates), 30)).applied:
            assert update.state in {"away", "leading", "standing_by"}
    assert await scene.live() == CANDIDATE


@pytest.mark.parametrize("url", ["file", "memory"])
def test_a_watch_that_is_cancelled_in_any_step_leaves_nothing_half_applied(url: str, tmp_path: Path) -> None:
    async def swept() -> None:
        where = "sqlite:///:memory:" if url == "memory" else f"sqlite:///{tmp_path / 'store.db'}"
        async with promptab.open(where) as lab:
            step, following = 1, 2
            scene = await staged(lab, WINS)
            await scene.record(BETTER)
            while True:
                was_cancelled, _ = await runner.cancelled_at(step, looked(lab))
                left_over = asyncio.all_tasks() - {asyncio.current_task()}
                if left_over:
                    await asyncio.wait(left_over, timeout=10.0)
                assert asyncio.all_tasks() == {asyncio.current_task()}
                assert await leads(lab)
                decisions = await lab.decisions(scene.experiment_id)
                applied = [stored for stored in decisions if stored.status == "applied"]
                moves = [move.version for move in await scene.history()]
                if applied:
                    assert (len(applied), moves) == (1, [CONTROL, CANDIDATE])
                    assert (await scene.now()).status == "completed"
                else:
                    assert moves == [CONTROL]
                    assert (await scene.now()).status == "running"
                if not was_cancelled:
                    return
                step, following = following, step + following

    with SteppingRunner() as runner:
        runner.run(swept())


async def test_a_look_moves_the_weights_of_a_bandit_where_a_step_is_due(lab: Lab) -> None:
    eager = Bandit(batch_hours=0.0, batch_units=20, minimum_units=20)
    arms = [PromptVariant(key=key, config={"key": key}) for key in "ab"]
    made = await lab.experiments.create_experiment("tone", "config", arms, bandit=eager, salt="s")
    events = []
    for unit in map(str, range(200)):
        variant = (await lab.experiments.assign("tone", unit)).variant
        events.append(
            {"experiment_id": "tone", "variant": variant, "user_id": unit, "success": variant == "b"}
        )
    await lab.metrics.record_many(events)
    for idle in (await looked(lab, apply=False), await looked(lab, "another")):
        assert [update.subject for update in idle] == [""]
        unmoved = await lab.experiments.get_experiment(made.experiment_id)
        assert unmoved is not None
        assert unmoved.traffic_split == {"a": 0.5, "b": 0.5}
    [update] = await looked(lab)
    assert (update.state, update.subject, update.decision) == ("leading", "tone", None)
    moved = await lab.experiments.get_experiment(made.experiment_id)
    assert moved is not None
    assert moved.traffic_split["b"] > 0.9
    [after] = await looked(lab)
    assert (after.subject, after.sentence) == ("", "nothing that has a policy or a guard is running")
