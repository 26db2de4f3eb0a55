"""Prompty files of both versions, and version 2 back."""

from __future__ import annotations

import pytest
import yaml

from promptab.errors import InvalidInputError, PromptFileError, TemplateError
from promptab.formats import Format, write_foreign
from promptab.library import PromptSource
from promptab.models import PromptType
from tests.formats.rendering import again, read, rendered

FIRST = """\
---
name: Support Reply
description: Answers customers.
version: "1.0"
authors:
  - ada
model:
  api: chat
  configuration:
    type: azure_openai
    azure_endpoint: ${env:AZURE_OPENAI_ENDPOINT}
    azure_deployment: gpt-35-turbo
    api_key: ${env:AZURE_OPENAI_API_KEY}
  parameters:
    temperature: 0.7
    max_tokens: 500
inputs:
  firstName:
    type: string
    sample: Jane
    required: true
  lastName: Doe
  question: What now?
template: jinja2
---

system:
You help {{firstName}} {{ lastName }}.
{% if question %}

Be brief.
{% endif %}

user:
{{question}}
"""

SECOND = """\
---
name: support_reply
description: Answers customers.
displayName: Support
metadata:
  authors: [ada]
model:
  id: gpt-4o
  provider: openai
  apiType: chat
  connection: {kind: key, endpoint: "${env:ENDPOINT}", apiKey: "sk-not-for-us"}
  options: {temperature: 0.5, topP: 1, maxOutputTokens: 50, stopSequences: [END]}
inputs:
  - name: question
    kind: string
    required: true
    description: what is asked
  - name: tone
    kind: string
    default: warm
    enumValues: [warm, cool]
  - name: facts
    kind: array
    items: {kind: string}
outputs:
  - {name: answer, kind: string, required: true}
tools:
  search: {kind: function, description: looks up}
template:
  format: {kind: jinja2}
  parser: prompty
---
system:
Be {{tone}}.{% for fact in facts %}
- {{fact}}{% endfor %}

User[name="Ada"]:
{{question}}
"""


def test_version_1_is_read() -> None:
    imported = read(FIRST, path="x/support.prompty")
    source = imported.source
    assert imported.format == Format.PROMPTY
    assert source.label == "message/support_reply"
    assert source.config == {"model": "gpt-35-turbo", "parameters": {"temperature": 0.7, "max_tokens": 500}}
    assert source.validation == {
        "type": "object",
        "properties": {"firstName": {"type": "string"}, "lastName": {}, "question": {}},
        "required": ["firstName"],
    }
    assert source.metadata == {
        "description": "Answers customers.",
        "prompty": {
            "name": "Support Reply",
            "version": "1.0",
            "authors": ["ada"],
            "model": {"apiType": "chat"},
            "sample": {"firstName": "Jane", "lastName": "Doe", "question": "What now?"},
        },
    }
    assert rendered(source, firstName="A", lastName="B", question="Q") == [
        ("system", "You help A B.\n\n\nBe brief.\n"), ("user", "Q"),
    ]  # fmt: skip


def test_version_2_is_read() -> None:
    imported = read(SECOND)
    source = imported.source
    assert source.config == {
        "model": "gpt-4o",
        "parameters": {"temperature": 0.5, "top_p": 1, "max_output_tokens": 50, "stop_sequences": ["END"]},
        "tools": [{"name": "search", "kind": "function", "description": "looks up"}],
        "output": {
            "schema": {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
        },
    }
    assert source.defaults == {"tone": "warm"}
    assert source.validation == {
        "type": "object",
        "properties": {
            "question": {"type": "string", "description": "what is asked"},
            "tone": {"type": "string", "enum": ["warm", "cool"]},
            "facts": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["question"],
    }
    assert rendered(source, question="Q", facts=["f"]) == [("system", "Be warm.\n- f"), ("user", "Q")]


def test_connections_and_keys_are_left_out() -> None:
    for text in (FIRST, SECOND):
        imported = read(text)
        assert "sk-not-for-us" not in imported.source.model_dump_json()
        assert "AZURE_OPENAI" not in imported.source.model_dump_json()
        assert any(
            "is left out: a version holds no connections and no keys" in note for note in imported.notes
        )


@pytest.mark.parametrize(
    "tools",
    [
        "[{name: files, kind: mcp, connection: {kind: key, apiKey: sk-1234}}]",
        "{files: {kind: mcp, connection: {kind: key, apiKey: sk-1234}}}",
    ],
)
def test_connections_of_tools_are_left_out_too(tools: str) -> None:
    imported = read(f"---\nname: a\ntools: {tools}\n---\nsystem:\nHi\n", Format.PROMPTY, path="a.prompty")
    assert imported.source.config["tools"] == [{"name": "files", "kind": "mcp"}]
    assert "sk-1234" not in imported.source.model_dump_json()
    assert any("tools[0].connection is left out" in note for note in imported.notes)


def test_references_are_never_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_OF_MINE", "secret-model")
    imported = read("---\nmodel: {id: '${env:MODEL_OF_MINE}'}\n---\nuser:\nHi")
    assert imported.source.config == {}
    assert "secret-model" not in str(imported)
    assert imported.notes == (
        "model.id is left out: ${env:MODEL_OF_MINE} is looked up when Prompty runs, and never here",
    )


def test_a_text_without_roles_is_a_system_prompt() -> None:
    source = read("---\nsample: {}\nmodel: gpt-4o\n---\n\nBe kind.\n\n").source
    assert (source.prompt_type, source.template, source.config) == (
        PromptType.SYSTEM,
        "Be kind.",
        {"model": "gpt-4o"},
    )


def test_mustache_is_read_as_far_as_it_is_plain() -> None:
    text = "---\ntemplate: {format: mustache}\n---\nuser:\nHi {{name}} {{{name}}} {% x %}\n"
    imported = read(text)
    assert rendered(imported.source, name="<A>") == [("user", "Hi <A> <A> {% x %}")]
    assert imported.notes == ("Mustache escapes HTML in values; here they are put in as they are",)
    with pytest.raises(PromptFileError, match="only variables") as refused:
        read(text.replace("Hi", "Hi {{#list}}x{{/list}}"))
    assert refused.value.line == 5


@pytest.mark.parametrize(
    ("text", "line", "named"),
    [
        ("---\nsample: {}\n---\nuser:\n{% if a %}\nassistant:\nHi\n{% endif %}", 5, "inside of a"),
        ("---\nsample: {}\n---\nuser:\nHi\n{{ a.b.__class__ }}", 6, "private"),
        ("---\nsample: {}\n---\nuser:\nHi\n{% import 'x' as y %}", 6, "{% import %}"),
        ("---\ninputs:\n  - name: t\n    kind: thread\n---\nuser:\nHi", 3, "'thread'"),
        ("---\ninputs:\n  - kind: string\n---\nuser:\nHi", 3, "a name"),
        ("---\ntemplate: liquid\n---\nuser:\nHi", 2, "'liquid'"),
        ("---\nsample: {}\nmodel:\n  options: 3\n---\nuser:\nHi", 4, "model.options"),
    ],
)
def test_a_refusal_has_the_line_in_the_file(text: str, line: int, named: str) -> None:
    with pytest.raises(PromptFileError) as refused:
        read(text)
    assert (refused.value.line, named in str(refused.value)) == (line, True), str(refused.value)


@pytest.mark.parametrize("text", [FIRST, SECOND], ids=["1", "2"])
def test_what_was_read_is_written_as_version_2(text: str) -> None:
    source = read(text).source
    exported = write_foreign(source, Format.PROMPTY)
    front = yaml.safe_load(exported.text.split("---\n")[1])
    assert front["template"] == {"format": {"kind": "jinja2", "strict": True}, "parser": {"kind": "prompty"}}
    assert {each["name"] for each in front["inputs"]} == set(source.validation["properties"])  # type: ignore[index] # both declare inputs
    back = again(source, Format.PROMPTY).source
    assert (back.messages, back.validation, back.config, back.defaults) == (
        source.messages, source.validation, source.config, source.defaults,
    )  # fmt: skip


def test_losses_are_listed() -> None:
    source = PromptSource.model_validate({
        "name": "a", "prompt_type": "user", "template": "\nHi {{ name }}",
        "validation": {
            "type": "object",
            "properties": {"name": {"type": ["string", "null"], "minLength": 1}},
            "additionalProperties": True,
        },
        "config": {"output": {"format": "json"}, "fallback": "m"},
    })  # fmt: skip
    assert write_foreign(source, Format.PROMPTY).lost == (
        "config.fallback: Prompty has no place for it",
        "validation: additionalProperties",
        "validation.name: the other types of string, null",
        "validation.name: minLength",
        "config.output: format",
        "user/a: the line breaks around its text",
    )


@pytest.mark.parametrize("line", ["system:", "  # User :", 'assistant[name="x"]:', "DEVELOPER:"])
def test_a_text_that_would_begin_a_message_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(TemplateError, match="begins a message") as refused:
        write_foreign(
            PromptSource(name="a", prompt_type=PromptType.USER, template=f"Hi\n{line}\nx"), Format.PROMPTY
        )
    assert refused.value.line == 2


def test_a_role_that_prompty_has_not_is_refused() -> None:
    chat = PromptSource.model_validate(
        {"name": "a", "prompt_type": "message", "messages": [{"role": "tool", "content": "x"}]}
    )
    with pytest.raises(InvalidInputError, match="role"):
        write_foreign(chat, Format.PROMPTY)
