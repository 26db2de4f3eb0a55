"""What is written reads back as exactly the same, in every format, whatever the content."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from promptab.cases import check_cases
from promptab.errors import InvalidInputError
from promptab.library import FileSystemPromptLibrary, PromptSource
from promptab.library.json_text import json_text, parse_json
from promptab.library.yaml_text import parse_yaml, yaml_text
from promptab.models import MessageTemplate, PromptType, VersionStatus

# Everything that a version may hold: no controls but the three white ones, no lone surrogates.
_letters = st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from(
    "\n\t\r\u2028\ufeff\ufffe'\"#:-{}[]%&*!|> "
)
texts = st.text(_letters, max_size=40)
lines = st.lists(texts, max_size=4).map("\n".join)
keys = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
# What YAML's two versions take for something else than text, and what blocks and fences trip over.
tricky = st.sampled_from(
    [
        "",
        "~",
        "null",
        "yes",
        "no",
        "on",
        "true",
        "True",
        "1",
        "1.0",
        "1e5",
        "-.5",
        "0o7",
        "0x1F",
        "1_000",
        "1:30",
        "2024-01-01",
        ".nan",
        "<<",
        "=",
        "---",
        "--- a",
        "...",
        "- a",
        "a: b",
        "a #b",
    ]
) | st.sampled_from(["|", " a", "a ", "\n", "\na", " \na", "a\n", "a\n\n"])
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | lines
    | tricky
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys | tricky, inner, max_size=3),
    max_leaves=8,
)


def _keys_are_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(not set(key) & set("\n\t\r") and _keys_are_plain(inner) for key, inner in value.items())
    return all(map(_keys_are_plain, value)) if isinstance(value, list) else True


# A key holds no line break or tab.
json_objects = st.dictionaries(keys, json_values, max_size=4).filter(_keys_are_plain)

# The template language is not the subject here: no delimiters, so that every text is a valid template.
templates = (texts | lines | tricky).filter(
    lambda text: not {"{{", "{%", "{#"} & {text[i : i + 2] for i in range(len(text))}
)
schemas = st.sampled_from(
    [
        None,
        {"type": "object"},
        {"type": "object", "additionalProperties": True},
        {"additionalProperties": True},
        {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False},
        {"properties": {"a": {}}, "required": ["a"], "additionalProperties": True},
        {"required": ["a"]},
        {},
        {"properties": {"name": {"type": ["string", "null"], "default": "x"}}},
    ]
)
standard_configs = st.fixed_dictionaries(
    {},
    optional={
        "model": texts,
        "parameters": json_objects,
        "tools": st.lists(json_values, max_size=2),
        "output": st.fixed_dictionaries(
            {},
            optional={
                "format": st.sampled_from(["json", "text", ""]),
                "schema": st.sampled_from(
                    [{}, {"type": "array"}, {"type": "object", "properties": {}}, {"description": "x"}]
                ),
            },
        ),
    },
).filter(_keys_are_plain)
requests: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{}, {"version": "1.2.0-rc.1"}, {"bump": "auto"}, {"bump": "major"}]
)


some_texts = st.lists(texts | tricky, max_size=2).map(lambda found: [text for text in found if text])
schema_of_answer = st.sampled_from([{}, {"type": "object"}, {"pattern": "^a+$"}])
expectations = st.fixed_dictionaries(
    {},
    optional={
        "contains": some_texts, "not_contains": some_texts, "starts_with": some_texts, "ends_with": some_texts,
        "equals": texts | tricky, "ignore_case": st.booleans(),
        "regex": some_texts.map(lambda found: [re.escape(text) for text in found]),
        "json_schema": schema_of_answer, "python": st.just(["a.b:c"]),
    },
)  # fmt: skip
cases = st.lists(
    st.fixed_dictionaries({}, optional={
        "variables": json_objects, "expect": expectations,
        "messages": st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": lines | tricky}), max_size=2),
    }),
    max_size=3,
).map(lambda found: check_cases("tests", found))  # fmt: skip


@st.composite
def sources(draw: st.DrawFn) -> PromptSource:
    """Any source that a file may declare."""
    kind = draw(st.sampled_from(PromptType))
    texts_of: dict[str, Any] = {}
    if kind is PromptType.MESSAGE and draw(st.booleans()):
        message = st.builds(
            MessageTemplate, role=st.sampled_from(["system", "user", "assistant"]), content=templates
        )
        texts_of["messages"] = tuple(draw(st.lists(message, min_size=1, max_size=3)))
    elif kind.has_template:
        texts_of["template"] = draw(templates.filter(bool) if kind is PromptType.MESSAGE else templates)
    config = draw(json_objects if kind is PromptType.CONFIG else standard_configs | json_objects)
    return PromptSource(
        name=draw(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,12}", fullmatch=True)),
        prompt_type=kind,
        defaults=draw(json_objects),
        validation=draw(schemas),
        config=config,
        metadata=draw(
            json_objects | st.fixed_dictionaries({"description": json_values}).filter(_keys_are_plain)
        ),
        status=draw(st.none() | st.sampled_from(VersionStatus)),
        tests=None if kind is PromptType.CONFIG else draw(st.none() | cases),
        tags=tuple(draw(st.lists(st.sampled_from(["staging", "a", "b:1"]), unique=True))),
        **texts_of,
        **draw(requests),
    )


@settings(max_examples=200, deadline=None)
@given(sources(), st.sampled_from([None, ".md", ".yaml", ".yml", ".json"]))
@example(
    # A block at the end of the front matter: the line break before the closing line belongs to it.
    PromptSource(
        name="a", prompt_type=PromptType.MESSAGE, messages=(MessageTemplate(role="user", content="Hi\n"),)
    ),
    ".md",
)
def test_written_source_loads_as_exactly_itself(source: PromptSource, existing: str | None) -> None:
    with TemporaryDirectory() as folder:
        library = FileSystemPromptLibrary(folder)
        if existing is not None:
            place = Path(folder, source.prompt_type, source.name + existing)
            place.parent.mkdir()
            place.write_bytes(b"")
        path = library.write(source)
        assert existing is None or path == place
        contents = library.load()
        assert contents.problems == ()
        [(key, file)] = contents.prompts.items()
        assert key == (source.prompt_type, source.name)
        assert file.path == path.relative_to(folder).as_posix()
        assert file.source == source
        assert file.source.fingerprint == source.fingerprint
        before = (path.read_bytes(), path.stat().st_ino)
        assert library.write(source) == path
        assert (path.read_bytes(), path.stat().st_ino) == before


@settings(deadline=None)
@given(json_values.filter(_keys_are_plain))
@example("1e5")
def test_yaml_text_reads_back_exactly(value: Any) -> None:
    again = parse_yaml(yaml_text({"value": value}), path="x").value["value"]
    assert repr(again) == repr(value)


@settings(deadline=None)
@given(json_values.filter(_keys_are_plain))
def test_json_text_reads_back_exactly(value: Any) -> None:
    assert repr(parse_json(json_text(value), path="x").value) == repr(value)


@settings(deadline=None)
@given(json_values.filter(_keys_are_plain))
def test_readers_of_yaml_1_1_see_the_same(value: Any) -> None:
    # PyYAML's own loader follows 1.1, where plain `no`, `1:30` and `2024-01-01` are not texts.
    assert repr(yaml.safe_load(yaml_text({"value": value}))["value"]) == repr(value)


def a_source(**parts: Any) -> PromptSource:
    return PromptSource(**({"name": "a", "prompt_type": "system", "template": "Hi"} | parts))


@pytest.mark.parametrize(
    ("source", "path"),
    [
        (a_source(), "system/a.md"),
        (a_source(template="Hi\n"), "system/a.yaml"),
        (a_source(template="\r"), "system/a.yaml"),
        (a_source(template=""), "system/a.yaml"),
        (a_source(prompt_type="message"), "message/a.md"),
        (
            a_source(prompt_type="message", template="", messages=({"role": "user", "content": "Hi"},)),
            "message/a.yaml",
        ),
        (a_source(prompt_type="model", template="", config={"model": "m"}), "model/a.yaml"),
        (a_source(prompt_type="config", template=""), "config/a.yaml"),
    ],
)
def test_new_file_has_the_format_that_fits(tmp_path: Path, source: PromptSource, path: str) -> None:
    assert FileSystemPromptLibrary(tmp_path).write(source) == tmp_path / path


def test_written_markdown_is_as_a_person_would_write_it(tmp_path: Path) -> None:
    source = a_source(
        template="Hi {{ name }},\n\nhow are you?",
        config={"model": "m", "parameters": {"temperature": 0.5}},
        validation={
            "type": "object",
            "properties": {"name": {"type": "string"}},
            "additionalProperties": True,
        },
        metadata={"description": "A greeting.", "owner": "us"},
        bump="minor",
        tags=("warm",),
    )
    path = FileSystemPromptLibrary(tmp_path).write(source)
    assert path.read_text() == (
        "---\n"
        "description: A greeting.\n"
        "model: m\n"
        "config:\n"
        "  temperature: 0.5\n"
        "input:\n"
        "  schema:\n"
        "    type: object\n"
        "    properties:\n"
        "      name:\n"
        "        type: string\n"
        "metadata:\n"
        "  owner: us\n"
        "promptab:\n"
        "  bump: minor\n"
        "  tags:\n"
        "    - warm\n"
        "  extras: true\n"
        "---\n"
        "Hi {{ name }},\n\nhow are you?\n"
    )


def test_file_that_declares_the_source_already_keeps_its_comments(tmp_path: Path) -> None:
    (tmp_path / "system").mkdir()
    path = tmp_path / "system" / "a.md"
    path.write_text("---\n# why: the customers asked for it\nmodel:   m\n---\n\n\nHi\n\n")
    before = path.read_bytes()
    FileSystemPromptLibrary(tmp_path).write(a_source(config={"model": "m"}))
    assert path.read_bytes() == before


def test_replaced_file_keeps_its_permissions(tmp_path: Path) -> None:
    library = FileSystemPromptLibrary(tmp_path)
    path = library.write(a_source())
    path.chmod(0o640)
    library.write(a_source(template="Hello"))
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.read_text() == "Hello\n"


def test_read_only_views_and_tuples_are_written_as_plain_json(tmp_path: Path) -> None:
    source = a_source(
        config={"model": "m", "tools": ("search",), "parameters": MappingProxyType({"a": (1, 2)})}
    )
    library = FileSystemPromptLibrary(tmp_path)
    library.write(source)
    again = library.get("a", "system")
    assert again is not None
    assert again.config == {"model": "m", "tools": ["search"], "parameters": {"a": [1, 2]}}


def test_new_chat_goes_into_the_folder_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "messages").mkdir()
    chat = a_source(prompt_type="message", template="", messages=({"role": "user", "content": "Hi"},))
    assert FileSystemPromptLibrary(tmp_path).write(chat) == tmp_path / "messages" / "a.yaml"


@pytest.mark.parametrize(
    ("source", "field"),
    [
        (a_source(name="../a"), "name"),
        (a_source(name="a/b"), "name"),
        (a_source(name=""), "name"),
        (a_source(name=".a"), "name"),
        (a_source(name="a\0"), "name"),
        (a_source(messages=({"role": "user", "content": "Hi"},)), "messages"),
        (a_source(prompt_type="message", template=""), "messages"),
        (a_source(prompt_type="message", messages=({"role": "user", "content": "Hi"},)), "template"),
        (a_source(prompt_type="config"), "template"),
        (a_source(config={"a": float("nan")}), "config.a"),
        (a_source(metadata={"a": "\0"}), "metadata.a"),
        (a_source(defaults={"a": object()}), "defaults.a"),
        (a_source(version="1.0"), "version"),
        (a_source(bump="huge"), "bump"),
        (a_source(bump="auto", version="1.0.0"), "bump"),
        (a_source(tags=("1",)), "tags"),
        (a_source(tags=("a", "a")), "tags"),
        (a_source(template="{% if %}"), "file"),
        (a_source(template="\ud800"), "template"),
        (a_source(template="a\0b"), "template"),
        (a_source(validation={"type": "nonsense"}), "file"),
        (a_source(validation={"level": "error", "required_params": ["a"]}), "source"),
        (a_source(template="x" * 100_001), "template"),
    ],
)
def test_source_that_no_file_may_declare_is_refused_and_leaves_nothing(
    tmp_path: Path, source: PromptSource, field: str
) -> None:
    with pytest.raises(InvalidInputError) as refused:
        FileSystemPromptLibrary(tmp_path).write(source)
    assert refused.value.field == field
    assert list(tmp_path.iterdir()) == []


def test_refused_source_leaves_an_existing_file_alone(tmp_path: Path) -> None:
    library = FileSystemPromptLibrary(tmp_path)
    path = library.write(a_source())
    for bad in (a_source(defaults={"a": object()}), a_source(template="{% if %}"), a_source(tags=("1",))):
        with pytest.raises(InvalidInputError):
            library.write(bad)
    assert path.read_text() == "Hi\n"


def test_name_that_differs_in_case_only_is_refused(tmp_path: Path) -> None:
    library = FileSystemPromptLibrary(tmp_path)
    library.write(a_source(name="Tone"))
    with pytest.raises(InvalidInputError, match="upper and lower case"):
        library.write(a_source(name="tone"))
