"""Choosing without waiting: the same answers as `choose`, from memory alone, or a clear error."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import promptab
from promptab import (
    Choice,
    InvalidInputError,
    Lab,
    NeedsStoreError,
    NotFoundError,
    PromptType,
    PromptVariant,
    StoreUnavailableError,
)
from promptab.stores import served
from promptab.stores.base import Store
from tests.clock import SettableClock

A, B = "1.0.0", "1.1.0"
AB = [PromptVariant(A), PromptVariant(B)]
UNITS = [f"u{number}" for number in range(60)]


@pytest.fixture
def store_url() -> str:
    return "sqlite:///:memory:"


@pytest.fixture
async def greeting(lab: Lab) -> None:
    for number in (A, B):
        await lab.versions.create_version("greeting", "system", f"Hello {{{{ name }}}} ({number}).", number)


def facts(choice: Choice) -> tuple[Any, ...]:
    return (
        choice.name, choice.prompt_type, choice.source, choice.reason, choice.experiment_id, choice.variant,
        choice.unit, choice.version, choice.config, choice.content_hash,
    )  # fmt: skip


@pytest.mark.usefixtures("greeting")
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"user_id": "ada"},
        {"user_id": 17},
        {"user_id": "ada", "attributes": {"plan": "free"}},
        {"user_id": "ada", "attributes": {"plan": "premium"}},
        {"session_id": "s"},
        {"version": A},
        {"version": "latest"},
        {"version": "production"},
        {"environment": "production"},
        {"prompt_type": "system"},
        {"prompt_type": PromptType.SYSTEM},
    ],
    ids=str,
)
@pytest.mark.parametrize("where", [None, "plan == 'premium'"])
async def test_it_is_the_choice_that_awaiting_gives(lab: Lab, how: dict[str, Any], where: str | None) -> None:
    for version in await lab.versions.list_versions("greeting"):
        await lab.versions.promote(version.version_id)
    await lab.experiments.create_experiment("greeting", "system", AB, where=where)
    await lab.store.snapshot()
    at_first = lab.choose_nowait("greeting", **how)
    awaited = await lab.choose("greeting", **how)
    again = lab.choose_nowait("greeting", **how)
    assert facts(at_first) == facts(awaited) == facts(again)
    assert at_first.render(name="Ada") == awaited.render(name="Ada")


@pytest.mark.usefixtures("greeting")
async def test_it_exposes_the_unit_once(lab: Lab) -> None:
    await lab.experiments.create_experiment("greeting", "system", AB)
    await lab.store.snapshot()
    for _ in range(3):
        for unit in UNITS:
            lab.choose_nowait("greeting", user_id=unit)
    counts = await lab.experiments.get_variant_distribution("greeting")
    assert sum(counts.values()) == len(UNITS)
    assert lab.store.queue_stats().written == len(UNITS)


async def test_before_there_is_a_snapshot_it_says_what_to_do(lab: Lab) -> None:
    with pytest.raises(NeedsStoreError, match=r"await lab\.choose"):
        lab.choose_nowait("greeting")
    for _ in range(1_000):
        # the first call that finds none has one taken
        await asyncio.sleep(0.001)
        if lab.store.latest_snapshot() is not None:
            break
    with pytest.raises(NotFoundError):
        lab.choose_nowait("greeting")


@pytest.mark.usefixtures("greeting")
async def test_a_unit_that_may_hold_a_variant_from_before_has_to_be_awaited(
    lab: Lab, clock: SettableClock
) -> None:
    await lab.experiments.create_experiment("greeting", "system", AB)
    before = {unit: (await lab.choose("greeting", user_id=unit)).variant for unit in UNITS}
    await lab.experiments.update_weights("greeting", {A: 0.0, B: 1.0})
    clock.advance(seconds=10)
    await lab.store.snapshot()
    answered, refused = {}, []
    for unit in UNITS:
        try:
            answered[unit] = lab.choose_nowait("greeting", user_id=unit).variant
        except NeedsStoreError:
            refused.append(unit)
    assert answered
    assert refused
    assert {before[unit] for unit in refused} == {A}
    assert answered == {unit: before[unit] for unit in answered}
    for unit in refused:
        assert (await lab.choose("greeting", user_id=unit)).variant == A
        # once asked, it is known
        assert lab.choose_nowait("greeting", user_id=unit).variant == A


@pytest.mark.usefixtures("greeting")
async def test_a_version_that_is_not_in_the_snapshot_has_to_be_awaited(lab: Lab) -> None:
    await lab.store.snapshot()
    with pytest.raises(NeedsStoreError, match="system/greeting"):
        lab.choose_nowait("greeting", version=A)
    assert (await lab.choose("greeting", version=A)).source == "pin"
    assert lab.choose_nowait("greeting", version=A).source == "pin"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((7,), InvalidInputError),
        (([],), InvalidInputError),
        (("greeting", "nonsense"), InvalidInputError),
        (("greeting", []), InvalidInputError),
        (("nobody",), NotFoundError),
    ],
)
@pytest.mark.usefixtures("greeting")
async def test_what_choose_refuses_it_refuses_too(
    lab: Lab, arguments: tuple[Any, ...], error: type[Exception]
) -> None:
    await lab.store.snapshot()
    with pytest.raises(error):
        lab.choose_nowait(*arguments)
    with pytest.raises(error):
        await lab.choose(*arguments)


@pytest.mark.parametrize("user_id", [True, 1.5, "", "x" * 1_000, "a\nb", [], b"ada"])
@pytest.mark.usefixtures("greeting")
async def test_a_bad_unit_is_refused_however_often_it_comes(lab: Lab, user_id: Any) -> None:
    await lab.experiments.create_experiment("greeting", "system", AB)
    for _ in range(3):
        with pytest.raises(InvalidInputError, match="user_id"):
            await lab.choose("greeting", user_id=user_id)
        with pytest.raises(InvalidInputError, match="user_id"):
            lab.choose_nowait("greeting", user_id=user_id)
        with pytest.raises(InvalidInputError, match="user_id"):
            await lab.experiments.get_variant_for_user("greeting", user_id)


async def test_it_answers_from_an_old_snapshot_and_says_so(
    lasting_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with promptab.open(lasting_url) as lab:
        version = await lab.versions.create_version("greeting", "system", "Hello.")
        assert not (await lab.choose("greeting")).stale
        monkeypatch.setattr(lab.store, "snapshot_age", lambda: 5.0)
        monkeypatch.setattr(served, "LATEST_SECONDS", -1.0)
        choice = lab.choose_nowait("greeting", version="latest")
        assert (choice.content_hash, choice.stale, choice.snapshot_age) == (version.content_hash, True, 5.0)


async def test_a_closed_lab_has_nothing_to_choose_from(lab: Lab) -> None:
    await lab.versions.create_version("greeting", "system", "Hello.")
    lab_store: Store = lab.store
    await lab.choose("greeting")
    await lab.close()
    assert lab_store.fresh_snapshot() is None
    with pytest.raises(NeedsStoreError):
        lab.choose_nowait("greeting")
    with pytest.raises(StoreUnavailableError, match="closed"):
        await lab.choose("greeting")


@pytest.mark.usefixtures("greeting")
async def test_what_is_remembered_of_a_user_goes_with_the_next_snapshot(lab: Lab) -> None:
    created = await lab.experiments.create_experiment("greeting", "system", AB, overrides={"ada": A})
    for shown in (A, B, A):
        await lab.experiments.set_override(created.experiment_id, "ada", shown)
        for _ in range(2):
            assert (await lab.choose("greeting", user_id="ada")).variant == shown
            assert await lab.experiments.get_variant_for_user("greeting", "ada") == shown
    await lab.experiments.pause("greeting")
    assert (await lab.choose("greeting", user_id="ada")).variant is None
    assert await lab.experiments.get_variant_for_user(created.experiment_id, "ada") is None


@pytest.mark.usefixtures("greeting")
async def test_what_depends_on_the_time_is_not_remembered(lab: Lab, clock: SettableClock) -> None:
    ends = clock.advance(hours=1)
    clock.advance(hours=-1)
    created = await lab.experiments.create_experiment("greeting", "system", AB, ends_at=ends)
    for _ in range(2):
        assert (await lab.choose("greeting", user_id="ada")).source == "experiment"
        assert await lab.experiments.get_variant_for_user(created.experiment_id, "ada") is not None
    clock.advance(hours=2)
    assert (await lab.choose("greeting", user_id="ada")).source == "excluded"
    assert await lab.experiments.get_variant_for_user(created.experiment_id, "ada") is None


@pytest.mark.usefixtures("greeting")
async def test_what_depends_on_attributes_is_not_remembered(lab: Lab) -> None:
    created = await lab.experiments.create_experiment("greeting", "system", AB, where="plan == 'premium'")
    for plan, source in (("premium", "experiment"), ("free", "excluded"), ("premium", "experiment")):
        choice = await lab.choose("greeting", user_id="ada", attributes={"plan": plan})
        assert choice.source == source
        served_to = await lab.experiments.get_variant_for_user(created.experiment_id, "ada", {"plan": plan})
        assert (served_to is not None) == (source == "experiment")
    assert (await lab.choose("greeting", user_id="ada")).source == "excluded"
