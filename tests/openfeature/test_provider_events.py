"""When a provider is ready, and what it tells of changes, of a store that is away and of its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.event import EventDetails, ProviderEvent
from openfeature.exception import ErrorCode, ProviderNotReadyError
from openfeature.flag_evaluation import Reason
from openfeature.provider import ProviderStatus

import promptab
from promptab import Lab, PromptVariant, PromptVersion
from promptab.integrations import openfeature
from promptab.integrations.openfeature import PromptabProvider, watching
from tests.openfeature.conftest import CONFIG

LONG_SECONDS = 10.0
"""Far more than any of this takes: past it something waits for ever."""


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LOOK_SECONDS", 0.02)


class Heard:
    """What the SDK has told of a provider."""

    def __init__(self) -> None:
        self.events: list[tuple[ProviderEvent, EventDetails]] = []
        for event in ProviderEvent:
            api.add_handler(event, self._listener(event))

    def _listener(self, event: ProviderEvent) -> Callable[[EventDetails], None]:
        def listen(details: EventDetails) -> None:
            # the SDK has a provider of its own to begin with, which is ready
            if details.provider_name == "promptab":
                self.events.append((event, details))

        return listen

    async def next(self) -> tuple[ProviderEvent, EventDetails]:
        async with asyncio.timeout(LONG_SECONDS):
            while not self.events:  # noqa: ASYNC110 - another thread tells
                await asyncio.sleep(0.005)
        return self.events.pop(0)


@pytest.fixture
def heard() -> Any:
    from openfeature import _event_support  # noqa: PLC0415 - what the SDK has no public name for

    yield Heard()
    _event_support.clear()


async def test_a_move_of_production_changes_the_configuration(
    lab: Lab, client: OpenFeatureClient, prompts: dict[str, PromptVersion], heard: Heard
) -> None:
    assert await heard.next() == (ProviderEvent.PROVIDER_READY, EventDetails(provider_name="promptab"))
    better = await lab.versions.create_version("rag", "config", config={**CONFIG, "top_k": 9})
    event, details = await heard.next()
    assert (event, details.flags_changed) == (ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, ["config/rag"])
    assert client.get_integer_value("rag#top_k", 0) == 5
    await lab.versions.promote(better.version_id)
    event, details = await heard.next()
    assert (event, details.flags_changed) == (ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, ["config/rag"])
    assert client.get_integer_value("rag#top_k", 0) == 9
    await lab.versions.rollback("rag", "config", "production", reason="worse")
    assert (await heard.next())[1].flags_changed == ["config/rag"]
    assert client.get_integer_value("rag#top_k", 0) == 5
    await lab.versions.promote(prompts["text"].version_id, environment="staging")
    await lab.experiments.create_experiment(
        "tones",
        "system",
        [PromptVariant("1.0.0", key="a"), PromptVariant("1.0.0", key="b")],
        prompt_name="reply",
    )
    # what staging has is nobody's flag
    assert (await heard.next())[1].flags_changed == ["system/reply"]
    assert heard.events == []


async def test_a_move_by_another_process_is_seen_without_an_evaluation(tmp_path: Path, heard: Heard) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    async with promptab.open(url) as lab, promptab.open(url) as other:
        version = await other.versions.create_version("rag", "config", config=CONFIG)
        api.set_provider(await openfeature.provider(lab))
        assert (await heard.next())[0] is ProviderEvent.PROVIDER_READY
        await other.versions.promote(version.version_id)
        event, details = await heard.next()
        assert (event, details.flags_changed) == (
            ProviderEvent.PROVIDER_CONFIGURATION_CHANGED,
            ["config/rag"],
        )
        api.clear_providers()


async def test_a_store_that_is_away_is_stale_and_then_ready_again(tmp_path: Path, heard: Heard) -> None:
    home, elsewhere, kept = tmp_path / "home", tmp_path / "elsewhere", tmp_path / "kept"
    home.mkdir()
    url = f"sqlite:///{home / 'store.db'}"
    async with promptab.open(url, snapshot_file=kept) as lab:
        await lab.versions.create_version("rag", "config", config=CONFIG)
        await lab.store.snapshot()
    home.rename(elsewhere)
    async with promptab.open(url, snapshot_file=kept, timeout=0.5) as lab:
        api.set_provider_and_wait(await openfeature.provider(lab))
        client = api.get_client()
        assert [(await heard.next())[0], (await heard.next())[0]] == [
            ProviderEvent.PROVIDER_READY,
            ProviderEvent.PROVIDER_STALE,
        ]
        assert client.get_provider_status() is ProviderStatus.STALE
        found = client.get_integer_details("rag#top_k", 0)
        assert (found.value, found.reason) == (5, Reason.STALE)
        elsewhere.rename(home)
        assert (await heard.next())[0] is ProviderEvent.PROVIDER_READY
        assert client.get_integer_details("rag#top_k", 0).reason == Reason.STATIC
        api.clear_providers()


async def test_a_lab_that_is_closed_is_an_error_and_gives_defaults(
    lab: Lab, client: OpenFeatureClient, heard: Heard
) -> None:
    await heard.next()
    await lab.close()
    event, details = await heard.next()
    assert (event, details.error_code) == (ProviderEvent.PROVIDER_ERROR, ErrorCode.PROVIDER_NOT_READY)
    assert "closed" in (details.message or "")
    found = client.get_integer_details("rag#top_k", -1)
    assert (found.value, found.error_code) == (-1, ErrorCode.PROVIDER_NOT_READY)
    assert (await client.get_integer_details_async("rag#top_k", -1)).value == -1
    assert client.get_provider_status() is ProviderStatus.ERROR


async def test_a_provider_whose_store_was_never_reached_is_not_ready(
    tmp_path: Path, lab: Lab, heard: Heard
) -> None:
    await lab.close()
    with pytest.raises(ProviderNotReadyError):
        api.set_provider_and_wait(await openfeature.provider(lab))
    assert (await heard.next())[0] is ProviderEvent.PROVIDER_ERROR
    api.clear_providers()


async def test_shutting_down_watches_no_more(lab: Lab, heard: Heard) -> None:
    before = asyncio.all_tasks()
    api.set_provider(await openfeature.provider(lab))
    assert (await heard.next())[0] is ProviderEvent.PROVIDER_READY
    assert len(asyncio.all_tasks() - before) == 1
    await asyncio.to_thread(api.clear_providers)
    async with asyncio.timeout(LONG_SECONDS):
        while asyncio.all_tasks() - before:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)


def test_a_provider_whose_loop_has_ended_gives_defaults() -> None:
    async def made() -> PromptabProvider:
        async with promptab.open("sqlite:///:memory:") as lab:
            await lab.versions.create_version("rag", "config", config=CONFIG)
            found = await openfeature.provider(lab)
            api.set_provider_and_wait(found)
            assert api.get_client().get_integer_value("rag#top_k", 0) == 5
            return found

    ended = asyncio.run(made())
    found = api.get_client().get_integer_details("rag#top_k", -1)
    assert (found.value, found.error_code) == (-1, ErrorCode.GENERAL)
    assert "loop" in (found.error_message or "")
    api.clear_providers()
    assert ended.outcomes_not_recorded == 0
