"""A provider that misbehaves towards shadows alone, the real clients on it, and experiments with a shadow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import select

from promptab import Choice, Lab, MetricEvent, PromptExperiment, PromptVariant
from promptab.stores.base import Transaction
from promptab.stores.schema import events
from tests.llm_server import Asked, Fault, LlmServer, running

openai = pytest.importorskip("openai", reason="the extra openai is not installed")
anthropic = pytest.importorskip("anthropic", reason="the extra anthropic is not installed")

LONGEST = 20.0
"""Seconds that nothing here may take, whatever the provider does."""

SERVED_MODELS = {"chat": "gpt-4.1-mini", "responses": "gpt-4.1-mini", "messages": "claude-haiku-4-5"}
SHADOW_MODELS = {"chat": "gpt-4.1-nano", "responses": "gpt-4.1-nano", "messages": "claude-opus-4-8"}


@dataclass
class TwoFacedServer(LlmServer):
    """Answers what is served; what a shadow asks meets `fault`, and waits for `gate`."""

    fault: Fault = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    shadowed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by every request of a shadow."""
    crowded: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when three of them wait at one time."""
    shadows: list[Asked] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    def __post_init__(self) -> None:
        self.gate.set()

    @property
    def served(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.body["model"] in SERVED_MODELS.values()]

    async def respond(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if asked.body["model"] in SERVED_MODELS.values():
            return await super().respond(asked, reader, writer)
        self.shadows.append(asked)
        self.shadowed.set()
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        if self.at_once == 3:
            self.crowded.set()
        try:
            await self.gate.wait()
            if self.fault is not None:
                self.script.append(self.fault)
            return await super().respond(asked, reader, writer)
        finally:
            self.at_once -= 1


@pytest.fixture
async def server() -> AsyncIterator[TwoFacedServer]:
    async with running(TwoFacedServer()) as started:
        yield started


@pytest.fixture
async def client(server: TwoFacedServer) -> AsyncIterator[Any]:
    async with openai.AsyncOpenAI(**server.openai, max_retries=0) as made:
        yield made


async def experiment_with_shadow(
    lab: Lab, *, share: float = 1.0, api: str = "chat", served: int = 1, **options: Any
) -> PromptExperiment:
    """Start an experiment on `reply`: so many variants that are served, and `candidate` in the shadow."""
    numbers = [f"1.{number}.0" for number in range(served)]
    for number in numbers:
        await lab.versions.create_version(
            "reply",
            "system",
            f"Help {{{{ customer }}}} ({number}).",
            version=number,
            config={"model": SERVED_MODELS[api], "parameters": {"max_tokens": 50}},
        )
    await lab.versions.create_version(
        "reply",
        "system",
        "Be brief with {{ customer }}.",
        version="2.0.0",
        config={"model": SHADOW_MODELS[api], "parameters": {"max_tokens": 20}},
    )
    variants = [PromptVariant(number) for number in numbers]
    shadow = PromptVariant("2.0.0", key="candidate", shadow=share)
    given = {"salt": "shadow", **options}
    return await lab.experiments.create_experiment("reply", "system", [*variants, shadow], **given)


async def shadow_events(lab: Lab) -> list[MetricEvent]:
    """Return every event of the kind, in the order in which they were stored."""
    await lab.shadows.settle()
    await lab.calls.flush()

    async def work(tx: Transaction) -> list[MetricEvent]:
        query = select(events.c.event_id).where(events.c.kind == "shadow").order_by(events.c.sequence)
        found = (await tx.events._connection.execute(query)).scalars().all()
        several = [await tx.events.by_id(bytes(event_id).hex()) for event_id in found]
        return [event for event in several if event is not None]

    return await lab.store.read(work)


async def one_run(lab: Lab) -> MetricEvent:
    (event,) = await shadow_events(lab)
    return event


async def in_shadow(lab: Lab, units: int, *, user: str = "u{}") -> list[tuple[Choice, tuple[Choice, ...]]]:
    """Return what each of so many users is served, and what runs beside it."""
    chosen = [await lab.choose("reply", user_id=user.format(number)) for number in range(units)]
    return [(choice, choice.shadows) for choice in chosen]
