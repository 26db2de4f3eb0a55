"""A request with a shadow, cancelled in any step: the shadow is sent for what has an answer, or not at all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import promptab
from promptab import Lab
from tests.cancelled.calls import answering
from tests.shadows.conftest import experiment_with_shadow, shadow_events
from tests.steps import SteppingRunner
from tests.test_cancellation import assert_nothing_left_behind, steps


@pytest.fixture
def runner() -> Iterator[SteppingRunner]:
    with SteppingRunner() as runner:
        yield runner


def test_a_cancelled_request_leaves_a_whole_run_or_none(runner: SteppingRunner) -> None:
    async def sweep() -> list[tuple[bool, bool | None, int]]:
        seen: list[tuple[bool, bool | None, int]] = []
        async with promptab.open("sqlite:///:memory:") as lab, promptab.open("sqlite:///:memory:") as other:
            await experiment_with_shadow(lab)
            served = await lab.versions.get_version("reply", "system", "1.0.0")
            assert served is not None
            for step in steps():
                before = await outcomes(lab, served.version_id)
                call = lab.complete(
                    "reply", client=answering(), variables={"customer": "Ada"}, user_id=f"u{step}"
                )
                was_cancelled, _ = await runner.cancelled_at(step, call)
                runs = len(await shadow_events(lab)) - before[1]
                await assert_nothing_left_behind(lab, other)
                ended = (await outcomes(lab, served.version_id))[0] - before[0]
                seen.append((was_cancelled, bool(ended), runs))
                if not was_cancelled:
                    return seen
        raise AssertionError("the call did not end")

    seen = runner.run(sweep())
    assert seen[-1] == (False, True, 1)
    assert {runs for _, _, runs in seen} == {0, 1}
    # a run stands beside an outcome: what was cancelled before it had one has none
    assert all(ended for _, ended, runs in seen if runs)


async def outcomes(lab: Lab, version_id: str) -> tuple[int, int]:
    """Return how many served calls said whether they succeeded, and how many runs there are."""
    runs = len(await shadow_events(lab))
    events = await lab.metrics.get_events(version_id)
    return sum(event.success is not None for event in events), runs
