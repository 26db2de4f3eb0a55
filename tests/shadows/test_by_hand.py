"""Runs by code that calls models itself, what is said of a run later, and the settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import promptab
from promptab import InvalidInputError, Lab, NotFoundError, ShadowSettings, StateError
from tests.shadows.conftest import (
    LONGEST,
    SERVED_MODELS,
    SHADOW_MODELS,
    experiment_with_shadow,
    one_run,
    shadow_events,
)


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    settings = ShadowSettings(timeout_seconds=LONGEST, close_seconds=LONGEST)
    async with promptab.open("sqlite:///:memory:", shadows=settings) as opened:
        yield opened


async def ask(lab: Lab, client: Any, user: str = "u", **how: Any) -> promptab.Completion:
    async with asyncio.timeout(LONGEST):
        return await lab.complete("reply", client=client, variables={"customer": "Ada"}, user_id=user, **how)


async def test_feedback_on_a_run_stays_in_the_shadow(lab: Lab, client: Any) -> None:
    experiment = await experiment_with_shadow(lab)
    served = await ask(lab, client)
    run = await one_run(lab)
    said = await lab.feedback(run.event_id, rating=2, metrics={"judged": 0.5})
    assert (said.kind, said.version_id, said.experiment_id, said.user_id) == ("shadow", None, None, None)
    assert said.shadow is not None
    assert said.shadow.feedback_on == run.event_id
    await lab.feedback(served.call_id, rating=5)
    with pytest.raises(NotFoundError):
        await lab.feedback(said.event_id, rating=1)
    (report,) = (await lab.shadow_report(experiment.experiment_id)).shadows
    assert (report.runs, report.rating) == (1, 2.0)
    assert (await lab.metrics.get_metrics(served.call.subject.version_id or "")).avg_rating == 5.0


async def test_code_that_calls_by_itself_is_given_the_shadows_to_render_call_and_record(
    lab: Lab, client: Any
) -> None:
    experiment = await experiment_with_shadow(lab)
    choice = await lab.choose("reply", user_id="u")
    (shadow,) = choice.shadows
    assert (choice.variant, shadow.variant, shadow.source, shadow.unit) == (
        "1.0.0",
        "candidate",
        "shadow",
        "u",
    )
    assert shadow.render(customer="Ada") == "Be brief with Ada."
    assert shadow.config["model"] == SHADOW_MODELS["chat"]
    assert shadow.shadows == ()
    recorded = await shadow.record(False, 0.5, {"input": 3, "output": 4}, cost=0.25, metadata={"by": "hand"})
    assert shadow.record_nowait(True)
    async with shadow.call() as call:
        call.observe(await client.chat.completions.create(model=SHADOW_MODELS["chat"], messages=[]))
    events = await shadow_events(lab)
    assert [event.success for event in events] == [False, True, True]
    assert events[0] == recorded
    assert {event.shadow and event.shadow.experiment_id for event in events} == {experiment.experiment_id}
    with pytest.raises(InvalidInputError, match="metadata"):
        await shadow.record(True, metadata={"shadow": 1})
    with pytest.raises(InvalidInputError, match="beside"):
        shadow.call(beside="mine")
    with pytest.raises(InvalidInputError, match="beside"):
        choice.call(beside=recorded.event_id)
    async with choice.call() as served:
        served.observe(await client.chat.completions.create(model=SERVED_MODELS["chat"], messages=[]))
    async with shadow.call(beside=served.call_id) as call:
        call.observe(await client.chat.completions.create(model=SHADOW_MODELS["chat"], messages=[]))
    assert (await shadow_events(lab))[-1].shadow == (*(recorded.shadow or ())[:-1], served.call_id)


async def test_settings_are_checked(lab: Lab) -> None:
    with pytest.raises(InvalidInputError, match="shadows"):
        promptab.open("sqlite:///:memory:", shadows={"most_at_once": 1})  # type: ignore[arg-type]
    for wrong in (
        {"most_at_once": 0},
        {"timeout_seconds": 0.0},
        {"close_seconds": -1.0},
        {"max_cost": -0.1},
    ):
        with pytest.raises(InvalidInputError, match=next(iter(wrong))):
            ShadowSettings(**wrong)
    await lab.close()
    await lab.close()
    with pytest.raises((StateError, promptab.StoreError)):
        await lab.choose("reply")
