"""Responses: the answers of `client.responses.create`, whole and in pieces."""

from __future__ import annotations

from typing import Any

from promptab.calls.answer import Answer, Api, items, terms, text_of, word, words
from promptab.calls.asking import Ask, Output, function_tool, given, merged
from promptab.calls.failures import Failure
from promptab.calls.usage import responses_usage
from promptab.errors import InvalidInputError

_LAST = ("response.completed", "response.incomplete", "response.failed")

_CHARGED = frozenset(
    {"code_interpreter_call", "file_search_call", "image_generation_call", "shell_call", "web_search_call"}
)
"""Tools that the provider runs, and charges for by themselves."""

_NAMES = {"max_tokens": "max_output_tokens", "max_completion_tokens": "max_output_tokens"}


def body(ask: Ask) -> dict[str, Any]:
    for turn in ask.turns:
        if turn["role"] == "tool":
            raise InvalidInputError(
                "messages.role",
                "tool",
                "a role of Responses",
                "there a tool's result is no message; use api='chat'",
            )
    fields = given(
        tools=[_tool(tool) for tool in ask.tools] or None,
        text=None if ask.output is None else {"format": _format(ask.output)},
    )
    return merged({"model": ask.model, "input": list(ask.turns), **fields}, ask, _NAMES)


def _tool(tool: object) -> object:
    known = function_tool(tool)
    if known is None:
        return tool
    function = given(name=known.name, description=known.description, parameters=known.schema)
    return {"type": "function", **function, "strict": known.strict}


def _format(output: Output) -> dict[str, Any]:
    if output.schema is None:
        return {"type": "json_object"}
    return {
        "type": "json_schema",
        **given(name=output.name, schema=output.schema, strict=output.strict),
    }


def read(response: Any) -> Answer:
    status = word(response, "status")
    why = words(getattr(response, "incomplete_details", None), "reason")
    return Answer(
        text="".join(_texts(response)),
        model=word(response, "model"),
        response_id=word(response, "id"),
        finish_reasons=why or ((status,) if status is not None else ()),
        usage=responses_usage(getattr(response, "usage", None)),
        terms=terms(response, "service_tier"),
        charged_apart=any(word(item, "type") in _CHARGED for item in items(response, "output")),
        failure=_failure(response, status),
    )


def _texts(response: Any) -> list[str]:
    parts = (part for item in items(response, "output") for part in items(item, "content"))
    return [text_of(part, "text") for part in parts if getattr(part, "type", None) == "output_text"]


def _failure(response: Any, status: str | None) -> Failure | None:
    if status in {"failed", "cancelled"}:
        code = word(getattr(response, "error", None), "code")
        return Failure("rate_limit" if code == "rate_limit_exceeded" else "provider")
    if not isinstance(getattr(response, "output", None), list):
        return Failure("malformed")
    # what goes on in the background has no output yet
    under_way = status in {"queued", "in_progress"}
    return None if response.output or under_way else Failure("no_answer")


class ResponsePieces:
    """`Gathering` of Responses: the last event has the whole answer."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._answer = Answer()
        self.ended = False

    @property
    def answer(self) -> Answer:
        return self._answer if self.ended else self._answer._replace(text="".join(self._texts))

    def add(self, event: Any) -> str | None:
        kind = text_of(event, "type")
        if kind in _LAST:
            self._answer = read(getattr(event, "response", None))
            self.ended = True
        elif kind == "error":
            self._answer = self._answer._replace(failure=Failure("provider"))
        elif kind == "response.created":
            started = getattr(event, "response", None)
            self._answer = Answer(model=word(started, "model"), response_id=word(started, "id"))
        elif kind == "response.output_text.delta":
            self._texts.append(text_of(event, "delta"))
            return self._texts[-1]
        elif kind.endswith(".delta"):
            return ""
        return None


RESPONSES = Api(
    name="responses",
    vendor="openai",
    modules=("openai.types.responses", "openai.lib.streaming.responses"),
    resource=lambda client: client.responses,
    body=body,
    streaming={"stream": True},
    read=read,
    gathering=ResponsePieces,
)
