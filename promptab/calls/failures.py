"""What kind of failure an exception of a provider's client is, told by its shape: no client has to be imported."""

from __future__ import annotations

import asyncio
from typing import Literal, NamedTuple

from promptab.errors import PromptabError

FailureKind = Literal[
    "authentication",  # 401, 402, 403: the key, the account, or what they may do
    "cancelled",  # whoever waited for the answer went away
    "connection",
    "invalid_request",  # other 4xx: the same request fails again
    "malformed",  # an answer that is not what the protocol says
    "no_answer",  # a well-formed answer with nothing in it
    "not_found",  # 404: usually a model that does not exist
    "other",
    "overloaded",  # 529, 503
    "prompt",  # the prompt did not render, or has no meaning for this provider: nothing was sent
    "provider",  # 5xx, or an error that the provider reports inside an answer
    "rate_limit",  # 429
    "timeout",  # also 408
    "truncated",  # the stream ended before the answer did
]

RETRYABLE: frozenset[FailureKind] = frozenset(
    {"connection", "malformed", "overloaded", "provider", "rate_limit", "timeout"}
)
"""What another model may be asked instead for: the fault is not in the request."""

_BY_STATUS: dict[int, FailureKind] = {
    401: "authentication",
    402: "authentication",
    403: "authentication",
    404: "not_found",
    408: "timeout",
    429: "rate_limit",
    503: "overloaded",
    529: "overloaded",
}

_BY_REPORT: dict[str, FailureKind] = {
    "authentication_error": "authentication",
    "billing_error": "authentication",
    "insufficient_quota": "rate_limit",
    "invalid_request_error": "invalid_request",
    "not_found_error": "not_found",
    "overloaded_error": "overloaded",
    "permission_error": "authentication",
    "rate_limit_error": "rate_limit",
    "rate_limit_exceeded": "rate_limit",
    "timeout_error": "timeout",
}
"""What providers call it in the body of an error, which is all that tells inside a stream."""

_BY_CLASS: dict[str, FailureKind] = {
    # the clients' own; the rest are those of httpx2, which streams let through
    "APITimeoutError": "timeout",
    "APIConnectionError": "connection",
    "APIResponseValidationError": "malformed",
    "TimeoutException": "timeout",
    "DecodingError": "malformed",
    "TransportError": "connection",
    "JSONDecodeError": "malformed",
    "UnicodeDecodeError": "malformed",
    "ValidationError": "malformed",
    "TimeoutError": "timeout",
    "ConnectionError": "connection",
}


class Failure(NamedTuple):
    """Why a call did not end with an answer. Messages are left out: they may quote a key."""

    kind: FailureKind
    error_type: str | None = None
    """The name of the exception's class; None where the answer itself was the failure."""
    status_code: int | None = None
    """Of the HTTP response; inside a stream that is usually 200."""


def failure_of(error: BaseException) -> Failure:
    """Say what kind of failure an exception is."""
    return Failure(_kind(error), type(error).__name__, _status_code(error))


def attempts_of(error: BaseException) -> int | None:
    """Return how many requests the client had sent when it gave up; None where the error does not say."""
    request = getattr(error, "request", None)
    if request is None:
        request = getattr(getattr(error, "response", None), "request", None)
    return attempts_by_header(request)


def attempts_by_header(request: object) -> int | None:
    """Return which attempt a request was, from 1: both clients number their retries in a header."""
    headers = getattr(request, "headers", None)
    text = headers.get("x-stainless-retry-count") if headers is not None else None
    return int(text) + 1 if isinstance(text, str) and text.isdecimal() and len(text) < 5 else None


def _kind(error: BaseException) -> FailureKind:
    if isinstance(error, (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit)):
        return "cancelled"
    if isinstance(error, PromptabError):
        return "prompt"
    if (status := _status_code(error)) is not None and status >= 400:
        return _BY_STATUS.get(status, "provider" if status >= 500 else "invalid_request")
    if (reported := _reported(error)) is not None:
        return reported
    for ancestor in type(error).__mro__:
        if (kind := _BY_CLASS.get(ancestor.__name__)) is not None:
            return kind
    return "other"


def _status_code(error: BaseException) -> int | None:
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) and 100 <= status <= 599 else None


def _reported(error: BaseException) -> FailureKind | None:
    """Return what the body of an error inside a stream says; None for an error without a body."""
    body = getattr(error, "body", None)
    if body is None:
        return None
    inner = body.get("error", body) if isinstance(body, dict) else body
    names = [inner.get("type"), inner.get("code")] if isinstance(inner, dict) else []
    return next(
        (_BY_REPORT[name] for name in names if isinstance(name, str) and name in _BY_REPORT), "provider"
    )
