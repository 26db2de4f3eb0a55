"""Chat Completions: the answers of `client.chat.completions.create`, whole and in pieces."""

from __future__ import annotations

from typing import Any

from promptab.calls.answer import Answer, Api, items, terms, text_of, word, words
from promptab.calls.asking import Ask, Output, function_tool, given, merged
from promptab.calls.failures import Failure
from promptab.calls.usage import Usage, chat_usage, count_of

_SAID = ("content", "refusal", "reasoning", "reasoning_content", "tool_calls", "function_call")
"""What a piece may bring; the two for reasoning are what servers with this protocol call it."""

_NAMES = {"max_output_tokens": "max_completion_tokens", "stop_sequences": "stop"}


def body(ask: Ask) -> dict[str, Any]:
    fields = given(
        tools=[_tool(tool) for tool in ask.tools] or None,
        response_format=None if ask.output is None else _format(ask.output),
    )
    return merged({"model": ask.model, "messages": list(ask.turns), **fields}, ask, _NAMES)


def _tool(tool: object) -> object:
    known = function_tool(tool)
    if known is None:
        return tool
    function = given(
        name=known.name, description=known.description, parameters=known.schema, strict=known.strict
    )
    return {"type": "function", "function": function}


def _format(output: Output) -> dict[str, Any]:
    if output.schema is None:
        return {"type": "json_object"}
    return {
        "type": "json_schema",
        "json_schema": given(name=output.name, schema=output.schema, strict=output.strict),
    }


def read(completion: Any) -> Answer:
    choices = list(items(completion, "choices"))
    message = getattr(choices[0], "message", None) if choices else None
    return Answer(
        text=text_of(message, "content"),
        model=word(completion, "model"),
        response_id=word(completion, "id"),
        finish_reasons=tuple(reason for choice in choices for reason in words(choice, "finish_reason")),
        usage=chat_usage(getattr(completion, "usage", None)),
        terms=terms(completion, "service_tier"),
        charged_apart=_spoke(getattr(completion, "usage", None)),
        failure=_failure(completion, message),
    )


def _spoke(usage: object) -> bool:
    """Whether there were tokens of sound, which have prices of their own."""
    details = (getattr(usage, f"{side}_tokens_details", None) for side in ("prompt", "completion"))
    return any(count_of(each, "audio_tokens") for each in details)


def _failure(completion: Any, message: object) -> Failure | None:
    if not isinstance(getattr(completion, "choices", None), list):
        return Failure("malformed")
    return Failure("no_answer") if message is None else None


class ChatPieces:
    """`Gathering` of Chat Completions; several choices are one answer, whose text is that of the first."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._reasons: dict[int, str] = {}
        self._seen: set[int] = set()
        self._usage = Usage()
        self._spoke = False
        self._model: str | None = None
        self._id: str | None = None
        self._terms: tuple[tuple[str, str], ...] = ()

    @property
    def answer(self) -> Answer:
        return Answer(
            text="".join(self._texts),
            model=self._model,
            response_id=self._id,
            finish_reasons=tuple(reason for _, reason in sorted(self._reasons.items())),
            usage=self._usage,
            terms=self._terms,
            charged_apart=self._spoke,
        )

    @property
    def ended(self) -> bool:
        return bool(self._reasons) and self._seen <= self._reasons.keys()

    def add(self, chunk: Any) -> str | None:
        # the client's helper yields each piece inside of an event, beside events that say it in other words
        chunk = getattr(chunk, "chunk", chunk)
        self._model = self._model or word(chunk, "model")
        self._id = self._id or word(chunk, "id")
        self._terms = terms(chunk, "service_tier") or self._terms
        usage = getattr(chunk, "usage", None)
        self._usage = chat_usage(usage).over(self._usage)
        self._spoke = self._spoke or _spoke(usage)
        brought: str | None = None
        for choice in items(chunk, "choices"):
            index = getattr(choice, "index", 0)
            index = index if isinstance(index, int) else 0
            self._seen.add(index)
            if reason := words(choice, "finish_reason"):
                self._reasons[index] = reason[0]
            delta = getattr(choice, "delta", None)
            if any(getattr(delta, field, None) for field in _SAID):
                brought = (brought or "") + (text_of(delta, "content") if index == 0 else "")
        if brought:
            self._texts.append(brought)
        return brought


CHAT = Api(
    name="chat",
    vendor="openai",
    modules=("openai.types.chat", "openai.lib.streaming.chat"),
    resource=lambda client: client.chat.completions,
    body=body,
    # without it a stream says nothing of usage
    streaming={"stream": True, "stream_options": {"include_usage": True}},
    read=read,
    gathering=ChatPieces,
)
