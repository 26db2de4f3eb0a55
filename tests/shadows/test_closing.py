"""Closing a lab whose runs in the shadow do not end."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import Any

import httpx2
import pytest

import promptab
from promptab import ShadowSettings
from tests.shadows.conftest import (
    LONGEST,
    SHADOW_MODELS,
    TwoFacedServer,
    experiment_with_shadow,
    openai,
    shadow_events,
)


class Stubborn(httpx2.AsyncHTTPTransport):
    """Asks as any other, but what a shadow asks ends when it is released, and not when it is cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = asyncio.Event()
        self.released = asyncio.Event()
        self.swallowed = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if SHADOW_MODELS["chat"].encode() in request.content:
            self.entered.set()
            while not self.released.is_set():
                try:
                    await self.released.wait()
                except asyncio.CancelledError:
                    self.swallowed += 1
        return await super().handle_async_request(request)


async def test_a_client_that_swallows_its_cancellation_is_left_behind_and_told(
    server: TwoFacedServer, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    url = f"sqlite:///{tmp_path / 'store.db'}"
    transport = Stubborn()
    settings = ShadowSettings(close_seconds=0.05, max_cost=1.0)
    async with openai.AsyncOpenAI(
        **server.openai, max_retries=0, http_client=httpx2.AsyncClient(transport=transport)
    ) as client:
        # closing has a bound, and so the block ends, while the run goes on
        async with asyncio.timeout(LONGEST), promptab.open(url, shadows=settings) as lab:
            await experiment_with_shadow(lab)
            await lab.complete("reply", client=client, variables={"customer": "Ada"}, user_id="u")
            await transport.entered.wait()
        assert transport.swallowed == 1
        assert "1 run in the shadow has not ended" in caplog.text
        stats = lab.shadows.stats()
        assert (stats.pending, stats.cancelled) == (0, 1)
        (task,) = [task for task in asyncio.all_tasks() if "shadow" in task.get_name()]
        # whatever comes of it afterwards concerns the closed lab no more
        transport.released.set()
        await asyncio.wait({task}, timeout=LONGEST)
        assert task.done()
        assert lab.shadows.stats() == stats
        del task
        gc.collect()
    assert [record.message for record in caplog.records if "exception" in record.message] == []
    async with promptab.open(url) as again:
        assert await shadow_events(again) == []
