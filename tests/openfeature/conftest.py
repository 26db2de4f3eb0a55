"""Fixtures: a lab with a prompt of each type, behind the SDK's client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.evaluation_context import EvaluationContext

import promptab
from promptab import Lab, PromptVersion
from promptab.integrations import openfeature
from promptab.integrations.openfeature import PromptabProvider
from tests.clock import SettableClock

CONFIG = {
    "top_k": 5,
    "rerank": True,
    "cutoff": 0.7,
    "index": "docs",
    "deep": {"cache": {"ttl": 3600}},
    "tags": ["a"],
}


def ada(**attributes: Any) -> EvaluationContext:
    return EvaluationContext("ada", attributes)


@pytest.fixture
async def lab(clock: SettableClock) -> AsyncIterator[Lab]:
    """One kind of store will do: what comes of a flag is the same with all."""
    async with promptab.open("sqlite:///:memory:", clock=clock) as opened:
        yield opened


@pytest.fixture
async def prompts(lab: Lab) -> dict[str, PromptVersion]:
    """A prompt of each type, live in production."""
    create = lab.versions.create_version
    made = {
        "text": await create("reply", "system", "Help {{ customer }}.", config={"model": "gpt-4.1-mini"}),
        "chat": await create("chat", "message", [{"role": "system", "content": "Hi {{ name }}"}]),
        "model": await create("fast", "model", config={"model": "gpt-4.1-nano"}),
        "config": await create("rag", "config", config=CONFIG),
    }
    for version in made.values():
        await lab.versions.promote(version.version_id)
    return made


@pytest.fixture
async def provided(lab: Lab, prompts: dict[str, PromptVersion]) -> AsyncIterator[PromptabProvider]:
    made = await openfeature.provider(lab)
    api.set_provider_and_wait(made)
    yield made
    api.clear_providers()
    await made.flush()


@pytest.fixture
def client(provided: PromptabProvider) -> OpenFeatureClient:
    return api.get_client()
