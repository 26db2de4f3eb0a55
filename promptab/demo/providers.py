"""The demo with a real model: one call of OpenAI's or Anthropic's own client, and a plain rule for a success."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from promptab.calls.opening import check_provider, open_client
from promptab.demo.answering import Case, Reply
from promptab.errors import PromptabError
from promptab.models import Tokens

if TYPE_CHECKING:
    import anthropic
    import openai

MAX_WORDS = 80
_MAX_TOKENS = 400
_CALLS_AT_ONCE = 4


class ProviderError(PromptabError):
    """The provider's client could not get a reply; the message is the client's own."""


class Answer(NamedTuple):
    text: str
    tokens: Tokens


Ask = Callable[[str, str], Awaitable[Answer]]
"""Takes the prompt and the customer's question."""


DEFAULT_MODELS: Mapping[str, str] = {"openai": "gpt-4.1-mini", "anthropic": "claude-haiku-4-5"}


class ProvidedModel:
    """A real model behind `Model`."""

    success_rule = f"the reply mentions the customer's name and has at most {MAX_WORDS} words"

    def __init__(self, name: str, ask: Ask) -> None:
        self.name = name
        self._ask = ask
        self._turns = asyncio.Semaphore(_CALLS_AT_ONCE)

    async def answer(self, prompt: str, case: Case) -> Reply:
        async with self._turns:
            started = time.perf_counter()
            answer = await self._ask(prompt, case.question)
            seconds = time.perf_counter() - started
        success = case.customer.lower() in answer.text.lower() and len(answer.text.split()) <= MAX_WORDS
        return Reply(success, seconds, answer.tokens, cost=None, rating=None)


@asynccontextmanager
async def open_provider(provider: str, model: str | None) -> AsyncIterator[ProvidedModel]:
    """Open the provider's client with the key from the environment, and close it afterwards.

    Raises `InvalidInputError` for an unknown provider or where the key is not set, and `MissingExtraError`.
    Calls raise `ProviderError`.
    """
    check_provider(provider)
    chosen = model or DEFAULT_MODELS[provider]
    asking = _openai if provider == "openai" else _anthropic
    async with open_client(provider) as client:
        yield ProvidedModel(f"{chosen} of {provider}", asking(client, chosen))


def _openai(client: openai.AsyncOpenAI, model: str) -> Ask:
    from openai import OpenAIError  # noqa: PLC0415 - an extra

    async def ask(prompt: str, question: str) -> Answer:
        try:
            completion = await client.chat.completions.create(
                model=model,
                messages=[{"role": "system", "content": prompt}, {"role": "user", "content": question}],
                max_completion_tokens=_MAX_TOKENS,
            )
        except OpenAIError as error:
            raise ProviderError(f"openai: {error}") from error
        text = completion.choices[0].message.content if completion.choices else None
        return Answer(text or "", openai_tokens(completion.usage))

    return ask


def _anthropic(client: anthropic.AsyncAnthropic, model: str) -> Ask:
    from anthropic import AnthropicError  # noqa: PLC0415 - an extra

    async def ask(prompt: str, question: str) -> Answer:
        try:
            message = await client.messages.create(
                model=model,
                system=prompt,
                messages=[{"role": "user", "content": question}],
                max_tokens=_MAX_TOKENS,
            )
        except AnthropicError as error:
            raise ProviderError(f"anthropic: {error}") from error
        text = "".join(block.text for block in message.content if block.type == "text")
        return Answer(text, anthropic_tokens(message.usage))

    return ask


def openai_tokens(usage: openai.types.CompletionUsage | None) -> Tokens:
    """Return disjoint counts: OpenAI counts cached input inside `prompt_tokens`."""
    if usage is None:
        return Tokens()
    details = usage.prompt_tokens_details
    cached = None if details is None else details.cached_tokens
    return Tokens(
        input=None if cached is None else usage.prompt_tokens - cached,
        cached_input=cached,
        output=usage.completion_tokens,
        total=usage.total_tokens,
    )


def anthropic_tokens(usage: anthropic.types.Usage) -> Tokens:
    """Return disjoint counts: Anthropic counts input read from, or written to, a cache beside `input_tokens`."""
    cached, written = usage.cache_read_input_tokens, usage.cache_creation_input_tokens or 0
    fresh = usage.input_tokens + written
    return Tokens(
        input=fresh,
        cached_input=cached,
        output=usage.output_tokens,
        total=fresh + (cached or 0) + usage.output_tokens,
    )
