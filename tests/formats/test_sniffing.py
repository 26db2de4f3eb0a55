"""A file's format is told by what is in it, whatever its name."""

from __future__ import annotations

import contextlib

import pytest

from promptab.errors import InvalidInputError, PromptFileError
from promptab.formats import Format, read_foreign
from tests.formats.rendering import read

ROLES = "system:\nBe kind.\nuser:\nHi"


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("---\ninput: {schema: {name: string}}\n---\nHi {{name}}", Format.DOTPROMPT),
        ('---\nmodel: m\n---\n{{role "user"}}Hi', Format.DOTPROMPT),
        ("---\nmodel: m\n---\n{{#if a}}Hi{{/if}}", Format.DOTPROMPT),
        ("---\nacme.team: red\n---\nHi", Format.DOTPROMPT),
        ("{{#each a}}{{this}}{{/each}}", Format.DOTPROMPT),
        ("# licence\n\n---\nconfig: {}\n---\nHi", Format.DOTPROMPT),
        (f"---\nmodel: m\n---\n{ROLES}", Format.PROMPTY),
        ("---\nmodel: {api: chat}\n---\nHi", Format.PROMPTY),
        ("---\nmodel: {id: m}\n---\n{% if a %}Hi{% endif %}", Format.PROMPTY),
        ("---\ninputs: {name: Ada}\n---\nHi {{name}}", Format.PROMPTY),
        ("---\ntemplate: {format: mustache}\n---\nuser:\nHi", Format.PROMPTY),
        (ROLES, Format.PROMPTY),
        ("model: m\nmessages: [{role: user, content: Hi}]", Format.GITHUB),
        ('{"name": "a", "messages": [{"role": "user", "content": "Hi"}]}', Format.GITHUB),
        ("template: Hi", Format.DATAKNOBS),
        ("messages: [{role: user, content: Hi}]\nmetadata: {a: b}", Format.DATAKNOBS),
        ("adapter_name: a\nquery: b", Format.DATAKNOBS),
        ("prompt: Hi $name", Format.LLM),
        ("system: Be kind.\nmodel: m", Format.LLM),
    ],
)
@pytest.mark.parametrize("path", ["user/a.prompt", "user/a.yaml", "user/a.txt"])
def test_the_content_tells_the_format(text: str, form: Format, path: str) -> None:
    assert read(text, path=path).format == form


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("---\nmodel: m\n---\nHi {{name}}", ["dotprompt", "prompty"]),
        ("messages: [{role: user, content: Hi}]", ["github", "dataknobs"]),
    ],
)
def test_what_could_be_of_several_formats_is_refused_with_their_names(text: str, named: list[str]) -> None:
    with pytest.raises(PromptFileError, match="say which with --format") as refused:
        read(text)
    assert [form for form in Format if f"{form} (" in str(refused.value)] == named
    for form in named:
        assert read(text, Format(form), path="messages/a.yaml").format == form


@pytest.mark.parametrize(
    "text",
    [
        "Hi there",
        "",
        "a: b",
        "- a\n- b",
        "prompt: a\ntemperature: 1",
        "---\ninput: {}\ninputs: {}\n---\nHi",
        "---\nmodel: m\n---\nSystem: Be kind.\n{% if a %}{{#if b}}",
        "{ not: json",
    ],
)
def test_what_is_of_no_format_is_refused_with_all_that_were_tried(text: str) -> None:
    with pytest.raises(PromptFileError, match="none of the formats tried") as refused:
        read(text)
    assert all(form in str(refused.value) for form in Format)


@pytest.mark.parametrize(
    "text",
    [
        "---\npromptab: {tags: [a]}\n---\nHi",
        "template: Hi\nmodel: m\ninput: {}",
        "template: Hi\npromptab: {}",
    ],
)
def test_files_of_promptab_are_told_where_they_belong(text: str) -> None:
    with pytest.raises(PromptFileError, match="promptab's own, for prompts/"):
        read(text)


@pytest.mark.parametrize(
    "text",
    [
        "x\n" + " " * 200_000 + "x",
        "system" + " " * 200_000,
        "{{" * 40_000,
        "{{#if a}}" * 11_000,
        "((" * 50_000,
        "{% " * 60_000,
    ],
)
def test_hostile_texts_take_no_time_of_note(text: str) -> None:
    """Each would hang for minutes in a pattern, or a search, that begins anew at every place."""
    with pytest.raises(InvalidInputError):
        read(text)
    for form in Format:
        with contextlib.suppress(InvalidInputError):
            read(text, form, path="user/a.yaml")


@pytest.mark.parametrize("data", [b"\xff\xfe", b"a\x00b", b"---\na: \x07\n---\n"])
def test_what_is_no_text_is_refused(data: bytes) -> None:
    for form in (None, *Format):
        with pytest.raises(PromptFileError):
            read_foreign(data, path="user/a.yaml", form=form)
