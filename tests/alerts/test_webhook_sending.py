"""Webhooks: what is sent, and endpoints that misbehave in every way."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
import standardwebhooks

from promptab.alerts.alert import Alert
from promptab.alerts.body import MOST_SLACK_CHARS
from promptab.delivering.channels import Refused
from promptab.delivering.webhook import refusal_of
from tests.alerts.conftest import (
    LOCAL,
    NEW,
    OLD,
    PATIENCE,
    answer_of,
    channel_to,
    local,
)
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
