"""What is served where the store has not been reached even once: a template or a version that came with the program."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from promptab.choice import Choice, Served
from promptab.content import check_content, compile_version, sources
from promptab.errors import InvalidInputError
from promptab.metrics import MetricsCollector
from promptab.models import MessageTemplate, PromptType, PromptVersion

if TYPE_CHECKING:
    from promptab.templates import CompiledPrompt

Fallback = str | Sequence[MessageTemplate | Mapping[str, str]] | PromptVersion


def fallback_choice(
    kind: PromptType, name: str, fallback: Fallback, collector: MetricsCollector, *, reason: str
) -> Choice:
    """Return the fallback as a choice without version, experiment or unit: it counts for none of them.

    Raises `InvalidInputError` for a template that does not parse, and for a version that includes others.
    """
    version = fallback if isinstance(fallback, PromptVersion) else None
    served = Served(
        name,
        kind,
        "fallback",
        f"the fallback, since the store has not been reached: {reason}",
        version=None,
        compiled=_compiled(kind, name, fallback),
        variant_config={} if version is None else version.config,
    )
    return Choice(served, None, math.inf, collector)


def _compiled(kind: PromptType, name: str, fallback: Fallback) -> CompiledPrompt | None:
    from promptab.templates import compile_prompt  # noqa: PLC0415 - see promptab.templates

    if not isinstance(fallback, PromptVersion):
        content = check_content(kind, fallback, defaults=None, validation=None, config=None)
        return (
            compile_prompt(messages=content.sources, name=f"{kind}/{name} (fallback)")
            if content.sources
            else None
        )
    if fallback.includes:
        raise InvalidInputError(
            "fallback", fallback.label, "a version without includes", "what it includes is in the store alone"
        )
    if not sources(fallback.prompt_type, fallback.template, fallback.messages):
        return None
    return compile_version(fallback, {})
