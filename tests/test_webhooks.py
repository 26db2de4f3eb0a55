"""Webhooks: what is sent, to whom it is never sent, and endpoints that misbehave in every way."""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import httpcore2
import pytest
import standardwebhooks

from promptab import InvalidInputError
from promptab.alerts.addresses import is_public
from promptab.alerts.alert import Alert
from promptab.alerts.body import MOST_SLACK_CHARS, line_of
from promptab.alerts.channel import Webhook
from promptab.delivering.channels import CallbackChannel, Refused
from promptab.delivering.dialing import Dialer, NotPublicError
from promptab.delivering.webhook import WebhookChannel, refusal_of
from tests.contract.test_alerts import an_alert
from tests.webhook_server import (
    Answer,
    Babble,
    Drip,
    Endless,
    Fault,
    Hang,
    Reset,
    WebhookServer,
    listening,
)

KEYS = [b"0123456789abcdefghijklmnopqrstuv", b"vutsrqponmlkjihgfedcba9876543210"]
OLD, NEW = (f"whsec_{base64.b64encode(key).decode()}" for key in KEYS)
ENVIRONMENT = {"OLD": OLD, "NEW": NEW}
LOCAL = ("127.0.0.1", "localhost", "::1")
PATIENCE = 10.0
METADATA = "169.254.169.254"


@pytest.fixture
async def server() -> AsyncIterator[WebhookServer]:
    async with listening(WebhookServer()) as server:
        yield server


def channel_to(url: str | None, environment: dict[str, str] = ENVIRONMENT, **fields: Any) -> WebhookChannel:
    given = {"name": "oncall", "url": url, "secret_env": ("NEW",), "timeout": PATIENCE}
    return WebhookChannel(Webhook(**{**given, **fields}), environment=environment)


def local(server: WebhookServer, path: str = "/hook", **fields: Any) -> WebhookChannel:
    return channel_to(server.url(path), allowed_hosts=LOCAL, **fields)


async def answer_of(channel: WebhookChannel, alert: Alert | None = None) -> Refused | None:
    """Send, with a bound that only a hanging call meets."""
    async with asyncio.timeout(60):
        return await channel.send(alert or an_alert())


async def test_the_published_verifier_accepts_what_is_sent(server: WebhookServer) -> None:
    alert = an_alert(at=datetime.now(UTC), sentence="Ü: 15 points", decision_id="d")
    assert await answer_of(local(server, "/hook?team=a"), alert) is None
    (got,) = server.got
    assert (got.target, got.headers["content-type"]) == ("/hook?team=a", "application/json")
    assert standardwebhooks.Webhook(NEW).verify(got.body, got.headers) == got.document
    assert got.headers["webhook-id"] == alert.alert_id
    assert got.document["type"] == "promptab.alert.significant"
    assert Alert.model_validate(got.document["data"]) == alert
    assert got.document["timestamp"] == got.document["data"]["at"] == alert.at.isoformat()[:-6] + "Z"


async def test_a_secret_is_exchanged_while_receivers_know_either(server: WebhookServer) -> None:
    assert await answer_of(local(server, secret_env=["NEW", "OLD"])) is None
    (got,) = server.got
    for secret in (OLD, NEW):
        standardwebhooks.Webhook(secret).verify(got.body, got.headers)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(base64.b64encode(b"x" * 32).decode()).verify(got.body, got.headers)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(NEW).verify(got.body + b" ", got.headers)


async def test_slack_gets_its_own_shape_in_which_nobody_is_mentioned(server: WebhookServer) -> None:
    alert = an_alert(name="<!channel> & co", sentence="<@U1> " + "long " * 2_000, severity="critical")
    channel = local(server, "/services/T0/B0/token", format="slack", secret_env=())
    assert await answer_of(channel, alert) is None
    (got,) = server.got
    said = got.document["blocks"][0]["text"]["text"]
    assert said.startswith(":rotating_light: *&lt;!channel&gt; &amp; co*: significant\n&lt;@U1&gt; long")
    assert len(said) <= MOST_SLACK_CHARS
    assert "<" not in got.document["text"]
    assert "webhook-signature" not in got.headers


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Hang(), "no answer within 0.5 s"),
        (Drip(), "no answer within 0.5 s"),
        (Reset(), "the connection broke before there was an answer"),
        (Babble(), "the connection broke before there was an answer"),
        (Endless(body=False), "the connection broke before there was an answer"),
        (Answer(500), "answered 500"),
        (Answer(404), "answered 404"),
        (Answer(302, (("location", "/elsewhere"),)), "answered 302: redirects are not followed"),
    ],
    ids=["hang", "drip", "reset", "babble", "endless_head", "500", "404", "redirect"],
)
async def test_an_endpoint_that_misbehaves_is_told_in_plain_words(
    server: WebhookServer, fault: Fault, told: str
) -> None:
    server.script.append(fault)
    timeout = 0.5 if "0.5 s" in told else PATIENCE
    assert await answer_of(local(server, timeout=timeout)) == Refused(told)
    assert len(server.got) == 1
    # and is sent the next one all the same
    assert await answer_of(local(server)) is None


async def test_an_answer_without_an_end_is_not_read(server: WebhookServer) -> None:
    server.script.append(Endless(body=True))
    assert await answer_of(local(server)) is None
    assert server.bytes_taken < 50_000_000


async def test_an_endpoint_that_accepts_nothing_is_given_up_in_time() -> None:
    async with listening(WebhookServer()) as server:
        gone = local(server)
    assert await answer_of(gone) == Refused("the connection was refused")
    # TLS is spoken to what does not answer it
    async with listening(WebhookServer(always=Hang())) as server:
        waiting = channel_to(server.url(scheme="https"), allowed_hosts=LOCAL, timeout=0.5)
        assert await answer_of(waiting) == Refused("no answer within 0.5 s")


NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "retry_after", "expected"),
    [
        (200, "", None),
        (204, "5", None),
        (410, "5", Refused("answered 410: it wants no more", for_good=True)),
        (429, "120", Refused("answered 429", again_in_seconds=120.0)),
        (503, "Mon, 05 Jan 2026 12:02:00 GMT", Refused("answered 503", again_in_seconds=120.0)),
        (503, "Mon, 05 Jan 2026 11:00:00 GMT", Refused("answered 503", again_in_seconds=0.0)),
        (503, "Mon, 05 Jan 2026 12:02:00", Refused("answered 503", again_in_seconds=120.0)),
        (429, "soon", Refused("answered 429")),
        (429, "-1", Refused("answered 429")),
        (429, "9" * 400, Refused("answered 429")),
        (503, f"Mon, 05 Jan {'9' * 20} 12:02:00 GMT", Refused("answered 503")),
        (503, f"Mon, 05 Jan 2026 12:02:00 +{'9' * 14}", Refused("answered 503")),
        (101, "", Refused("answered 101")),
    ],
)
def test_an_answer_says_whether_and_when_to_come_again(
    status: int, retry_after: str, expected: Refused | None
) -> None:
    assert refusal_of(status, retry_after, now=NOW) == expected


async def test_a_wish_to_be_left_alone_arrives(server: WebhookServer) -> None:
    server.script += [Answer(429, (("Retry-After", "77"),)), Answer(410)]
    assert await answer_of(local(server)) == Refused("answered 429", again_in_seconds=77.0)
    assert await answer_of(local(server)) == Refused("answered 410: it wants no more", for_good=True)


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
