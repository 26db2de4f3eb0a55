"""From what the caller said to the requests of one call, and sending one of them."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from promptab.calls.apis import Client
from promptab.calls.asking import Turn, ask_of, model_chain
from promptab.calls.call import Call
from promptab.calls.request import Request
from promptab.checks import check_items, check_mapping
from promptab.choice import Choice
from promptab.errors import InvalidInputError
from promptab.models import Message


class Send(NamedTuple):
    """One request, ready to be sent."""

    client: Client
    request: Request
    arguments: Mapping[str, Any]
    """Of the client's `create`."""


class CallPlan(NamedTuple):
    """What one call is made from."""

    choice: Choice
    clients: Sequence[Client]
    variables: Mapping[str, Any]
    messages: Iterable[Turn | Message]
    model: str | None
    parameters: Mapping[str, Any] | None
    config: Mapping[str, Any]
    options: Mapping[str, Any]

    def requests(self) -> list[Send]:
        """Return the requests, in the order of the models to try."""
        choice, config = self.choice, {**self.choice.config, **self.config}
        rendered = choice.messages(**self.variables) if choice.has_template else ()
        conversation = check_items("messages", self.messages)
        sends = []
        for chosen in model_chain(config, model=self.model, parameters=self.parameters):
            client = _client_for(self.clients, chosen.vendor)
            ask = ask_of(chosen, rendered, conversation, config, name=choice.name)
            request = Request(client.api, client.url, chosen.model, chosen.parameters)
            sends.append(Send(client, request, client.arguments(ask, self.options)))
        return sends

    def shadow_request(self, shadow: Choice) -> Send:
        """Return what a shadow asks for the same request: as its own configuration says, which is what is to be tried,
        and as the caller says where that is silent. One model: what others would answer counts for no version.
        """
        own = shadow.config
        parameters = {
            **check_mapping("parameters", self.parameters or {}),
            **check_mapping("config.parameters", own.get("parameters") or {}),
        }
        beside = self._replace(
            choice=shadow,
            # the caller's own lists go on to change once the answer is there
            messages=copy.deepcopy(check_items("messages", self.messages)),
            model=None if own.get("model") else self.model,
            parameters=None,
            config={**self.config, **own, "parameters": parameters, "fallbacks": ()},
        )
        return beside.requests()[0]


async def whole_answer(call: Call, send: Send) -> Any:
    """Ask, and return what the client gives; `call` has taken note of it."""
    with call.sending(send.request):
        raw = await send.client.resource.with_raw_response.create(**send.arguments)
    # before it is read: what cannot be read took attempts too
    call.attempts = raw.retries_taken + 1
    parsed = raw.parse()
    response = await parsed if inspect.isawaitable(parsed) else parsed
    call.observe(response)
    return response


def _client_for(clients: Sequence[Client], vendor: str | None) -> Client:
    found = next((client for client in clients if vendor in {None, client.vendor}), None)
    if found is None:
        raise InvalidInputError(
            "config.provider",
            vendor,
            "a provider whose client was given",
            f"add a client of {vendor} to client=[...]",
        )
    return found
