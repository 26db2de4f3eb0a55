"""Templates of the command line tool llm, and back."""

from __future__ import annotations

from string import Template

import pytest
import yaml

from promptab.errors import InvalidInputError, PromptFileError, TemplateError
from promptab.formats import Format, Wish, write_foreign
from promptab.library import PromptSource
from promptab.models import PromptType
from tests.formats.rendering import again, read, rendered

WHOLE = """\
model: gpt-4o
system: You are $role. {{ not a tag }}
prompt: |
  ${tone}: summarize for $$5 to $voice:
  $input
defaults: {voice: Ada}
options: {temperature: 0.5}
schema_object: {type: object, properties: {text: {type: string}}}
tools: [llm_version]
functions: |
  raise SystemExit("never run")
"""


def test_a_template_is_read() -> None:
    imported = read(WHOLE, path="templates/summary.yaml")
    source = imported.source
    assert (imported.format, source.label) == (Format.LLM, "message/summary")
    assert source.defaults == {"voice": "Ada"}
    assert source.config == {
        "model": "gpt-4o",
        "parameters": {"temperature": 0.5},
        "tools": ["llm_version"],
        "output": {
            "format": "json",
            "schema": {"type": "object", "properties": {"text": {"type": "string"}}},
        },
    }
    assert imported.notes == ("functions: kept in the metadata, and never run",)
    assert rendered(source, role="R", tone="T", input="I") == [
        ("system", "You are R. {{ not a tag }}"), ("user", "T: summarize for $5 to Ada:\nI\n"),
    ]  # fmt: skip


def test_a_system_text_alone_is_followed_by_the_input() -> None:
    source = read("system: Be kind.").source
    assert rendered(source, input="Hi") == [("system", "Be kind."), ("user", "Hi")]
    assert yaml.safe_load(write_foreign(source, Format.LLM).text) == {"system": "Be kind."}
    alone = read("system: Be kind.", wish=Wish(prompt_type=PromptType.SYSTEM)).source
    assert (alone.prompt_type, alone.template) == (PromptType.SYSTEM, "Be kind.")
    assert "llm sends its input" in write_foreign(alone, Format.LLM).lost[0]


def test_what_was_read_is_written_again() -> None:
    source = read(WHOLE, path="summary.yaml").source
    assert again(source, Format.LLM).source == source
    told = yaml.safe_load(write_foreign(source, Format.LLM).text)
    assert told["prompt"] == "$tone: summarize for $$5 to $voice:\n$input\n"
    assert Template(told["system"]).substitute(role="R") == "You are R. {{ not a tag }}"


def test_a_name_is_told_from_the_letters_after_it() -> None:
    source = PromptSource(
        name="a", prompt_type=PromptType.USER, template="{{ size }}cm {{ size }}.{{ size }}{{ size }}"
    )
    text = yaml.safe_load(write_foreign(source, Format.LLM).text)["prompt"]
    assert text == "${size}cm $size.$size$size"
    assert Template(text).substitute(size=3) == rendered(source, size=3)[0][1]


@pytest.mark.parametrize(
    ("text", "line", "named"),
    [
        ("model: m\nprompt: |\n  Hi\n  costs $5\n", 4, "$$"),
        ("prompt: Hi $in\n", 1, "'in'"),
        ("prompt: Hi $_x\n", 1, "_x"),
        ("model: m\nprompt: [a]\n", 2, "not text"),
    ],
)
def test_a_refusal_has_the_line_in_the_file(text: str, line: int, named: str) -> None:
    with pytest.raises(PromptFileError) as refused:
        read(text)
    assert (refused.value.line, named.strip("'") in str(refused.value)) == (line, True), str(refused.value)


def test_an_unknown_key_is_refused_as_llm_does() -> None:
    with pytest.raises(PromptFileError, match=r"unknown key 'temperature'"):
        read("prompt: Hi\ntemperature: 1", Format.LLM)


def test_what_the_format_cannot_hold_is_refused_or_listed() -> None:
    with pytest.raises(TemplateError, match="An llm template cannot say"):
        write_foreign(
            PromptSource(name="a", prompt_type=PromptType.USER, template="{{ a | upper }}"), Format.LLM
        )
    chat = {"name": "a", "prompt_type": "message", "messages": [{"role": "user", "content": "x"}] * 2}
    with pytest.raises(InvalidInputError, match="one system text"):
        write_foreign(PromptSource.model_validate(chat), Format.LLM)
    source = PromptSource.model_validate({
        "name": "a", "prompt_type": "user", "template": "x", "validation": {"type": "object"},
        "config": {"parameters": {"stop": ["x"], "seed": 1}, "tools": [{"name": "t"}], "output": {"format": "json"}},
        "metadata": {"owner": "us", "description": "d"},
    })  # fmt: skip
    assert [each.partition(":")[0] for each in write_foreign(source, Format.LLM).lost] == [
        "metadata.owner", "metadata.description", "validation", "config.output", "config.tools",
        "config.parameters.stop",
    ]  # fmt: skip
