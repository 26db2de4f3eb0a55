"""Files of a dataknobs library, with its optional parts and its trimmed blocks, and back."""

from __future__ import annotations

import json

import pytest
import yaml
from jinja2 import Environment

from promptab.errors import InvalidInputError, PromptFileError, TemplateError
from promptab.formats import Format, Wish, write_foreign
from promptab.library import PromptSource
from promptab.models import PromptType
from tests.formats.rendering import again, read, rendered

REVIEW = """\
template: |
  Review this {{language}} code:
  {% if strict %}
  Be strict.
  {% endif %}
  {{code}}((, written by {{author}})).
defaults:
  language: python
validation:
  level: error
  required_params: [code]
metadata:
  author: alice
  version: "1.0"
rag_config_refs: [docs]
"""


def test_a_prompt_is_read_by_its_folder() -> None:
    imported = read(REVIEW, path="prompts/system/review.yaml")
    source = imported.source
    assert (imported.format, source.label) == (Format.DATAKNOBS, "system/review")
    assert source.defaults == {"language": "python"}
    assert source.validation == {"type": "object", "properties": {"code": {}}, "required": ["code"]}
    assert source.metadata == {
        "author": "alice",
        "version": "1.0",
        "dataknobs": {"rag_config_refs": ["docs"]},
    }
    assert rendered(source, code="x=1", strict=False) == [("system", "Review this python code:\nx=1.\n")]
    assert rendered(source, code="x", strict=True, author="Bo", language="go") == [
        ("system", "Review this go code:\nBe strict.\nx, written by Bo.\n")
    ]


def test_a_file_in_json_is_read_the_same() -> None:
    as_json = json.dumps(yaml.safe_load(REVIEW))
    assert read(as_json, path="system/review.json").source == read(REVIEW, path="system/review.yaml").source


@pytest.mark.parametrize(
    ("template", "variables", "text"),
    [
        ("Hi {{ name }}!", {"name": "Ada"}, "Hi  Ada !"),
        ("a((b))c", {}, "abc"),
        ("a(( {{x}} ))c", {}, "ac"),
        ("a(( {{x}} ))c", {"x": "1"}, "a 1 c"),
        ("((x {{a}}{{b}}))", {"b": "2"}, "x 2"),
        ("((x {{a}}((, {{b}}))))", {"a": "1"}, "x 1"),
        ("((x {{a}}((, {{b}}))))", {"a": "1", "b": "2"}, "x 1, 2"),
        ("((f({{a}})))", {"a": "1"}, "f(1)"),
        ("((\n{{a}}\n))", {"a": "1"}, "\n1\n"),
        ("{{ a | upper }}", {"a": "x"}, "X"),
        ("x\n  {% for i in l %}\n  - {{i}}\n  {% endfor %}\ny", {"l": [1, 2]}, "x\n  - 1\n  - 2\ny"),
        ("a {# note #}\nb", {}, "a b"),
    ],
)
def test_a_template_gives_what_dataknobs_gives(
    template: str, variables: dict[str, object], text: str
) -> None:
    source = read(json.dumps({"template": template}), path="user/a.json").source
    assert rendered(source, **variables) == [("user", text)]


def test_messages_and_retrievals_have_folders_of_their_own() -> None:
    chat = read(
        json.dumps({"messages": [{"role": "system", "content": "Be {{tone}}."}]}),
        Format.DATAKNOBS,
        path="messages/a.json",
    )
    assert chat.source.label == "message/a"
    assert rendered(chat.source, tone="kind") == [("system", "Be kind.")]
    rag = read("adapter_name: docs\nquery: '{{q}}'\nk: 3", path="rag/docs.yaml").source
    assert (rag.label, rag.config) == ("config/docs", {"adapter_name": "docs", "query": "{{q}}", "k": 3})
    assert again(rag, Format.DATAKNOBS).source == rag


def test_a_text_alone_is_a_template() -> None:
    assert read("Just {{this_}}", Format.DATAKNOBS, path="user/a.yaml").source.template == "Just {{ this_ }}"


def test_without_a_folder_the_type_has_to_be_given() -> None:
    with pytest.raises(InvalidInputError, match="--type"):
        read("template: Hi", path="a.yaml")
    assert (
        read("template: Hi", path="a.yaml", wish=Wish(prompt_type=PromptType.USER)).source.label == "user/a"
    )


def test_a_milder_level_is_told() -> None:
    imported = read(
        "template: '{{a}}'\nvalidation: {required_params: [a], optional_params: [b]}", path="user/a.yaml"
    )
    assert imported.notes == (
        "validation.level warn: a missing variable is an error here",
        "validation.optional_params: left out; the template says which variables it can do without",
    )


@pytest.mark.parametrize(
    ("text", "line", "named"),
    [
        ("metadata: {}\nextends: base\ntemplate: x", 2, "extends"),
        ("template: x\nsections: {a: b}", 2, "sections"),
        ("template: x\ntemplate_mode: liquid", 2, "'liquid'"),
        ("template: |\n  a\n  ((b", 3, "(( without"),
        ("template: |\n  a\n  {% if %}", 3, ""),
        ("template: '(({{ a | upper }}))'", 1, "only plain variables"),
        ("template: x\nvalidation:\n  required_params: a", 3, "required_params"),
    ],
)
def test_a_refusal_has_the_line_in_the_file(text: str, line: int, named: str) -> None:
    with pytest.raises(PromptFileError) as refused:
        read(text, path="user/a.yaml")
    assert (refused.value.line, named in str(refused.value)) == (line, True), str(refused.value)


TRIMMED = [
    "a\n{% if b %}\nc\n{% endif %}\nd", "  {% if b %}\n  c{% endif %}\n", "{%- if b -%}\n c {%- endif %}\n\nx",
    "{% for i in [1, 2] %}\n{{ i }}\n{% endfor %}", "a\n\t{# b #}\nc", "((a)) {{ b }}",
    "x {% if b %} y {% endif %} z\n",
]  # fmt: skip


@pytest.mark.parametrize("template", TRIMMED)
def test_what_is_written_renders_the_same_where_blocks_are_trimmed(template: str) -> None:
    source = PromptSource(name="a", prompt_type=PromptType.USER, template=template)
    told = yaml.safe_load(write_foreign(source, Format.DATAKNOBS).text)
    assert told["template_mode"] == "jinja2"
    theirs = Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False)  # noqa: S701
    text = theirs.from_string(told["template"]).render(b="B")
    assert (
        [("user", text)] == rendered(source, b="B") == rendered(again(source, Format.DATAKNOBS).source, b="B")
    )


def test_what_was_read_is_written_again() -> None:
    source = read(REVIEW, path="system/review.yaml").source
    exported = write_foreign(source, Format.DATAKNOBS)
    assert (exported.path, exported.lost) == ("system/review.yaml", ())
    back = again(source, Format.DATAKNOBS).source
    assert (back.validation, back.defaults, back.metadata) == (
        source.validation,
        source.defaults,
        source.metadata,
    )
    for author in ("Bo", ""):
        given = {"code": "x", "strict": True, "author": author}
        assert rendered(back, **given) == rendered(source, **given)


def test_a_chat_is_written_so_that_no_part_of_it_is_optional() -> None:
    chat = {
        "name": "a",
        "prompt_type": "message",
        "messages": [{"role": "user", "content": "Hi {{ name }}."}],
    }
    source = PromptSource.model_validate(chat)
    assert (
        yaml.safe_load(write_foreign(source, Format.DATAKNOBS).text)["messages"][0]["content"]
        == "Hi {{name}}."
    )
    chat["messages"] = [{"role": "user", "content": "Hi ((you))."}]
    with pytest.raises(TemplateError, match="optional part"):
        write_foreign(PromptSource.model_validate(chat), Format.DATAKNOBS)


def test_losses_are_listed() -> None:
    source = PromptSource.model_validate({
        "name": "a", "prompt_type": "user", "template": "{{ b }}", "config": {"model": "m"},
        "validation": {"type": "object", "properties": {"b": {"type": "string"}}, "additionalProperties": True},
    })  # fmt: skip
    assert [each.partition(":")[0] for each in write_foreign(source, Format.DATAKNOBS).lost] == [
        "config.model", "validation.b", "validation",
    ]  # fmt: skip
    with pytest.raises(InvalidInputError, match="all that dataknobs has"):
        write_foreign(
            PromptSource(name="a", prompt_type=PromptType.MODEL, config={"model": "m"}), Format.DATAKNOBS
        )
