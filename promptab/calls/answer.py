"""What an answer says, whichever protocol it came by. Providers' values are foreign: each is looked at before use."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

from promptab.calls.asking import Ask
from promptab.calls.failures import Failure
from promptab.calls.usage import Usage
from promptab.checks import CONTROL

MAX_WORD_CHARS = 200


class Answer(NamedTuple):
    """What came back, or as much of it as has come so far."""

    text: str = ""
    model: str | None = None
    """The model that answered, which may be a dated version of the one that was asked."""
    response_id: str | None = None
    finish_reasons: tuple[str, ...] = ()
    usage: Usage = Usage()
    terms: tuple[tuple[str, str], ...] = ()
    """What else the provider charges by, such as (`service_tier`, `flex`)."""
    charged_apart: bool = False
    """Whether the provider charges for more than tokens of text, such as for a search: the cost is not known then."""
    failure: Failure | None = None
    """What the answer itself reports; the client raises nothing then."""


class Gathering(Protocol):
    """An answer that comes in pieces."""

    @property
    def answer(self) -> Answer: ...

    @property
    def ended(self) -> bool:
        """Whether the provider said that the answer is whole."""

    def add(self, chunk: object) -> str | None:
        """Take in the next chunk; return the text that it brought, or None where it brought nothing of the
        answer. A tool call or a thought is something of it: "".
        """


class Api(NamedTuple):
    """One protocol of one provider: the shape of its requests and answers."""

    name: str
    """`chat`, `responses` or `messages`."""
    vendor: str
    """Whose client speaks it: `openai` or `anthropic`."""
    modules: tuple[str, ...]
    """Where the client's package keeps the types of its answers, and of what its stream helpers yield."""
    resource: Callable[[Any], Any]
    """From a client to what has `create`."""
    body: Callable[[Ask], dict[str, Any]]
    """The arguments of `create`, for an answer in one piece."""
    streaming: dict[str, Any]
    """What `create` is given besides for an answer in pieces."""
    read: Callable[[Any], Answer]
    gathering: Callable[[], Gathering]


def word(source: object, field: str) -> str | None:
    """Return a short text that a provider gave; None for what is missing or is no such text."""
    value = getattr(source, field, None)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_WORD_CHARS or CONTROL.search(value):
        return None
    return value


def words(source: object, *fields: str) -> tuple[str, ...]:
    return tuple(found for field in fields if (found := word(source, field)) is not None)


def terms(source: object, *fields: str) -> tuple[tuple[str, str], ...]:
    """Return the named fields that are there, with what they say."""
    return tuple((field, found) for field in fields if (found := word(source, field)) is not None)


def text_of(source: object, field: str) -> str:
    value = getattr(source, field, None)
    return value if isinstance(value, str) else ""


def items(source: object, field: str) -> Iterable[Any]:
    value = getattr(source, field, None)
    return value if isinstance(value, (list, tuple)) else ()
