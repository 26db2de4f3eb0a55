"""Which protocol a client or an answer speaks, told by the package that its class comes from."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from promptab.calls.answer import Api
from promptab.calls.asking import Ask
from promptab.calls.chat import CHAT
from promptab.calls.messages import MESSAGES
from promptab.calls.responses import RESPONSES
from promptab.errors import InvalidInputError

APIS: dict[str, Api] = {api.name: api for api in (CHAT, RESPONSES, MESSAGES)}

_FIRST = {"openai": CHAT, "anthropic": MESSAGES}
"""What is spoken with a client unless told otherwise."""


class Client(NamedTuple):
    """An asynchronous client, and the protocol to speak with it."""

    sdk: Any
    api: Api

    @property
    def vendor(self) -> str:
        return self.api.vendor

    @property
    def resource(self) -> Any:
        """What has `create`."""
        return self.api.resource(self.sdk)

    def arguments(self, ask: Ask, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of `create`.

        A parameter that this release of the client has no argument for is part of the body all the same: whether
        the model takes it is the provider's to say.
        """
        body = self.api.body(ask)
        create = self.resource.create
        known = _parameters_of(getattr(create, "__func__", create))
        extra = {} if known is None else {name: value for name, value in body.items() if name not in known}
        arguments = {name: value for name, value in body.items() if name not in extra} | dict(options)
        if extra:
            arguments["extra_body"] = {**extra, **(options.get("extra_body") or {})}
        return arguments

    @property
    def url(self) -> str | None:
        url = getattr(self.sdk, "base_url", None)
        return None if url is None else str(url)


def client_of(client: Any, api: str | None = None) -> Client:
    """Return the client with its protocol; `api` is `chat` (default) or `responses`, for OpenAI's.

    Raises `InvalidInputError` for what is no asynchronous client of OpenAI's or Anthropic's package, and for a
    protocol that it does not speak.
    """
    kind: Any = type(client)
    vendor = _vendor_of(kind)
    if vendor is None:
        shown = type(client).__name__
        raise InvalidInputError(
            "client", shown, "an asynchronous client", "pass AsyncOpenAI() or AsyncAnthropic()"
        )
    spoken = {name: known for name, known in APIS.items() if known.vendor == vendor}
    if api is not None and api not in spoken:
        raise InvalidInputError("api", api, f"one of {', '.join(spoken)} for a client of {vendor}")
    return Client(client, _FIRST[vendor] if api is None else spoken[api])


def api_of(answer: object) -> Api | None:
    """Return the protocol of an answer, or of a piece of one; None for an object of another package."""
    module = type(answer).__module__
    for api in APIS.values():
        if any(module == inside or module.startswith(f"{inside}.") for inside in api.modules):
            return api
    return None


@lru_cache(maxsize=64)
def _vendor_of(kind: type[Any]) -> str | None:
    """Return whose asynchronous client the class is, or comes from; None for any other."""
    names = [(base.__module__.partition(".")[0], base.__name__) for base in kind.__mro__]
    vendor = next((package for package, _ in names if package in _FIRST), None)
    asynchronous = any(name.startswith("Async") for package, name in names if package == vendor)
    return vendor if asynchronous else None


@lru_cache(maxsize=16)
def _parameters_of(create: Callable[..., Any]) -> frozenset[str] | None:
    """Return the names; None for a function that takes any, such as one that another package has wrapped."""
    parameters = inspect.signature(create).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return None if takes_any else frozenset(parameters)
