"""Channels of the program's own and the log: what they are sent, and what they cannot break."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic

import pytest

from promptab import (
    Alert,
    AlertSettings,
    InvalidInputError,
    Lab,
    NotFoundError,
    StateError,
    Webhook,
)
from promptab.alerts.body import line_of
from promptab.alerts.channel import EVERYTHING
from promptab.delivering.channels import CallbackChannel, Refused
from tests.alerts.conftest import NEW, SECRET, until
from tests.clock import SettableClock
from tests.contract.test_alerts import an_alert, put


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


async def test_a_callback_that_fails_is_told_by_its_kind_alone() -> None:
    async def breaks(alert: Alert) -> None:
        raise LookupError(NEW)

    assert await CallbackChannel("own", breaks).send(an_alert()) == Refused("the callback raised LookupError")

    async def waits_for_what_is_cancelled(alert: Alert) -> None:
        task = asyncio.ensure_future(asyncio.sleep(60))
        task.cancel()
        await task

    waiting = CallbackChannel("own", waits_for_what_is_cancelled)
    assert await waiting.send(an_alert()) == Refused("the callback was cancelled")

    class Hasty(CallbackChannel):
        seconds = 0.05

    async def hangs(alert: Alert) -> None:
        await asyncio.sleep(60)

    began = monotonic()
    refused = await Hasty("own", hangs).send(an_alert())
    assert refused is not None
    assert "longer than 0.05 s" in refused.error
    assert monotonic() - began < 20


def test_a_line_of_a_log_is_one_line_whatever_it_holds() -> None:
    line = line_of(an_alert(name="a\nb", sentence="\x1b[31m\r\nCRITICAL forged\u2028x"))
    assert line.isprintable()
    assert line.startswith("[info] a b: significant: ")
