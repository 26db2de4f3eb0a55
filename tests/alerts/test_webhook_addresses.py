"""To whom a webhook is never sent: private addresses, however they are written, and strangers."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import httpcore2
import pytest

from promptab.alerts.addresses import is_public
from promptab.alerts.channel import Webhook
from promptab.delivering.channels import Refused
from promptab.delivering.dialing import Dialer, NotPublicError
from promptab.delivering.webhook import WebhookChannel
from tests.alerts.conftest import (
    ENVIRONMENT,
    LOCAL,
    METADATA,
    answer_of,
    channel_to,
    local,
)
from tests.webhook_server import (
    Answer,
    WebhookServer,
    listening,
)

BAD_HOSTS = [
    "127.0.0.1",
    "127.1",
    "127.0.0.1.",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "0",
    "0.0.0.0",  # noqa: S104 - nothing is bound to it
    "localhost",
    "LOCALHOST",
    "localhost.",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::]",
    "[fe80::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[ff02::1]",
    METADATA,
    "2852039166",
    "0xa9fea9fe",
    f"[::ffff:{METADATA}]",
    "a..example",
    "a" * 70,
    "10.0.0.1",
    "172.16.0.1",
    "192.168.0.1",
    "100.100.100.200",
    "192.0.0.192",
    "168.63.129.16",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
]


@pytest.mark.parametrize("host", BAD_HOSTS)
async def test_what_is_not_public_is_never_connected_to_however_it_is_written(
    server: WebhookServer, host: str
) -> None:
    answer = await answer_of(channel_to(server.url(scheme="https", host=host)))
    assert answer is not None
    assert answer.error in {
        "the host leads to no public address; allowed_hosts can allow it by name",
        "the host is not known",
    }
    assert server.connections == 0


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("172.32.0.1", True),
        ("2606:4700:4700::1111", True),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::808:808", True),
        ("2002:808:808::1", True),
        ("2606:4700::1111%eth0", False),
        ("4000::1", False),
        ("2001:db8::1", False),
        ("203.0.113.9", False),
        ("example.com", False),
        ("", False),
    ],
)
def test_public_addresses_are_those_of_the_internet(address: str, public: bool) -> None:
    assert is_public(address) is public


class Rebinding:
    """A name that is public when it is first asked for, and leads here afterwards."""

    def __init__(self, answers: Iterable[Sequence[str]]) -> None:
        self._answers = iter(answers)
        self.asked = 0

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked += 1
        return next(self._answers)


class Diverted(httpcore2.AsyncNetworkBackend):
    """A network that takes every connection to this machine, whatever address was dialled."""

    def __init__(self) -> None:
        self.dialled: list[str] = []

    async def connect_tcp(self, host: str, port: int, *rest: Any, **how: Any) -> httpcore2.AsyncNetworkStream:
        self.dialled.append(host)
        return await httpcore2.AnyIOBackend().connect_tcp("127.0.0.1", port)


async def test_a_name_is_looked_up_once_and_dialled_by_what_was_checked() -> None:
    name, network = Rebinding([["8.8.8.8"], ["127.0.0.1"]]), Diverted()
    async with listening(WebhookServer()) as server:
        with pytest.raises(NotPublicError):
            await Dialer((), name, network).connect_tcp("rebind.example.com", server.port, timeout=5)
        # and where the connected socket says otherwise than the address that was dialled, it is closed unused
        assert (name.asked, network.dialled, server.connections) == (1, ["8.8.8.8"], 1)
        await asyncio.sleep(0.05)
        assert server.got == []


async def test_a_name_that_leads_elsewhere_the_second_time_is_refused_then(server: WebhookServer) -> None:
    name = Rebinding([["127.0.0.1"], ["10.0.0.1", "127.0.0.1", "::ffff:127.0.0.1"]])
    webhook = Webhook(
        name="a", url=server.url(scheme="https", host="rebind.example.com"), secret_env=("NEW",)
    )
    channel = WebhookChannel(webhook, environment=ENVIRONMENT, resolve=name)
    for asked in (1, 2):
        answer = await answer_of(channel)
        assert answer is not None
        assert "no public address" in answer.error
        assert (name.asked, server.connections) == (asked, 0)


async def test_of_several_addresses_only_the_public_ones_are_dialled() -> None:
    name, network = Rebinding([["127.0.0.1", "8.8.8.8", "10.0.0.1"]]), Diverted()
    async with listening(WebhookServer()) as server:
        with pytest.raises(NotPublicError):
            await Dialer((), name, network).connect_tcp("mixed.example.com", server.port, timeout=5)
    assert network.dialled == ["8.8.8.8"]


async def test_an_address_that_does_not_answer_is_followed_by_the_next(server: WebhookServer) -> None:
    # nobody listens there on this port: the server has only 127.0.0.1
    name = Rebinding([["127.0.0.2", "127.0.0.1"]])
    stream = await Dialer(("two.example.com",), name).connect_tcp("two.example.com", server.port, timeout=5)
    assert stream.get_extra_info("server_addr")[0] == "127.0.0.1"
    await stream.aclose()


async def test_a_redirect_to_a_private_address_is_not_followed(server: WebhookServer) -> None:
    async with listening(WebhookServer()) as canary:
        for location in (canary.url(), f"http://{METADATA}/latest/meta-data/"):
            server.script.append(Answer(307, (("location", location),)))
            answer = await answer_of(local(server))
            assert answer == Refused("answered 307: redirects are not followed")
        assert canary.connections == 0


async def test_proxies_of_the_environment_are_not_used(
    server: WebhookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(WebhookServer()) as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url("/"))
        assert await answer_of(local(server)) is None
        assert (proxy.connections, len(server.got)) == (0, 1)


def certificate(folder: Path) -> ssl.SSLContext:
    """Make a certificate for localhost that nobody vouches for; return a server's context with it."""
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    made += ["-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(made, cwd=folder, check=True, capture_output=True, timeout=60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


async def test_a_certificate_is_verified_by_the_name_in_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(WebhookServer(), tls=certificate(tmp_path)) as server:
        named = server.url(scheme="https", host="localhost")

        async def answer(url: str) -> Refused | None:
            return await answer_of(channel_to(url, allowed_hosts=LOCAL))

        refused = await answer(named)
        assert refused is not None
        assert refused.error.startswith("its certificate was not accepted: self")
        assert server.got == []
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        assert await answer(named) is None
        # right certificate, another name
        refused = await answer(server.url(scheme="https"))
        assert refused is not None
        assert "IP address mismatch" in refused.error
        assert len(server.got) == 1
