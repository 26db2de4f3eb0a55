"""A provider's stream, passed through unchanged while the call that it belongs to takes note."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, AsyncIterator
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from promptab.calls.answer import Answer, Api
from promptab.calls.apis import api_of
from promptab.calls.finished import FinishedCall

T = TypeVar("T")


class Watcher(Protocol):
    """The call that a stream belongs to."""

    @property
    def call_id(self) -> str: ...

    @property
    def finished(self) -> FinishedCall | None: ...

    def first_piece(self) -> None:
        """Something of the answer has come; told every time."""

    def stream_ended(self) -> None: ...

    def stream_failed(self, error: BaseException) -> None: ...

    def stream_left(self) -> None:
        """Nobody reads on. Says nothing new of a stream that has ended or failed."""


class ObservedStream(Generic[T]):
    """Yields what the provider's stream yields; `text` yields the text alone. Read it by one of the two.

    Leaving it early, by `async with` or `close`, gives the connection back and records the call as cancelled.
    """

    def __init__(self, stream: AsyncIterable[T], watcher: Watcher, api: Api | None) -> None:
        self._stream = stream
        self._iterator = aiter(stream)
        self._watcher = watcher
        self.api = api
        """The protocol; where nobody said it, known from the first chunk on."""
        self._gathering = None if api is None else api.gathering()
        self._begun = False

    @property
    def call_id(self) -> str:
        return self._watcher.call_id

    @property
    def call(self) -> FinishedCall | None:
        """What came of the call; None while it goes on."""
        return self._watcher.finished

    @property
    def answer(self) -> Answer:
        """What has come so far."""
        return Answer() if self._gathering is None else self._gathering.answer

    @property
    def whole(self) -> bool:
        """Whether the provider said that the answer is complete."""
        return self._gathering is not None and self._gathering.ended

    @property
    def unreadable(self) -> bool:
        """Whether pieces have come, none of them in a protocol that is known here."""
        return self._begun and self.api is None

    @property
    def text(self) -> AsyncIterator[str]:
        return self._texts()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        return (await self._next())[0]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop reading. A second time does nothing."""
        # first what needs no waiting: whoever closes may be cancelled meanwhile
        self._watcher.stream_left()
        close: Any = getattr(self._stream, "close", None) or getattr(self._stream, "aclose", None)
        if close is not None and inspect.isawaitable(closing := close()):
            await closing

    async def _texts(self) -> AsyncIterator[str]:
        while True:
            try:
                _, brought = await self._next()
            except StopAsyncIteration:
                return
            if brought:
                yield brought

    async def _next(self) -> tuple[T, str | None]:
        try:
            chunk = await anext(self._iterator)
        except StopAsyncIteration:
            self._watcher.stream_ended()
            raise
        except BaseException as error:
            self._watcher.stream_failed(error)
            raise
        self._begun = True
        if self.api is None and (api := api_of(chunk)) is not None:
            self.api, self._gathering = api, api.gathering()
        brought = None if self._gathering is None else self._gathering.add(chunk)
        if brought is not None:
            self._watcher.first_piece()
        return chunk, brought
