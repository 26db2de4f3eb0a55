"""Where alerts go, as people declare it: webhooks by name, and which alerts each of them is sent."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, model_validator

from promptab.alerts.alert import KINDS, SEVERITIES, AlertKind, Severity
from promptab.alerts.signing import PREFIX
from promptab.checks import check_mapping, check_name, check_number
from promptab.errors import InvalidInputError
from promptab.records import Declared, Number

WebhookFormat = Literal["standard", "slack"]

LOG = "log"
"""The name of the channel that writes to the log."""

LONGEST_TIMEOUT_SECONDS = 60.0

HIDDEN = "what is not shown here"
"""In errors, in the place of what may be a secret."""

_MOST_URL_CHARS = 2_000


class Wanted(Declared):
    """Which alerts a channel is sent."""

    kinds: tuple[AlertKind, ...] = KINDS
    least_severity: Severity = "info"

    @property
    def severities(self) -> tuple[Severity, ...]:
        return SEVERITIES[SEVERITIES.index(self.least_severity) :]


EVERYTHING = Wanted()

W = TypeVar("W", bound=Wanted)


class Webhook(Wanted):
    """An HTTP endpoint that is sent alerts. It holds no secret: those are in environment variables that it names.

    The address is `url`, or what the variable `url_env` holds where the address itself is a secret, as Slack's are.
    It begins with https:// and leads to the public internet, unless `allowed_hosts` names its host.

    Raises `InvalidInputError` for what does not fit together, without a word of the address.
    """

    name: str
    """Of the channel. An alert goes to each name once, whichever process sends it; another name is another channel."""
    url: Annotated[str | None, Field(repr=False)] = None
    url_env: str | None = None
    secret_env: tuple[str, ...] = ()
    """Variables with secrets such as whsec_...: each signs, so that a new one can take an old one's place. Needed by
    the format `standard`."""
    format: WebhookFormat = "standard"
    allowed_hosts: tuple[str, ...] = ()
    """Hosts that may be private, or be reached by http://, exactly as in the address."""
    timeout: Number = 10.0
    """Seconds for an attempt as a whole, at most 60; half of them to connect."""

    @model_validator(mode="before")
    @classmethod
    def _shows_no_secret(cls, given: object) -> object:
        """Refuse, in words of its own, what may be a secret in the wrong place."""
        if not isinstance(given, dict):
            return given
        if unknown := [key for key in given if key not in cls.model_fields]:
            remedy = "secrets are in environment variables, which secret_env and url_env name"
            raise InvalidInputError(
                "alerts.webhooks", unknown[0], f"one of {', '.join(cls.model_fields)}", remedy
            )
        named = given.get("secret_env", ())
        variables = (named,) if isinstance(named, str) else named
        for field in ("url", "url_env"):
            if not isinstance(given.get(field), str | None):
                raise InvalidInputError(f"alerts.webhooks.{field}", HIDDEN, "text")
        if not isinstance(variables, list | tuple) or not all(isinstance(each, str) for each in variables):
            raise InvalidInputError("alerts.webhooks.secret_env", HIDDEN, "a name, or a list of names")
        return {**given, "secret_env": tuple(variables)}

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_channel_name(self.name)
        field = f"alerts.webhooks[{self.name}]"
        check_number(f"{field}.timeout", self.timeout, above=0.0, high=LONGEST_TIMEOUT_SECONDS)
        if (self.url is None) == (self.url_env is None):
            raise InvalidInputError(field, None, "given exactly one of url, url_env")
        if self.format == "standard" and not self.secret_env:
            remedy = "name a variable that holds one, such as whsec_... (Standard Webhooks)"
            raise InvalidInputError(f"{field}.secret_env", None, "given, as every message is signed", remedy)
        for variable in (*self.secret_env, *([self.url_env] if self.url_env else [])):
            # base64 often is one, too
            if not variable.isidentifier() or variable.startswith(PREFIX):
                # whoever wrote the secret itself here shall not find it in a log as well
                bound = "the name of an environment variable"
                raise InvalidInputError(field, HIDDEN, bound, "name it, and put it there")
        if self.url is not None:
            check_address(self.url, field=f"{field}.url", allowed_hosts=self.allowed_hosts)
        return self


class AlertSettings(Declared):
    """Where alerts go."""

    log: Wanted | None = EVERYTHING
    """Which alerts are written to the log, by the logger promptab.alerts; None: none."""
    webhooks: tuple[Webhook, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [webhook.name for webhook in self.webhooks]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise InvalidInputError("alerts.webhooks", repeated[0], "each name declared once")
        return self


def read_alerts(document: Mapping[str, Any], *, untold: Collection[AlertKind] = frozenset()) -> AlertSettings:
    """Read `alerts:` of promptab.yaml: `log` (true, false, or which alerts) and `webhooks`, by name.

    `untold` are kinds that are sent to nobody. Raises `InvalidInputError` without a word of what may be a secret.
    """
    given = check_mapping("alerts", document)
    if unknown := [key for key in given if key not in AlertSettings.model_fields]:
        raise InvalidInputError("alerts", unknown[0], f"one of {', '.join(AlertSettings.model_fields)}")
    log = given.get("log")
    # left empty it is as good as left out
    log = None if log is False else {} if log is None or log is True else log
    settings = AlertSettings(
        log=None if log is None else Wanted.model_validate(log),
        webhooks=tuple(
            _read_webhook(_check_channel_name(name), fields)
            for name, fields in _fields("alerts.webhooks", given.get("webhooks") or {}).items()
        ),
    )
    return AlertSettings(
        log=None if settings.log is None else _without(settings.log, untold),
        webhooks=tuple(_without(webhook, untold) for webhook in settings.webhooks),
    )


def _check_channel_name(name: str) -> str:
    """Refuse what is no name without a word of it: it may be an address in the wrong place."""
    try:
        check_name("alerts.webhooks", name)
    except InvalidInputError as error:
        raise InvalidInputError(error.field, HIDDEN, error.bound, "write url: below the name") from None
    if name == LOG:
        raise InvalidInputError("alerts.webhooks", name, "another name", "that one writes to the log")
    return name


def _read_webhook(name: str, given: object) -> Webhook:
    fields = _fields(f"alerts.webhooks[{name}]", given)
    if "name" in fields:
        raise InvalidInputError(
            f"alerts.webhooks[{name}].name", HIDDEN, "left out", "its name is what stands above"
        )
    return Webhook.model_validate({**fields, "name": name})


def _fields(field: str, given: object) -> Mapping[Any, Any]:
    if not isinstance(given, Mapping):
        # an address in the wrong place
        raise InvalidInputError(field, HIDDEN, "a mapping of names to values", "write url: below the name")
    return given


def _without(wanted: W, untold: Collection[AlertKind]) -> W:
    return wanted.model_copy(update={"kinds": tuple(kind for kind in wanted.kinds if kind not in untold)})


def check_address(url: str, *, field: str, allowed_hosts: tuple[str, ...]) -> SplitResult:
    """Return the parts of an address that a webhook may be sent to, by what is written there.

    Raises `InvalidInputError` without a word of it: an address may be a secret.
    """
    bound = "an address such as https://hooks.example.com/promptab"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise InvalidInputError(field, HIDDEN, bound) from None
    plain = url.isascii() and url.isprintable() and " " not in url and "\\" not in url
    if not host or not plain or len(url) > _MOST_URL_CHARS or parts.scheme not in {"http", "https"}:
        raise InvalidInputError(field, HIDDEN, bound)
    if parts.username is not None or parts.password is not None:
        raise InvalidInputError(field, HIDDEN, "an address without user and password", "sign by secret_env")
    if parts.scheme == "http" and not is_allowed(host, allowed_hosts):
        remedy = "use https, or name the host under allowed_hosts"
        raise InvalidInputError(field, HIDDEN, "an address that begins with https://", remedy)
    return parts


def is_allowed(host: str, allowed_hosts: tuple[str, ...]) -> bool:
    """Return whether this host was allowed by name, or by its digits where it is written so."""
    return _plain(host) in {_plain(allowed) for allowed in allowed_hosts}


def _plain(host: str) -> str:
    return host.lower().strip("[]").rstrip(".")
