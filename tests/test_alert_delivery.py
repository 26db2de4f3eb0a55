"""Delivering alerts: at least once, by one at a time, again when it failed, and not for ever."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import random
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import promptab
from promptab import (
    Alert,
    AlertSettings,
    InvalidInputError,
    Lab,
    NotFoundError,
    StateError,
    StoreUnavailableError,
    Webhook,
)
from promptab.alerts.channel import EVERYTHING, Wanted
from promptab.alerts.retrying import LONGEST_SECONDS, MOST_ATTEMPTS, pause_after
from promptab.delivering.channels import Refused
from promptab.delivering.outbox import AlertOutbox
from promptab.delivering.passes import AT_ONCE, LEASE_BEYOND, deliver_due
from promptab.stores import sqlite
from tests.clock import SettableClock
from tests.contract.test_alerts import an_alert, put
from tests.processes import environment, start
from tests.test_recording_away import locked
from tests.webhook_server import Answer, Hang, Late, WebhookServer, listening

FULL = os.environ.get("PROMPTAB_FULL_RACES") == "1"
SECRET = f"whsec_{base64.b64encode(b'k' * 32).decode()}"


@pytest.fixture
async def server() -> AsyncIterator[WebhookServer]:
    async with listening(WebhookServer()) as server:
        yield server


def hook(server: WebhookServer, **fields: Any) -> AlertSettings:
    given: dict[str, Any] = {
        "name": "oncall",
        "url": server.url("/hush?token=s3cr3t"),
        "secret_env": "HOOK_SECRET",
    }
    given |= {"allowed_hosts": ["127.0.0.1"], "timeout": 10.0}
    return AlertSettings(log=None, webhooks=(Webhook(**(given | fields)),))


@pytest.fixture
def outbox(lab: Lab, server: WebhookServer, monkeypatch: pytest.MonkeyPatch) -> AlertOutbox:
    """The outbox of a store of every kind in turn, with a webhook to `server`."""
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    lab.alerts.declare(hook(server))
    return lab.alerts


async def until(condition: Callable[[], object]) -> None:
    """Return once the condition holds, which only a hanging call keeps it from for long."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is waited for knows nothing of this test
            await asyncio.sleep(0.01)


def ids(server: WebhookServer) -> list[str]:
    return [got.headers["webhook-id"] for got in server.got]


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


async def test_deliverers_at_once_are_not_at_the_same_alert(
    lasting_url: str, server: WebhookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    async with promptab.open(lasting_url) as one, promptab.open(lasting_url) as other:
        await put(one.store, *(an_alert(number, at=one.alerts._clock()) for number in range(40)))
        for lab in (one, other):
            lab.alerts.declare(hook(server, timeout=10.0))
        reports = await asyncio.gather(one.deliver_alerts(), other.deliver_alerts())
        assert sum(report.delivered for report in reports) == 40
        assert Counter(ids(server)) == {f"alert_{number}": 1 for number in range(40)}


async def test_what_a_killed_deliverer_was_at_is_delivered_by_another(
    lasting_url: str,
    server: WebhookServer,
    monkeypatch: pytest.MonkeyPatch,
    assert_whole: Callable[[str], None],
) -> None:
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    clock = SettableClock()
    async with promptab.open(lasting_url) as lab:
        clock.now = lab.alerts._clock()
        await put(lab.store, an_alert(at=clock.now))
        server.always = Hang()
        worker = start("delivering.py", lasting_url, server.url(), "0")
        try:
            await until(lambda: server.got)
        finally:
            worker.kill()
            worker.communicate()
        server.always = Answer(204)
        heir = AlertOutbox(lab.store, clock=clock)
        heir.declare(hook(server, format="slack"))
        # it had it already when it was killed, for all that anybody knows, and is left alone for as long as it may take
        assert await heir.deliver() == (0, 0, 0)
        clock.advance(seconds=10 + LEASE_BEYOND.total_seconds() + 60)
        assert await heir.deliver() == (1, 0, 0)
    first, second = server.got
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == "alert_1"
    assert first.body == second.body
    assert_whole(lasting_url)


async def test_nothing_is_lost_when_one_deliverer_after_the_other_is_killed(
    lasting_url: str, server: WebhookServer, assert_whole: Callable[[str], None]
) -> None:
    generator = random.Random(6)
    server.always = Late(0.02)
    kills = 25 if FULL else 3
    async with promptab.open(lasting_url) as lab:
        expected = {f"alert_{number}" for number in range(20 * kills)}
        await put(lab.store, *(an_alert(number, at=lab.alerts._clock()) for number in range(20 * kills)))
        for turn in range(kills):
            before = len(server.got)
            worker = start("delivering.py", lasting_url, server.url(), str(turn))
            try:
                await until(lambda: len(server.got) > before)  # noqa: B023 - it is awaited in this very turn
                await asyncio.sleep(generator.uniform(0.0, 0.2))
            finally:
                worker.kill()
                worker.communicate()
        clock = SettableClock()
        clock.now = lab.alerts._clock() + timedelta(hours=kills)
        heir = AlertOutbox(lab.store, clock=clock)
        heir.declare(hook(server, format="slack", secret_env=()))
        await heir.deliver()
        told = await heir.list_alerts(limit=10_000)
        assert {way.status for found in told for way in found.deliveries} == {"delivered"}
        # every attempt that was begun has arrived, or was cut off by a kill
        attempts = sum(way.attempts for found in told for way in found.deliveries)
        assert len(expected) <= len(server.got) <= attempts <= len(expected) + AT_ONCE * kills
        print(f"{kills} killed, {len(expected)} alerts, {attempts} attempts, {len(server.got)} arrived")
    assert set(ids(server)) == expected
    assert_whole(lasting_url)


def test_where_decisions_are_made_no_client_of_http_is_even_loaded() -> None:
    code = (
        "import sys, promptab.alerting, promptab.rollout, promptab.watching, promptab.lab\n"
        "print([name for name in sys.modules if name.startswith(('httpcore', 'httpx', 'promptab.delivering.web'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


async def test_whoever_dies_at_every_attempt_ends_as_a_dead_letter(lab: Lab, clock: SettableClock) -> None:
    class Killed(BaseException):
        """What nobody expects."""

    async def die(alert: Alert) -> None:
        raise Killed

    await put(lab.store, an_alert(at=clock.now))
    lab.on_alert(die)
    for _ in range(MOST_ATTEMPTS):
        with pytest.raises(Killed):
            await lab.deliver_alerts()
        clock.advance(hours=1)
    assert await lab.deliver_alerts() == (0, 0, 1)
    (told,) = await lab.alerts.list_alerts(dead=True)
    assert told.deliveries[0].error == "every attempt ended without a word"


async def test_one_that_was_away_for_longer_than_its_lease_has_nothing_to_say(
    lab: Lab, clock: SettableClock
) -> None:
    class Slow:
        name, seconds = "slow", 1.0
        wanted = Wanted()

        def __init__(self) -> None:
            self.sent = 0

        async def send(self, alert: Alert) -> Refused | None:
            self.sent += 1
            if self.sent == 1:
                clock.advance(hours=1)
                assert await deliver_due(lab.store, self, clock) == (1, 0, 0)
                return Refused("too late")
            return None

    await put(lab.store, an_alert(at=clock.now))
    channel = Slow()
    assert await deliver_due(lab.store, channel, clock) == (0, 0, 0)
    (told,) = await lab.alerts.list_alerts()
    assert (channel.sent, told.deliveries[0].status, told.deliveries[0].error) == (2, "delivered", None)


async def test_a_new_channel_is_not_sent_what_is_long_past(lab: Lab, clock: SettableClock) -> None:
    await put(lab.store, an_alert(1, at=clock.now))
    clock.advance(hours=30)
    await put(lab.store, an_alert(2, at=clock.now))
    clock.advance(hours=20)
    heard: list[str] = []
    lab.on_alert(lambda alert: heard.append(alert.alert_id))
    await lab.deliver_alerts()
    assert heard == ["alert_2"]
    # from then on nothing is lost, however long nobody delivers
    await put(lab.store, an_alert(3, at=clock.now))
    clock.advance(days=90)
    await lab.deliver_alerts()
    assert heard == ["alert_2", "alert_3"]


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


async def test_what_is_asked_wrongly_is_refused(lab: Lab) -> None:
    with pytest.raises(StateError, match="no channel"):
        await lab.deliver_alerts()
    for name in ("log", "", "a b"):
        with pytest.raises(InvalidInputError):
            lab.on_alert(print, name=name)
    with pytest.raises(InvalidInputError, match="kinds"):
        lab.on_alert(print, kinds=["weather"])  # type: ignore[list-item]
    with pytest.raises(NotFoundError, match="alert_9"):
        await lab.alerts.retry("alert_9")
    with pytest.raises(NotFoundError):
        await lab.alerts.list_alerts("no such experiment")
    with pytest.raises(InvalidInputError, match="interval"):
        await lab.alerts.keep_delivering(0)
    webhook = Webhook(name="a", url="https://a.example", secret_env=("HOOK_SECRET",))
    with pytest.raises(InvalidInputError, match="HOOK_SECRET"):
        lab.alerts.declare(AlertSettings(webhooks=(webhook,)))


async def test_a_channel_of_the_programs_own_that_raises_keeps_no_other_waiting(
    lab: Lab, clock: SettableClock
) -> None:
    class Broken:
        name, wanted, seconds = "broken", EVERYTHING, 1.0

        async def send(self, alert: Alert) -> Refused | None:
            raise LookupError(SECRET)

    lab.alerts.add(Broken())
    heard: list[Alert] = []
    lab.on_alert(heard.append)
    await put(lab.store, an_alert(1, at=clock.now))
    assert await lab.deliver_alerts() == (1, 1, 0)
    (told,) = await lab.alerts.list_alerts()
    assert [(way.status, way.error) for way in told.deliveries] == [
        ("pending", "the channel raised LookupError"),
        ("delivered", None),
    ]


async def test_what_callbacks_wait_for_ends_no_delivery(lab: Lab, clock: SettableClock) -> None:
    heard: list[Alert] = []

    async def hear(alert: Alert) -> None:
        heard.append(alert)
        if len(heard) == 1:
            raise asyncio.CancelledError

    lab.on_alert(hear)
    await put(lab.store, an_alert(1, at=clock.now))
    delivering = asyncio.ensure_future(lab.alerts.keep_delivering(0.01))
    await until(lambda: heard)
    await put(lab.store, an_alert(2, at=clock.now))
    await until(lambda: len(heard) == 2 or delivering.done())
    assert not delivering.done()
    delivering.cancel()
    await asyncio.gather(delivering, return_exceptions=True)


async def test_alerts_of_what_is_gone_are_listed_by_its_id_and_its_name(lab: Lab) -> None:
    await put(lab.store, an_alert(1, subject="gone", name="tone"), an_alert(2, subject="g", name="system/x"))
    for about, expected in (("gone", "alert_1"), ("tone", "alert_1"), ("system/x", "alert_2")):
        assert [told.alert.alert_id for told in await lab.alerts.list_alerts(about)] == [expected]
        assert await lab.alerts.list_alerts(about, dead=True) == []


async def test_alerts_go_to_the_log_by_their_severity(
    lab: Lab, clock: SettableClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    lab.alerts.declare(AlertSettings())
    assert lab.alerts.channels == ("log",)
    severities = ("info", "warning", "critical")
    await put(
        lab.store,
        *(an_alert(number, at=clock.now, severity=name) for number, name in enumerate(severities)),
    )
    await lab.deliver_alerts()
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING", "ERROR"]
    assert caplog.messages[2] == "[critical] tone: significant: b ist besser: Nº 2 (alert_2)"


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
