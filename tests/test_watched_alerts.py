"""Alerts beside the watch: what its looks begin is delivered meanwhile, and never in their way."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import aclosing
from pathlib import Path

import pytest

import promptab
from promptab import Alert, AlertSettings, Lab, Policy, Webhook
from promptab.alerts.alert import AlertKind
from promptab.watching import WatchUpdate
from tests.conftest import url_of
from tests.rollouts import BETTER, CANDIDATE, CONTROL, staged
from tests.webhook_server import Hang, Reset, WebhookServer, listening

WINS = {"guardrails": ["error_rate <= 0.9"]}


@pytest.fixture(params=["file", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return url_of(request, tmp_path)


def kinds(heard: list[Alert]) -> Counter[AlertKind]:
    return Counter(alert.kind for alert in heard)


async def looked(lab: Lab) -> list[WatchUpdate]:
    async with aclosing(lab.watch(once=True)) as updates:
        return [update async for update in updates]


def hook(server: WebhookServer) -> AlertSettings:
    webhook = Webhook(
        name="oncall", url=server.url(), format="slack", allowed_hosts=("127.0.0.1",), timeout=60.0
    )
    return AlertSettings(log=None, webhooks=(webhook,))


async def test_one_look_tells_what_it_found_and_what_it_did(lab: Lab) -> None:
    scene = await staged(lab, WINS)
    await scene.record(BETTER)
    heard: list[Alert] = []
    lab.on_alert(heard.append)
    await looked(lab)
    # the scene put its control live by hand
    assert kinds(heard) == {"moved": 1, "significant": 1, "sample_size": 1, "applied": 1}
    (applied,) = [alert for alert in heard if alert.kind == "applied"]
    assert "is now live in production" in applied.sentence
    (stored,) = await lab.decisions(scene.experiment.experiment_id, limit=1)
    assert applied.decision_id == stored.decision_id
    await looked(lab)
    assert len(heard) == 4


async def test_an_endpoint_that_hangs_is_in_no_looks_way(lab: Lab) -> None:
    async with listening(WebhookServer(always=Hang())) as server:
        lab.alerts.declare(hook(server))
        scene = await staged(lab, WINS)
        updates = lab.watch(interval=0.1)
        async with asyncio.timeout(30), aclosing(updates) as looks:
            async for update in looks:
                if update.subject:
                    break
            # something is told, and the endpoint has it and does not answer
            await lab.override(scene.experiment.experiment_id, "pause", reason="to be told of")
            await lab.override(scene.experiment.experiment_id, "continue", reason="to be told of")
            delivering = asyncio.ensure_future(lab.deliver_alerts())
            while not server.got:  # noqa: ASYNC110 - the server knows nothing of this test
                await asyncio.sleep(0.01)
            await scene.record(BETTER)
            async for update in looks:
                if update.applied:
                    break
        assert await scene.live() == CANDIDATE
        assert not delivering.done()
        delivering.cancel()
        await asyncio.gather(delivering, return_exceptions=True)


async def test_a_watch_delivers_as_it_goes_and_leaves_no_task_behind(lab: Lab) -> None:
    scene = await staged(lab, WINS)
    await scene.record(BETTER)
    heard: list[Alert] = []
    lab.on_alert(heard.append, kinds=["applied"])
    before = asyncio.all_tasks()
    await lab.override(scene.experiment.experiment_id, "pause", reason="to be told of")
    async with asyncio.timeout(30), aclosing(lab.watch(interval=0.1)) as looks:
        async for _ in looks:
            if heard:
                break
    assert kinds(heard)["applied"] == 1
    async with asyncio.timeout(30):
        # a look that was cut short may leave the store something to finish
        while asyncio.all_tasks() - before:  # noqa: ASYNC110 - whoever finishes it tells nobody
            await asyncio.sleep(0.01)


async def test_two_watchers_tell_each_alert_once(store_url: str) -> None:
    async with promptab.open(store_url) as one, promptab.open(store_url) as other:
        scene = await staged(one, WINS)
        await scene.record(BETTER)
        heard: list[Alert] = []
        for lab in (one, other):
            lab.on_alert(heard.append)
        await asyncio.gather(looked(one), looked(other))
        await asyncio.gather(looked(one), looked(other))
        assert kinds(heard) == {"moved": 1, "significant": 1, "sample_size": 1, "applied": 1}


async def test_a_guarded_version_is_told_of_before_and_when_it_is_taken_back(lab: Lab) -> None:
    scene = await staged(lab)
    version_id = scene.versions[CANDIDATE].version_id
    await lab.versions.promote(
        version_id, guard=Policy.model_validate({"guardrails": ["success_rate >= 0.8"]})
    )
    heard: list[Alert] = []
    lab.on_alert(heard.append)

    async def record(events: int, successes: int) -> None:
        await lab.metrics.record_many(
            {"version_id": version_id, "success": number % 10 < successes} for number in range(events)
        )
        await looked(lab)

    await record(30, 6)
    assert kinds(heard) == {"moved": 2, "guardrail_near": 1}
    await record(60, 3)
    assert kinds(heard) == {"moved": 2, "guardrail_near": 1, "guardrail_failed": 1, "applied": 1}
    assert await scene.live() == CONTROL
    assert {alert.severity for alert in heard if alert.kind != "moved"} == {"warning", "critical"}


async def test_an_endpoint_that_resets_leaves_the_looks_alone_and_its_alerts_due(lab: Lab) -> None:
    async with listening(WebhookServer(always=Reset())) as server:
        lab.alerts.declare(hook(server))
        scene = await staged(lab, WINS)
        await scene.record(BETTER)
        [update] = await looked(lab)
        assert (update.applied, update.error) == (True, None)
        ways = [way for told in await lab.alerts.list_alerts() for way in told.deliveries]
        assert {(way.status, way.error) for way in ways} == {
            ("pending", "the connection broke before there was an answer")
        }
