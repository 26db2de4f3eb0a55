"""Dotprompt files, by https://google.github.io/dotprompt/reference/frontmatter/, and back."""

from __future__ import annotations

import pytest

from promptab.errors import InvalidInputError, PromptFileError, TemplateError
from promptab.formats import Format, Wish, write_foreign
from promptab.library import PromptSource
from promptab.models import PromptType
from tests.formats.rendering import again, read, rendered

WHOLE = """\
# Copyright of somebody
---
description: Greets.
model: googleai/gemini-2.5-flash
config: {temperature: 0.7, topK: 3, stopSequences: ["END"]}
tools: [search]
input:
  schema:
    name: string, whom to greet
    nick?: string
    guests(array): string
  default: {name: Ada}
output: {format: json, schema: {greeting: string}}
metadata: {owner: us}
variant: formal
acme.team: red
---

{{role "system"}}
Be kind.
{{history}}
{{role "user"}}
{{#if nick}}Greet {{nick}}.{{else}}Greet {{name}}.{{/if}}
{{#each guests}}
- {{this}}
{{/each}}
"""


def test_front_matter_becomes_the_parts_of_a_prompt() -> None:
    imported = read(WHOLE, path="greet.prompt")
    source = imported.source
    assert imported.format == Format.DOTPROMPT
    assert (source.name, source.prompt_type) == ("greet", PromptType.MESSAGE)
    assert source.config == {
        "model": "googleai/gemini-2.5-flash",
        "parameters": {"temperature": 0.7, "top_k": 3, "stop_sequences": ["END"]},
        "tools": ["search"],
        "output": {
            "format": "json",
            "schema": {
                "type": "object",
                "properties": {"greeting": {"type": "string"}},
                "additionalProperties": False,
                "required": ["greeting"],
            },
        },
    }
    assert source.defaults == {"name": "Ada"}
    assert source.validation is not None
    assert source.validation["required"] == ["name", "guests"]
    assert source.metadata == {
        "description": "Greets.",
        "owner": "us",
        "dotprompt": {"variant": "formal", "acme.team": "red", "history": 1},
    }
    assert imported.notes[0] == "acme.team, variant: kept in the metadata, and without effect here"


def test_the_messages_say_what_dotprompt_says() -> None:
    source = read(WHOLE).source
    assert rendered(source, guests=["Bo", "Cy"]) == [
        ("system", "\nBe kind.\n"), ("user", "\nGreet Ada.\n- Bo\n- Cy\n"),
    ]  # fmt: skip
    assert rendered(source, nick="A", guests=[])[1] == ("user", "\nGreet A.\n")


def test_what_was_read_is_written_and_read_again_the_same() -> None:
    source = read(WHOLE, path="greet.prompt").source
    exported = write_foreign(source, Format.DOTPROMPT)
    assert exported.lost == ()
    assert exported.path == "greet.prompt"
    assert "topK: 3" in exported.text
    assert '{{history}}{{role "user"}}' in exported.text
    assert again(source, Format.DOTPROMPT).source == source


def test_a_text_without_front_matter_is_read_as_it_is() -> None:
    source = read("Hello, {{name}}!\n{{#if a}}x{{/if}}").source
    assert (source.prompt_type, rendered(source, name="Ada", a=1)) == (
        PromptType.USER,
        [("user", "Hello, Ada!\nx")],
    )


def test_one_system_message_is_a_system_prompt() -> None:
    source = read('---\nconfig: {}\n---\n{{role "system"}}Be kind.').source
    assert (source.prompt_type, source.template) == (PromptType.SYSTEM, "Be kind.")


def test_a_file_without_text_is_a_model() -> None:
    source = read("---\nmodel: m\nconfig: {topP: 1}\n---\n", Format.DOTPROMPT).source
    assert source.prompt_type == PromptType.MODEL
    assert again(source, Format.DOTPROMPT).source == source
    with pytest.raises(PromptFileError, match="no text"):
        read("---\ndescription: x\n---\n", Format.DOTPROMPT)


def test_wishes_go_before_the_file() -> None:
    text = "---\nname: Our Greeting\ninput: {}\n---\nHi"
    assert read(text).source.name == "our_greeting"
    assert read(text).source.metadata == {"dotprompt": {"name": "Our Greeting"}}
    wished = read(text, wish=Wish("hello", PromptType.SYSTEM)).source
    assert (wished.name, wished.prompt_type) == ("hello", PromptType.SYSTEM)
    chat = read(text, wish=Wish(prompt_type=PromptType.MESSAGE)).source
    assert [message.role for message in chat.messages] == ["user"]
    with pytest.raises(InvalidInputError, match="2 messages"):
        read(WHOLE, wish=Wish(prompt_type=PromptType.USER))


@pytest.mark.parametrize(
    ("text", "line", "named"),
    [
        ("---\ninput:\n  schema:\n    a: strin\n---\nHi", 4, "strin"),
        ("---\ninput:\n  default: 3\n---\nHi", 3, "input.default"),
        ("---\nmodel: 3\ninput: {}\n---\nHi", 2, "model"),
        ('---\nconfig:\n---\n{{role "user"}}\n{{media url=x}}', 5, "{{media url=x}}"),
        ("---\nconfig:\n\n\n---\n\n\n{{#if\n", 8, "never closed"),
        ("---\nconfig: {a: &x 1}\n---\nHi", 2, "anchors"),
        ("---\nconfig: 1", 1, "never closed"),
    ],
)
def test_a_refusal_has_the_line_in_the_file(text: str, line: int, named: str) -> None:
    with pytest.raises(PromptFileError) as refused:
        read(text, Format.DOTPROMPT)
    assert (refused.value.line, named in str(refused.value)) == (line, True), str(refused.value)


def a_source(template: str, **parts: object) -> PromptSource:
    return PromptSource.model_validate({"name": "a", "prompt_type": "user", "template": template} | parts)


@pytest.mark.parametrize(
    ("template", "body"),
    [
        ("Hi {{ name }}!", "Hi {{name}}!"),
        ("{% if a %}x{% else %}y{% endif %}", "{{#if a}}x{{else}}y{{/if}}"),
        ("a\n{% if a -%}\nx\n{% endif -%}\nb", "a\n{{#if a}}\nx\n{{/if}}\nb"),
        ("{% if not a is defined %}x{% endif %}", None),
        ("{% for x in xs %}{{ x.y }}{{ n }}{% endfor %}", "{{#each xs}}{{this.y}}{{@root.n}}{{/each}}"),
        ("{% for k, v in o | items %}{{ k }}{{ v }}{% endfor %}", "{{#each o}}{{@key}}{{this}}{{/each}}"),
        ("{{ a if a is defined and a is not none else '' }}", "{{a}}"),
        ("{{ a | default('x', true) }}", "{{#if a}}{{a}}{{else}}x{{/if}}"),
        ("{% if a == 'x' and b %}1{% endif %}", '{{#ifEquals a "x"}}{{#if b}}1{{/if}}{{/ifEquals}}'),
        ("{{ if_ }}{{ role }}", "{{if_}}{{this.role}}"),
        ("\\{{ name }}{{ '{{' }}{{ name }}}", "\\\\{{name}}\\{{ {{~name~}} }"),
        (" Hi\n", "{{!}}{{!}} Hi\n{{!}}{{!}}"),
    ],
)
def test_jinja2_becomes_handlebars(template: str, body: str | None) -> None:
    if body is None:
        with pytest.raises(TemplateError, match="Handlebars cannot say"):
            write_foreign(a_source(template), Format.DOTPROMPT)
    else:
        text = write_foreign(a_source(template), Format.DOTPROMPT).text
        assert text.partition("\n---\n")[2] == f"{body}\n"


@pytest.mark.parametrize(
    ("template", "named"),
    [
        ("a\n{% set x = 1 %}", "{% set %}"),
        ("a\n{{ x | upper }}", "the filter `upper`"),
        ("a\n{{ x + 1 }}", "add expressions"),
        ("a\n{% if a or b %}{% endif %}", "`or`"),
        ("a\n{% if a and b %}{% else %}c{% endif %}", "`and`"),
        ("a\n{% if a is number %}{% endif %}", "`is number`"),
        ("a\n{% for x in xs if x %}{% endfor %}", "filtered"),
        ("a\n{% for x, y in xs %}{% endfor %}", "takes its items apart"),
        ("a\n{% for x in xs %}{{ loop.index }}{% endfor %}", "loop.index"),
        ("a\n{{ a | default('x') }}", "default"),
        ("a\n{% include 'user/tone' %}", "{% include %}"),
    ],
)
def test_what_handlebars_cannot_say_is_refused_with_its_line(template: str, named: str) -> None:
    with pytest.raises(TemplateError, match="line 2") as refused:
        write_foreign(a_source(template), Format.DOTPROMPT)
    assert named in str(refused.value)


def test_variables_that_may_be_absent_are_declared() -> None:
    source = a_source("{{ nick | default('') }}{{ name }}")
    back = again(source, Format.DOTPROMPT).source
    assert rendered(back, name="Ada") == rendered(source, name="Ada") == [("user", "Ada")]


def test_a_brand_of_markers_cannot_be_written() -> None:
    with pytest.raises(InvalidInputError, match="<<<dotprompt:"):
        write_foreign(a_source("a <<<dotprompt:role:system>>> b"), Format.DOTPROMPT)


def test_losses_are_listed() -> None:
    chat = PromptSource.model_validate({
        "name": "a", "prompt_type": "message", "config": {"model": "m", "fallback": ["n"], "tools": "all"},
        "messages": [{"role": "developer", "content": "x"}, {"role": "user", "content": " "}],
    })  # fmt: skip
    assert write_foreign(chat, Format.DOTPROMPT).lost == (
        "config.fallback: Dotprompt has no place for it",
        "config.tools: Dotprompt has no place for it",
        "message 1 has the role developer, which becomes system",
        "message 2 is blank, and Dotprompt leaves blank messages out",
    )
    with pytest.raises(InvalidInputError, match="plain configurations"):
        write_foreign(
            PromptSource(name="a", prompt_type=PromptType.CONFIG, config={"k": 1}), Format.DOTPROMPT
        )


def test_a_partial_is_a_text_of_its_own() -> None:
    partial = read("# Not a comment\nBe {{mood}}.{{> inner}}\n", Format.DOTPROMPT, path="p/_tone.prompt")
    assert (partial.source.label, partial.partials) == ("user/tone", ("inner",))
    assert partial.source.template == '# Not a comment\nBe {{ mood }}.{% include "user/inner" %}\n'
    with pytest.raises(PromptFileError, match="without messages of its own"):
        read('{{role "system"}}x', Format.DOTPROMPT, path="_tone.prompt")
