"""How many tokens a call took, in buckets that do not overlap; and how the two providers report them.

OpenAI counts cached input inside its input total, Anthropic beside it. What a provider did not say is unknown,
which is not zero. Sources: openai `types/completion_usage.py`, `types/responses/response_usage.py`; anthropic
`types/usage.py`, `types/message_delta_usage.py`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from promptab.measures import MAX_TOKENS
from promptab.models import Tokens


class Usage(NamedTuple):
    """Token counts of one call; None is unknown. Each token of the input is in one bucket only."""

    uncached: int | None = None
    """Input neither read from a cache nor written to one."""
    cache_read: int | None = None
    cache_write: int | None = None
    cache_write_1h: int | None = None
    """Of `cache_write`, what is kept for an hour (Anthropic's longer term)."""
    unsplit: int | None = None
    """Input that is in one of the input buckets that are None; the provider did not say in which."""
    output: int | None = None
    """All output, reasoning included."""
    reasoning: int | None = None
    """Of `output`, what the model thought without saying it."""

    @property
    def input(self) -> int | None:
        """All input; None where some of it is unknown."""
        parts = (self.uncached, self.cache_read, self.cache_write)
        if self.unsplit is not None:
            return self.unsplit + sum(part or 0 for part in parts)
        return _sum_of_all(*parts)

    @property
    def total(self) -> int | None:
        return _sum_of_all(self.input, self.output)

    @property
    def tokens(self) -> Tokens | None:
        """The counts as an event carries them, where input written to a cache is part of `input`; None if all are
        unknown.
        """
        fresh = _sum_of_all(self.uncached, self.cache_write)
        if self.unsplit is not None:
            # where reading is unknown too, nobody knows how much of it was fresh
            fresh = None if self.cache_read is None else self.unsplit + (self.cache_write or 0)
        counted = Tokens(input=fresh, cached_input=self.cache_read, output=self.output, total=self.total)
        return None if counted == Tokens() else counted

    def over(self, earlier: Usage) -> Usage:
        """Return these counts, and the earlier ones where these are unknown: later reports of a stream are sums."""
        return Usage(*(old if new is None else new for new, old in zip(self, earlier, strict=True)))


def count_of(source: object, field: str) -> int | None:
    """Return a count that a provider reported; None for what is missing or is no count."""
    value = getattr(source, field, None)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_TOKENS:
        return None
    return value


def chat_usage(usage: object) -> Usage:
    """Read `usage` of Chat Completions."""
    return _openai(usage, "prompt_tokens", "completion_tokens")


def responses_usage(usage: object) -> Usage:
    """Read `usage` of Responses."""
    return _openai(usage, "input_tokens", "output_tokens")


def messages_usage(usage: object) -> Usage:
    """Read `usage` of Anthropic's Messages, of a whole message or of one event of a stream."""
    return Usage(
        uncached=count_of(usage, "input_tokens"),
        cache_read=count_of(usage, "cache_read_input_tokens"),
        cache_write=count_of(usage, "cache_creation_input_tokens"),
        cache_write_1h=count_of(getattr(usage, "cache_creation", None), "ephemeral_1h_input_tokens"),
        output=count_of(usage, "output_tokens"),
        reasoning=count_of(getattr(usage, "output_tokens_details", None), "thinking_tokens"),
    )


def _openai(usage: object, input_field: str, output_field: str) -> Usage:
    given = count_of(usage, input_field)
    details: Any = getattr(usage, f"{input_field}_details", None)
    read, written = count_of(details, "cached_tokens"), count_of(details, "cache_write_tokens")
    rest = None if given is None else given - (read or 0) - (written or 0)
    if rest is None or rest < 0:
        # parts that are larger than their whole say nothing
        read = written = None
        rest = given
    whole = read is not None and written is not None
    return Usage(
        uncached=rest if whole else None,
        cache_read=read,
        cache_write=written,
        unsplit=None if whole else rest,
        output=count_of(usage, output_field),
        reasoning=count_of(getattr(usage, f"{output_field}_details", None), "reasoning_tokens"),
    )


def _sum_of_all(*parts: int | None) -> int | None:
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None
