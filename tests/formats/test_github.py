"""GitHub's `.prompt.yml`, by its documentation, and back."""

from __future__ import annotations

import json

import pytest
import yaml

from promptab.cases import check_cases
from promptab.errors import InvalidInputError, PromptFileError, TemplateError
from promptab.formats import Format, write_foreign
from promptab.library import PromptSource
from promptab.models import PromptType
from tests.formats.rendering import again, read, rendered

WHOLE = """\
name: Text Shortener
description: Shortens texts.
model: openai/gpt-4o-mini
modelParameters:
  temperature: 0.5
  maxTokens: 100
responseFormat: json_schema
jsonSchema: |-
  {"name": "short", "strict": true, "schema": {"type": "object", "properties": {"text": {"type": "string"}}}}
messages:
  - role: system
    content: You shorten texts. {% not a tag %}
  - role: user
    content: |
      Shorten:
      {{ input }} {{ not.a.variable }}
testData:
  - input: A long text.
    expected: Text.
evaluators:
  - name: begins
    string: {startsWith: Text}
"""


def test_a_file_is_read_with_its_test_data() -> None:
    imported = read(WHOLE, path="x/shorten.prompt.yml")
    source = imported.source
    assert imported.format == Format.GITHUB
    assert source.label == "message/text_shortener"
    assert source.config == {
        "model": "openai/gpt-4o-mini",
        "parameters": {"temperature": 0.5, "max_tokens": 100},
        "output": {
            "format": "json",
            "schema": {"type": "object", "properties": {"text": {"type": "string"}}},
        },
    }
    assert source.metadata == {
        "description": "Shortens texts.",
        "github": {
            "name": "Text Shortener",
            "jsonSchema": {"name": "short", "strict": True},
            "testData": [{"input": "A long text.", "expected": "Text."}],
            "evaluators": [{"name": "begins", "string": {"startsWith": "Text"}}],
        },
    }
    assert imported.notes == (
        "testData: expected: no variable of the messages; kept in the metadata, and no case has it",
    )
    assert source.tests == check_cases(
        "tests",
        [
            {
                "variables": {"input": "A long text."},
                "expect": {"starts_with": "Text", "ignore_case": True},
            }
        ],
    )
    assert rendered(source, input="x") == [
        ("system", "You shorten texts. {% not a tag %}"),
        ("user", "Shorten:\nx {{ not.a.variable }}\n"),
    ]


def test_a_file_in_json_is_read_the_same() -> None:
    as_json = json.dumps(yaml.safe_load(WHOLE), indent=2)
    assert read(as_json).source == read(WHOLE).source


def test_what_was_read_is_written_again() -> None:
    source = read(WHOLE, path="shorten.prompt.yml").source
    exported = write_foreign(source, Format.GITHUB)
    assert (exported.path, exported.lost) == ("text_shortener.prompt.yml", ())
    assert yaml.safe_load(exported.text)["testData"] == [{"input": "A long text.", "expected": "Text."}]
    back = again(source, Format.GITHUB).source
    assert back == source


EVALUATED = """\
name: a
messages:
  - {role: user, content: "Hi {{x}}"}
testData:
  - {x: 1}
  - {x: 2, note: two}
evaluators:
  - name: names
    string: {contains: Ada}
  - name: ends
    string: {endsWith: "."}
  - name: whole
    string: {equals: "Dear Ada."}
  - name: judged
    llm: {modelId: m, prompt: "Is {{completion}} kind?", choices: [{choice: "1", score: 1}]}
  - name: similar
    uses: github/similarity
  - name: unknown
    string: {matches: "a+"}
"""


def test_evaluators_hold_for_every_row_of_test_data_and_what_they_are_not_is_told() -> None:
    imported = read(EVALUATED)
    expected = {"contains": "Ada", "ends_with": ".", "equals": "Dear Ada.", "ignore_case": True}
    assert imported.source.tests == check_cases(
        "tests", [{"variables": {"x": number}, "expect": expected} for number in (1, 2)]
    )
    told = "asks a model to judge, or is not known here; kept in the metadata, and no case has it"
    assert imported.notes == (
        *(f"evaluators[{index}]: {told}" for index in (3, 4, 5)),
        "testData: note: no variable of the messages; kept in the metadata, and no case has it",
    )


def test_test_data_and_evaluators_come_back_as_they_were_while_the_cases_are_the_same() -> None:
    source = read(EVALUATED).source
    exported = write_foreign(source, Format.GITHUB)
    document, before = yaml.safe_load(exported.text), yaml.safe_load(EVALUATED)
    assert exported.lost == ()
    assert {key: document[key] for key in ("testData", "evaluators")} == {
        key: before[key] for key in ("testData", "evaluators")
    }
    assert again(source, Format.GITHUB).source == source


def test_changed_cases_are_written_beside_what_no_case_says() -> None:
    cases = check_cases("tests", [{"variables": {"x": 3}, "expect": {"contains": "Bo", "ignore_case": True}}])
    source = read(EVALUATED).source.model_copy(update={"tests": cases})
    exported = write_foreign(source, Format.GITHUB)
    document = yaml.safe_load(exported.text)
    assert (document["testData"], exported.lost) == ([{"x": 3}], ())
    assert [each["name"] for each in document["evaluators"]] == [
        "contains Bo",
        "judged",
        "similar",
        "unknown",
    ]
    back = again(source, Format.GITHUB).source
    assert back.tests == cases
    without = write_foreign(source.model_copy(update={"tests": ()}), Format.GITHUB)
    assert "testData" not in yaml.safe_load(without.text)


def test_what_of_cases_github_cannot_say_is_listed() -> None:
    cases = [
        {
            "name": "a",
            "variables": {"b": 1},
            "messages": [{"role": "user", "content": "?"}],
            "expect": {
                "contains": "x",
                "not_contains": "y",
                "regex": "z",
                "json_schema": {},
                "python": "m:f",
            },
        }
    ]
    source = PromptSource.model_validate({
        "name": "a", "prompt_type": "user", "template": "Hi {{ b }}", "tests": check_cases("tests", cases),
    })  # fmt: skip
    lost = write_foreign(source, Format.GITHUB).lost
    assert [each.partition(":")[0] for each in lost] == [
        "tests", "tests.messages", "tests.expect.not_contains", "tests.expect.regex", "tests.expect.json_schema",
        "tests.expect.python", "tests.expect",
    ]  # fmt: skip
    both = source.model_copy(
        update={"tests": check_cases("tests", [{"expect": {"contains": "x"}}, {"expect": {"equals": "y"}}])}
    )
    assert "differ from case to case" in "".join(write_foreign(both, Format.GITHUB).lost)
    for form in (Format.DOTPROMPT, Format.PROMPTY, Format.DATAKNOBS, Format.LLM):
        assert any("has no place for cases" in each for each in write_foreign(source, form).lost)


@pytest.mark.parametrize(
    ("text", "line", "named"),
    [
        ("name: a\nmessages: [{role: user, content: a}]\ntestData:\n  - {}\n  - late\n", 5, "variables"),
        ("name: a\nmessages: [{role: user, content: a}]\ntestData: late\n", 3, "testData"),
        ("name: a\nmessages:\n  - role: user\n    content: |\n      Hi\n      {{in}}\n", 6, "in is no name"),
        ("name: a\nmessages:\n  - role: root\n    content: Hi\n", 3, "root"),
        ("name: a\nmessages:\n  - user\n", 3, "role and content"),
        ("name: a\nresponseFormat: xml\nmessages:\n  - {role: user, content: a}\n", 2, "'xml'"),
        ("name: a\njsonSchema: '{'\nmessages:\n  - {role: user, content: a}\n", 2, "jsonSchema"),
        ("name: a\nmodelParameters: 3\nmessages:\n  - {role: user, content: a}\n", 2, "modelParameters"),
    ],
)
def test_a_refusal_has_the_line_in_the_file(text: str, line: int, named: str) -> None:
    with pytest.raises(PromptFileError) as refused:
        read(text)
    assert (refused.value.line, named in str(refused.value)) == (line, True), str(refused.value)


@pytest.mark.parametrize(
    "template",
    [
        "a\n{% if b %}c{% endif %}",
        "a\n{{ b.c }}",
        "a\n{{ b | upper }}",
        "a{{ '{{b}}' }}",
        "a{{ '{' }}{{ b }}",
    ],
)
def test_what_is_more_than_texts_and_variables_is_refused(template: str) -> None:
    with pytest.raises(TemplateError, match="GitHub's format cannot say"):
        write_foreign(PromptSource(name="a", prompt_type=PromptType.USER, template=template), Format.GITHUB)


def test_losses_are_listed() -> None:
    source = PromptSource.model_validate({
        "name": "a", "prompt_type": "user", "template": "Hi {{ b }}", "defaults": {"b": 1},
        "validation": {"type": "object"},
        "config": {"tools": ["t"], "output": {"format": "xml"}}, "metadata": {"owner": "us"},
    })  # fmt: skip
    lost = write_foreign(source, Format.GITHUB).lost
    assert [each.partition(":")[0] for each in lost] == [
        "config.tools", "validation", "defaults", "metadata.owner", "config.output.format",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "source",
    [
        {"prompt_type": "model", "config": {"model": "m"}},
        {"prompt_type": "config", "config": {"k": 1}},
        {"prompt_type": "message", "messages": [{"role": "tool", "content": "x"}]},
    ],
)
def test_what_the_format_has_no_place_for_at_all_is_refused(source: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError):
        write_foreign(PromptSource.model_validate({"name": "a"} | source), Format.GITHUB)
