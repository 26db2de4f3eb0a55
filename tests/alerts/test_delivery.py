"""Delivering alerts: at least once, again when it failed, and not for ever; nobody waits for it."""

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

import promptab
from promptab import (
    Alert,
    Lab,
    StateError,
    StoreUnavailableError,
)
from promptab.alerts.retrying import LONGEST_SECONDS, MOST_ATTEMPTS, pause_after
from promptab.delivering.outbox import AlertOutbox
from promptab.delivering.passes import AT_ONCE
from promptab.stores import sqlite
from tests.alerts.conftest import (
    SECRET,
    hook,
    ids,
    until,
)
from tests.clock import SettableClock
from tests.contract.test_alerts import an_alert, put
from tests.processes import environment
from tests.test_recording_away import locked
from tests.webhook_server import Answer, Hang, WebhookServer


async def test_what_was_told_arrives_once(lab: Lab, outbox: AlertOutbox, server: WebhookServer) -> None:
    heard: list[Alert] = []

    async def hear(alert: Alert) -> None:
        heard.append(alert)

    lab.on_alert(hear)
    lab.on_alert(heard.append, name="severe", least_severity="critical", kinds=["mismatch"])
    alerts = [an_alert(number, at=outbox._clock()) for number in range(6)]
    alerts.append(an_alert(6, at=outbox._clock(), severity="critical", kind="mismatch"))
    await put(lab.store, *alerts)
    assert await lab.deliver_alerts() == (7 + 7 + 1, 0, 0)
    assert await lab.deliver_alerts() == (0, 0, 0)
    assert sorted(ids(server)) == [alert.alert_id for alert in alerts]
    assert Counter(alert.alert_id for alert in heard) == {
        alert.alert_id: 1 + (alert.severity == "critical") for alert in alerts
    }
    (told, *_) = await outbox.list_alerts()
    assert [(found.channel, found.status) for found in told.deliveries] == [
        ("callback", "delivered"),
        ("oncall", "delivered"),
        ("severe", "delivered"),
    ]
    assert await outbox.list_alerts(dead=True) == []


async def test_a_failed_delivery_is_tried_again_later_and_no_more_than_so_often(
    lab: Lab,
    outbox: AlertOutbox,
    server: WebhookServer,
    clock: SettableClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    server.always = Answer(500)
    await put(lab.store, an_alert(at=clock.now))
    waits = []
    for attempt in range(1, MOST_ATTEMPTS + 1):
        assert await outbox.deliver() == (0, int(attempt < MOST_ATTEMPTS), int(attempt == MOST_ATTEMPTS))
        assert await outbox.deliver() == (0, 0, 0)
        ((delivery,),) = [told.deliveries for told in await outbox.list_alerts()]
        assert (delivery.attempts, delivery.error) == (attempt, "answered 500")
        waits.append(delivery.due_at - clock.now)
        clock.advance(seconds=waits[-1].total_seconds())
    assert waits[:-1] == sorted(waits[:-1])
    assert len(server.got) == MOST_ATTEMPTS
    clock.advance(days=30)
    assert await outbox.deliver() == (0, 0, 0)
    (told,) = await outbox.list_alerts(dead=True)
    assert [(found.channel, found.status, found.error) for found in told.deliveries] == [
        ("oncall", "dead", "answered 500")
    ]
    assert "given up" in caplog.text
    # somebody has mended the endpoint
    server.always = Answer(200)
    assert await outbox.retry(told.alert.alert_id) == ("oncall",)
    assert await outbox.deliver() == (1, 0, 0)
    assert set(ids(server)) == {told.alert.alert_id}
    assert await outbox.list_alerts(dead=True) == []
    with pytest.raises(StateError, match="nothing to retry"):
        await outbox.retry(told.alert.alert_id)
    for word in ("hush", "s3cr3t", SECRET, "server.url"):
        assert word not in caplog.text


async def test_whoever_wants_no_more_is_not_tried_again(
    lab: Lab, outbox: AlertOutbox, server: WebhookServer, clock: SettableClock
) -> None:
    server.script += [Answer(410), Answer(429, (("Retry-After", "3000"),))]
    await put(lab.store, an_alert(1, at=clock.now))
    assert await outbox.deliver() == (0, 0, 1)
    await put(lab.store, an_alert(2, at=clock.now))
    assert await outbox.deliver() == (0, 1, 0)
    clock.advance(seconds=2_999)
    assert await outbox.deliver() == (0, 0, 0)
    clock.advance(seconds=1)
    assert await outbox.deliver() == (1, 0, 0)
    assert [told.alert.alert_id for told in await outbox.list_alerts(dead=True)] == ["alert_1"]


async def test_an_endpoint_that_is_away_costs_few_attempts_and_keeps_no_other_waiting(
    lab: Lab, outbox: AlertOutbox, server: WebhookServer, clock: SettableClock
) -> None:
    server.always = Hang()
    lab.alerts.declare(hook(server, timeout=0.5))
    heard: list[Alert] = []
    lab.on_alert(heard.append)
    await put(lab.store, *(an_alert(number, at=clock.now) for number in range(50)))
    async with asyncio.timeout(30):
        assert await outbox.deliver() == (50, AT_ONCE, 0)
    assert (len(heard), server.connections) == (50, AT_ONCE)
    server.always = Answer(200)
    lab.alerts.declare(hook(server))
    clock.advance(hours=1)
    assert await outbox.deliver() == (50, 0, 0)


def test_where_decisions_are_made_no_client_of_http_is_even_loaded() -> None:
    code = (
        "import sys, promptab.alerting, promptab.rollout, promptab.watching, promptab.lab\n"
        "print([name for name in sys.modules if name.startswith(('httpcore', 'httpx', 'promptab.delivering.web'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


async def test_delivering_goes_on_while_the_store_is_away_and_when_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.01)
    path = tmp_path / "store.db"
    heard: list[Alert] = []
    async with promptab.open(f"sqlite:///{path}") as lab:
        await put(lab.store, an_alert(at=lab.alerts._clock()))
        lab.on_alert(heard.append)
        with locked(path):
            task = asyncio.create_task(lab.alerts.keep_delivering(0.01))
            await until(lambda: "alerts wait, as the store cannot be used" in caplog.text)
            assert heard == []
        await until(lambda: "alerts are delivered again" in caplog.text)
        assert [alert.alert_id for alert in heard] == ["alert_1"]
        assert caplog.text.count("alerts wait") == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_writers_of_decisions_do_not_wait_for_an_endpoint_that_hangs(
    lasting_url: str, server: WebhookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    server.always = Hang()
    async with promptab.open(lasting_url) as lab:
        lab.alerts.declare(hook(server, timeout=60.0))
        await put(lab.store, an_alert(0, at=lab.alerts._clock()))
        delivering = asyncio.create_task(lab.deliver_alerts())
        await until(lambda: server.got)
        async with asyncio.timeout(20):
            for number in range(1, 20):
                await put(lab.store, an_alert(number, at=lab.alerts._clock()))
        assert not delivering.done()
        delivering.cancel()
        await asyncio.gather(delivering, return_exceptions=True)


async def test_nothing_of_an_address_or_a_secret_is_in_the_store(
    tmp_path: Path, server: WebhookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    path = tmp_path / "store.db"
    server.always = Answer(500)
    async with promptab.open(f"sqlite:///{path}") as lab:
        lab.alerts.declare(hook(server))
        await put(lab.store, an_alert(at=lab.alerts._clock()))
        await lab.deliver_alerts()
    with sqlite3.connect(path) as connection:
        dump = "\n".join(connection.iterdump())
    connection.close()
    assert "answered 500" in dump
    for word in ("hush", "s3cr3t", SECRET, SECRET.removeprefix("whsec_"), "127.0.0.1"):
        assert word not in dump


async def test_alerts_of_what_is_gone_are_listed_by_its_id_and_its_name(lab: Lab) -> None:
    await put(lab.store, an_alert(1, subject="gone", name="tone"), an_alert(2, subject="g", name="system/x"))
    for about, expected in (("gone", "alert_1"), ("tone", "alert_1"), ("system/x", "alert_2")):
        assert [told.alert.alert_id for told in await lab.alerts.list_alerts(about)] == [expected]
        assert await lab.alerts.list_alerts(about, dead=True) == []


def test_waits_double_up_to_a_limit_and_are_spread() -> None:
    generator = random.Random(6)
    for attempt in range(1, MOST_ATTEMPTS):
        waits = [pause_after(attempt, drawn=generator.random()) or timedelta(0) for _ in range(200)]
        longest = min(LONGEST_SECONDS, 10.0 * 2 ** (attempt - 1))
        assert all(longest / 2 <= wait.total_seconds() <= longest for wait in waits)
        assert len(set(waits)) > 150
    assert pause_after(MOST_ATTEMPTS, drawn=0.5) is None
    assert pause_after(1, drawn=0.0, asked_seconds=1e12) == timedelta(seconds=LONGEST_SECONDS)
    assert pause_after(9, drawn=0.0, asked_seconds=1.0) == timedelta(seconds=2_560)


async def test_a_pass_over_nothing_does_not_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.01)
    path = tmp_path / "store.db"
    async with promptab.open(f"sqlite:///{path}") as lab:
        lab.on_alert(print)
        await lab.deliver_alerts()
        with locked(path):
            assert await lab.deliver_alerts() == (0, 0, 0)
            with pytest.raises(StoreUnavailableError):
                await put(lab.store, an_alert())
