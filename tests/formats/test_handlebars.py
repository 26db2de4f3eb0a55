"""Handlebars as handlebars.js renders it, by its documentation (https://handlebarsjs.com/guide/), in Jinja2."""

from __future__ import annotations

from typing import Any

import pytest

from promptab.errors import PromptFileError
from promptab.formats.from_handlebars import conversation
from promptab.formats.handlebars import MAX_NESTING
from promptab.models import MessageTemplate
from promptab.templates import compile_prompt

PEOPLE = {"people": [{"name": "Ada", "tags": ["x", "y"]}, {"name": "Bo", "tags": []}], "name": "root"}


def texts(template: str, **variables: Any) -> list[str]:
    parts = conversation(template, path="a.prompt").parts
    prompt = compile_prompt(
        messages=[
            MessageTemplate.model_validate({"role": part.role, "content": part.content}) for part in parts
        ]
    )
    given = {name: value for name, value in variables.items() if name in prompt.variables}
    return [message.content for message in prompt.render(given)]


@pytest.mark.parametrize(
    ("template", "variables", "text"),
    [
        ("Hello, {{name}}!\n", {"name": "Ada"}, "Hello, Ada!\n"),
        ("{{name}} {{{name}}} {{&name}}", {"name": "<b>&"}, "<b>& <b>& <b>&"),
        (
            "{{user.name}} {{user/name}} {{user.[first name]}}",
            {"user": {"name": "A", "first name": "B"}},
            "A A B",
        ),
        ("{{this.name}} {{./name}} {{@root.name}}", {"name": "A"}, "A A A"),
        ("{{list.[1]}} {{list.0}}", {"list": ["a", "b"]}, "b a"),
        ("a{{! gone }}b{{!-- {{gone}} --}}c", {}, "abc"),
        ("{{#if a}}A{{/if}}", {"a": "x"}, "A"),
        ("{{#if a}}A{{else}}B{{/if}}", {}, "B"),
        ("{{#if a}}A{{^}}B{{/if}}", {"a": 0}, "B"),
        ("{{#if a}}A{{else if b}}B{{else}}C{{/if}}", {"b": True}, "B"),
        ("{{#if a}}A{{else if b}}B{{else}}C{{/if}}", {}, "C"),
        ("{{#unless a}}no {{a}}{{/unless}}", {}, "no "),
        ("{{#if user.name}}{{user.name}}{{/if}}.", {}, "."),
        ("{{#ifEquals a 'x'}}same{{else}}other{{/ifEquals}}", {"a": "x"}, "same"),
        ("{{#unlessEquals a b}}differ{{/unlessEquals}}", {"a": 1, "b": 2}, "differ"),
        ("{{#each people}}{{name}}{{#unless @last}}, {{/unless}}{{/each}}", PEOPLE, "Ada, Bo"),
        ("{{#each people}}{{@index}}{{#if @first}}!{{/if}}{{/each}}", PEOPLE, "0!1"),
        (
            "{{#each people}}{{name}}/{{../name}}/{{@root.name}} {{/each}}",
            PEOPLE,
            "Ada/root/root Bo/root/root ",
        ),
        (
            "{{#each people}}{{#each tags}}{{this}}{{../name}}{{../../name}} {{/each}}{{/each}}",
            PEOPLE,
            "xAdaroot yAdaroot ",
        ),
        ("{{#each people}}{{#each tags}}{{this}}{{else}}none{{/each}};{{/each}}", PEOPLE, "xy;none;"),
        ("{{#each nothing}}x{{else}}empty{{/each}}", {}, "empty"),
        ("{{#each o}}{{@key}}={{this}} {{/each}}", {"o": {"a": "1", "b": "2"}}, "a=1 b=2 "),
        ("{{#each o}}{{item}}{{@root.item}}{{/each}}", {"o": [{"item": "in"}], "item": "out"}, "inout"),
        (
            "{{#with user}}{{name}} of {{../team}}{{else}}nobody{{/with}}",
            {"user": {"name": "A"}, "team": "T"},
            "A of T",
        ),
        ("{{#with user}}{{name}}{{else}}nobody{{/with}}", {}, "nobody"),
        ("{{json a}} {{json a indent=1}}", {"a": ["é"]}, '["é"] [\n "é"\n]'),
        ("a  {{~name~}}  \n b", {"name": "N"}, "aNb"),
        ("{{#if a~}}  x  {{~/if}} .", {"a": 1}, "x ."),
        ("\\{{name}} {{name}}", {"name": "N"}, "{{name}} N"),
        ("\\\\{{name}}", {"name": "N"}, "\\N"),
        ("{{! }}{% if x %} {# {{name}} }} {", {"name": "N"}, "{% if x %} {# N }} {"),
    ],
)
def test_a_template_gives_what_handlebars_gives(template: str, variables: dict[str, Any], text: str) -> None:
    assert texts(template, **variables) == [text]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("a\n{{#if yes}}\nb\n{{/if}}\nc\n", "a\nb\nc\n"),
        ("a\n  {{#if yes}}  \n  b\n  {{/if}}\t\nc", "a\n  b\nc"),
        ("a {{#if yes}}\nb\n{{/if}} c", "a \nb\n c"),
        ("{{#if no}}\nb\n{{else}}\nd\n{{/if}}", "d\n"),
        ("a\n{{! note }}\nb", "a\nb"),
        ("a\n  {{!-- note --}}  \nb", "a\nb"),
        ("a {{! note }}\nb", "a \nb"),
        ("{{#if yes}}{{! x }}\nb{{/if}}", "\nb"),
        ("{{#each list}}\n- {{this}}\n{{/each}}\n", "- 1\n- 2\n"),
        ("{{#each list}}{{this}}{{#unless @last}}, {{/unless}}{{/each}}\n", "1, 2\n"),
        ("{{yes}}\n{{yes}}\n", "y\ny\n"),
    ],
)
def test_a_block_alone_on_its_line_takes_the_line(template: str, text: str) -> None:
    assert texts(template, yes="y", no="", list=["1", "2"]) == [text]


def test_the_translation_keeps_the_lines_of_the_template() -> None:
    template = "Dear {{name}},\n{{#if late}}\nsorry.\n{{else}}\nhere it is.\n{{/if}}\nBye"
    (part,) = conversation(template, path="a.prompt").parts
    assert part.content == (
        "Dear {{ name }},\n{% if late is defined and late -%}\nsorry.\n{% else -%}\nhere it is.\n{% endif -%}\nBye"
    )


def test_what_is_declared_makes_the_translation_simple() -> None:
    schema = {
        "type": "object",
        "properties": {
            "late": {"type": "boolean"},
            "nick": {"type": ["string", "null"]},
            "age": {"type": ["integer", "null"]},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["late", "tags"],
    }
    source = (
        "{{#if late}}{{late}}{{/if}}{{nick}}{{age}}{{#each tags}}{{this}}{{/each}}{{tags.length}}{{tags}}"
    )
    (part,) = conversation(source, path="a.prompt", schema=schema).parts
    assert part.content == (
        "{% if late %}{{ late | tojson }}{% endif %}{{ nick | default('', true) }}"
        "{{ age if age is defined and age is not none else '' }}{% for item in tags %}{{ item }}{% endfor %}"
        "{{ tags | length }}{{ tags | join(',') }}"
    )


def test_roles_begin_messages_and_blank_texts_are_none() -> None:
    told = conversation('\n{{role "system"}}Be kind.\n{{role "user"}}Hi{{role "model"}}Yes?', path="a.prompt")
    assert [(part.role, part.content) for part in told.parts] == [
        ("system", "Be kind.\n"), ("user", "Hi"), ("assistant", "Yes?"),
    ]  # fmt: skip
    assert told.history is None


def test_the_place_of_the_history_is_told() -> None:
    told = conversation('{{role "system"}}Be kind.{{history}}{{role "user"}}Hi', path="a.prompt")
    assert [part.role for part in told.parts] == ["system", "user"]
    assert told.history == 1


def test_a_partial_becomes_an_include_with_its_values() -> None:
    told = conversation("{{> topic-2.tone}}{{>sig name=user mood='fine'}}", path="a.prompt")
    assert told.partials == ("topic-2.tone", "sig")
    assert told.parts[0].content == (
        '{% include "user/topic-2.tone" %}{% with name = user, mood = \'fine\' %}{% include "user/sig" %}{% endwith %}'
    )


@pytest.mark.parametrize(
    ("template", "line", "named"),
    [
        ("a\n{{media url=photo}}", 2, "{{media url=photo}}"),
        ("\n\n{{#list items}}x{{/list}}", 3, "{{#list items}}"),
        ("{{upper name}}", 1, "{{upper name}}"),
        ("{{@auth.email}}", 1, "context variable"),
        ("{{@index}}", 1, "outside of any {{#each}}"),
        ("{{../name}}", 1, "out of the template"),
        ("{{this}}", 1, "all variables together"),
        ("{{first-name}}", 1, "'first-name'"),
        ("{{in}}", 1, "'in'"),
        ('{{#if a}}{{role "user"}}{{/if}}', 1, "inside of a block"),
        ("{{role who}}", 1, "in quotes"),
        ('{{role "root"}}', 1, "in quotes"),
        ("{{history}}{{history}}", 1, "a second {{history}}"),
        ("x\n  {{> sig}}\ny", 2, "indented"),
        ("{{> sig user}}", 1, "given a context"),
        ("{{> ../../etc/passwd}}", 1, "partial"),
        ("{{#each a}}{{> sig}}{{/each}}", 1, "no longer the whole input"),
        ("{{#if a b}}{{/if}}", 1, "takes 1 value"),
        ("{{#each a as |b|}}{{/each}}", 1, "block parameters"),
        ("{{#if (eq a 1)}}{{/if}}", 1, "subexpressions"),
        ("{{{{raw}}}}{{{{/raw}}}}", 1, "raw blocks"),
        ("{{^a}}x{{/a}}", 1, "{{^a}}"),
        ("{{#>layout}}{{/layout}}", 1, "{{#>layout}}"),
        ("{{json a b}}", 1, "json takes one value"),
        ("a\n{{#if a}}", 2, "never closed"),
        ("{{#if a}}{{/each}}", 1, "closes the {{#if}}"),
        ("a\n{{/if}}", 2, "nothing that is open"),
        ("{{#if a}}{{else}}{{else}}{{/if}}", 1, "a second {{else}}"),
        ("{{name", 1, "never closed"),
        ("{{! name", 1, "never closed"),
        ("{{name}}}", 1, "one brace more"),
        ("{{}}", 1, "empty tag"),
        ("{{a..b}}", 1, "not a path"),
    ],
)
def test_what_has_no_meaning_in_jinja2_is_named_with_its_line(template: str, line: int, named: str) -> None:
    with pytest.raises(PromptFileError) as refused:
        conversation(template, path="a.prompt", first_line=10)
    assert refused.value.line == line + 9
    assert named in str(refused.value)


def test_everything_unsupported_is_named_at_once() -> None:
    with pytest.raises(PromptFileError, match=r"line 1: the helper .*; line 3: the block") as refused:
        conversation("{{media url=x}}\n\n{{#list a}}{{/list}}", path="a.prompt")
    assert refused.value.line == 1


def test_blocks_nest_to_a_limit() -> None:
    deep = "{{#if a}}" * (MAX_NESTING + 1) + "{{/if}}" * (MAX_NESTING + 1)
    with pytest.raises(PromptFileError, match="nest more than"):
        conversation(deep, path="a.prompt")


def test_hostile_blanks_take_no_time_of_note() -> None:
    """Would hang for minutes if the search for the end of a line began anew at every break."""
    assert texts("\n" * 50_000 + "x{{#if a}}{{/if}}" + "\n" * 49_000 + "x") == [
        "\n" * 50_000 + "x" + "\n" * 49_000 + "x"
    ]
