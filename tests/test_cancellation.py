"""Cancelling any public call in any step of the loop: all or nothing, nothing left behind, the next call works.

After SQLite's own loops over the Nth failure: a call is cancelled in step 1, then a fresh one in step 2, and so on
until one completes before its step comes. Past step 30 every third is taken: by then the caller waits for a
transaction that runs by itself, and its steps are alike.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, NamedTuple

import pytest

import promptab
from promptab import Lab, PromptVariant, PromptVersion
from promptab.managed import utc_now
from promptab.stores.base import Transaction
from tests.steps import SteppingRunner

pytestmark = pytest.mark.parametrize("store_url", ["file", "memory", "postgres"], indirect=True)

SETTLING_SECONDS = 10.0
"""Long past what any transaction takes: what is still there then is left over."""
MOST_STEPS = 2_000

Call = Callable[[], Coroutine[Any, Any, object]]
Look = Callable[[], Coroutine[Any, Any, object]]


class Attempt(NamedTuple):
    """One call on things of its own, and a look at what it has changed."""

    call: Call
    look: Look
    """Reads everything that the call may change."""
    done: Callable[[object, object], bool]
    """Whether `after` is `before` with the whole effect of the call."""


Preparation = Callable[[Lab, str], Coroutine[Any, Any, Attempt]]


async def pair(lab: Lab, name: str) -> tuple[PromptVersion, PromptVersion]:
    return (
        await lab.versions.create_version(name, "system", "Be kind."),
        await lab.versions.create_version(name, "system", "Be kinder."),
    )


async def running(lab: Lab, name: str) -> str:
    first, second = await pair(lab, name)
    experiment = await lab.experiments.create_experiment(
        name, "system", [PromptVariant(first.version), PromptVariant(second.version)]
    )
    return experiment.experiment_id


async def creating(lab: Lab, name: str) -> Attempt:
    async def look() -> object:
        return (
            [
                (version.template, version.tags)
                for version in await lab.versions.get_version_history(name, "system")
            ],
            [
                (move.environment, move.action)
                for move in await lab.versions.deployments(name, "system", None)
            ],
        )

    return Attempt(
        lambda: lab.versions.create_version(
            name, "system", "Be kind.", tags=["a", "b", "production", "staging"], created_by="Ada"
        ),
        look,
        lambda before, after: (
            before == ([], [])
            and after
            == (
                [("Be kind.", ("a", "b", "production", "staging"))],
                [("production", "promote"), ("staging", "promote")],
            )
        ),
    )


async def states(
    lab: Lab, name: str
) -> tuple[list[tuple[str, str, tuple[str, ...]]], list[tuple[str, str | None]]]:
    """Return (version, status, tags) of each version, and (action, version) of each move, oldest first."""
    return (
        [(v.version, v.status.value, v.tags) for v in await lab.versions.get_version_history(name, "system")],
        [(move.action, move.version) for move in await lab.versions.deployments(name, "system")],
    )


async def promoting(lab: Lab, name: str) -> Attempt:
    first, second = await pair(lab, name)
    await lab.versions.promote(first.version_id)
    return Attempt(
        lambda: lab.versions.promote(second.version_id),
        lambda: states(lab, name),
        lambda _, after: (
            after
            == (
                [("1.0.0", "active", ()), ("1.0.1", "production", ("production",))],
                [("promote", "1.0.0"), ("promote", "1.0.1")],
            )
        ),
    )


async def rolling_back(lab: Lab, name: str) -> Attempt:
    first, second = await pair(lab, name)
    await lab.versions.promote(first.version_id)
    await lab.versions.promote(second.version_id)
    return Attempt(
        lambda: lab.versions.rollback(name, "system", expected="1.0.1"),
        lambda: states(lab, name),
        lambda _, after: (
            after
            == (
                [("1.0.0", "production", ("production",)), ("1.0.1", "deprecated", ())],
                [("promote", "1.0.0"), ("promote", "1.0.1"), ("rollback", "1.0.0")],
            )
        ),
    )


async def tagging(lab: Lab, name: str) -> Attempt:
    first, _ = await pair(lab, name)
    return Attempt(
        lambda: lab.versions.tag_version(first.version_id, "best"),
        lambda: states(lab, name),
        lambda _, after: after == ([("1.0.0", "active", ("best",)), ("1.0.1", "active", ())], []),
    )


async def changing_status(lab: Lab, name: str) -> Attempt:
    first, _ = await pair(lab, name)
    await lab.versions.promote(first.version_id)
    return Attempt(
        lambda: lab.versions.update_status(first.version_id, "deprecated"),
        lambda: states(lab, name),
        lambda _, after: (
            after
            == (
                [("1.0.0", "deprecated", ()), ("1.0.1", "active", ())],
                [("promote", "1.0.0"), ("withdraw", None)],
            )
        ),
    )


async def creating_experiment(lab: Lab, name: str) -> Attempt:
    first, second = await pair(lab, name)

    async def look() -> object:
        found = await lab.experiments.list_experiments(name)
        # an experiment without its first map of weights could assign nobody
        return [(await lab.experiments.assign(experiment.experiment_id, "u1")).reason for experiment in found]

    return Attempt(
        lambda: lab.experiments.create_experiment(
            name, "system", [PromptVariant(first.version), PromptVariant(second.version)]
        ),
        look,
        lambda before, after: before == [] and after == ["allocated"],
    )


async def changing_weights(lab: Lab, name: str) -> Attempt:
    experiment = await running(lab, name)

    async def look() -> object:
        found = await lab.experiments.get_experiment(experiment)
        assert found is not None
        live = (await lab.store.snapshot()).experiment(experiment, utc_now())
        assert live is not None
        return dict(found.traffic_split), dict(live.experiment.traffic_split), len(live.dealings)

    new = {"1.0.0": 0.25, "1.0.1": 0.75}
    return Attempt(
        lambda: lab.experiments.update_weights(experiment, new, lead_seconds=0),
        look,
        lambda _, after: after == (new, new, 2),
    )


async def assigning(lab: Lab, name: str) -> Attempt:
    experiment = await running(lab, name)
    # everybody is in a range that moved, so that the store is asked
    await lab.experiments.update_weights(experiment, {"1.0.0": 0.0, "1.0.1": 1.0}, lead_seconds=0)
    await lab.experiments.update_weights(experiment, {"1.0.0": 1.0, "1.0.1": 0.0}, lead_seconds=0)
    return Attempt(
        lambda: lab.experiments.assign(experiment, "u1"),
        lambda: lab.experiments.get_experiment_assignments(experiment),
        lambda before, after: before == {} and after == {"u1": "1.0.0"},
    )


async def recording(lab: Lab, name: str) -> Attempt:
    experiment = await running(lab, name)
    version = await lab.versions.get_version(name, "system", "1.0.0")
    assert version is not None

    async def look() -> object:
        await lab.store.flush()
        events = await lab.metrics.get_events(version.version_id)
        return (
            [(event.success, dict(event.metrics)) for event in events],
            await lab.experiments.get_experiment_assignments(experiment),
        )

    return Attempt(
        lambda: lab.metrics.record_event(
            version.version_id,
            True,
            metrics={"m": 1.0},
            experiment_id=experiment,
            variant="1.0.0",
            user_id="u1",
        ),
        look,
        lambda before, after: before == ([], {}) and after == ([(True, {"m": 1.0})], {"u1": "1.0.0"}),
    )


async def comparing(lab: Lab, name: str) -> Attempt:
    experiment = await running(lab, name)
    for user in range(4):
        choice = await lab.choose(name, user_id=user)
        await choice.record(success=user % 2 == 0)

    async def look() -> object:
        return (await lab.compare(experiment)).metrics

    return Attempt(lambda: lab.compare(experiment), look, lambda before, after: before == after)


async def choosing(lab: Lab, name: str) -> Attempt:
    _, second = await pair(lab, name)
    await lab.versions.promote(second.version_id)  # and the snapshot in hand does not know it yet

    async def look() -> object:
        choice = await lab.choose(name)
        return choice.version and choice.version.version, choice.source, choice.render()

    return Attempt(
        lambda: lab.choose(name),
        look,
        lambda before, after: before == after == ("1.0.1", "environment", "Be kinder."),
    )


@pytest.fixture
def runner() -> Iterator[SteppingRunner]:
    with SteppingRunner() as runner:
        yield runner


@pytest.mark.parametrize(
    "prepare",
    [
        creating,
        promoting,
        rolling_back,
        tagging,
        changing_status,
        creating_experiment,
        changing_weights,
        assigning,
        recording,
        comparing,
        choosing,
    ],
    ids=lambda prepare: prepare.__name__,
)
def test_a_call_cancelled_in_any_step_has_its_whole_effect_or_none(
    runner: SteppingRunner, store_url: str, prepare: Preparation
) -> None:
    async def sweep() -> int:
        async with promptab.open(store_url) as lab, promptab.open(store_url) as other:
            for step in itertools.chain(range(1, 30), range(30, MOST_STEPS, 3)):
                # choosing looks at what the call itself has to find out, so it may not look before
                attempt = await prepare(lab, f"p{step}")
                before = None if prepare is choosing else await attempt.look()
                was_cancelled, _ = await runner.cancelled_at(step, attempt.call())
                await assert_nothing_left_behind(lab, other)
                after = await attempt.look()
                before = after if prepare is choosing else before
                whole = attempt.done(before, after)
                assert whole or (was_cancelled and after == before), (step, before, after)
                if not was_cancelled:
                    return step
                # an ended experiment is in no snapshot: the next step shall not cost more than this one
                for experiment in await lab.experiments.list_experiments(status="running"):
                    await lab.experiments.stop(experiment.experiment_id)
        raise AssertionError(f"not done after {MOST_STEPS} steps")

    assert runner.run(sweep()) > 1


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


@pytest.mark.parametrize("call", ["choose", "assign", "record"])
def test_many_calls_cancelled_at_once_leave_a_lab_that_works(
    runner: SteppingRunner, store_url: str, call: str
) -> None:
    async def main() -> None:
        async with promptab.open(store_url) as lab:
            experiment = await running(lab, "tone")

            async def act(user: int) -> object:
                if call == "choose":
                    return await lab.choose("tone", user_id=user)
                if call == "assign":
                    return await lab.experiments.assign(experiment, user)
                return await lab.metrics.record_event(
                    None, True, experiment_id=experiment, variant="1.0.0", user_id=user
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
