"""Fixtures: a provider on loopback, the real clients on it, and a lab with one prompt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest

import promptab
from promptab import Lab, MetricEvent, PromptVersion
from tests.llm_server import LlmServer, running

openai = pytest.importorskip("openai", reason="the extra openai is not installed")
anthropic = pytest.importorskip("anthropic", reason="the extra anthropic is not installed")

LONGEST = 20.0
"""Seconds that no call here may take, whatever the provider does."""

MODELS = {"chat": "gpt-4.1-mini", "responses": "gpt-4.1-mini", "messages": "claude-haiku-4-5"}


class Places(NamedTuple):
    """Where the events of an API's stream stand, by index; negative ones from its end."""

    first_piece: int
    last: int
    """The one that says that the answer is whole."""
    counted: int
    """The one with the output's usage."""


PLACES = {"chat": Places(1, -3, -2), "responses": Places(1, -1, -1), "messages": Places(3, -1, -2)}


class Spoken(NamedTuple):
    """A client that does not retry, and the protocol to speak with it."""

    client: Any
    api: str
    model: str

    @property
    def how(self) -> dict[str, Any]:
        """Arguments of `complete` and `stream`."""
        return {"client": self.client, "api": self.api, "model": self.model, "variables": {"customer": "Ada"}}

    async def create(self, **more: Any) -> Any:
        """Ask as code does that knows nothing of promptab."""
        turns: list[dict[str, str]] = [{"role": "user", "content": "Hello?"}]
        match self.api:
            case "chat":
                return await self.client.chat.completions.create(model=self.model, messages=turns, **more)
            case "responses":
                return await self.client.responses.create(model=self.model, input=turns, **more)
            case _:
                return await self.client.messages.create(
                    model=self.model, messages=turns, max_tokens=50, **more
                )


@pytest.fixture
async def server() -> AsyncIterator[LlmServer]:
    async with running(LlmServer()) as started:
        yield started


@pytest.fixture
async def openai_client(server: LlmServer) -> AsyncIterator[Any]:
    async with openai.AsyncOpenAI(**server.openai, max_retries=0) as client:
        yield client


@pytest.fixture
async def anthropic_client(server: LlmServer) -> AsyncIterator[Any]:
    async with anthropic.AsyncAnthropic(**server.anthropic, max_retries=0) as client:
        yield client


@pytest.fixture(params=list(MODELS))
def spoken(request: pytest.FixtureRequest, openai_client: Any, anthropic_client: Any) -> Spoken:
    """Every protocol in turn."""
    api = str(request.param)
    return Spoken(anthropic_client if api == "messages" else openai_client, api, MODELS[api])


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    async with promptab.open("sqlite:///:memory:") as opened:
        yield opened


@pytest.fixture
async def reply(lab: Lab) -> PromptVersion:
    """The prompt `support_reply`, in production."""
    version = await lab.versions.create_version(
        "support_reply",
        "system",
        "Help {{ customer }}.",
        config={"model": "gpt-4.1-mini", "parameters": {"temperature": 0.2, "max_tokens": 50}},
    )
    await lab.versions.promote(version.version_id)
    return version


async def uses(lab: Lab, version: PromptVersion) -> list[MetricEvent]:
    """Return the events of a version's calls, oldest first, after all are stored."""
    await lab.calls.flush()
    return [event for event in await lab.metrics.get_events(version.version_id) if event.kind == "use"][::-1]


async def only_use(lab: Lab, version: PromptVersion) -> MetricEvent:
    (event,) = await uses(lab, version)
    return event


def told(event: MetricEvent) -> dict[str, Any]:
    facts: dict[str, Any] = event.metadata["call"]
    return facts


async def read(lab: Lab, spoken: Spoken, **how: Any) -> tuple[str, Exception | None]:
    """Read a stream to its end; return its text and what was raised."""
    pieces: list[str] = []
    try:
        async with asyncio.timeout(LONGEST), lab.stream("support_reply", **spoken.how, **how) as stream:
            async for text in stream.text:
                pieces.append(text)  # noqa: PERF401 - what came before an exception counts
    except Exception as error:  # noqa: BLE001 - every exception is looked at
        return "".join(pieces), error
    return "".join(pieces), None
