"""Opening a provider's own client with the key that the environment has."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from promptab.errors import InvalidInputError, MissingExtraError

KEY_VARIABLES: Mapping[str, str] = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}
"""Provider -> the environment variable that its client reads the key from."""

_MODELS = {
    "anthropic": re.compile(r"(anthropic/)?claude", re.IGNORECASE),
    "openai": re.compile(r"(openai/)?(gpt-|chatgpt-|o\d)", re.IGNORECASE),
}


def provider_of(model: str) -> str | None:
    """Return whose model that is, by its name; None where that does not tell."""
    return next((provider for provider, names in _MODELS.items() if names.match(model)), None)


def check_provider(provider: str) -> str:
    """Return it. Raises `InvalidInputError` for an unknown one, or where its key is not set."""
    variable = KEY_VARIABLES.get(provider)
    if variable is None:
        raise InvalidInputError("provider", provider, f"one of {', '.join(KEY_VARIABLES)}")
    if not os.environ.get(variable):
        raise InvalidInputError(
            variable, "", "set", f"export your key of {provider} in this environment variable"
        )
    return provider


@asynccontextmanager
async def open_client(provider: str) -> AsyncIterator[Any]:
    """Open `AsyncOpenAI` or `AsyncAnthropic`, and close it afterwards.

    Raises as `check_provider`, and `MissingExtraError` where the package is not installed.
    """
    check_provider(provider)
    try:
        client = _openai() if provider == "openai" else _anthropic()
    except ImportError:
        raise MissingExtraError(provider, provider) from None
    async with client:
        yield client


def _openai() -> Any:
    import openai  # noqa: PLC0415 - an extra

    return openai.AsyncOpenAI()


def _anthropic() -> Any:
    import anthropic  # noqa: PLC0415 - an extra

    return anthropic.AsyncAnthropic()
