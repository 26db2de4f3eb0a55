"""A webhook that is listened to, and channels that send to it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from promptab import (
    Alert,
    AlertSettings,
    Lab,
    Webhook,
)
from promptab.delivering.channels import Refused
from promptab.delivering.outbox import AlertOutbox
from promptab.delivering.webhook import WebhookChannel
from tests.contract.test_alerts import an_alert
from tests.webhook_server import (
    WebhookServer,
    listening,
)

KEYS = [b"0123456789abcdefghijklmnopqrstuv", b"vutsrqponmlkjihgfedcba9876543210"]
OLD, NEW = (f"whsec_{base64.b64encode(key).decode()}" for key in KEYS)
ENVIRONMENT = {"OLD": OLD, "NEW": NEW}
LOCAL = ("127.0.0.1", "localhost", "::1")
PATIENCE = 10.0
METADATA = "169.254.169.254"
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


def channel_to(url: str | None, environment: dict[str, str] = ENVIRONMENT, **fields: Any) -> WebhookChannel:
    given = {"name": "oncall", "url": url, "secret_env": ("NEW",), "timeout": PATIENCE}
    return WebhookChannel(Webhook(**{**given, **fields}), environment=environment)


def local(server: WebhookServer, path: str = "/hook", **fields: Any) -> WebhookChannel:
    return channel_to(server.url(path), allowed_hosts=LOCAL, **fields)


async def answer_of(channel: WebhookChannel, alert: Alert | None = None) -> Refused | None:
    """Send, with a bound that only a hanging call meets."""
    async with asyncio.timeout(60):
        return await channel.send(alert or an_alert())


async def until(condition: Callable[[], object]) -> None:
    """Return once the condition holds, which only a hanging call keeps it from for long."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is waited for knows nothing of this test
            await asyncio.sleep(0.01)


def ids(server: WebhookServer) -> list[str]:
    return [got.headers["webhook-id"] for got in server.got]
