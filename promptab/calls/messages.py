"""Anthropic's Messages: the answers of `client.messages.create`, whole and in pieces."""

from __future__ import annotations

from typing import Any

from promptab.calls.answer import Answer, Api, items, terms, text_of, word, words
from promptab.calls.asking import Ask, Output, Turn, function_tool, given, merged
from promptab.calls.failures import Failure
from promptab.calls.usage import Usage, count_of, messages_usage
from promptab.errors import InvalidInputError

_INSTRUCTIONS = ("system", "developer")
_NAMES = {"max_completion_tokens": "max_tokens", "max_output_tokens": "max_tokens", "stop": "stop_sequences"}


def body(ask: Ask) -> dict[str, Any]:
    """System messages are an argument of their own here; a prompt that is nothing else is sent as the user's
    message, since Messages has to begin with one.
    """
    system, turns = _split(ask.turns)
    fields = given(
        system=system,
        tools=[_tool(tool) for tool in ask.tools] or None,
        output_config=None if ask.output is None else {"format": _format(ask.output)},
    )
    whole = merged({"model": ask.model, "messages": turns, **fields}, ask, _NAMES)
    if whole.get("max_tokens") is None:
        raise InvalidInputError(
            "config.parameters.max_tokens",
            None,
            "given",
            "Messages requires it; put it into the version's config",
        )
    if isinstance(whole.get("stop_sequences"), str):
        whole["stop_sequences"] = [whole["stop_sequences"]]
    return whole


def _split(turns: tuple[Turn, ...]) -> tuple[Any, list[Turn]]:
    """Return the leading system messages as one argument, and the rest."""
    count = next((index for index, turn in enumerate(turns) if turn["role"] not in _INSTRUCTIONS), len(turns))
    leading, rest = turns[:count], list(turns[count:])
    for turn in rest:
        if turn["role"] not in {"user", "assistant"}:
            remedy = (
                "put instructions first" if turn["role"] in _INSTRUCTIONS else "write tool results as content"
            )
            raise InvalidInputError("messages.role", turn["role"], "user or assistant here", remedy)
    if not rest:
        return None, [{"role": "user", "content": turn["content"]} for turn in leading]
    contents = [turn["content"] for turn in leading]
    if len(contents) <= 1:
        return (contents[0] if contents else None), rest
    # several texts stay several: a seam that a template cannot write
    blocks: list[Any] = []
    for content in contents:
        blocks += [{"type": "text", "text": content}] if isinstance(content, str) else content
    return blocks, rest


def _tool(tool: object) -> object:
    known = function_tool(tool)
    if known is None:
        return tool
    return given(
        name=known.name, description=known.description, input_schema=known.schema, strict=known.strict
    )


def _format(output: Output) -> dict[str, Any]:
    if output.schema is None:
        raise InvalidInputError(
            "config.output.schema", None, "given", "Messages knows no JSON without a schema of it"
        )
    return {"type": "json_schema", "schema": output.schema}


def read(message: Any) -> Answer:
    usage = getattr(message, "usage", None)
    blocks = items(message, "content")
    return Answer(
        text="".join(text_of(block, "text") for block in blocks if getattr(block, "type", None) == "text"),
        model=word(message, "model"),
        response_id=word(message, "id"),
        finish_reasons=words(message, "stop_reason"),
        usage=messages_usage(usage),
        terms=terms(usage, "service_tier", "speed"),
        charged_apart=_searched(usage),
        failure=_failure(message),
    )


def _failure(message: Any) -> Failure | None:
    if not isinstance(getattr(message, "content", None), list):
        return Failure("malformed")
    # a model that has nothing to add ends its turn with an empty list
    return None if message.content or words(message, "stop_reason") else Failure("no_answer")


def _searched(usage: object) -> bool:
    return bool(count_of(getattr(usage, "server_tool_use", None), "web_search_requests"))


class MessagePieces:
    """`Gathering` of Messages: the first event has the input's counts, later ones have sums of the output's."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._first = Answer()
        self._usage = Usage()
        self._reasons: tuple[str, ...] = ()
        self.ended = False

    @property
    def answer(self) -> Answer:
        return self._first._replace(
            text="".join(self._texts), finish_reasons=self._reasons, usage=self._usage, failure=None
        )

    def add(self, event: Any) -> str | None:
        match getattr(event, "type", None):
            case "message_start":
                self._first = read(getattr(event, "message", None))
                # the output that it counts is only what has been made so far
                self._usage = self._first.usage._replace(output=None, reasoning=None)
            case "message_delta":
                usage = getattr(event, "usage", None)
                self._usage = messages_usage(usage).over(self._usage)
                self._first = self._first._replace(
                    charged_apart=self._first.charged_apart or _searched(usage)
                )
                self._reasons = words(getattr(event, "delta", None), "stop_reason") or self._reasons
            case "message_stop":
                self.ended = True
            case "content_block_delta":
                text = text_of(getattr(event, "delta", None), "text")
                self._texts.append(text)
                return text
        return None


MESSAGES = Api(
    name="messages",
    vendor="anthropic",
    modules=("anthropic",),
    resource=lambda client: client.messages,
    body=body,
    streaming={"stream": True},
    read=read,
    gathering=MessagePieces,
)
