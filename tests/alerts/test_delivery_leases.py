"""One process at a time is at a delivery, and what it leaves behind is taken up by another."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

import pytest

import promptab
from promptab import (
    Alert,
    Lab,
)
from promptab.alerts.channel import Wanted
from promptab.alerts.retrying import MOST_ATTEMPTS
from promptab.delivering.channels import Refused
from promptab.delivering.outbox import AlertOutbox
from promptab.delivering.passes import AT_ONCE, deliver_due
from tests.alerts.conftest import (
    SECRET,
    hook,
    ids,
    until,
)
from tests.clock import SettableClock
from tests.contract.test_alerts import an_alert, end_leases, put
from tests.processes import start
from tests.webhook_server import Answer, Hang, Late, WebhookServer

FULL = os.environ.get("PROMPTAB_FULL_RACES") == "1"


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
        await end_leases(lab.store)
        assert await heir.deliver() == (1, 0, 0)
    first, second = server.got
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == "alert_1"
    assert first.body == second.body
    assert_whole(lasting_url)


async def test_a_machine_whose_clock_is_ahead_does_not_send_what_another_one_is_at(
    lasting_url: str, server: WebhookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    server.always = Hang()
    async with promptab.open(lasting_url) as lab:
        now = lab.alerts._clock()
        await put(lab.store, an_alert(at=now))
        lab.alerts.declare(hook(server, timeout=60.0))
        delivering = asyncio.ensure_future(lab.deliver_alerts())
        await until(lambda: server.got)
        clock = SettableClock()
        clock.now = now + timedelta(hours=1)
        ahead = AlertOutbox(lab.store, clock=clock)
        ahead.declare(hook(server, timeout=0.5))
        assert await ahead.deliver() == (0, 0, 0)
        delivering.cancel()
        await asyncio.gather(delivering, return_exceptions=True)
    assert ids(server) == ["alert_1"]


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
        await end_leases(lab.store)
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
        await end_leases(lab.store)
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
                await end_leases(lab.store)
                assert await deliver_due(lab.store, self, clock) == (1, 0, 0)
                return Refused("too late")
            return None

    await put(lab.store, an_alert(at=clock.now))
    channel = Slow()
    assert await deliver_due(lab.store, channel, clock) == (0, 0, 0)
    (told,) = await lab.alerts.list_alerts()
    assert (channel.sent, told.deliveries[0].status, told.deliveries[0].error) == (2, "delivered", None)
