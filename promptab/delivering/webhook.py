"""Sending an alert to a webhook: one signed POST over a connection of its own, with an end to it.

Redirects are not followed and proxies of the environment are not used: either would lead past the check of the
address. Of the answer nothing is read but its head, so that it can be as long as it likes.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpcore2

from promptab.alerts.alert import Alert
from promptab.alerts.body import document_of, encoded, slack_document_of
from promptab.alerts.channel import Wanted, Webhook, check_address
from promptab.alerts.signing import read_secret, signature_headers
from promptab.delivering.channels import Refused
from promptab.delivering.dialing import Dialer, NotPublicError, Resolve, resolve
from promptab.errors import InvalidInputError
from promptab.managed import Clock, utc_now

_GONE = 410
"""The status by which a receiver says that it wants no more (Standard Webhooks)."""


class WebhookChannel:
    """A webhook with its secrets, which are read from the environment here.

    Raises `InvalidInputError` for a variable that is not set, or holds nothing of use, without a word of what it holds.
    """

    def __init__(
        self,
        webhook: Webhook,
        *,
        environment: Mapping[str, str] = os.environ,
        resolve: Resolve = resolve,
        clock: Clock = utc_now,
    ) -> None:
        self.name = webhook.name
        self.wanted: Wanted = webhook
        self.seconds = webhook.timeout
        self._webhook = webhook
        self._clock = clock
        self._keys = [
            read_secret(_held(environment, variable), variable=variable) for variable in webhook.secret_env
        ]
        url = webhook.url if webhook.url_env is None else _held(environment, webhook.url_env)
        field = webhook.url_env or "url"
        parts = check_address(url or "", field=field, allowed_hosts=webhook.allowed_hosts)
        self._url = url or ""
        self._dialer = Dialer(webhook.allowed_hosts, resolve)
        self._tls = httpcore2.default_ssl_context() if parts.scheme == "https" else None

    async def send(self, alert: Alert) -> Refused | None:
        try:
            async with asyncio.timeout(self.seconds):
                return await self._post(alert)
        except (TimeoutError, httpcore2.TimeoutException):
            return Refused(f"no answer within {self.seconds:g} s")
        except NotPublicError:
            return Refused("the host leads to no public address; allowed_hosts can allow it by name")
        except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError) as error:
            return Refused(_spoken(error))

    async def _post(self, alert: Alert) -> Refused | None:
        document = slack_document_of if self._webhook.format == "slack" else document_of
        body = encoded(document(alert))
        headers = {
            "content-type": "application/json",
            "user-agent": "promptab",
            # of the attempt: receivers refuse what was signed long ago
            **signature_headers(alert.alert_id, int(self._clock().timestamp()), body, self._keys),
        }
        half = self.seconds / 2.0
        patience = {"connect": half, "read": self.seconds, "write": self.seconds, "pool": half}
        async with (
            httpcore2.AsyncConnectionPool(
                ssl_context=self._tls, max_keepalive_connections=0, network_backend=self._dialer
            ) as pool,
            pool.stream(
                "POST", self._url, headers=[*headers.items()], content=body, extensions={"timeout": patience}
            ) as response,
        ):
            answered = {name.decode("latin-1").lower(): value for name, value in response.headers}
            return refusal_of(
                response.status, answered.get("retry-after", b"").decode("latin-1"), now=self._clock()
            )


def refusal_of(status: int, retry_after: str, *, now: datetime) -> Refused | None:
    """Return what an answer means: None where the alert has arrived."""
    if 200 <= status < 300:
        return None
    if status == _GONE:
        return Refused("answered 410: it wants no more", for_good=True)
    beside = ": redirects are not followed" if 300 <= status < 400 else ""
    return Refused(f"answered {status}{beside}", again_in_seconds=_seconds(retry_after, now))


def _seconds(retry_after: str, now: datetime) -> float | None:
    """Return the seconds of a Retry-After, which is a number or a date; None for anything else."""
    if retry_after.isascii() and retry_after.isdecimal() and len(retry_after) < 10:
        return float(retry_after)
    try:
        at = parsedate_to_datetime(retry_after)
    except (ValueError, OverflowError):
        # numbers of any length are the other side's to write
        return None
    return max(0.0, ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds())


def _held(environment: Mapping[str, str], variable: str) -> str:
    held = environment.get(variable, "").strip()
    if not held:
        raise InvalidInputError(variable, None, "given in the environment", "export it")
    return held


def _spoken(error: BaseException) -> str:
    """Return what failed, without the words of the error: they may hold an address."""
    for cause in _causes(error):
        match cause:
            case ssl.SSLCertVerificationError():
                return f"its certificate was not accepted: {cause.verify_message}"
            case ssl.SSLError():
                return f"TLS failed: {cause.reason or type(cause).__name__}"
            case socket.gaierror() | UnicodeError():
                return "the host is not known"
            case ConnectionRefusedError():
                return "the connection was refused"
    if isinstance(error, httpcore2.ConnectError | OSError):
        return "no connection could be made"
    return "the connection broke before there was an answer"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
