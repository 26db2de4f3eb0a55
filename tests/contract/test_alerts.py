"""The outbox of alerts, what is known to hold, and who delivers what."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from promptab.alerts.alert import Alert
from promptab.alerts.channel import EVERYTHING, Wanted
from promptab.alerts.delivery import Claimed, Delivery, ToldAlert
from promptab.alerts.traffic import Pulse
from promptab.stores.alert_schema import alert_deliveries
from promptab.stores.base import Store, Transaction
from promptab.stores.opening import open_store
from tests.contract.records import NOON, an_experiment, new_id

CHANNEL = "oncall"
MINUTE = timedelta(minutes=1)


def an_alert(number: int = 1, **fields: Any) -> Alert:
    given: dict[str, Any] = {
        "alert_id": f"alert_{number}",
        "kind": "significant",
        "severity": "info",
        "at": NOON,
        "subject": new_id(),
        "name": "tone",
        "sentence": f"b ist besser: Nº {number}",
        "numbers": {"value": 0.125, "units": 7, "p_value": None},
    }
    return Alert(**{**given, **fields})


async def put(store: Store, *alerts: Alert) -> list[bool]:
    async def work(tx: Transaction) -> list[bool]:
        return [await tx.alerts.put(alert) for alert in alerts]

    return await store.write(work)


async def listing(store: Store, **how: Any) -> list[ToldAlert]:
    return await store.read(lambda tx: tx.alerts.listing(**how))


async def settle(
    store: Store, subject: str, holding: Collection[str], lingering: Collection[str] = ()
) -> Mapping[str, int]:
    return await store.write(
        lambda tx: tx.alerts.settle(subject, holding=holding, lingering=lingering, at=NOON)
    )


async def keep_pulse(store: Store, pulse: Pulse) -> None:
    await store.write(lambda tx: tx.alerts.keep_pulse("s", "units", pulse))


async def enqueue(store: Store, wanted: Wanted = EVERYTHING, *, now: datetime = NOON) -> None:
    async def work(tx: Transaction) -> None:
        await tx.alert_deliveries.open_channel(CHANNEL, wanted, since=NOON)
        await tx.alert_deliveries.enqueue(CHANNEL, wanted, now=now)

    await store.write(work, shown=False)


async def claim(
    store: Store, now: datetime = NOON, *, limit: int = 10, seconds: float = 3_600.0
) -> list[Claimed]:
    return await store.write(
        lambda tx: tx.alert_deliveries.claim(CHANNEL, now=now, seconds=seconds, limit=limit),
        shown=False,
    )


async def end_leases(store: Store) -> None:
    """Make it so late, by the database's clock, that the leases of all deliveries that are being tried have ended."""

    async def work(tx: Transaction) -> None:
        tried = update(alert_deliveries).where(alert_deliveries.c.claim.is_not(None))
        await tx.alert_deliveries._connection.execute(tried.values(due_at=NOON))

    await store.write(work, shown=False)


async def deliveries(store: Store) -> list[Delivery]:
    return [delivery for told in await listing(store) for delivery in told.deliveries]


async def test_an_alert_comes_back_as_it_was_put_and_only_once(store: Store) -> None:
    first, second = an_alert(1), an_alert(2, decision_id=new_id(), severity="critical")
    assert await put(store, first, second, first.model_copy(update={"sentence": "again"})) == [
        True,
        True,
        False,
    ]
    assert await listing(store) == [ToldAlert(alert=second), ToldAlert(alert=first)]
    assert await listing(store, limit=1) == [ToldAlert(alert=second)]
    assert await listing(store, about=first.subject) == [ToldAlert(alert=first)]
    assert await store.read(lambda tx: tx.alerts.get("alert_1")) == ToldAlert(alert=first)
    assert await store.read(lambda tx: tx.alerts.get("alert_3")) is None


async def test_many_writers_at_once_put_an_alert_once(store: Store) -> None:
    alert = an_alert()
    answers = await asyncio.gather(*(put(store, alert) for _ in range(8)))
    assert sorted(answer for (answer,) in answers) == [False] * 7 + [True]
    assert await listing(store) == [ToldAlert(alert=alert)]


async def test_an_alert_is_in_the_outbox_only_if_its_transaction_commits(store: Store) -> None:
    async def work(tx: Transaction) -> None:
        await tx.alerts.put(an_alert())
        raise LookupError

    with pytest.raises(LookupError):
        await store.write(work)
    assert await listing(store) == []


async def test_a_fact_begins_once_until_it_has_ended(store: Store) -> None:
    assert await settle(store, "s", ["a", "b"]) == {"a": 1, "b": 1}
    assert await settle(store, "s", ["a", "b"]) == {}
    assert await settle(store, "other", ["a"]) == {"a": 1}
    assert await settle(store, "s", ["a"]) == {}
    assert await settle(store, "s", ["a", "b"]) == {"b": 2}


async def test_what_lingers_neither_begins_nor_ends(store: Store) -> None:
    assert await settle(store, "s", [], ["a"]) == {}
    assert await settle(store, "s", ["a"]) == {"a": 1}
    assert await settle(store, "s", [], ["a"]) == {}
    assert await settle(store, "s", ["a"]) == {}
    await settle(store, "s", [])
    assert await settle(store, "s", [], ["a"]) == {}
    assert await settle(store, "s", ["a"]) == {"a": 2}


async def test_watchers_at_once_see_a_fact_begin_once(store: Store) -> None:
    for _ in range(3):
        begun = await asyncio.gather(*(settle(store, "s", ["a"]) for _ in range(6)))
        assert sum(len(found) for found in begun) == 1
        await settle(store, "s", [])


async def test_a_pulse_comes_back_as_it_was_kept(store: Store) -> None:
    for mark in ("1", "2"):
        pulse = Pulse(mark, NOON, NOON + MINUTE, moves=3, longest=timedelta(hours=30, microseconds=1))
        await keep_pulse(store, pulse)
        assert await store.read(lambda tx: tx.alerts.pulse("s", "units")) == pulse
        assert await store.read(lambda tx: tx.alerts.pulse("s", "outcomes")) is None


async def test_a_channel_is_sent_what_it_wants_since_it_is_known(store: Store) -> None:
    await put(
        store,
        an_alert(1, at=NOON - MINUTE),
        an_alert(2, severity="critical"),
        an_alert(3, severity="warning", kind="stalled"),
        an_alert(4, severity="critical", kind="stalled"),
        an_alert(5),
    )
    wanted = Wanted(kinds=("significant",), least_severity="warning")
    await enqueue(store, wanted)
    assert [claimed.alert.alert_id for claimed in await claim(store)] == ["alert_2"]
    await enqueue(store)
    await enqueue(store)
    assert [claimed.alert.alert_id for claimed in await claim(store)] == ["alert_3", "alert_4", "alert_5"]


async def test_whether_there_is_anything_to_do_is_known_without_a_write(store: Store) -> None:
    async def is_due(now: datetime = NOON) -> bool:
        return await store.read(lambda tx: tx.alert_deliveries.is_due(CHANNEL, EVERYTHING, now=now))

    assert await is_due()
    await enqueue(store)
    assert not await is_due()
    await put(store, an_alert())
    assert await is_due()
    await enqueue(store)
    assert await is_due()
    await claim(store)
    assert not await is_due()
    await end_leases(store)
    assert await is_due()


async def test_a_claimed_delivery_is_nobody_elses_until_its_lease_ends(store: Store) -> None:
    await put(store, an_alert())
    await enqueue(store)
    (first,) = await claim(store)
    assert (first.attempt, await claim(store)) == (1, [])
    await end_leases(store)
    (second,) = await claim(store)
    assert (second.alert, second.attempt) == (first.alert, 2)

    async def settled(claimed: Claimed) -> bool:
        return await store.write(
            lambda tx: tx.alert_deliveries.settle(CHANNEL, claimed, "delivered", now=NOON), shown=False
        )

    # the one that was away for too long has nothing more to say
    assert not await settled(first)
    assert await settled(second)
    assert not await settled(second)
    assert await claim(store, NOON + timedelta(days=1)) == []
    (delivery,) = await deliveries(store)
    assert (delivery.status, delivery.attempts, delivery.error) == ("delivered", 2, None)


async def test_a_lease_ends_by_one_clock_whatever_the_callers_say(store: Store) -> None:
    await put(store, an_alert())
    await enqueue(store)
    (first,) = await claim(store)
    # one whose clock is years ahead, and one whose clock is years behind
    for now in (NOON + timedelta(days=3_000), NOON - timedelta(days=3_000)):
        assert await claim(store, now) == []
        assert not await store.read(
            lambda tx, now=now: tx.alert_deliveries.is_due(CHANNEL, EVERYTHING, now=now)  # type: ignore[misc]
        )
    assert first.attempt == 1


async def test_a_lease_lasts_as_long_as_it_was_asked_for(store: Store) -> None:
    await put(store, an_alert())
    await enqueue(store)
    assert len(await claim(store, seconds=0.2)) == 1
    async with asyncio.timeout(60):
        while not (again := await claim(store, NOON - MINUTE, seconds=3_600.0)):  # noqa: ASYNC110 - of a clock
            await asyncio.sleep(0.02)
    assert [claimed.attempt for claimed in again] == [2]


async def test_deliverers_at_once_share_the_work(store: Store) -> None:
    await put(store, *(an_alert(number) for number in range(20)))
    await asyncio.gather(*(enqueue(store) for _ in range(4)))
    shares = await asyncio.gather(*(claim(store, limit=5) for _ in range(8)))
    claimed = [one.alert.alert_id for share in shares for one in share]
    assert len(claimed) == len(set(claimed))
    rest = [one.alert.alert_id for _ in range(4) for one in await claim(store, limit=5)]
    assert sorted(claimed + rest) == sorted(f"alert_{number}" for number in range(20))


async def test_what_is_postponed_is_due_then_and_what_is_dead_is_due_once_it_is_revived(store: Store) -> None:
    await put(store, an_alert())
    await enqueue(store)

    async def settle_next(now: datetime, status: Any, **more: Any) -> None:
        (claimed,) = await claim(store, now)
        await store.write(
            lambda tx: tx.alert_deliveries.settle(CHANNEL, claimed, status, now=now, error="away", **more),
            shown=False,
        )

    await settle_next(NOON, "pending", due_at=NOON + 5 * MINUTE)
    assert await claim(store, NOON + 4 * MINUTE) == []
    assert await listing(store, status="dead") == []
    await settle_next(NOON + 5 * MINUTE, "dead")
    assert await claim(store, NOON + timedelta(days=9)) == []
    (told,) = await listing(store, status="dead")
    assert [(found.channel, found.attempts, found.error) for found in told.deliveries] == [
        (CHANNEL, 2, "away")
    ]

    async def revive(alert_id: str, channel: str | None) -> list[str]:
        return await store.write(
            lambda tx: tx.alert_deliveries.revive(alert_id, channel, now=NOON + 6 * MINUTE), shown=False
        )

    assert await revive("alert_1", "elsewhere") == await revive("alert_9", None) == []
    assert await revive("alert_1", None) == [CHANNEL]
    assert await revive("alert_1", None) == []
    (again,) = await claim(store, NOON + 6 * MINUTE)
    assert again.attempt == 1


async def test_the_outbox_is_there_after_the_store_was_closed(lasting_url: str) -> None:
    store = await open_store(lasting_url)
    await put(store, an_alert())
    await enqueue(store)
    await store.close()
    store = await open_store(lasting_url)
    assert [claimed.alert.alert_id for claimed in await claim(store)] == ["alert_1"]
    await store.close()


async def test_what_was_told_of_an_experiment_outlives_it_and_what_is_known_of_it_does_not(
    store: Store,
) -> None:
    experiment = an_experiment()
    subject = experiment.experiment_id

    async def insert(tx: Transaction) -> None:
        await tx.experiments.insert(experiment)
        await tx.alerts.keep_pulse(subject, "units", Pulse("1", NOON, NOON))

    await store.write(insert)
    await settle(store, subject, ["a"])
    await settle(store, "other", ["a"])
    await put(store, an_alert(subject=subject))
    assert await store.write(lambda tx: tx.experiments.delete(subject))
    assert len(await listing(store, about=subject)) == 1
    assert await store.read(lambda tx: tx.alerts.pulse(subject, "units")) is None
    assert await settle(store, subject, ["a"]) == {"a": 1}
    assert await settle(store, "other", ["a"]) == {}
