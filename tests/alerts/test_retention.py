"""Pruning alerts: what is past goes, and nothing that somebody is still to be told."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from promptab import Alert, InvalidInputError, Lab, NotFoundError
from promptab.alerts.channel import EVERYTHING
from promptab.delivering.channels import Refused
from promptab.stores.alert_schema import alert_channels, alert_deliveries
from promptab.stores.base import Transaction
from promptab.stores.queries import alert_retention
from tests.clock import SettableClock
from tests.conftest import url_of
from tests.contract.test_alerts import an_alert, put

LONG = timedelta(days=90)
WAITS = "still to be delivered to callback"
GIVEN_UP = "given up on their way"


@pytest.fixture(params=["file", "memory", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return url_of(request, tmp_path)


def hear(lab: Lab, **wanted: Any) -> list[str]:
    heard: list[str] = []
    lab.on_alert(lambda alert: heard.append(alert.alert_id), **wanted)
    return heard


async def told(lab: Lab) -> list[str]:
    return sorted(each.alert.alert_id for each in await lab.alerts.list_alerts())


async def ways(lab: Lab) -> int:
    async def work(tx: Transaction) -> int:
        found = await tx.alert_retention._connection.execute(alert_deliveries.select())
        return len(found.all())

    return await lab.store.read(work)


async def test_what_arrived_is_dropped_with_its_way_and_what_is_younger_stays(
    lab: Lab, clock: SettableClock
) -> None:
    hear(lab)
    await put(lab.store, an_alert(1, at=clock.now))
    await lab.deliver_alerts()
    clock.advance(days=100)
    await put(lab.store, an_alert(2, at=clock.now))
    await lab.deliver_alerts()
    before = clock.now - LONG
    looked = await lab.alerts.prune(before, apply=False)
    assert (looked.dropped, looked.kept, looked.applied) == (1, {}, False)
    assert await told(lab) == ["alert_1", "alert_2"]
    report = await lab.alerts.prune(before)
    assert (report.before, report.dropped, report.kept, report.applied) == (before, 1, {}, True)
    assert (await told(lab), await ways(lab)) == (["alert_2"], 1)
    assert (await lab.alerts.prune(before)).dropped == 0


async def test_what_is_still_to_be_delivered_is_kept_however_old(lab: Lab, clock: SettableClock) -> None:
    heard = hear(lab)
    # the channel is known, and then nobody delivers for a long time
    await lab.deliver_alerts()
    await put(lab.store, an_alert(1, at=clock.now))
    clock.advance(days=100)
    assert (await lab.alerts.prune(clock.now - LONG)).kept == {WAITS: 1}
    await lab.deliver_alerts()
    assert heard == ["alert_1"]
    assert (await lab.alerts.prune(clock.now - LONG)).dropped == 1


async def test_what_is_tried_again_later_is_kept(lab: Lab, clock: SettableClock) -> None:
    class Away:
        name, wanted, seconds = "away", EVERYTHING, 1.0

        async def send(self, alert: Alert) -> Refused | None:
            return Refused("away")

    lab.alerts.add(Away())
    await put(lab.store, an_alert(1, at=clock.now))
    await lab.deliver_alerts()
    clock.advance(days=100)
    report = await lab.alerts.prune(clock.now - LONG, dead=True)
    assert (report.dropped, report.kept) == (0, {"still to be delivered to away": 1})


async def test_what_no_channel_wants_is_dropped(lab: Lab, clock: SettableClock) -> None:
    hear(lab, least_severity="critical", kinds=["mismatch"])
    await lab.deliver_alerts()
    await put(lab.store, an_alert(1, at=clock.now), an_alert(2, at=clock.now, severity="critical"))
    await put(lab.store, an_alert(3, at=clock.now, severity="critical", kind="mismatch"))
    clock.advance(days=100)
    report = await lab.alerts.prune(clock.now - LONG)
    assert (report.dropped, report.kept) == (2, {WAITS: 1})
    # it wants more from now on, and is told nothing that it could miss
    heard = hear(lab)
    await put(lab.store, an_alert(4, at=clock.now))
    await lab.deliver_alerts()
    assert heard == ["alert_3", "alert_4"]


async def test_a_channel_that_wants_more_than_before_is_waited_for(lab: Lab, clock: SettableClock) -> None:
    hear(lab, kinds=["mismatch"])
    await lab.deliver_alerts()
    hear(lab)
    await lab.deliver_alerts()
    await put(lab.store, an_alert(1, at=clock.now))
    clock.advance(days=100)
    assert (await lab.alerts.prune(clock.now - LONG)).kept == {WAITS: 1}


async def test_of_a_channel_of_an_older_store_everything_is_waited_for(
    lab: Lab, clock: SettableClock
) -> None:
    hear(lab, kinds=["mismatch"])
    await lab.deliver_alerts()

    async def forget_wants(tx: Transaction) -> None:
        await tx.alert_retention._connection.execute(alert_channels.update().values(wanted=None))

    await lab.store.write(forget_wants)
    await put(lab.store, an_alert(1, at=clock.now))
    clock.advance(days=100)
    assert (await lab.alerts.prune(clock.now - LONG)).kept == {WAITS: 1}
    await lab.deliver_alerts()
    assert (await lab.alerts.prune(clock.now - LONG)).dropped == 1


async def test_dead_letters_are_dropped_only_when_that_is_asked_for(lab: Lab, clock: SettableClock) -> None:
    class Closed:
        name, wanted, seconds = "closed", EVERYTHING, 1.0

        async def send(self, alert: Alert) -> Refused | None:
            return Refused("it wants no more", for_good=True)

    hear(lab)
    lab.alerts.add(Closed())
    await put(lab.store, an_alert(1, at=clock.now))
    assert await lab.deliver_alerts() == (1, 0, 1)
    clock.advance(days=100)
    report = await lab.alerts.prune(clock.now - LONG)
    assert (report.dropped, report.kept) == (0, {GIVEN_UP: 1})
    assert (await lab.alerts.prune(clock.now - LONG, dead=True, apply=False)).dropped == 1
    # one that was revived is on its way again
    await lab.alerts.retry("alert_1")
    report = await lab.alerts.prune(clock.now - LONG, dead=True)
    assert (report.dropped, report.kept) == (0, {"still to be delivered to closed": 1})
    await lab.deliver_alerts()
    assert (await lab.alerts.prune(clock.now - LONG, dead=True)).dropped == 1
    assert (await told(lab), await ways(lab)) == ([], 0)


async def test_a_channel_that_there_is_no_longer_can_be_forgotten(lab: Lab, clock: SettableClock) -> None:
    hear(lab)
    await lab.deliver_alerts()
    await put(lab.store, an_alert(1, at=clock.now))
    clock.advance(days=100)
    assert (await lab.alerts.prune(clock.now - LONG)).dropped == 0
    assert await lab.alerts.forget("callback") == 0
    assert (await lab.alerts.prune(clock.now - LONG)).dropped == 1
    with pytest.raises(NotFoundError, match="channel 'callback'"):
        await lab.alerts.forget("callback")


async def test_what_a_watch_knows_to_hold_is_not_told_again_once_it_is_pruned(
    lab: Lab, clock: SettableClock
) -> None:
    async def settle(tx: Transaction) -> Any:
        return await tx.alerts.settle("s", holding=["a"], lingering=[], at=clock.now)

    assert await lab.store.write(settle) == {"a": 1}
    await put(lab.store, an_alert(1, subject="s", at=clock.now))
    clock.advance(days=100)
    assert (await lab.alerts.prune(clock.now - LONG)).dropped == 1
    assert await lab.store.write(settle) == {}


async def test_many_are_dropped_step_by_step_and_by_several_at_once(
    lab: Lab, clock: SettableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alert_retention, "ALERTS_PER_STEP", 7)
    await put(lab.store, *(an_alert(number, at=clock.now) for number in range(50)))
    clock.advance(days=100)
    reports = await asyncio.gather(*(lab.alerts.prune(clock.now - LONG) for _ in range(3)))
    assert sum(report.dropped for report in reports) == 50
    assert await told(lab) == []


async def test_what_is_delivered_while_others_prune_arrives(lab: Lab, clock: SettableClock) -> None:
    heard = hear(lab)
    await lab.deliver_alerts()
    await put(lab.store, *(an_alert(number, at=clock.now) for number in range(40)))
    clock.advance(days=100)
    before = clock.now - LONG

    async def go_on_pruning() -> int:
        return sum([(await lab.alerts.prune(before)).dropped for _ in range(10)])

    dropped, report = await asyncio.gather(go_on_pruning(), lab.deliver_alerts())
    assert report.delivered == len(heard) == 40
    assert dropped + (await lab.alerts.prune(before)).dropped == 40


async def test_a_time_that_is_too_late_is_refused(lab: Lab, clock: SettableClock) -> None:
    await put(lab.store, an_alert(1, at=clock.now))
    clock.advance(days=3)
    for days in (0.0, 1.9, -1.0):
        with pytest.raises(InvalidInputError, match="two days"):
            await lab.alerts.prune(clock.now - timedelta(days=days))
    assert (await lab.alerts.prune(clock.now - timedelta(days=2))).dropped == 1
