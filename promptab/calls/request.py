"""What is sent to a provider, as far as it is known before the answer comes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from promptab.calls.answer import Api


class Request(NamedTuple):
    """What is known of a request before it is sent; of a call that somebody else makes, nothing."""

    api: Api | None = None
    url: str | None = None
    model: str | None = None
    parameters: Mapping[str, Any] = MappingProxyType({})
    streamed: bool = False


UNKNOWN_REQUEST = Request()
