"""Cancelling any public call in any step of the loop: all or nothing, nothing left behind, the next call works.

After SQLite's own loops over the Nth failure: a call is cancelled in step 1, then a fresh one in step 2, and so on
until one completes before its step comes. With PROMPTAB_FULL_RACES=1 in every step up to the 60th, and in every
seventh or tenth of them from there on; otherwise in those of Fibonacci's numbers. Later steps are ever more alike: the
caller waits for a transaction that runs by itself.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

import pytest

import promptab
from promptab import ABTestManager, Choice, Lab, MetricsCollector, VersionManager, retention
from promptab.delivering.outbox import AlertOutbox
from promptab.stores.base import Transaction
from tests.cancelled import alerts, experiments, labs, metrics, versions
from tests.cancelled.attempts import FIRST, Attempt, Preparation, Stage, running
from tests.steps import SteppingRunner

FULL = os.environ.get("PROMPTAB_FULL_RACES") == "1"

SETTLING_SECONDS = 10.0
"""Long past what any transaction takes: what is still there then is left over."""
MOST_STEPS = 5_000

PREPARATIONS: Mapping[type | ModuleType, Mapping[str, Preparation]] = {
    VersionManager: versions.PREPARATIONS,
    ABTestManager: experiments.PREPARATIONS,
    MetricsCollector: metrics.PREPARATIONS,
    AlertOutbox: alerts.PREPARATIONS,
    Lab: labs.PREPARATIONS,
    Choice: labs.OF_CHOICES,
    promptab: labs.OPENING,
}

every_store = pytest.mark.parametrize("store_url", ["file", "memory", "postgres"], indirect=True)


@pytest.fixture
def runner() -> Iterator[SteppingRunner]:
    with SteppingRunner() as runner:
        yield runner


@pytest.mark.parametrize("owner", [VersionManager, ABTestManager, MetricsCollector, AlertOutbox, Lab, Choice])
def test_every_public_coroutine_is_swept(owner: type) -> None:
    coroutines = {
        name
        for name, member in inspect.getmembers(owner, inspect.iscoroutinefunction)
        if not name.startswith("_")
    }
    assert coroutines == set(PREPARATIONS[owner])


@every_store
@pytest.mark.parametrize(
    "prepare",
    [
        pytest.param(prepare, id=f"{owner.__name__}.{name}")
        for owner, preparations in PREPARATIONS.items()
        for name, prepare in preparations.items()
    ],
)
def test_a_call_cancelled_in_any_step_has_its_whole_effect_or_none(
    runner: SteppingRunner,
    store_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    prepare: Preparation,
) -> None:
    # few events are enough for a reader to fold them
    monkeypatch.setattr(retention, "TAIL_EVENTS", 1)

    async def sweep() -> int:
        async with promptab.open(store_url) as lab, promptab.open(store_url) as other:
            for step in steps():
                stage = Stage(lab, store_url, tmp_path / f"p{step}", f"p{step}")
                attempt = await prepare(stage)
                was_cancelled, _ = await runner.cancelled_at(step, attempt.call())
                await assert_nothing_left_behind(lab, other)
                await assert_all_or_nothing(attempt, was_cancelled=was_cancelled)
                if not was_cancelled:
                    return step
                # an ended experiment is in no snapshot: the next step shall not cost more than this one
                for experiment in await lab.experiments.list_experiments(status="running"):
                    await lab.experiments.stop(experiment.experiment_id)
        raise AssertionError(f"not done after {MOST_STEPS} steps")

    assert runner.run(sweep()) > 1


def steps() -> Iterator[int]:
    step, following = 1, 2
    while step < MOST_STEPS:
        yield step
        if not FULL:
            step, following = following, step + following
        else:
            step += 1 if step < 60 else max(7, step // 10)


async def assert_all_or_nothing(attempt: Attempt, *, was_cancelled: bool) -> None:
    found = await attempt.look()
    if was_cancelled and found in attempt.between:
        await attempt.call()
        found = await attempt.look()
        was_cancelled = False
    assert found == attempt.whole or (was_cancelled and found == attempt.none)


async def assert_nothing_left_behind(lab: Lab, other: Lab) -> None:
    left_over = asyncio.all_tasks() - {asyncio.current_task()}
    if left_over:
        _, left_over = await asyncio.wait(left_over, timeout=SETTLING_SECONDS)
    assert left_over == set()
    # somebody else can write, and so can we: no transaction is open
    await other.store.write(write_nothing)
    await lab.store.write(write_nothing)


async def write_nothing(tx: Transaction) -> None:
    """Leave it at the transaction itself, which counts a new revision."""
    await tx.deployments.pointers()


@every_store
@pytest.mark.parametrize("call", ["choose", "assign", "record"])
def test_many_calls_cancelled_at_once_leave_a_lab_that_works(
    runner: SteppingRunner, store_url: str, tmp_path: Path, call: str
) -> None:
    async def main() -> None:
        async with promptab.open(store_url) as lab:
            experiment = (await running(Stage(lab, store_url, tmp_path, "tone"))).experiment_id

            async def act(user: int) -> object:
                if call == "choose":
                    return await lab.choose("tone", user_id=user)
                if call == "assign":
                    return await lab.experiments.assign(experiment, user)
                return await lab.metrics.record_event(
                    None, True, experiment_id=experiment, variant=FIRST, user_id=user
                )

            for turns in range(12):
                tasks = [asyncio.ensure_future(act(user)) for user in range(turns * 20, turns * 20 + 20)]
                for _ in range(turns):
                    await asyncio.sleep(0)
                for task in tasks[::2]:
                    task.cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
                refused = [result for result in results[1::2] if isinstance(result, BaseException)]
                assert refused == []
            await lab.store.flush()
            kept = await lab.experiments.get_experiment_assignments(experiment)
            asked = {str(user) for turns in range(12) for user in range(turns * 20 + 1, turns * 20 + 20, 2)}
            assert asked <= set(kept)

    runner.run(main())
