"""Webhooks that are declared wrongly, and their secrets, which are nowhere to be read."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from promptab import InvalidInputError
from promptab.alerts.channel import Webhook
from tests.alerts.conftest import (
    NEW,
    OLD,
    answer_of,
    channel_to,
    local,
)
from tests.webhook_server import (
    Answer,
    Babble,
    Hang,
    Reset,
    WebhookServer,
)

SECRET_WORDS = ["hush", "s3cr3t", NEW, NEW.removeprefix("whsec_")]


@pytest.mark.parametrize(
    "fields",
    [
        {"url": "https://ada:s3cr3t@hooks.example.com/"},
        {"url": "ftp://hooks.example.com/s3cr3t"},
        {"url": "http://hooks.example.com/s3cr3t"},
        {"url": "https://hooks.example.com/s3cr3t\n"},
        {"url": "https://hooks.example.com/s3 cr3t?hush"},
        {"url": "https://hooks.example.com:99999/hush"},
        {"url": "https://[::1/hush"},
        {"url": "https:///hush"},
        {"url": "//hooks.example.com/hush"},
        {"url": "https://hooks.example.com\\@127.0.0.1/hush"},
        {"url": "https://①②⑦.0.0.1/hush"},
        {"url": f"https://hooks.example.com/{'s3cr3t' * 400}"},
        {"url": ["https://hooks.example.com/hush"]},
        {"url": "https://hooks.example.com/hush", "url_env": "ALSO"},
        {"url": "https://hooks.example.com/", "secret": NEW},
        {"url": "https://hooks.example.com/", "secret_env": NEW},
        {"url": "https://hooks.example.com/", "secret_env": "whsec_s3cr3tAndAnIdentifier"},
        {"url": "https://hooks.example.com/", "secret_env": [["hush"]]},
        {"name": "https://hooks.example.com/hush", "url_env": "HOOK"},
        {"url_env": "https://hooks.example.com/hush"},
        {"url": "https://hooks.example.com/hush", "secret_env": ()},
        {"url": "https://hooks.example.com/hush", "timeout": 61.0},
    ],
)
def test_what_is_declared_wrongly_is_refused_without_a_word_of_it(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Webhook(**{"name": "oncall", "secret_env": ["NEW"], **fields})
    for word in SECRET_WORDS:
        assert word not in f"{caught.value} {caught.value.value!r} {caught.value.__cause__!r}"


@pytest.mark.parametrize("held", ["", "   ", "whsec_", "hush", "whsec_hush!!", "whsec_" + "A" * 200])
def test_a_secret_of_no_use_is_refused_when_it_is_read(held: str) -> None:
    for environment in ({"NEW": held}, {"NEW": held, "OLD": OLD}):
        with pytest.raises(InvalidInputError, match="NEW") as caught:
            channel_to("https://hooks.example.com/", environment, secret_env=["NEW"])
        assert not any(word in str(caught.value) for word in ("hush", "AAAA"))


def test_an_address_may_be_kept_in_the_environment_as_well() -> None:
    fields: dict[str, Any] = {"url_env": "HOOK", "secret_env": (), "format": "slack"}
    channel_to(None, {"HOOK": "https://hooks.slack.com/services/s3cr3t"}, **fields)
    for held in ({}, {"HOOK": "http://hooks.example.com/s3cr3t"}):
        with pytest.raises(InvalidInputError, match="HOOK") as caught:
            channel_to(None, held, **fields)
        assert "s3cr3t" not in str(caught.value)


async def test_no_secret_is_in_a_log_or_an_answer_whatever_happens(
    server: WebhookServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.script += [Answer(500), Reset(), Hang(), Babble(), Answer(301)]
    channel = local(server, "/hush?token=s3cr3t", timeout=0.2)
    answers = [await answer_of(channel) for _ in range(6)]
    dead = channel_to(f"https://127.0.0.1:{server.port}/hush?token=s3cr3t")
    answers.append(await answer_of(dead))
    for word in SECRET_WORDS:
        assert word not in f"{caplog.text} {answers!r} {channel!r} {channel._webhook!r}"
