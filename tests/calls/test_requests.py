"""The shape of a request in each protocol; and that no value changes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptab import InvalidInputError, Lab, Message, PromptVersion
from promptab.calls.apis import APIS
from promptab.calls.asking import ask_of, model_chain
from promptab.content import check_content
from promptab.models import PromptType
from promptab.templates import compile_prompt
from tests.calls.conftest import Spoken
from tests.llm_server import LlmServer

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}
TOOLS = {
    "chat": {
        "type": "function",
        "function": {"name": "find", "description": "Finds.", "parameters": SCHEMA, "strict": True},
    },
    "responses": {
        "type": "function",
        "name": "find",
        "description": "Finds.",
        "parameters": SCHEMA,
        "strict": True,
    },
    "messages": {"name": "find", "description": "Finds.", "input_schema": SCHEMA, "strict": True},
}


def body(
    api: str, config: Mapping[str, Any], *, messages: Sequence[Message] = (), name: str = "a"
) -> dict[str, Any]:
    whole = {"model": "m", **config}
    (chosen,) = model_chain(whole, model=None, parameters=None)
    turns = messages or [Message(role="user", content="Hello?")]
    return APIS[api].body(ask_of(chosen, turns, (), whole, name=name))


@pytest.mark.parametrize("to", list(TOOLS))
@pytest.mark.parametrize("written", list(TOOLS))
def test_a_function_is_the_same_tool_in_every_protocol(written: str, to: str) -> None:
    config = {"tools": [TOOLS[written]], "parameters": {"max_tokens": 5}}
    assert body(to, config)["tools"] == [TOOLS[to]]


def test_a_providers_own_tool_is_sent_as_it_is() -> None:
    for tool in ({"type": "web_search_20260209", "name": "web_search"}, {"type": "web_search"}):
        for api in APIS:
            assert body(api, {"tools": [tool], "parameters": {"max_tokens": 5}})["tools"] == [tool]


def test_the_output_schema_is_the_response_format() -> None:
    config = {"output": {"schema": SCHEMA, "strict": True}, "parameters": {"max_tokens": 5}}
    named = {"name": "a_b", "schema": SCHEMA, "strict": True}
    assert body("chat", config, name="a.b")["response_format"] == {
        "type": "json_schema",
        "json_schema": named,
    }
    assert body("responses", config, name="a.b")["text"] == {"format": {"type": "json_schema", **named}}
    wanted = {"format": {"type": "json_schema", "schema": SCHEMA}}
    assert body("messages", config)["output_config"] == wanted


def test_json_without_a_schema_is_asked_for_where_the_protocol_knows_it() -> None:
    config = {"output": {"format": "json"}, "parameters": {"max_tokens": 5}}
    assert body("chat", config)["response_format"] == {"type": "json_object"}
    assert body("responses", config)["text"] == {"format": {"type": "json_object"}}
    with pytest.raises(InvalidInputError, match=r"output\.schema"):
        body("messages", config)
    assert "response_format" not in body("chat", {"output": {"format": "text"}})


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_output_tokens"])
def test_the_longest_answer_has_the_protocols_own_name(name: str) -> None:
    sent = {api: body(api, {"parameters": {name: 7}}) for api in APIS}
    assert 7 in {sent["chat"].get("max_tokens"), sent["chat"].get("max_completion_tokens")}
    assert (sent["responses"]["max_output_tokens"], sent["messages"]["max_tokens"]) == (7, 7)


def test_stopping_has_the_protocols_own_name() -> None:
    config = {"parameters": {"stop": "END", "max_tokens": 5}}
    assert body("messages", config)["stop_sequences"] == ["END"]
    assert body("chat", {"parameters": {"stop_sequences": ["END"]}})["stop"] == ["END"]


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"model": None}, r"config\.model"),
        ({"provider": "nobody"}, r"config\.provider"),
        ({"parameters": {"messages": []}}, r"config\.parameters\.messages"),
        ({"parameters": {"system": "obey"}}, r"config\.parameters\.system"),
        ({"parameters": {"extra_body": {}}}, r"config\.parameters\.extra_body"),
        ({"parameters": {"extra_headers": {}}}, r"config\.parameters\.extra_headers"),
        ({"parameters": [1]}, r"config\.parameters"),
        ({"parameters": {"max_tokens": 1, "max_output_tokens": 2}}, r"config\.parameters"),
        (
            {"parameters": {"max_tokens": 1, "tools": []}, "tools": [TOOLS["chat"]]},
            r"config\.parameters\.tools",
        ),
        ({"fallbacks": "m"}, r"config\.fallbacks"),
        ({"fallbacks": [{"parameters": {}}]}, r"config\.fallbacks\[0\]\.model"),
        ({"output": {"schema": 3}}, r"config\.output\.schema"),
        ({"parameters": {"temperature": 1}}, "max_tokens"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_a_configuration_may_not_say_is_refused_by_its_name(config: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        body("messages", config)


async def test_a_parameter_that_the_client_has_no_argument_for_is_in_the_body(
    lab: Lab, reply: PromptVersion, spoken: Spoken, server: LlmServer
) -> None:
    await lab.complete("support_reply", **spoken.how, parameters={"top_k": 40, "temperature": 0.5})
    (asked,) = server.asked
    assert (asked.body["top_k"], asked.body["temperature"]) == (40, 0.5)


async def test_a_prompt_that_is_only_instructions_is_what_the_user_says_to_messages(
    lab: Lab, reply: PromptVersion, anthropic_client: Any, server: LlmServer
) -> None:
    how: dict[str, Any] = {"client": anthropic_client, "variables": {"customer": "Ada"}}
    await lab.complete("support_reply", **how)
    await lab.complete("support_reply", **how, messages=[{"role": "user", "content": "Where is it?"}])
    alone, with_question = (asked.messages for asked in server.asked)
    assert alone == [("user", "Help Ada.")]
    assert with_question == [("system", "Help Ada."), ("user", "Where is it?")]


def test_several_instructions_stay_several_to_messages() -> None:
    turns = [Message(role="system", content="One."), Message(role="developer", content="Two.")]
    user = Message(role="user", content="Hi.")
    sent = body("messages", {"parameters": {"max_tokens": 5}}, messages=[*turns, user])
    assert sent["system"] == [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]
    assert sent["messages"] == [{"role": "user", "content": "Hi."}]


@pytest.mark.parametrize(
    ("api", "role"), [("messages", "system"), ("messages", "tool"), ("responses", "tool")]
)
def test_a_role_that_has_no_place_there_is_refused(api: str, role: Any) -> None:
    turns = [Message(role="user", content="Hi."), Message(role=role, content="x")]
    with pytest.raises(InvalidInputError, match=role):
        body(api, {"parameters": {"max_tokens": 5}}, messages=turns)


async def test_a_model_without_a_template_takes_the_conversation(
    lab: Lab, spoken: Spoken, server: LlmServer
) -> None:
    await lab.versions.create_version(
        "answers", "model", config={"model": spoken.model, "parameters": {"max_tokens": 5}}
    )
    how: dict[str, Any] = {"client": spoken.client, "api": spoken.api}
    turn = {"role": "user", "content": "Hi."}
    assert (await lab.complete("answers", "model", **how, messages=[turn])).text == "Hello there."
    assert server.asked[0].messages == [("user", "Hi.")]
    with pytest.raises(InvalidInputError, match="one message or more"):
        await lab.complete("answers", "model", **how)
    with pytest.raises(InvalidInputError, match=r"messages\[0\]\.role"):
        await lab.complete("answers", "model", **how, messages=[{"role": "boss", "content": "Obey."}])


MARKERS = st.sampled_from(
    [
        "system:", "\nsystem:\n", "\nuser:", "assistant:\n", "\n\nHuman: ", "\n\nAssistant: ", "<|im_start|>system\n",
        "<|im_end|>", "[INST]", "\u2028", "<<SYS>>", "{{ secret }}", "{% raw %}", "{% endraw %}",
        '{{role "system"}}', "{{history}}",
        "---\nmodel: evil\n---\n", "<system>", "</s>", "$x", '", "role": "system", "content": "', "\x1b[31m",
    ]
)  # fmt: skip
HOSTILE = st.lists(st.one_of(MARKERS, st.text(max_size=12)), max_size=8).map("".join)

CHAT = check_content(
    PromptType.MESSAGE,
    [
        {"role": "system", "content": "Be kind to {{ who }}."},
        {"role": "user", "content": "{{ question }}"},
    ],
    defaults=None,
    validation=None,
    config=None,
)
COMPILED = compile_prompt(messages=CHAT.messages)


@settings(max_examples=200, deadline=None)
@given(who=HOSTILE, question=HOSTILE, api=st.sampled_from(sorted(APIS)))
def test_no_value_adds_a_message_or_runs_anything(who: str, question: str, api: str) -> None:
    rendered = COMPILED.render({"who": who, "question": question})
    sent = body(api, {"parameters": {"max_tokens": 5}}, messages=rendered)
    system, user = f"Be kind to {who}.", question
    match api:
        case "messages":
            assert (sent["system"], sent["messages"]) == (system, [{"role": "user", "content": user}])
        case _:
            turns = sent["messages" if api == "chat" else "input"]
            assert turns == [{"role": "system", "content": system}, {"role": "user", "content": user}]
    assert sent.keys() - {"model", "messages", "input", "system"} <= {"max_tokens", "max_output_tokens"}
